//! VLANs and bridges.

use testbed::drops::{
    link_layer::{GroupSource, Tagged, VLAN},
    network::CLIENT_SIDE,
};

use super::{Expected, expect};

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_vlan_that_the_receiver_lacks() {
    let cause = Tagged::of_strange_vlan().unwrap();
    let expected = Expected {
        vlan: Some(VLAN),
        path: &["ip_rcv", "__netif_receive_skb_one_core"],
        ..Expected::datagrams()
    };
    expect(&cause, &[("ip_rcv_core", "OTHERHOST"), ("ip_rcv", "OTHERHOST")], &expected);
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
