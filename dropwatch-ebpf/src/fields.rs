//! Fields of the kernel's structures, and the two ways to read them.
//!
//! A program that is loaded with typed arguments loads them ([`Typed`]): one instruction each, through
//! pointers that the verifier follows by their types. Where a kernel does not take it so, a helper
//! reads them ([`Probed`]), which is a call each. Neither can fault: what cannot be read is zero, and so
//! is a field that the kernel lacks. Either may read rubbish through a stale pointer, so whoever
//! follows one proves what it leads to.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use dropwatch_common::{offsets::Offsets, typed};

/// Set by the loader from the running kernel's BTF.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::NONE;

/// Offset of one field. Volatile, because the loader replaces the value after compilation; the
/// verifier then knows it as a constant.
macro_rules! offset {
    ($field:ident) => {
        crate::fields::fixed(&raw const crate::fields::OFFSETS.$field)
    };
}
pub(crate) use offset;

#[inline(always)]
pub fn fixed(offset: *const i32) -> i32 {
    // SAFETY: only ever given a field of the static above.
    unsafe { offset.read_volatile() }
}

/// A header that was never set (`skb_mac_header_was_set`, include/linux/skbuff.h).
pub const UNSET: u16 = u16::MAX;

/// Always zero, which the verifier does not know: user space could write it.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.zero")]
static mut ZERO: u32 = 0;

/// A value that the verifier does not know. Before Linux 6.8 it forgets on some ways that a branch was
/// decided by a constant, takes another way for the same, and drops code that does run. What it never
/// knew it cannot forget.
#[inline(always)]
pub fn opaque(value: u32) -> u32 {
    // SAFETY: one aligned word, which nobody writes. Exclusive or, which leaves no bit known.
    value ^ unsafe { (&raw const ZERO).read_volatile() }
}

/// Reads a field at an offset from a kernel pointer; `None` where there is no such field, no
/// pointer, or nothing readable.
#[inline(always)]
pub fn field<T>(base: u64, offset: i32) -> Option<T> {
    if offset < 0 || base == 0 {
        return None;
    }
    // SAFETY: the helper checks the address itself and fails where it cannot be read.
    unsafe { bpf_probe_read_kernel((base + offset as u64) as *const T).ok() }
}

/// Loads so many bits at a number of a field, where the loader writes its offset.
macro_rules! load {
    ($bits:literal, $base:expr, $number:expr) => {{
        let value: u64;
        // SAFETY: one load, from a pointer that the verifier follows by its type.
        unsafe {
            core::arch::asm!(
                concat!("{value} = *(u", $bits, " *)({base} + {number})"),
                value = out(reg) value,
                base = in(reg) $base,
                number = const $number,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        value
    }};
}

macro_rules! fields {
    ($($(#[$about:meta])* $name:ident: $bits:literal $kind:ty, $number:ident, $offset:ident $(+ $more:literal)?;)*) => {
        /// How fields are read. Each function takes a pointer to the structure in its name, which is
        /// not zero.
        pub trait Fields {
            $($(#[$about])* fn $name(base: u64) -> $kind;)*

            /// `net_device.name`, 16 bytes in the order of memory.
            fn dev_name(device: u64) -> [u32; 4];
        }

        impl Fields for Typed {
            $(
                #[inline(always)]
                fn $name(base: u64) -> $kind {
                    load!($bits, base, typed::$number $(+ $more)?) as $kind
                }
            )*

            #[inline(always)]
            fn dev_name(device: u64) -> [u32; 4] {
                [
                    load!("32", device, typed::DEV_NAME) as u32,
                    load!("32", device, typed::DEV_NAME + 4) as u32,
                    load!("32", device, typed::DEV_NAME + 8) as u32,
                    load!("32", device, typed::DEV_NAME + 12) as u32,
                ]
            }
        }

        impl Fields for Probed {
            $(
                #[inline(always)]
                fn $name(base: u64) -> $kind {
                    field(base, offset!($offset) $(+ $more)?).unwrap_or(0)
                }
            )*

            #[inline(always)]
            fn dev_name(device: u64) -> [u32; 4] {
                field(device, offset!(dev_name)).unwrap_or([0; 4])
            }
        }
    };
}

/// By loads, in a program whose arguments have types.
pub struct Typed;

/// By a helper.
pub struct Probed;

fields! {
    skb_dev: "64" u64, SKB_DEV, skb_dev;
    skb_sk: "64" u64, SKB_SK, skb_sk;
    skb_head: "64" u64, SKB_HEAD, skb_head;
    /// From `skb->head`, as `sk_buff_data_t` is on 64 bits.
    skb_tail: "32" u32, SKB_TAIL, skb_tail;
    /// In network byte order.
    skb_protocol: "16" u16, SKB_PROTOCOL, skb_protocol;
    skb_network_header: "16" u16, SKB_NETWORK_HEADER, skb_network_header;
    dev_net: "64" u64, DEV_NET, dev_net;
    dev_ifindex: "32" u32, DEV_IFINDEX, dev_ifindex;
    sock_net: "64" u64, SOCK_NET, sock_net;
    net_ops: "64" u64, NET_OPS, net_ops;
    net_inum: "32" u32, NET_INUM, net_inum;
    net_cookie: "64" u64, NET_COOKIE, net_cookie;
    skb_data_len: "32" u32, SKB_DATA_LEN, skb_data_len;
    skb_mac_header: "16" u16, SKB_MAC_HEADER, skb_mac_header;
    /// Both fields of the VLAN tag as one.
    vlan_all: "32" u32, SKB_VLAN, skb_vlan;
    /// Its ethertype, in network byte order.
    vlan_kind: "16" u16, SKB_VLAN, skb_vlan;
    vlan_tag: "16" u16, SKB_VLAN, skb_vlan + 2;
    skb_vlan_present: "8" u8, SKB_VLAN_PRESENT, skb_vlan_present;
    dev_type: "16" u16, DEV_TYPE, dev_type;
    dev_addr: "64" u64, DEV_ADDR, dev_addr;
    /// Bytes of the packet from `skb->data` on.
    skb_len: "32" u32, SKB_LEN, skb_len;
    skb_mark: "32" u32, SKB_MARK, skb_mark;
    skb_iif: "32" u32, SKB_IIF, skb_iif;
    /// With others' bits above the lowest three.
    skb_pkt_type: "8" u8, SKB_PKT_TYPE, skb_pkt_type;
    skb_data: "64" u64, SKB_DATA, skb_data;
    sock_family: "16" u16, SOCK_FAMILY, sock_family;
}
