//! Counters of the host as they stood when drops were counted.
//!
//! They are read after the drops, so they have counted some that the rows of the report do not have: a
//! finding would say 37 above a row of 36, and of the next report's rows one would be left without a
//! cause. How many drops came in between at the places of a counter is known, since drops are counted
//! once more behind the last of these readings: what a counter has beyond its rows, and no more than
//! that, is taken back from it. It is then in what it counts in the next interval, where those drops are,
//! too. So nothing is said of a report that is not in its rows, and the sums of a run are the counters'.

use super::{
    knowledge::{NOT_SPECIFIED, function_name},
    rules,
};
use crate::report::{
    conntrack::ConntrackCounter,
    evidence::{HostEvidence, NetnsEvidence, QDISC_DROPS},
    late::LateDrops,
    model::{Location, Report},
    namespaces::NamespaceDrops,
    place::Place,
};

/// Drops that a counter of the host counts, each of them once.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    of: Kept,
    reasons: &'static [&'static str],
    /// Anywhere if there are none. Drops without a reason count only at these.
    functions: &'static [&'static str],
    /// Every reason of this subsystem.
    subsystem: Option<&'static str>,
}

/// Which counters count them; of several, each drop is in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Those of the whole host.
    Host(&'static [&'static str]),
    /// Those of the namespace.
    Netns(&'static [&'static str]),
    /// This one of each device.
    Devices(&'static str),
    Tracking(ConntrackCounter),
    /// Those of the packet filter's queues.
    Queues,
}

/// One of these counters.
#[derive(Clone, Copy, Debug)]
enum Counter {
    Named(&'static str),
    /// Of the device with this index.
    Device(u32, &'static str),
    Tracking(ConntrackCounter),
    /// Of the queue with this number.
    Queue(u16),
}

impl Counts {
    /// Those for one of `reasons`, and those without one, at one of `functions`.
    pub const fn of(
        of: Kept,
        reasons: &'static [&'static str],
        functions: &'static [&'static str],
    ) -> Self {
        Self { of, reasons, functions, subsystem: None }
    }

    /// Adds all for the reasons of a subsystem.
    #[must_use]
    pub const fn and_of(self, subsystem: &'static str) -> Self {
        Self { subsystem: Some(subsystem), ..self }
    }

    /// Names of counters of a namespace or of the host that it is about.
    pub fn names(&self) -> &'static [&'static str] {
        match self.of {
            Kept::Host(names) | Kept::Netns(names) => names,
            Kept::Devices(_) | Kept::Tracking(_) | Kept::Queues => &[],
        }
    }

    fn has(&self, place: &Place) -> bool {
        let function = place.symbol.as_deref().map(function_name);
        let here = function.is_some_and(|function| self.functions.contains(&function));
        match place.reason.as_deref() {
            None | Some(NOT_SPECIFIED) => here,
            Some(reason) => {
                let of_subsystem =
                    self.subsystem.is_some() && self.subsystem == place.subsystem.as_deref();
                of_subsystem
                    || self.reasons.contains(&reason) && (here || self.functions.is_empty())
            }
        }
    }
}

/// Drops of a report and those that came late, at the places of a counter.
struct Sums<'a> {
    rows: Vec<&'a Location>,
    late: Vec<&'a LateDrops>,
    /// Whether rows tell namespaces apart.
    apart: bool,
}

impl Sums<'_> {
    /// In the report, and behind it; `netns` is `None` for the whole host.
    fn of(&self, netns: Option<u32>) -> (u64, u64) {
        let netns = netns.filter(|_| self.apart);
        let is_of = |part: &&NamespaceDrops| part.number.or(part.inum) == netns;
        let count = |row: &&Location| match netns {
            Some(_) => row.namespaces.iter().filter(is_of).map(|part| part.count).sum(),
            None => row.count,
        };
        let rows = self.rows.iter().map(count).fold(0, u64::saturating_add);
        let late = self.late.iter().filter(|late| netns.is_none() || late.netns == netns);
        (rows, late.map(|late| late.count).fold(0, u64::saturating_add))
    }
}

