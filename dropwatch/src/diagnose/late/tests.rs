use proptest::prelude::*;

use super::{
    super::rules::testing::{GW, TestHost},
    *,
};
use crate::report::{
    conntrack::{ConntrackCounters, ConntrackStats},
    evidence::{Link, PacketQueue, Queue, QueueId},
};

fn place(function: &str, reason: &str) -> Place {
    Place {
        symbol: Some(function.to_owned()),
        reason: Some(reason.to_owned()),
        subsystem: Some("CORE".to_owned()),
        ..Place::default()
    }
}

fn late(place: Place, netns: u32, count: u64) -> LateDrops {
    LateDrops { place, netns: Some(netns), count }
}

fn row(place: Place, netns: u32, count: u64) -> Location {
    let part = NamespaceDrops { inum: Some(netns), count, ..NamespaceDrops::default() };
    Location { place, count, namespaces: vec![part], ..Location::default() }
}

fn report(locations: Vec<Location>) -> Report {
    Report { locations, ..Report::default() }
}

/// What was counted for a closed port by the namespaces 7 and 8, and by the host.
fn host(counts: [u64; 2], backlog: u64) -> HostEvidence {
    let netns = |count: u64| NetnsEvidence {
        counters: [("Udp.NoPorts", count / 3), ("Udp6.NoPorts", count - count / 3)]
            .into_iter()
            .collect(),
        ..NetnsEvidence::default()
    };
    HostEvidence {
        host: [("softnet.dropped", backlog)].into_iter().collect(),
        namespaces: [(7, netns(counts[0])), (8, netns(counts[1]))].into(),
        ..HostEvidence::default()
    }
}

fn refused(host: &HostEvidence, netns: u32) -> u64 {
    let counters = &host.namespaces[&netns].counters;
    ["Udp.NoPorts", "Udp6.NoPorts"].iter().filter_map(|name| counters.get(name)).sum()
}

/// Of one interval and one cause: drops in its rows, drops until its counters were read, drops of other
/// causes at the same place in both times, and what its counter counts without a drop.
type Interval = ([u64; 2], [u64; 2], u64);

/// Goes through a run: of each interval, what the counter says, what is in the rows, and what they explain
/// together.
fn run(intervals: &[Interval]) -> Vec<(u64, u64, u64)> {
    let closed = || place("__udp4_lib_rcv", "NO_SOCKET");
    let (mut counter, mut before) = (0, host([0, 0], 0));
    let (mut overdue, mut said) = (0, Vec::new());
    // One more, in which nothing happens behind the counters of drops: the end of a run.
    for ([drops, behind], [others, others_behind], silent) in
        intervals.iter().copied().chain([([0, 0], [0, 0], 0)])
    {
        let rows = overdue + drops + others;
        counter += drops + behind + silent;
        overdue = behind + others_behind;
        let mut now = host([counter, 0], 0);
        let late = [late(closed(), 7, overdue)];
        wind_back(&report(vec![row(closed(), 7, rows)]), &late, &before, &mut now);
        let counted = refused(&now, 7) - refused(&before, 7);
        said.push((counted, rows, counted.min(rows)));
        before = now;
    }
    said
}

fn sum(said: &[(u64, u64, u64)], of: impl Fn(&(u64, u64, u64)) -> u64) -> u64 {
    said.iter().map(of).sum()
}

proptest! {
    #[test]
    fn over_a_run_the_counter_the_rows_and_what_is_explained_are_equal(
        intervals in proptest::collection::vec((0..50_u64, 0..9_u64), 0..30)
    ) {
        let intervals: Vec<Interval> =
            intervals.into_iter().map(|(drops, behind)| ([drops, behind], [0, 0], 0)).collect();
        let said = run(&intervals);
        for (counted, rows, _) in &said {
            prop_assert_eq!(counted, rows, "each report by itself");
        }
        let all: u64 = intervals.iter().map(|([drops, behind], ..)| drops + behind).sum();
        prop_assert_eq!(sum(&said, |it| it.2), all);
    }

    /// Drops of another cause at the same place, and a counter that counts what is no drop, are never
    /// explained by more than both have.
    #[test]
    fn no_more_is_explained_than_was_counted_and_dropped_by_then(
        intervals in proptest::collection::vec(
            ([0..50_u64, 0..9_u64], [0..50_u64, 0..9_u64], 0..20_u64), 0..30
        )
    ) {
        let said = run(&intervals);
        let (mut explained, mut counted, mut dropped) = (0, 0, 0);
        for ((_, rows, explains), ([drops, behind], _, silent)) in said.iter().zip(&intervals) {
            explained += explains;
            counted += drops + behind + silent;
            dropped += rows;
            prop_assert!(explained <= counted.min(dropped));
        }
        let all: u64 = intervals.iter().map(|([drops, behind], _, silent)| drops + behind + silent).sum();
        prop_assert_eq!(sum(&said, |it| it.0), all, "none is forgotten");
    }

    /// Whatever counted how much: no more is taken back than came late, nor than was counted.
    #[test]
    fn what_is_taken_back_is_bounded(
        counted in proptest::collection::vec(0..100_u64, 0..5), rows in 0..200_u64, late in 0..100_u64
    ) {
        let named: Vec<(usize, u64)> = counted.iter().copied().enumerate().collect();
        let back = shared_out(named, (rows, late));
        let all: u64 = counted.iter().sum();
        prop_assert_eq!(
            back.iter().map(|it| it.1).sum::<u64>(),
            all.saturating_sub(rows).min(late)
        );
        prop_assert!(back.iter().all(|(which, back)| *back <= counted[*which]));
    }
}

