//! What ctnetlink answers (include/uapi/linux/netfilter/nfnetlink_conntrack.h; numbers in network
//! byte order).

use super::super::netlink::{address, attributes};
use crate::report::conntrack::{ConntrackCounter, ConntrackEntry, Endpoint};

/// `struct nfgenmsg` before the attributes: family, version, resource.
pub(super) const NFGENMSG: usize = 4;

/// `enum ctattr_type`
pub(super) mod entry {
    pub(in super::super) const TUPLE_ORIG: u16 = 1;
    pub(in super::super) const TUPLE_REPLY: u16 = 2;
    pub(in super::super) const STATUS: u16 = 3;
    pub(in super::super) const PROTOINFO: u16 = 4;
}

/// `enum ctattr_tuple`, `ctattr_ip` and `ctattr_l4proto`
pub(super) mod tuple {
    pub(in super::super) const IP: u16 = 1;
    pub(in super::super) const PROTO: u16 = 2;

    pub(in super::super) const V4_SRC: u16 = 1;
    pub(in super::super) const V4_DST: u16 = 2;
    pub(in super::super) const V6_SRC: u16 = 3;
    pub(in super::super) const V6_DST: u16 = 4;

    pub(in super::super) const PROTO_NUM: u16 = 1;
    pub(in super::super) const PROTO_SRC_PORT: u16 = 2;
    pub(in super::super) const PROTO_DST_PORT: u16 = 3;
}

/// `CTA_PROTOINFO_TCP_STATE`, `CTA_PROTOINFO_DCCP_STATE`, `CTA_PROTOINFO_SCTP_STATE`: the first
/// attribute of each protocol's own.
const PROTOINFO_STATE: u16 = 1;

/// `enum ctattr_stats_global`
const STATS_GLOBAL_ENTRIES: u16 = 1;
/// Linux 4.18.
const STATS_GLOBAL_MAX_ENTRIES: u16 = 2;

/// One direction of a connection.
#[derive(Clone, Copy)]
pub(super) struct Tuple {
    pub(super) protocol: u8,
    pub(super) source: Endpoint,
    pub(super) destination: Endpoint,
}

/// An entry of the table; `None` for what is not one, or has not all that one needs.
pub(super) fn entry(message: &[u8]) -> Option<ConntrackEntry> {
    let (mut original, mut reply, mut status, mut state) = (None, None, 0, None);
    for (kind, value) in attributes(message.get(NFGENMSG..)?) {
        match kind {
            entry::TUPLE_ORIG => original = Some(tuple(value)?),
            entry::TUPLE_REPLY => reply = Some(tuple(value)?),
            entry::STATUS => status = u32::from_be_bytes(value.try_into().ok()?),
            entry::PROTOINFO => state = protocol_state(value),
            _ => {}
        }
    }
    let (original, reply) = (original?, reply?);
    Some(ConntrackEntry {
        protocol: original.protocol,
        state,
        status,
        source: original.source.address,
        destination: original.destination,
        replier: reply.source,
    })
}

