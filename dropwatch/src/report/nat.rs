//! What address translation makes of a dropped packet's connection.
//!
//! Connection tracking knows a connection by two tuples: its first packet's, and the one that answers
//! are to have. Where the second is not the first turned round, addresses are translated. The bytes are
//! the kernel's, and count only where they are what both must be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dropwatch_common::sample::TUPLE;
use serde::{Deserialize, Serialize};

use super::{
    protocol::number::{DCCP, SCTP, TCP, UDP, UDP_LITE},
    sample::Sample,
};

/// `AF_INET`, `AF_INET6` (include/linux/socket.h).
const INET: u16 = 2;
const INET6: u16 = 10;

/// A connection whose addresses are translated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nat {
    /// Of its first packet, before any translation.
    pub original: Ends,
    /// Of the answers, before they are translated back.
    pub reply: Ends,
}

/// From where to where; ports where the protocol has any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    pub src: IpAddr,
    pub src_port: Option<u16>,
    pub dst: IpAddr,
    pub dst_port: Option<u16>,
}

impl Nat {
    /// That of a sampled packet; `None` where its connection is not known, or not translated.
    pub fn of(sample: &Sample) -> Option<Self> {
        let [original, reply] = sample.tuples.as_ref()?;
        let (original, protocol) = Ends::decode(original, 0)?;
        let (reply, answers) = Ends::decode(reply, 1)?;
        let turned = Ends {
            src: original.dst,
            src_port: original.dst_port,
            dst: original.src,
            dst_port: original.src_port,
        };
        (protocol == answers && reply != turned).then_some(Self { original, reply })
    }
}

impl Ends {
    /// A `struct nf_conntrack_tuple` of a direction, and its protocol: `src.u3`, 16 bytes; `src.u`, 2;
    /// `src.l3num`, 2; `dst.u3`, 16; `dst.u`, 2; `dst.protonum`; `dst.dir`.
    fn decode(tuple: &[u8; TUPLE], direction: u8) -> Option<(Self, u8)> {
        let family = u16::from_ne_bytes([tuple[18], tuple[19]]);
        let protocol = tuple[38];
        if tuple[39] != direction {
            return None;
        }
        let address = |at: usize| {
            let bytes: [u8; 16] = tuple.get(at..at + 16)?.try_into().ok()?;
            match family {
                INET => Some(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()),
                INET6 => Some(Ipv6Addr::from(bytes).into()),
                _ => None,
            }
        };
        let has_ports = matches!(protocol, TCP | UDP | DCCP | SCTP | UDP_LITE);
        let port = |at: usize| has_ports.then(|| u16::from_be_bytes([tuple[at], tuple[at + 1]]));
        let (src, dst): (Option<IpAddr>, Option<IpAddr>) = (address(0), address(20));
        let ends = Self { src: src?, src_port: port(16), dst: dst?, dst_port: port(36) };
        Some((ends, protocol))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tuple(src: ([u8; 4], u16), dst: ([u8; 4], u16), protocol: u8, direction: u8) -> [u8; TUPLE] {
        let mut tuple = [0; TUPLE];
        tuple[..4].copy_from_slice(&src.0);
        tuple[16..18].copy_from_slice(&src.1.to_be_bytes());
        tuple[18..20].copy_from_slice(&INET.to_ne_bytes());
        tuple[20..24].copy_from_slice(&dst.0);
        tuple[36..38].copy_from_slice(&dst.1.to_be_bytes());
        (tuple[38], tuple[39]) = (protocol, direction);
        tuple
    }

    fn of(original: [u8; TUPLE], reply: [u8; TUPLE]) -> Option<Nat> {
        Nat::of(&Sample { tuples: Some([original, reply]), ..Sample::default() })
    }

    const CLIENT: ([u8; 4], u16) = ([192, 168, 0, 2], 40_000);
    const GATEWAY: ([u8; 4], u16) = ([198, 18, 1, 1], 8080);
    const SERVER: ([u8; 4], u16) = ([198, 18, 2, 2], 80);

    #[test]
    fn a_translated_connection_shows_both_ways() {
        let nat = of(tuple(CLIENT, GATEWAY, TCP, 0), tuple(SERVER, CLIENT, TCP, 1)).unwrap();
        let words = |ends: &Ends| {
            let port = |port: Option<u16>| port.map_or(String::new(), |port| format!(":{port}"));
            format!("{}{} {}{}", ends.src, port(ends.src_port), ends.dst, port(ends.dst_port))
        };
        assert_eq!(words(&nat.original), "192.168.0.2:40000 198.18.1.1:8080");
        assert_eq!(words(&nat.reply), "198.18.2.2:80 192.168.0.2:40000");
        // What stands there of a ping is its identifier, no port.
        let nat = of(tuple(CLIENT, GATEWAY, 1, 0), tuple(SERVER, CLIENT, 1, 1)).unwrap();
        assert_eq!(words(&nat.original), "192.168.0.2 198.18.1.1");
    }

    #[test]
    fn what_is_not_translated_or_no_tuple_is_nothing() {
        let plain = (tuple(CLIENT, SERVER, UDP, 0), tuple(SERVER, CLIENT, UDP, 1));
        assert_eq!(of(plain.0, plain.1), None);
        let translated = tuple(GATEWAY, CLIENT, UDP, 1);
        assert!(of(plain.0, translated).is_some());
        // The other way round, another protocol, another family.
        assert_eq!(of(translated, plain.0), None);
        assert_eq!(of(plain.0, tuple(GATEWAY, CLIENT, TCP, 1)), None);
        let mut strange = plain.0;
        strange[18] = 9;
        assert_eq!(of(strange, translated), None);
        assert_eq!(Nat::of(&Sample::default()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(original: [u8; TUPLE], reply: [u8; TUPLE], family in 0..12_u8) {
            let _ = of(original, reply);
            let shaped = |mut tuple: [u8; TUPLE], direction| {
                (tuple[18], tuple[19], tuple[39]) = (family, 0, direction);
                tuple
            };
            let _ = of(shaped(original, 0), shaped(reply, 1));
        }
    }
}
