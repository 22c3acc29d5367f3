//! Counting once more, by what the packets have in common: namespace, interface, protocol.

use aya_ebpf::{bindings::BPF_NOEXIST, programs::RawTracePointContext};
use dropwatch_common::{
    Lost,
    filter::{ANY, Group, part},
};

use crate::{
    count::{EEXIST, add, lost},
    maps::GROUPS,
    packet::{Packet, UNKNOWN},
    skb::{Place, field, offset},
};

/// The group of drops of which not everything asked for is proved.
const UNPROVED: Group = Group { known: 0, netns: 0, ifindex: 0, network: 0, transport: 0 };

/// Counts one drop in its group, by what is asked for (bits of [`part`]).
#[inline(always)]
pub fn count(ctx: &RawTracePointContext, parts: u32) {
    if parts != 0 {
        count_in(&of(ctx, parts).unwrap_or(UNPROVED));
    }
}

#[inline(always)]
fn of(ctx: &RawTracePointContext, parts: u32) -> Option<Group> {
    let mut group = Group { known: 1, ..UNPROVED };
    if parts & (part::NETNS | part::IFACE) != 0 {
        let place = Place::of(ctx);
        group.netns = place.netns();
        if parts & part::IFACE != 0 {
            // An index means something only in its namespace.
            group.netns = place.device_netns;
            group.ifindex = field(place.device, offset!(dev_ifindex))?;
        }
        if group.netns == 0 {
            return None;
        }
    }
    if parts & part::HEADERS != 0 {
        let packet = Packet::read(ctx.arg(0));
        if packet.network == UNKNOWN || packet.transport == UNKNOWN {
            return None;
        }
        group.transport = packet.transport as u16;
        if group.transport == ANY {
            group.network = packet.network as u16;
        }
    }
    Some(group)
}

#[inline(always)]
fn count_in(group: &Group) {
    if let Some(counter) = GROUPS.get_ptr_mut(group) {
        return add(counter, 1);
    }
    // As in `count::make_room`: a zero first, which cannot overwrite anybody's count.
    match GROUPS.insert(group, 0, BPF_NOEXIST.into()) {
        Ok(()) | Err(EEXIST) => {}
        Err(_) => return lost(Lost::Group),
    }
    match GROUPS.get_ptr_mut(group) {
        Some(counter) => add(counter, 1),
        None => lost(Lost::Group),
    }
}
