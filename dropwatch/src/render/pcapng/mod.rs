//! Sampled packets as pcapng, the capture format of Wireshark and tshark.
//!
//! The link types are registered at <https://www.tcpdump.org/linktypes.html>. Only three kinds of
//! block are ever written, so the writer is here rather than in a library.
//!
//! An interface of the file is a device of one network namespace seen with one link type. It is
//! described before its first packet, so the file is valid after every call. The bytes of one call
//! belong together: whoever writes them must stop where a part of them could not be written, since
//! later packets refer to the interfaces described before.

mod blocks;

use std::{borrow::Cow, collections::HashMap};

use self::blocks::{block, option, pad, write_block, write_option, write_text};
use super::clean;
use crate::report::sample::Sample;

/// Most interfaces described in one file; packets of further ones share one for each link type.
const MAX_INTERFACES: usize = 4096;
/// Most bytes of headers that the network stack has stripped from a packet when it drops it: link,
/// network and transport header. Past it, a length field in the packet is not believed.
const MAX_STRIPPED: u64 = 256;
/// Most bytes of a packet in the file; a record of the kernel side holds far less.
const MAX_CAPTURED: usize = 64 << 10;
/// Bytes of a cooked header.
const COOKED_HEADER: usize = 16;

/// A sampled drop with the names that go with it.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    pub sample: &'a Sample,
    /// Wall-clock time of the drop, nanoseconds since 1970-01-01 00:00:00 UTC.
    pub time: u64,
    /// Where it was dropped, such as `nf_hook_slow+0x7d`.
    pub location: &'a str,
    /// `None` where the kernel gives no reason.
    pub reason: Option<&'a str>,
    /// Name of the namespace `sample.netns`; its number is shown where it has none.
    pub netns: Option<&'a str>,
    /// Name of the device `sample.ifindex`; its index is shown where it has none.
    pub interface: Option<&'a str>,
}

/// How a packet's bytes begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum LinkType {
    Ethernet,
    /// An IPv4 or IPv6 header, told apart by the version in it.
    RawIp,
    /// A header made here that carries the ethertype (Linux cooked capture), for what has no link
    /// header and is not IP.
    Cooked,
}

impl LinkType {
    /// `LINKTYPE_ETHERNET`, `LINKTYPE_RAW`, `LINKTYPE_LINUX_SLL`.
    fn number(self) -> u16 {
        match self {
            Self::Ethernet => 1,
            Self::RawIp => 101,
            Self::Cooked => 113,
        }
    }
}

/// What tells one interface from another: name, numbers, link type. The name belongs to it, since
/// the number of a namespace that is gone is given to a new one.
type InterfaceKey = (String, Option<u32>, Option<u32>, LinkType);

/// Turns packets into a pcapng file, piece by piece.
#[derive(Clone, Debug, Default)]
pub struct Pcapng {
    interfaces: HashMap<InterfaceKey, u32>,
}

impl Pcapng {
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends what the file begins with. `kernel` is the release of the host's.
    pub fn header(&self, kernel: &str, page: &mut Vec<u8>) {
        write_block(page, block::SECTION_HEADER, |body| {
            body.extend(0x1A2B_3C4D_u32.to_le_bytes()); // byte-order magic
            body.extend([1, 0, 0, 0]); // version 1.0
            body.extend((-1_i64).to_le_bytes()); // section length: not known
            write_text(body, option::SECTION_OS, &format!("Linux {kernel}"));
            let application = concat!("dropwatch ", env!("CARGO_PKG_VERSION"));
            write_text(body, option::SECTION_APPLICATION, application);
            write_option(body, option::END, &[]);
        });
    }

