//! Filter expressions: lays a packet out as a frame, and has the expression's own code judge it.
//!
//! That code is not here: the loader puts it where [`dropwatch_expression`] is. It sees nothing but
//! the frame, and no constant that was written here: verifiers before Linux 6.8 could mistake what
//! such a constant decides (see [`filter`](crate::filter)), so a packet is laid out in a map.

use core::ptr;

use aya_ebpf::{
    helpers::generated::bpf_probe_read_kernel, macros::map, maps::PerCpuArray,
    programs::RawTracePointContext,
};
use dropwatch_common::{
    NO_NETNS,
    expression::{ADDRESSES, LINK, NESTED, READ, TAG, View, Views, verdict},
};

use crate::{
    direction::{OTHERHOST, PKT_TYPE},
    fields::{Fields, UNSET, field, offset, opaque},
    netns::Place,
    skb::{ETH_HLEN, ETHER, LOOPBACK},
};

/// Set by the loader: bytes to read of each packet, at most [`READ`]. The expression asks for no other.
#[unsafe(no_mangle)]
static READS: u32 = READ as u32;

/// What this CPU looks at.
#[map]
static VIEWS: PerCpuArray<Views> = PerCpuArray::with_max_entries(1, 0);

/// What the expression says of the packet: one of [`verdict`].
#[inline(never)]
pub fn judge<F: Fields>(ctx: RawTracePointContext) -> u32 {
    let Some(views) = VIEWS.get_ptr_mut(0) else { return verdict::UNDECIDED };
    // SAFETY: a checked pointer to the value of this CPU. An interruption that comes between the load
    // and the store leaves the number as it was.
    let used = unsafe { (&raw const (*views).used).read_volatile() };
    if used >= NESTED as u64 {
        return verdict::UNDECIDED;
    }
    // SAFETY: as above; `used` is below the number of views.
    let view = unsafe {
        (&raw mut (*views).used).write_volatile(used + 1);
        (&raw mut (*views).views).cast::<View>().add(used as usize)
    };
    // SAFETY: the view is nobody else's now.
    let said = match unsafe { lay_out::<F>(&ctx, view) } {
        Some(()) => dropwatch_expression(view),
        None => verdict::UNDECIDED,
    };
    // SAFETY: as above. Whoever interrupted has given back what it took.
    unsafe { (&raw mut (*views).used).write_volatile(used) };
    opaque(said)
}

/// Where the loader puts the code of the expression.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn dropwatch_expression(view: *const View) -> u32 {
    let said: u64;
    // SAFETY: one move between registers. It has the compiler know nothing of either.
    unsafe { core::arch::asm!("{said} = {view}", said = out(reg) said, view = in(reg) view) };
    said as u32
}

/// Lays the packet out, where enough of it can be read.
///
/// # Safety
/// `view` is one of the map's, and nobody else's.
#[inline(always)]
unsafe fn lay_out<F: Fields>(ctx: &RawTracePointContext, view: *mut View) -> Option<()> {
    let skb = ctx.arg(0);
    let (network, mac) = (F::skb_network_header(skb), F::skb_mac_header(skb));
    if network == 0 || network == UNSET {
        return None;
    }
    let has_link = mac != UNSET && mac.wrapping_add(ETH_HLEN) <= network && is_ethernet::<F>(ctx);
    let start = u32::from(if has_link { mac } else { network });
    let (head, linear) = (F::skb_head(skb), F::skb_tail(skb).wrapping_sub(start));
    // A tail before the start is a length beyond any packet's linear part.
    if head == 0 || linear == 0 || linear > u32::from(u16::MAX) {
        return None;
    }
    let (tagged, [kind, tag]) = tag::<F>(skb);
    // Where the first byte that is read comes to stand.
    let mut at = if has_link { 0 } else { LINK };
    if tagged {
        at += TAG;
    }
    // SAFETY: a static. Volatile, because the loader replaces it after compilation.
    let reads = unsafe { (&raw const READS).read_volatile() };
    // SAFETY: the caller's promise, and there is room for READ bytes behind each of these places; the
    // helper checks what it reads.
    unsafe {
        let bytes = (&raw mut (*view).bytes).cast::<u8>();
        let source = ptr::without_provenance((head + u64::from(start)) as usize);
        if bpf_probe_read_kernel(bytes.add(at).cast(), reads, source) != 0 {
            return None;
        }
        let halves = bytes.cast::<u16>();
        if has_link {
            if !tagged && may_have_been_tagged::<F>(skb, *bytes.cast::<u32>(), *halves.add(2)) {
                return None;
            }
            if tagged {
                let words = bytes.cast::<u32>();
                for word in 0..ADDRESSES / 4 {
                    *words.add(word) = *words.add(word + 1);
                }
                *halves.add(6) = kind;
                *halves.add(7) = tag.to_be();
            }
        } else {
            let protocol = F::skb_protocol(skb);
            if protocol == 0 {
                return None;
            }
            if tagged {
                *halves.add(6) = kind;
                *halves.add(7) = tag.to_be();
                *halves.add(8) = protocol;
            } else {
                *halves.add(6) = protocol;
            }
        }
        let read = if linear > reads { reads } else { linear };
        (*view).readable = at as u32 + read;
        (*view).length = at as u32 + linear.wrapping_add(F::skb_data_len(skb));
        (*view).first = if has_link { 0 } else { ADDRESSES as u32 };
    }
    Some(())
}

/// Whether the packet's device is proved, and its link-layer header is Ethernet's.
#[inline(always)]
fn is_ethernet<F: Fields>(ctx: &RawTracePointContext) -> bool {
    let place = Place::of::<F>(ctx);
    if place.device_netns == NO_NETNS {
        return false;
    }
    let kind = F::dev_type(place.device);
    kind == ETHER || kind == LOOPBACK
}

/// Whether a packet that is for a station of these six bytes may have had the tag of a VLAN that no
/// interface has: the kernel then forgets the tag, and calls the packet another station's
/// (`__netif_receive_skb_core`, net/core/dev.c, Linux 5.8 to 7.2). So is what really is for another
/// station; but what is for the device itself, or for all or many, is not, unless it was tagged.
#[inline(always)]
fn may_have_been_tagged<F: Fields>(skb: u64, first: u32, last: u16) -> bool {
    /// The lowest bit of an address's first byte: it is one of many stations (IEEE 802).
    const GROUP: u32 = 1;
    if F::skb_pkt_type(skb) & PKT_TYPE != OTHERHOST {
        return false;
    }
    if first & GROUP != 0 {
        return true;
    }
    // The device is proved, or there would be no link-layer header.
    let own = F::dev_addr(F::skb_dev(skb));
    match (field::<u32>(own, 0), field::<u16>(own, 4)) {
        (Some(begin), Some(end)) => begin == first && end == last,
        _ => false,
    }
}

/// Whether the kernel took a VLAN tag off the packet and keeps it beside that; and then its ethertype in
/// network byte order, and what it says, in the host's.
///
/// No `Option`: the compiler would compute with what is in none, and the verifier takes no load from a
/// place on the stack that was never written (before Linux 6.3).
#[inline(always)]
fn tag<F: Fields>(skb: u64) -> (bool, [u16; 2]) {
    let present = match offset!(skb_vlan_present) {
        // Since Linux 6.2 one that is not zero is there, and both fields are one, too (`vlan_all`).
        ..0 => F::vlan_all(skb) != 0,
        _ => i32::from(F::skb_vlan_present(skb)) & offset!(skb_vlan_present_mask) != 0,
    };
    (present, if present { [F::vlan_kind(skb), F::vlan_tag(skb)] } else { [0; 2] })
}
