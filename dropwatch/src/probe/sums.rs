//! From counters of each CPU to those of a snapshot.

use std::collections::HashMap;

use dropwatch_common::{Counter, count::Slot, filter::Group};

use super::{
    cpus::Cpus,
    plan::Grouping,
    turns::{CounterId, KeyAndCookie, Turns},
};

/// Drops by key and namespace.
pub type DropSums = HashMap<KeyAndCookie, u64>;
/// Drops by group and, where asked for, CPU.
pub type GroupSums = HashMap<(Group, Option<u32>), u64>;

/// The one group that every drop is in where only CPUs are distinguished.
const EVERY: Group = Group { known: 1, netns: 0, ifindex: 0, network: 0, transport: 0 };

/// Sums of one reading. Pure; slices are in the order of the CPUs.
#[derive(Debug)]
pub struct CounterSums<'a> {
    grouping: Grouping,
    cpus: &'a Cpus,
    turns: &'a Turns,
    drops: DropSums,
    /// What was added last, and is not in `drops` yet: most counters of a key come one after the other.
    last: (KeyAndCookie, u64),
    groups: GroupSums,
}

impl<'a> CounterSums<'a> {
    /// `turns` are those that were noted before any counter is read.
    pub fn new(grouping: Grouping, cpus: &'a Cpus, turns: &'a Turns) -> Self {
        let (drops, last) = (turns.ended().clone(), KeyAndCookie::default());
        Self { grouping, cpus, turns, drops, last: (last, 0), groups: GroupSums::new() }
    }

    /// Adds one counter of drops.
    pub fn add(&mut self, id: &CounterId, Counter { count, cookie, .. }: &Counter) {
        if *count == 0 {
            return;
        }
        let key = (id.key, *cookie);
        if self.last.0 != key {
            self.settle();
            self.last.0 = key;
        }
        self.last.1 += self.turns.of_last(id, *count, *cookie);
        if self.grouping.of_places() {
            count_in(&mut self.groups, (EVERY, Some(id.cpu)), *count);
        }
    }

    fn settle(&mut self) {
        let (key, count) = std::mem::take(&mut self.last);
        if count > 0 {
            *self.drops.entry(key).or_default() += count;
        }
    }

    /// Adds what a slot of a CPU's front cache of groups has. The map may have more of the same group.
    pub fn add_group_slot(&mut self, cpu: u32, slot: &Slot) {
        if let Some(key) = slot.key() {
            let cpu = self.grouping.by_cpu.then_some(cpu);
            count_in(&mut self.groups, (Group::from_key(&key), cpu), slot.counter.count);
        }
    }

    /// Adds one entry of the map of groups.
    pub fn add_group(&mut self, group: Group, counts: &[u64]) {
        for (cpu, count) in self.cpus.numbers().zip(counts) {
            let cpu = self.grouping.by_cpu.then_some(cpu);
            count_in(&mut self.groups, (group, cpu), *count);
        }
    }

    /// Drops by key and namespace, and by group. Nothing in them is zero.
    pub fn into_parts(mut self) -> (DropSums, GroupSums) {
        self.settle();
        self.drops.retain(|_, count| *count > 0);
        (self.drops, self.groups)
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
    use dropwatch_common::{
        DropKey, Turn,
        count::{busy, tag},
    };

    use super::*;

    const KEY: DropKey = DropKey::new(0x1000, 2).within(7);

    /// Two CPUs that have counted 1 and 2 drops in a slot, and the first of them 10 in the map, for a
    /// namespace; and a key that was claimed and has counted nothing yet.
    fn add_drops(sums: &mut CounterSums<'_>) {
        let mut add = |key, counter, cpu, count| {
            let id = CounterId { key, counter, cpu };
            sums.add(&id, &Counter { count, cookie: 5, ..Counter::default() });
        };
        add(KEY, 8, 0, 1);
        add(KEY.within(9), 9, 0, 0);
        add(KEY, 8, 1, 2);
        add(KEY, Turn::IN_MAP, 0, 10);
    }

    #[test]
    fn the_caches_and_the_map_are_added_up() {
        let (cpus, turns) = (Cpus::first(2), Turns::default());
        let mut sums = CounterSums::new(Grouping::default(), &cpus, &turns);
        add_drops(&mut sums);
        assert_eq!(sums.into_parts(), ([((KEY, 5), 13)].into(), GroupSums::new()));
    }

    #[test]
    fn what_was_counted_for_an_older_namespace_is_its_own() {
        let (cpus, mut turns) = (Cpus::first(2), Turns::default());
        turns.note(vec![Turn { key: KEY, counter: Turn::IN_MAP, cpu: 0, cookie: 4, until: 7 }]);
        let mut sums = CounterSums::new(Grouping::default(), &cpus, &turns);
        add_drops(&mut sums);
        assert_eq!(sums.into_parts().0, [((KEY, 4), 7), ((KEY, 5), 6)].into());
    }

    #[test]
    fn drops_by_cpu_are_in_the_groups_too() {
        let (cpus, turns) = (Cpus::first(2), Turns::default());
        let mut sums = CounterSums::new(Grouping { parts: 0, by_cpu: true }, &cpus, &turns);
        add_drops(&mut sums);
        let (_, groups) = sums.into_parts();
        assert_eq!(groups, HashMap::from([((EVERY, Some(0)), 11), ((EVERY, Some(1)), 2)]));
    }

    #[test]
    fn groups_are_added_up_unless_they_are_by_cpu() {
        // Whose place among the values is not their number.
        let (cpus, turns) = (Cpus::parse("0,2,4").unwrap(), Turns::default());
        let group = Group { netns: 7, ifindex: 3, network: 0x88b5, transport: u16::MAX, ..EVERY };
        let DropKey { location, reason, netns } = group.to_key();
        let tag = tag(reason, netns);
        let slot = |count, tag| {
            let counter = Counter { count, ..Counter::default() };
            Slot { location, tag, counter, ..Slot::default() }
        };
        for (by_cpu, expected) in
            [(false, vec![(None, 35)]), (true, vec![(Some(0), 12), (Some(4), 23)])]
        {
            let mut sums = CounterSums::new(Grouping { parts: 1, by_cpu }, &cpus, &turns);
            sums.add_group(group, &[2, 0, 3]);
            sums.add_group_slot(0, &slot(10, tag));
            sums.add_group_slot(4, &slot(20, busy(tag)));
            let expected = expected.into_iter().map(|(cpu, count)| ((group, cpu), count)).collect();
            assert_eq!(sums.into_parts(), (HashMap::new(), expected));
        }
    }
}
