//! What a rule asks a host for one packet's sake, and what the host answered.
//!
//! Values alone: rules ask (`diagnose::rules`), `kernel::answers` answers. Counters say that something
//! happened; an answer says how the host decides about one sampled packet, at the end of the report.

use std::{collections::BTreeMap, net::IpAddr};

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
}

/// What decides about a packet's route, as far as samples show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Packet {
    pub to: IpAddr,
    pub from: Option<IpAddr>,
    /// Index of the device that it came in by; `None` for what the host sends itself. The kernel checks
    /// such a packet as one that came in, its source, too: without `from` it refuses.
    pub iif: Option<u32>,
    /// `skb->mark`; 0 where there is none, or samples do not show it.
    pub mark: u32,
}

impl Packet {
    /// A packet of the host's own to `to`: what `ip route get ADDRESS` asks for.
    pub fn to(to: IpAddr) -> Self {
        Self { to, from: None, iif: None, mark: 0 }
    }
}

/// A host on the link of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    pub address: IpAddr,
    /// Index of the device.
    pub device: u32,
}

/// What a host answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Route(Route),
    Neighbour(Neighbour),
}

/// Where the kernel would send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// It leads on, to another host or to this one itself.
    Leads(Leads),
    /// It leads nowhere: the packet would be refused.
    Refused(Refusal),
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
        self.0.get(ask).copied()
    }

    pub fn insert(&mut self, ask: Ask, answer: Result<Answer, Unanswered>) {
        self.0.insert(ask, answer);
    }
}
