//! The one serialised truth: what every renderer prints and `replay` reads back.
//!
//! Documented for users in `docs/json.md`, with a JSON Schema beside it. One value of [`Line`] is
//! one line of NDJSON. Fields may be added within schema version 1, never renamed or removed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use super::snapshot::Lost;

/// Version of the line format, in every line as `v`.
pub const SCHEMA_VERSION: u32 = 1;

/// One line of `--json` output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Line {
    /// First line: what is watched, and what this host cannot show.
    Start(Start),
    /// One interval.
    Report(Report),
    /// Last line: the sums of the whole run.
    End(End),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    pub v: u32,
    #[serde(flatten)]
    pub host: Host,
    /// Version of dropwatch.
    pub dropwatch: String,
    pub time: Timestamp,
    /// Nominal interval, seconds.
    pub interval_s: f64,
    /// What this host does not allow, each with what it costs and the way out.
    pub notices: Vec<String>,
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub v: u32,
    /// 1 for the first report of a run.
    pub seq: u64,
    #[serde(flatten)]
    pub host: Host,
    /// `end` minus the monotonic length of the interval.
    pub start: Timestamp,
    pub end: Timestamp,
    /// Measured length of the interval, seconds of monotonic time.
    pub interval_s: f64,
    /// Nominal intervals covered: more than 1 when a stalled reader held reports back.
    pub intervals: u64,
    pub drops: u64,
    /// Drops per second.
    pub rate: f64,
    /// Highest count first.
    pub locations: Vec<Location>,
    pub other: Other,
    pub lost: Lost,
    /// Diagnoses; none exist yet.
    pub findings: Vec<serde_json::Value>,
}

/// Drops at one call site, for one reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Location {
    /// Function that freed the packet; null where it cannot be told.
    pub symbol: Option<String>,
    /// Bytes from the start of `symbol`.
    pub offset: Option<u64>,
    /// Kernel module of `symbol`; null for the kernel proper.
    pub module: Option<String>,
    /// Drop reason; null where the kernel has none.
    pub reason: Option<String>,
    /// Subsystem that defines the reason, `CORE` for the kernel's own.
    pub subsystem: Option<String>,
    /// Raw kernel address, `0x` and 16 hexadecimal digits; only with `--addresses`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    pub count: u64,
    /// Drops per second.
    pub rate: f64,
    /// Part of the report's drops, 0 to 1.
    pub share: f64,
    /// Drops here since the run began.
    pub total: u64,
    /// Known to be harmless housekeeping, such as a queue discarded at close.
    pub benign: bool,
    /// First seen in this report.
    pub new: bool,
}

/// What the rows of `locations` do not show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    /// Locations beyond `--top`.
    pub locations: u64,
    /// Their drops, and those of unknown location.
    pub count: u64,
    /// Drops whose location is unknown (`lost.map_full + lost.map_busy + lost.recursion`).
    pub unknown_location: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub v: u32,
    #[serde(flatten)]
    pub host: Host,
    pub time: Timestamp,
    /// Monotonic length of the run, seconds.
    pub duration_s: f64,
    /// Reports written.
    pub reports: u64,
    /// Sum of the reports' drops.
    pub drops: u64,
    pub lost: Lost,
}

/// A named place in the kernel's text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Symbol {
    pub name: String,
    pub offset: u64,
    pub module: Option<String>,
}

/// A named drop reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reason {
    pub name: String,
    pub subsystem: Option<String>,
}
