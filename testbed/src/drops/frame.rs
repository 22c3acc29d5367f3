//! Ethernet frames, byte by byte: what no socket would send.

use std::net::SocketAddrV4;

/// A frame with an empty UDP datagram.
pub(super) struct Frame {
    pub(super) source: [u8; 6],
    pub(super) destination: [u8; 6],
    /// Identifier of an 802.1Q tag.
    pub(super) vlan: Option<u16>,
    pub(super) from: SocketAddrV4,
    pub(super) to: SocketAddrV4,
}

/// Bytes of a TCP header without options.
const TCP_HEADER: usize = 20;
/// Shortest Ethernet frame without its checksum, bytes; the rest is padding.
const SHORTEST: usize = 60;
const IPV4: u16 = 0x0800;
const VLAN: u16 = 0x8100;
const TCP: u8 = 6;
const UDP: u8 = 17;

impl Frame {
    pub(super) fn bytes(&self) -> Vec<u8> {
        // RFC 768: a checksum of 0 says that there is none.
        let fields = [self.from.port(), self.to.port(), 8, 0];
        self.around(UDP, &fields.map(u16::to_be_bytes).concat())
    }

    /// A connection attempt in place of the datagram.
    pub(super) fn syn(&self) -> Vec<u8> {
        let ports = [self.from.port(), self.to.port()].map(u16::to_be_bytes).concat();
        // RFC 9293: numbers, 5 words of header, SYN, a window.
        let rest = [0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, 2, 0xff, 0xff, 0, 0, 0, 0];
        let mut segment = [ports.as_slice(), &rest].concat();
        let sum = {
            let addresses = [self.from.ip().octets(), self.to.ip().octets()].concat();
            let pseudo = [&addresses[..], &[0, TCP, 0, TCP_HEADER as u8], &segment].concat();
            internet_checksum(&pseudo)
        };
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        self.around(TCP, &segment)
    }

    fn around(&self, protocol: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = [self.destination, self.source].concat();
        if let Some(vlan) = self.vlan {
            bytes.extend(VLAN.to_be_bytes());
            bytes.extend(vlan.to_be_bytes());
        }
        bytes.extend(IPV4.to_be_bytes());
        // RFC 791: 20 bytes of header, time to live 64.
        let length = 20 + content.len() as u8;
        let mut header =
            [0x45, 0, 0, length, 0, 0, 0, 0, 64, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        header[12..16].copy_from_slice(&self.from.ip().octets());
        header[16..20].copy_from_slice(&self.to.ip().octets());
        let checksum = internet_checksum(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend(header);
        bytes.extend(content);
        bytes.resize(bytes.len().max(SHORTEST), 0);
        bytes
    }
}

/// RFC 1071, of an even number of bytes.
pub(super) fn internet_checksum(bytes: &[u8]) -> u16 {
    let (words, _) = bytes.as_chunks();
    let mut sum: u32 = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(vlan: Option<u16>) -> Vec<u8> {
        let from = "198.18.1.2:40000".parse().unwrap();
        let to = "198.18.2.2:9".parse().unwrap();
        Frame { source: [2; 6], destination: [4; 6], vlan, from, to }.bytes()
    }

    #[test]
    fn a_tag_stands_between_addresses_and_type() {
        assert_eq!(frame(None)[10..16], [2, 2, 8, 0, 0x45, 0]);
        assert_eq!(frame(Some(7))[10..20], [2, 2, 0x81, 0, 0, 7, 8, 0, 0x45, 0]);
        assert_eq!(frame(None).len(), SHORTEST);
    }

    #[test]
    fn the_header_sums_up() {
        let frame = frame(None);
        assert_eq!(internet_checksum(&frame[14..34]), 0);
        assert_eq!(frame[34..38], [0x9c, 0x40, 0, 9]);
    }

    #[test]
    fn a_connection_attempt_sums_up_with_its_addresses() {
        let from = "198.18.1.2:40000".parse().unwrap();
        let to = "198.18.2.2:9".parse().unwrap();
        let syn = Frame { source: [2; 6], destination: [4; 6], vlan: None, from, to }.syn();
        let (addresses, segment) = (&syn[26..34], &syn[34..54]);
        assert_eq!(internet_checksum(&[addresses, &[0, TCP, 0, 20], segment].concat()), 0);
        assert_eq!(segment[13], 2, "SYN alone");
    }
}
