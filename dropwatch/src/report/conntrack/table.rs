//! The sums over the entries of a table: by state, by source, by destination.

use std::{fmt, net::IpAddr};

use serde::Serialize;

use super::super::protocol::Term;

/// The entries of a table, as they were read one after the other while it changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ConntrackTable {
    /// Entries read. The namespace's own count has those in the making and those about to go, too.
    pub entries: u64,
    /// Entries that were not understood; they are in no other number.
    pub unread: u64,
    /// Highest count first.
    pub states: Vec<StateRow>,
    /// Who opened the connections.
    pub sources: Ranking<SourceAddress>,
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
    pub protocol: Term,
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
    pub rows: Vec<Ranked<T>>,
    /// How many different ones there are; null where there are too many to count.
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
pub struct Ranked<T> {
    #[serde(flatten)]
    pub is: T,
    pub count: u64,
    /// Part of all entries read.
    pub share: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SourceAddress {
    pub address: IpAddr,
}

/// A protocol at an address, and at a port where it has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    pub protocol: Term,
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
