//! Reading what the kernel has counted.

use std::{collections::HashMap, hash::Hash, io};

use anyhow::{Context, Result};
use dropwatch_common::{Counter, CpuKey, DropKey, Lost as Cause, Netns, Turn, Undecided};

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

    /// Of too many namespaces that have ended, has both kinds sum the settled ones up, whatever the
    /// filter: names come and go there, too. Returns which they were.
    fn fold(&mut self, places: &mut Sums, groups: &mut Sums) -> (Vec<Owner>, Vec<Owner>) {
        let everywhere = |it: &Owner| Owner { key: it.key.everywhere(), ..Owner::default() };
        // A group of which not everything is proved any more.
        let unproved = |it: &Owner| Owner { cpu: it.cpu, ..Owner::default() };
        (self.places.fold(places, everywhere), self.groups.fold(groups, unproved))
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
        let (of_places, of_groups) = self.maps.turned.fold(&mut places, &mut groups);
        let folded = Folded {
            drops: of_places.iter().map(|it| it.place(&mut number)).collect(),
            groups: of_groups.iter().map(|it| it.group(&mut number)).collect(),
        };
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

    /// Drops alone, once more between two readings, which this one is none of: nothing that has ended is
    /// summed up for it.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read_again(
        &mut self,
        mut number: impl FnMut(Netns) -> u32,
    ) -> Result<HashMap<DropKey, u64>> {
        let (places, _) = self.maps.sum(self.grouping)?;
        Ok(by(places, |it| it.place(&mut number)))
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

#[cfg(test)]
mod tests {
    use dropwatch_common::filter::Group;
    use proptest::prelude::*;

    use super::*;

    /// Counters of one place and of one group, in turn for one namespace after the other: each drop is
    /// counted once in both. Of these many namespaces with so many drops each, one half may be seen in a
    /// reading before the other.
    fn turns(each: &[u64], from: usize, kind: u32) -> Vec<Turn> {
        let key = |inum| match kind {
            Turn::OF_GROUP => Group { known: 1, netns: inum, ..Group::default() }.to_key(),
            _ => DropKey::new(0x1000, 2).within(inum),
        };
        let mut until = 0;
        let all = each.iter().enumerate().map(|(index, drops)| {
            until += drops;
            let cookie = index as u64 + 1;
            Turn { key: key(7), counter: 3 | kind, cpu: 0, cookie, until }
        });
        all.skip(from).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// However many have ended and whenever they were read, groups are the drops once more.
        #[test]
        fn groups_of_namespaces_that_ended_have_as_many_drops_as_their_places(
            each in proptest::collection::vec(0..9_u64, 0..9000), part in 0..9000_usize, readings in 1..5
        ) {
            let mut turned = Turned::new(Grouping { parts: 1, by_cpu: false });
            let all: u64 = each.iter().sum();
            let early = part.min(each.len());
            for kind in [0, Turn::OF_GROUP] {
                turned.note(turns(&each[..early], 0, kind));
            }
            for reading in 0..readings {
                if reading == 1 {
                    for kind in [0, Turn::OF_GROUP] {
                        turned.note(turns(&each, early, kind));
                    }
                }
                let sums = CounterSums::new(Grouping::default(), &turned.places, &turned.groups);
                let (mut places, mut groups) = sums.into_parts();
                let (folded, of_groups) = turned.fold(&mut places, &mut groups);
                prop_assert_eq!(folded.len(), of_groups.len());
                let known = if reading == 0 { each[..early].iter().sum() } else { all };
                prop_assert_eq!(places.values().sum::<u64>(), known);
                prop_assert_eq!(groups.values().sum::<u64>(), known);
                let by_cookie = |sums: &Sums| {
                    let all = sums.iter().map(|(it, count)| (it.cookie, *count));
                    all.collect::<std::collections::BTreeMap<u64, u64>>()
                };
                prop_assert_eq!(by_cookie(&places), by_cookie(&groups), "the same ones are told apart");
            }
        }
    }
}
