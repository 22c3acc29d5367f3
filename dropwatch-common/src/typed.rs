//! Loads of the kernel's fields through pointers whose types its verifier knows: one instruction
//! each, where a helper that reads memory is a call.
//!
//! Rust cannot emit relocations against the kernel's types for the eBPF target. So the kernel side
//! has a number in the place of each offset, and the loader writes this kernel's offset there. A field
//! has [`BYTES`] numbers, one for each of its first bytes: a longer one takes several loads.

use crate::offsets::{NONE, Offsets};

/// The numbers from this one on stand for offsets. Nothing that the program has itself is that large.
pub const FIRST: u16 = 0x7000;
/// Numbers of one field.
pub const BYTES: u16 = 16;

macro_rules! fields {
    ($($name:ident = $number:literal: $offset:ident;)*) => {
        $(pub const $name: u16 = FIRST + $number * BYTES;)*

        /// The first number of each field.
        pub const NUMBERS: &[u16] = &[$($name),*];

        /// The offset that such a number stands for, [`NONE`] where this kernel has no such field;
        /// `None` for another number.
        pub const fn offset(number: u16, offsets: &Offsets) -> Option<i32> {
            let byte = number % BYTES;
            let begins = match number - byte {
                $($name => offsets.$offset,)*
                _ => return None,
            };
            Some(if begins == NONE { NONE } else { begins + byte as i32 })
        }
    };
}

fields! {
    SKB_DEV = 0: skb_dev;
    SKB_SK = 1: skb_sk;
    DEV_NET = 2: dev_net;
    SOCK_NET = 3: sock_net;
    NET_OPS = 4: net_ops;
    NET_INUM = 5: net_inum;
    SKB_PROTOCOL = 6: skb_protocol;
    SKB_HEAD = 7: skb_head;
    SKB_TAIL = 8: skb_tail;
    SKB_NETWORK_HEADER = 9: skb_network_header;
    DEV_IFINDEX = 10: dev_ifindex;
    DEV_NAME = 11: dev_name;
    SKB_DATA_LEN = 12: skb_data_len;
    SKB_MAC_HEADER = 13: skb_mac_header;
    SKB_VLAN = 14: skb_vlan;
    SKB_VLAN_PRESENT = 15: skb_vlan_present;
    DEV_TYPE = 16: dev_type;
    NET_COOKIE = 17: net_cookie;
    SKB_LEN = 18: skb_len;
    SKB_MARK = 19: skb_mark;
    SKB_IIF = 20: skb_iif;
    SKB_PKT_TYPE = 21: skb_pkt_type;
    SKB_DATA = 22: skb_data;
    SOCK_FAMILY = 23: sock_family;
    DEV_ADDR = 24: dev_addr;
}

/// Whether this kernel tells enough for a namespace to be proved by such loads.
pub const fn tells_namespaces(offsets: &Offsets) -> bool {
    offsets.type_kfree_skb != NONE
        && offsets.skb_dev != NONE
        && offsets.dev_net != NONE
        && offsets.net_ops != NONE
        && offsets.net_inum != NONE
        && offsets.task_nsproxy != NONE
        && offsets.nsproxy_net != NONE
}
