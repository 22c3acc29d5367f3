//! Reports from made-up counters.

use std::collections::HashMap;

use dropwatch_common::{NO_REASON, filter::Group};
use proptest::prelude::*;

use super::{
    super::{
        decode::decode,
        keys::{Choice, Keys},
        model::{Line, groups::By},
        snapshot::UndecidedBy,
    },
    *,
};

const HOOK: u64 = 0xffff_ffff_8100_007d;
const TCP: u64 = 0xffff_ffff_8200_0091;
const HIDDEN: u64 = 0xffff_ffff_c000_0000;

struct TestNames;

impl Names for TestNames {
    fn symbol(&mut self, location: u64) -> Option<Symbol> {
        let (name, offset) = match location {
            HOOK => ("nf_hook_slow", 0x7d),
            TCP => ("tcp_v4_rcv", 0x91),
            _ => return None,
        };
        Some(Symbol { name: name.to_owned(), offset, module: None })
    }

    fn reason(&mut self, reason: u32) -> Option<Reason> {
        (reason != NO_REASON)
            .then(|| Reason { name: format!("R{reason}"), subsystem: Some("CORE".to_owned()) })
    }
}

fn reporter() -> Reporter {
    let benign: IsBenign = |_, reason| reason.is_some_and(|reason| reason.name == "R99");
    Reporter::new(Host::default(), Options::default(), benign)
}

fn snapshot(millis: u64, drops: &[((u64, u32), u64)], lost: Lost) -> Snapshot {
    let drops = drops.iter().map(|((at, why), n)| (DropKey::new(*at, *why), *n)).collect();
    Snapshot {
        since_attach: Duration::from_millis(millis),
        wall: Timestamp::from_millisecond(1_795_332_900_000 + millis as i64).unwrap(),
        counters: DropCounters { drops, lost, ..DropCounters::default() },
    }
}

#[test]
fn an_interval_is_the_difference_of_two_readings() {
    let mut reporter = reporter();
    let none = Lost::default();
    let first = snapshot(5000, &[((HOOK, 8), 10_031)], none);
    reporter.report(&first, 1, &[], &mut TestNames);
    let second = snapshot(10_000, &[((HOOK, 8), 20_062), ((TCP, 3), 676)], none);
    let report = reporter.report(&second, 1, &[], &mut TestNames);

    assert_eq!((report.seq, report.intervals, report.interval_s), (2, 1, 5.0));
    assert_eq!(report.start.to_string(), "2026-11-22T07:35:05Z");
    assert_eq!(report.end.to_string(), "2026-11-22T07:35:10Z");
    assert_eq!((report.drops, report.rate), (10_707, 2141.4));
    let [hook, tcp] = &report.locations[..] else { panic!("{:?}", report.locations) };
    assert_eq!(hook.place.symbol.as_deref(), Some("nf_hook_slow"));
    assert_eq!((hook.place.offset, hook.count, hook.total), (Some(0x7d), 10_031, 20_062));
    assert_eq!((hook.rate, hook.share, hook.new), (2006.2, 0.937, false));
    assert_eq!((tcp.count, tcp.total, tcp.new), (676, 676, true));
    assert_eq!(reporter.end(second.wall).drops, 20_738);
}

#[test]
fn what_is_summed_with_others_later_is_counted_once() {
    let mut reporter = reporter();
    let (ended, alive) = (DropKey::new(HOOK, 8).within(7), DropKey::new(HOOK, 8).within(9));
    let of = |millis, drops: &[(DropKey, u64)], folded: &[DropKey]| {
        let mut snapshot = snapshot(millis, &[], Lost::default());
        snapshot.counters.drops = drops.iter().copied().collect();
        snapshot.counters.folded.drops = folded.to_vec();
        snapshot
    };
    let first = of(5000, &[(ended, 10), (alive, 5)], &[]);
    assert_eq!(reporter.report(&first, 1, &[], &mut TestNames).drops, 15);
    let second = of(10_000, &[(ended.everywhere(), 10), (alive, 6)], &[ended]);
    let report = reporter.report(&second, 1, &[], &mut TestNames);
    assert_eq!((report.drops, report.locations[0].total, reporter.fallen()), (1, 16, 0));
}

#[test]
fn unlocated_drops_are_drops() {
    let lost = Lost {
        map_full: 3,
        map_busy: 2,
        recursion: 1,
        samples: 50,
        stacks: 60,
        pcap: 70,
        unsampled: 80,
    };
    let mut reporter = reporter();
    let report = reporter.report(&snapshot(1000, &[((HOOK, 8), 4)], lost), 1, &[], &mut TestNames);
    assert_eq!(report.drops, 10);
    let other = Other { count: 6, unknown_location: 6, ..Other::default() };
    assert_eq!((report.other, report.lost), (other, lost));
    assert_eq!(report.locations[0].share, 0.4);

    let more = Lost { recursion: 5, ..lost };
    let report = reporter.report(&snapshot(2000, &[((HOOK, 8), 4)], more), 1, &[], &mut TestNames);
    assert_eq!((report.drops, report.locations.len()), (4, 0));
    assert_eq!(report.lost, Lost { recursion: 4, ..Lost::default() });
    assert_eq!(reporter.end(Timestamp::UNIX_EPOCH).lost, more);
}

