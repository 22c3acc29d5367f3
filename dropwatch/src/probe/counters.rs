//! Reading what the kernel has counted.

use std::{collections::HashMap, io};

use anyhow::{Context, Result};
use dropwatch_common::{Counter, DropKey, Lost as Cause, filter::Group};

use super::{
    Probe,
    cpus::Cpus,
    fronts::Fronts,
    info,
    maps::{Map, PerCpuMap},
    sums::CounterSums,
};
use crate::report::snapshot::{DropCounters, Lost};

/// The section of the kernel side's front caches, which is the name of their map.
pub(super) const FRONTS: &str = ".bss.fronts";

/// The maps that have counts.
pub(super) struct Maps {
    fronts: Fronts,
    drops: PerCpuMap<DropKey, Counter>,
    groups: PerCpuMap<Group, u64>,
    lost: PerCpuMap<u32, u64>,
}

impl Maps {
    /// `None` where one is missing, or has another layout.
    pub(super) fn take_from(
        maps: &mut HashMap<String, Map>,
        cpus: &Cpus,
    ) -> io::Result<Option<Self>> {
        let Some(fronts) = maps.remove(FRONTS) else { return Ok(None) };
        let Some(fronts) = Fronts::new(&fronts, cpus.end() as usize)? else { return Ok(None) };
        let rest = || {
            Some(Self {
                fronts,
                drops: PerCpuMap::new(maps.remove("DROPS")?, cpus.count())?,
                groups: PerCpuMap::new(maps.remove("GROUPS")?, cpus.count())?,
                lost: PerCpuMap::new(maps.remove("LOST")?, cpus.count())?,
            })
        };
        Ok(rest())
    }
}

impl Probe {
    /// Every counter, summed over CPUs unless they are counted by CPU.
    ///
    /// Exact after [`Probe::detach`]. While attached, drops that happen during the read may or may
    /// not be in it; whatever is not will be in the next one, because counters only grow.
    pub fn read(&self) -> Result<DropCounters> {
        let maps = &self.maps;
        let mut sums = CounterSums::new(self.grouping, &self.cpus);
        maps.fronts.each(|cpu, slot| sums.add_slot(cpu, slot));
        let read = maps.drops.each(|key, counters| sums.add_drops(key, counters));
        read.context("cannot read the drop counters")?;
        let read = maps.groups.each(|group, counts| sums.add_group(group, counts));
        read.context("cannot read the counters by group")?;
        let (drops, groups) = sums.into_parts();

        let slot = |cause: Cause| {
            let counts = maps.lost.entry(cause as u32);
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
        };
        let undecided = slot(Cause::Undecided)?;
        let ungrouped = slot(Cause::Group)?;
        Ok(DropCounters { drops, lost, undecided, groups, ungrouped })
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
