//! Where this kernel keeps the fields of a packet, from its own BTF.

use dropwatch_common::{
    filter::part,
    offsets::{NONE, Offsets},
    sample::TUPLE,
};

use super::btf::{Btf, BtfType};

/// Offsets as a kernel's BTF has them. A field that is not there, or has another name in this
/// kernel, is absent, and what depends on it with it.
pub fn offsets(btf: &Btf<'_>) -> Offsets {
    let [skb, dev, net, task, nsproxy, sock, socket, alloc] = btf.find_structs([
        "sk_buff",
        "net_device",
        "net",
        "task_struct",
        "nsproxy",
        "sock",
        "socket",
        "socket_alloc",
    ]);
    let of = |ty: Option<BtfType<'_>>, path| {
        let offset = ty.and_then(|ty| btf.offset_of(ty, path));
        offset.and_then(|offset| i32::try_from(offset).ok()).unwrap_or(NONE)
    };
    let socket_ino = match (of(alloc, "socket"), of(alloc, "vfs_inode.i_ino")) {
        (socket, ino) if socket >= 0 && ino > socket => ino - socket,
        _ => NONE,
    };
    let (skb_vlan_present, skb_vlan_present_mask) = skb
        .and_then(|skb| btf.bit_of(skb, "vlan_present"))
        .and_then(|bit| Some((i32::try_from(bit / 8).ok()?, 1 << (bit % 8))))
        .unwrap_or((NONE, NONE));
    Offsets {
        skb_dev: of(skb, "dev"),
        skb_sk: of(skb, "sk"),
        skb_iif: of(skb, "skb_iif"),
        skb_len: of(skb, "len"),
        skb_data_len: of(skb, "data_len"),
        skb_head: of(skb, "head"),
        skb_tail: of(skb, "tail"),
        skb_protocol: of(skb, "protocol"),
        skb_mac_header: of(skb, "mac_header"),
        skb_network_header: of(skb, "network_header"),
        skb_nfct: of(skb, "_nfct"),
        skb_mark: of(skb, "mark"),
        ct_original: NONE,
        ct_reply: NONE,
        skb_vlan: of(skb, "vlan_proto"),
        skb_vlan_present,
        skb_vlan_present_mask,
        dev_ifindex: of(dev, "ifindex"),
        dev_name: of(dev, "name"),
        dev_type: of(dev, "type"),
        dev_net: of(dev, "nd_net.net"),
        net_inum: of(net, "ns.inum"),
        // An `atomic64_t` before Linux 5.12, which a namespace had from the first question on.
        net_cookie: net
            .filter(|net| btf.is_integer(*net, "net_cookie"))
            .map_or(NONE, |net| of(Some(net), "net_cookie")),
        net_ops: of(net, "ns.ops"),
        task_nsproxy: of(task, "nsproxy"),
        task_real_parent: of(task, "real_parent"),
        nsproxy_net: of(nsproxy, "net_ns"),
        sock_net: of(sock, "__sk_common.skc_net.net"),
        sock_state: of(sock, "__sk_common.skc_state"),
        sock_socket: of(sock, "sk_socket"),
        socket_sk: of(socket, "sk"),
        socket_ino,
        // The receiving socket, since Linux 6.11 (include/trace/events/skb.h).
        arg_rx_sk: btf
            .tracepoint_arg_to("kfree_skb", "sock")
            .and_then(|index| i32::try_from(index).ok())
            .unwrap_or(NONE),
        type_kfree_skb: btf
            .tracepoint_type("kfree_skb")
            .and_then(|id| i32::try_from(id).ok())
            .unwrap_or(NONE),
    }
}

/// `offsets` with the fields of connection tracking, from the kernel's own BTF or its module's.
pub fn with_conntrack(offsets: Offsets, btf: &Btf<'_>) -> Offsets {
    let [connection, hash] = btf.find_structs(["nf_conn", "nf_conntrack_tuple_hash"]);
    let found = || {
        // Both tuples' entries lie before `status` (include/net/netfilter/nf_conntrack.h, 5.8 to 7.2).
        let first = btf.offset_of(connection?, "tuplehash")?;
        let each = btf.offset_of(connection?, "status")?.checked_sub(first)? / 2;
        let original = first + btf.offset_of(hash?, "tuple")?;
        let both = (i32::try_from(original).ok()?, i32::try_from(original + each).ok()?);
        (each as usize >= TUPLE).then_some(both)
    };
    match found() {
        Some((ct_original, ct_reply)) => Offsets { ct_original, ct_reply, ..offsets },
        None => offsets,
    }
}

/// The first field that is missing of those that lead to `parts` of a packet (bits of
/// [`dropwatch_common::filter::part`]).
pub fn missing(offsets: &Offsets, parts: u32) -> Option<&'static str> {
    let namespace = [
        (offsets.skb_dev, "sk_buff.dev"),
        (offsets.dev_net, "net_device.nd_net"),
        (offsets.net_inum, "net.ns.inum"),
        (offsets.net_ops, "net.ns.ops"),
        (offsets.task_nsproxy, "task_struct.nsproxy"),
        (offsets.nsproxy_net, "nsproxy.net_ns"),
    ];
    let interface =
        [(offsets.dev_ifindex, "net_device.ifindex"), (offsets.dev_name, "net_device.name")];
    let headers = [
        (offsets.skb_protocol, "sk_buff.protocol"),
        (offsets.skb_head, "sk_buff.head"),
        (offsets.skb_tail, "sk_buff.tail"),
        (offsets.skb_network_header, "sk_buff.network_header"),
    ];
    let frame = [
        (offsets.skb_data_len, "sk_buff.data_len"),
        (offsets.skb_mac_header, "sk_buff.mac_header"),
        (offsets.skb_vlan, "sk_buff.vlan_proto"),
    ];
    let needed = [
        (part::NETNS | part::IFACE, namespace.as_slice()),
        (part::IFACE, &interface),
        (part::HEADERS | part::EXPRESSION, &headers),
        (part::EXPRESSION, &frame),
    ];
    let fields = needed.iter().filter(|(of, _)| parts & of != 0).flat_map(|(_, fields)| *fields);
    fields.filter(|(offset, _)| *offset == NONE).map(|(_, name)| *name).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_is_missed() {
        let known = Offsets { skb_protocol: 1, skb_head: 2, skb_tail: 3, ..Offsets::NONE };
        assert_eq!(missing(&known, 0), None);
        assert_eq!(missing(&known, part::HEADERS), Some("sk_buff.network_header"));
        assert_eq!(missing(&known, part::NETNS), Some("sk_buff.dev"));
        let known = Offsets { skb_network_header: 4, ..known };
        assert_eq!(missing(&known, part::HEADERS), None);
        assert_eq!(missing(&known, part::HEADERS | part::IFACE), Some("sk_buff.dev"));
    }
}
