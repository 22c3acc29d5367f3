//! What a host's counters, tables and settings say at one moment.
//!
//! Values alone: `kernel::evidence` reads them, as far as a [`WatchList`] asks for them, and
//! `diagnose::facts` subtracts two of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use super::{
    conntrack::{ConntrackCounter, ConntrackStats, ConntrackTable},
    facts::Netns,
    filter_rules::FilterReading,
};

/// Packets that the queueing discipline of a device dropped, among the counters of a [`Link`].
pub const QDISC_DROPS: &str = "qdisc_drops";

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

    /// Takes back what a counter has counted too early.
    pub fn take_back(&mut self, name: &str, count: u64) {
        if let Some(value) = self.0.get_mut(name) {
            *value = value.wrapping_sub(count);
        }
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
    /// Where one of these has counted, connected sockets are looked at.
    pub refusals: &'static [&'static str],
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
    /// Namespaces by number in the run ([`Netns::number`]).
    pub namespaces: BTreeMap<u32, NetnsEvidence>,
    /// Namespaces, by number in the run, in which packets were dropped and which are proved to have ended
    /// since.
    pub ended: BTreeSet<u32>,
    /// What a command starts with that is to run in the host's own namespace; `None` where nothing
    /// leads there, as in a container.
    pub host_prefix: Option<String>,
    /// Looked for only where drops or losses are.
    pub rule_programs: RulePrograms,
}

/// A family of tables of the packet filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableFamily {
    Ipv4,
    Ipv6,
    Arp,
    Bridge,
}

/// The programs of this host that show the packet filter's rules. Legacy tables and rules of nftables
/// are shown by different ones, which distributions give different names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulePrograms {
    /// Commands that show legacy tables with their counters: `iptables-legacy-save -c`.
    pub legacy: BTreeMap<TableFamily, String>,
    /// Commands that show what a program of iptables has put into nftables.
    pub nft: BTreeMap<TableFamily, String>,
    /// Whether there is `nft`.
    pub native: bool,
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
    /// This is how the namespace began, as [`NetnsEvidence::at_birth`] has it: nobody looked.
    pub at_birth: bool,
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
    /// Families that have legacy tables of the packet filter; `None` where that was not read.
    pub legacy_tables: Option<BTreeSet<TableFamily>>,
    /// Whether it has tables of the packet filter, so that it may track connections as soon as one comes.
    pub has_filter: bool,
    /// Queues of the packet filter at which a program listens, by number.
    pub queues: BTreeMap<u16, PacketQueue>,
    /// The entries of a table that is full, if it has been looked at.
    pub table: Option<ConntrackTable>,
    /// Where the most connections wait to be accepted; read only where such a queue overflowed.
    pub fullest_listener: Option<Listener>,
    /// The ends of UDP sockets that take packets of one other alone, their own first; read only where
    /// datagrams were refused.
    pub connected: Vec<(SocketAddr, SocketAddr)>,
    /// Read only where drops or losses are; `None` where they cannot be.
    pub addresses: Option<Addresses>,
    /// What of the packet filter's rules drops; read only where packets were dropped at hooks.
    pub filter: Option<FilterReading>,
}

/// What a namespace is called on its links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Its own.
    pub own: BTreeSet<IpAddr>,
    /// Those that mean all of a network that it is in; 255.255.255.255 is not among them.
    pub broadcast: BTreeSet<IpAddr>,
    /// Of its own, those that it may not use (yet), since somebody else may have them, too.
    pub unusable: BTreeMap<IpAddr, UnusableAddress>,
    /// IPv4 multicast groups that an interface has joined; `None` where it forwards multicast, so that
    /// packets of other groups concern it, too.
    pub groups: Option<BTreeSet<IpAddr>>,
    /// The same by the index of each interface, wherever it forwards to.
    pub joined: BTreeMap<u32, BTreeSet<IpAddr>>,
}

/// An IPv6 address whose duplicate address detection has not ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnusableAddress {
    /// Index of its device.
    pub device: u32,
    /// Somebody else has it; else that is still being asked.
    pub failed: bool,
}

