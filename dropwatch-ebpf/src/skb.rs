//! Every raw read of a packet.
//!
//! At the moment of the tracepoint the packet is about to be freed, and fields that share storage
//! may hold something else (`skb->dev` with `dev_scratch` and `rbnode`, for one). So a pointer
//! counts only when what it leads to is proved to be what it should be; the rest stays absent.

use core::ptr;

use aya_ebpf::{
    helpers::{bpf_get_current_task, bpf_probe_read_kernel, generated},
    programs::RawTracePointContext,
};
use dropwatch_common::{
    offsets::Offsets,
    sample::{ABSENT, PACKET_BYTES, Record, TUPLE, flag},
};

/// Set by the loader from the running kernel's BTF.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::NONE;

/// Offset of one field. Volatile, because the loader replaces the value after compilation; the
/// verifier then knows it as a constant.
macro_rules! offset {
    ($field:ident) => {
        crate::skb::fixed(&raw const crate::skb::OFFSETS.$field)
    };
}
pub(crate) use offset;

#[inline(always)]
pub fn fixed(offset: *const i32) -> i32 {
    // SAFETY: only ever given a field of the static above.
    unsafe { offset.read_volatile() }
}

/// Ethernet and loopback: the link-layer header is an Ethernet header
/// (`ARPHRD_ETHER`, `ARPHRD_LOOPBACK`, include/uapi/linux/if_arp.h).
const ETHER: u16 = 1;
const LOOPBACK: u16 = 772;
/// Length of an Ethernet header.
const ETH_HLEN: u16 = 14;
/// A header that was never set (`skb_mac_header_was_set`, include/linux/skbuff.h).
pub const UNSET: u16 = u16::MAX;
/// `TCP_TIME_WAIT` and `TCP_NEW_SYN_RECV` (include/net/tcp_states.h): small sockets without a file.
const TIME_WAIT: u8 = 6;
const NEW_SYN_RECV: u8 = 12;

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

/// Fills in what can be told of the packet.
///
/// # Safety
/// `record` is a record of the ring buffer.
#[inline(always)]
pub unsafe fn describe(ctx: &RawTracePointContext, record: *mut Record) {
    let skb = ctx.arg(0);
    let place = Place::of(ctx);
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
        (*record).protocol = u16::from_be(field(skb, offset!(skb_protocol)).unwrap_or(0));
        if place.device_netns != 0 {
            flags |= flag::DEVICE;
            (*record).netns = place.device_netns;
            (*record).ifindex = field(place.device, offset!(dev_ifindex)).unwrap_or(0);
            let kind = field::<u16>(place.device, offset!(dev_type)).unwrap_or(0);
            link_header = kind == ETHER || kind == LOOPBACK;
        }
        if place.socket_netns != 0 {
            if flags & flag::DEVICE == 0 {
                flags |= flag::SOCKET_NETNS;
                (*record).netns = place.socket_netns;
            }
            (*record).socket = inode(place.socket).unwrap_or(0);
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

/// Where a packet is. A pointer means something only where its namespace is proved: 0 is none, and
/// no namespace has that number. Plain numbers, as in [`Packet`](crate::packet::Packet).
pub struct Place {
    pub device: u64,
    pub device_netns: u32,
    pub socket: u64,
    pub socket_netns: u32,
}

impl Place {
    /// Finds the packet's device and its socket, or the one that was to receive it, and proves them by their namespaces.
    #[inline(always)]
    pub fn of(ctx: &RawTracePointContext) -> Self {
        let mut place = Self { device: 0, device_netns: 0, socket: 0, socket_netns: 0 };
        // The verifier drops the branch where the tracepoint has no such argument.
        let receiver = if offset!(arg_rx_sk) == 3 { ctx.arg(3) } else { 0 };
        place.find(ctx.arg(0), receiver);
        place
    }

    #[inline(always)]
    fn find(&mut self, skb: u64, receiver: u64) {
        let ops = own_ops();
        self.device = field(skb, offset!(skb_dev)).unwrap_or(0);
        self.socket = field(skb, offset!(skb_sk)).unwrap_or(0);
        if self.socket == 0 {
            self.socket = receiver;
        }
        self.device_netns = proved(field(self.device, offset!(dev_net)).unwrap_or(0), ops);
        self.socket_netns = proved(field(self.socket, offset!(sock_net)).unwrap_or(0), ops);
    }

    /// The namespace: its device's, or its socket's where there is none; 0 where neither is proved.
    #[inline(always)]
    pub fn netns(&self) -> u32 {
        if self.device_netns == 0 { self.socket_netns } else { self.device_netns }
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

/// The operations that every network namespace has, as the current task's namespace shows them; or that
/// of its parent, where it is about to end and has left its own (`exit_task_namespaces()`).
#[inline(always)]
pub fn own_ops() -> u64 {
    // SAFETY: takes no argument, touches no memory.
    let task = unsafe { bpf_get_current_task() };
    let mut nsproxy: u64 = field(task, offset!(task_nsproxy)).unwrap_or(0);
    if nsproxy == 0 {
        let parent = field(task, offset!(task_real_parent)).unwrap_or(0);
        nsproxy = field(parent, offset!(task_nsproxy)).unwrap_or(0);
    }
    field(nsproxy, offset!(nsproxy_net)).and_then(|net| field(net, offset!(net_ops))).unwrap_or(0)
}

/// The inode number of a network namespace, if the pointer leads to one, else 0: `net->ns.ops` is
/// the same for all of them, and for nothing else.
#[inline(always)]
fn proved(net: u64, ops: u64) -> u32 {
    if ops == 0 || field(net, offset!(net_ops)) != Some(ops) {
        return 0;
    }
    field(net, offset!(net_inum)).unwrap_or(0)
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
