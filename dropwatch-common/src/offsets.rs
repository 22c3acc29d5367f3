//! Where the running kernel keeps the fields that samples are read from.
//!
//! Rust cannot emit relocations against the kernel's types for the eBPF target, so user space takes
//! the offsets from the kernel's own BTF and hands them over as one read-only global.

/// The field, or its structure, does not exist in this kernel.
pub const NONE: i32 = -1;

/// Byte offsets of fields, [`NONE`] where there is no such field. Structure and field are in the
/// names: `skb_dev` is `dev` in `struct sk_buff`.
#[cfg_attr(feature = "user", derive(zerocopy::Immutable, zerocopy::IntoBytes))]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    pub skb_dev: i32,
    pub skb_sk: i32,
    pub skb_iif: i32,
    pub skb_len: i32,
    pub skb_data_len: i32,
    pub skb_head: i32,
    pub skb_tail: i32,
    pub skb_protocol: i32,
    pub skb_mac_header: i32,
    pub skb_network_header: i32,
    pub skb_nfct: i32,
    pub skb_mark: i32,
    /// From a `struct nf_conn` to the tuple of its first packet, and to that of the answers
    /// (`tuplehash[].tuple`).
    pub ct_original: i32,
    pub ct_reply: i32,
    /// `vlan_proto`, with `vlan_tci` behind it (`vlan_all`).
    pub skb_vlan: i32,
    /// The byte that holds the bit `vlan_present`, and that bit in it; [`NONE`] from Linux 6.2 on,
    /// where a tag that is not zero is one.
    pub skb_vlan_present: i32,
    pub skb_vlan_present_mask: i32,
    pub dev_ifindex: i32,
    pub dev_name: i32,
    /// `net_device.type`: `ARPHRD_*`.
    pub dev_type: i32,
    /// `net_device.nd_net`, a `possible_net_t`.
    pub dev_net: i32,
    /// `net.ns.inum`
    pub net_inum: i32,
    /// `net.net_cookie`, where each namespace has one from its beginning on.
    pub net_cookie: i32,
    /// `net.ns.ops`
    pub net_ops: i32,
    pub task_nsproxy: i32,
    pub task_real_parent: i32,
    pub nsproxy_net: i32,
    /// `sock.__sk_common.skc_net`
    pub sock_net: i32,
    /// `sock.__sk_common.skc_state`
    pub sock_state: i32,
    /// `sock.sk_socket`
    pub sock_socket: i32,
    /// `socket.sk`
    pub socket_sk: i32,
    /// From a `struct socket` to the number of its inode: both lie in `struct socket_alloc`.
    pub socket_ino: i32,
    /// Which argument of the tracepoint is the socket that was to receive the packet (Linux 6.11);
    /// an index, not an offset.
    pub arg_rx_sk: i32,
    /// The number of the type `btf_trace_kfree_skb`, by which a program with typed arguments is
    /// attached; a number, not an offset.
    pub type_kfree_skb: i32,
}

impl Offsets {
    /// Nothing is known: samples then have the time, the CPU, the location and the call path.
    pub const NONE: Self = Self {
        skb_dev: NONE,
        skb_sk: NONE,
        skb_iif: NONE,
        skb_len: NONE,
        skb_data_len: NONE,
        skb_head: NONE,
        skb_tail: NONE,
        skb_protocol: NONE,
        skb_mac_header: NONE,
        skb_network_header: NONE,
        skb_nfct: NONE,
        skb_mark: NONE,
        ct_original: NONE,
        ct_reply: NONE,
        skb_vlan: NONE,
        skb_vlan_present: NONE,
        skb_vlan_present_mask: NONE,
        dev_ifindex: NONE,
        dev_name: NONE,
        dev_type: NONE,
        dev_net: NONE,
        net_inum: NONE,
        net_cookie: NONE,
        net_ops: NONE,
        task_nsproxy: NONE,
        task_real_parent: NONE,
        nsproxy_net: NONE,
        sock_net: NONE,
        sock_state: NONE,
        sock_socket: NONE,
        socket_sk: NONE,
        socket_ino: NONE,
        arg_rx_sk: NONE,
        type_kfree_skb: NONE,
    };
}

const _: () = assert!(size_of::<Offsets>() == 34 * 4 && align_of::<Offsets>() == 4);
