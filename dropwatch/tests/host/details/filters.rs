//! Packet filters and traffic control.

use testbed::{
    drops::{
        filter::{Filtered, bridges_filter},
        ingress::Ingress,
        link_layer::VLAN,
        network::{CLIENT_SIDE, SERVER_SIDE},
    },
    machine::is_guest,
};

use super::{Expected, details, expect};

/// iptables' verdict is carried out by `nf_hook_slow`, on every kernel.
const IPTABLES: &[(&str, &str)] = &[("nf_hook_slow", "NETFILTER_DROP")];
/// An nft rule drops in `nft_do_chain` itself on newer kernels.
const NFT: &[(&str, &str)] =
    &[("nft_do_chain", "NETFILTER_DROP"), ("nf_hook_slow", "NETFILTER_DROP")];
/// The filters of links are inlined into the receive path.
const RECEIVE_PATH: &[(&str, &str)] = &[
    ("__netif_receive_skb_core", "TC_INGRESS"),
    ("sch_handle_ingress", "TC_INGRESS"),
    ("tcf_action_exec", "TC_INGRESS"),
];

#[test]
#[ignore = "needs root: cargo xtask test"]
fn iptables_on_the_way_in() {
    let cause = Filtered::input_by_iptables().unwrap();
    let expected = Expected { path: &["ip_local_deliver"], ..Expected::datagrams() };
    expect(&cause, IPTABLES, &expected);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn iptables_in_a_router() {
    let cause = Filtered::forward_by_iptables().unwrap();
    let expected =
        Expected { interface: CLIENT_SIDE, path: &["ip_forward"], ..Expected::datagrams() };
    expect(&cause, IPTABLES, &expected);
}

/// The bridge has already chosen the port by which the packets would leave, and they belong to it.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn iptables_in_a_bridge() {
    if !bridges_filter() && !is_guest() {
        let why = "no br_netfilter, and loading it would change the host's bridges";
        return testbed::unproved::unproved(why);
    }
    let cause = Filtered::bridge_by_iptables().unwrap();
    let expected = Expected {
        interface: SERVER_SIDE,
        path: &["br_nf_forward_ip", "br_nf_forward", "__br_forward"],
        ..Expected::datagrams()
    };
    expect(&cause, IPTABLES, &expected);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn nft_on_the_way_in() {
    let cause = Filtered::input_by_nft().unwrap();
    let expected = Expected { path: &["ip_local_deliver"], ..Expected::datagrams() };
    let recording = expect(&cause, NFT, &expected);
    assert_eq!(details(&recording, NFT).count(), 1, "one rule is one row");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn traffic_control_at_the_link() {
    let cause = Ingress::new().unwrap();
    let path = &["__netif_receive_skb_one_core", "__netif_receive_skb_core"];
    expect(&cause, RECEIVE_PATH, &Expected { path, ..Expected::datagrams() });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn traffic_control_of_a_vlan() {
    let cause = Ingress::of_vlan().unwrap();
    let path = &["__netif_receive_skb_one_core", "__netif_receive_skb_core"];
    expect(&cause, RECEIVE_PATH, &Expected { vlan: Some(VLAN), path, ..Expected::datagrams() });
}
