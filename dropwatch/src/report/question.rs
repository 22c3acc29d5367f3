//! What a rule asks a host for one packet's sake, and what the host answered.
//!
//! Values alone: rules ask (`diagnose::rules`), `kernel::answers` answers. Counters say that something
//! happened; an answer says how the host decides about one sampled packet, at the end of the report.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

pub use super::packet::Packet;
use super::{
    device::{Device, Filter, Frame, GroupHook, GroupProgram, Hook, PortVlans},
    evidence::TableFamily,
    facts::Owner,
    flow::{Flow, number_above_ip},
};

/// A question about one network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ask {
    /// Inode number of the namespace, which the answer is proved to be of.
    pub netns: u32,
    pub question: Question,
}

/// A question that a rule can ask. A new variant does not compile before `kernel::answers` answers
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// Which route would a packet take?
    Route(Packet),
    /// What is known of the link-layer address of a next hop?
    Neighbour(NextHop),
    /// Which sockets have this port? It takes the longest to answer.
    Sockets(SocketPort),
    /// Which connections of TCP have the most that no program has read? It takes as long.
    Unread,
    /// In what state is the device with this index?
    Device(u32),
    /// By which port would a bridge send a frame on?
    Forwarding(Frame),
    /// Which VLANs has the port of a bridge with this index?
    PortVlans(u32),
    /// Has a VXLAN device a remote for a frame? Its `port` is the device.
    Remote(Frame),
    /// Which filters of traffic control are there?
    Filters(Hook),
    /// Which processes have the tap or tun device with this index open?
    Readers(u32),
    /// Which programs of control groups are there? Of the whole host.
    GroupPrograms(GroupHook),
    /// Which tracked connection has answers like this?
    Connection(Tuple),
    /// How many of a server's answers to these ports are taken?
    PortsInUse(NatPorts),
    /// Which rules of the packet filter send packets elsewhere?
    Targets(Sought),
    /// Which IPsec policy is such a packet's?
    Policy(Secured),
}

/// From where to where a packet of a protocol with ports goes: what connection tracking tells the
/// directions of connections apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tuple {
    /// Number above IP.
    pub protocol: u8,
    pub from: SocketAddr,
    pub to: SocketAddr,
}

impl Tuple {
    /// That of a packet; `None` where not all of it is known, or the protocol has no ports.
    pub fn of(flow: &Flow) -> Option<Self> {
        let protocol = number_above_ip(flow)?;
        let from = SocketAddr::new(flow.src?, flow.src_port?);
        Some(Self { protocol, from, to: SocketAddr::new(flow.dst?, flow.dst_port?) })
    }

    /// That of an answer, if nothing translates it.
    #[must_use]
    pub fn turned(self) -> Self {
        Self { from: self.to, to: self.from, ..self }
    }
}

/// The source ports that NAT may give to connections with one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NatPorts {
    /// Number above IP.
    pub protocol: u8,
    pub server: SocketAddr,
    /// The address that connections are given.
    pub address: IpAddr,
    pub first: u16,
    /// Not below `first`.
    pub last: u16,
}

/// What kind of rules is sought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sought {
    /// Those that hand packets to a program (`NFQUEUE`, `queue`).
    Queue,
    /// Those that change where connections come from (`MASQUERADE`, `SNAT`).
    SourceNat,
    /// Those that send connections to this address instead (`DNAT`), or may do so.
    To(IpAddr),
}

/// A packet that an IPsec policy may be for, as far as samples show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secured {
    pub direction: PolicyDirection,
    /// Number above IP.
    pub protocol: u8,
    pub from: IpAddr,
    pub from_port: Option<u16>,
    pub to: IpAddr,
    pub to_port: Option<u16>,
}

/// `XFRM_POLICY_*` (include/uapi/linux/xfrm.h), in the order of their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyDirection {
    In,
    Out,
    /// Of what is forwarded.
    Forward,
}

