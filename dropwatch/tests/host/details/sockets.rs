//! Ports and sockets.

use testbed::{
    drops::{
        Cause,
        closed::{Closed, Transport},
        network::SERVER,
        receive_buffer::FullSocket,
    },
    tracepoint::Tracepoint,
    udp::Family,
};

use super::{Expected, N, details, expect};
use crate::harness::{UDP4, UDP6};

/// The function that hands a packet to its protocol, or the one that it was inlined into.
const DELIVERY4: &[&str] = &["ip_protocol_deliver_rcu", "ip_local_deliver_finish"];
const DELIVERY6: &[&str] = &["ip6_protocol_deliver_rcu", "ip6_input_finish", "ip6_input"];

fn closed(transport: Transport, family: Family, places: &[(&str, &str)]) {
    let cause = Closed::new(transport, family).unwrap();
    let (client, server) = cause.ends();
    let datagrams = Expected::datagrams();
    let expected = Expected {
        from: (client, datagrams.from.1),
        to: (server, datagrams.to.1),
        path: if family == Family::V4 { DELIVERY4 } else { DELIVERY6 },
        ..datagrams
    };
    let expected = match transport {
        Transport::Udp => expected,
        Transport::Tcp => Expected {
            protocol: "tcp",
            // Each connection attempt has a port of its own.
            from: (client, None),
            kind: Some("SYN"),
            ..expected
        },
    };
    expect(&cause, places, &expected);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn closed_tcp_port() {
    closed(Transport::Tcp, Family::V4, &[("tcp_v4_rcv", "NO_SOCKET")]);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn closed_tcp_port_over_ipv6() {
    closed(Transport::Tcp, Family::V6, &[("tcp_v6_rcv", "NO_SOCKET")]);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn closed_udp_port() {
    closed(Transport::Udp, Family::V4, UDP4);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn closed_udp_port_over_ipv6() {
    closed(Transport::Udp, Family::V6, UDP6);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_full_receive_buffer() {
    let places = [
        ("udp_queue_rcv_one_skb", "SOCKET_RCVBUFF"),
        ("udp_queue_rcv_skb", "SOCKET_RCVBUFF"),
        ("__udp_enqueue_schedule_skb", "SOCKET_RCVBUFF"),
    ];
    let cause = FullSocket::new().unwrap();
    let before = cause.refused().unwrap();
    let expected = Expected {
        to: (SERVER.into(), FullSocket::PORT),
        path: &["udp_unicast_rcv_skb", "udp_queue_rcv_skb", "__udp4_lib_rcv", DELIVERY4[0]],
        ..Expected::datagrams()
    };
    let recording = expect(&cause, &places, &expected);
    assert_eq!(cause.refused().unwrap() - before, N, "{}", cause.netns().name());
    for details in details(&recording, &places) {
        // The packet does not say whose socket it was for; the tracepoint does, on newer kernels.
        let owner = details.owner.as_ref().map(|owner| owner.is.pid);
        let expected = Tracepoint::read().unwrap().has_receiver().then(std::process::id);
        assert_eq!(owner, expected, "{details:#?}");
    }
}
