//! Multicast of the link that nobody here has joined.
//!
//! Every station tells all others on its link of its groups (MLD, IGMP) and of its addresses (duplicate
//! address detection), and many look for services there (mDNS, LLMNR). What comes to an interface
//! whose host has not joined the group is freed where other packets are, too: the samples decide.
//! Nobody here is missing such a packet, and no router may forward it.

use super::knowledge::{CORE, NOT_SPECIFIED, function_name};
use crate::report::{
    model::{Location, Report},
    place::Place,
};

/// Where multicast is freed for which there is no group, and why as the kernel has it:
/// `ip6_mc_input` (net/ipv6/ip6_input.c) has looked for the group; the route lookups of both families
/// (`ip_route_input_rcu`, net/ipv4/route.c; `ip6_pkt_discard`, net/ipv6/route.c) find none.
const PLACES: [(&str, &str); 4] = [
    ("ip6_mc_input", NOT_SPECIFIED),
    ("ip_rcv_finish_core", NOT_SPECIFIED),
    ("ip6_pkt_discard", "IP_INNOROUTES"),
    ("ip6_pkt_drop", "IP_INNOROUTES"),
];
/// Part of a row's drops that must have been looked at one by one. The kernel side samples each of
/// the first drops at a place in an interval, and ever fewer of a flood, among which one in a thousand
/// could be another's. So a flood stays as it is. It need not be all: a drop can be counted just after
/// the samples were taken.
const LOOKED_AT: f64 = 0.9;

/// Marks such rows of `report` as harmless; `to_link` says how many of a row's samples went to a
/// multicast group of the link. Returns how many drops that are.
pub fn settle(report: &mut Report, to_link: &[(Place, u64)]) -> u64 {
    let mut drops: u64 = 0;
    for row in report.locations.iter_mut().filter(|row| !row.benign && is_of_kind(row)) {
        let known = to_link.iter().find(|(place, _)| *place == row.place);
        let samples = row.details.as_ref().map_or(0, |details| details.samples);
        let all = known.is_some_and(|(_, to_link)| *to_link == samples);
        if all && samples as f64 >= row.count as f64 * LOOKED_AT {
            row.benign = true;
            drops = drops.saturating_add(row.count);
        }
    }
    drops
}

fn is_of_kind(row: &Location) -> bool {
    let Place { symbol, reason, subsystem, .. } = &row.place;
    let function = symbol.as_deref().map(function_name);
    // Kernels that give no reason free martians at the same places.
    let is_at = |(at, why): &(&str, &str)| function == Some(at) && reason.as_deref() == Some(why);
    subsystem.as_deref().unwrap_or(CORE) == CORE && PLACES.iter().any(is_at)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            knowledge::{self, Benign},
            rules::testing::TestHost,
        },
        *,
    };

    /// Whether so many drops, of which so many were sampled, are harmless if so many of the samples
    /// went to a group of the link.
    fn settled(function: &str, reason: &str, count: u64, samples: u64, to_link: u64) -> bool {
        let mut report = TestHost::new().row(count, function, reason).report();
        let row = &mut report.locations[0];
        row.details.as_mut().unwrap().samples = samples;
        let place = row.place.clone();
        let drops = settle(&mut report, &[(place, to_link)]);
        let row = &report.locations[0];
        assert_eq!(drops, if row.benign { row.count } else { 0 });
        row.benign
    }

    #[test]
    fn the_table_says_of_each_place_when_it_is_harmless() {
        let table = knowledge::table().expect("table");
        for (function, reason) in PLACES {
            let entry = table.lookup(Some(function), CORE, reason).expect("known");
            assert!(entry.at.iter().any(|at| at == function), "{function}");
            assert!(matches!(&entry.benign, Benign::When(when) if when.contains("multicast")));
        }
    }

    #[test]
    fn multicast_of_the_link_that_nobody_joined_is_harmless() {
        for (function, reason) in PLACES {
            assert!(settled(function, reason, 9, 9, 9), "{function}");
            assert!(settled(function, reason, 10, 9, 9), "one was counted after the samples");
        }
    }

    #[test]
    fn all_else_stays_a_drop() {
        for (function, reason) in PLACES {
            assert!(!settled(function, reason, 9, 9, 8), "one went elsewhere");
            assert!(!settled(function, reason, 9, 9, 0));
            assert!(!settled(function, reason, 3, 1, 1), "two were not looked at");
            assert!(!settled(function, reason, 5000, 90, 90), "a flood");
            assert!(!settled(function, "", 9, 9, 9), "no reasons, so martians are here, too");
        }
        assert!(!settled("ip6_mc_input", "IP_INNOROUTES", 9, 9, 9));
        assert!(!settled("ip_rcv_finish_core", "IP_RPFILTER", 9, 9, 9));
        assert!(!settled("nf_hook_slow", NOT_SPECIFIED, 9, 9, 9));
    }

    #[test]
    fn without_samples_it_stays_a_drop() {
        let mut report = TestHost::new().row(9, "ip6_mc_input", NOT_SPECIFIED).unsampled().report();
        let place = report.locations[0].place.clone();
        assert_eq!(settle(&mut report, &[(place, 0)]), 0);
        assert_eq!(settle(&mut report, &[]), 0);
    }
}
