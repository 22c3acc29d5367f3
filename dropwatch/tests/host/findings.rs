//! Every rule, on real drops: found where its cause is, gone after its own command, and silent
//! where nothing is wrong.

use testbed::scenario::rules;

use crate::harness::{Run, binary};

/// `cargo xtask scenario all`.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn every_scenario_leads_to_its_finding_and_no_other() {
    let mut failed = Vec::new();
    for scenario in rules::list() {
        println!("{}", scenario.name);
        if let Err(error) = scenario.run(&binary(), &mut std::io::stdout()) {
            failed.push(format!("{}: {error:#}", scenario.name));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// A host at rest has nothing to find, and one that is told not to look finds nothing.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn nothing_is_found_where_nothing_happens() {
    let recording = Run::start(&["-i", "300ms", "-c", "4"]).finish();
    let found: Vec<_> = recording.reports.iter().flat_map(|report| &report.findings).collect();
    assert!(found.is_empty(), "{found:#?}");
}
