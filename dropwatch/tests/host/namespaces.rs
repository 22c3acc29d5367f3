//! Every drop is counted in the namespace that it was in, also where several drop at one place.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    process::Stdio,
    thread,
};

use aya::{maps::Map, util::nr_cpus};
use dropwatch::report::model::Lost;
use dropwatch_common::{Counter, CpuKey, DropKey};
use testbed::{
    drops::{
        Cause,
        closed::{Closed, Transport},
        filter::Filtered,
    },
    flood::Wire,
    machine::fewer,
    netns::Netns,
    udp::Family,
};

use crate::{
    counting::{CounterMap, fill_front_cache, insert},
    harness::{ETHERTYPE, Held, RECEIVE_PATH, Recording, Run, dropwatch, is_at},
};

/// Drops of a run by the name of their namespace, at any of the places; at all of them, where there are
/// none.
fn by_name(recording: &Recording, places: &[(&str, &str)]) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    let rows = recording.locations().filter(|row| places.is_empty() || is_at(row, places));
    for netns in rows.flat_map(|row| &row.namespaces) {
        *sums.entry(netns.name.clone().unwrap_or_default()).or_default() += netns.count;
    }
    sums
}

fn of(sums: &BTreeMap<String, u64>, netns: &Netns) -> u64 {
    sums.get(netns.name()).copied().unwrap_or(0)
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn floods_at_one_time_are_each_its_own_links() {
    let wires = [(Wire::new().unwrap(), fewer(300_000)), (Wire::new().unwrap(), fewer(200_000))];
    let run = Run::start(&["-i", "200ms"]);
    thread::scope(|scope| {
        for (wire, frames) in &wires {
            scope.spawn(|| {
                let sent = wire.flood(*frames, None).unwrap();
                assert_eq!((sent.accepted, sent.refused), (*frames, 0));
            });
        }
    });
    let sums = by_name(&run.stop(), RECEIVE_PATH);
    for (wire, frames) in &wires {
        assert_eq!(of(&sums, wire.receiver()), *frames, "{sums:?}");
        assert_eq!(wire.received().unwrap().rx_dropped, *frames);
    }
}

/// One place, two of the causes even with one rule of the packet filter, each in a namespace of its own.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn each_namespace_has_its_own_count_and_its_own_finding() {
    let filtered = Filtered::input_by_iptables().unwrap();
    let also_filtered = Filtered::input_by_iptables().unwrap();
    let closed = Closed::new(Transport::Udp, Family::V4).unwrap();
    let also_closed = Closed::new(Transport::Udp, Family::V4).unwrap();
    let causes: [(&dyn Cause, u64, &str); 4] = [
        (&filtered, 60, "netfilter_rule"),
        (&also_filtered, 40, "netfilter_rule"),
        (&closed, 30, "closed_port"),
        (&also_closed, 500, "closed_port"),
    ];
    let run = Run::start(&["-i", "30s"]);
    for (cause, packets, _) in causes {
        assert_eq!(cause.send(packets).unwrap(), packets);
    }
    let recording = run.stop();
    let sums = by_name(&recording, &[]);
    for (cause, packets, rule) in causes {
        let name = cause.netns().name();
        assert_eq!(of(&sums, cause.netns()), packets, "{name} of {sums:?}");
        let found = recording.reports.iter().flat_map(|report| &report.findings);
        let of_it: Vec<_> = found
            .filter(|it| it.netns.as_ref().and_then(|it| it.name.as_deref()) == Some(name))
            .map(|it| (it.rule.as_str(), it.explains.map(|explains| explains.drops)))
            .collect();
        assert_eq!(of_it, [(rule, Some(packets))], "{name}");
    }
}

/// Where the counter map has no room for another namespace, its drops are still counted at their place.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_full_map_costs_the_namespace_and_no_drop() {
    let (known, late) = (Wire::new().unwrap(), Wire::new().unwrap());
    // Nothing but the floods claims a slot, or an entry.
    let run = Run::start(&["-i", "200ms", "--no-findings", "--proto", ETHERTYPE]);
    let held = Held::by(run.0.pid());
    fill_front_cache(&held.map(".bss.fronts").unwrap());
    let flood = |wire: &Wire| assert_eq!(wire.flood(1_000, None).unwrap().accepted, 1_000);
    flood(&known);
    let mut map = CounterMap::try_from(Map::HashMap(held.map("DROPS").unwrap())).unwrap();
    let keys: Vec<CpuKey> = map.keys().map(|key| zerocopy::transmute!(key.unwrap())).collect();
    let cpus = nr_cpus().unwrap() as u32;
    let mut insert = |key, cpu| insert(&mut map, key, cpu, Counter::default());
    // The other flood may come on another CPU.
    let places: BTreeSet<DropKey> = keys.iter().map(|it| it.key.everywhere()).collect();
    for (key, cpu) in places.iter().flat_map(|key| (0..cpus).map(move |cpu| (*key, cpu))) {
        insert(key, cpu).unwrap();
    }
    let filled = (1..).take_while(|location| insert(DropKey::new(*location, 2), 0).is_ok());
    println!("{} entries of nobody's", filled.count());
    flood(&late);
    let recording = run.stop();
    assert_eq!(recording.count(RECEIVE_PATH), 2_000);
    assert_eq!(recording.lost(), Lost::default());
    let sums = by_name(&recording, RECEIVE_PATH);
    assert_eq!((of(&sums, known.receiver()), of(&sums, late.receiver())), (1_000, 0));
    // By no name.
    assert_eq!(sums.get(""), Some(&1_000), "{sums:?}");
}

/// In text, also of a recording.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn namespaces_of_a_row_are_listed_with_their_counts() {
    let few = Closed::new(Transport::Udp, Family::V4).unwrap();
    let many = Closed::new(Transport::Udp, Family::V4).unwrap();
    let run = Run::start(&["-i", "30s"]);
    assert_eq!((few.send(7).unwrap(), many.send(12).unwrap()), (7, 12));
    let ended = run.0.stop().unwrap();
    let mut replay =
        dropwatch(&["replay", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = replay.stdin.take().unwrap();
    stdin.write_all((ended.lines.join("\n") + "\n").as_bytes()).unwrap();
    drop(stdin);
    let output = replay.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for (cause, count) in [(&few, 7), (&many, 12)] {
        let beginning = format!("{count}  {} ", cause.netns().name());
        let found = text.lines().any(|line| line.trim_start().starts_with(&beginning));
        assert!(found, "no line of {beginning:?} in {text}");
    }
}
