//! What sums have in common whose number is bounded.

use std::collections::BTreeSet;

use crate::report::{
    facts::{Interface, Netns},
    model::Other,
};

/// What labels call all that has no sum of its own.
pub const OTHER: &str = "other";
/// What labels call whatever could not be proved.
pub const UNKNOWN: &str = "unknown";

/// What labels call a network namespace: its name, or its number where it has none, or one that labels
/// have for something else. Names of this host are none of those; a recording may hold any.
pub(in crate::report) fn netns_label(netns: &Netns) -> String {
    match &netns.name {
        Some(name) if is_word(name) => format!("netns {}", netns.inum),
        _ => netns.to_string(),
    }
}

/// What labels call an interface: as [`netns_label`], with its index for a number. A blank is in no
/// interface's name (`dev_valid_name`, net/core/dev.c).
pub(in crate::report) fn interface_label(interface: &Interface) -> String {
    match &interface.name {
        Some(name) if is_word(name) => format!("ifindex {} ({name})", interface.index),
        Some(name) => name.clone(),
        None => format!("ifindex {}", interface.index),
    }
}

fn is_word(name: &str) -> bool {
    [OTHER, UNKNOWN].contains(&name)
}

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
