//! Who talked to whom, read from the first bytes of a dropped packet.
//!
//! The outermost network header counts: what a tunnel carries inside is read in `tunnel.rs`. Packets are
//! foreign input and mostly cut off, so every field stands for itself: what is not in the bytes, or
//! contradicts them, is absent.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::{
    ArpPacketSlice, EtherType, Ipv6ExtensionSlice, LaxIpv4Slice, LaxIpv6Slice, LaxNetSlice,
    LaxSlicedPacket, VlanSlice,
};
use serde::{Deserialize, Serialize};

use super::{
    protocol::{
        self, Term,
        number::{DCCP, ICMP, ICMPV6, SCTP, TCP, UDP, UDP_LITE},
    },
    sample::Sample,
};

/// The addresses of one packet. `None` is a field that the packet does not have or show.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Flow {
    /// The innermost protocol that the packet shows: `tcp`, `arp`, or a number, `ip-proto-253`, `0x88b5`.
    pub protocol: Option<Term>,
    /// Identifier of the outermost VLAN tag.
    pub vlan: Option<u16>,
    pub src: Option<IpAddr>,
    pub src_port: Option<u16>,
    pub dst: Option<IpAddr>,
    pub dst_port: Option<u16>,
    /// TCP flags (`SYN ACK`), type of an ICMP message (`echo request`), operation of ARP.
    pub kind: Option<Term>,
    /// One fragment of a packet; only the first one has ports.
    pub fragment: bool,
}

/// What a packet shows above IP, as far as routing rules look at it (`ip rule … ipproto … dport`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AboveIp {
    /// Its number.
    pub protocol: Option<u8>,
    pub from_port: Option<u16>,
    pub to_port: Option<u16>,
}

impl AboveIp {
    pub fn of(flow: &Flow) -> Self {
        let (from_port, to_port) = (flow.src_port, flow.dst_port);
        Self { protocol: number_above_ip(flow), from_port, to_port }
    }

    /// That of an answer.
    #[must_use]
    pub fn turned(self) -> Self {
        Self { from_port: self.to_port, to_port: self.from_port, ..self }
    }
}

/// The number of a flow's protocol above IP.
pub fn number_above_ip(flow: &Flow) -> Option<u8> {
    let protocol = protocol::parse(flow.protocol.as_deref()?).ok()?;
    u8::try_from(protocol.transport).ok()
}

impl Flow {
    /// The flow of a sampled packet; `None` where not even its ethertype is known.
    ///
    /// Where the kernel says at which byte the network header begins, that is believed first: it is
    /// the header that the kernel was working on. Else the Ethernet header has to lead there.
    pub fn of(sample: &Sample) -> Option<Self> {
        let network = sample.network.and_then(|at| sample.packet.get(at..));
        let ether_type = (sample.protocol != 0).then_some(EtherType(sample.protocol));
        let linked = || {
            let packet = sample.link_header.then_some(&sample.packet)?;
            LaxSlicedPacket::from_ethernet(packet).ok()
        };
        let parsed = ether_type
            .zip(network)
            .map(|(ether_type, bytes)| LaxSlicedPacket::from_ether_type(ether_type, bytes))
            .filter(|packet| packet.net.is_some())
            .or_else(|| linked().filter(|packet| packet.net.is_some()));
        let mut flow = match parsed.as_ref().and_then(|packet| packet.net.as_ref()) {
            Some(net) => Self::of_network(net),
            None => Self { protocol: Some(protocol::network(ether_type?.0)), ..Self::default() },
        };
        // The tag that was taken off was the outermost one.
        let kept = || parsed.as_ref().and_then(vlan).or_else(|| vlan(&linked()?));
        flow.vlan = sample.vlan.or_else(kept);
        Some(flow)
    }

    /// The flow of a packet whose network header, of that ethertype, `bytes` begin with; `None` where
    /// that is none.
    pub fn of_bytes(ether_type: u16, bytes: &[u8]) -> Option<Self> {
        let packet = LaxSlicedPacket::from_ether_type(EtherType(ether_type), bytes);
        packet.net.as_ref().map(Self::of_network)
    }

    /// The flow of an Ethernet frame; `None` where no network header is seen in it.
    pub fn of_frame(frame: &[u8]) -> Option<Self> {
        let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
        let flow = Self::of_network(packet.net.as_ref()?);
        Some(Self { vlan: vlan(&packet), ..flow })
    }

    fn of_network(net: &LaxNetSlice<'_>) -> Self {
        match net {
            LaxNetSlice::Ipv4(ip) => Self::of_ipv4(ip),
            LaxNetSlice::Ipv6(ip) => Self::of_ipv6(ip),
            LaxNetSlice::Arp(arp) => Self::of_arp(arp),
        }
    }