impl Addresses {
    /// Whether `to` means more than one host.
    pub fn is_to_many(&self, to: IpAddr) -> bool {
        to.is_multicast() || to == Ipv4Addr::BROADCAST || self.broadcast.contains(&to)
    }

    /// Whether `to` is an IPv4 multicast group that no interface has joined.
    pub fn is_not_joined(&self, to: IpAddr) -> bool {
        let joined = |groups: &BTreeSet<IpAddr>| groups.contains(&to);
        let is_group = to.is_ipv4() && to.is_multicast();
        is_group && self.groups.as_ref().is_some_and(|groups| !joined(groups))
    }
}

impl NetnsEvidence {
    /// How this namespace was when it began, all of whose counters begin at zero.
    ///
    /// Those of a device do not, since it may have come from another namespace, where it counted
    /// already. The loopback device is made with the namespace and never moves; a queueing
    /// discipline is made anew where a device moves (`dev_change_net_namespace` calls `dev_shutdown`,
    /// net/core/dev.c).
    #[must_use]
    pub fn at_birth(&self) -> Self {
        let links = self.links.iter().map(|(index, link)| {
            let is_own = link.name == "lo";
            let counters = link.counters.iter().map(|(name, _)| name);
            let counters = counters.filter(|name| is_own || *name == QDISC_DROPS);
            let counters = counters.map(|name| (name, 0)).collect();
            let sent = if is_own { 0 } else { link.sent };
            // A queueing discipline begins with the device.
            let queues = BTreeMap::new();
            (*index, Link { counters, sent, queues, ..link.clone() })
        });
        Self {
            netns: self.netns.clone(),
            prefix: self.prefix.clone(),
            cookie: self.cookie,
            at_birth: true,
            counters: self.counters.iter().map(|(name, _)| (name, 0)).collect(),
            conntrack: self.conntrack.as_ref().map(ConntrackStats::at_birth),
            links: links.collect(),
            ..Self::default()
        }
    }

    /// Whether anything that a rule looks at has counted since `before`.
    pub fn is_lossy_since(&self, before: &Self) -> bool {
        let links = |namespace: &Self| -> Vec<_> {
            namespace.links.values().map(|link| link.counters.clone()).collect()
        };
        let losses = |queues: &BTreeMap<u16, PacketQueue>| -> Vec<_> {
            let lost = |(number, it): (&u16, &PacketQueue)| (*number, it.dropped, it.user_dropped);
            queues.iter().map(lost).collect()
        };
        let conntrack = |namespace: &Self| {
            let counters = namespace.conntrack.map(|stats| stats.counters);
            let lost = [
                ConntrackCounter::Drop,
                ConntrackCounter::InsertFailed,
                ConntrackCounter::ChainTooLong,
            ];
            counters.map(|counters| lost.map(|counter| counters.get(counter)))
        };
        before.counters != self.counters
            || conntrack(before) != conntrack(self)
            || links(before) != links(self)
            || losses(&before.queues) != losses(&self.queues)
    }

    /// Whether this is another namespace than the one that had its number `before`, since the kernel
    /// gives the number of an ended one to another. Their cookies differ (Linux 5.14). On older
    /// kernels a counter that fell proves it, since those of one namespace never fall.
    pub fn is_another_than(&self, before: &Self) -> bool {
        if let (Some(before), Some(now)) = (before.cookie, self.cookie) {
            return before != now;
        }
        before
            .counters
            .iter()
            .any(|(name, then)| self.counters.get(name).is_some_and(|now| now < then))
    }
}

/// A queue of the packet filter (NFQUEUE), whose packets a program decides about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketQueue {
    /// Netlink port of the program's socket: the number of its process, unless it has several.
    pub listener: u32,
    /// Packets that wait for a decision.
    pub waiting: u64,
    /// Packets lost because as many waited as may, since the program began to listen.
    pub dropped: u64,
    /// Packets lost because the program's socket had no room, since then.
    pub user_dropped: u64,
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
    /// Somebody is at the other end of its cable (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Packets that its transmit queue holds.
    pub queue_length: u32,
    /// Losses, of `struct rtnl_link_stats64`, by name: `rx_missed_errors`.
    pub counters: Counters,
    /// Packets that it has sent (`tx_packets` of the same).
    pub sent: u64,
    /// Kind of its root queueing discipline: `fq_codel`.
    pub qdisc: Option<String>,
    /// Its queueing disciplines that have dropped something.
    pub queues: BTreeMap<QueueId, Queue>,
}

