//! The one serialised truth: what every renderer prints and `replay` reads back.
//!
//! Documented for users in `docs/json.md`, with a JSON Schema beside it. One value of [`Line`] is
//! one line of NDJSON; `report::decode` reads it back. Fields may be added within schema version 1,
//! never renamed or removed.

pub mod groups;
pub mod summary;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use self::{groups::Groups, summary::Summary};
pub use super::{
    address::Address,
    place::{Place, Reason, Symbol},
    snapshot::{Lost, UndecidedBy},
};
use super::{
    facts::{CallPath, Details, Frame, Interface, Netns, Owner, Task},
    finding::{Finding, MoreFindings},
    flow::Flow,
    hex,
    namespaces::{MoreNamespaces, NamespaceDrops},
    nat::Nat,
    number::is_zero,
    timestamp,
    tunnel::Inner,
};

/// Version of the line format, in every line as `v`.
pub const SCHEMA_VERSION: u32 = 1;

/// One line of `--json` output.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// First line: what is watched, and what this host cannot show.
    Start(Start),
    /// One interval.
    Report(Report),
    /// One dropped packet out of many.
    Sample(Box<Sampled>),
    /// Last line: the sums of the whole run.
    End(End),
}

impl Line {
    /// The value of the field `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Start(_) => "start",
            Self::Report(_) => "report",
            Self::Sample(_) => "sample",
            Self::End(_) => "end",
        }
    }
}

/// `v` and `type` come first, so that a reader knows what follows before it reads on.
impl Serialize for Line {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Tagged<'a, T> {
            v: u32,
            r#type: &'static str,
            #[serde(flatten)]
            body: &'a T,
        }
        let (v, r#type) = (SCHEMA_VERSION, self.kind());
        match self {
            Self::Start(body) => Tagged { v, r#type, body }.serialize(to),
            Self::Report(body) => Tagged { v, r#type, body }.serialize(to),
            Self::Sample(body) => Tagged { v, r#type, body: &**body }.serialize(to),
            Self::End(body) => Tagged { v, r#type, body }.serialize(to),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Start {
    #[serde(flatten)]
    pub host: Host,
    /// Version of dropwatch.
    pub dropwatch: String,
    #[serde(with = "timestamp")]
    pub time: Timestamp,
    /// Nominal interval, seconds.
    pub interval_s: f64,
    /// What this host does not allow, each with what it costs and the way out.
    pub notices: Vec<String>,
    /// Options that leave drops out, as typed: `--proto tcp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<String>,
}

/// Which machine, and which boot of it, a line is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    pub host: String,
    /// `/proc/sys/kernel/random/boot_id`
    pub boot_id: String,
    /// Kernel release, as `uname -r` prints it.
    pub kernel: String,
}

/// The drops of one interval.
///
/// Always: `sum(locations.count) + other.count == drops`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// 1 for the first report of a run.
    pub seq: u64,
    #[serde(flatten)]
    pub host: Host,
    /// `end` minus the monotonic length of the interval.
    #[serde(with = "timestamp")]
    pub start: Timestamp,
    #[serde(with = "timestamp")]
    pub end: Timestamp,
    /// Measured length of the interval, seconds of monotonic time.
    pub interval_s: f64,
    /// Nominal intervals covered: more than 1 when a stalled reader held reports back.
    pub intervals: u64,
    /// Whether the report is of the time before the command of `dropwatch run` was started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub baseline: bool,
    pub drops: u64,
    /// Drops per second.
    pub rate: f64,
    /// Highest count first.
    pub locations: Vec<Location>,
    pub other: Other,
    /// What was lost in this interval.
    pub lost: Lost,
    /// Drops of which it could not be decided whether the filters let them through; they are in
    /// no other number but those of `lost`. Absent without filters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter_undecided: Option<u64>,
    /// Those of them that a filter in the kernel could not decide, by its option.
    #[serde(default, skip_serializing_if = "UndecidedBy::is_none")]
    pub filter_undecided_by: UndecidedBy,
    /// The drops once more, by what was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Box<Groups>>,
    /// What is wrong, the most severe first.
    pub findings: Vec<Finding>,
    /// Those that a view left out, the most severe first. JSON has all of them.
    #[serde(skip)]
    pub more_findings: Vec<MoreFindings>,
}

impl Report {
    /// Known locations with drops in this interval, shown or not.
    pub fn location_count(&self) -> u64 {
        self.other.locations.saturating_add(self.locations.len() as u64)
    }

    /// Drops that are known to be harmless.
    pub fn benign(&self) -> u64 {
        let rows = self.locations.iter().filter(|row| row.benign);
        rows.fold(self.other.known_benign, |sum, row| sum.saturating_add(row.count))
    }

    /// Drops that are not known to be harmless.
    pub fn harmful(&self) -> u64 {
        self.drops.saturating_sub(self.benign())
    }
}

/// Drops at one call site, for one reason.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Location {
    #[serde(flatten)]
    pub place: Place,
    /// Raw kernel address; written only with `--addresses`.
    #[serde(default, skip_serializing_if = "Address::is_withheld")]
    pub address: Address,
    pub count: u64,
    /// Drops per second.
    pub rate: f64,
    /// Part of the report's drops, as [`share`](super::number::share) rounds it.
    pub share: f64,
    /// Drops here since the run began.
    pub total: u64,
    /// Known to be harmless housekeeping, such as a queue discarded at close.
    pub benign: bool,
    /// First seen in this report.
    pub new: bool,
    /// What the sampled packets among them have in common; absent if none was sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
    /// Sampled call paths, the heaviest first; only where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stacks: Vec<CallPath>,
    /// The drops by network namespace, the largest first; empty where the kernel side cannot tell
    /// them apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<NamespaceDrops>,
    /// Those that a view left out. JSON has all of them.
    #[serde(skip)]
    pub more: MoreNamespaces,
}

/// One sampled drop. What could not be proved of it is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    #[serde(flatten)]
    pub host: Host,
    /// Wall-clock label of the drop, to the nanosecond.
    #[serde(with = "timestamp::nanosecond")]
    pub time: Timestamp,
    /// Monotonic time since attach, seconds.
    pub at_s: f64,
    #[serde(flatten)]
    pub place: Place,
    /// Raw kernel address of the location; written only with `--addresses`.
    #[serde(default, skip_serializing_if = "Address::is_withheld")]
    pub address: Address,
    /// Drops that it stands for, itself included.
    pub weight: u64,
    pub cpu: u32,
    /// Length of the packet, bytes.
    pub length: u32,
    pub netns: Option<Netns>,
    pub interface: Option<Interface>,
    /// Sent from this host; else it came in by a device.
    pub outgoing: Option<bool>,
    /// Whether connection tracking has an entry for it.
    pub conntrack: Option<bool>,
    /// Its mark, by which rules choose (`skb->mark`); absent where it has none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mark: u32,
    pub owner: Option<Owner>,
    /// The task that ran on the CPU; older recordings have none.
    #[serde(default)]
    pub task: Option<Task>,
    pub flow: Option<Flow>,
    /// The packet that it carries; absent where it is not seen to be a tunnel's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner: Option<Inner>,
    /// Its connection, where addresses are translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<Nat>,
    /// Call path, innermost first; empty if it could not be read.
    pub stack: Vec<Frame>,
    /// What the network header is, as the kernel has it (`skb->protocol`).
    pub ethertype: u16,
    /// `packet` begins with an Ethernet header; else with the network header.
    pub link_header: bool,
    /// First bytes of the packet.
    #[serde(with = "hex")]
    pub packet: Vec<u8>,
}

/// What the rows of `locations` do not show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    /// Locations that are not among the rows.
    pub locations: u64,
    /// Drops at these locations, and those of unknown location.
    pub count: u64,
    /// Drops whose location is unknown (`lost.map_full + lost.map_busy + lost.recursion`).
    pub unknown_location: u64,
    /// Drops of `count` that are known to be harmless; absent where there are none.
    #[serde(default, rename = "benign", skip_serializing_if = "is_zero")]
    pub known_benign: u64,
    /// How much of `locations` and `count` was folded away as benign. JSON never folds.
    #[serde(skip)]
    pub benign: Hidden,
}