#[test]
fn equal_counts_rank_by_name_and_unnamed_call_sites_stay_apart() {
    let drops = [
        ((HIDDEN + 8, 2), 7),
        ((TCP, 3), 7),
        ((HIDDEN, 2), 7),
        ((HOOK, 9), 7),
        ((HOOK, 8), 7),
        ((HOOK, NO_REASON), 7),
        ((HOOK, 99), 8),
    ];
    let report = reporter().report(&snapshot(1, &drops, Lost::default()), 1, &[], &mut TestNames);
    let rows: Vec<_> = report
        .locations
        .iter()
        .map(|row| (row.place.symbol.as_deref(), row.place.reason.as_deref(), row.address.known()))
        .collect();
    assert_eq!(
        rows,
        [
            (Some("nf_hook_slow"), Some("R99"), Some(HOOK)),
            (Some("nf_hook_slow"), None, Some(HOOK)),
            (Some("nf_hook_slow"), Some("R8"), Some(HOOK)),
            (Some("nf_hook_slow"), Some("R9"), Some(HOOK)),
            (Some("tcp_v4_rcv"), Some("R3"), Some(TCP)),
            (None, Some("R2"), Some(HIDDEN)),
            (None, Some("R2"), Some(HIDDEN + 8)),
        ]
    );
    let benign: Vec<_> = report.locations.iter().map(|row| row.benign).collect();
    assert_eq!(benign, [true, false, false, false, false, false, false]);
}

#[test]
fn addresses_leave_the_process_only_when_asked_for() {
    let drops = [((HOOK, 8), 1)];
    for (addresses, expected) in [(false, None), (true, Some(HOOK))] {
        let mut reporter =
            Reporter { options: Options { addresses, ..Options::default() }, ..reporter() };
        let report = reporter.report(&snapshot(1, &drops, Lost::default()), 1, &[], &mut TestNames);
        assert_eq!(report.locations[0].address.public(), expected);
        assert_eq!(report.locations[0].address.known(), Some(HOOK));
    }
}

#[test]
fn rows_that_are_not_selected_are_in_no_number_and_what_cannot_be_told_is_undecided() {
    let keys = Keys { symbols: vec![Choice::function("tcp_*").unwrap()], ..Keys::default() };
    let lost = Lost { map_full: 3, recursion: 2, samples: 9, ..Lost::default() };
    let mut taken = snapshot(1000, &[((HOOK, 8), 40), ((TCP, 3), 10), ((HIDDEN, 2), 5)], lost);
    taken.counters.undecided = UndecidedBy { host: 3, port: 4, ..UndecidedBy::default() };
    let mut reporter = Reporter { options: Options { keys, ..Options::default() }, ..reporter() };
    let report = reporter.report(&taken, 1, &[], &mut TestNames);
    assert_eq!((report.drops, report.locations.len()), (10, 1));
    assert_eq!((report.locations[0].share, report.filter_undecided), (1.0, Some(12)));
    assert_eq!((report.other, report.lost), (Other::default(), lost));
    let end = reporter.end(taken.wall);
    assert_eq!((end.drops, end.filter_undecided), (10, Some(12)));
    let by = taken.counters.undecided;
    assert_eq!((report.filter_undecided_by, end.filter_undecided_by), (by, by));
}

#[test]
fn a_packet_filter_leaves_what_found_no_room_counted() {
    let lost = Lost { map_full: 3, recursion: 2, ..Lost::default() };
    let options = Options { packets_filtered: true, ..Options::default() };
    let mut reporter = Reporter { options, ..reporter() };
    let report = reporter.report(&snapshot(1, &[((HOOK, 8), 4)], lost), 1, &[], &mut TestNames);
    assert_eq!((report.drops, report.other.unknown_location), (7, 3));
    assert_eq!(report.filter_undecided, Some(2));
}

/// Others' drops interrupt each other, and none of them is what the filters ask for.
#[test]
fn what_a_filtered_run_writes_can_be_read_where_all_is_undecided() {
    let lost = Lost { recursion: 240, ..Lost::default() };
    let options = Options { packets_filtered: true, ..Options::default() };
    let mut reporter = Reporter { options, ..reporter() };
    let taken = snapshot(1, &[], lost);
    let report = reporter.report(&taken, 1, &[], &mut TestNames);
    let end = reporter.end(taken.wall);
    assert_eq!((end.drops, end.filter_undecided), (0, Some(240)));
    for line in [Line::Report(report), Line::End(end)] {
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(decode(&text), Ok(line), "{text}");
    }
}

