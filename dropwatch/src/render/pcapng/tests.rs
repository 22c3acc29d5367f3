//! The file as a reader of the format sees it, block by block.

use jiff::Timestamp;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::report::{
    facts::{Interface, Netns, Task},
    model::Start,
};

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

fn sample(packet: Vec<u8>) -> Sampled {
    Sampled {
        host: Host { kernel: "6.18.0".into(), ..Host::default() },
        time: Timestamp::from_nanosecond(1_795_332_905_123_456_789).unwrap(),
        place: Place {
            symbol: Some("nf_hook_slow".into()),
            offset: Some(0x7d),
            reason: Some("NETFILTER_DROP".into()),
            ..Place::default()
        },
        netns: netns(Some("gw"), 4026532246),
        interface: interface(Some("eth0"), 2),
        ethertype: 0x0800,
        length: 20,
        weight: 1,
        packet,
        outgoing: Some(false),
        ..Sampled::default()
    }
}

fn netns(name: Option<&str>, inum: u32) -> Option<Netns> {
    Some(Netns::new(name.map(str::to_owned), inum))
}

fn interface(name: Option<&str>, index: u32) -> Option<Interface> {
    Some(Interface { name: name.map(str::to_owned), index })
}

fn written(samples: &[Sampled]) -> Vec<Block> {
    written_with(SNAPLEN, samples)
}

fn written_with(snaplen: usize, samples: &[Sampled]) -> Vec<Block> {
    let (mut file, mut page) = (Pcapng::new(snaplen), Vec::new());
    for sample in samples {
        file.line(&Line::Sample(Box::new(sample.clone())), &mut page);
    }
    blocks(&page)
}

