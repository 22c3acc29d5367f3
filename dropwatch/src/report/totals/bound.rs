//! What sums have in common whose number is bounded.

use std::collections::BTreeSet;

use crate::report::model::Other;

/// What labels call all that has no sum of its own.
pub const OTHER: &str = "other";
/// What labels call whatever could not be proved.
pub const UNKNOWN: &str = "unknown";

/// The name itself, if it is among the first `most`; else [`OTHER`], and so for ever.
pub(in crate::report) fn admitted<'a>(
    names: &mut BTreeSet<String>,
    most: usize,
    name: &'a str,
) -> &'a str {
    if names.contains(name) {
        return name;
    }
    if names.len() >= most {
        return OTHER;
    }
    names.insert(name.to_owned());
    name
}

/// Drops that are in no row of a report.
pub(in crate::report) struct Rowless {
    /// Of unknown location.
    pub unknown: u64,
    /// Of rows that a recording left out, known to be harmless.
    pub benign: u64,
    /// Of rows that a recording left out, not known to be harmless.
    pub harmful: u64,
}

impl Rowless {
    pub(in crate::report) fn of(other: &Other) -> Self {
        let rows = other.count.saturating_sub(other.unknown_location);
        let benign = other.known_benign.min(rows);
        Self { unknown: other.unknown_location, benign, harmful: rows - benign }
    }
}
