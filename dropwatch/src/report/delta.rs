//! What happened between two readings of the counters.

use std::{collections::HashMap, hash::Hash};

use dropwatch_common::{DropKey, filter::Group};

use super::snapshot::{DropCounters, Lost, UndecidedBy};

/// Difference of two cumulative [`DropCounters`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Drops that are new, by location and reason; no entry is zero.
    pub drops: HashMap<DropKey, u64>,
    pub lost: Lost,
    pub undecided: UndecidedBy,
    /// Drops that are new, by group; no entry is zero.
    pub groups: HashMap<(Group, Option<u32>), u64>,
    pub ungrouped: u64,
    /// Counters that fell or vanished.
    ///
    /// Counters of an attached program never fall, so anything but 0 is a fault of the reader. Such
    /// a counter adds nothing here, neither a negative nor a huge number, and the caller reports
    /// the fault.
    pub fallen: u64,
}

impl Delta {
    pub fn between(earlier: &DropCounters, later: &DropCounters) -> Self {
        let mut fallen = 0;
        let mut rise = |earlier: u64, later: u64| {
            fallen += u64::from(later < earlier);
            later.saturating_sub(earlier)
        };
        let lost = earlier.lost.zip(&later.lost, &mut rise);
        let undecided = earlier.undecided.zip(&later.undecided, &mut rise);
        let ungrouped = rise(earlier.ungrouped, later.ungrouped);
        let drops = risen(&earlier.drops, &later.drops, &mut rise);
        let groups = risen(&earlier.groups, &later.groups, &mut rise);
        Self { drops, lost, undecided, groups, ungrouped, fallen }
    }

    /// Moves `counters` from the earlier reading to the later one.
    ///
    /// A counter that fell stays at its highest reading, so that its return is not counted twice.
    pub fn apply(&self, counters: &mut DropCounters) {
        add(&mut counters.drops, &self.drops);
        add(&mut counters.groups, &self.groups);
        counters.lost = counters.lost.zip(&self.lost, u64::saturating_add);
        counters.undecided = counters.undecided.zip(&self.undecided, u64::saturating_add);
        counters.ungrouped = counters.ungrouped.saturating_add(self.ungrouped);
    }
}

/// What rose between two readings of a map; a key that vanished fell to zero.
fn risen<K: Copy + Eq + Hash>(
    earlier: &HashMap<K, u64>,
    later: &HashMap<K, u64>,
    rise: &mut impl FnMut(u64, u64) -> u64,
) -> HashMap<K, u64> {
    for (key, count) in earlier {
        if !later.contains_key(key) {
            rise(*count, 0);
        }
    }
    later
        .iter()
        .map(|(key, &count)| (*key, rise(earlier.get(key).copied().unwrap_or(0), count)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

fn add<K: Copy + Eq + Hash>(sums: &mut HashMap<K, u64>, more: &HashMap<K, u64>) {
    for (key, count) in more {
        let sum = sums.entry(*key).or_default();
        *sum = sum.saturating_add(*count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: DropKey = DropKey::new(0xffff_ffff_8100_0010, 2);
    const B: DropKey = DropKey::new(0xffff_ffff_8100_0010, 3);

    fn counters(drops: &[(DropKey, u64)], recursion: u64) -> DropCounters {
        DropCounters {
            drops: drops.iter().copied().collect(),
            lost: Lost { recursion, ..Lost::default() },
            ..DropCounters::default()
        }
    }

    #[test]
    fn subtracts_and_leaves_out_what_stood_still() {
        let delta = Delta::between(&counters(&[(A, 5)], 1), &counters(&[(A, 5), (B, 7)], 4));
        assert_eq!(delta.drops, HashMap::from([(B, 7)]));
        assert_eq!(delta.lost.recursion, 3);
        assert_eq!(delta.fallen, 0);
    }

    #[test]
    fn groups_are_subtracted_as_drops_are() {
        let group = |netns| (Group { known: 1, netns, ..Group::default() }, Some(1));
        let by_port = |port| UndecidedBy { port, ..UndecidedBy::default() };
        let reading = |count, undecided| DropCounters {
            groups: HashMap::from([(group(7), 5), (group(8), count)]),
            undecided: by_port(undecided),
            ..DropCounters::default()
        };
        let mut seen = reading(1, 2);
        let delta = Delta::between(&seen, &reading(10, 6));
        assert_eq!(delta.groups, HashMap::from([(group(8), 9)]));
        assert_eq!(delta.undecided, by_port(4));
        delta.apply(&mut seen);
        assert_eq!(seen, reading(10, 6));
    }

    #[test]
    fn a_counter_that_falls_or_vanishes_is_reported_and_adds_nothing() {
        let high = counters(&[(A, 5), (B, 7)], 4);
        let low = counters(&[(A, 3)], 1);
        let delta = Delta::between(&high, &low);
        assert_eq!(delta, Delta { fallen: 3, ..Delta::default() });

        let mut seen = high.clone();
        delta.apply(&mut seen);
        assert_eq!(seen, high);
        assert_eq!(Delta::between(&seen, &high), Delta::default());
    }
}
