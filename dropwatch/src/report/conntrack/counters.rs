//! What a namespace's connection tracking has counted.

use serde::{Serialize, Serializer};

/// One of the counters of `conntrack -S` (`struct ip_conntrack_stat`,
/// include/net/netfilter/nf_conntrack.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConntrackCounter {
    /// Entries that were found in the way when a port was looked for (NAT).
    Found,
    /// Packets that belong to no connection and can begin none.
    Invalid,
    /// Entries added from outside; new connections are not counted.
    Insert,
    /// Packets dropped because their new entry could not be inserted: another packet of the same
    /// connection came first, or its chain of the hash table is too long.
    InsertFailed,
    /// Packets dropped because no entry could be made, mostly for lack of room, or because a
    /// collision could not be resolved.
    Drop,
    /// Entries of unconfirmed connections that were given up for new ones in a full table.
    EarlyDrop,
    /// ICMP errors that were no valid ones.
    Error,
    /// Look-ups that had to begin again because an entry moved.
    SearchRestart,
    /// Collisions that were resolved: no packet was lost.
    ClashResolve,
    /// Insertions that failed because a chain of the hash table is too long.
    ChainTooLong,
}

impl ConntrackCounter {
    /// All counters, in the order in which they are shown.
    pub const ALL: [Self; 10] = [
        Self::Drop,
        Self::EarlyDrop,
        Self::InsertFailed,
        Self::ChainTooLong,
        Self::ClashResolve,
        Self::Invalid,
        Self::Error,
        Self::Found,
        Self::Insert,
        Self::SearchRestart,
    ];

    /// The name of the counter in `conntrack -S`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Invalid => "invalid",
            Self::Insert => "insert",
            Self::InsertFailed => "insert_failed",
            Self::Drop => "drop",
            Self::EarlyDrop => "early_drop",
            Self::Error => "error",
            Self::SearchRestart => "search_restart",
            Self::ClashResolve => "clash_resolve",
            Self::ChainTooLong => "chaintoolong",
        }
    }
}

/// All counters, summed over CPUs. One that the kernel lacks is `None`.
///
/// The kernel counts in 32 bits on each CPU, so they wrap: only differences mean something over a
/// long time ([`ConntrackCounters::since`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConntrackCounters([Option<u64>; ConntrackCounter::ALL.len()]);

impl ConntrackCounters {
    pub fn get(&self, counter: ConntrackCounter) -> Option<u64> {
        self.0[counter as usize]
    }

    /// Adds what one CPU has counted.
    pub fn add(&mut self, counter: ConntrackCounter, count: u32) {
        let sum = &mut self.0[counter as usize];
        *sum = Some(sum.unwrap_or(0).saturating_add(count.into()));
    }

    /// Takes back what a counter has counted too early.
    pub fn take_back(&mut self, counter: ConntrackCounter, count: u64) {
        let sum = &mut self.0[counter as usize];
        // Right modulo 2^32, as all that is done with it.
        *sum = sum.map(|sum| sum.wrapping_sub(count));
    }

    /// Zero for each counter that the kernel has.
    #[must_use]
    pub fn at_birth(&self) -> Self {
        Self(self.0.map(|counter| counter.map(|_| 0)))
    }

    /// What was counted since `before`, at most 2^31 of each; `None` where one has fallen, because
    /// these are another namespace's (the kernel gives their numbers again at once).
    pub fn since(&self, before: &Self) -> Option<Self> {
        // A sum of counters that wrapped is right modulo 2^32, and so is a difference of two sums.
        let low = |sum: u64| sum as u32;
        let mut since = Self::default();
        for (delta, (now, before)) in since.0.iter_mut().zip(self.0.iter().zip(&before.0)) {
            let Some((now, before)) = now.zip(*before) else { continue };
            let counted = low(now).wrapping_sub(low(before));
            if counted > u32::MAX / 2 {
                return None;
            }
            *delta = Some(counted.into());
        }
        Some(since)
    }

    /// Every counter that the kernel has, in the order in which they are shown.
    pub fn iter(&self) -> impl Iterator<Item = (ConntrackCounter, u64)> {
        ConntrackCounter::ALL.into_iter().filter_map(|counter| Some((counter, self.get(counter)?)))
    }
}

/// A map from every counter's name to its value, null where the kernel lacks it.
impl Serialize for ConntrackCounters {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(ConntrackCounter::ALL.map(|counter| (counter.name(), self.get(counter))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_summed_and_what_the_kernel_lacks_is_absent() {
        let mut counters = ConntrackCounters::default();
        counters.add(ConntrackCounter::Drop, 7);
        counters.add(ConntrackCounter::Drop, u32::MAX);
        assert_eq!(counters.get(ConntrackCounter::Drop), Some(7 + u64::from(u32::MAX)));
        assert_eq!(counters.iter().collect::<Vec<_>>(), [(ConntrackCounter::Drop, 4_294_967_302)]);
        let json = serde_json::to_string(&counters).unwrap();
        assert!(json.starts_with(r#"{"drop":4294967302,"early_drop":null,"#), "{json}");
    }

    #[test]
    fn differences_survive_a_wrap_of_one_cpu() {
        let sum = |cpus: [u32; 2]| {
            let mut counters = ConntrackCounters::default();
            cpus.into_iter().for_each(|count| counters.add(ConntrackCounter::Invalid, count));
            counters
        };
        // The first CPU counts 10 and wraps, the second one 5.
        let (before, now) = (sum([u32::MAX - 3, 100]), sum([6, 105]));
        let since = |now: &ConntrackCounters, before: &ConntrackCounters| {
            Some(now.since(before)?.get(ConntrackCounter::Invalid))
        };
        assert_eq!(since(&now, &before), Some(Some(15)));
        assert_eq!(since(&now, &now), Some(Some(0)));
        assert_eq!(since(&now, &ConntrackCounters::default()), Some(None));
        assert_eq!(since(&sum([0, 0]), &now), None, "another namespace's");
    }
}
