//! Every finding is made by a scenario that causes it for real, and the page about them is kept.

use std::collections::BTreeSet;

use dropwatch::diagnose::rules::kinds;
use testbed::scenario::{
    page,
    rules::{self, End, OPEN},
};

#[test]
fn every_finding_is_made_by_a_scenario_or_is_open() {
    let made: BTreeSet<&str> = rules::list().flat_map(|it| it.finds).copied().collect();
    let open: BTreeSet<&str> = OPEN.iter().map(|(finding, _)| *finding).collect();
    assert_eq!(made.intersection(&open).count(), 0, "an open one is made");
    let all: BTreeSet<&str> = kinds().map(|kind| kind.name).collect();
    let told: BTreeSet<&str> = made.union(&open).copied().collect();
    assert_eq!(told, all, "a finding needs a scenario");
    // Whoever opens another one says so here.
    assert_eq!(open.len(), 2);
}

#[test]
fn every_finding_has_a_counter_example() {
    for finding in rules::list().flat_map(|it| it.finds) {
        let mut makers = rules::list().filter(|it| it.finds.contains(finding));
        assert!(makers.any(|it| !matches!(it.end, End::Never(_))), "{finding}");
    }
    assert!(rules::list().filter(|it| it.end == End::Healthy).all(|it| it.finds.is_empty()));
    assert!(rules::list().filter(|it| it.finds.is_empty()).all(|it| it.end == End::Healthy));
    // Whoever cannot end another one says so here.
    assert_eq!(rules::list().filter(|it| matches!(it.end, End::Never(_))).count(), 3);
}

#[test]
fn names_are_their_own_and_findings_in_order() {
    let names: BTreeSet<&str> = rules::list().map(|it| it.name).collect();
    assert_eq!(names.len(), rules::list().count());
    for scenario in rules::list() {
        assert!(scenario.finds.is_sorted(), "{}", scenario.name);
    }
}

/// `cargo xtask scenario all --write-docs` writes it.
#[test]
fn the_page_has_every_scenario_and_every_finding() {
    let is_current = include_str!("../../docs/scenarios.md") == page();
    assert!(
        is_current,
        "a scenario or a finding has come or gone since docs/scenarios.md was written"
    );
}
