//! Namespaces whose inode numbers are given again: each has its own drops, and its own name.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::UdpSocket,
    thread::sleep,
    time::{Duration, Instant},
};

use dropwatch::report::{finding::Finding, model::groups::GroupRow};
use testbed::{
    machine::{self, fewer, longer},
    netns::Netns,
    unproved::unproved,
};

use crate::{
    harness::{Recording, Run, UDP4, is_at},
    reach::inum_of,
};

const NO_COOKIES: &str = "this kernel has no cookies of network namespaces (SO_NETNS_COOKIE)";

/// Sends packets to a closed port of the namespace, and returns how many it says to have refused.
fn drop_in(netns: &Netns, packets: u64) -> u64 {
    let send = || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        // Not connected: an answer to one packet would be the error of the next.
        (0..packets).try_for_each(|_| socket.send_to(&[0; 8], "127.0.0.1:9").map(drop))?;
        Ok(())
    };
    netns.enter(send).unwrap();
    let snmp = netns.proc_net("snmp").unwrap();
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut counters = names.split(' ').zip(values.split(' '));
    counters.find(|(name, _)| *name == "NoPorts").unwrap().1.parse().unwrap()
}

/// Drops at a closed port by the name of their namespace, and whether that is said to have ended.
fn by_name(recording: &Recording) -> BTreeMap<(String, bool), u64> {
    let mut sums = BTreeMap::new();
    let rows = recording.locations().filter(|row| is_at(row, UDP4));
    for netns in rows.flat_map(|row| &row.namespaces) {
        let name = netns.name.clone().unwrap_or_default();
        *sums.entry((name, netns.ended)).or_default() += netns.count;
    }
    sums
}

/// A namespace that gets the inode number of one that is gone: the kernel gives the lowest free one,
/// to namespaces of all kinds. So others may be quicker, and there have to be several tries.
fn successor(of: u32) -> Option<Netns> {
    let until = Instant::now() + longer(Duration::from_secs(3));
    let mut others = Vec::new();
    while Instant::now() < until {
        let netns = Netns::new("next").unwrap();
        if inum_of(&netns) == of {
            return Some(netns);
        }
        others.push(netns);
        // The kernel frees a namespace later, on a thread of its own.
        sleep(Duration::from_millis(20));
    }
    None
}

const TRIES: usize = 5;

#[test]
#[ignore = "needs root: cargo xtask test"]
fn two_that_had_one_number_within_a_report_have_their_own_drops() {
    if !machine::tells_namespaces_apart() {
        return unproved(NO_COOKIES);
    }
    for _ in 0..TRIES {
        let run = Run::start(&["-i", "60s", "--by", "netns"]);
        let first = Netns::new("first").unwrap();
        let (name, inum) = (first.name().to_owned(), inum_of(&first));
        assert_eq!(drop_in(&first, 20), 20);
        // On a busy machine it takes a while until a new name is looked into.
        sleep(longer(Duration::from_secs(1)));
        drop(first);
        let Some(second) = successor(inum) else { continue };
        assert_eq!(drop_in(&second, 30), 30);
        let recording = run.stop();
        let sums = by_name(&recording);
        let of = |name: &str, ended| sums.get(&(name.to_owned(), ended)).copied();
        assert_eq!((of(&name, true), of(second.name(), false)), (Some(20), Some(30)), "{sums:?}");
        let groups = recording.groups().flat_map(|groups| &groups.rows);
        let mut grouped: Vec<_> = groups
            .filter_map(|row| Some((row.netns.as_ref()?, row.count)))
            .filter(|(netns, _)| netns.inum == inum)
            .map(|(netns, count)| (netns.name.clone().unwrap_or_default(), netns.ended, count))
            .collect();
        grouped.sort_unstable_by_key(|(.., count)| *count);
        let groups = [(name.clone(), true, 20), (second.name().to_owned(), false, 30)];
        assert_eq!(grouped, groups);
        let findings = recording.reports.iter().flat_map(|report| &report.findings);
        let mut found: Vec<_> = findings
            .filter(|it| it.rule == "closed_port")
            .filter_map(|it| Some((it.netns.as_ref()?.name.clone()?, it.explains?.drops)))
            .filter(|(of, _)| *of == name || of == second.name())
            .collect();
        found.sort_unstable();
        let mut expected = vec![(name, 20), (second.name().to_owned(), 30)];
        expected.sort_unstable();
        return assert_eq!(found, expected);
    }
    panic!("no namespace has got the number of another one");
}

/// Namespaces that come and go faster than reports are made.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn each_of_many_short_lived_ones_has_its_drops_by_name() {
    if !machine::tells_namespaces_apart() {
        return unproved(NO_COOKIES);
    }
    let run = Run::start(&["-i", "500ms"]);
    let mut expected = BTreeMap::new();
    let mut numbers = BTreeSet::new();
    for number in 1.. {
        let (netns, packets) = (Netns::new("brief").unwrap(), number % 17 + 1);
        assert_eq!(drop_in(&netns, packets), packets);
        numbers.insert(inum_of(&netns));
        expected.insert(netns.name().to_owned(), packets);
        let is_given_again = numbers.len() < expected.len();
        if number >= fewer(120) && is_given_again {
            break;
        }
        assert!(number < 200, "no number was given again");
    }
    let (mut found, mut nameless) = (BTreeMap::new(), 0);
    let recording = run.stop();
    let rows = recording.locations().filter(|row| is_at(row, UDP4));
    for netns in rows.flat_map(|row| &row.namespaces) {
        match (&netns.name, netns.inum) {
            (Some(name), _) if expected.contains_key(name) => {
                *found.entry(name.clone()).or_insert(0) += netns.count;
            }
            (None, Some(inum)) if numbers.contains(&inum) => nameless += netns.count,
            _ => {}
        }
    }
    // On a busy machine one may be gone before it can be looked into. Its drops are nobody else's then.
    let (known, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
        expected.into_iter().partition(|(name, _)| found.contains_key(name));
    assert_eq!((found, nameless), (known, gone.values().sum::<u64>()));
    assert!(gone.len() <= numbers.len().max(20) / 2, "{gone:?}");
}

