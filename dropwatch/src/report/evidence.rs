//! What a host's counters, tables and settings say at one moment.
//!
//! Values alone: `kernel::evidence` reads them, as far as a [`WatchList`] asks for them, and
//! `diagnose::facts` subtracts two of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    conntrack::{ConntrackStats, ConntrackTable},
    facts::Netns,
};

/// Counters by group and name: `Udp.RcvbufErrors`, `Ip6.InNoRoutes`, `softnet.dropped`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(HashMap<String, u64>);

impl Counters {
    /// Value of a counter; `None` where the kernel does not have it.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// Adds to a counter that a kernel keeps in parts.
    pub fn add(&mut self, name: String, value: u64) {
        let sum = self.0.entry(name).or_default();
        *sum = sum.wrapping_add(value);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }
}

impl<S: Into<String>> FromIterator<(S, u64)> for Counters {
    fn from_iter<T: IntoIterator<Item = (S, u64)>>(counters: T) -> Self {
        Self(counters.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}

/// What of a host is worth reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchList {
    /// Counters of a namespace, by group and name: looked up some hundred times for each namespace
    /// and report.
    pub counters: HashSet<(&'static str, &'static str)>,
    /// Where this counter of a namespace has counted, listening sockets are looked at.
    pub overflows: &'static str,
    /// Settings of a namespace.
    pub settings: Vec<&'static str>,
    /// Settings of a device, whose name stands in for `DEV`; slashes keep its dots apart.
    pub device_settings: Vec<&'static str>,
    /// Losses of the whole host: where they count, its settings are read.
    pub host_losses: Vec<&'static str>,
    /// Settings of the whole host.
    pub host_settings: Vec<&'static str>,
}

impl WatchList {
    /// Whether to read a counter of a namespace.
    pub fn has_counter(&self, group: &str, name: &str) -> bool {
        self.counters.contains(&(group, name))
    }
}

/// A host at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostEvidence {
    /// What belongs to no namespace: `softnet.dropped`, `arp_cache.table_fulls`.
    pub host: Counters,
    /// Settings of the host as a whole.
    pub settings: SettingValues,
    /// Namespaces by inode number.
    pub namespaces: BTreeMap<u32, NetnsEvidence>,
    /// Namespaces, by inode number, in which packets were dropped and which are proved to have ended
    /// since.
    pub ended: BTreeSet<u32>,
    /// What a command starts with that is to run in the host's own namespace; `None` where nothing
    /// leads there, as in a container.
    pub host_prefix: Option<String>,
}

/// Settings by their name, `net.ipv4.ip_forward`; those that are not there are missing.
pub type SettingValues = BTreeMap<String, String>;

/// A network namespace at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetnsEvidence {
    pub netns: Option<Netns>,
    /// What a command starts with that is to run there: `ip netns exec gw `, or nothing where
    /// commands run anyway. `None` where only dropwatch itself keeps the namespace alive.
    pub prefix: Option<String>,
    /// Number that the kernel gives to no other namespace as long as it runs (`SO_NETNS_COOKIE`,
    /// Linux 5.14); `None` on older kernels.
    pub cookie: Option<u64>,
    /// Counters that a rule looks at.
    pub counters: Counters,
    /// What rises and falls: `FRAG.memory`. Read only where drops or losses are.
    pub gauges: Counters,
    /// `None` where connections are not tracked or cannot be read.
    pub conntrack: Option<ConntrackStats>,
    /// Devices by interface index.
    pub links: BTreeMap<u32, Link>,
    /// Read only where drops or losses are.
    pub settings: SettingValues,
    /// The entries of a table that is full, if it has been looked at.
    pub table: Option<ConntrackTable>,
    /// Where the most connections wait to be accepted; read only where such a queue overflowed.
    pub fullest_listener: Option<Listener>,
}

/// A listening TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    pub port: u16,
    /// Connections that nobody has accepted yet.
    pub waiting: u64,
}

/// A network device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    pub mtu: u32,
    pub up: bool,
    /// Packets that its transmit queue holds.
    pub queue_length: u32,
    /// Losses, of `struct rtnl_link_stats64`, by name: `rx_missed_errors`.
    pub counters: Counters,
    /// Packets that it has sent (`tx_packets` of the same).
    pub sent: u64,
    /// Kind of its root queueing discipline: `fq_codel`.
    pub qdisc: Option<String>,
}
