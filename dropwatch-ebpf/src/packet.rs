//! What a packet says of itself: its outermost headers, read for filters and groups.
//!
//! Nothing is taken on trust: a header must lie in the packet's linear part, and its version must
//! be what the kernel takes the packet for.
//!
//! Whatever is a constant on one way through the code is [`opaque`] to the verifier.
//!
//! Plain numbers instead of `Option`s and enums, every one always set: the verifier refuses a copy
//! of a payload that nobody wrote, and the compiler makes such copies.

use dropwatch_common::filter::ANY;

use crate::fields::{Fields, UNSET, field, opaque};

/// Ethertypes (include/uapi/linux/if_ether.h).
pub const IPV4: u32 = 0x0800;
pub const IPV6: u32 = 0x86dd;

/// A number that could not be read: more than fits any of the fields.
pub const UNKNOWN: u32 = 1 << 16;
/// A packet that has no ports, or no flags of TCP.
pub const NO_PORTS: u32 = UNKNOWN + 1;
/// The protocol's number above IP, and where its flags are in its header (RFC 9293).
const TCP: u32 = 6;
const TCP_FLAGS: u32 = 13;

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
    /// Where the header with the ports begins, from the head; means something only where there are any.
    ports_at: u32,
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
    /// Whether so many bytes at an offset from the head are in the linear part.
    #[inline(always)]
    fn has(&self, at: u32, bytes: usize) -> bool {
        at + bytes as u32 <= self.tail
    }

    /// Reads a header at an offset from the head, with the ports behind it, if all of the header is in
    /// the linear part: one read, which is the dearest part of all this. Whether the ports are in it,
    /// too, is another question. The kernel keeps more behind the linear part than is read here
    /// (`struct skb_shared_info`), so the read does not fail for them.
    #[inline(always)]
    fn read<T>(&self, at: u32) -> Option<WithPorts<T>> {
        if !self.has(at, size_of::<T>()) {
            return None;
        }
        field(self.head, at as i32)
    }

    /// Reads ports that stand elsewhere.
    #[inline(always)]
    fn ports(&self, at: u32) -> Option<[u16; 2]> {
        if self.has(at, size_of::<[u16; 2]>()) { field(self.head, at as i32) } else { None }
    }
}

impl Packet {
    /// Reads the outermost headers of a packet.
    #[inline(always)]
    pub fn read<F: Fields>(skb: u64) -> Self {
        let (unknown, zero) = (opaque(UNKNOWN), opaque(0));
        let mut packet = Self {
            network: unknown,
            transport: unknown,
            source: unknown,
            destination: unknown,
            ports_at: zero,
            hosts: [[zero; 4]; 2],
        };
        packet.fill::<F>(skb);
        packet
    }

    /// The eight flags of its TCP header; [`NO_PORTS`] where it has none, [`UNKNOWN`] where it cannot
    /// be read, or is in another fragment.
    #[inline(always)]
    pub fn tcp_flags<F: Fields>(&self, skb: u64) -> u32 {
        if self.network == UNKNOWN || self.transport == UNKNOWN {
            return opaque(UNKNOWN);
        }
        if self.transport != TCP {
            return opaque(NO_PORTS);
        }
        let (head, at) = (F::skb_head(skb), self.ports_at + TCP_FLAGS);
        if self.source == UNKNOWN || !(Linear { head, tail: F::skb_tail(skb) }).has(at, 1) {
            return opaque(UNKNOWN);
        }
        match field::<u8>(head, at as i32) {
            Some(flags) => u32::from(flags),
            None => opaque(UNKNOWN),
        }
    }

    #[inline(always)]
    fn fill<F: Fields>(&mut self, skb: u64) {
        let protocol = u32::from(u16::from_be(F::skb_protocol(skb)));
        if protocol == 0 {
            return;
        }
        if protocol != IPV4 && protocol != IPV6 {
            self.network = protocol;
            self.transport = opaque(u32::from(ANY));
            self.no_ports();
            return;
        }
        let linear = Linear { head: F::skb_head(skb), tail: F::skb_tail(skb) };
        let network = F::skb_network_header(skb);
        if network == 0 || network == UNSET {
            return;
        }
        let at = u32::from(network);
        if protocol == IPV4 {
            self.ipv4(&linear, at);
        } else {
            self.ipv6(&linear, at);
        }
    }

    #[inline(always)]
    fn ipv4(&mut self, linear: &Linear, at: u32) {
        let Some(WithPorts { header, ports }) = linear.read::<Ipv4>(at) else { return };
        let words = header.version_and_length & 0xf;
        if header.version_and_length >> 4 != 4 || words < 5 {
            return;
        }
        let (zero, ones) = (opaque(0), opaque(u32::to_be(0xffff)));
        let mapped = |host| [zero, zero, ones, host];
        self.network = opaque(IPV4);
        self.transport = u32::from(header.protocol);
        self.hosts = [mapped(header.hosts[0]), mapped(header.hosts[1])];
        self.ports_at = at + u32::from(words) * 4;
        if !begins_with_ports(header.protocol) {
            self.no_ports();
        } else if u16::from_be(header.fragment) & 0x1fff != 0 {
            // A later fragment: its ports are in the first.
        } else if words == 5 {
            if linear.has(at, size_of::<WithPorts<Ipv4>>()) {
                self.ports(ports);
            }
        } else if let Some(ports) = linear.ports(self.ports_at) {
            self.ports(ports);
        }
    }

    #[inline(always)]
    fn ipv6(&mut self, linear: &Linear, at: u32) {
        let Some(WithPorts { header, ports }) = linear.read::<Ipv6>(at) else { return };
        if header.version >> 4 != 6 {
            return;
        }
        self.network = opaque(IPV6);
        self.hosts = header.hosts;
        if is_extension(header.next) {
            return;
        }
        self.transport = u32::from(header.next);
        self.ports_at = at + size_of::<Ipv6>() as u32;
        if !begins_with_ports(header.next) {
            self.no_ports();
        } else if linear.has(at, size_of::<WithPorts<Ipv6>>()) {
            self.ports(ports);
        }
    }

    #[inline(always)]
    fn no_ports(&mut self) {
        let none = opaque(NO_PORTS);
        self.set_ports(none, none);
    }

    /// In network byte order.
    #[inline(always)]
    fn ports(&mut self, [source, destination]: [u16; 2]) {
        self.set_ports(u32::from(u16::from_be(source)), u32::from(u16::from_be(destination)));
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

/// A header, and what protocols above it begin with.
#[repr(C)]
struct WithPorts<T> {
    header: T,
    ports: [u16; 2],
}

/// TCP, UDP, DCCP, SCTP, UDP-Lite.
#[inline(always)]
fn begins_with_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 33 | 132 | 136)
}

/// Hop-by-hop, routing, fragment, authentication, destination, mobility, HIP, shim6: headers
/// behind which another follows (IANA, IPv6 Extension Header Types).
#[inline(always)]
fn is_extension(next: u8) -> bool {
    matches!(next, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140)
}