    fn between(src: impl Into<IpAddr>, dst: impl Into<IpAddr>, fragment: bool) -> Self {
        Self { src: Some(src.into()), dst: Some(dst.into()), fragment, ..Self::default() }
    }

    fn of_ipv4(ip: &LaxIpv4Slice<'_>) -> Self {
        let (header, payload) = (ip.header(), ip.payload());
        let mut flow =
            Self::between(header.source_addr(), header.destination_addr(), payload.fragmented);
        let first = header.fragments_offset().value() == 0;
        flow.transport(payload.ip_number.0, first.then_some(payload.payload));
        flow
    }

    fn of_ipv6(ip: &LaxIpv6Slice<'_>) -> Self {
        let (header, payload) = (ip.header(), ip.payload());
        let mut flow =
            Self::between(header.source_addr(), header.destination_addr(), payload.fragmented);
        // Behind the header of a later fragment there is data, whatever protocol its next header
        // names.
        let later = ip.extensions().clone().into_iter().find_map(|extension| match extension {
            Ipv6ExtensionSlice::Fragment(part) if part.fragment_offset().value() > 0 => {
                Some(part.next_header())
            }
            _ => None,
        });
        match later {
            Some(next) => flow.transport(next.0, None),
            None => flow.transport(payload.ip_number.0, Some(payload.payload)),
        }
        flow
    }

    /// Only ARP for IPv4 over Ethernet has the addresses that a flow has.
    fn of_arp(arp: &ArpPacketSlice<'_>) -> Self {
        let address = |bytes: &[u8]| {
            let known = arp.proto_addr_type() == EtherType::IPV4;
            let bytes = <[u8; 4]>::try_from(bytes).ok().filter(|_| known)?;
            Some(IpAddr::V4(Ipv4Addr::from(bytes)))
        };
        Self {
            protocol: Some("arp".into()),
            src: address(arp.sender_protocol_addr()),
            dst: address(arp.target_protocol_addr()),
            kind: Some(match arp.operation().0 {
                1 => "request".into(),
                2 => "reply".into(),
                other => format!("operation {other}").into(),
            }),
            ..Self::default()
        }
    }

    /// `bytes` begin with the header of IP protocol `number`; `None` in a later fragment.
    fn transport(&mut self, number: u8, bytes: Option<&[u8]>) {
        self.protocol = Some(protocol::transport(number));
        let bytes = bytes.unwrap_or_default();
        // All of these begin with the source port and the destination port.
        if matches!(number, TCP | UDP | DCCP | SCTP | UDP_LITE)
            && let Some(([s0, s1, d0, d1], _)) = bytes.split_first_chunk()
        {
            self.src_port = Some(u16::from_be_bytes([*s0, *s1]));
            self.dst_port = Some(u16::from_be_bytes([*d0, *d1]));
        }
        self.kind = match number {
            // RFC 9293, section 3.1: the flags are the 14th byte.
            TCP => bytes.get(13).map(|flags| tcp_flags(*flags)),
            ICMP => bytes.first().map(|kind| icmp_type(*kind)),
            ICMPV6 => bytes.first().map(|kind| icmpv6_type(*kind)),
            _ => None,
        };
    }
}

fn vlan(packet: &LaxSlicedPacket<'_>) -> Option<u16> {
    let tag = match packet.vlan()? {
        VlanSlice::SingleVlan(tag) => tag.vlan_identifier(),
        VlanSlice::DoubleVlan(tags) => tags.outer.vlan_identifier(),
    };
    Some(tag.value())
}

/// The flags by name, in the order in which people say them.
fn tcp_flags(bits: u8) -> Term {
    const NAMES: [(u8, &str); 8] = [
        (0x02, "SYN"),
        (0x01, "FIN"),
        (0x04, "RST"),
        (0x08, "PSH"),
        (0x10, "ACK"),
        (0x20, "URG"),
        (0x40, "ECE"),
        (0x80, "CWR"),
    ];
    match bits {
        0 => "no flags".into(),
        0x02 => "SYN".into(),
        0x10 => "ACK".into(),
        _ => {
            let set = NAMES.iter().filter(|(bit, _)| bits & bit != 0);
            set.map(|(_, name)| *name).collect::<Vec<_>>().join(" ").into()
        }
    }
}

fn icmp_type(number: u8) -> Term {
    let name = match number {
        0 => "echo reply",
        3 => "unreachable",
        5 => "redirect",
        8 => "echo request",
        9 => "router advertisement",
        10 => "router solicitation",
        11 => "time exceeded",
        12 => "parameter problem",
        13 => "timestamp",
        14 => "timestamp reply",
        _ => return format!("type {number}").into(),
    };
    name.into()
}

