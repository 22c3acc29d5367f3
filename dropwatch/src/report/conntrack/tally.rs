//! Who fills a table of connections: counted entry by entry, in memory that does not grow with it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use super::{
    state::{state, timeout},
    table::{ConntrackTable, Ranked, Ranking, Service, SourceAddress, StateRow},
};
use crate::report::{
    frequent::{Frequent, MostFrequent},
    number::share,
    protocol,
};

/// Different sources, destinations and targets that are counted exactly; past it, counts have an
/// error of at most an 8,192nd of the table. Together they take some 3 MiB.
const COUNTERS: usize = 16 << 10;
/// Most pairs of protocol and state; there are 256 protocols, and few have states of their own.
const MAX_STATES: usize = 1024;

/// One tracked connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConntrackEntry {
    /// Number above IP.
    pub protocol: u8,
    /// State that the protocol gives it, if it has any.
    pub state: Option<u8>,
    /// Bits of `enum ip_conntrack_status`.
    pub status: u32,
    /// Source of the connection's first packet.
    pub source: IpAddr,
    pub destination: Endpoint,
    /// Where replies come from: the destination, unless that was translated.
    pub replier: Endpoint,
}

/// An address, and a port where the protocol has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    pub address: IpAddr,
    pub port: Option<u16>,
}

/// A protocol's number, and where it goes.
type Goal = (u8, Endpoint);

/// The sums over the entries seen so far.
#[derive(Clone, Debug)]
pub struct ConntrackTally {
    entries: u64,
    unread: u64,
    states: HashMap<(u8, &'static str), u64>,
    sources: Frequent<IpAddr>,
    destinations: Frequent<Goal>,
    dnat_entries: u64,
    dnat_targets: Frequent<Goal>,
}

impl Default for ConntrackTally {
    fn default() -> Self {
        Self {
            entries: 0,
            unread: 0,
            states: HashMap::new(),
            sources: Frequent::new(COUNTERS),
            destinations: Frequent::new(COUNTERS),
            dnat_entries: 0,
            dnat_targets: Frequent::new(COUNTERS),
        }
    }
}

impl ConntrackTally {
    /// Counts one entry.
    pub fn add(&mut self, entry: &ConntrackEntry) {
        self.entries += 1;
        let ConntrackEntry { protocol, destination, replier, .. } = *entry;
        let pair = (protocol, state(protocol, entry.state, entry.status));
        if self.states.len() < MAX_STATES || self.states.contains_key(&pair) {
            *self.states.entry(pair).or_default() += 1;
        }
        self.sources.add(entry.source);
        self.destinations.add((protocol, destination));
        if replier != destination {
            self.dnat_entries += 1;
            self.dnat_targets.add((protocol, replier));
        }
    }

    /// Counts one entry that was not understood.
    pub fn skip(&mut self) {
        self.unread += 1;
    }

    /// Names of the settings that say how long the entries are kept.
    pub fn timeouts(&self) -> impl Iterator<Item = &'static str> {
        self.states.keys().filter_map(|(protocol, state)| timeout(*protocol, state))
    }

    /// The sums, with the `top` most frequent of each kind. `timeouts` are the values of the
    /// settings, seconds.
    pub fn table(&self, top: usize, timeouts: &BTreeMap<&'static str, u32>) -> ConntrackTable {
        let mut states: Vec<StateRow> = self
            .states
            .iter()
            .map(|((number, state), count)| {
                let setting = timeout(*number, state);
                StateRow {
                    protocol: protocol::transport(*number),
                    state,
                    count: *count,
                    share: share(*count, self.entries),
                    timeout_s: setting.and_then(|name| timeouts.get(name).copied()),
                    timeout_setting: setting,
                }
            })
            .collect();
        states.sort_unstable_by(|a, b| {
            let key = |row: &StateRow| (Reverse(row.count), row.state);
            key(a).cmp(&key(b)).then_with(|| a.protocol.cmp(&b.protocol))
        });
        ConntrackTable {
            entries: self.entries,
            unread: self.unread,
            states,
            sources: self.list(&self.sources.top(top), |address| SourceAddress { address }),
            destinations: self.list(&self.destinations.top(top), service),
            dnat_entries: self.dnat_entries,
            dnat_targets: self.list(&self.dnat_targets.top(top), service),
        }
    }

