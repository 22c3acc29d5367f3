//! VLANs and bridges.

use testbed::{
    drops::{
        link_layer::{GroupSource, Tagged, has_vlan_links},
        network::CLIENT_SIDE,
    },
    machine::is_guest,
};

use super::{Expected, expect};
use crate::harness::{UDP4, is_at};

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_vlan_that_the_receiver_lacks() {
    let cause = Tagged::of_strange_vlan().unwrap();
    let expected = Expected {
        // The kernel has thrown the tag away by then, as nobody's.
        vlan: None,
        path: &["ip_rcv", "__netif_receive_skb_one_core"],
        ..Expected::datagrams()
    };
    let places = [("ip_rcv_core", "OTHERHOST"), ("ip_rcv", "OTHERHOST")];
    let recording = expect(&cause, &places, &expected);
    // They were for this host, so a gate must count them.
    let mut rows = recording.locations().filter(|location| is_at(location, &places));
    assert!(rows.all(|row| !row.benign), "{recording:#?}");
}

/// Packets of a VLAN belong to its link.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_closed_port_on_a_vlan() {
    if !is_guest() && !has_vlan_links().unwrap() {
        return testbed::unproved::unproved("this kernel has no VLAN links (8021q)");
    }
    let cause = Tagged::to_closed_port().unwrap();
    let expected = Expected {
        interface: Tagged::LINK,
        path: &["ip_protocol_deliver_rcu", "ip_local_deliver_finish"],
        ..Expected::datagrams()
    };
    expect(&cause, UDP4, &expected);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_source_that_a_bridge_refuses() {
    let cause = GroupSource::new().unwrap();
    // Bridges gave no reason before Linux 6.14.
    let places = [("br_handle_frame", "MAC_INVALID_SOURCE"), ("br_handle_frame", "NOT_SPECIFIED")];
    let expected = Expected {
        interface: CLIENT_SIDE,
        path: &["__netif_receive_skb_core", "__netif_receive_skb_one_core"],
        ..Expected::datagrams()
    };
    expect(&cause, &places, &expected);
}
