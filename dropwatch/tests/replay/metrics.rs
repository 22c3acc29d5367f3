//! Totals as metrics: exact, bounded, and whole whatever names hold.

use std::collections::{BTreeMap, BTreeSet};

use dropwatch::{
    render::metrics::{Exposition, page},
    report::{
        conntrack::{ConntrackCounter, ConntrackCounters},
        facts::{Interface, Netns},
        finding::{Explains, Finding, Severity},
        model::{
            Line, Lost, Report,
            groups::{By, GroupRow, Groups},
        },
        namespaces::NamespaceDrops,
        options::Options,
        summary::Summing,
        totals::{MOST_ENDED, MOST_FINDINGS, MOST_PLACES, MOST_RULES, NAMESPACES, Totals, Tracked},
        view::truncate,
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
    Totals::new("1.2.3".to_owned(), 5.0, NAMESPACES)
}

fn tracked(name: &str, inum: u32, entries: u64, drops: u32) -> Tracked {
    let mut counters = ConntrackCounters::default();
    counters.add(ConntrackCounter::Drop, drops);
    let netns = Netns::new(Some(name.to_owned()), inum);
    Tracked { netns, entries, limit: Some(1000), counters }
}

fn finding(rule: &str, netns: &str) -> Finding {
    Finding {
        rule: rule.to_owned(),
        severity: Severity::Critical,
        netns: Some(Netns::new(Some(netns.to_owned()), 1)),
        subject: String::new(),
        title: String::new(),
        object: None,
        explains: None,
        evidence: Vec::new(),
        actions: Vec::new(),
        unreachable: None,
        places: Vec::new(),
    }
}

/// A page of both formats, checked.
fn checked(totals: &Totals) -> String {
    conforms(&page(totals, Exposition::OpenMetrics));
    page(totals, Exposition::Text)
}

/// What OpenMetrics 1.0 asks of a page: families each in one piece, with their metadata first and
/// once, samples named after them, no labels twice, the unit in the name, an end.
pub(crate) fn conforms(page: &str) {
    let body = page.strip_suffix("# EOF\n").expect("no end");
    let mut families = BTreeMap::new();
    let mut family = (String::new(), String::new());
    let mut series = BTreeSet::new();
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(!text.is_empty());
            assert_eq!(families.insert(name.to_owned(), 0), None, "{name} comes in two pieces");
            family = (name.to_owned(), String::new());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            assert_eq!(families[&family.0], 0, "the type comes first: {line}");
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, family.0);
            family.1 = match kind {
                "counter" => "_total",
                "info" => "_info",
                "gauge" => "",
                _ => panic!("unknown type: {line}"),
            }
            .to_owned();
        } else if let Some(unit) = line.strip_prefix("# UNIT ") {
            let (name, unit) = unit.split_once(' ').unwrap();
            assert!(name == family.0 && name.ends_with(&format!("_{unit}")), "{line}");
        } else {
            let (labelled, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
            let name = labelled.split('{').next().unwrap();
            assert_eq!(name, format!("{}{}", family.0, family.1));
            assert!(series.insert(labelled.to_owned()), "{labelled} is there twice");
            *families.get_mut(&family.0).unwrap() += 1;
        }
    }
}