pub(super) fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let (mut from, mut to, mut protocol) = (None, None, None);
    let (mut from_port, mut to_port) = (None, None);
    for (kind, value) in attributes(bytes) {
        match kind {
            tuple::IP => {
                for (kind, value) in attributes(value) {
                    match kind {
                        tuple::V4_SRC | tuple::V6_SRC => from = Some(address(value)?),
                        tuple::V4_DST | tuple::V6_DST => to = Some(address(value)?),
                        _ => {}
                    }
                }
            }
            tuple::PROTO => {
                for (kind, value) in attributes(value) {
                    match kind {
                        tuple::PROTO_NUM => protocol = value.first().copied(),
                        tuple::PROTO_SRC_PORT => from_port = Some(port(value)?),
                        tuple::PROTO_DST_PORT => to_port = Some(port(value)?),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Tuple {
        protocol: protocol?,
        source: Endpoint { address: from?, port: from_port },
        destination: Endpoint { address: to?, port: to_port },
    })
}

fn port(value: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(value.try_into().ok()?))
}

/// The number of the state that a protocol with states of its own gives a connection.
fn protocol_state(bytes: &[u8]) -> Option<u8> {
    let (_, of_protocol) = attributes(bytes).next()?;
    let (_, value) = attributes(of_protocol).find(|(kind, _)| *kind == PROTOINFO_STATE)?;
    value.first().copied()
}

/// Entries and their limit, as a namespace reports them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EntryCounts {
    pub(super) entries: Option<u32>,
    pub(super) limit: Option<u32>,
}

pub(super) fn totals(message: &[u8]) -> EntryCounts {
    let mut totals = EntryCounts::default();
    for (kind, value) in numbers(message) {
        match kind {
            STATS_GLOBAL_ENTRIES => totals.entries = Some(value),
            STATS_GLOBAL_MAX_ENTRIES => totals.limit = Some(value),
            _ => {}
        }
    }
    totals
}

/// What one CPU has counted (`enum ctattr_stats_cpu`).
pub(super) fn counters(message: &[u8]) -> impl Iterator<Item = (ConntrackCounter, u32)> {
    numbers(message).filter_map(|(kind, value)| {
        let counter = match kind {
            2 => ConntrackCounter::Found,
            4 => ConntrackCounter::Invalid,
            8 => ConntrackCounter::Insert,
            9 => ConntrackCounter::InsertFailed,
            10 => ConntrackCounter::Drop,
            11 => ConntrackCounter::EarlyDrop,
            12 => ConntrackCounter::Error,
            13 => ConntrackCounter::SearchRestart,
            // Linux 5.10.
            14 => ConntrackCounter::ClashResolve,
            // Linux 5.15.
            15 => ConntrackCounter::ChainTooLong,
            _ => return None,
        };
        Some((counter, value))
    })
}

/// The attributes of a message that are 32-bit numbers.
fn numbers(message: &[u8]) -> impl Iterator<Item = (u16, u32)> {
    attributes(message.get(NFGENMSG..).unwrap_or_default())
        .filter_map(|(kind, value)| Some((kind, u32::from_be_bytes(value.try_into().ok()?))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::super::netlink::fixture::attribute, *};

    const NESTED: u16 = 0x8000;

    fn nest(kind: u16, inner: &[Vec<u8>]) -> Vec<u8> {
        attribute(kind | NESTED, &inner.concat())
    }

    /// A direction, as `ctnetlink_dump_tuples` writes it.
    fn direction(kind: u16, ip: &[Vec<u8>; 2], protocol: u8, ports: Option<[u16; 2]>) -> Vec<u8> {
        let mut above = vec![attribute(1, &[protocol])];
        if let Some([from, to]) = ports {
            above.push(attribute(2, &from.to_be_bytes()));
            above.push(attribute(3, &to.to_be_bytes()));
        }
        nest(kind, &[nest(1, ip), nest(2, &above)])
    }

    fn v4(from: [u8; 4], to: [u8; 4]) -> [Vec<u8>; 2] {
        [attribute(1, &from), attribute(2, &to)]
    }

    fn tcp() -> Vec<u8> {
        let (client, gateway, web) = ([192, 168, 0, 2], [192, 168, 0, 30], [192, 168, 0, 31]);
        [
            vec![2, 0, 0, 0],
            direction(1, &v4(client, gateway), 6, Some([40_000, 8080])),
            direction(2, &v4(web, client), 6, Some([80, 40_000])),
            attribute(3, &0x1a6_u32.to_be_bytes()),
            attribute(7, &117_u32.to_be_bytes()),
            nest(4, &[nest(1, &[attribute(1, &[7]), attribute(2, &[3])])]),
        ]
        .concat()
    }

    #[test]
    fn a_translated_connection() {
        let entry = entry(&tcp()).unwrap();
        assert_eq!((entry.protocol, entry.state, entry.status), (6, Some(7), 0x1a6));
        assert_eq!(entry.source.to_string(), "192.168.0.2");
        let endpoint = |text: &str, port| Endpoint { address: text.parse().unwrap(), port };
        assert_eq!(entry.destination, endpoint("192.168.0.30", Some(8080)));
        assert_eq!(entry.replier, endpoint("192.168.0.31", Some(80)));
    }

    #[test]
    fn ipv6_without_ports_or_state() {
        let (from, to) = ([0xfd; 16], [0xfe; 16]);
        let there = [attribute(3, &from), attribute(4, &to)];
        let back = [attribute(3, &to), attribute(4, &from)];
        let message = [
            vec![10, 0, 0, 0],
            direction(1, &there, 58, None),
            direction(2, &back, 58, None),
            attribute(3, &0_u32.to_be_bytes()),
        ]
        .concat();
        let entry = entry(&message).unwrap();
        assert_eq!((entry.protocol, entry.state), (58, None));
        assert_eq!(entry.destination, Endpoint { address: to.into(), port: None });
        assert_eq!(entry.replier, entry.destination);
    }

    #[test]
    fn what_is_cut_is_no_entry() {
        let whole = tcp();
        for length in 0..whole.len() {
            if let Some(cut) = entry(&whole[..length]) {
                assert_eq!(cut.source.to_string(), "192.168.0.2", "{length} bytes");
            }
        }
        assert_eq!(entry(&whole[..60]), None);
    }

    #[test]
    fn statistics() {
        let global = [
            vec![0; 4],
            attribute(1, &180_u32.to_be_bytes()),
            attribute(2, &1000_u32.to_be_bytes()),
        ]
        .concat();
        assert_eq!(totals(&global), EntryCounts { entries: Some(180), limit: Some(1000) });
        assert_eq!(totals(b"x"), EntryCounts::default());
        let cpu = [
            vec![0; 4],
            attribute(10, &7_u32.to_be_bytes()),
            attribute(11, &9_u32.to_be_bytes()),
            attribute(99, &1_u32.to_be_bytes()),
            attribute(2, b"short"),
        ]
        .concat();
        let read: Vec<_> = counters(&cpu).collect();
        assert_eq!(read, [(ConntrackCounter::Drop, 7), (ConntrackCounter::EarlyDrop, 9)]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (entry(&bytes), totals(&bytes), counters(&bytes).count());
        }

        /// Nearly right ones reach further in than random ones.
        #[test]
        fn no_damaged_entry_panics(
            damage in proptest::collection::vec((0_usize..200, any::<u8>()), 1..6),
        ) {
            let mut message = tcp();
            for (at, byte) in damage {
                let length = message.len();
                message[at % length] = byte;
            }
            let _ = entry(&message);
        }
    }
}
