//! Whose the counts of one counter are, where the number of a namespace was given to another one.
//!
//! A counter of the kernel side belongs to the number of a namespace. It says which namespace that is
//! now, and its turns say up to which count it was an older one.

use std::collections::HashMap;

use dropwatch_common::{DropKey, NO_COOKIE, Netns, Turn, filter::Group};

/// Whose a count is: a key's, and which of the namespaces that had its number it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Of drops, or [`Group::to_key`].
    pub key: DropKey,
    pub cookie: u64,
    /// Where CPUs are told apart.
    pub cpu: Option<u32>,
}

impl Owner {
    /// As a key of drops, by what the namespace is called in this run.
    pub(super) fn place(&self, number: &mut impl FnMut(Netns) -> u32) -> DropKey {
        self.key.within(number(Netns { inum: self.key.netns, cookie: self.cookie }))
    }

    /// As a group, by the same.
    pub(super) fn group(&self, number: &mut impl FnMut(Netns) -> u32) -> (Group, Option<u32>) {
        let group = Group::from_key(&self.key);
        let netns = number(Netns { inum: group.netns, cookie: self.cookie });
        (Group { netns, ..group }, self.cpu)
    }
}

/// A counter of the kernel side: of a slot of the front cache of a CPU, or of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CounterId {
    pub key: DropKey,
    /// As in [`Turn::counter`].
    pub counter: u32,
    pub cpu: u32,
}

/// What is known of the turns so far.
#[derive(Debug)]
pub struct Turns {
    by_cpu: bool,
    last: HashMap<CounterId, LastTurn>,
    /// What counters have counted for namespaces up to their turns.
    ended: HashMap<Owner, u64>,
    /// Those of the reading before, where there are many.
    before: HashMap<Owner, u64>,
}

/// Most namespaces that have ended are told apart, by key; more are summed as those of none.
const MOST_ENDED: usize = 4096;

/// The last turn of a counter.
#[derive(Clone, Copy, Debug, Default)]
struct LastTurn {
    until: u64,
    /// Of the namespace that it had until then.
    cookie: u64,
}

impl Turns {
    /// Of counters whose CPUs are told apart, or summed.
    pub fn new(by_cpu: bool) -> Self {
        Self { by_cpu, last: HashMap::new(), ended: HashMap::new(), before: HashMap::new() }
    }

    /// Whose the last counts of a counter are.
    pub fn owner(&self, id: &CounterId, cookie: u64) -> Owner {
        Owner { key: id.key, cookie, cpu: self.by_cpu.then_some(id.cpu) }
    }

