//! What a dropped packet carries: the packet inside of a tunnel's.
//!
//! One layer of VXLAN, Geneve, GRE, or IP in IP. Bytes are foreign and cut off, so a header counts only
//! where all of it is there, says what it must, and leads to a network header; else nothing is said.

use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket};
use serde::{Deserialize, Serialize};

use super::{
    flow::Flow,
    protocol::{
        Term,
        number::{GRE, UDP},
    },
    sample::Sample,
};

/// Protocols above IP whose packets carry IP (IANA, protocol numbers).
const IPV4_IN_IP: u8 = 4;
const IPV6_IN_IP: u8 = 41;
/// Ethertypes (include/uapi/linux/if_ether.h): what a tunnel says that it carries.
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
/// A whole Ethernet frame (`ETH_P_TEB`).
const ETH_P_TEB: u16 = 0x6558;
/// UDP ports of VXLAN: IANA's (RFC 7348), and what Linux takes unless told otherwise.
const VXLAN: [u16; 2] = [4789, 8472];
/// UDP port of Geneve (RFC 8926).
const GENEVE: u16 = 6081;

/// A packet inside of another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inner {
    /// `vxlan`, `geneve`, `gre`, `ipip`.
    pub tunnel: Term,
    /// Network identifier of VXLAN and Geneve, key of GRE.
    pub tunnel_id: Option<u32>,
    pub flow: Flow,
}

impl Inner {
    /// What a sampled packet carries; `None` where it is not seen to carry a packet.
    pub fn of(sample: &Sample) -> Option<Self> {
        let network = sample.network.and_then(|at| sample.packet.get(at..));
        let packet = match network {
            Some(bytes) => LaxSlicedPacket::from_ether_type(EtherType(sample.protocol), bytes),
            None if sample.link_header => LaxSlicedPacket::from_ethernet(&sample.packet).ok()?,
            None => return None,
        };
        let (number, fragmented, bytes) = match packet.net? {
            LaxNetSlice::Ipv4(ip) => {
                let payload = ip.payload();
                (payload.ip_number.0, payload.fragmented, payload.payload)
            }
            LaxNetSlice::Ipv6(ip) => {
                let payload = ip.payload();
                (payload.ip_number.0, payload.fragmented, payload.payload)
            }
            LaxNetSlice::Arp(_) => return None,
        };
        // Behind the header of a later fragment there is data, and a first one is rare.
        if fragmented {
            return None;
        }
        match number {
            IPV4_IN_IP => Self::carried("ipip", None, ETH_P_IP, bytes),
            IPV6_IN_IP => Self::carried("ipip", None, ETH_P_IPV6, bytes),
            GRE => Self::of_gre(bytes),
            UDP => Self::of_udp(bytes),
            _ => None,
        }
    }

    fn carried(tunnel: &'static str, id: Option<u32>, kind: u16, bytes: &[u8]) -> Option<Self> {
        let flow = match kind {
            ETH_P_TEB => Flow::of_frame(bytes)?,
            ETH_P_IP | ETH_P_IPV6 => Flow::of_bytes(kind, bytes)?,
            _ => return None,
        };
        Some(Self { tunnel: tunnel.into(), tunnel_id: id, flow })
    }

    /// RFC 2784, with the key and the sequence number of RFC 2890.
    fn of_gre(bytes: &[u8]) -> Option<Self> {
        const CHECKSUM: u16 = 0x8000;
        const KEY: u16 = 0x2000;
        const SEQUENCE: u16 = 0x1000;
        let flags = u16_at(bytes, 0)?;
        // Others are of another version, or of what nobody sends any more.
        if flags & !(CHECKSUM | KEY | SEQUENCE) != 0 {
            return None;
        }
        let length = |flag| if flags & flag == 0 { 0 } else { 4 };
        let key = 4 + length(CHECKSUM);
        let rest = bytes.get(key + length(KEY) + length(SEQUENCE)..)?;
        let id = if flags & KEY == 0 { None } else { Some(u32_at(bytes, key)?) };
        Self::carried("gre", id, u16_at(bytes, 2)?, rest)
    }

    fn of_udp(bytes: &[u8]) -> Option<Self> {
        let to = u16_at(bytes, 2)?;
        let bytes = bytes.get(8..)?;
        if VXLAN.contains(&to) {
            Self::of_vxlan(bytes)
        } else if to == GENEVE {
            Self::of_geneve(bytes)
        } else {
            None
        }
    }

    /// RFC 7348: a flag, the identifier's 24 bits, and zeros.
    fn of_vxlan(bytes: &[u8]) -> Option<Self> {
        let (flags, id) = (u32_at(bytes, 0)?, u32_at(bytes, 4)?);
        if flags != 0x0800_0000 || id & 0xff != 0 {
            return None;
        }
        Self::carried("vxlan", Some(id >> 8), ETH_P_TEB, bytes.get(8..)?)
    }

    /// RFC 8926: version, length of the options, what it carries, the identifier's 24 bits.
    fn of_geneve(bytes: &[u8]) -> Option<Self> {
        let (first, id) = (*bytes.first()?, u32_at(bytes, 4)?);
        if first >> 6 != 0 || id & 0xff != 0 {
            return None;
        }
        let rest = bytes.get(8 + 4 * usize::from(first & 0x3f)..)?;
        Self::carried("geneve", Some(id >> 8), u16_at(bytes, 2)?, rest)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(u16_at(bytes, at)?) << 16 | u32::from(u16_at(bytes, at + 2)?))
}

