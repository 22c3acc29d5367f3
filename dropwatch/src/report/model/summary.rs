//! The sums of a run, as the `end` line holds them and `replay` makes them of reports.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::{
    facts::Netns,
    finding::{FindingKind, Severity},
    number::is_zero,
    place::Place,
    snapshot::Lost,
    timestamp,
};

/// What a run came to. Reports of the time before the command are not in it, but in `before`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Sum of the reports' drops.
    pub drops: u64,
    /// Drops that are known to be harmless.
    pub benign: u64,
    /// Seconds that the reports cover.
    pub duration_s: f64,
    /// Drops per second.
    pub rate: f64,
    pub lost: Lost,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter_undecided: Option<u64>,
    /// Highest count first.
    pub locations: Vec<SummaryRow>,
    /// Drops that no row counts.
    pub other: u64,
    /// The report with the most drops that are not known to be harmless; of those with as many, that
    /// with the most drops.
    pub worst: Option<Worst>,
    /// The most severe first.
    pub findings: Vec<SummaryFinding>,
    /// What was dropped before the command was started; null where nobody looked.
    pub before: Option<Before>,
}

/// Drops at one call site, for one reason, in the whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SummaryRow {
    #[serde(flatten)]
    pub place: Place,
    pub count: u64,
    /// Part of the run's drops, as [`share`](crate::report::number::share) rounds it.
    pub share: f64,
    pub rate: f64,
    pub benign: bool,
    /// Drops here before the command was started.
    pub before: u64,
}

/// The worst interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worst {
    pub seq: u64,
    #[serde(with = "timestamp")]
    pub start: Timestamp,
    #[serde(with = "timestamp")]
    pub end: Timestamp,
    pub interval_s: f64,
    pub drops: u64,
    /// Drops that are known to be harmless; absent where there are none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub benign: u64,
    pub rate: f64,
}

/// A cause that was found, in one report or in several: one entry for each rule, namespace and subject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SummaryFinding {
    pub rule: String,
    pub severity: Severity,
    pub netns: Option<Netns>,
    /// What it is about, as [`Finding::subject`](crate::report::finding::Finding::subject).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// Its title in the report in which it explained the most drops.
    pub title: String,
    /// Drops that it explains, in all reports.
    pub explains: u64,
    /// End of the first report that has it.
    #[serde(with = "timestamp")]
    pub first: Timestamp,
    /// End of the last report that has it.
    #[serde(with = "timestamp")]
    pub last: Timestamp,
    /// Reports that have it.
    pub reports: u64,
    /// Whether it was found before the command was started, too.
    pub before: bool,
}

impl SummaryFinding {
    pub fn kind(&self) -> FindingKind<'_> {
        let Self { severity, rule, netns, explains, .. } = self;
        FindingKind { severity: *severity, rule, netns: netns.as_ref(), drops: *explains }
    }
}

/// The time before the command was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Before {
    pub drops: u64,
    /// Drops that are known to be harmless; absent where there are none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub benign: u64,
    pub duration_s: f64,
}
