//! Which packets to count: the packet filter that user space hands over, as one read-only global.

use crate::{DropKey, NO_COOKIE, Netns};

/// Most values that one option takes.
pub const MOST: usize = 8;
/// Longest name of an interface, its final zero included (`IFNAMSIZ`, include/uapi/linux/if.h).
pub const NAME: usize = 16;
/// Any protocol above the network layer.
pub const ANY: u16 = u16::MAX;

/// In place of the inode number of a network namespace: it is not there yet, and its number is to
/// stand at the same place in the kernel side's `LATER`. No namespace has this number.
pub const LATER: u32 = 0;

/// What a packet that has the value of a [`Rule`] means.
pub mod kind {
    /// The rule is not in use.
    pub const UNUSED: u32 = 0;
    /// The packet is selected. Where an option has such rules, one of them must match.
    pub const INCLUDE: u32 = 1;
    /// The packet is excluded.
    pub const EXCLUDE: u32 = 2;
}

/// One value of one option: a structure of two fields, `kind` and `value`.
pub trait Rule: Copy {
    type Value: Copy;

    /// `kind` is one of [`kind`].
    fn new(kind: u32, value: Self::Value) -> Self;
    fn kind(self) -> u32;
    fn value(self) -> Self::Value;
}

/// A structure for each type of value instead of a generic one, which zerocopy could not prove to have
/// no padding.
macro_rules! rules {
    ($($(#[$about:meta])* $name:ident: $value:ty;)*) => { $(
        $(#[$about])*
        #[cfg_attr(feature = "user", derive(zerocopy::Immutable, zerocopy::IntoBytes))]
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            /// One of [`kind`].
            pub kind: u32,
            pub value: $value,
        }

        impl Rule for $name {
            type Value = $value;

            #[inline(always)]
            fn new(kind: u32, value: $value) -> Self {
                Self { kind, value }
            }

            #[inline(always)]
            fn kind(self) -> u32 {
                self.kind
            }

            #[inline(always)]
            fn value(self) -> $value {
                self.value
            }
        }
    )* };
}

rules! {
    NetnsRule: NetnsValue;
    /// An address, a network, or the name of an interface.
    MaskedRule: Masked;
    ProtocolRule: Protocol;
    PortsRule: Ports;
    LengthsRule: Lengths;
    /// A mark, or the flags of a TCP header.
    BitsRule: Bits;
    /// One of [`direction`].
    DirectionRule: u32;
}

/// A network namespace, or all that have an inode number.
#[cfg_attr(feature = "user", derive(zerocopy::Immutable, zerocopy::IntoBytes))]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetnsValue {
    /// Inode number, or [`LATER`].
    pub inum: u32,
    /// [`Netns::cookie`] in two halves, since a rule has no room for padding; [`NO_COOKIE`] is any.
    cookie: [u32; 2],
}

impl NetnsValue {
    #[inline(always)]
    pub const fn new(Netns { inum, cookie }: Netns) -> Self {
        Self { inum, cookie: [cookie as u32, (cookie >> 32) as u32] }
    }

    /// Whichever namespace has the number.
    #[inline(always)]
    pub const fn any(inum: u32) -> Self {
        Self::new(Netns { inum, cookie: NO_COOKIE })
    }

    /// Whether it is this namespace, as far as its cookie is known.
    #[inline(always)]
    pub const fn is(self, Netns { inum, cookie }: Netns) -> bool {
        let own = self.cookie[0] as u64 | (self.cookie[1] as u64) << 32;
        self.inum == inum && (own == NO_COOKIE || cookie == NO_COOKIE || own == cookie)
    }
}

/// A protocol.
#[cfg_attr(feature = "user", derive(zerocopy::Immutable, zerocopy::IntoBytes))]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Ethertype, host byte order; 0 is any.
    pub network: u16,
    /// Number in the IPv4 header, or next header of IPv6; [`ANY`] is any, of non-IP packets too.
    pub transport: u16,
}

/// Sixteen bytes of which some count: `bytes & mask == value`.
///
/// For an address, IPv4 mapped into IPv6 (`::ffff:0:0/96`), the mask is the network's; where that covers
/// fewer than 96 bits it is one of IPv6, which no packet of IPv4 matches. For the name
/// of an interface it covers the name and its final zero: what stands behind may be left over from
/// a longer name.
#[cfg_attr(feature = "user", derive(zerocopy::Immutable, zerocopy::IntoBytes))]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masked {
    /// In the order of memory; zero where `mask` is.
    pub value: [u32; 4],
    pub mask: [u32; 4],
}

/// A range of ports, both ends in it, host byte order.
#[cfg_attr(feature = "user", derive(zerocopy::Immutable, zerocopy::IntoBytes))]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub first: u16,
    pub last: u16,
}

/// A range of lengths, both ends in it, bytes.
#[cfg_attr(feature = "user", derive(zerocopy::Immutable, zerocopy::IntoBytes))]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    pub first: u32,
    pub last: u32,
}

