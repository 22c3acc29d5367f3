//! Reads captures back, twice: by a small reader here, and on hosts by tshark. Both must see the
//! same.

use std::net::{IpAddr, SocketAddr};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use testbed::machine::is_guest;

use crate::pcapng::dissected;

/// A packet of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Captured {
    pub(crate) interface: String,
    pub(crate) comment: String,
    pub(crate) protocol: u8,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
}

/// The UDP and TCP packets of a file, which must be made of whole blocks.
pub(crate) fn packets(file: &[u8]) -> Vec<Captured> {
    let found = parsed(file);
    if is_guest() {
        println!("tshark has no say: guests have none");
    } else {
        assert_eq!(found, told_by_tshark(file));
    }
    found
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// The text of an option; `rest` is where the options begin.
fn option(mut rest: &[u8], code: usize) -> String {
    loop {
        let head = u32_at(rest, 0);
        let (found, length) = (head & 0xffff, head >> 16);
        if found == code {
            return String::from_utf8(rest[4..4 + length].to_vec()).unwrap();
        }
        assert_ne!(found, 0, "no option {code}");
        rest = &rest[4 + length.next_multiple_of(4)..];
    }
}

fn parsed(mut file: &[u8]) -> Vec<Captured> {
    let (mut interfaces, mut found) = (Vec::new(), Vec::new());
    assert_eq!(file[..4], [0x0a, 0x0d, 0x0d, 0x0a], "begins with a section");
    while !file.is_empty() {
        let length = u32_at(file, 4);
        let (block, rest) = file.split_at(length);
        assert_eq!(u32_at(block, length - 4), length, "a whole block");
        file = rest;
        let body = &block[8..length - 4];
        match u32_at(block, 0) {
            1 => interfaces.push((body[0], option(&body[8..], 2))),
            6 => {
                let (link_type, interface) = &interfaces[u32_at(body, 0)];
                let length = u32_at(body, 12);
                let comment = option(&body[20 + length.next_multiple_of(4)..], 1);
                found.extend(flow(*link_type, &body[20..20 + length]).map(
                    |(protocol, from, to)| {
                        let interface = interface.clone();
                        Captured { interface, comment, protocol, from, to }
                    },
                ));
            }
            _ => {}
        }
    }
    found
}

/// Protocol number, source and destination of a UDP or TCP packet.
fn flow(link_type: u8, bytes: &[u8]) -> Option<(u8, SocketAddr, SocketAddr)> {
    let packet = match link_type {
        1 => LaxSlicedPacket::from_ethernet(bytes).ok()?,
        101 => LaxSlicedPacket::from_ip(bytes).ok()?,
        _ => return None,
    };
    let (from, to): (IpAddr, IpAddr) = match packet.net? {
        LaxNetSlice::Ipv4(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        LaxNetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        LaxNetSlice::Arp(_) => return None,
    };
    let (protocol, ports) = match packet.transport? {
        TransportSlice::Udp(udp) => (17, (udp.source_port(), udp.destination_port())),
        TransportSlice::Tcp(tcp) => (6, (tcp.source_port(), tcp.destination_port())),
        _ => return None,
    };
    Some((protocol, SocketAddr::new(from, ports.0), SocketAddr::new(to, ports.1)))
}

fn told_by_tshark(file: &[u8]) -> Vec<Captured> {
    const FIELDS: [&str; 12] = [
        "frame.interface_name",
        "frame.comment",
        "ip.proto",
        "ip.src",
        "ip.dst",
        "ipv6.src",
        "ipv6.dst",
        "udp.srcport",
        "udp.dstport",
        "tcp.srcport",
        "tcp.dstport",
        "_ws.malformed",
    ];
    let of = |row: Vec<String>| {
        let [interface, comment, _, v4, to4, v6, to6, udp, to_udp, tcp, to_tcp, malformed] =
            <[String; 12]>::try_from(row).unwrap();
        assert_eq!(malformed, "", "{comment}");
        let protocol = if tcp.is_empty() { 17 } else { 6 };
        let address = |ip: String, port: String| -> Option<SocketAddr> {
            Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
        };
        let from = address(v4 + &v6, udp + &tcp)?;
        let to = address(to4 + &to6, to_udp + &to_tcp)?;
        Some(Captured { interface, comment, protocol, from, to })
    };
    dissected(file, &FIELDS).into_iter().filter_map(of).collect()
}
