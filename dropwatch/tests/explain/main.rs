//! What `dropwatch explain` knows and shows: no test here needs root.
//!
//! The host is an excerpt of a real one (`tests/fixtures/hosts/README.md`), so pages do not change
//! with the machine that the tests run on.

mod pages;
mod rows;
mod rules;
mod table;

use std::path::PathBuf;

use dropwatch::{
    diagnose::knowledge::{self, Table},
    kernel::HostRoot,
};

/// Fixtures with drop reasons, oldest kernel first.
const HOSTS: [&str; 4] = ["6.1", "6.12", "6.18", "7.2"];

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn host(name: &str) -> HostRoot {
    HostRoot::new(fixtures().join("hosts").join(name))
}

fn known() -> &'static Table {
    knowledge::table().expect("the table in the program parses")
}
