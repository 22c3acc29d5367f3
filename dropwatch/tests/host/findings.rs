//! Every rule, on real drops: found where its cause is, gone after its own command, and silent
//! where nothing is wrong.

use testbed::scenario::rules;

use crate::harness::{Run, binary};

/// `cargo xtask scenario NAME`.
fn expect_as_told(name: &str) {
    let scenario = rules::list().find(|scenario| scenario.name == name).unwrap();
    let mut told = Vec::new();
    let result = scenario.run(&binary(), &mut told);
    // Through the test's own output, which is shown where it fails.
    println!("{}", String::from_utf8_lossy(&told));
    result.unwrap();
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
    udp_buffer: "udp-buffer",
    udp_memory: "udp-memory",
    accept_queue: "accept-queue",
    syn_queue: "syn-queue",
    tcp_memory: "tcp-memory",
    tcp_backlog: "tcp-backlog",
    cpu_backlog: "cpu-backlog",
    closed_udp_port: "closed-udp-port",
    closed_tcp_port: "closed-tcp-port",
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
}

/// A host at rest has nothing to find.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn nothing_is_found_where_nothing_happens() {
    let recording = Run::start(&["-i", "300ms", "-c", "4"]).finish();
    let found: Vec<_> = recording.reports.iter().flat_map(|report| &report.findings).collect();
    assert!(found.is_empty(), "{found:#?}");
}
