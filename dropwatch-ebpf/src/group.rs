//! Counting once more, by what the packets have in common: namespace, interface, protocol.

use aya_ebpf::{bindings::BPF_NOEXIST, programs::RawTracePointContext};
use dropwatch_common::{
    DropKey, Lost, NO_COOKIE, NO_NETNS, Turn,
    count::{self, Front, Hit, Steps, Word, Words, tag},
    filter::{ANY, Group, part},
};

use crate::{
    count::{EEXIST, add, front_of, load, lost, slot_of, store},
    fields::{Fields, opaque},
    grouping,
    maps::{GROUP_FRONTS, GROUPS},
    netns::Place,
    packet::{Packet, UNKNOWN},
};

/// Counts one drop in its group, by what is asked for (bits of [`part`]).
#[inline(never)]
pub fn count<F: Fields>(ctx: RawTracePointContext) {
    let Some(group) = of::<F>(&ctx) else { return unproved() };
    let DropKey { location, reason, netns } = group.to_key();
    let Some(front) = front_of((&raw mut GROUP_FRONTS).cast()) else { return lost(Lost::Group) };
    match count::hit(&Maps { front }, words(location, reason, netns), |_, _| false) {
        Hit::Counted | Hit::Held => {}
        Hit::Missed => missed(front, location, reason, netns),
    }
}

/// Counts a drop that the first look does not find.
#[inline(never)]
fn missed(front: *mut Front, location: u64, reason: u32, netns: u32) {
    let maps = Maps { front };
    // The highest index that there can be: its tag would look like a busy one.
    let counted = if reason >= i32::MAX as u32 {
        count::in_map(&maps, words(location, reason, netns)).map(|_| ())
    } else {
        count::miss(&maps, words(location, reason, netns), |_, _| ())
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
    let words = words(opaque(0).into(), opaque(0), opaque(0));
    if count::in_map(&Maps { front }, words).is_err() {
        lost(Lost::Group);
    }
}

/// A group is its namespace's number's, whichever namespace has that.
#[inline(always)]
fn words(location: u64, reason: u32, netns: u32) -> Words {
    Words { location, tag: tag(reason, netns), cookie: NO_COOKIE }
}

#[inline(always)]
fn of<F: Fields>(ctx: &RawTracePointContext) -> Option<Group> {
    let mut group = Group { known: 1, netns: 0, ifindex: 0, network: 0, transport: 0 };
    if grouping() & (part::NETNS | part::IFACE) != 0 {
        let place = Place::of::<F>(ctx);
        // An index means something only in its namespace.
        let by_iface = grouping() & part::IFACE != 0;
        group.netns = if by_iface { place.device_netns } else { place.inum::<F>(ctx) };
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
    Some(group)
}

/// This CPU's counters of groups.
struct Maps {
    front: *mut Front,
}

impl Steps for Maps {
    type Place = *mut u64;

    #[inline(always)]
    fn load(&self, word: Word) -> u64 {
        // SAFETY: the front cache of this CPU; `count` names slots that there are.
        unsafe { load(self.front, word) }
    }

    #[inline(always)]
    fn store(&self, word: Word, value: u64) {
        // SAFETY: as above.
        unsafe { store(self.front, word, value) };
    }

    #[inline(always)]
    fn slot(&self, slot: usize) -> *mut u64 {
        // SAFETY: as above.
        unsafe { &raw mut (*slot_of(self.front, slot)).counter.count }
    }

    #[inline(always)]
    fn find(&self, key: &DropKey) -> Option<*mut u64> {
        GROUPS.get_ptr_mut(Group::from_key(key))
    }

    #[inline(always)]
    fn insert(&self, key: &DropKey) -> Result<(), Lost> {
        match GROUPS.insert(Group::from_key(key), 0, BPF_NOEXIST.into()) {
            Ok(()) | Err(EEXIST) => Ok(()),
            Err(_) => Err(Lost::Group),
        }
    }

    #[inline(always)]
    fn add(&self, counter: *mut u64) {
        add(counter, 1);
    }

    #[inline(always)]
    fn cookie(&self, _: *mut u64) -> u64 {
        NO_COOKIE
    }

    #[inline(always)]
    fn set_cookie(&self, _: *mut u64, _: u64) {}

    #[inline(always)]
    fn note(&self, _: Turn) -> Result<(), Lost> {
        Ok(())
    }

    #[inline(always)]
    fn count(&self, counter: *mut u64) -> u64 {
        // SAFETY: a counter that `find` has found.
        unsafe { *counter }
    }
}
