//! The numbers of a namespace's connection tracking that a verdict rests on.

use serde::Serialize;

use super::counters::ConntrackCounters;

/// Bytes of a bucket of the hash table: one pointer (`struct hlist_nulls_head`,
/// include/linux/list_nulls.h) on the 64-bit machines that dropwatch runs on.
pub const BUCKET_BYTES: u64 = 8;

/// What the kernel says of a namespace's connection tracking. What it does not report is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConntrackStats {
    /// Connections tracked in this namespace.
    pub entries: u64,
    /// `nf_conntrack_max`: entries that each namespace may hold.
    pub limit: Option<u64>,
    /// `nf_conntrack_buckets` of the hash table, which all namespaces share.
    pub buckets: Option<u64>,
    /// Memory that the kernel's allocator takes for one entry, bytes.
    pub object_bytes: Option<u64>,
    /// Since the namespace began, summed over CPUs.
    pub counters: ConntrackCounters,
}

impl ConntrackStats {
    /// How a namespace begins that by now has these: no entries, and nothing counted.
    #[must_use]
    pub fn at_birth(&self) -> Self {
        Self { entries: 0, counters: self.counters.at_birth(), ..*self }
    }

    /// Memory of `entries` entries and of the hash table, bytes: entries × object size + buckets ×
    /// [`BUCKET_BYTES`].
    ///
    /// Extensions of an entry (NAT, accounting, labels), which the kernel allocates one by one, are
    /// not in it.
    pub fn memory_of(&self, entries: u64) -> Option<u64> {
        Self::memory(entries, self.buckets?, self.object_bytes?)
    }

    /// Memory of `entries` entries of `object_bytes` each and of a hash table of `buckets`, bytes;
    /// `None` beyond 64 bits.
    pub fn memory(entries: u64, buckets: u64, object_bytes: u64) -> Option<u64> {
        let table = buckets.checked_mul(BUCKET_BYTES)?;
        entries.checked_mul(object_bytes)?.checked_add(table)
    }

    /// Memory now, bytes.
    pub fn memory_now(&self) -> Option<u64> {
        self.memory_of(self.entries)
    }

    /// Memory when the namespace holds all that it may, bytes.
    pub fn memory_at_limit(&self) -> Option<u64> {
        self.memory_of(self.limit?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_entries_by_object_size_and_buckets_by_eight() {
        let stats = ConntrackStats {
            entries: 180,
            limit: Some(1000),
            buckets: Some(65_536),
            object_bytes: Some(256),
            ..ConntrackStats::default()
        };
        assert_eq!(stats.memory_now(), Some(180 * 256 + 524_288));
        assert_eq!(stats.memory_at_limit(), Some(256_000 + 524_288));
        assert_eq!(stats.memory_of(131_072), Some(33_554_432 + 524_288));
        assert_eq!(ConntrackStats { object_bytes: None, ..stats }.memory_now(), None);
        assert_eq!(ConntrackStats { limit: None, ..stats }.memory_at_limit(), None);
        assert_eq!(ConntrackStats::memory(u64::MAX, 1, 256), None, "no wrap");
    }
}
