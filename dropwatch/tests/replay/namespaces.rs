//! Drops by network namespace and by group: how many are shown, and that metrics are every drop,
//! whatever has a series of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use dropwatch::{
    render::{
        Format,
        metrics::{Exposition, page},
    },
    report::{
        facts::Netns,
        model::{
            Line, Lost, Report,
            groups::{By, GroupRow, Groups},
        },
        options::Options,
        snapshot::Snapshot,
        totals::{MOST_GROUPS, MOST_REASONS, NamespaceKey, OTHER, Totals, UNKNOWN},
        view::truncate,
    },
};
use dropwatch_common::DropKey;
use insta::assert_snapshot;
use proptest::prelude::*;

use crate::{
    metrics::conforms,
    schema::assert_valid,
    support::{REASONS, Step, address, again, render, run_sampled, show, snapshot},
};

/// Drops at a location, for a reason, in a namespace.
type Drops = (u64, u32, u32, u64);

/// A run whose counters grow by these.
fn run(steps: &[Vec<Drops>]) -> Vec<Line> {
    let (mut counted, mut now) = (HashMap::new(), 0);
    let step = |drops: &Vec<Drops>| {
        for (location, reason, netns, count) in drops {
            let key = DropKey::new(address(*location), *reason).within(*netns);
            *counted.entry(key).or_default() += count;
        }
        now += 5_000;
        let Snapshot { counters, .. } = snapshot(0, &[], Lost::default());
        let mut snapshot = snapshot(now, &[], Lost::default());
        snapshot.counters = counters;
        snapshot.counters.drops = counted.clone();
        Step { snapshot, intervals: 1, samples: Vec::new() }
    };
    let steps: Vec<Step> = steps.iter().map(step).collect();
    run_sampled(Options { namespaces: true, ..Options::default() }, &[], &steps)
}

fn reports(lines: &[Line]) -> Vec<Report> {
    let report = |line: &Line| match line {
        Line::Report(report) => Some(report.clone()),
        Line::Start(_) | Line::Sample(_) | Line::End(_) => None,
    };
    lines.iter().filter_map(report).collect()
}

fn totals(namespaces: usize) -> Totals {
    Totals::new("1.2.3".to_owned(), 5.0, namespaces)
}

/// A busy place: as many namespaces as are listed, and four more, one of them unknown.
fn crowd() -> Vec<Line> {
    let drops = (0..9_u32).map(|netns| (0, 2, netns, 1_000 >> netns)).chain([(1, 1, 1, 7)]);
    run(&[drops.collect()])
}

