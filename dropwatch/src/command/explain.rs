//! `dropwatch explain`: what a drop reason, a function, a row or a finding means, what to check, what
//! to change, with the values that this host has now.

use std::{collections::BTreeMap, io};

use anyhow::anyhow;

use crate::{
    diagnose::knowledge::{self, CounterEntry, Explanation, KnowledgeTable, Quantity, RuleEntry},
    exit::Failure,
    kernel::{HostRoot, counters},
    render::{
        Medium,
        explain::{self, ExplainPage, Explained, HostValue, Numbered},
    },
    report::evidence::Counters,
    sink::output::ended_by_reader,
};

/// Prints what is known about `words`, which are a name, row or topic, or some of them; a list of
/// everything where there are none.
///
/// # Errors
/// A wrong command line, with suggestions: something of them is not known. What is known was printed
/// then.
pub fn explain(words: &[String], json: bool, medium: Medium) -> Result<(), Failure> {
    let table =
        knowledge::table().map_err(|error| anyhow!("the knowledge table is damaged: {error}"))?;
    let out = &mut io::stdout().lock();
    let mut unknown = None;
    let written = match words {
        [] if json => explain::json(&table.entries, out),
        [] => explain::list(table, medium, out),
        words => {
            let page = page(table, words, &HostRoot::default())?;
            unknown = table.not_known(&page.not_known);
            if json { explain::json(&page, out) } else { explain::page(&page, medium, out) }
        }
    };
    ended_by_reader(written)?;
    match unknown {
        Some(unknown) => Err(Failure::Usage(unknown.to_string())),
        None => Ok(()),
    }
}

/// What `table` knows about `words`, with the values of the host at `root`.
///
/// # Errors
/// Nothing is known about them, or about one of a list of names.
pub fn page<'a>(
    table: &'a KnowledgeTable,
    words: &[impl AsRef<str>],
    root: &HostRoot,
) -> Result<ExplainPage<'a>, Failure> {
    let counters = counters::read(root);
    let names: Vec<String> = counters.iter().map(|(name, _)| name.to_owned()).collect();
    let answer =
        table.find_all(words, &names).map_err(|unknown| Failure::Usage(unknown.to_string()))?;
    let values = values(table, &answer, &counters, root);
    let explained = |rule: &'a RuleEntry| Explained { rule, change: rule.knobs(table).collect() };
    Ok(ExplainPage {
        words: answer.words,
        counters: answer.counters.into_iter().map(Numbered::from).collect(),
        topics: answer.topics,
        rules: answer.rules.into_iter().map(explained).collect(),
        explained: answer.full,
        related_rules: answer.brief_rules,
        related: answer.brief,
        functions: answer.functions,
        not_known: answer.not_known,
        values,
    })
}

/// Values of all quantities that are shown in full.
fn values(
    table: &KnowledgeTable,
    answer: &Explanation<'_>,
    counters: &Counters,
    root: &HostRoot,
) -> BTreeMap<String, HostValue> {
    let value = |quantity: &Quantity| {
        let found = match quantity {
            Quantity::Counter(name) => counters.get(name).map(HostValue::Counter),
            Quantity::Sysctl(name) => root.sysctl(name).ok().map(HostValue::Sysctl),
        };
        found.unwrap_or_else(|| HostValue::Absent {
            needs: table.needs.get(quantity.name()).cloned(),
        })
    };
    let of_rules = answer.rules.iter().flat_map(|rule| rule.quantities());
    let of_entries = answer.full.iter().flat_map(|entry| entry.quantities());
    let asked = answer.counters.iter().flat_map(|counter| &counter.names);
    // Those of devices and of connection tracking have no value here.
    let asked = asked.filter(|name| CounterEntry::shown_by(name).is_none()).cloned();
    let quantities = of_rules.chain(of_entries).chain(asked.map(Quantity::Counter));
    quantities.map(|quantity| (quantity.name().to_owned(), value(&quantity))).collect()
}
