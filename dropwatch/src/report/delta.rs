//! What happened between two readings of the counters.

use std::collections::HashMap;

use dropwatch_common::DropKey;

use super::snapshot::{Counters, Lost};

/// Difference of two cumulative [`Counters`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Drops that are new, by location and reason; no entry is zero.
    pub drops: HashMap<DropKey, u64>,
    pub lost: Lost,
    /// Counters that fell or vanished.
    ///
    /// Counters of an attached program never fall, so anything but 0 is a fault of the reader. Such
    /// a counter adds nothing here, neither a negative nor a huge number, and the fault is left to
    /// the caller to tell.
    pub fallen: u64,
}

impl Delta {
    pub fn between(earlier: &Counters, later: &Counters) -> Self {
        let mut fallen = 0;
        let mut rise = |earlier: u64, later: u64| {
            fallen += u64::from(later < earlier);
            later.saturating_sub(earlier)
        };
        let lost = earlier.lost.zip(&later.lost, &mut rise);
        let drops = later
            .drops
            .iter()
            .map(|(key, &count)| (*key, rise(earlier.drops.get(key).copied().unwrap_or(0), count)))
            .filter(|(_, count)| *count > 0)
            .collect();
        let vanished = earlier
            .drops
            .iter()
            .filter(|(key, count)| **count > 0 && !later.drops.contains_key(key));
        fallen += vanished.count() as u64;
        Self { drops, lost, fallen }
    }

    /// Drops of known and unknown location.
    pub fn total(&self) -> u64 {
        self.drops.values().fold(self.lost.unknown_location(), |sum, n| sum.saturating_add(*n))
    }

    /// Moves `counters` from the earlier reading to the later one.
    ///
    /// A counter that fell stays at its highest reading, so that its return is not counted twice.
    pub fn apply(&self, counters: &mut Counters) {
        for (key, count) in &self.drops {
            let total = counters.drops.entry(*key).or_default();
            *total = total.saturating_add(*count);
        }
        counters.lost = counters.lost.zip(&self.lost, u64::saturating_add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: DropKey = DropKey::new(0xffff_ffff_8100_0010, 2);
    const B: DropKey = DropKey::new(0xffff_ffff_8100_0010, 3);

    fn counters(drops: &[(DropKey, u64)], recursion: u64) -> Counters {
        Counters {
            drops: drops.iter().copied().collect(),
            lost: Lost { recursion, ..Lost::default() },
        }
    }

    #[test]
    fn subtracts_and_leaves_out_what_stood_still() {
        let delta = Delta::between(&counters(&[(A, 5)], 1), &counters(&[(A, 5), (B, 7)], 4));
        assert_eq!(delta.drops, HashMap::from([(B, 7)]));
        assert_eq!(delta.lost.recursion, 3);
        assert_eq!((delta.total(), delta.fallen), (10, 0));
    }

    #[test]
    fn a_counter_that_falls_or_vanishes_is_told_and_adds_nothing() {
        let high = counters(&[(A, 5), (B, 7)], 4);
        let low = counters(&[(A, 3)], 1);
        let delta = Delta::between(&high, &low);
        assert_eq!(delta, Delta { fallen: 3, ..Delta::default() });

        let mut seen = high.clone();
        delta.apply(&mut seen);
        assert_eq!(seen, high);
        assert_eq!(Delta::between(&seen, &high).total(), 0);
    }
}