#[test]
fn a_file_begins_with_its_section_byte_for_byte() {
    let mut page = Vec::new();
    let start = Start { host: sample(vec![]).host, ..Start::default() };
    Pcapng::new(SNAPLEN).line(&Line::Start(start), &mut page);
    assert_eq!(page[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
    assert_eq!(page[8..16], [0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0]);
    assert_eq!(page[16..24], [0xff; 8]);
    assert_eq!(blocks(&page)[0].text(16, 3), "Linux 6.18.0");
}

#[test]
fn a_packet_follows_its_interface() {
    let mut sample = sample(ipv4(600));
    sample.length = 580; // the IP header was stripped
    let blocks = written(&[sample.clone(), sample.clone()]);
    let types: Vec<u32> = blocks.iter().map(|block| block.block_type).collect();
    assert_eq!(types, [0x0a0d_0d0a, 1, 6, 6], "one description, before the first packet");

    let interface = &blocks[1];
    assert_eq!(interface.body[..8], [101, 0, 0, 0, 128, 0, 0, 0]);
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
    ethernet.packet[12..14].copy_from_slice(&[8, 0]);
    ethernet.link_header = true;
    let elsewhere =
        Sampled { netns: netns(None, 4026532300), interface: interface(None, 2), ..raw.clone() };
    let unproved = Sampled { netns: None, interface: None, outgoing: Some(true), ..raw.clone() };
    let blocks = written(&[raw.clone(), ethernet, elsewhere, unproved, raw]);
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
    (arp.ethertype, arp.length) = (0x0806, 28);
    let blocks = written(&[arp]);
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
        written(&[sample])[2].u32(16)
    };
    assert_eq!(original(1500, 1480), 1500);
    assert_eq!(original(65535, 100), 100);
    assert_eq!(original(0, 3000), 3000, "larger than the field can say");
    assert_eq!(original(8, 4), 20, "never shorter than what was captured");
}

#[test]
fn names_are_cleaned_and_cut() {
    let blocks = written(&[Sampled {
        weight: 40,
        task: Some(Task { comm: "b\n".into(), pid: 812, context: None }),
        netns: netns(Some("a\x1b\n"), 1),
        interface: interface(Some(&"é".repeat(2000)), 2),
        ..sample(ipv4(20))
    }]);
    let name = blocks[1].text(8, 2);
    assert!(name.starts_with("a\u{fffd}\u{fffd}/é") && name.len() <= 1024, "{name}");
    let comment = blocks[2].comment();
    let end = "netns a\u{fffd}\u{fffd}, on CPU: b\u{fffd}/812, stands for 40 drops";
    assert!(comment.ends_with(end), "{comment}");
}

#[test]
fn the_snap_length_cuts_packets_and_not_their_length() {
    let whole = Sampled { length: 300, ..sample([ipv4(300), vec![9; 200]].concat()) };
    let arp = Sampled { ethertype: 0x0806, ..whole.clone() };
    for (snaplen, kept) in [(8, 8), (SNAPLEN, 128), (220, 220), (256, 220)] {
        let blocks = written_with(snaplen, &[whole.clone(), arp.clone()]);
        assert_eq!((blocks[1].u32(4), blocks[3].u32(4)), (snaplen as u32, snaplen as u32 + 16));
        assert_eq!(blocks[2].data().0, &whole.packet[..kept]);
        assert_eq!(blocks[4].data().0[16..], arp.packet[..kept], "after the header made here");
        assert_eq!((blocks[2].u32(16), blocks[4].u32(16)), (300, 316));
    }
}

#[test]
fn the_length_is_found_behind_vlan_tags() {
    let tag = |kind: u16| [kind.to_be_bytes(), [0, 7]].concat();
    let original = |tags: &[u16]| {
        let ends = [vec![2; 12], tags.iter().flat_map(|kind| tag(*kind)).collect()].concat();
        let packet = [ends, vec![8, 0], ipv4(600)].concat();
        let frame = Sampled { link_header: true, length: 600, ..sample(packet) };
        written(&[frame])[2].u32(16)
    };
    assert_eq!(original(&[]), 614);
    assert_eq!(original(&[0x8100]), 618);
    assert_eq!(original(&[0x88a8, 0x8100]), 622);
    assert_eq!(original(&[0x8100; 3]), 600, "deeper is not looked");
}

#[test]
fn raw_addresses_are_for_those_who_asked() {
    let place = Place { reason: Some("NETFILTER_DROP".into()), ..Place::default() };
    let at = |address| Sampled { place: place.clone(), address, ..sample(vec![]) };
    assert!(comment(&at(Address::Withheld(16))).starts_with("dropped at [unknown] ("));
    assert!(comment(&at(Address::Public(16))).starts_with("dropped at 0x0000000000000010 ("));
}

#[test]
fn a_run_begins_a_section_with_interfaces_of_its_own() {
    let (mut file, mut page) = (Pcapng::new(SNAPLEN), Vec::new());
    let start = Line::Start(Start::default());
    let packet = Line::Sample(Box::new(sample(ipv4(20))));
    for line in [&start, &packet, &packet, &start, &packet] {
        file.line(line, &mut page);
    }
    let types: Vec<u32> = blocks(&page).iter().map(|block| block.block_type).collect();
    assert_eq!(types, [0x0a0d_0d0a, 1, 6, 6, 0x0a0d_0d0a, 1, 6]);
}

#[test]
fn interfaces_are_bounded() {
    let samples: Vec<Sampled> = (0..=MAX_INTERFACES as u32 + 9)
        .map(|index| Sampled { interface: interface(None, index), ..sample(ipv4(20)) })
        .collect();
    let blocks = written(&samples);
    let described = blocks.iter().filter(|block| block.block_type == 1).count();
    assert_eq!(described, MAX_INTERFACES + 1, "the last is shared");
}

proptest! {
    #[test]
    fn any_packet_gives_whole_blocks(
        bytes in vec(any::<u8>(), 0..300),
        snaplen in 1..300_usize,
        (link_header, outgoing) in any::<(bool, Option<bool>)>(),
        ethertype in prop_oneof![Just(0x0800_u16), Just(0x86dd), any::<u16>()],
        (length, time, weight) in any::<(u32, i64, u64)>(),
        (inum, index) in any::<(u32, u32)>(),
        (symbol, name) in any::<(Option<String>, Option<String>)>(),
    ) {
        let sample = Sampled {
            time: Timestamp::from_nanosecond(time.into()).unwrap(),
            place: Place { symbol, reason: name.clone(), module: name.clone(), ..Place::default() },
            length, weight, outgoing, link_header, ethertype,
            netns: netns(name.as_deref(), inum),
            interface: interface(name.as_deref(), index),
            packet: bytes.clone(),
            ..Sampled::default()
        };
        let blocks = written_with(snaplen, &[sample]);
        let [_, interface, written] = blocks.as_slice() else {
            panic!("three blocks: {blocks:?}");
        };
        prop_assert!(!interface.options(8).is_empty());
        prop_assert!(written.u32(12) <= written.u32(16), "captured within original");
        let (data, options) = written.data();
        prop_assert!(data.ends_with(&bytes[..snaplen.min(bytes.len())]));
        prop_assert!(data.len() <= interface.u32(4) as usize, "within the stated length");
        prop_assert_eq!(written.options(options).len(), 2);
    }
}