impl PolicyDirection {
    /// As `ip xfrm` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
            Self::Forward => "fwd",
        }
    }
}

/// A port of sockets, of both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SocketPort {
    pub transport: Transport,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// Of TCP, only sockets that listen.
    Tcp,
    Udp,
}

/// Where packets wait to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveBuffer {
    /// `SO_RCVBUF`, as the kernel holds it.
    pub bytes: u32,
    /// Packets that the socket has lost since it was made.
    pub lost: u32,
}

/// A socket, as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    pub local: SocketAddr,
    /// The only one whose packets it takes; `None` where it takes those of anybody.
    pub peer: Option<SocketAddr>,
    /// Bytes that wait to be read; of one that listens, connections.
    pub queued: u64,
    /// `None` where it was not asked.
    pub buffer: Option<ReceiveBuffer>,
    /// `None` where no process was found that has it.
    pub owner: Option<Owner>,
}

/// A host on the link of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    pub address: IpAddr,
    /// Index of the device.
    pub device: u32,
}

/// What a host answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Route(Route),
    Neighbour(Neighbour),
    Sockets(Vec<Socket>),
    Device(Box<Device>),
    /// The port; `None` where the bridge knows none for that address, or it is the bridge's own.
    Forwarding(Option<Box<Device>>),
    /// `None` where the bridge does not filter.
    PortVlans(Option<PortVlans>),
    Remote(bool),
    Filters(Vec<Filter>),
    /// The processes.
    Readers(Vec<Owner>),
    GroupPrograms(Vec<GroupProgram>),
    /// `None` where no connection has such answers.
    Connection(Option<Connection>),
    PortsInUse(PortsInUse),
    Targets(Vec<RuleTarget>),
    /// `None` where there is no policy for it.
    Policy(Option<Policy>),
}

/// A tracked connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// As its first packet came, before any translation.
    pub original: Tuple,
    /// As answers come, before they are translated back.
    pub reply: Tuple,
}

impl Connection {
    /// Whether packets are sent elsewhere than they were for.
    pub fn is_sent_elsewhere(&self) -> bool {
        self.reply.from != self.original.to
    }
}

/// Of the ports that NAT may give, how many tracked connections have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortsInUse {
    /// Looked at, evenly spread where there are many.
    pub probed: u32,
    pub taken: u32,
}

/// A rule that sends packets elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleTarget {
    pub does: Does,
    pub rule: RulePlace,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// Hands packets to the program that listens at one of these queues; `bypass` lets them pass where
    /// nobody does.
    Queue { first: u16, last: u16, bypass: bool },
    /// Gives connections a source port of these; `None` where it may give any.
    SourceNat { ports: Option<(u16, u16)> },
    /// Sends connections to the address that was sought, or may do so.
    Destination,
}

/// Where a rule stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RulePlace {
    /// In a legacy table of iptables.
    Legacy {
        family: TableFamily,
        table: String,
        chain: String,
        /// Counted from 1, as `iptables -L` does.
        position: u32,
    },
    /// In nftables.
    Nft {
        /// As `nft` calls it: `ip`, `inet`.
        family: &'static str,
        table: String,
        chain: String,
        /// Written by a program of iptables, whose own rules `nft` can show and not read.
        by_iptables: bool,
    },
}

/// An IPsec policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub from: (IpAddr, u8),
    pub to: (IpAddr, u8),
    pub index: u32,
    /// Neither mark nor interface is needed to ask for it by its index.
    pub plain: bool,
    /// It forbids what it is for (`action block`).
    pub blocks: bool,
}

/// Where the kernel would send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// It leads on, to another host or to this one itself.
    Leads(Leads),
    /// It leads nowhere: the packet would be refused.
    Refused(Refused),
}

/// A look-up that ends with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub why: Refusal,
    /// What ends it so; `None` where nothing is there that could, and where that is not sure.
    pub by: Option<Refuser>,
}