#[test]
fn five_namespaces_of_a_row_are_listed_and_the_rest_is_summed() {
    assert_snapshot!(show(&crowd(), Format::Text), @r"
    Monitoring for dropped packets

    07:35:05  2000 drops in 5.0s (400/s) at 2 locations, none lost
    1993 packets dropped at nf_hook_slow+0x7d (NETFILTER_DROP) 99.7%
           1000  netns unknown
            500  gw
            250  nginx (pid 812)
            125  5�packets�dropped�at�x
             62  a�[2J��b�
             56  in 4 more namespaces
       7 packets dropped at tcp_v4_rcv+0x91 (NO_SOCKET) 0.4%
           7  gw
    Stopping dropped packet monitor
    ");
}

#[test]
fn as_many_namespaces_as_locations_are_listed_where_that_is_asked_for() {
    let text = |top| render(&crowd(), Format::Text, &Format::Text.view(Some(top), false), false);
    assert_snapshot!(text(1), @r"
    Monitoring for dropped packets

    07:35:05  2000 drops in 5.0s (400/s) at 2 locations, none lost
    1993 packets dropped at nf_hook_slow+0x7d (NETFILTER_DROP) 99.7%
           1000  netns unknown
            993  in 8 more namespaces
       7 more at 1 other location 0.4%
    Stopping dropped packet monitor
    ");
    let all = text(0);
    assert!(all.contains("  3  netns 8\n") && !all.contains("more namespace"), "{all}");
    let nearly = text(8);
    assert!(nearly.contains("  3  in 1 more namespace\n"), "{nearly}");
}

/// Whoever sums up namespaces gets the row, however few rows there are.
#[test]
fn a_row_of_json_has_all_of_its_namespaces() {
    let view = Format::Json.view(Some(1), false);
    let json = render(&crowd(), Format::Json, &view, false);
    for line in json.lines() {
        assert_valid(line);
    }
    let (_, replayed) = again(json.as_bytes(), Format::Text, &Format::Text.view(None, false));
    replayed.unwrap();
    let [report] = &reports(&crowd())[..] else { panic!("one report") };
    let shown = view.report(report.clone());
    assert_eq!((shown.locations.len(), shown.locations[0].namespaces.len()), (1, 9));
}

/// What a namespace of this name has in these reports.
fn reported(reports: &[Report], netns: &str) -> u64 {
    let rows = reports.iter().flat_map(|report| &report.locations);
    let parts = rows.flat_map(|row| &row.namespaces);
    let of_it = parts.filter(|of| of.netns().is_some_and(|it| it.to_string() == netns));
    of_it.map(|of| of.count).sum()
}

fn series(totals: &Totals) -> BTreeMap<NamespaceKey, u64> {
    totals.namespaces.iter().map(|(key, sum)| (key.clone(), sum)).collect()
}

/// That the sums by namespace are those by place, of harmless drops, of others, and for each reason.
fn same_drops(totals: &Totals) {
    let mut places: BTreeMap<(String, bool), u64> = BTreeMap::new();
    for ((place, benign), count) in &totals.places {
        let reason = place.reason.clone().unwrap_or_default();
        *places.entry((reason, *benign)).or_default() += count;
    }
    *places.entry((String::new(), false)).or_default() += totals.other;
    *places.entry((String::new(), true)).or_default() += totals.other_benign;
    let mut namespaces: BTreeMap<(String, bool), u64> = BTreeMap::new();
    for (key, count) in totals.namespaces.iter() {
        *namespaces.entry((key.reason.clone(), key.benign)).or_default() += count;
    }
    places.retain(|_, count| *count > 0);
    namespaces.retain(|_, count| *count > 0);
    assert_eq!(namespaces, places);
    assert_eq!(totals.namespaces.drops(), totals.drops());
}

fn steps() -> impl Strategy<Value = Vec<Vec<Drops>>> {
    // Namespaces of one name, without one, and unknown.
    let netns = prop_oneof![3 => 0..8_u32, 1 => 0..60_u32];
    let drops = (0..10_u64, 0..REASONS.len() as u32 + 2, netns, 1..1_u64 << 40);
    prop::collection::vec(prop::collection::vec(drops, 0..20), 0..6)
}

proptest! {
    #[test]
    fn metrics_of_namespaces_are_every_drop_and_never_fall(
        steps in steps(),
        most in 1..12_usize,
        rows in prop::option::of(0..6_usize),
    ) {
        let reports = reports(&run(&steps));
        let mut totals = totals(most);
        let mut before = series(&totals);
        let mut late: BTreeSet<String> = BTreeSet::new();
        for (index, report) in reports.iter().enumerate() {
            let mut taken = report.clone();
            if let Some(rows) = rows {
                // As a recording that was made with `--top`.
                truncate(&mut taken, rows);
            }
            totals.add(&taken, Vec::new());
            same_drops(&totals);
            let now = series(&totals);
            for (key, sum) in &before {
                prop_assert!(now.get(key).is_some_and(|now| now >= sum), "{key:?} fell");
            }
            let own: BTreeSet<&str> = now.keys().map(|key| key.netns.as_str()).collect();
            prop_assert!(own.iter().filter(|it| ![OTHER, UNKNOWN].contains(it)).count() <= most);
            for name in (0..60).map(name_of) {
                let dropped = reported(&reports[..=index], &name);
                if own.contains(name.as_str()) {
                    prop_assert!(!late.contains(&name), "{name} was in other");
                    let sums = now.iter().filter(|(key, _)| key.netns == name);
                    let sum: u64 = sums.map(|(_, sum)| sum).sum();
                    // All of it, or what the recording holds.
                    let is_right = sum == dropped || rows.is_some() && sum < dropped;
                    prop_assert!(is_right, "{name}: {sum} of {dropped}");
                } else if dropped > 0 && rows.is_none() {
                    late.insert(name);
                }
            }
            before = now;
        }
        let text = page(&totals, Exposition::OpenMetrics);
        conforms(&text);
        let shown: u64 = text
            .lines()
            .filter(|line| line.starts_with("dropwatch_namespace_drops_total{"))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum();
        prop_assert_eq!(shown, totals.drops());
    }

    #[test]
    fn metrics_of_groups_are_every_drop_of_the_groups_and_never_fall(
        reports in prop::collection::vec(groups(), 0..5),
    ) {
        let mut totals = totals(1);
        let (mut drops, mut before) = (0, BTreeMap::new());
        for groups in reports {
            drops += groups.drops;
            totals.add(&Report { groups: Some(Box::new(groups)), ..Report::default() }, Vec::new());
            prop_assert_eq!(totals.groups.drops(), drops);
            let now: BTreeMap<_, _> =
                totals.groups.iter().map(|(key, sum)| (key.clone(), sum)).collect();
            prop_assert!(before.iter().all(|(key, sum)| now.get(key) >= Some(sum)));
            prop_assert!(now.len() <= MOST_GROUPS + 2);
            before = now;
        }
        conforms(&page(&totals, Exposition::OpenMetrics));
    }
}

/// What labels call the namespace of a number; see `support::PLACES`.
fn name_of(inum: u32) -> String {
    match crate::support::PLACES.get(inum as usize) {
        Some(name) if !name.is_empty() => Netns::new(Some((*name).to_owned()), inum).to_string(),
        _ => Netns::new(None, inum).to_string(),
    }
}

fn groups() -> impl Strategy<Value = Groups> {
    let row = (0..700_u32, 0..4_u32, 1..1_u64 << 40).prop_map(|(inum, cpu, count)| GroupRow {
        netns: Some(Netns::new(None, inum)),
        cpu: Some(cpu),
        count,
        ..GroupRow::default()
    });
    (prop::collection::vec(row, 0..600), 0..9_u64, 0..9_u64).prop_map(|(rows, unknown, other)| {
        let drops = rows.iter().map(|row| row.count).sum::<u64>() + unknown + other;
        Groups { by: vec![By::Netns, By::Cpu], drops, rows, unknown, other }
    })
}

/// A recording may hold any number of names.
#[test]
fn reasons_of_namespaces_are_bounded() {
    let mut report = reports(&run(&[vec![(0, 2, 1, 10)]])).remove(0);
    let mut totals = totals(1);
    for number in 0..2 * MOST_REASONS {
        report.locations[0].place.reason = Some(format!("R{number}"));
        totals.add(&report, Vec::new());
    }
    let gw = |key: &NamespaceKey| key.netns == "gw";
    assert_eq!(series(&totals).keys().filter(|key| gw(key)).count(), MOST_REASONS + 1);
    assert_eq!(totals.namespaces.drops(), totals.drops());
}

/// A name goes with the drops that were made under it: a namespace that gets another, or one of which
/// only the number was known, begins another series.
#[test]
fn drops_stay_under_the_name_that_they_were_reported_with() {
    let mut report = reports(&run(&[vec![(0, 2, 1, 10)]])).remove(0);
    let mut totals = totals(10);
    for name in [None, Some("blue"), Some("green"), Some("blue")] {
        report.locations[0].namespaces[0].name = name.map(str::to_owned);
        totals.add(&report, Vec::new());
    }
    let sums: Vec<_> = series(&totals)
        .into_iter()
        .filter(|(_, sum)| *sum > 0)
        .map(|(it, sum)| (it.netns, sum))
        .collect();
    let expected = [("blue", 20), ("green", 10), ("netns 1", 10)];
    assert_eq!(sums, expected.map(|(name, sum)| (name.to_owned(), sum)));
}

/// Where the kernel does not let them be told apart.
#[test]
fn drops_of_no_namespace_are_unknown() {
    let lost = Lost { recursion: 2, ..Lost::default() };
    let step = Step {
        snapshot: snapshot(5_000, &[(0, 2, 10), (2, 3, 5)], lost),
        intervals: 1,
        samples: Vec::new(),
    };
    let mut totals = totals(10);
    totals.add(&reports(&run_sampled(Options::default(), &[], &[step]))[0], Vec::new());
    same_drops(&totals);
    assert!(totals.namespaces.iter().all(|(key, _)| key.netns == UNKNOWN));
    assert_eq!(totals.namespaces.drops(), 17);
}
