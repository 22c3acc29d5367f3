//! Reading what the kernel has counted.

use std::{collections::HashMap, io};

use anyhow::{Context, Result};
use dropwatch_common::{Counter, DropKey, Lost as Cause, Netns, Turn, filter::Group};

use super::{
    Probe,
    cpus::Cpus,
    fronts::Fronts,
    info,
    maps::{Map, PerCpuMap},
    plan::Grouping,
    sums::{CounterSums, DropSums, GroupSums},
    turns::{CounterId, Turns},
};
use crate::report::snapshot::{DropCounters, Lost};

/// The section of the kernel side's front caches, which is the name of their map.
pub(super) const FRONTS: &str = ".bss.fronts";

/// That of its front caches of groups.
pub(super) const GROUP_FRONTS: &str = ".bss.groups";

/// The maps that have counts.
pub(super) struct Maps {
    fronts: Fronts,
    group_fronts: Fronts,
    drops: PerCpuMap<DropKey, Counter>,
    turns: PerCpuMap<Turn, u64>,
    turned: Turns,
    groups: PerCpuMap<Group, u64>,
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
                drops: PerCpuMap::new(maps.remove("DROPS")?, cpus.count())?,
                turns: PerCpuMap::new(maps.remove("TURNS")?, 1)?,
                turned: Turns::default(),
                groups: PerCpuMap::new(maps.remove("GROUPS")?, cpus.count())?,
                lost: PerCpuMap::new(maps.remove("LOST")?, cpus.count())?,
            })
        };
        Ok(rest())
    }
}

/// A counter of drops as it was read: the count first, then the cookie.
type Reading = (CounterId, Counter);

impl Maps {
    /// Every counter of drops.
    fn each(&self, cpus: &Cpus, mut each: impl FnMut(CounterId, &Counter)) -> io::Result<()> {
        self.fronts.each(|cpu, counter, slot| {
            if let Some(key) = slot.key() {
                each(CounterId { key, counter, cpu }, &slot.counter);
            }
        });
        self.drops.each(|key, counters| {
            for (cpu, counter) in cpus.numbers().zip(counters) {
                each(CounterId { key, counter: Turn::IN_MAP, cpu }, counter);
            }
        })
    }

    /// The turns that were noted since the last call.
    fn take_turns(&self) -> Result<Vec<Turn>> {
        let mut turns = Vec::new();
        let taken = self.turns.take_each(|turn, _| turns.push(turn));
        taken.context("cannot read which namespaces have ended")?;
        Ok(turns)
    }

    /// What all counters have counted, by key and namespace, and by group.
    fn sum(&mut self, grouping: Grouping, cpus: &Cpus) -> Result<(DropSums, GroupSums)> {
        self.turned.note(self.take_turns()?);
        let mut sums = CounterSums::new(grouping, cpus, &self.turned);
        let read = self.each(cpus, |id, counter| sums.add(&id, counter));
        read.context("cannot read the drop counters")?;
        self.add_groups(&mut sums)?;
        // A turn is noted before anything is counted behind it: where there is none by now, every
        // counter counted for the namespace that it said.
        let turns = self.take_turns()?;
        if turns.is_empty() {
            return Ok(sums.into_parts());
        }
        let mut readings: Vec<Reading> = Vec::new();
        let read = self.each(cpus, |id, counter| readings.push((id, *counter)));
        read.context("cannot read the drop counters")?;
        self.turned.note(turns);
        self.turned.note(self.take_turns()?);
        let mut sums = CounterSums::new(grouping, cpus, &self.turned);
        readings.iter().for_each(|(id, counter)| sums.add(id, counter));
        self.add_groups(&mut sums)?;
        Ok(sums.into_parts())
    }

    fn add_groups(&self, sums: &mut CounterSums<'_>) -> Result<()> {
        self.group_fronts.each(|cpu, _, slot| sums.add_group_slot(cpu, slot));
        let read = self.groups.each(|group, counts| sums.add_group(group, counts));
        read.context("cannot read the counters by group")
    }
}

impl Probe {
    /// Every counter, summed over CPUs unless they are counted by CPU. `number` is what a namespace is
    /// called in this run, where inode numbers alone do not tell one from another.
    ///
    /// Exact after [`Probe::detach`]. While attached, drops that happen during the read may or may
    /// not be in it; whatever is not will be in the next one, because counters only grow.
    pub fn read(&mut self, mut number: impl FnMut(Netns) -> u32) -> Result<DropCounters> {
        let (mut sums, groups) = self.maps.sum(self.grouping, &self.cpus)?;
        // What a filter lets through is told apart to the end: there is little of it.
        let folded = if self.filtered { Vec::new() } else { self.maps.turned.fold(&mut sums) };
        let folded = folded
            .into_iter()
            .map(|(key, cookie)| key.within(number(Netns { inum: key.netns, cookie })));
        let folded = folded.collect();
        let mut drops = HashMap::new();
        for ((key, cookie), count) in sums {
            let number = number(Netns { inum: key.netns, cookie });
            *drops.entry(key.within(number)).or_default() += count;
        }

        let slot = |cause: Cause| {
            let counts = self.maps.lost.entry(cause as u32);
            let counts = counts.context("cannot read the counters of lost drops")?;
            Ok::<_, anyhow::Error>(counts.iter().sum::<u64>())
        };
        let lost = Lost {
            map_full: slot(Cause::MapFull)?,
            map_busy: slot(Cause::MapBusy)?,
            recursion: self.skipped()?,
            samples: slot(Cause::Sample)?,
            stacks: slot(Cause::Stack)?,
            pcap: 0, // not the kernel's to know
            unsampled: slot(Cause::Unsampled)?,
        };
        let undecided = slot(Cause::Undecided)?;
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
