//! Turns each snapshot into the report of the interval that it ends.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use dropwatch_common::{DropKey, NO_NETNS, filter::Group};
use jiff::{SignedDuration, Timestamp};

use super::{
    address::Address,
    delta::Delta,
    details::{self, Device, Ends, SamplesByKey},
    facts::{Details, Fact, Task},
    flow::Flow,
    groups,
    late::{self, LateDrops},
    model::{End, Host, Location, Other, Report, Sampled, Start, groups::Groups},
    names::Names,
    namespaces::{self, MoreNamespaces, NamespaceDrops},
    nat::Nat,
    number::{rate, seconds, share, to_microsecond},
    offsets,
    options::Options,
    path,
    place::{Place, Reason, Symbol},
    sample::{Clock, Sample},
    snapshot::{DropCounters, Folded, Lost, Snapshot},
    timestamp::to_millisecond,
    tunnel::Inner,
};

/// Decides whether drops at a place, for a reason, are harmless housekeeping.
pub type IsBenign = fn(Option<&Symbol>, Option<&Reason>) -> bool;

/// Remembers what was reported, so that the reports of a run add up to what was counted.
#[derive(Debug)]
pub struct Reporter {
    host: Host,
    options: Options,
    benign: IsBenign,
    /// Sum of all reports so far.
    seen: DropCounters,
    /// When, since attach, the last report ended.
    until: Duration,
    reports: u64,
    drops: u64,
    benign_drops: u64,
    undecided: u64,
    fallen: u64,
    /// Devices that samples named in the last report, by row.
    devices: Vec<(Place, Vec<Device>)>,
    /// From where to where the samples of the last report went, by row.
    ends: Vec<(Place, Vec<Ends>)>,
}

