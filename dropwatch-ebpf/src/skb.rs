//! What samples tell of a packet.
//!
//! At the moment of the tracepoint the packet is about to be freed, and fields that share storage
//! may hold something else (`skb->dev` with `dev_scratch` and `rbnode`, for one). So a pointer
//! counts only when what it leads to is proved to be what it should be; the rest stays absent.

use core::ptr;

use aya_ebpf::{helpers::generated, programs::RawTracePointContext};
use dropwatch_common::sample::{ABSENT, PACKET_BYTES, Record, TUPLE, flag};

use crate::{
    fields::{Probed, UNSET, field, offset},
    netns::{self, Place},
};

/// Ethernet and loopback: the link-layer header is an Ethernet header
/// (`ARPHRD_ETHER`, `ARPHRD_LOOPBACK`, include/uapi/linux/if_arp.h).
pub const ETHER: u16 = 1;
pub const LOOPBACK: u16 = 772;
/// Length of an Ethernet header.
pub const ETH_HLEN: u16 = 14;
/// `TCP_TIME_WAIT` and `TCP_NEW_SYN_RECV` (include/net/tcp_states.h): small sockets without a file.
const TIME_WAIT: u8 = 6;
const NEW_SYN_RECV: u8 = 12;

/// Fills in what can be told of the packet.
///
/// # Safety
/// `record` is a record of the ring buffer.
#[inline(always)]
pub unsafe fn describe(ctx: &RawTracePointContext, record: *mut Record) {
    let skb = ctx.arg(0);
    // Rare, so read in the way that every kernel takes: one code to verify.
    netns::learn();
    let place = Place::of::<Probed>(ctx);
    let socket = netns::socket::<Probed>(ctx);
    let socket_netns = netns::inum_of_socket::<Probed>(socket);
    let mut flags = 0;
    let mut link_header = false;
    // SAFETY: the caller's promise; every read of the kernel goes through `field`.
    unsafe {
        if let Some(iif) = field(skb, offset!(skb_iif)) {
            flags |= flag::IIF;
            (*record).iif = iif;
        }
        if let Some(tag) = vlan(skb) {
            flags |= flag::VLAN;
            (*record).vlan = tag;
        }
        (*record).length = field(skb, offset!(skb_len)).unwrap_or(0);
        (*record).mark = field(skb, offset!(skb_mark)).unwrap_or(0);
        (*record).protocol = u16::from_be(field(skb, offset!(skb_protocol)).unwrap_or(0));
        if place.device_netns != 0 {
            flags |= flag::DEVICE;
            (*record).netns = place.device_netns;
            (*record).ifindex = field(place.device, offset!(dev_ifindex)).unwrap_or(0);
            let kind = field::<u16>(place.device, offset!(dev_type)).unwrap_or(0);
            link_header = kind == ETHER || kind == LOOPBACK;
        }
        if socket_netns != 0 {
            if flags & flag::DEVICE == 0 {
                flags |= flag::SOCKET_NETNS;
                (*record).netns = socket_netns;
            }
            (*record).socket = inode(socket).unwrap_or(0);
        }
        if let Some(nfct) = field::<u64>(skb, offset!(skb_nfct)) {
            flags |= flag::CONNTRACK_KNOWN;
            // The lowest bits are the packet's state, not part of the pointer (NFCT_PTRMASK).
            if nfct & !7 != 0 {
                flags |= flag::CONNTRACK;
                if tuples(nfct & !7, record) {
                    flags |= flag::TUPLES;
                }
            }
        }
        if copy(skb, link_header, record).is_none() {
            flags |= flag::UNREADABLE;
        } else if (*record).network != 0 && (*record).network != ABSENT {
            flags |= flag::LINK_HEADER;
        }
        (*record).flags = flags;
    }
}

