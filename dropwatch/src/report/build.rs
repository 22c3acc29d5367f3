//! Turns each snapshot into the report of the interval that it ends.

use std::{cmp::Reverse, time::Duration};

use dropwatch_common::DropKey;
use jiff::{SignedDuration, Timestamp};

use super::{
    Names,
    delta::Delta,
    details::{self, Samples},
    flow::Flow,
    model::{
        Address, End, Host, Location, Other, Reason, Report, Sampled, Start, Symbol, round, share,
    },
    sample::Sample,
    snapshot::{Counters, Lost, Snapshot},
    timestamp::to_millisecond,
};

/// Decides whether drops at a place, for a reason, are harmless housekeeping.
pub type Benign = fn(Option<&Symbol>, Option<&Reason>) -> bool;

/// What a [`Reporter`] may put into its reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Record raw kernel addresses.
    pub addresses: bool,
    /// List the sampled call paths of each location.
    pub stacks: bool,
}

/// Remembers what was reported, so that the reports of a run add up to what was counted.
#[derive(Debug)]
pub struct Reporter {
    host: Host,
    options: Options,
    benign: Benign,
    /// Sum of all reports so far.
    seen: Counters,
    /// When, since attach, the last report ended.
    until: Duration,
    reports: u64,
    drops: u64,
    fallen: u64,
}

impl Reporter {
    /// Starts at the moment of attaching, when all counters are zero.
    pub fn new(host: Host, options: Options, benign: Benign) -> Self {
        Self {
            host,
            options,
            benign,
            seen: Counters::default(),
            until: Duration::ZERO,
            reports: 0,
            drops: 0,
            fallen: 0,
        }
    }

    /// The first line of a run. `interval` is the nominal one.
    pub fn start(&self, time: Timestamp, interval: Duration, notices: Vec<String>) -> Start {
        Start {
            host: self.host.clone(),
            dropwatch: env!("CARGO_PKG_VERSION").to_owned(),
            time: to_millisecond(time),
            interval_s: seconds(interval),
            notices,
        }
    }

    /// The drops since the previous report, or since attach for the first one.
    ///
    /// `nominal_intervals` is how many intervals should have ended by now since the previous
    /// report: more than 1 when a stalled reader held this one back. `samples` are those that
    /// arrived in the same time; they add details to the rows and change no number of them.
    pub fn report(
        &mut self,
        snapshot: &Snapshot,
        nominal_intervals: u64,
        samples: &[Sample],
        names: &mut dyn Names,
    ) -> Report {
        let delta = Delta::between(&self.seen, &snapshot.counters);
        delta.apply(&mut self.seen);
        let interval = snapshot.since_attach.saturating_sub(self.until);
        self.until = self.until.max(snapshot.since_attach);
        let drops = delta.total();
        self.reports += 1;
        self.drops = self.drops.saturating_add(drops);
        self.fallen = self.fallen.saturating_add(delta.fallen);

        let mut samples = Samples::new(samples);
        let mut locations: Vec<Location> = delta
            .drops
            .iter()
            .map(|(key, count)| {
                let row = self.location(*key, *count, drops, interval, names);
                self.detailed(row, *key, &mut samples, names)
            })
            .collect();
        // Unnamed rows after named ones; the address settles what would depend on hashing.
        locations.sort_by(|a, b| {
            let rank = |row: &Location| (Reverse(row.count), row.symbol.is_none());
            rank(a)
                .cmp(&rank(b))
                .then_with(|| a.symbol.cmp(&b.symbol))
                .then_with(|| {
                    (a.offset, &a.reason, &a.module).cmp(&(b.offset, &b.reason, &b.module))
                })
                .then_with(|| (a.address, &a.subsystem).cmp(&(b.address, &b.subsystem)))
        });

        let unknown_location = delta.lost.unknown_location();
        let end = to_millisecond(snapshot.wall);
        Report {
            seq: self.reports,
            host: self.host.clone(),
            start: before(end, interval),
            end,
            interval_s: seconds(interval),
            intervals: nominal_intervals.max(1),
            drops,
            rate: rate(drops, interval),
            locations,
            other: Other { count: unknown_location, unknown_location, ..Other::default() },
            lost: delta.lost,
            findings: Vec::new(),
        }
    }

