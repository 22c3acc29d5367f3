//! What both sides of the kernel boundary must agree on: layouts, indices, names; and how a drop is
//! counted ([`count`]) and when it is sampled ([`schedule`]), which are here so that they can be tested
//! outside the kernel.
//!
//! Every type is `repr(C)` with explicit padding, so that no byte of it is undefined when the
//! kernel compares keys byte by byte; sizes are asserted at compile time. User space moves them as
//! bytes, for which zerocopy proves what it needs (feature `user`): that a type has no padding
//! (`IntoBytes`), or that any bytes are a value of it (`FromBytes`).

#![no_std]

use core::mem::offset_of;

pub mod count;
pub mod expression;
pub mod filter;
pub mod offsets;
pub mod sample;
pub mod schedule;
pub mod typed;

/// What the loader sets for the program.
///
/// The map behind it is read-only and frozen, so the verifier knows the words, and drops the code of
/// what is not asked for. Eight bytes in one line of the CPU's cache, since every drop reads them.
#[cfg_attr(feature = "user", derive(zerocopy::Immutable, zerocopy::IntoBytes))]
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What to do: bits of [`mode`].
    pub mode: u32,
    /// CPUs that there is a front cache for ([`count::Front`]): those with lower numbers.
    pub cpus: u32,
}

/// What the program is to do.
pub mod mode {
    /// Read the drop reason, the tracepoint's third argument.
    pub const REASON: u32 = 1 << 0;
    /// Keep some drops in detail.
    pub const SAMPLES: u32 = 1 << 1;
    /// Tell network namespaces apart, by typed loads ([`typed`](crate::typed)).
    pub const NETNS: u32 = 1 << 2;
    /// With [`SAMPLES`]: keep every drop in detail, up to a rate.
    pub const EVERY: u32 = 1 << 3;
    /// From this bit on: what of a packet filters decide by ([`part`](crate::filter::part)).
    pub const FILTER_SHIFT: u32 = 8;
    /// From this bit on: what of a packet drops are counted by, once more.
    pub const GROUP_SHIFT: u32 = 20;
    /// Bits of either of the two.
    pub const PARTS: u32 = 0xfff;
}

/// The reason stored where the kernel's tracepoint has none (before Linux 5.17).
///
/// No kernel uses the value: the upper half is the number of a subsystem
/// (`SKB_DROP_REASON_SUBSYS_MASK`, `include/net/dropreason.h`, 6.4), and there are a handful.
pub const NO_REASON: u32 = (1 << 31) - 2;

/// In place of the inode number of a network namespace: it is not proved, or not asked for. No
/// namespace has it.
pub const NO_NETNS: u32 = 0;

/// Key of the exact counter: one call site that freed a packet, with the reason it gave, and the
/// network namespace that the packet was in.
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DropKey {
    /// Drop location: the return address inside the function that freed the packet
    /// (second argument of the tracepoint `skb:kfree_skb`).
    pub location: u64,
    /// Drop reason as the running kernel numbers it, or [`NO_REASON`].
    pub reason: u32,
    /// Inode number of the packet's network namespace, or [`NO_NETNS`].
    pub netns: u32,
}

const _: () = assert!(size_of::<DropKey>() == 16 && align_of::<DropKey>() == 8);

impl DropKey {
    /// The key of drops of no namespace in particular.
    pub const fn new(location: u64, reason: u32) -> Self {
        Self { location, reason, netns: NO_NETNS }
    }

    /// The key of those of them that one namespace has.
    pub const fn within(self, netns: u32) -> Self {
        Self { netns, ..self }
    }

    /// The key of which this one is a namespace's part.
    pub const fn everywhere(self) -> Self {
        self.within(NO_NETNS)
    }
}

/// Value of the exact counter: drops at one key on one CPU, whose they are, and when to sample the
/// next.
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Drops since attach.
    pub count: u64,
    /// Value of `count` at which the next sample is due.
    pub next: u64,
    /// Value of `count` at the last sample: what is above it stands behind the next one.
    pub sampled: u64,
    /// Interval of the last sample, as user space numbers them.
    pub epoch: u32,
    /// Drops in that interval up to the last sample; no more than fit.
    pub counted: u32,
    /// [`Netns::cookie`] of the namespace that has the number of the key now: what was counted for
    /// others is where their [`Turn`]s say. Behind `count`, since a reader has to see that first.
    pub cookie: u64,
}

const _: () = assert!(size_of::<Counter>() == 40 && align_of::<Counter>() == 8);
const _: () = assert!(offset_of!(Counter, cookie) == 32);