    /// Takes note of turns, in any order.
    pub fn note(&mut self, mut turns: Vec<Turn>) {
        turns.sort_unstable_by_key(|turn| turn.until);
        for Turn { key, counter, cpu, cookie, until } in turns {
            let id = CounterId { key, counter, cpu };
            let owner = self.owner(&id, cookie);
            let last = self.last.entry(id).or_default();
            // What interrupts a drop of a younger namespace may note the turn once more.
            let count = until.saturating_sub(last.until);
            *last = LastTurn { until: until.max(last.until), cookie };
            let sum = self.ended.entry(owner).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    /// What counters have counted up to their turns, by key and namespace.
    pub fn ended(&self) -> &HashMap<Owner, u64> {
        &self.ended
    }

    /// Where too many have ended, gives those counts to nobody in particular that were in the reading
    /// before, too, and of which no counter has more: `sums` are what all counters have, and `nobody` says
    /// whose they are then. Returns the owners that had them.
    pub fn fold(
        &mut self,
        sums: &mut HashMap<Owner, u64>,
        nobody: impl Fn(&Owner) -> Owner,
    ) -> Vec<Owner> {
        let before = std::mem::take(&mut self.before);
        if self.ended.len() <= MOST_ENDED {
            return Vec::new();
        }
        let is_settled = |(it, count): &(&Owner, &u64)| {
            it.cookie != NO_COOKIE && before.get(it) == Some(count) && sums.get(it) == Some(count)
        };
        let settled: Vec<Owner> = self.ended.iter().filter(is_settled).map(|(it, _)| *it).collect();
        for it in &settled {
            let count = self.ended.remove(it).unwrap_or(0);
            sums.remove(it);
            for to in [&mut self.ended, sums] {
                let sum = to.entry(nobody(it)).or_default();
                *sum = sum.saturating_add(count);
            }
        }
        self.before = self.ended.clone();
        settled
    }

    /// What a counter that has counted `count` has for the namespace with the cookie that it says,
    /// behind its last turn. It was read first, then the cookie, then the turns.
    pub fn of_last(&self, id: &CounterId, count: u64, cookie: u64) -> u64 {
        match self.last.get(id) {
            None => count,
            // Read while it turned: whose these are shows at the next reading.
            Some(last) if last.cookie == cookie => 0,
            Some(last) => count.saturating_sub(last.until),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const KEY: DropKey = DropKey::new(0x1000, 2).within(7);

    fn turn(cpu: u32, cookie: u64, until: u64) -> Turn {
        Turn { key: KEY, counter: 3, cpu, cookie, until }
    }

    /// What one counter of each CPU has, given its count and its cookie, by cookie.
    fn sums(turns: &Turns, counters: &[(u64, u64)]) -> BTreeMap<u64, u64> {
        let mut sums = BTreeMap::new();
        for (owner, count) in turns.ended() {
            *sums.entry(owner.cookie).or_default() += count;
        }
        for (cpu, (count, cookie)) in (0..).zip(counters) {
            let id = CounterId { key: KEY, counter: 3, cpu };
            *sums.entry(*cookie).or_default() += turns.of_last(&id, *count, *cookie);
        }
        sums
    }

    #[test]
    fn each_namespace_has_what_was_counted_until_its_turn() {
        let mut turns = Turns::new(false);
        assert_eq!(sums(&turns, &[(10, 1), (5, 1)]), [(1, 15)].into());
        // Another one has the number now, and one CPU has met it.
        turns.note(vec![turn(0, 1, 11)]);
        assert_eq!(sums(&turns, &[(12, 2), (6, 1)]), [(1, 17), (2, 1)].into());
        // Two more between two readings, and the other CPU has missed one of them.
        turns.note(vec![turn(1, 1, 6), turn(0, 3, 18), turn(0, 2, 15)]);
        let expected = [(1, 17), (2, 4), (3, 3), (4, 5)].into();
        assert_eq!(sums(&turns, &[(20, 4), (9, 4)]), expected);
    }

    #[test]
    fn of_too_many_that_have_ended_the_settled_ones_are_summed() {
        let mut turns = Turns::new(false);
        let ends = |number: u64| Turn { until: number + 1, cookie: number + 1, ..turn(0, 0, 0) };
        turns.note((0..=MOST_ENDED as u64).map(ends).collect());
        let all: u64 = turns.ended().values().sum();
        let mut sums = turns.ended().clone();
        let nobody = |it: &Owner| Owner { key: it.key.everywhere(), ..Owner::default() };
        assert_eq!(turns.fold(&mut sums, nobody), [], "nobody has read them yet");
        // A counter has more of one.
        let kept = Owner { key: KEY, cookie: 7, cpu: None };
        *sums.get_mut(&kept).unwrap() += 1;
        let folded = turns.fold(&mut sums, nobody);
        assert_eq!((folded.len(), turns.ended().len(), sums.len()), (MOST_ENDED, 2, 2));
        assert_eq!((turns.ended().values().sum::<u64>(), sums.values().sum()), (all, all + 1));
        assert!(turns.ended().contains_key(&kept));
        assert_eq!(turns.fold(&mut sums, nobody), []);
    }

    #[test]
    fn a_turn_noted_twice_is_one() {
        let mut turns = Turns::new(false);
        turns.note(vec![turn(0, 1, 11)]);
        turns.note(vec![turn(0, 1, 11)]);
        assert_eq!(sums(&turns, &[(14, 2)]), [(1, 11), (2, 3)].into());
    }

    #[test]
    fn a_counter_that_turns_while_it_is_read_counts_nothing_twice() {
        let mut turns = Turns::new(false);
        turns.note(vec![turn(0, 1, 12)]);
        assert_eq!(sums(&turns, &[(10, 1)]), [(1, 12)].into(), "read before it turned");
        assert_eq!(sums(&turns, &[(14, 1)]), [(1, 12)].into(), "the cookie came after the count");
        assert_eq!(sums(&turns, &[(15, 2)]), [(1, 12), (2, 3)].into());
    }
}
