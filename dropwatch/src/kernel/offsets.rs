//! Where this kernel keeps the fields of a packet, from its own BTF.

use dropwatch_common::offsets::{NONE, Offsets};

use super::{
    HostRoot,
    btf::{Btf, Type},
};

/// Offsets of the running kernel.
///
/// # Errors
/// Why there is no BTF to read them from.
pub fn read(root: &HostRoot) -> Result<Offsets, String> {
    let data = root.vmlinux_btf().map_err(|error| format!("no BTF: {error}"))?;
    Ok(offsets(&Btf::parse(&data).map_err(|error| error.to_string())?))
}

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
    let of = |ty: Option<Type<'_>>, path| {
        let offset = ty.and_then(|ty| btf.offset_of(ty, path));
        offset.and_then(|offset| i32::try_from(offset).ok()).unwrap_or(NONE)
    };
    let socket_ino = match (of(alloc, "socket"), of(alloc, "vfs_inode.i_ino")) {
        (socket, ino) if socket >= 0 && ino > socket => ino - socket,
        _ => NONE,
    };
    Offsets {
        skb_dev: of(skb, "dev"),
        skb_sk: of(skb, "sk"),
        skb_iif: of(skb, "skb_iif"),
        skb_len: of(skb, "len"),
        skb_head: of(skb, "head"),
        skb_tail: of(skb, "tail"),
        skb_protocol: of(skb, "protocol"),
        skb_mac_header: of(skb, "mac_header"),
        skb_network_header: of(skb, "network_header"),
        skb_nfct: of(skb, "_nfct"),
        dev_ifindex: of(dev, "ifindex"),
        dev_type: of(dev, "type"),
        dev_net: of(dev, "nd_net.net"),
        net_inum: of(net, "ns.inum"),
        net_ops: of(net, "ns.ops"),
        task_nsproxy: of(task, "nsproxy"),
        nsproxy_net: of(nsproxy, "net_ns"),
        sock_net: of(sock, "__sk_common.skc_net.net"),
        sock_state: of(sock, "__sk_common.skc_state"),
        sock_socket: of(sock, "sk_socket"),
        socket_sk: of(socket, "sk"),
        socket_ino,
    }
}