#[cfg(test)]
mod tests {
    use etherparse::{IpNumber, Ipv4Header, PacketBuilder};
    use proptest::prelude::*;

    use super::*;

    /// What the tunnel carries: a segment, as a frame and as a packet.
    fn carried() -> [Vec<u8>; 2] {
        let mut frame = Vec::new();
        let builder =
            PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        builder.tcp(40_000, 80, 7, 100).syn().write(&mut frame, b"").unwrap();
        let packet = frame[14..].to_vec();
        [frame, packet]
    }

    fn ip(number: u8, payload: &[u8]) -> Sample {
        let header = Ipv4Header::new(payload.len() as u16, 64, IpNumber(number), [1; 4], [2; 4]);
        let packet = [&header.unwrap().to_bytes()[..], payload].concat();
        Sample { protocol: ETH_P_IP, packet, network: Some(0), ..Sample::default() }
    }

    fn udp(port: u16, payload: &[u8]) -> Sample {
        let length = 8 + payload.len() as u16;
        let header = [40_001_u16, port, length, 0].map(u16::to_be_bytes).concat();
        ip(UDP, &[&header, payload].concat())
    }

    fn words(sample: &Sample) -> Option<String> {
        let Inner { tunnel, tunnel_id, flow } = Inner::of(sample)?;
        let (src, dst) = (flow.src?, flow.dst?);
        Some(format!(
            "{tunnel} {tunnel_id:?} {}:{} {}:{}",
            src, flow.src_port?, dst, flow.dst_port?
        ))
    }

    const ENDS: &str = "10.0.0.1:40000 10.0.0.2:80";

    #[test]
    fn each_tunnel_shows_what_it_carries() {
        let [frame, packet] = carried();
        let with = |header: &[u8], rest: &[u8]| [header, rest].concat();
        for (sample, expected) in [
            (ip(4, &packet), "ipip None"),
            (ip(GRE, &with(&[0, 0, 8, 0], &packet)), "gre None"),
            (ip(GRE, &with(&[0, 0, 0x65, 0x58], &frame)), "gre None"),
            (
                ip(GRE, &with(&[0xb0, 0, 8, 0, 1, 2, 0, 0, 0, 0, 0, 9, 0, 0, 0, 7], &packet)),
                "gre Some(9)",
            ),
            (udp(4789, &with(&[8, 0, 0, 0, 0, 0, 42, 0], &frame)), "vxlan Some(42)"),
            (udp(8472, &with(&[8, 0, 0, 0, 1, 0, 0, 0], &frame)), "vxlan Some(65536)"),
            (udp(6081, &with(&[0, 0, 0x65, 0x58, 0, 0, 7, 0], &frame)), "geneve Some(7)"),
            (udp(6081, &with(&[1, 0, 8, 0, 0, 0, 7, 0, 9, 9, 9, 9], &packet)), "geneve Some(7)"),
        ] {
            assert_eq!(words(&sample), Some(format!("{expected} {ENDS}")));
            // The outer flow stays what it is.
            assert_eq!(Flow::of(&sample).and_then(|flow| flow.src), Some([1, 1, 1, 1].into()));
        }
    }

    #[test]
    fn what_is_no_tunnel_carries_nothing() {
        let [frame, packet] = carried();
        let vxlan = [&[8, 0, 0, 0, 0, 0, 42, 0][..], &frame].concat();
        for sample in [
            ip(6, &packet[20..]),
            udp(53, &vxlan),
            // Not its header: no flag, or bits that must be zero.
            udp(4789, &[&[0; 8][..], &frame].concat()),
            udp(4789, &[&[8, 0, 0, 1, 0, 0, 42, 0][..], &frame].concat()),
            udp(6081, &[&[0x40, 0, 0x65, 0x58, 0, 0, 7, 0][..], &frame].concat()),
            // Of another version, or with a route.
            ip(GRE, &[&[0, 1, 8, 0][..], &packet].concat()),
            ip(GRE, &[&[0x40, 0, 8, 0][..], &packet].concat()),
            // Says IPv4 and has none.
            ip(GRE, &[0, 0, 8, 0, 0x60, 1, 2, 3]),
            ip(4, &[]),
            Sample::default(),
        ] {
            assert_eq!(Inner::of(&sample), None, "{sample:?}");
        }
        // Cut off before the inner header, at every byte.
        let whole = udp(4789, &vxlan);
        for length in 0..whole.packet.len() {
            let cut = Sample { packet: whole.packet[..length].to_vec(), ..whole.clone() };
            assert!(Inner::of(&cut).is_none_or(|_| length >= 20 + 8 + 8 + 14 + 20), "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            number in prop_oneof![Just(4), Just(41), Just(GRE), Just(UDP), any::<u8>()],
            port in prop_oneof![Just(4789), Just(8472), Just(6081), any::<u16>()],
            header in prop_oneof![
                Just(vec![]),
                Just(vec![8, 0, 0, 0, 0, 0, 42, 0]),
                Just(vec![0, 0, 0x65, 0x58, 0, 0, 7, 0]),
                Just(vec![0xb0, 0, 8, 0]),
            ],
            rest in prop::collection::vec(any::<u8>(), 0..240),
            link_header: bool,
            network in prop::option::of(0..300_usize),
        ) {
            let payload = [header, rest].concat();
            let sample = if number == UDP { udp(port, &payload) } else { ip(number, &payload) };
            let _ = Inner::of(&sample);
            let _ = Inner::of(&Sample { link_header, network, ..sample });
        }
    }
}
