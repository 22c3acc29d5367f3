//! What `dropwatch explain` knows and shows: no test here needs root.
//!
//! The host is an excerpt of a real one (`tests/fixtures/hosts/README.md`), so pages do not change
//! with the machine that the tests run on.

mod causes;
mod counters;
#[path = "../fixtures/hosts.rs"]
mod hosts;
mod lines;
mod meaningless;
mod outputs;
mod pages;
mod rows;
mod rules;
mod several;
mod silence;
mod table;
mod unsaid;
mod words;

use std::path::PathBuf;

use dropwatch::{
    command::explain,
    diagnose::knowledge::{self, KnowledgeTable},
    exit::Failure,
    kernel::HostRoot,
    render::explain::ExplainPage,
};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn host(name: &str) -> HostRoot {
    HostRoot::new(fixtures().join("hosts").join(name))
}

fn known() -> &'static KnowledgeTable {
    knowledge::table().expect("the table in the program parses")
}

/// What is known about one text.
fn explained(text: &str) -> Result<ExplainPage<'static>, Failure> {
    explain::page(known(), &[text], &host("6.18"))
}

/// Rules of a page, in full and listed.
fn rules_of(page: &ExplainPage<'static>) -> Vec<&'static str> {
    let full = page.rules.iter().map(|explained| explained.rule);
    full.chain(page.related_rules.iter().copied()).map(|rule| rule.rule.as_str()).collect()
}

/// Drop reasons of a page's entries, in full and listed.
fn reasons_of(page: &ExplainPage<'static>) -> Vec<&'static str> {
    let entries = page.explained.iter().chain(&page.related);
    entries.flat_map(|entry| &entry.reasons).map(String::as_str).collect()
}
