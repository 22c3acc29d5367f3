//! Drops by what `--by` asks for since the run began.

use std::collections::BTreeMap;

use super::bound::{OTHER, UNKNOWN, interface_label, netns_label};
use crate::report::model::groups::{By, GroupRow, Groups};

/// Most groups that have a sum of their own.
pub const MOST_GROUPS: usize = 1_000;

/// What a group's drops have in common, as labels have it: what was asked for alone, of which an
/// interface has its namespace with it.
pub type GroupKey = BTreeMap<&'static str, String>;

/// Sums by group. They only grow, and that of all is the sum of the reports' `groups.drops`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupSums {
    sums: BTreeMap<GroupKey, u64>,
    /// How many of the sums are a group's own, and not that of [`OTHER`] or [`UNKNOWN`].
    own: usize,
}

impl GroupSums {
    /// Every sum there is.
    pub fn iter(&self) -> impl Iterator<Item = (&GroupKey, u64)> {
        self.sums.iter().map(|(key, sum)| (key, *sum))
    }

    /// Drops of all groups.
    pub fn drops(&self) -> u64 {
        self.iter().fold(0, |all: u64, (_, sum)| all.saturating_add(sum))
    }

    pub(in crate::report) fn add(&mut self, groups: &Groups) {
        for row in &groups.rows {
            let own = key(&groups.by, row);
            let is_known = self.sums.contains_key(&own);
            if !is_known && self.own >= MOST_GROUPS {
                self.count(all(&groups.by, OTHER), row.count);
            } else {
                self.own += usize::from(!is_known);
                self.count(own, row.count);
            }
        }
        // Added even if they are zero, so that they exist before their first drop.
        self.count(all(&groups.by, UNKNOWN), groups.unknown);
        self.count(all(&groups.by, OTHER), groups.other);
    }

    fn count(&mut self, key: GroupKey, drops: u64) {
        let sum = self.sums.entry(key).or_default();
        *sum = sum.saturating_add(drops);
    }
}

/// The labels of a group, with what `row` holds for each.
fn labels(by: &[By], row: &GroupRow) -> Vec<(&'static str, Option<String>)> {
    let GroupRow { netns, interface, protocol, direction, cpu, .. } = row;
    let netns = || ("netns", netns.as_ref().map(netns_label));
    let interface = || ("interface", interface.as_ref().map(interface_label));
    let labels = by.iter().flat_map(|by| match by {
        By::Netns => vec![netns()],
        // Names of interfaces repeat.
        By::Iface => vec![netns(), interface()],
        By::Protocol => vec![("protocol", protocol.as_deref().map(str::to_owned))],
        By::Direction => vec![("direction", direction.as_deref().map(str::to_owned))],
        By::Cpu => vec![("cpu", cpu.map(|cpu| cpu.to_string()))],
    });
    labels.collect()
}

/// What a recording lacks of a group is unknown.
fn key(by: &[By], row: &GroupRow) -> GroupKey {
    let labels = labels(by, row).into_iter();
    labels.map(|(label, value)| (label, value.unwrap_or_else(|| UNKNOWN.to_owned()))).collect()
}

/// The group of those that have none of their own: `word` in place of each value.
fn all(by: &[By], word: &str) -> GroupKey {
    let labels = labels(by, &GroupRow::default()).into_iter();
    labels.map(|(label, _)| (label, word.to_owned())).collect()
}