#[test]
fn groups_add_up_with_what_was_never_grouped() {
    let lost = Lost { map_full: 3, recursion: 2, ..Lost::default() };
    let every = Group { known: 1, ..Group::default() };
    for (by, cpu, unknown) in [(By::Cpu, Some(1), 5), (By::Netns, None, 2)] {
        let mut taken = snapshot(1, &[((HOOK, 8), 4)], lost);
        taken.counters.groups = HashMap::from([((every, cpu), 4)]);
        let options = Options { by: vec![by], ..Options::default() };
        let mut reporter = Reporter { options, ..reporter() };
        let groups = reporter.report(&taken, 1, &[], &mut TestNames).groups.unwrap();
        assert_eq!((groups.drops, groups.unknown), (4 + unknown, unknown), "{by:?}");
        assert_eq!(groups.rows[0].total, 4);
    }
}

#[test]
fn a_stepped_clock_changes_no_rate() {
    let mut reporter = reporter();
    let mut stepped = snapshot(2000, &[((HOOK, 8), 100)], Lost::default());
    stepped.wall = Timestamp::MIN;
    let report = reporter.report(&stepped, 1, &[], &mut TestNames);
    assert_eq!((report.interval_s, report.rate), (2.0, 50.0));
    assert_eq!(report.start, Timestamp::MIN);
}

#[test]
fn an_interval_without_length_has_no_rate() {
    let report =
        reporter().report(&snapshot(0, &[((HOOK, 8), 9)], Lost::default()), 0, &[], &mut TestNames);
    assert_eq!((report.drops, report.rate, report.locations[0].rate), (9, 0.0, 0.0));
    assert_eq!(report.intervals, 1);
}

#[test]
fn a_counter_that_falls_is_reported_and_not_counted_again() {
    let mut reporter = reporter();
    for (millis, count) in [(1000, 10), (2000, 4), (3000, 12)] {
        let snapshot = snapshot(millis, &[((HOOK, 8), count)], Lost::default());
        reporter.report(&snapshot, 1, &[], &mut TestNames);
    }
    assert_eq!((reporter.drops(), reporter.fallen()), (12, 1));
}

fn lost() -> impl Strategy<Value = Lost> {
    let n = || 0..1000_u64;
    (n(), n(), n(), n(), n(), n(), n()).prop_map(
        |(map_full, map_busy, recursion, samples, stacks, pcap, unsampled)| Lost {
            map_full,
            map_busy,
            recursion,
            samples,
            stacks,
            pcap,
            unsampled,
        },
    )
}

proptest! {
    /// Rule 1 of the numbers: nothing between attach and detach is missed or counted twice.
    #[test]
    fn reports_sum_to_the_final_counters(
        steps in prop::collection::vec(
            (prop::collection::vec(((0..5_u64, 0..3_u32), 0..1_u64 << 40), 0..6), lost(), 0..9000_u64),
            0..12,
        )
    ) {
        let mut reporter = reporter();
        let mut now = Snapshot::default();
        let mut sums: HashMap<(Option<u64>, Option<String>), u64> = HashMap::new();
        let mut drops = 0;
        for (added, lost, millis) in steps {
            for ((at, why), count) in added {
                *now.counters.drops.entry(DropKey::new(at, why)).or_default() += count;
            }
            now.counters.lost = now.counters.lost.zip(&lost, |a, b| a + b);
            now.since_attach += Duration::from_millis(millis);
            let report = reporter.report(&now, 1, &[], &mut TestNames);

            let shown: u64 = report.locations.iter().map(|row| row.count).sum();
            prop_assert_eq!(shown + report.other.count, report.drops);
            prop_assert_eq!(report.lost, lost);
            prop_assert!(report.rate.is_finite());
            prop_assert!(report.locations.is_sorted_by(|a, b| a.count >= b.count));
            for row in &report.locations {
                let sum = sums.entry((row.address.known(), row.place.reason.clone())).or_default();
                prop_assert_eq!(row.new, *sum == 0);
                *sum += row.count;
                prop_assert_eq!(row.total, *sum);
                prop_assert!(row.rate.is_finite() && (0.0..=1.0).contains(&row.share));
            }
            drops += report.drops;
        }
        let counted: u64 = now.counters.drops.values().sum();
        prop_assert_eq!(drops, counted + now.counters.lost.unknown_location());
        prop_assert_eq!(sums.values().sum::<u64>(), counted);
        let end = reporter.end(Timestamp::UNIX_EPOCH);
        prop_assert_eq!((end.drops, end.lost), (drops, now.counters.lost));
        prop_assert_eq!(reporter.fallen(), 0);
    }
}
