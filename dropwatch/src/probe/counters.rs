//! Reading what the kernel has counted.

use std::{collections::HashMap, hash::Hash, io};

use anyhow::{Context, Result};
use dropwatch_common::{Counter, CpuKey, Lost as Cause, Netns, Turn, Undecided};

use super::{
    Probe,
    cpus::Cpus,
    fronts::Fronts,
    info,
    maps::{Map, PerCpuMap},
    plan::Grouping,
    sums::{CounterSums, Sums},
    turns::{CounterId, Owner, Turns},
};
use crate::report::snapshot::{DropCounters, Folded, Lost, UndecidedBy};

/// The section of the kernel side's front caches, which is the name of their map.
pub(super) const FRONTS: &str = ".bss.fronts";

/// That of its front caches of groups.
pub(super) const GROUP_FRONTS: &str = ".bss.groups";

/// The maps that have counts.
pub(super) struct Maps {
    fronts: Fronts,
    group_fronts: Fronts,
    drops: PerCpuMap<CpuKey, Counter>,
    groups: PerCpuMap<CpuKey, Counter>,
    turns: PerCpuMap<Turn, u64>,
    turned: Turned,
    lost: PerCpuMap<u32, u64>,
}

impl Maps {
    /// `None` where one is missing, or has another layout.
    pub(super) fn take_from(
        maps: &mut HashMap<String, Map>,
        cpus: &Cpus,
        grouping: Grouping,
    ) -> io::Result<Option<Self>> {
        let mut fronts = |name, cpus: u32| {
            maps.remove(name).map_or(Ok(None), |map| Fronts::new(&map, cpus as usize))
        };
        let Some(group_fronts) = fronts(GROUP_FRONTS, grouping.fronts(cpus))? else {
            return Ok(None);
        };
        let Some(fronts) = fronts(FRONTS, cpus.end())? else { return Ok(None) };
        let rest = || {
            Some(Self {
                fronts,
                group_fronts,
                drops: PerCpuMap::new(maps.remove("DROPS")?, 1)?,
                groups: PerCpuMap::new(maps.remove("GROUPS")?, 1)?,
                turns: PerCpuMap::new(maps.remove("TURNS")?, 1)?,
                turned: Turned::new(grouping),
                lost: PerCpuMap::new(maps.remove("LOST")?, cpus.count())?,
            })
        };
        Ok(rest())
    }
}

/// The turns of both kinds of counters.
struct Turned {
    places: Turns,
    groups: Turns,
}

impl Turned {
    fn new(grouping: Grouping) -> Self {
        Self { places: Turns::new(false), groups: Turns::new(grouping.by_cpu) }
    }

    fn note(&mut self, turns: Vec<Turn>) {
        let (of_groups, of_places) =
            turns.into_iter().partition(|turn| turn.counter & Turn::OF_GROUP != 0);
        self.places.note(of_places);
        self.groups.note(of_groups);
    }
}

/// A counter as it was read: the count first, then the cookie.
type Reading = (CounterId, Counter);

impl Maps {
    /// Every counter.
    fn each(&self, mut each: impl FnMut(CounterId, &Counter)) -> io::Result<()> {
        let all =
            [(&self.fronts, &self.drops, 0), (&self.group_fronts, &self.groups, Turn::OF_GROUP)];
        for (fronts, map, kind) in all {
            fronts.each(|cpu, slot_number, slot| {
                if let Some(key) = slot.key() {
                    each(CounterId { key, counter: slot_number | kind, cpu }, &slot.counter);
                }
            });
            map.each(|CpuKey { key, cpu, .. }, counters| {
                let id = CounterId { key, counter: Turn::IN_MAP | kind, cpu };
                counters.iter().for_each(|counter| each(id, counter));
            })?;
        }
        Ok(())
    }

    /// The turns that were noted since the last call.
    fn take_turns(&self) -> Result<Vec<Turn>> {
        let mut turns = Vec::new();
        let taken = self.turns.take_each(|turn, _| turns.push(turn));
        taken.context("cannot read which namespaces have ended")?;
        Ok(turns)
    }

