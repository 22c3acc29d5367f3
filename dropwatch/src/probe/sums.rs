//! From counters of each CPU to those of a snapshot.

use std::collections::HashMap;

use dropwatch_common::{Counter, DropKey, count::Slot, filter::Group};

use super::{cpus::Cpus, plan::Grouping};

type GroupSums = HashMap<(Group, Option<u32>), u64>;

/// The one group that every drop is in where only CPUs are distinguished.
const EVERY: Group = Group { known: 1, netns: 0, ifindex: 0, network: 0, transport: 0 };

/// Sums of one reading. Pure; slices are in the order of the CPUs.
#[derive(Debug)]
pub struct CounterSums<'a> {
    grouping: Grouping,
    cpus: &'a Cpus,
    drops: HashMap<DropKey, u64>,
    groups: GroupSums,
}

impl<'a> CounterSums<'a> {
    pub fn new(grouping: Grouping, cpus: &'a Cpus) -> Self {
        Self { grouping, cpus, drops: HashMap::new(), groups: GroupSums::new() }
    }

    /// Adds what a slot of a CPU's front cache has. The map may have more of the same key.
    pub fn add_slot(&mut self, cpu: u32, slot: &Slot) {
        if let Some(key) = slot.key() {
            self.add(key, cpu, slot.counter.count);
        }
    }

    /// Adds one entry of the map of drops.
    pub fn add_drops(&mut self, key: DropKey, counters: &[Counter]) {
        if self.grouping.of_places() {
            for (cpu, counter) in self.cpus.numbers().zip(counters) {
                self.add(key, cpu, counter.count);
            }
        } else {
            self.add(key, 0, counters.iter().map(|counter| counter.count).sum());
        }
    }

    /// Adds one entry of the map of groups.
    pub fn add_group(&mut self, group: Group, counts: &[u64]) {
        for (cpu, count) in self.cpus.numbers().zip(counts) {
            let cpu = self.grouping.by_cpu.then_some(cpu);
            count_in(&mut self.groups, (group, cpu), *count);
        }
    }

    /// Drops by key, and by group. Nothing in them is zero.
    pub fn into_parts(self) -> (HashMap<DropKey, u64>, GroupSums) {
        (self.drops, self.groups)
    }

    fn add(&mut self, key: DropKey, cpu: u32, count: u64) {
        if count == 0 {
            return;
        }
        *self.drops.entry(key).or_default() += count;
        if self.grouping.of_places() {
            count_in(&mut self.groups, (EVERY, Some(cpu)), count);
        }
    }
}

/// A key that is there and has counted nothing yet is left out.
fn count_in(groups: &mut GroupSums, group: (Group, Option<u32>), count: u64) {
    if count > 0 {
        *groups.entry(group).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use dropwatch_common::count::{busy, tag};

    use super::*;

    const KEY: DropKey = DropKey::new(0x1000, 2);

    fn counter(count: u64) -> Counter {
        Counter { count, ..Counter::default() }
    }

    /// Two CPUs that have counted 1 and 2 drops in a slot; the second is at it, and at claiming
    /// another.
    fn add_slots(sums: &mut CounterSums<'_>) {
        let slot = |location, count, tag| Slot {
            location,
            tag,
            counter: counter(count),
            ..Slot::default()
        };
        sums.add_slot(0, &slot(KEY.location, 1, tag(KEY.reason, KEY.netns)));
        sums.add_slot(1, &slot(KEY.location, 2, busy(tag(KEY.reason, KEY.netns))));
        sums.add_slot(1, &slot(0x3000, 0, 0));
    }

    #[test]
    fn the_caches_and_the_map_are_added_up() {
        let cpus = Cpus::first(2);
        let mut sums = CounterSums::new(Grouping::default(), &cpus);
        add_slots(&mut sums);
        sums.add_drops(KEY, &[counter(10), counter(0)]);
        sums.add_drops(DropKey::new(0x2000, 2), &[counter(0), counter(0)]);
        let (drops, groups) = sums.into_parts();
        assert_eq!((drops, groups), (HashMap::from([(KEY, 13)]), GroupSums::new()));
    }

    #[test]
    fn drops_by_cpu_are_in_the_groups_too() {
        let cpus = Cpus::first(2);
        let mut sums = CounterSums::new(Grouping { parts: 0, by_cpu: true }, &cpus);
        add_slots(&mut sums);
        sums.add_drops(KEY, &[counter(10), counter(0)]);
        let (_, groups) = sums.into_parts();
        assert_eq!(groups, HashMap::from([((EVERY, Some(0)), 11), ((EVERY, Some(1)), 2)]));
    }

    #[test]
    fn groups_are_added_up_unless_they_are_by_cpu() {
        // Whose place among the values is not their number.
        let cpus = Cpus::parse("0,2,4").unwrap();
        let group = Group { known: 1, netns: 7, ..EVERY };
        for (by_cpu, expected) in
            [(false, vec![(None, 5)]), (true, vec![(Some(0), 2), (Some(4), 3)])]
        {
            let mut sums = CounterSums::new(Grouping { parts: 1, by_cpu }, &cpus);
            sums.add_group(group, &[2, 0, 3]);
            let expected = expected.into_iter().map(|(cpu, count)| ((group, cpu), count)).collect();
            assert_eq!(sums.into_parts(), (HashMap::new(), expected));
        }
    }
}
