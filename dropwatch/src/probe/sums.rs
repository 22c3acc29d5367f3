//! From counters of each CPU to those of a snapshot.

use std::collections::HashMap;

use dropwatch_common::{Counter, NO_COOKIE, Turn, filter::Group};

use super::{
    plan::Grouping,
    turns::{CounterId, Owner, Turns},
};

/// Counts by whose they are.
pub type Sums = HashMap<Owner, u64>;

/// The one group that every drop is in where only CPUs are distinguished.
const EVERY: Group = Group { known: 1, ..Group::NONE };

/// Sums of one reading. Pure.
#[derive(Debug)]
pub struct CounterSums<'a> {
    grouping: Grouping,
    places: Kind<'a>,
    groups: Kind<'a>,
}

/// The sums of one kind of counters.
#[derive(Debug)]
struct Kind<'a> {
    turns: &'a Turns,
    sums: Sums,
    /// What was added last, and is not in `sums` yet: most counters of a key come one after the other.
    last: (Owner, u64),
}

impl<'a> CounterSums<'a> {
    /// Turns are those that were noted before any counter is read.
    pub fn new(grouping: Grouping, of_places: &'a Turns, of_groups: &'a Turns) -> Self {
        Self { grouping, places: Kind::new(of_places), groups: Kind::new(of_groups) }
    }

    /// Adds one counter.
    pub fn add(&mut self, id: &CounterId, counter: &Counter) {
        // A key that is there and has counted nothing yet is left out.
        if counter.count == 0 {
            return;
        }
        if id.counter & Turn::OF_GROUP != 0 {
            return self.groups.add(id, counter);
        }
        self.places.add(id, counter);
        if self.grouping.of_places() {
            let owner = Owner { key: EVERY.to_key(), cookie: NO_COOKIE, cpu: Some(id.cpu) };
            *self.groups.sums.entry(owner).or_default() += counter.count;
        }
    }

    /// Drops by key and namespace, and by group. Nothing in them is zero.
    pub fn into_parts(self) -> (Sums, Sums) {
        (self.places.into_sums(), self.groups.into_sums())
    }
}

impl<'a> Kind<'a> {
    fn new(turns: &'a Turns) -> Self {
        Self { turns, sums: turns.ended().clone(), last: (Owner::default(), 0) }
    }

    fn add(&mut self, id: &CounterId, Counter { count, cookie, .. }: &Counter) {
        let owner = self.turns.owner(id, *cookie);
        if self.last.0 != owner {
            self.settle();
            self.last.0 = owner;
        }
        self.last.1 += self.turns.of_last(id, *count, *cookie);
    }

    fn settle(&mut self) {
        let (owner, count) = std::mem::take(&mut self.last);
        if count > 0 {
            *self.sums.entry(owner).or_default() += count;
        }
    }

    fn into_sums(mut self) -> Sums {
        self.settle();
        self.sums.retain(|_, count| *count > 0);
        self.sums
    }
}

#[cfg(test)]
mod tests {
    use dropwatch_common::DropKey;

    use super::*;

    const KEY: DropKey = DropKey::new(0x1000, 2).within(7);

    fn of(key: DropKey, cookie: u64, cpu: Option<u32>) -> Owner {
        Owner { key, cookie, cpu }
    }

    /// Two CPUs that have counted 1 and 2 drops in a slot, and the first of them 10 in the map, for a
    /// namespace; and a key that was claimed and has counted nothing yet.
    fn add(sums: &mut CounterSums<'_>, key: DropKey, kind: u32) {
        let mut add = |key, counter, cpu, count| {
            let id = CounterId { key, counter: counter | kind, cpu };
            sums.add(&id, &Counter { count, cookie: 5, ..Counter::default() });
        };
        add(key, 8, 0, 1);
        add(key.within(9), 9, 0, 0);
        add(key, 8, 1, 2);
        add(key, Turn::IN_MAP, 0, 10);
    }

    #[test]
    fn the_caches_and_the_map_are_added_up() {
        let turns = Turns::new(false);
        let mut sums = CounterSums::new(Grouping::default(), &turns, &turns);
        add(&mut sums, KEY, 0);
        assert_eq!(sums.into_parts(), ([(of(KEY, 5, None), 13)].into(), Sums::new()));
    }

    #[test]
    fn what_was_counted_for_an_older_namespace_is_its_own() {
        let (mut turns, none) = (Turns::new(false), Turns::new(false));
        turns.note(vec![Turn { key: KEY, counter: Turn::IN_MAP, cpu: 0, cookie: 4, until: 7 }]);
        let mut sums = CounterSums::new(Grouping::default(), &turns, &none);
        add(&mut sums, KEY, 0);
        let expected = [(of(KEY, 4, None), 7), (of(KEY, 5, None), 6)];
        assert_eq!(sums.into_parts().0, expected.into());
    }

    #[test]
    fn drops_by_cpu_are_in_the_groups_too() {
        let turns = Turns::new(false);
        let by_cpu = Turns::new(true);
        let mut sums = CounterSums::new(Grouping { parts: 0, by_cpu: true }, &turns, &by_cpu);
        add(&mut sums, KEY, 0);
        let (_, groups) = sums.into_parts();
        let every = |cpu| of(EVERY.to_key(), NO_COOKIE, Some(cpu));
        assert_eq!(groups, [(every(0), 11), (every(1), 2)].into());
    }

    #[test]
    fn groups_are_added_up_unless_they_are_by_cpu() {
        let group = Group { netns: 7, ifindex: 3, network: 0x88b5, transport: u16::MAX, ..EVERY };
        let key = group.to_key();
        for (by_cpu, expected) in
            [(false, vec![(None, 13)]), (true, vec![(Some(0), 11), (Some(1), 2)])]
        {
            let (none, turns) = (Turns::new(false), Turns::new(by_cpu));
            let mut sums = CounterSums::new(Grouping { parts: 1, by_cpu }, &none, &turns);
            add(&mut sums, key, Turn::OF_GROUP);
            let expected = expected.into_iter().map(|(cpu, count)| (of(key, 5, cpu), count));
            assert_eq!(sums.into_parts(), (Sums::new(), expected.collect()));
        }
    }

    #[test]
    fn a_group_of_an_older_namespace_is_its_own_on_each_cpu() {
        let key = Group { netns: 7, ..EVERY }.to_key();
        let (none, mut turns) = (Turns::new(false), Turns::new(true));
        let turn = Turn { key, counter: 8 | Turn::OF_GROUP, cpu: 1, cookie: 4, until: 2 };
        turns.note(vec![turn]);
        let mut sums = CounterSums::new(Grouping { parts: 1, by_cpu: true }, &none, &turns);
        add(&mut sums, key, Turn::OF_GROUP);
        let expected = [(of(key, 4, Some(1)), 2), (of(key, 5, Some(0)), 11)];
        assert_eq!(sums.into_parts().1, expected.into());
        let mut number = |netns: dropwatch_common::Netns| netns.inum + netns.cookie as u32;
        let (named, cpu) = of(key, 4, Some(1)).group(&mut number);
        assert_eq!((named, cpu), (Group { netns: 11, ..EVERY }, Some(1)));
    }
}
