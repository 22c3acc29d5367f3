//! Where the fields of a packet are, on kernels that moved them.

use std::fs;

use dropwatch::kernel::{
    btf::Btf,
    offsets::{missing, offsets},
};
use dropwatch_common::{
    filter::part,
    offsets::{NONE, Offsets},
};

use crate::{VMLINUX, folder, hosts};

fn of(host: &str) -> Offsets {
    let data = fs::read(folder(host).join("sys/kernel/btf/vmlinux")).unwrap();
    offsets(&Btf::parse(&data).unwrap())
}

#[test]
fn a_device_s_namespace_moved_and_is_found() {
    for (host, nd_net) in [("5.10", 1264), ("6.1", 1272), ("6.12", 280), ("6.18", 264)] {
        assert_eq!(of(host).dev_net, nd_net, "{host}");
    }
}

#[test]
fn fields_in_anonymous_unions_are_found_on_every_kernel() {
    // The one host without symbols describes its reasons alone.
    for host in hosts::with("proc/kallsyms") {
        let Offsets { skb_dev, skb_sk, skb_iif, skb_len, skb_head, skb_tail, .. } = of(&host);
        let all = [skb_dev, skb_sk, skb_iif, skb_len, skb_head, skb_tail];
        assert!(all.iter().all(|&offset| offset > 0), "{host}: {all:?}");
        let Offsets { skb_mac_header, skb_network_header, skb_nfct, sock_net, .. } = of(&host);
        let all = [skb_mac_header, skb_network_header, skb_nfct, sock_net];
        assert!(all.iter().all(|&offset| offset > 0), "{host}: {all:?}");
        assert_eq!(missing(&of(&host), part::HEADERS), None, "{host}");
    }
}

#[test]
fn the_receiving_socket_is_an_argument_since_it_has_been_one() {
    let found = hosts::with(VMLINUX).into_iter().map(|host| (of(&host).arg_rx_sk, host));
    let with: Vec<_> = found.filter(|(argument, _)| *argument != NONE).collect();
    assert_eq!(with, ["6.12", "6.18", "7.2"].map(|host| (3, host.to_owned())));
}

#[test]
fn what_a_kernel_does_not_describe_is_absent() {
    // The excerpts leave out the structures of tasks.
    assert_eq!(of("6.12").nsproxy_net, NONE);
    let without_tail = Offsets { skb_tail: NONE, ..of("6.12") };
    assert_eq!(missing(&without_tail, part::HEADERS), Some("sk_buff.tail"));
}