/// Copies both tuples of a connection, which is there for as long as the packet is.
///
/// # Safety
/// `record` is a record of the ring buffer.
#[inline(always)]
unsafe fn tuples(connection: u64, record: *mut Record) -> bool {
    let (original, reply) = (offset!(ct_original), offset!(ct_reply));
    if original < 0 || reply < 0 {
        return false;
    }
    // SAFETY: the caller's promise; the helper checks the source, and each has room for a tuple.
    unsafe {
        let to = (&raw mut (*record).tuples).cast::<[u8; TUPLE]>();
        let copy = |to: *mut [u8; TUPLE], offset: i32| {
            let source = ptr::without_provenance((connection + offset as u64) as usize);
            generated::bpf_probe_read_kernel(to.cast(), TUPLE as u32, source) == 0
        };
        copy(to, original) && copy(to.add(1), reply)
    }
}

/// The VLAN tag that the kernel took off the packet and keeps beside it.
#[inline(always)]
fn vlan(skb: u64) -> Option<u16> {
    // `vlan_proto`, then `vlan_tci`: only the first is in network byte order.
    let [protocol, tag] = field::<[u16; 2]>(skb, offset!(skb_vlan))?;
    let present = match field::<u8>(skb, offset!(skb_vlan_present)) {
        Some(bits) => i32::from(bits) & offset!(skb_vlan_present_mask) != 0,
        None => protocol | tag != 0,
    };
    if present { Some(tag) } else { None }
}

/// The inode number of a full socket's file.
#[inline(always)]
fn inode(sk: u64) -> Option<u64> {
    let state: u8 = field(sk, offset!(sock_state))?;
    if state == TIME_WAIT || state == NEW_SYN_RECV {
        return None;
    }
    let socket = field(sk, offset!(sock_socket))?;
    if field::<u64>(socket, offset!(socket_sk))? != sk {
        return None;
    }
    field(socket, offset!(socket_ino))
}

/// Copies the packet's first bytes: from its link-layer header on where that is an Ethernet
/// header, else from its network header on.
///
/// # Safety
/// `record` is a record of the ring buffer.
#[inline(always)]
unsafe fn copy(skb: u64, link_header: bool, record: *mut Record) -> Option<()> {
    let head: u64 = field(skb, offset!(skb_head))?;
    let tail: u32 = field(skb, offset!(skb_tail))?;
    let mac: u16 = field(skb, offset!(skb_mac_header))?;
    let network: u16 = field(skb, offset!(skb_network_header))?;
    if network == UNSET || network == 0 {
        return None;
    }
    let with_link = link_header && mac != UNSET && mac.wrapping_add(ETH_HLEN) <= network;
    let start = if with_link { mac } else { network };
    let available = tail.wrapping_sub(u32::from(start));
    // A tail before the start is a length beyond any packet's linear part.
    if head == 0 || available == 0 || available > u32::from(u16::MAX) {
        return None;
    }
    let mut len = u64::from(available);
    if len > PACKET_BYTES as u64 {
        len = PACKET_BYTES as u64;
    }
    // SAFETY: the helper checks the source; the destination has room for PACKET_BYTES, and the
    // verifier knows that `len` is no more.
    let failed = unsafe {
        let packet = (&raw mut (*record).packet).cast();
        let source = ptr::without_provenance((head + u64::from(start)) as usize);
        generated::bpf_probe_read_kernel(packet, bounded(len) as u32, source)
    };
    if failed != 0 {
        return None;
    }
    // SAFETY: the caller's promise.
    unsafe {
        (*record).packet_len = len as u16;
        (*record).network = network - start;
    }
    Some(())
}

/// Keeps the comparison that bounds a length next to its use: the compiler would otherwise move
/// it where the verifier no longer sees it.
#[inline(always)]
fn bounded(len: u64) -> u64 {
    let mut len = len;
    // SAFETY: compares and assigns one register.
    unsafe {
        core::arch::asm!(
            "if {len} <= {most} goto +1",
            "{len} = {most}",
            len = inout(reg) len,
            most = const PACKET_BYTES,
        );
    }
    len
}
