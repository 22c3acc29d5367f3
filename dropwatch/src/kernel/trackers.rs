//! Which namespaces are looked into at each report, however quiet: what connection tracking does to packets
//! shows as drops elsewhere, and its counters have to be of the same interval.

use std::collections::BTreeSet;

use crate::report::evidence::{HostEvidence, NetnsEvidence};

/// Most namespaces that are looked into for that: each costs some tenths of a millisecond.
const MOST: usize = 16;

/// Those, by number in the run, that track the most connections; and those that would as soon as one comes.
pub(super) fn of(now: &HostEvidence) -> BTreeSet<u32> {
    let entries = |namespace: &NetnsEvidence| namespace.conntrack.map_or(0, |stats| stats.entries);
    let candidates = now.namespaces.iter().filter(|(_, it)| it.has_filter || entries(it) > 0);
    let mut all: Vec<(u64, u32)> =
        candidates.map(|(number, namespace)| (entries(namespace), *number)).collect();
    all.sort_unstable_by(|a, b| b.cmp(a));
    all.into_iter().take(MOST).map(|(_, number)| number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::conntrack::ConntrackStats;

    #[test]
    fn those_that_track_the_most_come_first_and_those_without_rules_never() {
        let namespace = |entries, has_filter| NetnsEvidence {
            conntrack: Some(ConntrackStats { entries, ..ConntrackStats::default() }),
            has_filter,
            ..NetnsEvidence::default()
        };
        let many = (100..120).map(|number| (number, namespace(0, true)));
        let namespaces = many.chain([(1, namespace(7, false)), (2, namespace(0, false))]).collect();
        let trackers = of(&HostEvidence { namespaces, ..HostEvidence::default() });
        assert_eq!(trackers.len(), MOST);
        assert!(trackers.contains(&1) && !trackers.contains(&2), "{trackers:?}");
    }
}