/// Key of the counter maps: a key of drops, or of a group in the same words, on one CPU.
///
/// One map with the CPU in its key instead of one with values for each CPU: that would allocate each of
/// those by itself when it is created, a microsecond an entry, while attaching waits.
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CpuKey {
    pub key: DropKey,
    pub cpu: u32,
    /// Zero.
    pub unused: u32,
}

const _: () = assert!(size_of::<CpuKey>() == 24 && align_of::<CpuKey>() == 8);

impl CpuKey {
    pub const fn new(key: DropKey, cpu: u32) -> Self {
        Self { key, cpu, unused: 0 }
    }
}

/// A network namespace: the inode number of its file, which is given again once it is gone, and what
/// no other one has as long as the kernel runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Netns {
    /// `net->ns.inum`, or [`NO_NETNS`].
    pub inum: u32,
    /// `net->net_cookie`, which each namespace has from its beginning on (`setup_net()`,
    /// net/core/net_namespace.c, Linux 5.12); [`NO_COOKIE`] where it is not known.
    pub cookie: u64,
}

/// In place of a namespace's cookie: not known. No namespace has it (`gen_cookie_next()`,
/// include/linux/cookie.h).
pub const NO_COOKIE: u64 = 0;

impl Netns {
    /// Not proved, or not asked for.
    pub const NONE: Self = Self { inum: NO_NETNS, cookie: NO_COOKIE };
}

/// The number of a namespace was given to another one: what a counter has counted up to then was the
/// older one's. A key of a map without values of meaning, so that the same turn noted twice is one.
///
/// It is noted before anything is counted for the younger namespace. So who reads a counter first and
/// the turns afterwards knows whose each count is.
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Turn {
    pub key: DropKey,
    /// Where the key is counted: the number of a slot of the front cache, or [`Turn::IN_MAP`]; with
    /// [`Turn::OF_GROUP`], of those that count groups.
    pub counter: u32,
    pub cpu: u32,
    /// The older one's.
    pub cookie: u64,
    /// What the counter had counted by then.
    pub until: u64,
}

const _: () = assert!(size_of::<Turn>() == 40 && align_of::<Turn>() == 8);

impl Turn {
    /// The counter is that of the hash map.
    pub const IN_MAP: u32 = u16::MAX as u32;
    /// The counter is one of groups.
    pub const OF_GROUP: u32 = 1 << 16;
}

/// What the kernel side can fail to do with a drop. Each has a slot of its own in the `LOST`
/// per-CPU array, so that the total stays exact whatever happens.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// No room for another key (`E2BIG`).
    MapFull = 0,
    /// The map refused the insertion for another cause: bucket lock held on this CPU (`EBUSY`),
    /// no memory (`ENOMEM`).
    MapBusy = 1,
    /// A sample found the ring buffer full. The drop itself is counted.
    Sample = 2,
    /// The call path of a sample could not be read.
    Stack = 3,
    /// No room for another group. The drop is counted at its location.
    Group = 4,
    /// Every drop is to be sampled, and this one came when the second's samples were used up. The drop
    /// itself is counted.
    Unsampled = 5,
}

/// Values of [`Lost`].
pub const LOST_CAUSES: u32 = 6;
/// Slots in the `LOST` array: the causes, then the filters that could not be decided, by
/// [`Undecided::slot`]. Such a drop is not counted anywhere else.
pub const LOST_SLOTS: u32 = LOST_CAUSES + Undecided::ALL.len() as u32;

/// An option that filters packets, and may be undecided. Where several are, the first of them is meant.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Undecided {
    Netns = 0,
    Iface = 1,
    Proto = 2,
    Host = 3,
    Port = 4,
    TcpFlags = 5,
    Direction = 6,
    Expression = 7,
}

impl Undecided {
    /// Each at its number.
    pub const ALL: [Self; 8] = [
        Self::Netns,
        Self::Iface,
        Self::Proto,
        Self::Host,
        Self::Port,
        Self::TcpFlags,
        Self::Direction,
        Self::Expression,
    ];

    /// The slot of the `LOST` array that counts it.
    pub const fn slot(self) -> u32 {
        Self::slot_of(self as u32)
    }

    /// As [`slot`](Self::slot), by its number.
    pub const fn slot_of(number: u32) -> u32 {
        LOST_CAUSES + number
    }
}

const _: () = {
    let mut number = 0;
    while number < Undecided::ALL.len() {
        assert!(Undecided::ALL[number] as usize == number);
        number += 1;
    }
};