    /// Appends one packet, after the description of its interface where it is the first there.
    pub fn packet(&mut self, packet: &Packet<'_>, page: &mut Vec<u8>) {
        let sample = packet.sample;
        let (link_type, bytes) = captured(sample);
        let interface = self.interface(packet, link_type, page);
        // Each length is that of a few headers or of `sample.packet`, which the ring buffer bounds;
        // a longer one could not be described, so it is cut.
        let bytes = bytes.get(..MAX_CAPTURED).unwrap_or(&bytes);
        let original = original_length(sample, link_type).max(bytes.len() as u64);
        write_block(page, block::ENHANCED_PACKET, |body| {
            body.extend(interface.to_le_bytes());
            body.extend(((packet.time >> 32) as u32).to_le_bytes());
            body.extend((packet.time as u32).to_le_bytes());
            body.extend((bytes.len() as u32).to_le_bytes());
            body.extend(u32::try_from(original).unwrap_or(u32::MAX).to_le_bytes());
            body.extend(bytes);
            pad(body);
            write_text(body, option::COMMENT, &comment(packet));
            let direction: u32 = if sample.outgoing { 2 } else { 1 };
            write_option(body, option::PACKET_FLAGS, &direction.to_le_bytes());
            write_option(body, option::END, &[]);
        });
    }

    /// Number of the packet's interface, which is described first if it is new.
    fn interface(&mut self, packet: &Packet<'_>, link_type: LinkType, page: &mut Vec<u8>) -> u32 {
        let sample = packet.sample;
        let mut key = (interface_name(packet), sample.netns, sample.ifindex, link_type);
        if !self.interfaces.contains_key(&key) && self.interfaces.len() >= MAX_INTERFACES {
            key = ("other".to_owned(), None, None, link_type);
        }
        let next = self.interfaces.len() as u32;
        if let Some(&known) = self.interfaces.get(&key) {
            return known;
        }
        write_block(page, block::INTERFACE, |body| {
            body.extend(link_type.number().to_le_bytes());
            body.extend([0; 2]);
            body.extend([0; 4]); // longest packet: no limit stated
            write_text(body, option::INTERFACE_NAME, &key.0);
            write_option(body, option::INTERFACE_TIME_RESOLUTION, &[9]); // 10⁻⁹ s
            write_option(body, option::END, &[]);
        });
        self.interfaces.insert(key, next);
        next
    }
}

/// The packet's bytes from the outermost header that is known, and what that header is.
fn captured(sample: &Sample) -> (LinkType, Cow<'_, [u8]>) {
    let bytes = sample.packet.as_slice();
    if sample.link_header {
        return (LinkType::Ethernet, bytes.into());
    }
    let bytes = sample.network.and_then(|at| bytes.get(at..)).unwrap_or(bytes);
    match bytes.first().map(|byte| byte >> 4) {
        Some(4 | 6) if is_ip(sample.protocol) => (LinkType::RawIp, bytes.into()),
        _ => {
            let mut cooked = Vec::with_capacity(COOKED_HEADER + bytes.len());
            let packet_type: u16 = if sample.outgoing { 4 } else { 0 }; // sent by us, or to us
            cooked.extend(packet_type.to_be_bytes());
            cooked.extend(0xFFFE_u16.to_be_bytes()); // ARPHRD_NONE: no kind of device is claimed
            cooked.extend([0; 10]); // no address
            cooked.extend(sample.protocol.to_be_bytes());
            cooked.extend(bytes);
            (LinkType::Cooked, cooked.into())
        }
    }
}

/// `ETH_P_IP` or `ETH_P_IPV6`.
fn is_ip(ethertype: u16) -> bool {
    matches!(ethertype, 0x0800 | 0x86DD)
}

/// Length of the whole packet with the header that its bytes begin with, as far as it can be told.
///
/// `sample.length` leaves out the headers that were stripped before the drop. The IP header knows
/// the length from its own start; it is believed where the two can belong to the same packet.
fn original_length(sample: &Sample, link_type: LinkType) -> u64 {
    let known = u64::from(sample.length);
    let ip = sample.network.and_then(|at| {
        let header = sample.packet.get(at..)?;
        let before = if link_type == LinkType::Ethernet { at as u64 } else { 0 };
        Some(before + ip_length(header).filter(|_| is_ip(sample.protocol))?)
    });
    let length = ip.filter(|ip| (known..=known + MAX_STRIPPED).contains(ip)).unwrap_or(known);
    length + if link_type == LinkType::Cooked { COOKED_HEADER as u64 } else { 0 }
}

