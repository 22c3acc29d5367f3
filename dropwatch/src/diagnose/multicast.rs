//! Broadcast and multicast that nobody here wants.
//!
//! Every station tells all others on its link of its groups (MLD, IGMP) and of its addresses (duplicate
//! address detection), and many look for services there (mDNS, LLMNR). What comes to an interface
//! whose host has not joined the group is freed where other packets are, too: the samples decide.
//! Nobody here is missing such a packet. Nor is anybody missing the copy that a host gets of what it
//! sends to all itself, where none of its own programs reads it.

use std::net::IpAddr;

use super::knowledge::{CORE, NOT_SPECIFIED, function_name};
use crate::report::{
    details::Ends,
    evidence::{Addresses, HostEvidence},
    model::{Location, Report},
    place::Place,
};

/// A function and the reason that the kernel gives there.
type At = (&'static str, &'static str);

/// Where multicast is freed for which there is no group: the route lookups of both families
/// (`ip_route_input_rcu`, net/ipv4/route.c; `ip6_pkt_discard`, net/ipv6/route.c) find none.
const NO_GROUP: [At; 3] = [
    ("ip_rcv_finish_core", NOT_SPECIFIED),
    ("ip6_pkt_discard", "IP_INNOROUTES"),
    ("ip6_pkt_drop", "IP_INNOROUTES"),
];
/// Where a datagram to all is freed that no socket takes (`__udp4_lib_mcast_deliver`, net/ipv4/udp.c,
/// and its twin in net/ipv6/udp.c, which compilers make a part of their callers), and what has no
/// handler, or is not to be answered.
const NO_READER: [At; 7] = [
    ("__udp4_lib_rcv", NOT_SPECIFIED),
    ("udp_rcv", NOT_SPECIFIED),
    ("__udp6_lib_rcv", NOT_SPECIFIED),
    ("udpv6_rcv", NOT_SPECIFIED),
    ("icmp_rcv", "INVALID_PROTO"),
    ("ip_protocol_deliver_rcu", "IP_NOPROTO"),
    ("ip6_protocol_deliver_rcu", "IP_NOPROTO"),
];
/// Part of a row's drops that must have been looked at one by one. The kernel side samples each of
/// the first drops at a place in an interval, and ever fewer of a flood, among which one in a thousand
/// could be another's. So a flood stays as it is. It need not be all: a drop can be counted just after
/// the samples were taken.
const LOOKED_AT: f64 = 0.9;

/// Marks such rows of `report` as harmless; `ends` are those of each row's samples, and `now` is the
/// host at the end of the report, where it is looked at. Returns how many drops that are.
pub fn settle(report: &mut Report, ends: &[(Place, Vec<Ends>)], now: Option<&HostEvidence>) -> u64 {
    let mut drops: u64 = 0;
    for row in report.locations.iter_mut().filter(|row| !row.benign) {
        let Some((_, ends)) = ends.iter().find(|(place, _)| *place == row.place) else { continue };
        let unwanted = |ends: &&Ends| {
            let addresses = ends.netns.and_then(|it| now?.namespaces.get(&it)?.addresses.as_ref());
            // Kernels that give no reason free martians where there is no group.
            (is_at(row, &NO_GROUP, "") && has_no_group(ends, addresses))
                || (is_at(row, &NO_READER, NOT_SPECIFIED)
                    && addresses.is_some_and(|it| is_own(ends, it)))
        };
        let count = |sum: u64, ends: &Ends| sum.saturating_add(ends.samples);
        let of_kind = ends.iter().filter(unwanted).fold(0, count);
        let samples = row.details.as_ref().map_or(0, |details| details.samples);
        if of_kind == samples && samples as f64 >= row.count as f64 * LOOKED_AT {
            row.benign = true;
            drops = drops.saturating_add(row.count);
        }
    }
    drops
}

/// Whether it went to a group of the link, or to one that nobody has joined where it was dropped.
fn has_no_group(ends: &Ends, addresses: Option<&Addresses>) -> bool {
    let is_not_joined = |to| addresses.is_some_and(|addresses| addresses.is_not_joined(to));
    ends.dst.is_some_and(|to| is_of_link(to) || is_not_joined(to))
}

/// Whether it is the copy that a host gets of what it sends to all. What comes from elsewhere with such
/// a source, the route lookup has refused.
fn is_own(ends: &Ends, addresses: &Addresses) -> bool {
    ends.dst.is_some_and(|to| addresses.is_to_many(to))
        && ends.src.is_some_and(|from| addresses.own.contains(&from))
}

/// Whether it is a multicast group that no router forwards: 224.0.0.0/24 (RFC 5771) or ff02::/16 (RFC
/// 4291).
fn is_of_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
        IpAddr::V6(address) => address.segments()[0] == 0xff02,
    }
}