    /// One sampled drop by itself. `attached` is when the run began (`CLOCK_MONOTONIC`,
    /// nanoseconds, as in [`Sample::time`]).
    pub fn sampled(&self, sample: &Sample, attached: u64, names: &mut dyn Names) -> Sampled {
        let (symbol, offset, module) = named(names.symbol(sample.key.location));
        let (reason, subsystem) = explained(names.reason(sample.key.reason));
        let since_attach = Duration::from_nanos(sample.time.saturating_sub(attached));
        let device = sample.netns.zip(sample.ifindex);
        Sampled {
            host: self.host.clone(),
            at_s: round(since_attach.as_secs_f64(), 6),
            symbol,
            offset,
            module,
            reason,
            subsystem,
            address: self.address(sample.key.location),
            weight: sample.weight,
            cpu: sample.cpu,
            length: sample.length,
            netns: sample.netns.map(|inum| details::netns(inum, names)),
            interface: device.map(|(inum, index)| details::interface(inum, index, names)),
            outgoing: sample.outgoing,
            conntrack: sample.conntrack,
            owner: sample.socket.and_then(|socket| details::owner(socket, names)),
            flow: Flow::of(sample),
            stack: details::frames(sample, self.options.addresses, names),
            link_header: sample.link_header,
            packet: sample.packet.clone(),
        }
    }

    /// The last line of a run, after the report of its last, partial interval.
    pub fn end(&self, time: Timestamp) -> End {
        End {
            host: self.host.clone(),
            time: to_millisecond(time),
            duration_s: seconds(self.until),
            reports: self.reports,
            drops: self.drops,
            lost: self.seen.lost,
        }
    }

    /// Drops reported so far.
    pub fn drops(&self) -> u64 {
        self.drops
    }

    /// What was lost so far.
    pub fn lost(&self) -> Lost {
        self.seen.lost
    }

    /// Counters that were read lower than before: 0, unless whoever reads them is at fault.
    pub fn fallen(&self) -> u64 {
        self.fallen
    }

    fn location(
        &self,
        key: DropKey,
        count: u64,
        drops: u64,
        interval: Duration,
        names: &mut dyn Names,
    ) -> Location {
        let symbol = names.symbol(key.location);
        let reason = names.reason(key.reason);
        let benign = (self.benign)(symbol.as_ref(), reason.as_ref());
        let total = self.seen.drops.get(&key).copied().unwrap_or(count);
        let (symbol, offset, module) = named(symbol);
        let (reason, subsystem) = explained(reason);
        Location {
            symbol,
            offset,
            module,
            reason,
            subsystem,
            address: self.address(key.location),
            count,
            rate: rate(count, interval),
            share: share(count, drops),
            total,
            benign,
            new: total == count,
            details: None,
            stacks: Vec::new(),
        }
    }

    /// `row` with what the samples of `key` tell.
    fn detailed(
        &self,
        row: Location,
        key: DropKey,
        samples: &mut Samples<'_>,
        names: &mut dyn Names,
    ) -> Location {
        let details = samples.details(key, names);
        let stacks = if self.options.stacks {
            samples.paths(key, self.options.addresses, names)
        } else {
            Vec::new()
        };
        Location { details, stacks, ..row }
    }

    fn address(&self, raw: u64) -> Address {
        if self.options.addresses { Address::Public(raw) } else { Address::Withheld(raw) }
    }
}

/// Name, offset and module of a symbol.
fn named(symbol: Option<Symbol>) -> (Option<String>, Option<u64>, Option<String>) {
    match symbol {
        Some(Symbol { name, offset, module }) => (Some(name), Some(offset), module),
        None => (None, None, None),
    }
}

/// Name and subsystem of a reason.
fn explained(reason: Option<Reason>) -> (Option<String>, Option<String>) {
    match reason {
        Some(Reason { name, subsystem }) => (Some(name), subsystem),
        None => (None, None),
    }
}

/// Seconds, to the millisecond.
fn seconds(duration: Duration) -> f64 {
    round(duration.as_secs_f64(), 3)
}

/// Events per second to one decimal; 0 for an interval without length.
fn rate(count: u64, interval: Duration) -> f64 {
    if interval.is_zero() { 0.0 } else { round(count as f64 / interval.as_secs_f64(), 1) }
}