/// The sum of all samples of a metric whose labels hold this.
fn sum(page: &str, metric: &str, labels: &str) -> u64 {
    page.lines()
        .filter(|line| line.starts_with(&format!("{metric}{{")) && line.contains(labels))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// How many samples a metric has.
fn samples(page: &str, metric: &str) -> usize {
    page.lines().filter(|line| line.starts_with(&format!("{metric}{{"))).count()
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
        (5_000, &[(1, 1, 4), (2, 3, 30), (3, 4, 1)], Lost::default()),
        (10_000, &[(1, 1, 9), (2, 3, 31), (3, 4, 1), (99, 2, 7)], nested),
    ]);
    let evil = "a\"b\\c\nd\u{1b}[2J";
    reports[1].findings = vec![finding("program", evil), finding("program", evil)];
    let mut totals = totals();
    let of = |name: &str, inum, count| NamespaceDrops {
        name: Some(name.to_owned()),
        inum: Some(inum),
        count,
        ..NamespaceDrops::default()
    };
    // The rest of the row's drops is unknown.
    reports[1].locations[0].namespaces = vec![of("gw", 7, 4), of(evil, 8, 2)];
    let group = |name: &str, inum, index, count| GroupRow {
        netns: Some(Netns::new(Some(name.to_owned()), inum)),
        interface: Some(Interface { name: (index == 2).then(|| "eth0".to_owned()), index }),
        count,
        ..GroupRow::default()
    };
    reports[1].groups = Some(Box::new(Groups {
        by: vec![By::Iface],
        drops: 15,
        rows: vec![group("gw", 7, 2, 9), group(evil, 8, 3, 5)],
        unknown: 1,
        other: 0,
    }));
    totals.add(&reports[0], vec![tracked("gw", 7, 180, 5)]);
    totals.add(&reports[1], vec![tracked("gw", 7, 190, 12)]);
    assert_eq!(totals.drops(), 9 + 31 + 1 + 7 + 2);
    checked(&totals);
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
            row.place.symbol = Some(format!("f{n}"));
            row
        })
        .collect();
    report.locations.push({
        let mut row = row;
        row.place.symbol = Some("late".to_owned());
        (row.benign, row.count) = (true, 5);
        row
    });
    totals.add(&report, Vec::new());
    totals.add(&report, Vec::new());
    assert_eq!(totals.places.len(), MOST_PLACES);
    assert_eq!(totals.drops(), 2 * 3 * rows + 2 * 5);
    let page = checked(&totals);
    // One place is for what is unknown.
    let other = "dropwatch_drops_total{symbol=\"other\",module=\"\",reason=\"\",subsystem=\"\",";
    assert_eq!(value(&page, &format!("{other}benign=\"false\"")), 2 * 3 * 11);
    assert_eq!(value(&page, &format!("{other}benign=\"true\"")), 2 * 5);
    assert_eq!(sum(&page, "dropwatch_drops_total", ""), totals.drops());
}

/// `--fail-over` counts what is not known to be harmless: metrics and it are one truth, also of a
/// recording whose rows were cut.
#[test]
fn harmless_drops_are_apart() {
    let reports = reports(&[
        (5_000, &[(1, 1, 4), (2, 3, 9_000)], Lost::default()),
        (10_000, &[(0, 2, 1), (1, 1, 9), (2, 3, 9_500), (3, 4, 2)], Lost::default()),
    ]);
    for rows in [0, 1, 2, 10] {
        let (mut totals, mut summing) = (totals(), Summing::default());
        for report in &reports {
            let mut report = report.clone();
            truncate(&mut report, rows);
            totals.add(&report, Vec::new());
            summing.add(&report);
        }
        let page = checked(&totals);
        let drops = |labels| sum(&page, "dropwatch_drops_total", labels);
        assert_eq!(drops("benign=\"true\""), 9_500, "{rows} rows");
        assert_eq!(drops("benign=\"false\""), 12, "{rows} rows");
        assert_eq!(drops("benign=\"false\""), summing.harmful());
        assert_eq!(drops(""), 9_512);
    }
}

