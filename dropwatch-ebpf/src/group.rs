//! Counting once more, by what the packets have in common: namespace, interface, protocol.

use aya_ebpf::programs::RawTracePointContext;
use dropwatch_common::{
    DropKey, Lost, NO_COOKIE, NO_NETNS, Netns,
    count::{self, Front, Hit, Words, tag},
    filter::{ANY, Group, direction as way, part},
};

use crate::{
    count::{Counters, front_of, lost},
    direction,
    fields::{Fields, opaque},
    grouping,
    maps::GROUP_FRONTS,
    netns::Place,
    packet::{Packet, UNKNOWN},
};

type Groups = Counters<true>;

/// Counts one drop in its group, by what is asked for (bits of [`part`]).
#[inline(never)]
pub fn count<F: Fields>(ctx: RawTracePointContext) {
    let Some((group, cookie)) = of::<F>(&ctx) else { return unproved() };
    let DropKey { location, reason, netns } = group.to_key();
    let Some(front) = front_of((&raw mut GROUP_FRONTS).cast()) else { return lost(Lost::Group) };
    match count::hit(&Groups { front }, words(location, reason, netns, cookie), |_, _| false) {
        Hit::Counted | Hit::Held => {}
        Hit::Missed => missed(front, location, reason, netns, cookie),
    }
}

/// Counts a drop that the first look does not find.
#[inline(never)]
fn missed(front: *mut Front, location: u64, reason: u32, netns: u32, cookie: u64) {
    let (maps, words) = (Groups { front }, words(location, reason, netns, cookie));
    // The highest index that there can be: its tag would look like a busy one.
    let counted = if reason >= i32::MAX as u32 {
        count::in_map(&maps, words).map(|_| ())
    } else {
        count::miss(&maps, words, |_, _| ())
    };
    if counted.is_err() {
        lost(Lost::Group);
    }
}

/// Counts a drop of which not everything asked for is proved: in the group of zeros, which is in no
/// front cache.
#[inline(never)]
fn unproved() {
    let Some(front) = front_of((&raw mut GROUP_FRONTS).cast()) else { return lost(Lost::Group) };
    let words = words(opaque(0).into(), opaque(0), opaque(0), NO_COOKIE);
    if count::in_map(&Groups { front }, words).is_err() {
        lost(Lost::Group);
    }
}

/// A group as the words that drops are counted under.
#[inline(always)]
fn words(location: u64, reason: u32, netns: u32, cookie: u64) -> Words {
    Words { location, tag: tag(reason, netns), cookie }
}

/// A drop's group, and the cookie of its namespace; `None` where not everything asked for is proved.
#[inline(always)]
fn of<F: Fields>(ctx: &RawTracePointContext) -> Option<(Group, u64)> {
    let mut group = Group { known: 1, ..Group::NONE };
    let mut cookie = NO_COOKIE;
    if grouping() & (part::NETNS | part::IFACE) != 0 {
        let place = Place::of::<F>(ctx);
        // An index means something only in its namespace.
        let by_iface = grouping() & part::IFACE != 0;
        Netns { inum: group.netns, cookie } =
            if by_iface { place.of_device::<F>() } else { place.netns::<F>(ctx) };
        if group.netns == NO_NETNS {
            return None;
        }
        if by_iface {
            group.ifindex = F::dev_ifindex(place.device);
            // No interface has this index: it could not be read.
            if group.ifindex == 0 {
                return None;
            }
        }
    }
    if grouping() & part::DIRECTION != 0 {
        group.direction = direction::of::<F>(ctx) as u16;
        if group.direction == way::UNKNOWN as u16 {
            return None;
        }
    }
    if grouping() & part::HEADERS != 0 {
        let packet = Packet::read::<F>(ctx.arg(0));
        if packet.network == UNKNOWN || packet.transport == UNKNOWN {
            return None;
        }
        group.transport = packet.transport as u16;
        if group.transport == ANY {
            group.network = packet.network as u16;
        }
    }
    Some((group, cookie))
}