/// Length that an IP header gives of itself and what follows: "Total Length" (RFC 791), or
/// "Payload Length" plus the fixed header (RFC 8200).
fn ip_length(header: &[u8]) -> Option<u64> {
    let field =
        |at: usize| Some(u64::from(u16::from_be_bytes([*header.get(at)?, *header.get(at + 1)?])));
    match header.first()? >> 4 {
        4 => field(2),
        6 => Some(field(4)? + 40),
        _ => None,
    }
}

/// `gw/eth0`; numbers where there are no names.
fn interface_name(packet: &Packet<'_>) -> String {
    let netns = netns(packet);
    match (packet.interface, packet.sample.ifindex) {
        (Some(name), _) => format!("{netns}/{}", clean(name)),
        (None, Some(index)) => format!("{netns}/if{index}"),
        (None, None) => format!("{netns}/unknown"),
    }
}

fn netns<'a>(packet: &Packet<'a>) -> Cow<'a, str> {
    match (packet.netns, packet.sample.netns) {
        (Some(name), _) => clean(name),
        (None, Some(inum)) => inum.to_string().into(),
        (None, None) => "unknown".into(),
    }
}

/// `dropped at nf_hook_slow+0x7d (NETFILTER_DROP), netns gw, stands for 40 drops`
fn comment(packet: &Packet<'_>) -> String {
    let mut comment = format!("dropped at {}", clean(packet.location));
    if let Some(reason) = packet.reason {
        comment += &format!(" ({})", clean(reason));
    }
    comment += &format!(", netns {}", netns(packet));
    if packet.sample.weight > 1 {
        comment += &format!(", stands for {} drops", packet.sample.weight);
    }
    comment
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    /// A block of a file as a reader sees it.
    #[derive(Debug)]
    struct Block {
        block_type: u32,
        body: Vec<u8>,
    }

    impl Block {
        fn u32(&self, at: usize) -> u32 {
            u32::from_le_bytes(self.body[at..at + 4].try_into().unwrap())
        }

        /// Options from offset `at` on, which must end with the end of the body.
        fn options(&self, at: usize) -> Vec<(u16, Vec<u8>)> {
            let mut rest = &self.body[at..];
            let mut found = Vec::new();
            loop {
                let field = |at: usize| u16::from_le_bytes([rest[at], rest[at + 1]]);
                let (code, length) = (field(0), usize::from(field(2)));
                if code == 0 {
                    assert_eq!(rest, [0; 4], "nothing follows the end of options");
                    return found;
                }
                found.push((code, rest[4..4 + length].to_vec()));
                rest = &rest[4 + length.next_multiple_of(4)..];
            }
        }

        fn text(&self, at: usize, code: u16) -> String {
            let options = self.options(at);
            let (_, value) = options.iter().find(|(found, _)| *found == code).unwrap();
            String::from_utf8(value.clone()).unwrap()
        }

        /// The data of an enhanced packet block, and where its options begin.
        fn data(&self) -> (&[u8], usize) {
            let length = self.u32(12) as usize;
            (&self.body[20..20 + length], 20 + length.next_multiple_of(4))
        }

        fn comment(&self) -> String {
            self.text(self.data().1, 1)
        }
    }

    /// Splits a file into its blocks; panics where it is not made of whole ones.
    fn blocks(mut file: &[u8]) -> Vec<Block> {
        let mut found = Vec::new();
        while !file.is_empty() {
            let field = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
            let (block_type, length) = (field(0), field(4) as usize);
            assert_eq!(length % 4, 0, "blocks are aligned");
            assert_eq!(field(length - 4) as usize, length, "both lengths agree");
            found.push(Block { block_type, body: file[8..length - 4].to_vec() });
            file = &file[length..];
        }
        found
    }

    /// An IPv4 header of a packet of `length` bytes.
    fn ipv4(length: u16) -> Vec<u8> {
        let mut header = vec![0x45, 0];
        header.extend(length.to_be_bytes());
        header.resize(20, 7);
        header
    }

    fn sample(packet: Vec<u8>) -> Sample {
        Sample {
            netns: Some(4026532246),
            ifindex: Some(2),
            protocol: 0x0800,
            length: 20,
            weight: 1,
            network: Some(0),
            packet,
            ..Sample::default()
        }
    }

    fn named(sample: &Sample) -> Packet<'_> {
        Packet {
            sample,
            time: 1_795_332_905_123_456_789,
            location: "nf_hook_slow+0x7d",
            reason: Some("NETFILTER_DROP"),
            netns: Some("gw"),
            interface: Some("eth0"),
        }
    }

    fn written(packets: &[Packet<'_>]) -> Vec<Block> {
        let (mut file, mut page) = (Pcapng::new(), Vec::new());
        file.header("6.18.0", &mut page);
        for packet in packets {
            file.packet(packet, &mut page);
        }
        blocks(&page)
    }

    #[test]
    fn a_file_begins_with_its_section_byte_for_byte() {
        let mut page = Vec::new();
        Pcapng::new().header("6.18.0", &mut page);
        assert_eq!(page[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
        assert_eq!(page[8..16], [0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0]);
        assert_eq!(page[16..24], [0xff; 8]);
        assert_eq!(blocks(&page)[0].text(16, 3), "Linux 6.18.0");
    }

    #[test]
    fn a_packet_follows_its_interface() {
        let mut sample = sample(ipv4(600));
        sample.length = 580; // the IP header was stripped
        let blocks = written(&[named(&sample), named(&sample)]);
        let types: Vec<u32> = blocks.iter().map(|block| block.block_type).collect();
        assert_eq!(types, [0x0a0d_0d0a, 1, 6, 6], "one description, before the first packet");

        let interface = &blocks[1];
        assert_eq!(interface.body[..8], [101, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(interface.text(8, 2), "gw/eth0");
        assert!(interface.options(8).contains(&(9, vec![9])), "nanoseconds");

        let packet = &blocks[2];
        let time = u64::from(packet.u32(4)) << 32 | u64::from(packet.u32(8));
        assert_eq!((packet.u32(0), time), (0, 1_795_332_905_123_456_789));
        assert_eq!((packet.u32(12), packet.u32(16)), (20, 600));
        assert_eq!(packet.data().0, sample.packet);
        assert_eq!(packet.comment(), "dropped at nf_hook_slow+0x7d (NETFILTER_DROP), netns gw");
        assert!(packet.options(packet.data().1).contains(&(2, vec![1, 0, 0, 0])), "inbound");
    }

    #[test]
    fn namespace_device_and_link_type_make_an_interface() {
        let raw = sample(ipv4(20));
        let mut ethernet = sample([vec![2; 14], ipv4(46)].concat());
        (ethernet.link_header, ethernet.network) = (true, Some(14));
        let elsewhere = Sample { netns: Some(4026532300), ..raw.clone() };
        let unproved = Sample { netns: None, ifindex: None, outgoing: true, ..raw.clone() };
        let unnamed = |sample| Packet { netns: None, interface: None, ..named(sample) };
        let blocks = written(&[
            named(&raw),
            named(&ethernet),
            unnamed(&elsewhere),
            unnamed(&unproved),
            named(&raw),
        ]);
        let interfaces: Vec<(u8, String)> = blocks
            .iter()
            .filter(|block| block.block_type == 1)
            .map(|block| (block.body[0], block.text(8, 2)))
            .collect();
        assert_eq!(
            interfaces,
            [
                (101, "gw/eth0".into()),
                (1, "gw/eth0".into()),
                (101, "4026532300/if2".into()),
                (101, "unknown/unknown".into())
            ]
        );
        let packets: Vec<&Block> = blocks.iter().filter(|block| block.block_type == 6).collect();
        let used: Vec<u32> = packets.iter().map(|packet| packet.u32(0)).collect();
        assert_eq!(used, [0, 1, 2, 3, 0]);
        assert_eq!(packets[1].u32(16), 60, "the link header is part of the length");
        assert!(packets[3].options(packets[3].data().1).contains(&(2, vec![2, 0, 0, 0])));
    }

    #[test]
    fn what_is_not_ip_gets_a_cooked_header() {
        let mut arp = sample(vec![0, 1, 8, 0, 6, 4, 0, 1]);
        (arp.protocol, arp.length) = (0x0806, 28);
        let blocks = written(&[named(&arp)]);
        assert_eq!(blocks[1].body[0], 113);
        let (data, _) = blocks[2].data();
        assert_eq!(data[..4], [0, 0, 0xff, 0xfe]);
        assert_eq!(data[14..], [8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(blocks[2].u32(16), 44);
    }

    #[test]
    fn a_length_field_that_cannot_be_true_is_not_believed() {
        let original = |claimed, length| {
            let mut sample = sample(ipv4(claimed));
            sample.length = length;
            written(&[named(&sample)])[2].u32(16)
        };
        assert_eq!(original(1500, 1480), 1500);
        assert_eq!(original(65535, 100), 100);
        assert_eq!(original(0, 3000), 3000, "larger than the field can say");
        assert_eq!(original(8, 4), 20, "never shorter than what was captured");
    }

    #[test]
    fn names_are_cleaned_and_cut() {
        let sample = Sample { weight: 40, ..sample(ipv4(20)) };
        let name = "é".repeat(2000);
        let packet = Packet { netns: Some("a\x1b\n"), interface: Some(&name), ..named(&sample) };
        let blocks = written(&[packet]);
        let name = blocks[1].text(8, 2);
        assert!(name.starts_with("a\u{fffd}\u{fffd}/é") && name.len() <= 1024, "{name}");
        let comment = blocks[2].comment();
        assert!(comment.ends_with("netns a\u{fffd}\u{fffd}, stands for 40 drops"), "{comment}");
    }

    #[test]
    fn interfaces_are_bounded() {
        let mut file = Pcapng::new();
        let mut page = Vec::new();
        for index in 0..=MAX_INTERFACES as u32 + 9 {
            let sample = Sample { ifindex: Some(index), ..sample(ipv4(20)) };
            file.packet(&named(&sample), &mut page);
        }
        let described = blocks(&page).iter().filter(|block| block.block_type == 1).count();
        assert_eq!(described, MAX_INTERFACES + 1, "the last is shared");
    }

    proptest! {
        #[test]
        fn any_packet_gives_whole_blocks(
            bytes in vec(any::<u8>(), 0..300),
            network in option::of(0..400_usize),
            (link_header, outgoing) in any::<(bool, bool)>(),
            protocol in prop_oneof![Just(0x0800_u16), Just(0x86dd), any::<u16>()],
            (length, time, weight) in any::<(u32, u64, u64)>(),
            (netns, ifindex) in any::<(Option<u32>, Option<u32>)>(),
            (location, name) in any::<(String, Option<String>)>(),
        ) {
            let sample = Sample {
                netns, ifindex, outgoing, link_header, network, protocol, length, weight,
                packet: bytes.clone(),
                ..Sample::default()
            };
            let packet = Packet {
                sample: &sample,
                time,
                location: &location,
                reason: name.as_deref(),
                netns: name.as_deref(),
                interface: name.as_deref(),
            };
            let blocks = written(&[packet]);
            let [_, interface, written] = blocks.as_slice() else {
                panic!("three blocks: {blocks:?}");
            };
            prop_assert!(!interface.options(8).is_empty());
            prop_assert!(written.u32(12) <= written.u32(16), "captured within original");
            let (data, options) = written.data();
            let kept = if link_header { 0 } else { network.filter(|at| *at <= bytes.len()).unwrap_or(0) };
            prop_assert!(data.ends_with(&bytes[kept..]));
            prop_assert_eq!(written.options(options).len(), 2);
        }
    }
}