/// Scrapes see one report of three: what the others found is in the counters.
#[test]
fn findings_between_two_scrapes_are_counted() {
    let mut reports = reports(&[
        (5_000, &[(0, 2, 10)], Lost::default()),
        (10_000, &[(0, 2, 30)], Lost::default()),
        (15_000, &[(0, 2, 31)], Lost::default()),
    ]);
    let explaining = |netns, drops| Finding {
        explains: Some(Explains::of(drops, 20)),
        ..finding("conntrack_table_full", netns)
    };
    reports[0].findings = vec![explaining("gw", 10)];
    // Two of a kind in one report, and one that no drop event shows.
    reports[1].findings =
        vec![explaining("gw", 7), explaining("gw", 5), finding("accept_queue_full", "web")];
    let mut totals = totals();
    for report in &reports {
        totals.add(report, Vec::new());
    }
    let page = checked(&totals);
    assert_eq!(samples(&page, "dropwatch_findings"), 0, "the last report found nothing");
    let of = |metric: &str, rule: &str, netns: &str| {
        let labels = format!("rule=\"{rule}\",severity=\"critical\",netns=\"{netns}\"");
        value(&page, &format!("dropwatch_finding_{metric}_total{{{labels}}}"))
    };
    assert_eq!(of("reports", "conntrack_table_full", "gw"), 2);
    assert_eq!(of("drops", "conntrack_table_full", "gw"), 22);
    assert_eq!(of("reports", "accept_queue_full", "web"), 1);
    assert_eq!(of("drops", "accept_queue_full", "web"), 0);
}

#[test]
fn findings_have_a_bounded_number_of_series() {
    let mut report = reports(&[(5_000, &[(0, 2, 10)], Lost::default())]).remove(0);
    let mut totals = totals();
    let count = MOST_FINDINGS + 500;
    for round in 0..2 {
        for n in 0..count {
            report.findings = vec![finding("closed_port", &format!("pod-{n}"))];
            totals.add(&report, Vec::new());
        }
        let page = checked(&totals);
        assert_eq!(samples(&page, "dropwatch_finding_reports_total"), MOST_FINDINGS + 1);
        let all = (round + 1) * count as u64;
        assert_eq!(sum(&page, "dropwatch_finding_reports_total", ""), all);
        let other = "rule=\"closed_port\",severity=\"critical\",netns=\"other\"";
        assert_eq!(sum(&page, "dropwatch_finding_reports_total", other), (round + 1) * 500);
    }
    // A recording may name any number of rules, too.
    for n in 0..2 * MOST_RULES {
        report.findings = vec![finding(&format!("rule-{n}"), "gw")];
        totals.add(&report, Vec::new());
    }
    let page = checked(&totals);
    let most = MOST_FINDINGS + MOST_RULES + 1;
    assert_eq!(samples(&page, "dropwatch_finding_reports_total"), most);
    assert_eq!(samples(&page, "dropwatch_finding_drops_total"), most);
    let all = 2 * count as u64 + 2 * MOST_RULES as u64;
    assert_eq!(sum(&page, "dropwatch_finding_reports_total", ""), all);
}

/// Names are anyone's choice: no two of them may make one series twice, which scrapers refuse.
#[test]
fn names_that_look_alike_are_one_series() {
    let mut report = reports(&[(5_000, &[(1, 1, 4), (2, 3, 30)], Lost::default())]).remove(0);
    report.locations[0].place.symbol = Some("other".into());
    report.locations[1].place.symbol = Some("other".into());
    report.locations[0].place.reason = None;
    report.locations[1].place.reason = None;
    report.locations[0].place.subsystem = None;
    report.locations[1].place.subsystem = None;
    report.findings = ["a\u{1b}", "a\u{9b}", "other"].map(|name| finding("x", name)).to_vec();
    let mut totals = totals();
    let tables = vec![tracked("a\u{1b}", 7, 1, 5), tracked("a\u{9b}", 8, 2, 5)];
    totals.add(&report, tables);
    let page = checked(&totals);
    assert_eq!(sum(&page, "dropwatch_findings", "a\u{fffd}"), 2);
    assert_eq!(sum(&page, "dropwatch_conntrack_entries", "a\u{fffd}"), 3);
    assert_eq!(sum(&page, "dropwatch_conntrack_limit", "a\u{fffd}"), 1000);
    assert_eq!(sum(&page, "dropwatch_drops_total", "symbol=\"other\""), 34);
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
    let ended = checked(&totals);
    assert!(!ended.contains("conntrack_entries") && !ended.contains("conntrack_limit"));
    assert_eq!(drops(&totals), 5, "a counter never falls, whatever ends");
}