    fn list<K: Copy, T>(&self, top: &MostFrequent<K>, named: impl Fn(K) -> T) -> Ranking<T> {
        let row = |(key, count): &(K, u64)| Ranked {
            is: named(*key),
            count: *count,
            share: share(*count, self.entries),
        };
        Ranking {
            rows: top.rows.iter().map(row).collect(),
            distinct: top.distinct,
            error: top.error,
        }
    }
}

fn service((number, Endpoint { address, port }): Goal) -> Service {
    Service { protocol: protocol::transport(number), address, port }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(address: &str, port: u16) -> Endpoint {
        Endpoint { address: address.parse().unwrap(), port: Some(port) }
    }

    fn web(source: &str) -> ConntrackEntry {
        ConntrackEntry {
            protocol: 6,
            state: Some(7),
            status: 0b1110,
            source: source.parse().unwrap(),
            destination: endpoint("192.168.0.30", 8080),
            replier: endpoint("192.168.0.31", 80),
        }
    }

    fn dns(source: &str) -> ConntrackEntry {
        let server = endpoint("fd00::53", 53);
        ConntrackEntry {
            protocol: 17,
            state: None,
            status: 0,
            source: source.parse().unwrap(),
            destination: server,
            replier: server,
        }
    }

    #[test]
    fn a_table_is_summed_by_state_source_destination_and_target() {
        let mut tally = ConntrackTally::default();
        for _ in 0..3 {
            tally.add(&web("192.168.0.2"));
        }
        tally.add(&dns("fd00::2"));
        tally.skip();
        assert!(tally.timeouts().any(|name| name == "nf_conntrack_tcp_timeout_time_wait"));

        let timeouts = BTreeMap::from([("nf_conntrack_tcp_timeout_time_wait", 120)]);
        let table = tally.table(5, &timeouts);
        assert_eq!((table.entries, table.unread, table.dnat_entries), (4, 1, 3));
        let [time_wait, unreplied] = table.states.as_slice() else { panic!("{table:?}") };
        assert_eq!(
            (&*time_wait.protocol, time_wait.state, time_wait.count),
            ("tcp", "TIME_WAIT", 3)
        );
        assert_eq!((time_wait.share, time_wait.timeout_s), (0.75, Some(120)));
        assert_eq!((unreplied.state, unreplied.timeout_s), ("UNREPLIED", None));
        assert_eq!(unreplied.timeout_setting, Some("nf_conntrack_udp_timeout"));
        assert_eq!(table.sources.rows[0].is.address.to_string(), "192.168.0.2");
        assert_eq!(table.sources.distinct, Some(2));
        let target = &table.dnat_targets.rows[0];
        assert_eq!((target.is.to_string().as_str(), target.count), ("tcp 192.168.0.31:80", 3));
        assert_eq!(table.destinations.rows[1].is.to_string(), "udp [fd00::53]:53");

        assert_eq!(tally.table(1, &timeouts).sources.rows.len(), 1);
        assert_eq!(ConntrackTally::default().table(5, &timeouts).states, []);
    }

    #[test]
    fn the_memory_has_a_bound_and_the_error_is_shown() {
        let mut tally = ConntrackTally::default();
        for i in 0..100_000_u32 {
            let spoofed = ConntrackEntry { source: IpAddr::V4(i.into()), ..web("192.168.0.2") };
            tally.add(&spoofed);
        }
        let table = tally.table(5, &BTreeMap::new());
        assert_eq!((table.sources.rows.as_slice(), table.sources.distinct), (&[][..], None));
        assert!((1..=100_000 / 8192).contains(&table.sources.error), "{table:?}");
        assert_eq!((table.destinations.rows[0].count, table.destinations.error), (100_000, 0));
    }
}
