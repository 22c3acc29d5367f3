//! Every rule, on real drops: found where its cause is, gone after its own command, and silent
//! where nothing is wrong.

use std::collections::BTreeSet;

use testbed::{
    drops::{
        Cause,
        closed::{Closed, Transport},
    },
    netns::Netns,
    scenario::rules::{self, Outcome},
    udp::Family,
    unproved::unproved,
};

use crate::harness::{Recording, Run, binary};

/// `cargo xtask scenario NAME`.
fn expect_as_told(name: &str) {
    let scenario = rules::list().find(|scenario| scenario.name == name).unwrap();
    let mut printed = Vec::new();
    let ran = scenario.run(&binary(), &mut printed);
    // Through the test's own output, which is shown where it fails.
    println!("{}", String::from_utf8_lossy(&printed));
    if let Outcome::Unproved(why) = ran.outcome.unwrap() {
        unproved(&why);
    }
}

/// A test for each scenario, and one that none is missing.
macro_rules! scenarios {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            #[ignore = "needs root: cargo xtask test"]
            fn $test() {
                expect_as_told($name);
            }
        )*

        #[test]
        fn every_scenario_is_a_test() {
            let all: Vec<&str> = rules::list().map(|scenario| scenario.name).collect();
            assert_eq!(all, [$($name),*]);
        }
    };
}

scenarios! {
    conntrack_full: "conntrack-full",
    conntrack_quiet: "conntrack-quiet",
    conntrack_collisions: "conntrack-collisions",
    iptables_nearly_full: "iptables-nearly-full",
    iptables_rule: "iptables-rule",
    iptables_forward: "iptables-forward",
    nft_rule: "nft-rule",
    socket_filter: "socket-filter",
    slow_link: "slow-link",
    tc_ingress: "tc-ingress",
    xdp: "xdp",
    iptables_policy: "iptables-policy",
    iptables_reject: "iptables-reject",
    iptables_raw: "iptables-raw",
    iptables_chain: "iptables-chain",
    ip6tables_rule: "ip6tables-rule",
    iptables_bridge: "iptables-bridge",
    nft_counter: "nft-counter",
    nft_set: "nft-set",
    nft_map: "nft-map",
    nft_policy: "nft-policy",
    nft_inet6: "nft-inet6",
    nft_bridge: "nft-bridge",
    nft_netdev: "nft-netdev",
    two_tenants: "two-tenants",
    conntrack_and_rule: "conntrack-and-rule",
    ended_namespace: "ended-namespace",
    udp_buffer: "udp-buffer",
    udp_memory: "udp-memory",
    accept_queue: "accept-queue",
    syn_queue: "syn-queue",
    tcp_memory: "tcp-memory",
    tcp_unread: "tcp-unread",
    tcp_read: "tcp-read",
    tcp_backlog: "tcp-backlog",
    cpu_backlog: "cpu-backlog",
    closed_udp_port: "closed-udp-port",
    closed_tcp_port: "closed-tcp-port",
    closed_udp6_port: "closed-udp6-port",
    closed_tcp6_port: "closed-tcp6-port",
    healthy_load: "healthy-load",
    forwarding: "forwarding",
    reverse_path: "reverse-path",
    no_route: "no-route",
    neighbour_failed: "neighbour-failed",
    neighbour_queue: "neighbour-queue",
    neighbour_table: "neighbour-table",
    unhandled: "unhandled",
    mtu: "mtu",
    checksum: "checksum",
    fragments_lost: "fragments-lost",
    fragment_memory: "fragment-memory",
    routing_loop: "routing-loop",
    martian: "martian",
    blackhole: "blackhole",
    prohibit: "prohibit",
    unreachable: "unreachable",
    throw: "throw",
    routing_rule: "routing-rule",
    blackhole_marked: "blackhole-marked",
    blackhole_unmarked: "blackhole-unmarked",
    blackhole_beside: "blackhole-beside",
    blackhole6: "blackhole6",
    prohibit6: "prohibit6",
    forwarding6: "forwarding6",
    moved_address: "moved-address",
    duplicate_address: "duplicate-address",
    ipv6_off: "ipv6-off",
    udp_loopback: "udp-loopback",
    udp_multihomed: "udp-multihomed",
    multicast_elsewhere: "multicast-elsewhere",
    multicast_joined: "multicast-joined",
    no_carrier: "no-carrier",
    no_carrier_arp: "no-carrier-arp",
    no_carrier_route: "no-carrier-route",
    pair_healthy: "pair-healthy",
    narrow_end: "narrow-end",
    narrow_port: "narrow-port",
    bridge_healthy: "bridge-healthy",
    bridge_hairpin: "bridge-hairpin",
    own_service: "own-service",
    bridge_hairpin_on: "bridge-hairpin-on",
    bridge_one_port: "bridge-one-port",
    bridge_isolated: "bridge-isolated",
    bridge_disabled: "bridge-disabled",
    bridge_vlan: "bridge-vlan",
    bridge_vlan_both: "bridge-vlan-both",
    vxlan_no_remote: "vxlan-no-remote",
    vxlan_remote: "vxlan-remote",
    redirect_down: "redirect-down",
    redirect: "redirect",
    tap_full: "tap-full",
    tap_read: "tap-read",
    group_egress: "group-egress",
    group_free: "group-free",
    nat_ports: "nat-ports",
    nat_ports_xtables: "nat-ports-xtables",
    nat_ports_nft: "nat-ports-nft",
    nat_one_port: "nat-one-port",
    nat_one_port_nft: "nat-one-port-nft",
    nat_ports_enough: "nat-ports-enough",
    nat_ports_enough_nft: "nat-ports-enough-nft",
    conntrack_stale: "conntrack-stale",
    conntrack_invalid: "conntrack-invalid",
    nfqueue_unheard: "nfqueue-unheard",
    nfqueue_bypassed: "nfqueue-bypassed",
    nfqueue_full: "nfqueue-full",
    ipsec_in: "ipsec-in",
    ipsec_optional: "ipsec-optional",
    ipsec_out: "ipsec-out",
}

