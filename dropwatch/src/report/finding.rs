//! A diagnosis, as reports and recordings hold it: what is wrong, what proves it, what to change.
//!
//! A finding never stands without evidence, and what it explains is never more than what was
//! counted.

use serde::{Deserialize, Serialize};

use super::{facts::Netns, number::share, place::Place};

/// A cause of drops, or of losses that no drop event shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Name of the rule that found it: `conntrack_table_full`.
    pub rule: String,
    pub severity: Severity,
    /// Where; null for the host as a whole, and where it is not known.
    pub netns: Option<Netns>,
    /// What it is about, besides the rule and the namespace: `TCP port 11`. The same for as long as the
    /// cause is, however much that does. Empty where there is nothing else, and in recordings of
    /// older versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// The cause in one line.
    pub title: String,
    /// The drops of the report that it explains; null for losses that no drop event shows.
    pub explains: Option<Explains>,
    pub evidence: Vec<Evidence>,
    pub actions: Vec<Action>,
    /// Why there is no command for the network namespace that it is about; absent where commands
    /// can be run there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<Unreachable>,
    /// The rows among whose drops those are that it explains. For views of a live run; not part of a
    /// recording.
    #[serde(skip)]
    pub places: Vec<Place>,
}

/// A network namespace that no command can be printed for: without a proved way into it, a command
/// would change or show another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreachable {
    /// The namespace is proved to have ended before the report.
    pub ended: bool,
    /// Why no command can be printed, for people.
    pub why: String,
}

every! {
    /// How much a finding matters. The most severe is the least.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Severity {
        /// A limit of this host is reached, and what it refuses is lost although nothing is wrong with
        /// it. It goes on for as long as the load does.
        Critical,
        /// Packets are refused by a decision (a rule, a route, a filter) or because something is
        /// broken or missing. Right or wrong: somebody has to say.
        Warning,
        /// Small, or usual in small numbers; worth knowing when it is the largest part.
        Notice,
    }
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Notice => "notice",
        }
    }
}

/// Part of a report's drops.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explains {
    pub drops: u64,
    /// Part of the report's drops, as [`share`] rounds it.
    pub share: f64,
}

impl Explains {
    pub fn of(drops: u64, all: u64) -> Self {
        Self { drops, share: share(drops, all) }
    }
}

/// A number or setting that a finding rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    pub name: String,
    pub value: Value,
    /// Counted in the report's interval; else how things stand at its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delta: bool,
    /// Where it was read.
    pub source: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    Number(u64),
    Text(String),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Something to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// For a shell, as root, in the namespaces that dropwatch itself was started in. Complete:
    /// nothing is to be filled in.
    pub command: String,
    /// What it does, and what it costs.
    pub note: String,
}
