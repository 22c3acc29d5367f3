//! Connection tracking of one network namespace: its use, what it costs, what it counted, and who
//! fills it.
//!
//! [`Stats`] are the numbers that a verdict rests on; [`Conntrack`] is the serialised truth that
//! `dropwatch conntrack` renders, documented in `docs/json.md`.

mod counters;
mod state;
mod tally;

use std::{fmt, net::IpAddr, time::Duration};

use jiff::Timestamp;
use serde::Serialize;

pub use self::{
    counters::{Counter, Counters},
    state::{state, timeout},
    tally::{Endpoint, Entry, Tally},
};
use super::{
    build::rate,
    facts::Netns,
    model::{Host, SCHEMA_VERSION, round},
    protocol::Word,
    timestamp,
};

/// Bytes of a bucket of the hash table: one pointer (`struct hlist_nulls_head`,
/// include/linux/list_nulls.h) on the 64-bit machines that dropwatch runs on.
pub const BUCKET_BYTES: u64 = 8;

/// What the kernel says of a namespace's connection tracking. What it does not tell is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Connections tracked in this namespace.
    pub entries: u64,
    /// `nf_conntrack_max`: entries that each namespace may hold.
    pub limit: Option<u64>,
    /// `nf_conntrack_buckets` of the hash table, which all namespaces share.
    pub buckets: Option<u64>,
    /// Memory that the kernel's allocator takes for one entry, bytes.
    pub object_bytes: Option<u64>,
    /// Since the namespace began, summed over CPUs.
    pub counters: Counters,
}

impl Stats {
    /// Memory of `entries` entries and of the hash table, bytes: entries × object size + buckets ×
    /// [`BUCKET_BYTES`].
    ///
    /// Extensions of an entry (NAT, accounting, labels), which the kernel allocates one by one, are
    /// not in it.
    pub fn memory_of(&self, entries: u64) -> Option<u64> {
        Self::memory(entries, self.buckets?, self.object_bytes?)
    }

    /// The same for another number of buckets.
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

/// One namespace at one moment: one line of JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Conntrack {
    #[serde(flatten)]
    pub host: Host,
    #[serde(serialize_with = "timestamp::serialize")]
    pub time: Timestamp,
    pub netns: Netns,
    #[serde(flatten)]
    pub stats: Stats,
    pub memory_bytes: Option<u64>,
    pub memory_at_limit_bytes: Option<u64>,
    /// What was counted since the line before; null in the first one of a namespace.
    pub interval: Option<Interval>,
    pub table: Table,
}

/// What the counters did between two lines.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Monotonic time between the two, seconds.
    pub interval_s: f64,
    pub counters: Counters,
}

impl Interval {
    /// From `before` to `now`, `length` apart; `None` where they are not of one namespace.
    pub fn between(before: &Counters, now: &Counters, length: Duration) -> Option<Self> {
        let counters = now.since(before)?;
        Some(Self { interval_s: round(length.as_secs_f64(), 6), counters })
    }

    /// Of `counter`, per second.
    pub fn rate(&self, counter: Counter) -> Option<f64> {
        let length = Duration::try_from_secs_f64(self.interval_s).ok()?;
        self.counters.get(counter).map(|count| rate(count, length))
    }
}

impl Conntrack {
    pub fn new(
        (host, time): (Host, Timestamp),
        netns: Netns,
        stats: Stats,
        interval: Option<Interval>,
        table: Table,
    ) -> Self {
        let (memory_bytes, memory_at_limit_bytes) = (stats.memory_now(), stats.memory_at_limit());
        Self { host, time, netns, stats, memory_bytes, memory_at_limit_bytes, interval, table }
    }

    /// As it is written: `v` and `type` come first.
    pub fn line(&self) -> impl Serialize + '_ {
        #[derive(Serialize)]
        struct Tagged<'a> {
            v: u32,
            r#type: &'static str,
            #[serde(flatten)]
            body: &'a Conntrack,
        }
        Tagged { v: SCHEMA_VERSION, r#type: "conntrack", body: self }
    }
}

/// The entries of a table, as they were read one after the other while it changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Table {
    /// Entries read. The namespace's own count has those in the making and those about to go, too.
    pub entries: u64,
    /// Entries that were not understood; they are in no other number.
    pub unread: u64,
    /// Highest count first.
    pub states: Vec<StateRow>,
    /// Who opened the connections.
    pub sources: Ranking<Address>,
    /// Where to, before any translation.
    pub destinations: Ranking<Service>,
    /// Entries whose destination was translated.
    pub dnat_entries: u64,
    /// Where those were sent instead.
    pub dnat_targets: Ranking<Service>,
}

/// Entries of one protocol in one state.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StateRow {
    pub protocol: Word,
    /// The protocol's own state (`TIME_WAIT`), else `UNREPLIED`, `REPLIED` or `ASSURED`.
    pub state: &'static str,
    pub count: u64,
    /// Part of all entries read.
    pub share: f64,
    /// How long such an entry is kept after its last packet, seconds.
    pub timeout_s: Option<u32>,
    /// The setting below `net.netfilter` that says so.
    pub timeout_setting: Option<&'static str>,
}

/// The most frequent of many.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ranking<T> {
    /// Highest count first.
    pub rows: Vec<Row<T>>,
    /// How many different ones there are; null for too many to tell.
    pub distinct: Option<u64>,
    /// How much too low a count may be; zero means that all are exact. Otherwise what surely is
    /// frequent is listed, and nothing else has come more than twice as often as this.
    pub error: u64,
}

impl<T> Default for Ranking<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), distinct: Some(0), error: 0 }
    }
}

/// One of a ranking.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row<T> {
    #[serde(flatten)]
    pub is: T,
    pub count: u64,
    /// Part of all entries read.
    pub share: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Address {
    pub address: IpAddr,
}

/// A protocol at an address, and at a port where it has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    pub protocol: Word,
    pub address: IpAddr,
    pub port: Option<u16>,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, address, port } = self;
        match (address, port) {
            (IpAddr::V6(address), Some(port)) => write!(f, "{protocol} [{address}]:{port}"),
            (address, Some(port)) => write!(f, "{protocol} {address}:{port}"),
            (address, None) => write!(f, "{protocol} {address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_entries_by_object_size_and_buckets_by_eight() {
        let stats = Stats {
            entries: 180,
            limit: Some(1000),
            buckets: Some(65_536),
            object_bytes: Some(256),
            ..Stats::default()
        };
        assert_eq!(stats.memory_now(), Some(180 * 256 + 524_288));
        assert_eq!(stats.memory_at_limit(), Some(256_000 + 524_288));
        assert_eq!(stats.memory_of(131_072), Some(33_554_432 + 524_288));
        assert_eq!(Stats { object_bytes: None, ..stats }.memory_now(), None);
        assert_eq!(Stats { limit: None, ..stats }.memory_at_limit(), None);
        assert_eq!(Stats::memory(u64::MAX, 1, 256), None, "no wrap");
    }

    #[test]
    fn rates_are_of_the_measured_time() {
        let counters = |drops| {
            let mut counters = Counters::default();
            counters.add(Counter::Drop, drops);
            counters
        };
        let length = Duration::from_millis(2500);
        let interval = Interval::between(&counters(100), &counters(350), length).unwrap();
        assert_eq!(interval.rate(Counter::Drop), Some(100.0));
        assert_eq!(interval.rate(Counter::Found), None);
    }
}