/// Bits of which some count: `bits & mask == value`.
#[cfg_attr(feature = "user", derive(zerocopy::Immutable, zerocopy::IntoBytes))]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits {
    /// Zero where `mask` is.
    pub value: u32,
    pub mask: u32,
}

/// Which way a packet goes, from where the host got it.
pub mod direction {
    /// Neither is proved.
    pub const UNKNOWN: u32 = 0;
    /// It came in by a device, from wherever: to this host, or to be forwarded.
    pub const IN: u32 = 1;
    /// This host made it.
    pub const OUT: u32 = 2;
}

/// A packet is counted when every option lets it through. The rules of an option stand one after the
/// other from the first place on: the first unused one is their end.
#[cfg_attr(feature = "user", derive(zerocopy::Immutable, zerocopy::IntoBytes))]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    pub netns: [NetnsRule; MOST],
    /// Names of interfaces.
    pub iface: [MaskedRule; MOST],
    pub protocol: [ProtocolRule; MOST],
    /// Source or destination.
    pub host: [MaskedRule; MOST],
    /// Source or destination.
    pub port: [PortsRule; MOST],
    /// Of `skb->len`.
    pub length: [LengthsRule; MOST],
    /// Of `skb->mark`.
    pub mark: [BitsRule; MOST],
    /// Of the eight flags, as a byte of the TCP header has them.
    pub tcp_flags: [BitsRule; MOST],
    pub direction: [DirectionRule; MOST],
}

impl Filter {
    /// Lets everything through.
    pub const NONE: Self = {
        const KIND: u32 = kind::UNUSED;
        const NOTHING: Masked = Masked { value: [0; 4], mask: [0; 4] };
        let protocol = Protocol { network: 0, transport: 0 };
        Self {
            netns: [NetnsRule { kind: KIND, value: NetnsValue::any(0) }; MOST],
            iface: [MaskedRule { kind: KIND, value: NOTHING }; MOST],
            protocol: [ProtocolRule { kind: KIND, value: protocol }; MOST],
            host: [MaskedRule { kind: KIND, value: NOTHING }; MOST],
            port: [PortsRule { kind: KIND, value: Ports { first: 0, last: 0 } }; MOST],
            length: [LengthsRule { kind: KIND, value: Lengths { first: 0, last: 0 } }; MOST],
            mark: [BitsRule { kind: KIND, value: Bits { value: 0, mask: 0 } }; MOST],
            tcp_flags: [BitsRule { kind: KIND, value: Bits { value: 0, mask: 0 } }; MOST],
            direction: [DirectionRule { kind: KIND, value: direction::UNKNOWN }; MOST],
        }
    };
}

const _: () = assert!(size_of::<Filter>() == MOST * (16 + 36 + 8 + 36 + 8 + 12 + 12 + 12 + 8));
const _: () = assert!(align_of::<Filter>() == 4);

/// Parts of a packet that filters or groups need, as bits.
pub mod part {
    pub const NETNS: u32 = 1 << 0;
    pub const IFACE: u32 = 1 << 1;
    /// Protocol, addresses, ports.
    pub const HEADERS: u32 = 1 << 2;
    /// Whatever an expression asks for ([`expression`](crate::expression)).
    pub const EXPRESSION: u32 = 1 << 3;
    pub const LENGTH: u32 = 1 << 4;
    pub const MARK: u32 = 1 << 5;
    pub const DIRECTION: u32 = 1 << 6;
    /// The flags of a TCP header, and all that leads to it.
    pub const TCP_FLAGS: u32 = 1 << 7;
}

/// Key of the counter by groups. What is not counted by is zero.
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::IntoBytes))]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group {
    /// 1 where everything asked for is proved; 0 is the group of all others, and all zeros.
    pub known: u16,
    /// One of [`direction`].
    pub direction: u16,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Index of the interface in it.
    pub ifindex: u32,
    /// Ethertype of a packet that is not IP, host byte order; else 0.
    pub network: u16,
    /// Number in the IPv4 header, or next header of IPv6; [`ANY`] where the packet is not IP.
    pub transport: u16,
}

impl Group {
    /// The group of all of which not everything is proved.
    pub const NONE: Self =
        Self { known: 0, direction: 0, netns: 0, ifindex: 0, network: 0, transport: 0 };

    /// Its sixteen bytes as those of a drop's key, which are counted by one code.
    #[inline(always)]
    pub const fn to_key(self) -> DropKey {
        DropKey {
            location: (self.netns as u64) << 32 | (self.direction as u64) << 16 | self.known as u64,
            reason: self.ifindex,
            netns: (self.transport as u32) << 16 | self.network as u32,
        }
    }

    /// The group that such a key is of.
    #[inline(always)]
    pub const fn from_key(key: &DropKey) -> Self {
        Self {
            known: key.location as u16,
            direction: (key.location >> 16) as u16,
            netns: (key.location >> 32) as u32,
            ifindex: key.reason,
            network: key.netns as u16,
            transport: (key.netns >> 16) as u16,
        }
    }
}

const _: () = assert!(size_of::<Group>() == 16 && align_of::<Group>() == 4);
