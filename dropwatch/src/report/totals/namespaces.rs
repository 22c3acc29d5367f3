//! Drops by network namespace and reason since the run began.
//!
//! Apart from the sums by place: a series for each place in each namespace would be their product,
//! and sums over the places would have to know of it.

use std::collections::{BTreeMap, BTreeSet};

use super::bound::{OTHER, Rowless, UNKNOWN, admitted, netns_label};
use crate::report::model::{Location, Report};

/// Network namespaces that have sums of their own, unless a run asks for another number.
pub const NAMESPACES: usize = 100;
/// Most namespaces that a run may ask for.
pub const MOST_NAMESPACES: usize = 10_000;
/// Most reasons that have sums of their own: kernels have fewer than 300, and a recording any number.
pub const MOST_REASONS: usize = 500;

/// What is counted as one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamespaceKey {
    /// The namespace's name in the report that has the drops, else its number; [`UNKNOWN`] where none
    /// was proved, [`OTHER`] for all that have no sums of their own.
    pub netns: String,
    /// Empty where the kernel gave none.
    pub reason: String,
    /// Known to be harmless.
    pub benign: bool,
}

/// Sums by namespace. They only grow, and that of all is every drop of all reports.
///
/// A name that once has sums of its own keeps them, and one that came too late never gets any, so no
/// drop moves from one sum to another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamespaceSums {
    most: usize,
    names: BTreeSet<String>,
    reasons: BTreeSet<String>,
    sums: BTreeMap<NamespaceKey, u64>,
}

impl NamespaceSums {
    /// Nothing yet, with room for the sums of `most` namespaces.
    pub fn new(most: usize) -> Self {
        // Added even if it is zero, so that a metric exists before the first drop.
        let unknown = NamespaceKey { netns: UNKNOWN.to_owned(), ..NamespaceKey::default() };
        Self { most, sums: [(unknown, 0)].into(), ..Self::default() }
    }

    /// Every sum there is.
    pub fn iter(&self) -> impl Iterator<Item = (&NamespaceKey, u64)> {
        self.sums.iter().map(|(key, sum)| (key, *sum))
    }

    /// Drops of all namespaces: those of all reports.
    pub fn drops(&self) -> u64 {
        self.iter().fold(0, |all: u64, (_, sum)| all.saturating_add(sum))
    }

    pub(in crate::report) fn add(&mut self, report: &Report) {
        for row in &report.locations {
            self.row(row);
        }
        let Rowless { unknown, benign, harmful } = Rowless::of(&report.other);
        self.count(UNKNOWN, "", false, unknown);
        // Of rows that a recording left out it holds no namespace.
        self.count(OTHER, "", true, benign);
        self.count(OTHER, "", false, harmful);
    }

    fn row(&mut self, row: &Location) {
        let reason = row.place.reason.as_deref().unwrap_or_default();
        let mut left = row.count;
        for part in &row.namespaces {
            let netns = part.netns().map_or_else(|| UNKNOWN.to_owned(), |it| netns_label(&it));
            self.count(&netns, reason, row.benign, part.count);
            left = left.saturating_sub(part.count);
        }
        // All of them, where the kernel side does not tell namespaces apart.
        self.count(UNKNOWN, reason, row.benign, left);
    }

    fn count(&mut self, netns: &str, reason: &str, benign: bool, drops: u64) {
        if drops == 0 {
            return;
        }
        let is_named = ![OTHER, UNKNOWN].contains(&netns);
        let netns = match is_named {
            true => admitted(&mut self.names, self.most, netns),
            false => netns,
        };
        let reason = match reason {
            "" => reason,
            reason => admitted(&mut self.reasons, MOST_REASONS, reason),
        };
        let key = NamespaceKey { netns: netns.to_owned(), reason: reason.to_owned(), benign };
        let sum = self.sums.entry(key).or_default();
        *sum = sum.saturating_add(drops);
    }
}