#[test]
fn late_drops_of_another_namespace_or_place_take_nothing_back() {
    let closed = place("__udp4_lib_rcv", "NO_SOCKET");
    let rows = report(vec![row(closed.clone(), 7, 36), row(closed.clone(), 8, 5)]);
    let before = host([0, 0], 0);
    for (late, expected) in [
        (late(closed.clone(), 7, 4), [36, 5]),
        (late(closed.clone(), 7, 1), [38, 5]),
        (late(closed, 8, 9), [39, 5]),
        (late(place("__udp4_lib_rcv", "UDP_CSUM"), 7, 9), [39, 5]),
        (late(place("tcp_v4_rcv", "NO_SOCKET"), 7, 9), [39, 5]),
    ] {
        let mut now = host([39, 5], 0);
        wind_back(&rows, std::slice::from_ref(&late), &before, &mut now);
        assert_eq!([refused(&now, 7), refused(&now, 8)], expected, "{late:?}");
    }
}

#[test]
fn counters_of_the_host_are_held_against_the_drops_of_all_namespaces() {
    let full = place("enqueue_to_backlog", "CPU_BACKLOG");
    let rows = report(vec![row(full.clone(), 7, 30), row(full.clone(), 8, 30)]);
    let mut now = host([0, 0], 65);
    let late = [late(full.clone(), 7, 2), late(full, 8, 9)];
    wind_back(&rows, &late, &host([0, 0], 0), &mut now);
    assert_eq!(now.host.get("softnet.dropped"), Some(60));
}

#[test]
fn devices_queues_and_connection_tracking_are_set_back_too() {
    let of = |qdisc: u64, tracked: u64, queue: u64| {
        let root = QueueId { handle: 1, parent: QueueId::ROOT };
        let link = Link {
            name: "eth0".to_owned(),
            counters: [(QDISC_DROPS, qdisc)].into_iter().collect(),
            queues: [(root, Queue { kind: "fq".to_owned(), drops: qdisc, limit: None })].into(),
            ..Link::default()
        };
        let mut counters = ConntrackCounters::default();
        counters.add(ConntrackCounter::Drop, tracked.try_into().unwrap());
        let netns = NetnsEvidence {
            links: [(2, link)].into(),
            conntrack: Some(ConntrackStats { counters, ..ConntrackStats::default() }),
            queues: [(3, PacketQueue { dropped: queue, ..PacketQueue::default() })].into(),
            ..NetnsEvidence::default()
        };
        HostEvidence { namespaces: [(7, netns)].into(), ..HostEvidence::default() }
    };
    let places = [
        place("__dev_queue_xmit", "QDISC_OVERLIMIT"),
        place("nf_hook_slow", "NETFILTER_DROP"),
        place("nf_queue", "NETFILTER_DROP"),
    ];
    let rows = report(places.iter().map(|place| row(place.clone(), 7, 10)).collect());
    let late: Vec<LateDrops> = places.into_iter().map(|place| late(place, 7, 2)).collect();
    let mut now = of(112, 111, 120);
    wind_back(&rows, &late, &of(100, 100, 100), &mut now);
    assert_eq!(now, of(110, 110, 118));
}

#[test]
fn a_namespace_that_has_another_s_number_is_left_alone() {
    let closed = place("__udp4_lib_rcv", "NO_SOCKET");
    let (mut before, mut now) = (host([0, 0], 0), host([9, 0], 0));
    before.namespaces.get_mut(&7).unwrap().cookie = Some(1);
    now.namespaces.get_mut(&7).unwrap().cookie = Some(2);
    wind_back(&report(Vec::new()), &[late(closed, 7, 9)], &before, &mut now);
    assert_eq!(refused(&now, 7), 9);
}

#[test]
fn a_headline_says_as_much_as_its_row() {
    let mut test =
        TestHost::new().row(36, "__udp4_lib_rcv", "NO_SOCKET").counted("Udp.NoPorts", 37);
    let report = test.clone().report();
    let (before, mut now) = (test.before.clone(), test.now.clone());
    // Where rows do not tell namespaces apart, all of them are the namespace's.
    let late = LateDrops { netns: None, ..late(place("__udp4_lib_rcv", "NO_SOCKET"), GW, 3) };
    wind_back(&report, &[late], &before, &mut now);
    test.now = now;
    let found = test.run_named("closed_port");
    assert_eq!(
        found[0].title,
        "36 packets for closed UDP ports refused in gw; which ones is not known"
    );
    assert_eq!(found[0].explains.map(|it| it.drops), Some(36));
}
