//! The reason is the right one on every kernel that has reasons, and null on one that has none.

use testbed::{
    command::output,
    flood::Wire,
    netns::Netns,
    udp::{ClosedPort, Family},
};

use super::need_guest;
use crate::harness::{RECEIVE_PATH, Recording, Run, UDP4, UDP6, has_reasons};

const N: u64 = 100;

/// What `count` looks for is the reason as well; here, that no other row hides one more.
fn expect_reason(recording: &Recording, places: &[(&str, &str)], n: u64) {
    assert_eq!(recording.count(places), n, "{recording:#?}");
    for row in recording.locations() {
        assert_eq!(row.place.reason.is_some(), has_reasons(), "{row:#?}");
    }
}

#[test]
#[ignore = "needs a guest: cargo xtask vm"]
fn no_socket() {
    need_guest();
    let closed = ClosedPort::new().unwrap();
    for (family, places) in [(Family::V4, UDP4), (Family::V6, UDP6)] {
        let run = Run::start(&[]);
        closed.send(family, N).unwrap();
        expect_reason(&run.stop(), places, N);
    }
}

#[test]
#[ignore = "needs a guest: cargo xtask vm"]
fn unhandled_proto() {
    need_guest();
    let wire = Wire::new().unwrap();
    let run = Run::start(&[]);
    wire.flood(N, None).unwrap();
    expect_reason(&run.stop(), RECEIVE_PATH, N);
}

/// iptables' verdict is carried out by `nf_hook_slow`, on every kernel.
#[test]
#[ignore = "needs a guest: cargo xtask vm"]
fn netfilter_drop_by_iptables() {
    need_guest();
    let netns = Netns::new("ipt").unwrap();
    let rule = "-w -A INPUT -p udp --dport 9 -j DROP";
    output(netns.command("iptables-legacy").args(rule.split(' '))).unwrap();
    let run = Run::start(&[]);
    send_to_discard(&netns, N);
    expect_reason(&run.stop(), &[("nf_hook_slow", "NETFILTER_DROP")], N);
}

/// An nft rule drops in `nft_do_chain` itself on newer kernels, before that in `nf_hook_slow`.
#[test]
#[ignore = "needs a guest: cargo xtask vm"]
fn netfilter_drop_by_nft() {
    need_guest();
    let wire = Wire::new().unwrap();
    let run = Run::start(&[]);
    nft_drops(&wire, N);
    let places = [("nf_hook_slow", "NETFILTER_DROP"), ("nft_do_chain", "NETFILTER_DROP")];
    expect_reason(&run.stop(), &places, N);
}

/// `n` datagrams dropped by an nft rule, in the wire's receiving namespace.
pub(super) fn nft_drops(wire: &Wire, n: u64) {
    let netns = wire.receiver();
    let table = "add table ip t; add chain ip t c { type filter hook input priority 0; }; \
                 add rule ip t c udp dport 9 drop";
    output(netns.command("nft").arg(table)).unwrap();
    send_to_discard(netns, n);
}

fn send_to_discard(netns: &Netns, n: u64) {
    netns
        .enter(|| {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
            for _ in 0..n {
                // Refused on its way in, which the sender does not hear of.
                socket.send_to(b"nobody listens", "127.0.0.1:9")?;
            }
            Ok(())
        })
        .unwrap();
}
