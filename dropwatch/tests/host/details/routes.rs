//! Routes and neighbours.

use testbed::drops::{
    PORT,
    neighbour::SilentNeighbour,
    network::CLIENT_SIDE,
    routing::{ReversePath, TimeToLive},
};

use super::{Expected, N, details, expect, expect_part, recording};
use crate::harness::Recording;

/// The kernel gives a neighbour up in a timer. Freed in the protocol's error handler, or in what
/// called that, where it ends in a jump.
const FAILED: &[(&str, &str)] = &[
    ("arp_error_report", "NEIGH_FAILED"),
    ("ipv4_link_failure", "NEIGH_FAILED"),
    ("neigh_invalidate", "NEIGH_FAILED"),
];

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_source_without_a_way_back() {
    let cause = ReversePath::new().unwrap();
    let datagrams = Expected::datagrams();
    let expected = Expected {
        from: (ReversePath::SOURCE.into(), datagrams.from.1),
        path: &["ip_rcv", "ip_rcv_finish", "__netif_receive_skb_one_core"],
        ..datagrams
    };
    let places = [("ip_rcv_finish_core", "IP_RPFILTER"), ("ip_rcv_finish", "IP_RPFILTER")];
    expect(&cause, &places, &expected);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_time_to_live_that_runs_out() {
    let cause = TimeToLive::new().unwrap();
    let expected = Expected {
        interface: CLIENT_SIDE,
        path: &["ip_rcv_finish", "__netif_receive_skb_one_core"],
        ..Expected::datagrams()
    };
    expect(&cause, &[("ip_forward", "IP_INHDR")], &expected);
}

fn unanswered() -> Expected<'static> {
    Expected {
        outgoing: true,
        to: (SilentNeighbour::ADDRESS.into(), PORT),
        path: &["neigh_timer_handler", "neigh_invalidate"],
        ..Expected::datagrams()
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_neighbour_that_does_not_answer() {
    let cause = SilentNeighbour::new().unwrap();
    // A timer drops them, whatever task it interrupts. One that is just ending has no namespace to
    // compare with, and then the packets' own is unknown, and whether they are within it.
    let proved = |recording: &Recording| recording.count(FAILED) == N;
    let recordings = || (0..3).map(|_| recording(&cause));
    let recording = recordings().find(proved).expect("ending tasks three times in a row");
    expect_part(&recording, N, &cause, FAILED, &unanswered());
    for details in details(&recording, FAILED) {
        let owner = details.owner.as_ref().expect("the sender's socket");
        assert_eq!(owner.is.pid, std::process::id());
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_queue_for_a_neighbour_that_is_full() {
    let cause = SilentNeighbour::with_short_queue().unwrap();
    let recording = recording(&cause);
    let full = [("__neigh_event_send", "NEIGH_QUEUEFULL")];
    let path = &["neigh_resolve_output", "ip_finish_output2"];
    expect_part(&recording, N - 1, &cause, &full, &Expected { path, ..unanswered() });
    // The last one waits in vain.
    expect_part(&recording, 1, &cause, FAILED, &unanswered());
}