/// Whether it is one of `places`; a kernel that gives no reasons gives `without`.
fn is_at(row: &Location, places: &[At], without: &str) -> bool {
    let Place { symbol, reason, subsystem, .. } = &row.place;
    let function = symbol.as_deref().map(function_name);
    let reason = reason.as_deref().unwrap_or(without);
    let is_at = |(at, why): &At| function == Some(at) && reason == *why;
    subsystem.as_deref().unwrap_or(CORE) == CORE && places.iter().any(is_at)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            knowledge::{self, Benign},
            rules::testing::{GW, TestHost},
        },
        *,
    };

    fn ends(src: &str, dst: &str, samples: u64) -> Ends {
        let address = |text: &str| text.parse().ok();
        Ends { netns: Some(GW), src: address(src), dst: address(dst), samples }
    }

    /// Whether so many drops, of which `samples` were sampled, are harmless with such samples.
    fn settled((function, reason): At, count: u64, samples: u64, ends: &[Ends]) -> bool {
        let mut host = TestHost::new().row(count, function, reason);
        let set = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        host.now.namespaces.get_mut(&GW).unwrap().addresses = Some(Addresses {
            own: set(&["198.18.7.1", "fe80::1"]),
            broadcast: set(&["198.18.7.255"]),
            groups: Some(set(&["224.0.0.1", "239.9.9.9"])),
            ..Addresses::default()
        });
        let now = host.now.clone();
        let mut report = host.report();
        let row = &mut report.locations[0];
        row.details.as_mut().unwrap().samples = samples;
        let place = row.place.clone();
        let drops = settle(&mut report, &[(place, ends.to_vec())], Some(&now));
        let row = &report.locations[0];
        assert_eq!(drops, if row.benign { row.count } else { 0 });
        row.benign
    }

    #[test]
    fn the_table_says_of_each_place_when_it_is_harmless() {
        let table = knowledge::table().expect("table");
        for (function, reason) in [&NO_GROUP[..], &NO_READER].concat() {
            let entry = table.lookup(Some(function), CORE, reason).expect("known");
            assert!(entry.at.iter().chain(&entry.seen_at).any(|at| at == function), "{function}");
            let says = |when: &String| when.contains("multicast") || when.contains("broadcast");
            assert!(matches!(&entry.benign, Benign::When(when) if says(when)), "{function}");
        }
    }

    #[test]
    fn multicast_that_nobody_joined_is_harmless() {
        for at in NO_GROUP {
            let to_link = |samples| ends("198.18.7.2", "224.0.0.251", samples);
            assert!(settled(at, 9, 9, &[to_link(9)]), "{at:?}");
            assert!(settled(at, 10, 9, &[to_link(9)]), "one was counted after the samples");
            let igmp = ends("198.18.7.2", "224.0.0.22", 1);
            assert!(settled(at, 9, 9, &[ends("198.18.7.2", "239.1.2.3", 8), igmp]), "{at:?}");
        }
    }

    #[test]
    fn what_the_host_tells_all_by_itself_is_harmless_without_a_reader() {
        for at in NO_READER {
            for to in ["255.255.255.255", "198.18.7.255", "239.9.9.9"] {
                assert!(settled(at, 7, 7, &[ends("198.18.7.1", to, 7)]), "{at:?} {to}");
                assert!(!settled(at, 7, 7, &[ends("198.18.7.2", to, 7)]), "another's: {at:?}");
                assert!(!settled(at, 7, 7, &[ends("", to, 7)]), "whose is not known");
            }
            assert!(settled(at, 7, 7, &[ends("fe80::1", "ff02::1", 7)]), "{at:?}");
            assert!(!settled(at, 7, 7, &[ends("198.18.7.1", "198.18.7.1", 7)]), "to one alone");
        }
        let own = ends("198.18.7.1", "239.9.9.9", 7);
        assert!(settled(("__udp4_lib_rcv", ""), 7, 7, &[own]), "on kernels without reasons, too");
        assert!(!settled(("tcp_v4_rcv", "NO_SOCKET"), 7, 7, &[own]));
    }

    #[test]
    fn all_else_stays_a_drop() {
        let to_link = |samples| ends("198.18.7.2", "224.0.0.251", samples);
        for at in NO_GROUP {
            let elsewhere = ends("198.18.7.2", "198.18.7.1", 1);
            assert!(!settled(at, 9, 9, &[to_link(8), elsewhere]), "one went elsewhere");
            assert!(!settled(at, 9, 9, &[ends("198.18.7.2", "239.9.9.9", 9)]), "it is joined");
            assert!(!settled(at, 9, 9, &[]));
            assert!(!settled(at, 3, 1, &[to_link(1)]), "two were not looked at");
            assert!(!settled(at, 5000, 90, &[to_link(90)]), "a flood");
            assert!(
                !settled((at.0, ""), 9, 9, &[to_link(9)]),
                "no reasons, so martians are here, too"
            );
        }
        assert!(!settled(("ip_rcv_finish_core", "IP_RPFILTER"), 9, 9, &[to_link(9)]));
        assert!(!settled(("nf_hook_slow", NOT_SPECIFIED), 9, 9, &[to_link(9)]));
    }

    #[test]
    fn without_samples_or_a_look_at_the_host_it_stays_a_drop() {
        let host = TestHost::new().row(9, "ip_rcv_finish_core", NOT_SPECIFIED);
        let mut now = host.now.clone();
        let mut report = host.report();
        report.locations[0].details.as_mut().unwrap().samples = 9;
        let place = report.locations[0].place.clone();
        let wide = vec![(place.clone(), vec![ends("198.18.7.2", "239.1.2.3", 9)])];
        assert_eq!(settle(&mut report, &wide, None), 0, "nobody looked");
        now.namespaces.get_mut(&GW).unwrap().addresses = Some(Addresses::default());
        assert_eq!(settle(&mut report, &wide, Some(&now)), 0, "it forwards multicast");
        report.locations[0].details = None;
        assert_eq!(settle(&mut report, &[], None), 0);
    }
}
