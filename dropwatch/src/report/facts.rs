//! What samples show of the drops at a location, as reports and recordings hold it.
//!
//! Counts never rest on any of this. Everything here is of samples, and says of how many.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{
    address::Address,
    device::Mac,
    flow::{AboveIp, Flow},
    precision::Precision,
    protocol::Term,
};

/// What most of the sampled drops at a location have in common.
///
/// `None` in a field: for the largest part of them it is not known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// Samples that this rests on.
    pub samples: u64,
    /// Number of equal samples that say as much ([`effective`](super::precision::effective)); `None`
    /// in a recording of a version that did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_samples: Option<f64>,
    /// Drops that they stand for. Shares are of this.
    pub weight: u64,
    pub netns: Option<Fact<Netns>>,
    pub interface: Option<Fact<Interface>>,
    pub direction: Option<Fact<Direction>>,
    pub protocol: Option<Fact<ProtocolName>>,
    pub flow: Option<Pattern>,
    pub path: Option<Fact<Callers>>,
    pub conntrack: Option<Fact<FlowTracked>>,
    pub owner: Option<Fact<Owner>>,
    pub cpu: Option<Fact<Cpu>>,
    /// Where the facts above would have to choose. No output has it.
    #[serde(skip)]
    pub values: Values,
}

/// Every value that the sampled drops at a location have of some fields, each with the weight of the
/// samples that have it. Samples of which a field is not known are in none.
///
/// A rule may say of all drops only what holds for all, and a [`Pattern`] is of a part of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    pub protocols: BTreeMap<Term, u64>,
    pub sources: BTreeMap<IpAddr, u64>,
    pub destinations: BTreeMap<IpAddr, u64>,
    /// The same, each with what else routing decides by.
    pub routed: BTreeMap<Routed, u64>,
    pub destination_ports: BTreeMap<u16, u64>,
    pub paths: BTreeMap<Callers, u64>,
    /// Indexes of devices, in the namespace of the drop.
    pub devices: BTreeMap<u32, u64>,
    /// The stations that frames are for and from, where their Ethernet header is there.
    pub stations: BTreeMap<(Mac, Mac), u64>,
    /// Whole flows, for questions about one packet.
    pub flows: BTreeMap<Flow, u64>,
}

/// What of a packet routing decides by, beside where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Routed {
    pub to: IpAddr,
    /// `skb->mark`; 0 for none.
    pub mark: u32,
    pub above: AboveIp,
}

impl Details {
    /// How exact the shares are.
    pub fn precision(&self) -> Precision {
        Precision::new(self.effective_samples, self.weight)
    }
}

/// Something that holds for a `share` of the sampled drops.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fact<T> {
    #[serde(flatten)]
    pub is: T,
    /// Part of the sampled weight, 0 to 1, as [`share`](super::number::share) rounds it.
    pub share: f64,
}

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Netns {
    /// Name of the namespace on this host; null where it has none.
    pub name: Option<String>,
    /// Inode number, as `/proc/PID/ns/net` shows it.
    pub inum: u32,
    /// Another namespace has this inode number by now, so this one is gone.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ended: bool,
    /// Which of those of the run that had the inode number; see [`Netns::number`].
    #[serde(skip)]
    which: Option<u32>,
}

impl Netns {
    /// The only namespace of the run that has this inode number, as far as is known.
    pub fn new(name: Option<String>, inum: u32) -> Self {
        Self { name, inum, ended: false, which: None }
    }

    /// A namespace by its `number` in this run.
    pub fn numbered(name: Option<String>, inum: u32, number: u32, ended: bool) -> Self {
        Self { name, inum, ended, which: (number != inum).then_some(number) }
    }

    /// What no other namespace of this run has: the inode number for the first that had it.
    pub fn number(&self) -> u32 {
        self.which.unwrap_or(self.inum)
    }
}

/// Its name, else its inode number.
impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "netns {}", self.inum),
        }
    }
}

/// For a flag that JSON leaves out where it is not set.
pub fn is_false(flag: &bool) -> bool {
    !flag
}

/// A device, as its namespace knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Interface {
    pub name: Option<String>,
    pub index: u32,
}

/// Whether the packet came in by a device or was sent from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Direction {
    pub outgoing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProtocolName {
    pub name: String,
}

/// The functions that led to the drop: the nearest caller first, at most
/// [`CALLERS`](super::path::CALLERS), without those that carry no information.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Callers {
    /// Null for a function without a name.
    pub callers: Vec<Option<String>>,
}

/// Whether connection tracking has an entry for the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowTracked {
    pub entry: bool,
}

/// The process that holds a packet's socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// Command name of the process (`/proc/PID/comm`).
    pub comm: String,
    pub pid: u32,
    /// Path of its control group, below the root of the hierarchy; null where it is the root.
    #[serde(default)]
    pub cgroup: Option<String>,
}

/// The task that ran on the CPU when a packet was dropped there. Whether it had to do with the packet
/// is what `context` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its own name, which may be that of a thread.
    pub comm: String,
    /// Its process, as the initial PID namespace numbers it; 0 is the idle task.
    pub pid: u32,
    pub context: Option<Context>,
}

/// What the CPU did when a packet was dropped, by the call path; where that does not tell, it is
/// not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Context {
    /// The task's own work: a system call, or what a thread of the kernel is there for.
    Task,
    /// A softirq, which runs on top of whatever task there is: the packet may be anybody's.
    Softirq,
    /// An interrupt.
    Interrupt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cpu {
    pub cpu: u32,
}

/// What the flows of a share of the sampled drops have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pattern {
    /// What varies is absent here, and named in `varies`.
    #[serde(flatten)]
    pub flow: Flow,
    pub varies: Vec<Field>,
    /// Part of the sampled weight, 0 to 1.
    pub share: f64,
}

impl Pattern {
    pub fn varies(&self, field: Field) -> bool {
        self.varies.contains(&field)
    }
}

/// A field of a [`Flow`] that can vary. The least informative come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    SrcPort,
    DstPort,
    /// What kind of packet it is, such as its TCP flags, and whether it is a fragment.
    Kind,
    Src,
    Dst,
    /// The protocol and the VLAN.
    Protocol,
}

/// One function of a call path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Null where it is unknown.
    pub symbol: Option<String>,
    /// Bytes from the start of `symbol`, of the return address.
    pub offset: Option<u64>,
    pub module: Option<String>,
    /// Raw kernel address; written only with `--addresses`.
    #[serde(default, skip_serializing_if = "Address::is_withheld")]
    pub address: Address,
}

/// A whole call path, and how much of the sampled drops came along it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallPath {
    pub samples: u64,
    /// Drops that they stand for.
    pub weight: u64,
    /// Part of the sampled weight of the location, 0 to 1.
    pub share: f64,
    /// Innermost first, beginning at the drop location.
    pub frames: Vec<Frame>,
}