/// Which of a device's queueing disciplines, by handles as `tc` writes them. Those that a kernel makes by
/// itself have the handle 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueId {
    pub handle: u32,
    /// The class that it stands in; `u32::MAX` for the root.
    pub parent: u32,
}

impl QueueId {
    /// The root of a device.
    pub const ROOT: u32 = u32::MAX;

    /// As `tc` writes it: `10:`.
    pub fn handle(self) -> String {
        class(self.handle)
    }

    /// The class that it stands in: `1:10`; `None` for the root.
    pub fn parent(self) -> Option<String> {
        (self.parent != Self::ROOT).then(|| class(self.parent))
    }

    /// Whether it stands in a class of the one with this `handle`.
    pub fn is_below(self, handle: u32) -> bool {
        self.parent != Self::ROOT && handle != 0 && self.parent >> 16 == handle >> 16
    }
}

/// A handle or a class: `10:`, `1:10`.
fn class(of: u32) -> String {
    match (of >> 16, of & 0xffff) {
        (major, 0) => format!("{major:x}:"),
        (0, minor) => format!(":{minor:x}"),
        (major, minor) => format!("{major:x}:{minor:x}"),
    }
}

/// `8001: root`, `10: in 1:10`.
impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parent() {
            None => write!(f, "{} root", self.handle()),
            Some(parent) => write!(f, "{} in {parent}", self.handle()),
        }
    }
}

/// A queueing discipline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    pub kind: String,
    /// Packets that it dropped since it was made.
    pub drops: u64,
    /// How much a plain queue holds: packets, of `bfifo` bytes.
    pub limit: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_begins_with_zeros_and_with_devices_that_may_have_counted_elsewhere() {
        let link = |name: &str| Link {
            name: name.to_owned(),
            counters: [(QDISC_DROPS, 9), ("rx_dropped", 9)].into_iter().collect(),
            sent: 9,
            ..Link::default()
        };
        let now = NetnsEvidence {
            cookie: Some(70),
            counters: [("Udp.NoPorts", 9), ("Udp.MemErrors", 0)].into_iter().collect(),
            conntrack: Some(ConntrackStats { entries: 9, limit: Some(10), ..Default::default() }),
            links: [(1, link("lo")), (2, link("eth0"))].into(),
            settings: [("net.ipv4.ip_forward".into(), "1".into())].into(),
            ..NetnsEvidence::default()
        };
        let birth = now.at_birth();
        assert!(birth.at_birth && !now.is_another_than(&birth));
        assert_eq!(birth.counters.get("Udp.NoPorts"), Some(0));
        let conntrack = birth.conntrack.unwrap();
        assert_eq!((conntrack.entries, conntrack.limit), (0, Some(10)));
        let (lo, eth0) = (&birth.links[&1], &birth.links[&2]);
        assert_eq!((lo.counters.get("rx_dropped"), lo.sent), (Some(0), 0));
        assert_eq!((eth0.counters.get("rx_dropped"), eth0.sent), (None, 9), "none is its own");
        assert_eq!(eth0.counters.get(QDISC_DROPS), Some(0), "those of a new discipline");
    }

    #[test]
    fn a_cookie_or_a_counter_that_fell_tells_two_namespaces_of_one_number_apart() {
        let namespace = |cookie, count| NetnsEvidence {
            cookie,
            counters: [("Udp.NoPorts", count)].into_iter().collect(),
            ..NetnsEvidence::default()
        };
        assert!(namespace(Some(2), 9).is_another_than(&namespace(Some(1), 9)));
        assert!(!namespace(Some(1), 9).is_another_than(&namespace(Some(1), 9)));
        assert!(namespace(None, 8).is_another_than(&namespace(None, 9)));
        assert!(!namespace(None, 9).is_another_than(&namespace(Some(1), 9)));
    }
}