impl Reporter {
    /// Starts at the moment of attaching, when all counters are zero.
    pub fn new(host: Host, options: Options, benign: IsBenign) -> Self {
        Self {
            host,
            options,
            benign,
            seen: DropCounters::default(),
            until: Duration::ZERO,
            reports: 0,
            drops: 0,
            benign_drops: 0,
            undecided: 0,
            fallen: 0,
            devices: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// The first line of a run. `interval` is the nominal one, `filters` are the options that leave
    /// drops out.
    pub fn start(
        &self,
        time: Timestamp,
        interval: Duration,
        notices: Vec<String>,
        filters: Vec<String>,
    ) -> Start {
        Start {
            host: self.host.clone(),
            dropwatch: env!("CARGO_PKG_VERSION").to_owned(),
            time: to_millisecond(time),
            interval_s: seconds(interval),
            notices,
            filters,
        }
    }

    /// Moves what was seen of namespaces that have ended to where it is counted from now on.
    fn fold(&mut self, folded: &Folded) {
        let DropCounters { drops, groups, .. } = &mut self.seen;
        for key in &folded.drops {
            if let Some(count) = drops.remove(key) {
                let sum = drops.entry(key.everywhere()).or_default();
                *sum = sum.saturating_add(count);
            }
        }
        for (group, cpu) in &folded.groups {
            if let Some(count) = groups.remove(&(*group, *cpu)) {
                let sum = groups.entry((Group::default(), *cpu)).or_default();
                *sum = sum.saturating_add(count);
            }
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
        self.fold(&snapshot.counters.folded);
        let delta = Delta::between(&self.seen, &snapshot.counters);
        delta.apply(&mut self.seen);
        let interval = snapshot.since_attach.saturating_sub(self.until);
        self.until = self.until.max(snapshot.since_attach);
        let mut selected = by_place(&delta.drops);
        selected.retain(|key, _| self.selects(*key, names));
        let totals = totals(&self.seen.drops, &selected);
        let (unknown_location, undecided) = self.options.unlocated(&delta.lost);
        let undecided = undecided.saturating_add(delta.undecided.sum());
        let drops = selected
            .values()
            .flatten()
            .fold(unknown_location, |sum: u64, (_, n)| sum.saturating_add(*n));
        self.reports += 1;
        self.drops = self.drops.saturating_add(drops);
        self.undecided = self.undecided.saturating_add(undecided);
        self.fallen = self.fallen.saturating_add(delta.fallen);

        let mut samples = SamplesByKey::new(samples).within(&delta.drops);
        let (mut devices, mut ends) = (Vec::new(), Vec::new());
        let mut locations: Vec<Location> = selected
            .into_iter()
            .map(|(key, parts)| {
                let count = parts.iter().fold(0, |sum: u64, (_, count)| sum.saturating_add(*count));
                let total = totals.get(&key).copied().unwrap_or(count);
                let row = self.location(key, (count, total), drops, interval, names);
                devices.push((row.place.clone(), samples.devices(key)));
                let row = self.detailed(row, key, &mut samples, names);
                ends.push((row.place.clone(), samples.ends(key)));
                match self.options.namespaces {
                    true => self.divided(row, key, &parts, interval, &mut samples, names),
                    false => row,
                }
            })
            .collect();
        let benign = locations.iter().filter(|row| row.benign);
        self.benign_drops =
            benign.fold(self.benign_drops, |sum, row| sum.saturating_add(row.count));
        (self.devices, self.ends) = (devices, ends);
        // Unnamed rows come after named ones, ordered by address, since their order would depend on
        // hashing otherwise.
        locations.sort_by(|a, b| {
            let rank = |row: &Location| (Reverse(row.count), row.place.symbol.is_none());
            rank(a).cmp(&rank(b)).then_with(|| by_name(a).cmp(&by_name(b)))
        });

        let groups = (!self.options.by.is_empty())
            .then(|| self.groups(&delta, unknown_location, interval, names));
        let end = to_millisecond(snapshot.wall);
        Report {
            seq: self.reports,
            host: self.host.clone(),
            start: before(end, interval),
            end,
            interval_s: seconds(interval),
            intervals: nominal_intervals.max(1),
            baseline: false,
            drops,
            rate: rate(drops, interval),
            locations,
            other: Other { count: unknown_location, unknown_location, ..Other::default() },
            lost: delta.lost,
            filter_undecided: self.options.is_filtered().then_some(undecided),
            filter_undecided_by: delta.undecided,
            groups: groups.map(Box::new),
            findings: Vec::new(),
            more_findings: Vec::new(),
        }
    }

    /// One sampled drop by itself.
    pub fn sampled(&self, sample: &Sample, clock: &Clock, names: &mut dyn Names) -> Sampled {
        let place = Place::new(names.symbol(sample.key.location), names.reason(sample.key.reason));
        let device = sample.netns.zip(sample.ifindex);
        let stack = details::frames(sample, self.options.addresses, names);
        let context = || path::context(stack.iter().skip(1).map(|frame| frame.symbol.as_deref()));
        let task = sample.task.as_ref().map(|task| Task {
            comm: task.comm.clone(),
            pid: task.pid,
            context: context(),
        });
        Sampled {
            host: self.host.clone(),
            time: clock.wall(sample.time),
            at_s: to_microsecond(clock.since_attach(sample.time)),
            place,
            address: self.address(sample.key.location),
            weight: sample.weight,
            cpu: sample.cpu,
            length: sample.length,
            netns: sample.netns.map(|inum| details::netns(inum, names)),
            interface: device.map(|(inum, index)| details::interface(inum, index, names)),
            outgoing: sample.outgoing,
            conntrack: sample.conntrack,
            mark: sample.mark,
            owner: sample.socket.and_then(|socket| details::owner(socket, names)),
            flow: Flow::of(sample),
            inner: Inner::of(sample),
            nat: Nat::of(sample),
            task,
            stack,
            ethertype: sample.protocol,
            link_header: sample.link_header,
            packet: sample.packet.clone(),
        }
    }

    /// Counts drops of the last report as harmless, which was decided only after that report was
    /// made.
    pub fn add_benign(&mut self, drops: u64) {
        self.benign_drops = self.benign_drops.saturating_add(drops);
    }

    /// The last line of a run, after the report of its last, partial interval.
    pub fn end(&self, time: Timestamp) -> End {
        End {
            host: self.host.clone(),
            time: to_millisecond(time),
            duration_s: seconds(self.until),
            reports: self.reports,
            drops: self.drops,
            benign: self.benign_drops,
            lost: self.seen.lost,
            filter_undecided: self.options.is_filtered().then_some(self.undecided),
            filter_undecided_by: self.seen.undecided,
            run: None,
        }
    }

    /// Whether drops at `key` are reported.
    pub fn selects(&self, key: DropKey, names: &mut dyn Names) -> bool {
        let keys = &self.options.keys;
        keys.is_empty()
            || keys.selects(names.symbol(key.location).as_ref(), names.reason(key.reason).as_ref())
    }

    /// What was typed of functions' offsets at which nothing was dropped; see [`offsets`].
    pub fn without_drops(&self, names: &mut dyn Names) -> Vec<(usize, String)> {
        offsets::without_drops(&self.options.keys, &self.seen.drops, names)
    }

    /// Numbers of the namespaces that have dropped something since the last report.
    pub fn namespaces_since<'a>(
        &'a self,
        counters: &'a DropCounters,
    ) -> impl Iterator<Item = u32> + 'a {
        let seen = |key| self.seen.drops.get(key).copied().unwrap_or(0);
        let lossy = counters.drops.iter().filter(move |(key, count)| **count > seen(key));
        lossy.map(|(key, _)| key.netns).filter(|netns| *netns != NO_NETNS)
    }

    /// What was counted between two readings, of the drops that are reported and not known to be
    /// harmless.
    pub fn late(
        &self,
        then: &HashMap<DropKey, u64>,
        now: &HashMap<DropKey, u64>,
        names: &mut dyn Names,
    ) -> Vec<LateDrops> {
        late::between(then, now, |key| {
            let (symbol, reason) = (names.symbol(key.location), names.reason(key.reason));
            let benign = (self.benign)(symbol.as_ref(), reason.as_ref());
            (!benign && self.selects(key, names)).then(|| Place::new(symbol, reason))
        })
    }

    /// The same, since the counters of the last report were read.
    pub fn late_since_report(
        &self,
        now: &HashMap<DropKey, u64>,
        names: &mut dyn Names,
    ) -> Vec<LateDrops> {
        self.late(&self.seen.drops, now, names)
    }

    /// Drops reported so far.
    pub fn drops(&self) -> u64 {
        self.drops
    }

    /// The devices that samples named in the last report, by row: more than its details show, and
    /// recorded nowhere.
    pub fn devices(&self) -> &[(Place, Vec<Device>)] {
        &self.devices
    }

    /// From where to where the samples of the last report went, by row: more than its details show.
    pub fn ends(&self) -> &[(Place, Vec<Ends>)] {
        &self.ends
    }

    /// What was lost so far.
    pub fn lost(&self) -> Lost {
        self.seen.lost
    }

    /// Number of counters that were read lower than before. Anything but 0 is a fault of the
    /// reader, since counters never fall.
    pub fn fallen(&self) -> u64 {
        self.fallen
    }

    fn location(
        &self,
        key: DropKey,
        (count, total): (u64, u64),
        drops: u64,
        interval: Duration,
        names: &mut dyn Names,
    ) -> Location {
        let symbol = names.symbol(key.location);
        let reason = names.reason(key.reason);
        let benign = (self.benign)(symbol.as_ref(), reason.as_ref());
        Location {
            place: Place::new(symbol, reason),
            address: self.address(key.location),
            count,
            rate: rate(count, interval),
            share: share(count, drops),
            total,
            benign,
            new: total == count,
            details: None,
            stacks: Vec::new(),
            namespaces: Vec::new(),
            more: MoreNamespaces::default(),
        }
    }

    /// `row` with its `parts`, drops by the number of their namespace.
    fn divided(
        &self,
        row: Location,
        key: DropKey,
        parts: &[(u32, u64)],
        interval: Duration,
        samples: &mut SamplesByKey<'_>,
        names: &mut dyn Names,
    ) -> Location {
        let part = |&(inum, count): &(u32, u64)| {
            let key = key.within(inum);
            let netns = (inum != NO_NETNS).then(|| details::netns(inum, names));
            let total = self.seen.drops.get(&key).copied().unwrap_or(count);
            let details = samples.details_within(key, names).map(Box::new);
            NamespaceDrops {
                flows: samples.flows_within(key, names),
                effective_samples: details.as_ref().and_then(|details| details.effective_samples),
                details,
                ..NamespaceDrops::new(netns, count, total, row.count, interval)
            }
        };
        let mut namespaces: Vec<NamespaceDrops> = parts.iter().map(part).collect();
        namespaces::sort(&mut namespaces);
        let most = namespaces.first();
        let most = most.and_then(|it| Some(Fact { is: it.netns()?, share: it.share }));
        let details = row.details.map(|details| Details { netns: most, ..details });
        Location { details, namespaces, ..row }
    }

    fn groups(
        &self,
        delta: &Delta,
        unlocated: u64,
        interval: Duration,
        names: &mut dyn Names,
    ) -> Groups {
        // Drops without room at their location have been grouped all the same, unless the groups
        // are made of the counters of locations.
        let of_places = self.options.by.iter().all(|by| by.parts() == 0);
        let no_room = delta.lost.map_full.saturating_add(delta.lost.map_busy);
        let unlocated = if of_places { unlocated } else { unlocated.saturating_sub(no_room) };
        groups::between(&self.options.by, delta, &self.seen.groups, unlocated, interval, names)
    }

    /// `row` with the details that the samples of `key` give.
    fn detailed(
        &self,
        row: Location,
        key: DropKey,
        samples: &mut SamplesByKey<'_>,
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

/// Drops of each place and reason, by the number of their namespace.
fn by_place(drops: &HashMap<DropKey, u64>) -> HashMap<DropKey, Vec<(u32, u64)>> {
    let mut places: HashMap<DropKey, Vec<(u32, u64)>> = HashMap::new();
    for (key, count) in drops {
        places.entry(key.everywhere()).or_default().push((key.netns, *count));
    }
    places
}

/// Drops of each of the places so far, in all namespaces.
fn totals(
    seen: &HashMap<DropKey, u64>,
    places: &HashMap<DropKey, Vec<(u32, u64)>>,
) -> HashMap<DropKey, u64> {
    let mut totals = HashMap::with_capacity(places.len());
    for (key, count) in seen {
        let place = key.everywhere();
        if places.contains_key(&place) {
            let sum: &mut u64 = totals.entry(place).or_default();
            *sum = sum.saturating_add(*count);
        }
    }
    totals
}

/// The order of rows whose counts are equal.
fn by_name(row: &Location) -> impl Ord + '_ {
    let Place { symbol, offset, module, reason, subsystem } = &row.place;
    (symbol, offset, reason, module, row.address, subsystem)
}

/// `end - interval`, so that the labels of a line and its `interval_s` agree to the millisecond.
fn before(end: Timestamp, interval: Duration) -> Timestamp {
    let millis = (interval.as_micros().saturating_add(500) / 1000).try_into().unwrap_or(i64::MAX);
    end.checked_sub(SignedDuration::from_millis(millis)).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests;