    /// What all counters have counted, by key and namespace, and by group.
    fn sum(&mut self, grouping: Grouping) -> Result<(Sums, Sums)> {
        self.turned.note(self.take_turns()?);
        let mut sums = CounterSums::new(grouping, &self.turned.places, &self.turned.groups);
        let read = self.each(|id, counter| sums.add(&id, counter));
        read.context("cannot read the drop counters")?;
        // A turn is noted before anything is counted behind it: where there is none by now, every
        // counter counted for the namespace that it said.
        let turns = self.take_turns()?;
        if turns.is_empty() {
            return Ok(sums.into_parts());
        }
        let mut readings: Vec<Reading> = Vec::new();
        let read = self.each(|id, counter| readings.push((id, *counter)));
        read.context("cannot read the drop counters")?;
        self.turned.note(turns);
        self.turned.note(self.take_turns()?);
        let mut sums = CounterSums::new(grouping, &self.turned.places, &self.turned.groups);
        readings.iter().for_each(|(id, counter)| sums.add(id, counter));
        Ok(sums.into_parts())
    }
}

impl Probe {
    /// Every counter, summed over CPUs unless they are counted by CPU. `number` is what a namespace is
    /// called in this run, where inode numbers alone do not tell one from another.
    ///
    /// Exact after [`Probe::detach`]. While attached, drops that happen during the read may or may
    /// not be in it; whatever is not will be in the next one, because counters only grow.
    pub fn read(&mut self, mut number: impl FnMut(Netns) -> u32) -> Result<DropCounters> {
        let (mut places, mut groups) = self.maps.sum(self.grouping)?;
        let mut folded = Folded::default();
        // What a filter lets through is told apart to the end: there is little of it.
        if !self.filtered {
            let everywhere = |it: &Owner| Owner { key: it.key.everywhere(), ..Owner::default() };
            let turned = self.maps.turned.places.fold(&mut places, everywhere);
            folded.drops = turned.iter().map(|it| it.place(&mut number)).collect();
        }
        // Those of a group of which not everything is proved any more.
        let unproved = |it: &Owner| Owner { cpu: it.cpu, ..Owner::default() };
        let turned = self.maps.turned.groups.fold(&mut groups, unproved);
        folded.groups = turned.iter().map(|it| it.group(&mut number)).collect();
        let drops = by(places, |it| it.place(&mut number));
        let groups = by(groups, |it| it.group(&mut number));

        let counted = |slot: u32| {
            let counts = self.maps.lost.entry(slot);
            let counts = counts.context("cannot read the counters of lost drops")?;
            Ok::<_, anyhow::Error>(counts.iter().sum::<u64>())
        };
        let slot = |cause: Cause| counted(cause as u32);
        let lost = Lost {
            map_full: slot(Cause::MapFull)?,
            map_busy: slot(Cause::MapBusy)?,
            recursion: self.skipped()?,
            samples: slot(Cause::Sample)?,
            stacks: slot(Cause::Stack)?,
            pcap: 0, // not the kernel's to know
            unsampled: slot(Cause::Unsampled)?,
        };
        let mut undecided = UndecidedBy::default();
        for option in Undecided::ALL {
            *undecided.of(option) = counted(option.slot())?;
        }
        let ungrouped = slot(Cause::Group)?;
        Ok(DropCounters { drops, folded, lost, undecided, groups, ungrouped })
    }

    /// How often the kernel skipped a program, because it was running on that CPU already.
    fn skipped(&self) -> Result<u64> {
        let skipped =
            self.programs.iter().map(|program| Ok(info::read(program)?.recursion_misses()));
        let skipped = skipped.sum::<io::Result<u64>>();
        skipped.context("cannot read how often the kernel skipped the program")
    }

    /// Whether the counters can be read with the capabilities of this moment.
    pub fn is_readable(&self) -> bool {
        self.maps.lost.entry(Cause::MapFull as u32).is_ok()
    }
}

/// Sums by what names their owners.
fn by<K: Eq + Hash>(sums: Sums, mut name: impl FnMut(&Owner) -> K) -> HashMap<K, u64> {
    let mut named: HashMap<K, u64> = HashMap::with_capacity(sums.len());
    for (owner, count) in sums {
        let sum = named.entry(name(&owner)).or_default();
        *sum = sum.saturating_add(count);
    }
    named
}