/// `end - interval`, so that the labels of a line and its `interval_s` agree to the millisecond.
fn before(end: Timestamp, interval: Duration) -> Timestamp {
    let millis = (interval.as_micros().saturating_add(500) / 1000).try_into().unwrap_or(i64::MAX);
    end.checked_sub(SignedDuration::from_millis(millis)).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use dropwatch_common::NO_REASON;
    use proptest::prelude::*;

    use super::*;

    const HOOK: u64 = 0xffff_ffff_8100_007d;
    const TCP: u64 = 0xffff_ffff_8200_0091;
    const HIDDEN: u64 = 0xffff_ffff_c000_0000;

    struct Table;

    impl Names for Table {
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
        let benign: Benign = |_, reason| reason.is_some_and(|reason| reason.name == "R99");
        Reporter::new(Host::default(), Options::default(), benign)
    }

    fn snapshot(millis: u64, drops: &[((u64, u32), u64)], lost: Lost) -> Snapshot {
        let drops = drops.iter().map(|((at, why), n)| (DropKey::new(*at, *why), *n)).collect();
        Snapshot {
            since_attach: Duration::from_millis(millis),
            wall: Timestamp::from_millisecond(1_795_332_900_000 + millis as i64).unwrap(),
            counters: Counters { drops, lost },
        }
    }

    #[test]
    fn an_interval_is_the_difference_of_two_readings() {
        let mut reporter = reporter();
        let none = Lost::default();
        let first = snapshot(5000, &[((HOOK, 8), 10_031)], none);
        reporter.report(&first, 1, &[], &mut Table);
        let second = snapshot(10_000, &[((HOOK, 8), 20_062), ((TCP, 3), 676)], none);
        let report = reporter.report(&second, 1, &[], &mut Table);

        assert_eq!((report.seq, report.intervals, report.interval_s), (2, 1, 5.0));
        assert_eq!(report.start.to_string(), "2026-11-22T07:35:05Z");
        assert_eq!(report.end.to_string(), "2026-11-22T07:35:10Z");
        assert_eq!((report.drops, report.rate), (10_707, 2141.4));
        let [hook, tcp] = &report.locations[..] else { panic!("{:?}", report.locations) };
        assert_eq!(hook.symbol.as_deref(), Some("nf_hook_slow"));
        assert_eq!((hook.offset, hook.count, hook.total), (Some(0x7d), 10_031, 20_062));
        assert_eq!((hook.rate, hook.share, hook.new), (2006.2, 0.937, false));
        assert_eq!((tcp.count, tcp.total, tcp.new), (676, 676, true));
        assert_eq!(reporter.end(second.wall).drops, 20_738);
    }

    #[test]
    fn unlocated_drops_are_drops() {
        let lost = Lost { map_full: 3, map_busy: 2, recursion: 1, samples: 50, stacks: 60 };
        let mut reporter = reporter();
        let report = reporter.report(&snapshot(1000, &[((HOOK, 8), 4)], lost), 1, &[], &mut Table);
        assert_eq!(report.drops, 10);
        let other = Other { count: 6, unknown_location: 6, ..Other::default() };
        assert_eq!((report.other, report.lost), (other, lost));
        assert_eq!(report.locations[0].share, 0.4);

        let more = Lost { recursion: 5, ..lost };
        let report = reporter.report(&snapshot(2000, &[((HOOK, 8), 4)], more), 1, &[], &mut Table);
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
        let report = reporter().report(&snapshot(1, &drops, Lost::default()), 1, &[], &mut Table);
        let rows: Vec<_> = report
            .locations
            .iter()
            .map(|row| (row.symbol.as_deref(), row.reason.as_deref(), row.address.known()))
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
                Reporter { options: Options { addresses, stacks: false }, ..reporter() };
            let report = reporter.report(&snapshot(1, &drops, Lost::default()), 1, &[], &mut Table);
            assert_eq!(report.locations[0].address.public(), expected);
            assert_eq!(report.locations[0].address.known(), Some(HOOK));
        }
    }

    #[test]
    fn a_stepped_clock_changes_no_rate() {
        let mut reporter = reporter();
        let mut stepped = snapshot(2000, &[((HOOK, 8), 100)], Lost::default());
        stepped.wall = Timestamp::MIN;
        let report = reporter.report(&stepped, 1, &[], &mut Table);
        assert_eq!((report.interval_s, report.rate), (2.0, 50.0));
        assert_eq!(report.start, Timestamp::MIN);
    }

    #[test]
    fn an_interval_without_length_has_no_rate() {
        let report =
            reporter().report(&snapshot(0, &[((HOOK, 8), 9)], Lost::default()), 0, &[], &mut Table);
        assert_eq!((report.drops, report.rate, report.locations[0].rate), (9, 0.0, 0.0));
        assert_eq!(report.intervals, 1);
    }

    #[test]
    fn a_counter_that_falls_is_told_and_not_counted_again() {
        let mut reporter = reporter();
        for (millis, count) in [(1000, 10), (2000, 4), (3000, 12)] {
            let snapshot = snapshot(millis, &[((HOOK, 8), count)], Lost::default());
            reporter.report(&snapshot, 1, &[], &mut Table);
        }
        assert_eq!((reporter.drops(), reporter.fallen()), (12, 1));
    }

    fn lost() -> impl Strategy<Value = Lost> {
        let n = || 0..1000_u64;
        (n(), n(), n(), n(), n()).prop_map(|(map_full, map_busy, recursion, samples, stacks)| {
            Lost { map_full, map_busy, recursion, samples, stacks }
        })
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
                let report = reporter.report(&now, 1, &[], &mut Table);

                let shown: u64 = report.locations.iter().map(|row| row.count).sum();
                prop_assert_eq!(shown + report.other.count, report.drops);
                prop_assert_eq!(report.lost, lost);
                prop_assert!(report.rate.is_finite());
                prop_assert!(report.locations.is_sorted_by(|a, b| a.count >= b.count));
                for row in &report.locations {
                    let sum = sums.entry((row.address.known(), row.reason.clone())).or_default();
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
}
