//! Ethernet frames, byte by byte: what no socket would send.

use std::net::SocketAddrV4;

/// A frame with an empty UDP datagram.
pub(crate) struct Frame {
    pub(crate) source: [u8; 6],
    pub(crate) destination: [u8; 6],
    /// Identifier of an 802.1Q tag.
    pub(crate) vlan: Option<u16>,
    pub(crate) from: SocketAddrV4,
    pub(crate) to: SocketAddrV4,
}

/// Flags of TCP (RFC 9293).
const SYN: u8 = 2;
const PUSH: u8 = 8;
const ACK: u8 = 16;
/// Shortest Ethernet frame without its checksum, bytes; the rest is padding.
const SHORTEST: usize = 60;
const IPV4: u16 = 0x0800;
const VLAN: u16 = 0x8100;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// RFC 791.
const MORE_FRAGMENTS: u16 = 0x2000;

impl Frame {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        // RFC 768: a checksum of 0 says that there is none.
        let fields = [self.from.port(), self.to.port(), 8, 0];
        self.around(UDP, &fields.map(u16::to_be_bytes).concat())
    }

    /// A connection attempt in place of the datagram.
    pub(crate) fn syn(&self) -> Vec<u8> {
        self.segment(1, 0, SYN, &[])
    }

    /// Data of a connection in place of the datagram, at this place in its stream.
    pub(crate) fn data(&self, sequence: u32, acknowledged: u32) -> Vec<u8> {
        self.segment(sequence, acknowledged, PUSH | ACK, b"late")
    }

    /// A segment of TCP in place of the datagram.
    pub(crate) fn segment(
        &self,
        sequence: u32,
        acknowledged: u32,
        flags: u8,
        data: &[u8],
    ) -> Vec<u8> {
        let ports = [self.from.port(), self.to.port()].map(u16::to_be_bytes).concat();
        let numbers = [sequence, acknowledged].map(u32::to_be_bytes).concat();
        // RFC 9293: 5 words of header, flags, a window.
        let rest = [5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0];
        let mut segment = [&ports, &numbers, &rest[..], data].concat();
        let sum = {
            let addresses = [self.from.ip().octets(), self.to.ip().octets()].concat();
            let pseudo = [&addresses[..], &[0, TCP, 0, segment.len() as u8], &segment].concat();
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

    /// The frame's bytes as the first fragment of datagram number `id`; more are to come.
    pub(crate) fn first_fragment(&self, id: u16) -> Vec<u8> {
        let mut bytes = self.bytes();
        let header = self.header();
        let ip = &mut bytes[header..][..20];
        ip[4..6].copy_from_slice(&id.to_be_bytes());
        ip[6..8].copy_from_slice(&MORE_FRAGMENTS.to_be_bytes());
        ip[10..12].fill(0);
        let checksum = internet_checksum(ip);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// The frame's bytes with a UDP checksum that is wrong.
    pub(crate) fn damaged(&self) -> Vec<u8> {
        let mut bytes = self.bytes();
        let checksum = self.header() + 26;
        bytes[checksum..][..2].copy_from_slice(&self.wrong_checksum().to_be_bytes());
        bytes
    }

    /// Where the IPv4 header begins.
    fn header(&self) -> usize {
        if self.vlan.is_some() { 18 } else { 14 }
    }

    /// One more than the checksum of the pseudo header and the UDP header (RFC 768); never 0.
    fn wrong_checksum(&self) -> u16 {
        let ports = [self.from.port(), self.to.port()].map(u16::to_be_bytes);
        let mut bytes = [self.from.ip().octets(), self.to.ip().octets()].concat();
        bytes.extend([0, UDP, 0, 8]);
        bytes.extend(ports.concat());
        bytes.extend([0, 8, 0, 0]);
        internet_checksum(&bytes).checked_add(1).unwrap_or(1)
    }
}

/// RFC 1071, of an even number of bytes.
pub(crate) fn internet_checksum(bytes: &[u8]) -> u16 {
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

    fn datagram(vlan: Option<u16>) -> Frame {
        let from = "198.18.1.2:40000".parse().unwrap();
        let to = "198.18.2.2:9".parse().unwrap();
        Frame { source: [2; 6], destination: [4; 6], vlan, from, to }
    }

    fn frame(vlan: Option<u16>) -> Vec<u8> {
        datagram(vlan).bytes()
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

    #[test]
    fn a_first_fragment_has_a_number_and_sums_up() {
        for vlan in [None, Some(7)] {
            let frame = datagram(vlan).first_fragment(0x1234);
            let ip = &frame[datagram(vlan).header()..][..20];
            assert_eq!(ip[4..8], [0x12, 0x34, 0x20, 0]);
            assert_eq!(internet_checksum(ip), 0);
        }
    }

    #[test]
    fn a_damaged_datagram_has_a_checksum_that_is_not_its_own() {
        let damaged = datagram(None).damaged();
        assert_eq!(damaged[..40], frame(None)[..40]);
        let sum = u16::from_be_bytes([damaged[40], damaged[41]]);
        assert_ne!(sum, 0, "there would be none");
        let pseudo = [&damaged[26..34], &[0, UDP, 0, 8], &damaged[34..42]].concat();
        assert_ne!(internet_checksum(&pseudo), 0);
    }
}