/// Namespaces come and go, as those of containers do, under the same name or another.
#[test]
fn what_ended_namespaces_refused_stays_counted() {
    let report = reports(&[(1_000, &[(0, 2, 1)], Lost::default())]).remove(0);
    let mut totals = totals();
    let mut inum = 100;
    let mut live = |totals: &mut Totals, name: &str, refused: u32| {
        inum += 1;
        totals.add(&report, vec![tracked(name, inum, 1, 0)]);
        totals.add(&report, vec![tracked(name, inum, 1, refused)]);
        totals.add(&report, Vec::new());
    };
    for _ in 0..3 {
        live(&mut totals, "pod", 7);
    }
    assert_eq!(sum(&checked(&totals), "dropwatch_conntrack_drops_total", "netns=\"pod\""), 21);
    // Those that refused nothing take no room for good; those that did, a bounded one.
    for n in 0..MOST_ENDED + 50 {
        live(&mut totals, &format!("quiet-{n}"), 0);
        live(&mut totals, &format!("busy-{n}"), 2);
    }
    let page = checked(&totals);
    assert!(samples(&page, "dropwatch_conntrack_drops_total") <= MOST_ENDED + 1);
    assert!(!page.contains("quiet"), "{page}");
    let all = 21 + 2 * (MOST_ENDED as u64 + 50);
    assert_eq!(sum(&page, "dropwatch_conntrack_drops_total", ""), all);
}

/// Labels have words of their own for what is not proved, and for all that has no series: nothing that
/// is called so shares a series with them.
#[test]
fn what_is_called_as_a_word_of_labels_has_a_series_of_its_own() {
    let row = |name: &str, inum: u32, interface: &str, count| GroupRow {
        netns: Some(Netns::new(Some(name.to_owned()), inum)),
        interface: Some(Interface { name: Some(interface.to_owned()), index: 3 }),
        count,
        ..GroupRow::default()
    };
    let mut report = reports(&[(5_000, &[(0, 2, 20)], Lost::default())]).remove(0);
    let part = |name: &str, inum: u32, count| NamespaceDrops {
        name: Some(name.to_owned()),
        inum: Some(inum),
        count,
        ..NamespaceDrops::default()
    };
    report.locations[0].namespaces = vec![part("unknown", 7, 5), part("other", 8, 6)];
    report.groups = Some(Box::new(Groups {
        by: vec![By::Iface],
        drops: 20,
        rows: vec![row("unknown", 7, "other", 5), row("other", 8, "unknown", 6)],
        unknown: 8,
        other: 1,
    }));
    report.findings = vec![finding("x", "other")];
    let mut totals = totals();
    totals.add(&report, vec![tracked("unknown", 7, 180, 5)]);
    let page = checked(&totals);
    for (series, expected) in [
        ("dropwatch_namespace_drops_total{netns=\"netns 7\"", 5),
        ("dropwatch_namespace_drops_total{netns=\"netns 8\"", 6),
        ("dropwatch_namespace_drops_total{netns=\"unknown\"", 9),
        ("dropwatch_group_drops_total{interface=\"ifindex 3 (other)\",netns=\"netns 7\"}", 5),
        ("dropwatch_group_drops_total{interface=\"ifindex 3 (unknown)\",netns=\"netns 8\"}", 6),
        ("dropwatch_group_drops_total{interface=\"unknown\",netns=\"unknown\"}", 8),
        ("dropwatch_group_drops_total{interface=\"other\",netns=\"other\"}", 1),
        ("dropwatch_conntrack_entries{netns=\"netns 7\"}", 180),
        ("dropwatch_findings{rule=\"x\",severity=\"critical\",netns=\"netns 1\"}", 1),
    ] {
        let of = |line: &&str| line.starts_with(series);
        let value = |line: &str| line.rsplit(' ').next().and_then(|it| it.parse::<u64>().ok());
        let sum: u64 = page.lines().filter(of).filter_map(value).sum();
        assert_eq!(sum, expected, "{series}: {page}");
    }
}
