//! What a packet says of itself: its outermost headers, read for filters and groups.
//!
//! Nothing is taken on trust: a header must lie in the packet's linear part, and its version must
//! be what the kernel takes the packet for.
//!
//! Plain numbers instead of `Option`s and enums, every one always set: the verifier refuses a copy
//! of a payload that nobody wrote, and the compiler makes such copies.

use dropwatch_common::filter::ANY;

use crate::skb::{self, field, offset};

/// Ethertypes (include/uapi/linux/if_ether.h).
pub const IPV4: u32 = 0x0800;
pub const IPV6: u32 = 0x86dd;

/// A number that could not be read: more than fits any of the fields.
pub const UNKNOWN: u32 = 1 << 16;
/// A packet that has no ports.
pub const NO_PORTS: u32 = UNKNOWN + 1;

/// What the headers tell.
pub struct Packet {
    /// Ethertype; [`UNKNOWN`] where the packet has none, or it is IP and its header cannot be read.
    pub network: u32,
    /// Protocol in the IPv4 header, or next header of IPv6; [`ANY`] where the packet is not IP,
    /// [`UNKNOWN`] where extension headers hide it.
    pub transport: u32,
    /// Ports, host byte order; both [`NO_PORTS`] or [`UNKNOWN`], which later fragments are, where
    /// there is none to tell.
    pub source: u32,
    pub destination: u32,
    /// Source and destination, IPv4 mapped into IPv6, in network byte order. Zero where the packet
    /// is not IP.
    pub hosts: [[u32; 4]; 2],
}

/// Where the linear part of a packet begins and ends.
struct Linear {
    head: u64,
    tail: u32,
}

impl Linear {
    /// Reads `T` at an offset from the head, if all of it is in the linear part.
    #[inline(always)]
    fn read<T>(&self, at: u32) -> Option<T> {
        if at + size_of::<T>() as u32 > self.tail {
            return None;
        }
        field(self.head, at as i32)
    }
}

impl Packet {
    /// Reads the outermost headers of a packet.
    #[inline(always)]
    pub fn read(skb: u64) -> Self {
        let mut packet = Self {
            network: UNKNOWN,
            transport: UNKNOWN,
            source: UNKNOWN,
            destination: UNKNOWN,
            hosts: [[0; 4]; 2],
        };
        packet.fill(skb);
        packet
    }

    #[inline(always)]
    fn fill(&mut self, skb: u64) {
        let protocol = u16::from_be(field(skb, offset!(skb_protocol)).unwrap_or(0));
        let protocol = u32::from(protocol);
        if protocol == 0 {
            return;
        }
        if protocol != IPV4 && protocol != IPV6 {
            self.network = protocol;
            self.transport = u32::from(ANY);
            self.set_ports(NO_PORTS, NO_PORTS);
            return;
        }
        let Some(head) = field(skb, offset!(skb_head)) else { return };
        let Some(tail) = field(skb, offset!(skb_tail)) else { return };
        let Some(network) = field::<u16>(skb, offset!(skb_network_header)) else { return };
        if network == 0 || network == skb::UNSET {
            return;
        }
        let (linear, at) = (Linear { head, tail }, u32::from(network));
        if protocol == IPV4 {
            self.ipv4(&linear, at);
        } else {
            self.ipv6(&linear, at);
        }
    }

    #[inline(always)]
    fn ipv4(&mut self, linear: &Linear, at: u32) {
        let Some(header) = linear.read::<Ipv4>(at) else { return };
        let words = header.version_and_length & 0xf;
        if header.version_and_length >> 4 != 4 || words < 5 {
            return;
        }
        let mapped = |host| [0, 0, u32::to_be(0xffff), host];
        self.network = IPV4;
        self.transport = u32::from(header.protocol);
        self.hosts = [mapped(header.hosts[0]), mapped(header.hosts[1])];
        let first = u16::from_be(header.fragment) & 0x1fff == 0;
        self.ports(linear, header.protocol, first, at + u32::from(words) * 4);
    }

    #[inline(always)]
    fn ipv6(&mut self, linear: &Linear, at: u32) {
        let Some(header) = linear.read::<Ipv6>(at) else { return };
        if header.version >> 4 != 6 {
            return;
        }
        self.network = IPV6;
        self.hosts = header.hosts;
        if is_extension(header.next) {
            return;
        }
        self.transport = u32::from(header.next);
        self.ports(linear, header.next, true, at + size_of::<Ipv6>() as u32);
    }

    /// Ports of protocols that begin with them: TCP, UDP, DCCP, SCTP, UDP-Lite.
    #[inline(always)]
    fn ports(&mut self, linear: &Linear, protocol: u8, first: bool, at: u32) {
        if !matches!(protocol, 6 | 17 | 33 | 132 | 136) {
            self.set_ports(NO_PORTS, NO_PORTS);
        } else if first && let Some(ports) = linear.read::<[u16; 2]>(at) {
            let port = |at: usize| u32::from(u16::from_be(ports[at]));
            self.set_ports(port(0), port(1));
        }
    }

    #[inline(always)]
    fn set_ports(&mut self, source: u32, destination: u32) {
        self.source = source;
        self.destination = destination;
    }
}

/// IPv4 header without options (RFC 791), in network byte order.
#[repr(C)]
struct Ipv4 {
    version_and_length: u8,
    service: u8,
    total: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    hosts: [u32; 2],
}

/// IPv6 header (RFC 8200), in network byte order.
#[repr(C)]
struct Ipv6 {
    version: u8,
    rest: [u8; 5],
    next: u8,
    hops: u8,
    hosts: [[u32; 4]; 2],
}

/// Hop-by-hop, routing, fragment, authentication, destination, mobility, HIP, shim6: headers
/// behind which another follows (IANA, IPv6 Extension Header Types).
#[inline(always)]
fn is_extension(next: u8) -> bool {
    matches!(next, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140)
}