fn icmpv6_type(number: u8) -> Term {
    let name = match number {
        1 => "unreachable",
        2 => "packet too big",
        3 => "time exceeded",
        4 => "parameter problem",
        128 => "echo request",
        129 => "echo reply",
        130 | 131 | 132 | 143 => "multicast listener",
        133 => "router solicitation",
        134 => "router advertisement",
        135 => "neighbor solicitation",
        136 => "neighbor advertisement",
        137 => "redirect",
        _ => return format!("type {number}").into(),
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use etherparse::{IpFragOffset, IpNumber, Ipv4Header, PacketBuilder};
    use proptest::prelude::*;

    use super::*;

    const A: [u8; 4] = [192, 168, 0, 2];
    const B: [u8; 4] = [192, 168, 0, 30];

    fn ethernet(protocol: u16, packet: Vec<u8>) -> Sample {
        Sample { protocol, packet, link_header: true, network: None, ..Sample::default() }
    }

    fn network(protocol: u16, packet: Vec<u8>) -> Sample {
        Sample { protocol, packet, network: Some(0), ..Sample::default() }
    }

    fn words(flow: &Flow) -> String {
        let address = |ip: Option<IpAddr>, port: Option<u16>| {
            let ip = ip.map_or("-".to_owned(), |ip| ip.to_string());
            port.map_or(ip.clone(), |port| format!("{ip} {port}"))
        };
        format!(
            "{} {} > {} {}{}{}",
            flow.protocol.as_deref().unwrap_or("-"),
            address(flow.src, flow.src_port),
            address(flow.dst, flow.dst_port),
            flow.kind.as_deref().unwrap_or("-"),
            if flow.fragment { " fragment" } else { "" },
            flow.vlan.map_or(String::new(), |vlan| format!(" vlan {vlan}")),
        )
    }

    fn flow(sample: &Sample) -> String {
        words(&Flow::of(sample).unwrap())
    }

    #[test]
    fn tcp_over_ethernet_with_and_without_a_tag() {
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4(A, B, 64);
        builder.tcp(40_000, 8080, 7, 100).syn().ece().write(&mut bytes, b"data").unwrap();
        let expected = "tcp 192.168.0.2 40000 > 192.168.0.30 8080 SYN ECE";
        assert_eq!(flow(&ethernet(0x800, bytes.clone())), expected);
        assert_eq!(flow(&network(0x800, bytes[14..].to_vec())), expected);
        let both = Sample { network: Some(14), ..ethernet(0x800, bytes.clone()) };
        assert_eq!(flow(&both), expected);

        let mut tagged = Vec::new();
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6])
            .single_vlan(5.try_into().unwrap())
            .ipv4(A, B, 64);
        builder.tcp(40_000, 8080, 7, 100).ack(3).write(&mut tagged, b"").unwrap();
        let expected = "tcp 192.168.0.2 40000 > 192.168.0.30 8080 ACK vlan 5";
        assert_eq!(flow(&ethernet(0x8100, tagged.clone())), expected);
        // The kernel has taken the tag off its notes, not off the bytes in front.
        let untagged = Sample { network: Some(18), ..ethernet(0x800, tagged.clone()) };
        assert_eq!(flow(&untagged), expected);
        let with_tag = Sample { network: Some(14), ..ethernet(0x8100, tagged) };
        assert_eq!(flow(&with_tag), expected);
    }

    #[test]
    fn a_packet_that_is_cut_off_keeps_what_it_shows() {
        let mut bytes = Vec::new();
        PacketBuilder::ipv4(A, B, 64).tcp(1, 2, 7, 100).syn().write(&mut bytes, &[0; 500]).unwrap();
        for (length, expected) in [
            (120, "tcp 192.168.0.2 1 > 192.168.0.30 2 SYN"),
            (34, "tcp 192.168.0.2 1 > 192.168.0.30 2 SYN"),
            (33, "tcp 192.168.0.2 1 > 192.168.0.30 2 -"),
            (24, "tcp 192.168.0.2 1 > 192.168.0.30 2 -"),
            (23, "tcp 192.168.0.2 > 192.168.0.30 -"),
            (20, "tcp 192.168.0.2 > 192.168.0.30 -"),
            (19, "ipv4 - > - -"),
            (0, "ipv4 - > - -"),
        ] {
            assert_eq!(flow(&network(0x800, bytes[..length].to_vec())), expected, "{length}");
        }
    }

    #[test]
    fn later_fragments_have_no_ports() {
        let mut header = Ipv4Header::new(8, 64, IpNumber::UDP, A, B).unwrap();
        header.more_fragments = true;
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend([0, 53, 0, 99, 0, 8, 0, 0]);
        let first = "udp 192.168.0.2 53 > 192.168.0.30 99 - fragment";
        assert_eq!(flow(&network(0x800, bytes.clone())), first);
        header.fragment_offset = IpFragOffset::try_new(100).unwrap();
        bytes[..20].copy_from_slice(&header.to_bytes());
        let later = "udp 192.168.0.2 > 192.168.0.30 - fragment";
        assert_eq!(flow(&network(0x800, bytes)), later);
    }

    /// An IPv6 header with the given next header, then `rest`.
    fn ipv6(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0, rest.len() as u8, next, 64];
        bytes.extend("fd00::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
        bytes.extend("fd00::30".parse::<std::net::Ipv6Addr>().unwrap().octets());
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn ipv6_extension_headers_are_passed_over() {
        let ports = [0, 53, 0, 99, 0, 8, 0, 0];
        let hop_by_hop = [&[60, 0, 1, 4, 0, 0, 0, 0][..], &[17, 0, 1, 4, 0, 0, 0, 0], &ports];
        let udp = "udp fd00::2 53 > fd00::30 99 -";
        assert_eq!(flow(&network(0x86dd, ipv6(17, &ports))), udp);
        assert_eq!(flow(&network(0x86dd, ipv6(0, &hop_by_hop.concat()))), udp);
        let first = [&[17, 0, 0, 1, 0, 0, 0, 9][..], &ports].concat();
        assert_eq!(flow(&network(0x86dd, ipv6(44, &first))), format!("{udp} fragment"));
        // Next header 0 in a later fragment: what follows is data, not another header.
        let later = [&[17, 0, 1, 1, 0, 0, 0, 9][..], &ports].concat();
        let expected = "udp fd00::2 > fd00::30 - fragment";
        assert_eq!(flow(&network(0x86dd, ipv6(44, &later))), expected);
        let solicitation = "icmpv6 fd00::2 > fd00::30 neighbor solicitation";
        assert_eq!(flow(&network(0x86dd, ipv6(58, &[135, 0, 0, 0]))), solicitation);
    }

    #[test]
    fn other_protocols() {
        let ip = |number: u8, rest: &[u8]| {
            let length = rest.len() as u16;
            let header = Ipv4Header::new(length, 64, IpNumber(number), A, B).unwrap();
            network(0x800, [&header.to_bytes()[..], rest].concat())
        };
        let from_to = "192.168.0.2 > 192.168.0.30";
        assert_eq!(flow(&ip(1, &[8, 0])), format!("icmp {from_to} echo request"));
        assert_eq!(flow(&ip(132, &[0, 7, 0, 9])), "sctp 192.168.0.2 7 > 192.168.0.30 9 -");
        assert_eq!(flow(&ip(253, &[1; 9])), format!("ip-proto-253 {from_to} -"));
        let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &[2; 6], &A, &[0; 6], &B].concat();
        assert_eq!(flow(&network(0x806, arp)), format!("arp {from_to} request"));
        assert_eq!(flow(&network(0x88b5, vec![1; 60])), "0x88b5 - > - -");
        assert_eq!(flow(&network(0x88cc, vec![1; 60])), "lldp - > - -");
        assert_eq!(Flow::of(&Sample::default()), None);
    }

    #[test]
    fn a_header_that_is_none_is_not_believed() {
        // An offset into the payload, where no IPv4 header begins.
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4(A, B, 64);
        builder.udp(1, 2).write(&mut bytes, &[0; 60]).unwrap();
        let stale = Sample { network: Some(50), ..ethernet(0x800, bytes) };
        assert_eq!(flow(&stale), "udp 192.168.0.2 1 > 192.168.0.30 2 -");
        let beyond = Sample { network: Some(500), ..network(0x800, vec![0x45; 20]) };
        assert_eq!(flow(&beyond), "ipv4 - > - -");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            protocol in prop_oneof![
                any::<u16>(), Just(0x800), Just(0x86dd), Just(0x806), Just(0x8100), Just(0x88e5),
            ],
            mut packet in prop::collection::vec(any::<u8>(), 0..260),
            version in prop_oneof![Just(None), Just(Some(0x45)), Just(Some(0x60)), Just(Some(0x4f))],
            link_header: bool,
            network in prop::option::of(0..300_usize),
        ) {
            let at = network.unwrap_or(14);
            if let (Some(version), Some(byte)) = (version, packet.get_mut(at)) {
                *byte = version;
            }
            let sample = Sample { protocol, packet, link_header, network, ..Sample::default() };
            let flow = Flow::of(&sample);
            prop_assert!(flow.is_some() || protocol == 0);
        }
    }
}