impl From<Refusal> for Refused {
    fn from(why: Refusal) -> Self {
        Self { why, by: None }
    }
}

/// What somebody has put into the tables to refuse packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuser {
    /// A route of such a type. One of the type `throw` sends the look-up on to the tables behind, of which
    /// none has a route.
    Route {
        kind: RefusingType,
        to: Prefix,
        table: u32,
        metric: u32,
        /// Preference of the routing rule by which the table was looked up.
        rule: u32,
    },
    /// A routing rule with such an action.
    Rule { kind: RefusingType, preference: u32 },
}

/// What refuses (`RTN_*`, include/uapi/linux/rtnetlink.h; `FR_ACT_*`, include/uapi/linux/fib_rules.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusingType {
    /// Without a word.
    Blackhole,
    /// With an ICMP error.
    Unreachable,
    /// With an ICMP error: administratively prohibited.
    Prohibit,
    /// By ending the look-up in this table.
    Throw,
}

impl RefusingType {
    /// As `ip` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blackhole => "blackhole",
            Self::Unreachable => "unreachable",
            Self::Prohibit => "prohibit",
            Self::Throw => "throw",
        }
    }
}

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    pub address: IpAddr,
    /// In bits.
    pub length: u8,
}

impl Prefix {
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differs = u32::from(own) ^ u32::from(other);
                differs.leading_zeros() >= u32::from(self.length)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differs = u128::from(own) ^ u128::from(other);
                differs.leading_zeros() >= u32::from(self.length)
            }
            _ => false,
        }
    }
}

/// As `ip` writes it, for all addresses, too: `0.0.0.0/0`.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// A route that leads on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leads {
    /// The packet is for the host itself.
    pub local: bool,
    /// Index of the device that it leads out of.
    pub device: Option<u32>,
    /// The next router; `None` where the destination is on the link.
    pub via: Option<IpAddr>,
    /// Number of the routing table.
    pub table: Option<u32>,
    /// A routing rule looks at what is above IP.
    pub above: bool,
}

/// Why a packet would be refused: the error that the kernel's look-up ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `ENETUNREACH`: no route at all, or a routing rule that says so (`ip rule … unreachable`).
    NoRoute,
    /// `EHOSTUNREACH`: a route of the type `unreachable`, or no forwarding.
    Unreachable,
    /// `EINVAL`: a route of the type `blackhole`, or an address that no packet may have.
    Blackhole,
    /// `EACCES`: a route or a routing rule of the type `prohibit`.
    Prohibited,
    /// `EXDEV`: the way back to the source leads out of another device.
    ReversePath,
}

/// What the kernel knows of a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// Nothing: nobody has asked for it, or it has been forgotten.
    Unknown,
    /// It has answered, or need not: reachable, permanent, no ARP.
    Answers,
    /// It answered once; whether it still does is not known (stale, delay, probe).
    Answered,
    /// It is being asked for the first time.
    Awaited,
    /// It did not answer.
    Failed,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    #[error("too much was asked in this report")]
    TooMany,
    #[error("it took too long")]
    TooLate,
    #[error("the network namespace is gone, or was never looked into")]
    Gone,
    #[error("it is not permitted to ask")]
    NotPermitted,
    #[error("the kernel does not answer this")]
    Failed,
    #[error("a routing rule looks at what samples do not show")]
    Undecided,
}

/// Every question of a report, with what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers(BTreeMap<Ask, Result<Answer, Unanswered>>);

impl Answers {
    /// Makes an empty set of answers: nothing was asked.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// What came of a question; `None` where it was not asked yet.
    pub fn get(&self, ask: &Ask) -> Option<Result<Answer, Unanswered>> {
        self.0.get(ask).cloned()
    }

    pub fn insert(&mut self, ask: Ask, answer: Result<Answer, Unanswered>) {
        self.0.insert(ask, answer);
    }
}

#[cfg(test)]
mod tests;
