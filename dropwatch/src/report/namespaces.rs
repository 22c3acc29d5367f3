//! The drops of a row by network namespace: exact, with what samples show of each.

use std::{cmp::Reverse, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    facts::{Callers, Details, Interface, Netns, Pattern, is_false},
    number::{rate, share},
    precision::Precision,
};

/// The drops of a row that one network namespace has.
///
/// Of all namespaces of a row: `sum(count) == count` of the row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NamespaceDrops {
    /// As this host calls it; null where nobody there does.
    pub name: Option<String>,
    /// Inode number, as `/proc/PID/ns/net` shows it; null for the drops of which no namespace could be
    /// proved.
    pub inum: Option<u32>,
    /// Another namespace has this inode number by now, so this one is gone.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ended: bool,
    /// Which of those of the run that had the inode number, as [`Netns::number`] has it.
    #[serde(skip)]
    pub number: Option<u32>,
    pub count: u64,
    /// Drops per second.
    pub rate: f64,
    /// Part of the row's drops, as [`share`] rounds it.
    pub share: f64,
    /// Its drops at this place since the run began.
    pub total: u64,
    /// What its sampled packets were, the heaviest first; at most [`FLOWS`](super::details::FLOWS).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flows: Vec<SampledFlow>,
    /// Number of equal samples that say as much as those that `flows` rest on, as
    /// [`Details::effective_samples`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_samples: Option<f64>,
    /// What its samples have in common, for rules.
    #[serde(skip)]
    pub details: Option<Box<Details>>,
}

/// Sampled packets of one namespace that came by one interface and are of one pattern.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SampledFlow {
    pub interface: Option<Interface>,
    /// Null where their flows are not known.
    pub flow: Option<Pattern>,
    /// The path of most of them.
    pub path: Option<Callers>,
    /// Part of the namespace's sampled weight, 0 to 1.
    pub share: f64,
    pub samples: u64,
}

/// The namespaces of a row that are not listed, summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MoreNamespaces {
    pub namespaces: u64,
    pub count: u64,
}

impl NamespaceDrops {
    /// Drops of a namespace, of the `all` that the row has in an interval.
    pub fn new(netns: Option<Netns>, count: u64, total: u64, all: u64, interval: Duration) -> Self {
        let (rate, share) = (rate(count, interval), share(count, all));
        let drops = Self { count, rate, share, total, ..Self::default() };
        let Some(netns) = netns else { return drops };
        let number = Some(netns.number());
        Self { name: netns.name, inum: Some(netns.inum), ended: netns.ended, number, ..drops }
    }

    /// `None` for the drops of which no namespace could be proved.
    pub fn netns(&self) -> Option<Netns> {
        let inum = self.inum?;
        Some(Netns::numbered(self.name.clone(), inum, self.number.unwrap_or(inum), self.ended))
    }

    /// How exact the shares of `flows` are.
    pub fn precision(&self) -> Precision {
        Precision::new(self.effective_samples, self.count)
    }

    /// What tells the namespaces of a row apart. A recording has no numbers of the run, so of those that
    /// had one inode number it tells the one that lived from those that had ended.
    fn identity(&self) -> (Option<u32>, bool, Option<u32>) {
        (self.inum, self.ended, self.number)
    }
}

/// The largest first; what is unknown after what is known, and equals by number.
pub fn sort(namespaces: &mut [NamespaceDrops]) {
    namespaces.sort_by_key(|it| (Reverse(it.count), it.inum.is_none(), it.identity()));
}

/// Keeps the first `most`; those that it takes away are added to `more`.
pub fn truncate(namespaces: &mut Vec<NamespaceDrops>, most: usize, more: &mut MoreNamespaces) {
    for it in namespaces.drain(most.min(namespaces.len())..) {
        more.namespaces += 1;
        more.count = more.count.saturating_add(it.count);
    }
}

/// Adds the namespaces of a row to those of another, of `all` drops together.
pub fn merge(into: &mut Vec<NamespaceDrops>, more: &[NamespaceDrops], all: u64) {
    for it in more {
        match into.iter_mut().find(|known| known.identity() == it.identity()) {
            Some(known) => {
                known.count = known.count.saturating_add(it.count);
                known.total = known.total.saturating_add(it.total);
                known.rate += it.rate;
                // What holds for the samples of each need not hold for those of both.
                known.flows.clear();
                known.effective_samples = None;
                known.details = None;
            }
            None => into.push(it.clone()),
        }
    }
    into.iter_mut().for_each(|it| it.share = share(it.count, all));
    sort(into);
}
