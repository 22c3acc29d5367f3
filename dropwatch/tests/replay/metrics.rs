//! Totals as metrics: exact, bounded, and whole whatever names hold.

use dropwatch::{
    render::metrics::{Exposition, page},
    report::{
        conntrack::{Counter, Counters},
        facts::Netns,
        finding::{Finding, Severity},
        model::{Line, Lost, Report},
        options::Options,
        totals::{MOST_PLACES, Totals, Tracked},
    },
};
use insta::assert_snapshot;

use crate::support::{run, snapshot};

/// When, how many where and why, and what was lost.
type Reading<'a> = (u64, &'a [(u64, u32, u64)], Lost);

fn reports(snapshots: &[Reading<'_>]) -> Vec<Report> {
    let snapshots: Vec<_> = snapshots
        .iter()
        .map(|(millis, drops, lost)| (snapshot(*millis, drops, *lost), 1))
        .collect();
    let lines = run(Options::default(), &[], &snapshots);
    lines
        .into_iter()
        .filter_map(|line| match line {
            Line::Report(report) => Some(report),
            Line::Start(_) | Line::Sample(_) | Line::End(_) => None,
        })
        .collect()
}

fn totals() -> Totals {
    Totals::new("1.2.3".to_owned(), 5.0)
}

fn tracked(name: &str, inum: u32, entries: u64, drops: u32) -> Tracked {
    let mut counters = Counters::default();
    counters.add(Counter::Drop, drops);
    let netns = Netns { name: Some(name.to_owned()), inum };
    Tracked { netns, entries, limit: Some(1000), counters }
}

fn finding(rule: &str, netns: &str) -> Finding {
    Finding {
        rule: rule.to_owned(),
        severity: Severity::Critical,
        netns: Some(Netns { name: Some(netns.to_owned()), inum: 1 }),
        title: String::new(),
        explains: None,
        evidence: Vec::new(),
        actions: Vec::new(),
    }
}

/// The value of the only sample that begins so.
fn value(page: &str, sample: &str) -> u64 {
    let mut found = page.lines().filter(|line| line.starts_with(sample));
    let line = found.next().unwrap_or_else(|| panic!("no {sample} in {page}"));
    assert_eq!(found.next(), None, "{sample} is there twice");
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_page_in_both_formats() {
    let nested = Lost { recursion: 2, ..Lost::default() };
    let mut reports = reports(&[
        (5_000, &[(1, 1, 4), (3, 4, 1)], Lost::default()),
        (10_000, &[(1, 1, 9), (3, 4, 1), (99, 2, 7)], nested),
    ]);
    let evil = "a\"b\\c\nd\u{1b}[2J";
    reports[1].findings = vec![finding("program", evil), finding("program", evil)];
    let mut totals = totals();
    totals.add(&reports[0], vec![tracked("gw", 7, 180, 5)]);
    totals.add(&reports[1], vec![tracked("gw", 7, 190, 12)]);
    assert_eq!(totals.drops(), 9 + 1 + 7 + 2);
    assert_snapshot!("openmetrics", page(&totals, Exposition::OpenMetrics));
    assert_snapshot!("text", page(&totals, Exposition::Text));
}

#[test]
fn what_finds_no_room_is_in_the_sum() {
    let mut totals = totals();
    let mut report = reports(&[(5_000, &[(0, 2, 3)], Lost::default())]).remove(0);
    let row = report.locations[0].clone();
    let rows = MOST_PLACES as u64 + 10;
    report.locations = (0..rows)
        .map(|n| {
            let mut row = row.clone();
            row.symbol = Some(format!("f{n}"));
            row
        })
        .collect();
    totals.add(&report, Vec::new());
    totals.add(&report, Vec::new());
    assert_eq!(totals.places.len(), MOST_PLACES);
    assert_eq!(totals.drops(), 2 * 3 * rows);
    let page = page(&totals, Exposition::Text);
    // One place is for what is unknown.
    assert_eq!(value(&page, "dropwatch_drops_total{symbol=\"other\""), 2 * 3 * 11);
    let sum: u64 = page
        .lines()
        .filter(|line| line.starts_with("dropwatch_drops_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(sum, totals.drops());
}

#[test]
fn conntrack_counts_from_the_start_of_the_run_and_across_wraps() {
    let reports = reports(&[
        (1_000, &[(0, 2, 1)], Lost::default()),
        (2_000, &[(0, 2, 2)], Lost::default()),
        (3_000, &[(0, 2, 3)], Lost::default()),
    ]);
    let mut totals = totals();
    let drops = |totals: &Totals| {
        value(&page(totals, Exposition::Text), "dropwatch_conntrack_drops_total{netns=\"gw\"}")
    };
    totals.add(&reports[0], vec![tracked("gw", 7, 1, u32::MAX - 1)]);
    assert_eq!(drops(&totals), 0, "what was counted before is none of this run's");
    totals.add(&reports[1], vec![tracked("gw", 7, 1, 3), tracked("gw", 8, 2, 100)]);
    assert_eq!(drops(&totals), 5);
    let entries = page(&totals, Exposition::Text);
    assert_eq!(value(&entries, "dropwatch_conntrack_entries{netns=\"gw\"}"), 3, "of both");
    totals.add(&reports[2], Vec::new());
    assert!(!page(&totals, Exposition::Text).contains("conntrack"), "it has ended");
}