/// Names of the namespaces in which something was found.
fn named(recording: &Recording) -> BTreeSet<&str> {
    let findings = recording.reports.iter().flat_map(|report| &report.findings);
    // Nothing here is wrong with the whole host, so each says where.
    let netns = findings.map(|finding| {
        let name = finding.netns.as_ref().and_then(|netns| netns.name.as_deref());
        name.unwrap_or_else(|| panic!("{finding:#?}"))
    });
    netns.collect()
}

/// A tenant at rest has nothing to find, whatever others of its host are shown.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn nothing_is_found_where_nothing_happens() {
    let rest = Netns::new("rest").unwrap();
    let whole_host = Run::start(&["-i", "300ms", "-c", "4"]);
    let within = Run::within(&[&rest], &["-i", "300ms", "-c", "4"]);
    let (whole_host, within) = (whole_host.finish(), within.finish());
    assert!(!named(&whole_host).contains(rest.name()), "{whole_host:#?}");
    assert!(named(&within).is_empty(), "{within:#?}");
}

/// Others are refused at closed ports in the same interval, as their own counters say. No drop of
/// theirs is in a report of one namespace, so nothing in it is laid at their door.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn findings_of_one_namespace_are_about_that_one() {
    let closed = || Closed::new(Transport::Udp, Family::V4).unwrap();
    let (one, other) = (closed(), closed());
    let run = Run::within(&[one.netns()], &["-i", "1h"]);
    one.send(50).unwrap();
    other.send(50).unwrap();
    let recording = run.stop();
    assert_eq!(named(&recording), [one.netns().name()].into(), "{recording:#?}");
    let run = Run::start(&["-i", "1h", "--netns", &format!("!{}", one.netns().name())]);
    one.send(50).unwrap();
    other.send(50).unwrap();
    let recording = run.stop();
    let named = named(&recording);
    assert!(named.contains(other.netns().name()), "{recording:#?}");
    assert!(!named.contains(one.netns().name()), "{recording:#?}");
}
