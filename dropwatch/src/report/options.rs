//! What reports are to hold, and what filters leave of the counters.

use super::{keys::Keys, model::groups::By, snapshot::Lost};

/// What a [`Reporter`](super::build::Reporter) puts into its reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Record raw kernel addresses.
    pub addresses: bool,
    /// List the sampled call paths of each location.
    pub stacks: bool,
    /// Rows to report; the others are as if they had not been counted.
    pub keys: Keys,
    /// The kernel side counts by network namespace.
    pub namespaces: bool,
    /// The kernel side counts some packets only.
    pub packets_filtered: bool,
    /// What to count by, besides locations.
    pub by: Vec<By>,
}

impl Options {
    /// Splits the drops without a location into those that are counted all the same and those of
    /// which the filters are undecided.
    ///
    /// Drops that found no room had passed the packet filter; drops that the kernel skipped never
    /// came to it.
    pub(super) fn unlocated(&self, lost: &Lost) -> (u64, u64) {
        let no_room = lost.map_full.saturating_add(lost.map_busy);
        let undecided = |filtered: bool, count: u64| if filtered { (0, count) } else { (count, 0) };
        let (counted, unknown) = undecided(!self.keys.is_empty(), no_room);
        let (more_counted, more_unknown) = undecided(self.is_filtered(), lost.recursion);
        (counted.saturating_add(more_counted), unknown.saturating_add(more_unknown))
    }

    pub(super) fn is_filtered(&self) -> bool {
        self.packets_filtered || !self.keys.is_empty()
    }
}
