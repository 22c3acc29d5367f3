//! Which findings carry the object that they name, and why the others carry none.

use std::collections::{BTreeMap, BTreeSet};

use super::{kinds, reach, testing::TestHost};
use crate::report::object::Kind::{self, *};

/// What a kind of finding carries.
enum Carries {
    /// Objects of these kinds, where samples and answers show one alone.
    One(&'static [Kind]),
    /// None, since this is why.
    Nothing(&'static str),
}

use Carries::{Nothing, One};

/// Every kind of finding.
const CARRIED: &[(&str, Carries)] = &[
    ("conntrack_table_full", Nothing("the table is the namespace's only one")),
    ("conntrack_insert_failed", One(&[IptablesRule, NftRule])),
    (
        "netfilter_rule",
        One(&[IptablesRule, IptablesPolicy, ArptablesRule, ArptablesPolicy, NftRule, NftPolicy]),
    ),
    ("program", One(&[TcFilter, XdpProgram, CgroupProgram])),
    ("redirect_down", One(&[TcFilter])),
    ("no_carrier", One(&[Device])),
    ("narrow_end", One(&[Device])),
    ("bridge_port", One(&[BridgePort])),
    ("bridge_vlan", One(&[BridgePort])),
    ("tunnel_without_remote", One(&[Tunnel])),
    ("tap_full", One(&[Device])),
    ("address_elsewhere", One(&[Device])),
    ("address_unusable", One(&[Device])),
    ("forwarding_disabled", Nothing("a setting is off, which the evidence names")),
    ("qdisc_drop", One(&[Qdisc])),
    ("nic_no_room", One(&[Device])),
    ("nic_damaged", One(&[Device])),
    ("udp_receive_buffer", One(&[Socket])),
    ("udp_memory", Nothing("the memory is that of all sockets")),
    ("accept_queue_full", One(&[Socket])),
    ("syn_queue_full", Nothing("handshakes have no socket, and the counter is of all listeners")),
    ("tcp_receive_memory", Nothing("the counters are of all sockets")),
    ("tcp_backlog", One(&[Socket])),
    ("unread_connection", One(&[Socket])),
    ("cpu_backlog", Nothing("the queues are those of CPUs")),
    ("closed_port", One(&[Socket])),
    ("socket_filter", One(&[Socket])),
    ("reverse_path_filter", One(&[Device])),
    ("no_route", Nothing("the route is missing")),
    ("route_refuses", One(&[Route, RoutingRule])),
    ("neighbour_failed", One(&[Neighbour])),
    ("neighbour_queue_full", Nothing("the counter is of all neighbours")),
    ("neighbour_table_full", Nothing("the table is the host's only one")),
    ("unhandled_protocol", One(&[Device])),
    ("mtu", Nothing("samples show where packets came in, not by which link they would leave")),
    ("checksum", Nothing("the counter is of all devices")),
    ("fragments_lost", Nothing("what is lost did not come")),
    ("fragment_memory_full", Nothing("the memory is that of all fragments")),
    ("ttl_expired", Nothing("the loop is elsewhere")),
    ("martian", One(&[Device])),
    ("multicast_elsewhere", One(&[Device])),
    ("ipv6_off", One(&[Device])),
    ("packet_queue_full", One(&[PacketQueue])),
    ("queue_without_listener", One(&[PacketQueue])),
    ("ipsec", One(&[IpsecPolicy])),
    ("conntrack_stale", One(&[ConntrackEntry])),
    ("conntrack_invalid", One(&[ConntrackEntry])),
];

/// Kinds of findings that carry an object, and those that carry none.
const COUNTED: (usize, usize) = (33, 14);

/// Findings whose object no trouble of `reach.rs` has: their own tests look at it.
const ELSEWHERE: [&str; 10] = [
    "address_elsewhere",
    "address_unusable",
    "closed_port",
    "conntrack_insert_failed",
    "ipsec",
    "neighbour_failed",
    "netfilter_rule",
    "socket_filter",
    "tcp_backlog",
    "udp_receive_buffer",
];

#[test]
fn every_finding_names_an_object_or_says_why_not() {
    let listed: Vec<&str> = CARRIED.iter().map(|(rule, _)| *rule).collect();
    let made: Vec<&str> = kinds().map(|kind| kind.name).collect();
    assert_eq!(BTreeSet::from_iter(&listed), BTreeSet::from_iter(&made));
    assert_eq!(listed.len(), made.len(), "each once");
    let with = CARRIED.iter().filter(|(_, carries)| matches!(carries, One(_))).count();
    assert_eq!((with, CARRIED.len() - with), COUNTED);
    for (rule, carries) in CARRIED {
        match carries {
            One(kinds) => assert!(!kinds.is_empty(), "{rule}"),
            Nothing(why) => assert!(!why.is_empty(), "{rule}"),
        }
    }
}

#[test]
fn what_a_finding_carries_is_listed_and_carried() {
    let table: BTreeMap<&str, &Carries> = CARRIED.iter().map(|(rule, it)| (*rule, it)).collect();
    let mut carrying = BTreeSet::new();
    for host in reach::troubles(true) {
        for finding in reach::all(&host) {
            let Some(object) = &finding.object else { continue };
            let One(kinds) = table[finding.rule.as_str()] else { panic!("{finding:?}") };
            assert!(kinds.iter().any(|kind| kind.name() == object.kind), "{finding:?}");
            assert!(!object.name.is_empty(), "{finding:?}");
            carrying.insert(finding.rule.clone());
        }
    }
    let named = CARRIED.iter().filter(|(_, carries)| matches!(carries, One(_)));
    let unseen: BTreeSet<&str> =
        named.map(|(rule, _)| *rule).filter(|rule| !carrying.contains(*rule)).collect();
    assert_eq!(unseen, BTreeSet::from(ELSEWHERE), "add the object, or its trouble");
}

/// What a title may say only where the host has answered, and what ends so in one that rests on less.
const CLAIMS: [&str; 12] = [
    "nobody listens at TCP",
    "nobody listens at UDP",
    "nobody listens at queue",
    "has no route",
    "had no route",
    "route of type",
    "routing rule",
    "and does now",
    "which does not have it",
    "still sends",
    "has no carrier",
    "is switched off",
];
/// Objects of which a host alone can tell.
const ANSWERED: [Kind; 9] = [
    Route,
    RoutingRule,
    Neighbour,
    ConntrackEntry,
    BridgePort,
    Tunnel,
    TcFilter,
    XdpProgram,
    CgroupProgram,
];

/// Too much may be asked in a report, or the host be too slow: then what was dropped is all that is known.
#[test]
fn what_no_host_has_answered_is_not_claimed() {
    let said = |host: &TestHost| -> (BTreeSet<&str>, BTreeSet<&str>) {
        let found = reach::all(host);
        let says = |claim: &&str| found.iter().any(|finding| finding.title.contains(claim));
        let names = |kind: &&str| {
            found.iter().filter_map(|it| it.object.as_ref()).any(|it| it.kind == *kind)
        };
        let claims = CLAIMS.iter().copied().filter(says).collect();
        (claims, ANSWERED.iter().map(|kind| kind.name()).filter(names).collect())
    };
    let (mut claims, mut names) = (BTreeSet::new(), BTreeSet::new());
    for host in reach::troubles(true) {
        let (says, kinds) = said(&host);
        claims.extend(says);
        names.extend(kinds);
        let silent = host.silent();
        assert_eq!(said(&silent), Default::default(), "{:#?}", reach::all(&silent));
    }
    assert!(claims.len() >= 5 && names.len() >= 5, "each can be said: {claims:?} {names:?}");
}

#[test]
fn every_kind_of_object_is_some_findings() {
    let carried = CARRIED.iter().flat_map(|(_, carries)| match carries {
        One(kinds) => *kinds,
        Nothing(_) => &[],
    });
    assert_eq!(BTreeSet::from_iter(carried), BTreeSet::from_iter(Kind::ALL));
}
