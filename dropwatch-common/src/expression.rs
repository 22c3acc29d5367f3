//! What a filter expression is asked of: a packet as a frame, the way a capture would have it.
//!
//! The kernel side lays each packet out as a [`View`]; the loader puts the expression's own code
//! where the kernel side has a function of the name [`FUNCTION`], which takes one.

/// The function whose code the loader replaces. It takes a [`View`] and returns a verdict.
pub const FUNCTION: &str = "dropwatch_expression";

/// What an expression says of a packet. In an order: the least of several is what they say together.
pub mod verdict {
    pub const NO: u32 = 0;
    /// It asks for what is not there to be read.
    pub const UNDECIDED: u32 = 1;
    pub const YES: u32 = 2;
}

/// Bytes that are read of a packet. All of them are readable wherever the packet has one: behind its
/// linear part the kernel keeps `struct skb_shared_info` (include/linux/skbuff.h), which is longer.
pub const READ: usize = 256;
/// Length of an Ethernet header (`ETH_HLEN`, include/uapi/linux/if_ether.h).
pub const LINK: usize = 14;
/// Length of the two addresses that it begins with.
pub const ADDRESSES: usize = 12;
/// Length of a VLAN tag (`VLAN_HLEN`, include/linux/if_vlan.h).
pub const TAG: usize = 4;
/// Bytes of a frame that an expression can be told: [`READ`] of the packet, behind what the kernel
/// keeps beside it.
pub const BYTES: usize = READ + 20;

/// A packet as a frame of Ethernet.
///
/// A tag of a VLAN that the kernel took off is where it was. A packet without a link-layer header
/// has one all the same, of which the addresses are not known: its type is what the kernel takes
/// the packet for.
#[cfg_attr(feature = "user", derive(zerocopy::Immutable, zerocopy::IntoBytes))]
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Length of the whole frame, bytes.
    pub length: u32,
    /// How many of its bytes can be told.
    pub readable: u32,
    /// The first byte that is known: 0, or the one behind the [`ADDRESSES`].
    pub first: u32,
    pub bytes: [u8; BYTES],
}

impl View {
    pub const EMPTY: Self = Self { length: 0, readable: 0, first: 0, bytes: [0; BYTES] };
}

const _: () = assert!(size_of::<View>() == 12 + BYTES && BYTES >= LINK + TAG + READ);

/// Packets on one CPU that can be looked at, each in the middle of the one before: before Linux 6.0
/// an interruption may drop packets while the program looks at another. A CPU is in a task, a soft
/// interrupt, an interrupt, or one that cannot be masked.
pub const NESTED: usize = 4;

/// What one CPU has to look at packets.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Views {
    /// How many of `views` are in use.
    pub used: u64,
    pub views: [View; NESTED],
}

const _: () = assert!(size_of::<Views>() == 8 + NESTED * size_of::<View>());