impl Other {
    /// Rows that did not make it into the top N.
    pub fn below_top(&self) -> Hidden {
        let explained = self.unknown_location.saturating_add(self.benign.count);
        Hidden {
            locations: self.locations.saturating_sub(self.benign.locations),
            count: self.count.saturating_sub(explained),
        }
    }
}

/// Rows that are summed instead of shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    pub locations: u64,
    pub count: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct End {
    #[serde(flatten)]
    pub host: Host,
    #[serde(with = "timestamp")]
    pub time: Timestamp,
    /// Monotonic length of the run, seconds.
    pub duration_s: f64,
    /// Reports written.
    pub reports: u64,
    /// Sum of the reports' drops.
    pub drops: u64,
    /// Drops that are known to be harmless; absent where there are none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub benign: u64,
    /// What was lost in the whole run.
    pub lost: Lost,
    /// Sum of the reports' `filter_undecided`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter_undecided: Option<u64>,
    /// Sum of the reports' `filter_undecided_by`.
    #[serde(default, skip_serializing_if = "UndecidedBy::is_none")]
    pub filter_undecided_by: UndecidedBy,
    /// The command of `dropwatch run`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Box<RanCommand>>,
}

/// The command of `dropwatch run`, and what was dropped meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RanCommand {
    /// The command and its arguments, as typed.
    pub command: Vec<String>,
    /// Exit status of the command; null if it was never started, or ended by a signal.
    pub status: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Monotonic time from its start to its end, seconds.
    pub duration_s: f64,
    pub summary: Summary,
}