/// `--netns` means the namespace that had the name when the run began.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_filter_goes_on_meaning_the_namespace_that_it_meant() {
    if !machine::tells_namespaces_apart() {
        return unproved(NO_COOKIES);
    }
    for _ in 0..TRIES {
        let first = Netns::new("first").unwrap();
        let (name, inum) = (first.name().to_owned(), inum_of(&first));
        let run = Run::start(&["-i", "300ms", "--netns", &name]);
        assert_eq!(drop_in(&first, 20), 20);
        drop(first);
        let Some(second) = successor(inum) else { continue };
        assert_eq!(drop_in(&second, 30), 30);
        let ended = run.0.stop().unwrap();
        let said = format!("the network namespace {name} has ended");
        assert!(ended.stderr.contains(&said), "{}", ended.stderr);
        let recording = Recording::of(&ended);
        assert_eq!(recording.reports.iter().map(|report| report.drops).sum::<u64>(), 20);
        let findings = recording.reports.iter().flat_map(|report| &report.findings);
        let is_strange = |it: &&Finding| {
            it.netns.as_ref().is_none_or(|it| it.name.as_deref() != Some(name.as_str()))
        };
        assert_eq!(findings.filter(is_strange).count(), 0);
        return;
    }
    panic!("no namespace has got the number of another one");
}

/// What is left out is the namespace that had the name, not whichever gets its number.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_exclusion_leaves_out_no_successor() {
    if !machine::tells_namespaces_apart() {
        return unproved(NO_COOKIES);
    }
    for _ in 0..TRIES {
        let first = Netns::new("first").unwrap();
        let (name, inum) = (first.name().to_owned(), inum_of(&first));
        let run = Run::start(&["-i", "300ms", "--netns", &format!("!{name}"), "--by", "netns"]);
        assert_eq!(drop_in(&first, 20), 20);
        drop(first);
        let Some(second) = successor(inum) else { continue };
        assert_eq!(drop_in(&second, 30), 30);
        let recording = run.stop();
        let mut sums = by_name(&recording);
        sums.retain(|(it, _), _| [&name, second.name()].contains(&it.as_str()));
        assert_eq!(sums, [((second.name().to_owned(), false), 30)].into());
        let is_second = |row: &GroupRow| {
            row.netns.as_ref().is_some_and(|it| it.name.as_deref() == Some(second.name()))
        };
        assert_eq!(recording.grouped(is_second), 30);
        return;
    }
    panic!("no namespace has got the number of another one");
}

/// Drops of a run's groups at closed ports, as [`by_name`] has those of its rows.
fn groups_by_name(recording: &Recording) -> BTreeMap<(String, bool), u64> {
    let mut sums = BTreeMap::new();
    for row in recording.groups().flat_map(|groups| &groups.rows) {
        let Some(netns) = &row.netns else { continue };
        *sums.entry((netns.name.clone().unwrap_or_default(), netns.ended)).or_default() +=
            row.count;
    }
    sums
}

/// With filters, too, groups are the drops once more, by each namespace that has come and gone.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn with_filters_groups_of_ended_namespaces_are_the_drops_once_more() {
    if !machine::tells_namespaces_apart() {
        return unproved(NO_COOKIES);
    }
    let both = [Netns::new("first").unwrap(), Netns::new("second").unwrap()];
    let names = both.each_ref().map(|netns| netns.name().to_owned());
    let by_netns = Run::within(&both.each_ref(), &["-i", "300ms", "--by", "netns"]);
    // Port 9 is asked for by others on a host, too, so there is a group for each namespace.
    let by_port = Run::start(&["-i", "300ms", "--port", "9", "--proto", "udp", "--by", "netns"]);
    let mut expected = BTreeMap::new();
    for (netns, packets) in both.into_iter().zip([20, 30]) {
        assert_eq!(drop_in(&netns, packets), packets);
        expected.insert(netns.name().to_owned(), packets);
        // Until its name is known.
        sleep(longer(Duration::from_secs(1)));
    }
    for number in 0..fewer(40) {
        let netns = Netns::new("brief").unwrap();
        assert_eq!(drop_in(&netns, number % 7 + 1), number % 7 + 1);
        expected.insert(netns.name().to_owned(), number % 7 + 1);
    }
    sleep(longer(Duration::from_secs(1)));
    for run in [by_netns, by_port] {
        let recording = run.stop();
        // Which checks that the sums of all groups are those of all drops.
        recording.grouped(|row| row.netns.is_some());
        let own = |mut sums: BTreeMap<(String, bool), u64>| {
            sums.retain(|(name, _), _| expected.contains_key(name));
            sums
        };
        let (rows, groups) = (own(by_name(&recording)), own(groups_by_name(&recording)));
        assert_eq!(rows, groups);
        let mut found = BTreeMap::new();
        for ((name, _), count) in groups {
            *found.entry(name).or_insert(0) += count;
        }
        for (name, packets) in &expected {
            match found.get(name) {
                Some(found) => assert_eq!(found, packets, "{name}"),
                // On a busy machine one may be gone before it can be looked into.
                None => assert!(!names.contains(name), "{name} is missing"),
            }
        }
    }
}