/// Takes back from the counters of `now` what of the drops that came `late` they have counted already,
/// as far as the rows of `report` leave it over. `before` is how they stood at its begin.
pub fn wind_back(
    report: &Report,
    late: &[LateDrops],
    before: &HostEvidence,
    now: &mut HostEvidence,
) {
    if late.is_empty() {
        return;
    }
    let all: Vec<Counts> = rules::counts().collect();
    let apart = report.locations.iter().any(|row| !row.namespaces.is_empty())
        || late.iter().any(|late| late.netns.is_some());
    for (index, Counts { of, .. }) in all.iter().enumerate() {
        // Several rules may be about one counter, each with other drops.
        if all.iter().take(index).any(|earlier| earlier.of == *of) {
            continue;
        }
        let has = |place: &Place| all.iter().any(|it| it.of == *of && it.has(place));
        let late: Vec<&LateDrops> = late.iter().filter(|late| has(&late.place)).collect();
        if late.is_empty() {
            continue;
        }
        let rows = report.locations.iter().filter(|row| !row.benign && has(&row.place)).collect();
        let sums = Sums { rows, late, apart };
        if let Kept::Host(names) = of {
            let delta =
                |name: &str| Some(now.host.get(name)?.saturating_sub(before.host.get(name)?));
            let counted = names.iter().filter_map(|name| Some((*name, delta(name)?))).collect();
            for (name, back) in shared_out(counted, sums.of(None)) {
                now.host.take_back(name, back);
            }
            continue;
        }
        for (number, now) in &mut now.namespaces {
            let (rows, late) = sums.of(Some(*number));
            let before = before.namespaces.get(number).filter(|it| !now.is_another_than(it));
            if let (1.., Some(before)) = (late, before) {
                let counted = counted(*of, before, now);
                for (counter, back) in shared_out(counted, (rows, late)) {
                    take_back(now, before, counter, back);
                }
            }
        }
    }
}

/// What is to be taken back of each counter that `counted` so much, where `dropped` is what rows have, and
/// what came late.
fn shared_out<T>(mut counted: Vec<(T, u64)>, dropped: (u64, u64)) -> Vec<(T, u64)> {
    let (rows, late) = dropped;
    let sum = counted.iter().fold(0, |sum: u64, (_, counted)| sum.saturating_add(*counted));
    let mut left = sum.saturating_sub(rows).min(late);
    counted.sort_by_key(|(_, counted)| std::cmp::Reverse(*counted));
    let shares = counted.into_iter().map(|(counter, counted)| {
        let back = counted.min(left);
        left -= back;
        (counter, back)
    });
    shares.filter(|(_, back)| *back > 0).collect()
}

/// The counters of a namespace, and what each has counted in the interval.
fn counted(of: Kept, before: &NetnsEvidence, now: &NetnsEvidence) -> Vec<(Counter, u64)> {
    match of {
        Kept::Host(_) => Vec::new(),
        Kept::Netns(names) => {
            let delta = |name: &str| {
                Some(now.counters.get(name)?.saturating_sub(before.counters.get(name)?))
            };
            let counted =
                names.iter().filter_map(|name| Some((Counter::Named(name), delta(name)?)));
            counted.collect()
        }
        Kept::Devices(name) => {
            let delta = |index: &u32| {
                let (now, before) = (now.links.get(index)?, before.links.get(index)?);
                let is_one = now.name == before.name;
                is_one.then_some(now.counters.get(name)?.saturating_sub(before.counters.get(name)?))
            };
            let of = |index: &u32| Some((Counter::Device(*index, name), delta(index)?));
            now.links.keys().filter_map(of).collect()
        }
        Kept::Tracking(counter) => {
            let delta = || {
                let (now, before) = (now.conntrack.as_ref()?, before.conntrack.as_ref()?);
                now.counters.since(&before.counters)?.get(counter)
            };
            delta().map(|delta| (Counter::Tracking(counter), delta)).into_iter().collect()
        }
        Kept::Queues => {
            let delta = |number: &u16| {
                let (now, before) = (now.queues.get(number)?, before.queues.get(number)?);
                let is_one = now.listener == before.listener;
                is_one.then_some(now.dropped.saturating_sub(before.dropped))
            };
            let of = |number: &u16| Some((Counter::Queue(*number), delta(number)?));
            now.queues.keys().filter_map(of).collect()
        }
    }
}

fn take_back(now: &mut NetnsEvidence, before: &NetnsEvidence, counter: Counter, back: u64) {
    match counter {
        Counter::Named(name) => now.counters.take_back(name, back),
        Counter::Device(index, name) => {
            let Some(link) = now.links.get_mut(&index) else { return };
            link.counters.take_back(name, back);
            if name != QDISC_DROPS {
                return;
            }
            let Some(before) = before.links.get(&index) else { return };
            let delta = |name| Some(link.counters.get(name)? - before.counters.get(name)?);
            let left = delta(name).unwrap_or(0);
            // A discipline cannot have dropped more than all of the device's.
            for (id, queue) in &mut link.queues {
                let then = before.queues.get(id).filter(|it| it.kind == queue.kind);
                let then = then.map_or(0, |before| before.drops);
                queue.drops = queue.drops.min(then.saturating_add(left));
            }
        }
        Counter::Tracking(counter) => {
            if let Some(stats) = &mut now.conntrack {
                stats.counters.take_back(counter, back);
            }
        }
        Counter::Queue(number) => {
            if let Some(queue) = now.queues.get_mut(&number) {
                queue.dropped = queue.dropped.saturating_sub(back);
            }
        }
    }
}

#[cfg(test)]
mod tests;
