//! `dropwatch explain`: what a drop reason, a function, a row or a finding means, what to check, what
//! to change, with the values that this host has now.

use std::{collections::BTreeMap, io};

use anyhow::anyhow;

use crate::{
    diagnose::knowledge::{self, Answer, Entry, Quantity, Rule, Table},
    exit::Failure,
    kernel::{HostRoot, counters},
    output::ended_by_reader,
    render::{
        Medium,
        explain::{self, Explained, Page, Value},
    },
};

/// Prints what is known about `words`, which are one name, row or topic; a list of everything where
/// there are none.
///
/// # Errors
/// Nothing is known about them: a wrong command line, with suggestions.
pub fn explain(words: &[String], json: bool, medium: Medium) -> Result<(), Failure> {
    let table =
        knowledge::table().map_err(|error| anyhow!("the knowledge table is damaged: {error}"))?;
    let out = &mut io::stdout().lock();
    let name = (!words.is_empty()).then(|| words.join(" "));
    let written = match name {
        None if json => explain::json(&table.entries, out),
        None => explain::list(table, medium, out),
        Some(name) => {
            let page = page(table, &name, &HostRoot::default())?;
            if json { explain::json(&page, out) } else { explain::page(&page, medium, out) }
        }
    };
    ended_by_reader(written).map(drop)
}

/// What `table` knows about `name`, with the values of the host at `root`.
///
/// # Errors
/// Nothing is known about `name`.
pub fn page<'a>(table: &'a Table, name: &str, root: &HostRoot) -> Result<Page<'a>, Failure> {
    let answer = table.find(name).map_err(|unknown| Failure::Usage(unknown.to_string()))?;
    let Answer { rules, full, brief_rules, brief } = answer;
    let values = values(table, &rules, &full, root);
    let explained = |rule: &'a Rule| Explained { rule, change: rule.knobs(table).collect() };
    let rules = rules.into_iter().map(explained).collect();
    Ok(Page { rules, explained: full, related_rules: brief_rules, related: brief, values })
}

/// Values of all quantities that `rules` and `entries` name.
fn values(
    table: &Table,
    rules: &[&Rule],
    entries: &[&Entry],
    root: &HostRoot,
) -> BTreeMap<String, Value> {
    let counters = counters::read(root);
    let value = |quantity: &Quantity| {
        let found = match quantity {
            Quantity::Counter(name) => counters.get(name).map(Value::Counter),
            Quantity::Sysctl(name) => root.sysctl(name).ok().map(Value::Sysctl),
        };
        found.unwrap_or_else(|| Value::Absent { needs: table.needs.get(quantity.name()).cloned() })
    };
    let of_rules = rules.iter().flat_map(|rule| rule.quantities());
    let quantities = of_rules.chain(entries.iter().flat_map(|entry| entry.quantities()));
    quantities.map(|quantity| (quantity.name().to_owned(), value(&quantity))).collect()
}
