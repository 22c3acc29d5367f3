//! Rows by namespace: a rule is about what one namespace has dropped.

use std::{borrow::Cow, collections::BTreeMap, ops::Range};

use super::facts::Scope;
use crate::report::{
    facts::{Details, Fact},
    model::{Location, Report},
    namespaces::NamespaceDrops,
};

/// Rows of a report by the namespace whose drops they are.
pub struct Apart<'a> {
    /// Those of one namespace stand side by side; all together are what is about the whole host.
    rows: Cow<'a, [Location]>,
    /// Where the rows of each namespace are. Empty where the kernel side cannot tell namespaces apart.
    scopes: BTreeMap<Scope, Range<usize>>,
}

impl<'a> Apart<'a> {
    /// A row for each namespace of a row of `report`, with that namespace's count and what its samples
    /// have in common; and an empty scope for each of the `others` that has none.
    pub fn new(report: &'a Report, others: impl Iterator<Item = u32>) -> Self {
        let mut parts: BTreeMap<Scope, Vec<Location>> = BTreeMap::new();
        for row in &report.locations {
            for netns in &row.namespaces {
                let scope = netns.number.or(netns.inum).map_or(Scope::Unknown, Scope::Netns);
                parts.entry(scope).or_default().push(part(row, netns));
            }
        }
        if parts.is_empty() {
            return Self { rows: Cow::Borrowed(&report.locations), scopes: BTreeMap::new() };
        }
        others.for_each(|number| _ = parts.entry(Scope::Netns(number)).or_default());
        let mut rows = Vec::new();
        let mut scopes = BTreeMap::new();
        for (scope, part) in parts {
            let begin = rows.len();
            rows.extend(part);
            scopes.insert(scope, begin..rows.len());
        }
        Self { rows: Cow::Owned(rows), scopes }
    }

    /// The scopes in which a rule is to decide: each namespace by itself, unless it is about the
    /// `host`, or namespaces cannot be told apart.
    pub fn scopes(&self, host: bool) -> impl Iterator<Item = (Scope, &[Location])> {
        let host = host || self.scopes.is_empty();
        let whole = host.then_some((Scope::Host, &*self.rows));
        let each = self.scopes.iter().filter(move |_| !host);
        let rows = |range: &Range<usize>| self.rows.get(range.clone()).unwrap_or_default();
        whole.into_iter().chain(each.map(move |(scope, range)| (*scope, rows(range))))
    }
}

fn part(row: &Location, of: &NamespaceDrops) -> Location {
    let netns = of.netns().map(|is| Fact { is, share: 1.0 });
    let details = of.details.as_deref().cloned().unwrap_or_default();
    Location {
        place: row.place.clone(),
        count: of.count,
        rate: of.rate,
        total: of.total,
        details: Some(Details { netns, ..details }),
        stacks: Vec::new(),
        namespaces: Vec::new(),
        ..*row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_namespace_has_a_row_with_its_count_and_its_own_samples() {
        let samples = |samples| Some(Box::new(Details { samples, ..Details::default() }));
        let of = |inum, count, details| NamespaceDrops {
            inum,
            count,
            details,
            ..NamespaceDrops::default()
        };
        let namespaces =
            vec![of(Some(7), 60, samples(3)), of(Some(8), 39, None), of(None, 1, None)];
        let row = Location { count: 100, namespaces, ..Location::default() };
        let report = Report { locations: vec![row], ..Report::default() };
        let apart = Apart::new(&report, [8, 9].into_iter());
        let shown = |row: &Location| {
            let details = row.details.clone().unwrap_or_default();
            (row.count, details.netns.map(|fact| fact.is.inum), details.samples)
        };
        let rows = |host| {
            let scopes = apart.scopes(host);
            scopes.map(|(of, rows)| (of, rows.iter().map(shown).collect())).collect::<Vec<_>>()
        };
        let (seven, eight, unknown) = ((60, Some(7), 3), (39, Some(8), 0), (1, None, 0));
        let each = [
            (Scope::Netns(7), vec![seven]),
            (Scope::Netns(8), vec![eight]),
            (Scope::Netns(9), vec![]),
            (Scope::Unknown, vec![unknown]),
        ];
        assert_eq!(rows(false), each);
        assert_eq!(rows(true), [(Scope::Host, vec![seven, eight, unknown])]);
    }

    #[test]
    fn rows_without_namespaces_are_the_hosts() {
        let locations = vec![Location { count: 5, ..Location::default() }];
        let report = Report { locations: locations.clone(), ..Report::default() };
        let apart = Apart::new(&report, [8].into_iter());
        let scopes: Vec<_> = apart.scopes(false).collect();
        assert_eq!(scopes, [(Scope::Host, locations.as_slice())]);
    }
}
