//! Rows of a report that a rule picked, and what they have in common.

use std::net::IpAddr;

use super::NetnsFacts;
use crate::report::{
    facts::{Details, Field, Netns, Owner},
    flow::Flow,
    model::Location,
    question::Packet,
};

/// Rows of a report.
#[derive(Clone, Debug)]
pub struct Rows<'a>(pub Vec<&'a Location>);

impl<'a> Rows<'a> {
    /// Sum of their drops.
    pub fn count(&self) -> u64 {
        self.0.iter().fold(0, |sum: u64, row| sum.saturating_add(row.count))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the rows of which most sampled packets were dropped in the namespace with this number in the run.
    pub fn of_netns(&self, number: u32) -> Self {
        let inside = |row: &&&Location| netns(row).is_some_and(|netns| netns.number() == number);
        Self(self.0.iter().filter(inside).copied().collect())
    }

    /// Rows by the namespace that samples name for most of their drops; last, those for which they
    /// name none.
    pub fn by_netns(&self) -> Vec<(Option<&'a Netns>, Self)> {
        let known = self.namespaces().into_iter().map(|is| (Some(is), self.of_netns(is.number())));
        let unknown = Self(self.0.iter().filter(|row| netns(row).is_none()).copied().collect());
        known.chain(Some((None, unknown)).filter(|(_, rows)| !rows.is_empty())).collect()
    }

    /// What the sampled packets of the largest row have in common, among the rows with known flows.
    pub fn flow(&self) -> Option<&'a Flow> {
        let shown =
            |row: &&'a Location| Some((row.count, &row.details.as_ref()?.flow.as_ref()?.flow));
        self.0.iter().filter_map(shown).max_by_key(|(count, _)| *count).map(|(_, flow)| flow)
    }

    /// The sampled packet of the largest row that shows where one was going: what varies among the
    /// packets of that row is left out. With `came_in`, by the device that samples name.
    pub fn packet(&self, came_in: bool) -> Option<Packet> {
        let shown = |row: &&'a Location| {
            let details = row.details.as_ref()?;
            let flow = &details.flow.as_ref()?.flow;
            let device = details.interface.as_ref().map(|fact| fact.is.index);
            let iif = if came_in { device } else { None };
            Some((row.count, Packet { to: flow.dst?, from: flow.src, iif, mark: 0 }))
        };
        let shown = self.0.iter().filter_map(shown);
        shown.max_by_key(|(count, _)| *count).map(|(_, packet)| packet)
    }

    /// The namespaces that samples name for most of the drops of a row, each once.
    pub fn namespaces(&self) -> Vec<&'a Netns> {
        let mut found: Vec<&Netns> = self.0.iter().filter_map(|row| netns(row)).collect();
        found.sort_by_key(|netns| netns.number());
        found.dedup_by_key(|netns| netns.number());
        found
    }

    /// Returns the rows of which most sampled packets were dropped in `namespace`.
    pub fn within(&self, namespace: NetnsFacts<'_>) -> Self {
        namespace.netns().map_or_else(|| Self(Vec::new()), |netns| self.of_netns(netns.number()))
    }

    /// The port that more than half of their packets were for, as far as samples show.
    pub fn port(&self) -> Option<u16> {
        self.most(|details| {
            let pattern = details.flow.as_ref().filter(|flow| !flow.varies(Field::DstPort))?;
            Some((pattern.flow.dst_port?, pattern.share))
        })
    }

    /// The address that more than half of their packets came from.
    pub fn sender(&self) -> Option<IpAddr> {
        self.most(|details| {
            let pattern = details.flow.as_ref().filter(|flow| !flow.varies(Field::Src))?;
            Some((pattern.flow.src?, pattern.share))
        })
    }

    /// The process that holds the socket of more than half of their packets.
    pub fn owner(&self) -> Option<&'a Owner> {
        self.most(|details| details.owner.as_ref().map(|fact| (&fact.is, fact.share)))
    }

    /// The value that `of` gives for more than half of the drops, as samples share them out.
    fn most<T: PartialEq>(&self, of: impl Fn(&'a Details) -> Option<(T, f64)>) -> Option<T> {
        let mut sums: Vec<(T, f64)> = Vec::new();
        for row in &self.0 {
            let Some((what, share)) = row.details.as_ref().and_then(&of) else { continue };
            let drops = share * row.count as f64;
            match sums.iter_mut().find(|(known, _)| *known == what) {
                Some((_, sum)) => *sum += drops,
                None => sums.push((what, drops)),
            }
        }
        let half = self.count() as f64 / 2.0;
        sums.into_iter().find(|(_, drops)| *drops > half).map(|(what, _)| what)
    }

    /// Interfaces that the samples name, with the drops of their rows, the most first.
    pub fn interfaces(&self) -> Vec<(&'a str, u64)> {
        let mut found: Vec<(&str, u64)> = Vec::new();
        for row in &self.0 {
            let details = row.details.as_ref();
            let name = details.and_then(|d| d.interface.as_ref()?.is.name.as_deref());
            let Some(name) = name else { continue };
            match found.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count = count.saturating_add(row.count),
                None => found.push((name, row.count)),
            }
        }
        found.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        found
    }
}

/// The namespace of most of a row's sampled drops.
fn netns(row: &Location) -> Option<&Netns> {
    row.details.as_ref()?.netns.as_ref().map(|fact| &fact.is)
}
