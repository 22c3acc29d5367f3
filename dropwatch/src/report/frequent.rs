//! The most frequent of many values, in bounded memory, with an error that is known.
//!
//! Misra and Gries' algorithm ("Finding repeated elements", 1982) with the batched decrement of
//! Anderson et al. ("A high-performance algorithm for identifying frequent items in data streams",
//! 2017): when the counters are all in use, their median is taken from each, and those that have
//! nothing left are free again. What was taken in all is the error: a count is too low by at most
//! that, and a value without a counter has not come more often. As long as there are no more
//! different values than counters, nothing is taken and every count is exact.

use std::{cmp::Reverse, collections::HashMap, hash::Hash};

/// Counts values as they come.
///
/// Hashes are keyed at random, so that nobody who chooses the values can choose collisions.
#[derive(Clone, Debug)]
pub struct Frequent<K> {
    counts: HashMap<K, u64>,
    /// Most counters.
    capacity: usize,
    /// What was taken from every counter so far.
    error: u64,
}

/// The most frequent values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MostFrequent<K> {
    /// Highest count first, then by value. Each is at most `error` too low.
    pub rows: Vec<(K, u64)>,
    /// How many different values there are; `None` where they were more than there are counters.
    pub distinct: Option<u64>,
    /// How much too low a count may be; zero means that all are exact.
    pub error: u64,
}

impl<K: Copy + Eq + Hash + Ord> Frequent<K> {
    /// Makes a counter of values with at most `capacity` counters, at least one. Its error stays
    /// below `2 / capacity` of all values counted.
    pub fn new(capacity: usize) -> Self {
        Self { counts: HashMap::new(), capacity: capacity.max(1), error: 0 }
    }

    /// Counts `value` once.
    pub fn add(&mut self, value: K) {
        *self.counts.entry(value).or_default() += 1;
        if self.counts.len() > self.capacity {
            self.shed();
        }
    }

    fn shed(&mut self) {
        let mut counts: Vec<u64> = self.counts.values().copied().collect();
        let middle = counts.len() / 2;
        let median = *counts.select_nth_unstable(middle).1;
        self.counts.retain(|_, count| {
            *count = count.saturating_sub(median);
            *count > 0
        });
        self.error = self.error.saturating_add(median);
    }

    /// The `n` most frequent values. Where counts are not exact, only values that surely come more
    /// often than any that has no counter.
    pub fn top(&self, n: usize) -> MostFrequent<K> {
        let certain =
            self.counts.iter().filter(|(_, count)| **count > self.error || self.error == 0);
        let mut rows: Vec<(K, u64)> = certain.map(|(value, count)| (*value, *count)).collect();
        let order = |(value, count): &(K, u64)| (Reverse(*count), *value);
        if n < rows.len() {
            rows.select_nth_unstable_by_key(n, order);
            rows.truncate(n);
        }
        rows.sort_unstable_by_key(order);
        let distinct = (self.error == 0).then_some(self.counts.len() as u64);
        MostFrequent { rows, distinct, error: self.error }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counted(capacity: usize, values: &[u8]) -> Frequent<u8> {
        let mut frequent = Frequent::new(capacity);
        values.iter().for_each(|value| frequent.add(*value));
        frequent
    }

    #[test]
    fn few_different_values_are_counted_exactly() {
        let top = counted(3, &[1, 2, 2, 3, 3, 3]).top(2);
        assert_eq!(top, MostFrequent { rows: vec![(3, 3), (2, 2)], distinct: Some(3), error: 0 });
        assert_eq!(
            counted(3, &[]).top(5),
            MostFrequent { rows: vec![], distinct: Some(0), error: 0 }
        );
        assert_eq!(counted(3, &[9, 8]).top(5).rows, [(8, 1), (9, 1)], "by value where equal");
    }

    #[test]
    fn a_heavy_one_stands_out_of_any_number_of_others() {
        let mut frequent = Frequent::new(100);
        for i in 0..100_000_u32 {
            frequent.add(i);
            if i % 4 == 0 {
                frequent.add(u32::MAX);
            }
        }
        let top = frequent.top(5);
        assert_eq!(top.rows.len(), 1, "{top:?}");
        assert_eq!(top.distinct, None);
        let (value, count) = top.rows[0];
        assert_eq!(value, u32::MAX);
        assert!(count <= 25_000 && 25_000 <= count + top.error, "{top:?}");
        assert!(top.error <= 125_000 * 2 / 100, "{top:?}");
    }

    #[test]
    fn where_all_are_alike_none_is_named() {
        let mut frequent = Frequent::new(100);
        (0..10_000_u32).for_each(|i| frequent.add(i));
        assert_eq!(frequent.top(5).rows, []);
        assert!(frequent.counts.len() <= 100);
    }

    proptest! {
        #[test]
        fn no_count_is_off_by_more_than_the_error(
            capacity in 1_usize..40,
            values in proptest::collection::vec(0_u8..60, 0..600),
        ) {
            let frequent = counted(capacity, &values);
            prop_assert!(frequent.counts.len() <= capacity);
            prop_assert!(frequent.error * (capacity as u64) <= 2 * values.len() as u64);
            for value in 0..60 {
                let exact = values.iter().filter(|other| **other == value).count() as u64;
                let count = frequent.counts.get(&value).copied().unwrap_or(0);
                prop_assert!(count <= exact && exact <= count + frequent.error);
            }
        }
    }
}
