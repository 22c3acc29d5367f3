//! Sampled packets as pcapng, the capture format of Wireshark and tshark.
//!
//! The link types are registered at <https://www.tcpdump.org/linktypes.html>. Only three kinds of
//! block are ever written, so the writer is here rather than in a library.
//!
//! A section of the file is a run, and an interface of it a device of one network namespace seen
//! with one link type. It is described before its first packet, so the file is valid after every
//! line. The bytes of one line belong together: whoever writes them must stop where a part of them
//! could not be written, since later packets refer to the interfaces described before.

mod blocks;

use std::{borrow::Cow, collections::HashMap};

use self::blocks::{block, option, pad, write_block, write_option, write_text};
use super::{clean, words::on_cpu};
use crate::report::model::{Address, Host, Line, Place, Sampled};

/// Bytes of each packet that a file has by default: all headers, little of the payload.
pub const SNAPLEN: usize = 128;

/// Most interfaces described in one section; packets of further ones share one for each link type.
const MAX_INTERFACES: usize = 4096;
/// Most bytes of headers that the network stack has stripped from a packet when it drops it: link,
/// network and transport header. Past it, a length field in the packet is not believed.
const MAX_STRIPPED: u64 = 256;
/// Bytes of a cooked header.
const COOKED_HEADER: usize = 16;
/// `ETH_P_8021Q`, `ETH_P_8021AD` (include/uapi/linux/if_ether.h): a VLAN tag follows.
const VLAN: [u16; 2] = [0x8100, 0x88A8];
/// Most VLAN tags passed over.
const MAX_TAGS: usize = 2;

/// How a packet's bytes begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum LinkType {
    Ethernet,
    /// An IPv4 or IPv6 header, distinguished by the version in it.
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

/// What identifies an interface: name, numbers, link type. The name belongs to it, since
/// the number of a namespace that is gone is given to a new one.
type InterfaceKey = (String, Option<u32>, Option<u32>, LinkType);

/// Turns the lines of runs into a pcapng file, piece by piece.
#[derive(Clone, Debug)]
pub struct Pcapng {
    /// Most bytes of a packet in the file.
    snaplen: usize,
    /// Whether the file has begun.
    begun: bool,
    /// Interfaces described in the current section.
    interfaces: HashMap<InterfaceKey, u32>,
}

impl Pcapng {
    /// A file with at most `snaplen` bytes of each packet; all that a sample has where that is
    /// less.
    pub fn new(snaplen: usize) -> Self {
        Self { snaplen, begun: false, interfaces: HashMap::new() }
    }

    /// Appends what the file has of a line: a run begins a section, a sample is a packet.
    pub fn line(&mut self, line: &Line, page: &mut Vec<u8>) {
        match line {
            Line::Start(start) => self.section(&start.host, page),
            // Samples before the first `start` line belong to a run whose beginning was cut off.
            Line::Sample(sample) if !self.begun => {
                self.section(&sample.host, page);
                self.packet(sample, page);
            }
            Line::Sample(sample) => self.packet(sample, page),
            Line::Report(_) | Line::End(_) => {}
        }
    }

    fn section(&mut self, host: &Host, page: &mut Vec<u8>) {
        self.begun = true;
        self.interfaces.clear();
        write_block(page, block::SECTION_HEADER, |body| {
            body.extend(0x1A2B_3C4D_u32.to_le_bytes()); // byte-order magic
            body.extend([1, 0, 0, 0]); // version 1.0
            body.extend((-1_i64).to_le_bytes()); // section length: not known
            write_text(body, option::SECTION_OS, &format!("Linux {}", clean(&host.kernel)));
            let application = concat!("dropwatch ", env!("CARGO_PKG_VERSION"));
            write_text(body, option::SECTION_APPLICATION, application);
            write_option(body, option::END, &[]);
        });
    }

    /// One packet, after the description of its interface where it is the first there.
    fn packet(&mut self, sample: &Sampled, page: &mut Vec<u8>) {
        let (link_type, bytes) = captured(sample, self.snaplen);
        let original = original_length(sample, link_type).max(bytes.len() as u64);
        let interface = self.interface(sample, link_type, page);
        // Times that 64 bits of nanoseconds since 1970 cannot hold are no times of a capture.
        let time = u64::try_from(sample.time.as_nanosecond()).unwrap_or(0);
        write_block(page, block::ENHANCED_PACKET, |body| {
            body.extend(interface.to_le_bytes());
            body.extend(((time >> 32) as u32).to_le_bytes());
            body.extend((time as u32).to_le_bytes());
            body.extend((bytes.len() as u32).to_le_bytes());
            body.extend(u32::try_from(original).unwrap_or(u32::MAX).to_le_bytes());
            body.extend(&*bytes);
            pad(body);
            write_text(body, option::COMMENT, &comment(sample));
            let direction: u32 = match sample.outgoing {
                Some(true) => 2,
                Some(false) => 1,
                None => 0,
            };
            write_option(body, option::PACKET_FLAGS, &direction.to_le_bytes());
            write_option(body, option::END, &[]);
        });
    }

    /// Number of the packet's interface, which is described first if it is new.
    fn interface(&mut self, sample: &Sampled, link_type: LinkType, page: &mut Vec<u8>) -> u32 {
        let netns = sample.netns.as_ref().map(|netns| netns.inum);
        let index = sample.interface.as_ref().map(|interface| interface.index);
        let mut key = (interface_name(sample), netns, index, link_type);
        if !self.interfaces.contains_key(&key) && self.interfaces.len() >= MAX_INTERFACES {
            key = ("other".to_owned(), None, None, link_type);
        }
        let next = self.interfaces.len() as u32;
        if let Some(&known) = self.interfaces.get(&key) {
            return known;
        }
        let made = if link_type == LinkType::Cooked { COOKED_HEADER } else { 0 };
        write_block(page, block::INTERFACE, |body| {
            body.extend(link_type.number().to_le_bytes());
            body.extend([0; 2]);
            body.extend(((self.snaplen + made) as u32).to_le_bytes());
            write_text(body, option::INTERFACE_NAME, &key.0);
            write_option(body, option::INTERFACE_TIME_RESOLUTION, &[9]); // 10⁻⁹ s
            write_option(body, option::END, &[]);
        });
        self.interfaces.insert(key, next);
        next
    }
}

/// What the packet's bytes begin with, and at most `snaplen` of them. A header made here comes
/// on top.
fn captured(sample: &Sampled, snaplen: usize) -> (LinkType, Cow<'_, [u8]>) {
    let bytes = sample.packet.get(..snaplen).unwrap_or(&sample.packet);
    if sample.link_header {
        return (LinkType::Ethernet, bytes.into());
    }
    match bytes.first().map(|byte| byte >> 4) {
        Some(4 | 6) if is_ip(sample.ethertype) => (LinkType::RawIp, bytes.into()),
        _ => {
            let mut cooked = Vec::with_capacity(COOKED_HEADER + bytes.len());
            let packet_type: u16 = if sample.outgoing == Some(true) { 4 } else { 0 }; // sent by us, or to us
            cooked.extend(packet_type.to_be_bytes());
            cooked.extend(0xFFFE_u16.to_be_bytes()); // ARPHRD_NONE: no kind of device is claimed
            cooked.extend([0; 10]); // no address
            cooked.extend(sample.ethertype.to_be_bytes());
            cooked.extend(bytes);
            (LinkType::Cooked, cooked.into())
        }
    }
}

/// `ETH_P_IP` or `ETH_P_IPV6`.
fn is_ip(ethertype: u16) -> bool {
    matches!(ethertype, 0x0800 | 0x86DD)
}

/// Length of the whole packet with the header that its bytes begin with, as far as it is known.
///
/// `sample.length` leaves out the headers that were stripped before the drop. The IP header knows
/// the length from its own start; it is believed where the two can belong to the same packet.
fn original_length(sample: &Sampled, link_type: LinkType) -> u64 {
    let known = u64::from(sample.length);
    let network = match link_type {
        LinkType::Ethernet => network_header(&sample.packet),
        LinkType::RawIp | LinkType::Cooked => Some((0, sample.ethertype)),
    };
    let ip = network.filter(|(_, ethertype)| is_ip(*ethertype)).and_then(|(at, _)| {
        let length = ip_length(sample.packet.get(at..)?)?;
        Some(at as u64 + length)
    });
    let length = ip.filter(|ip| (known..=known + MAX_STRIPPED).contains(ip)).unwrap_or(known);
    length + if link_type == LinkType::Cooked { COOKED_HEADER as u64 } else { 0 }
}

/// Where the network header of an Ethernet frame begins, and its ethertype, past VLAN tags.
fn network_header(frame: &[u8]) -> Option<(usize, u16)> {
    (0..=MAX_TAGS)
        .map(|tags| 14 + 4 * tags)
        .map_while(|at| Some((at, u16_at(frame, at - 2)?)))
        .find(|(_, ethertype)| !VLAN.contains(ethertype))
}

/// Length that an IP header gives of itself and what follows: "Total Length" (RFC 791), or
/// "Payload Length" plus the fixed header (RFC 8200).
fn ip_length(header: &[u8]) -> Option<u64> {
    match header.first()? >> 4 {
        4 => u16_at(header, 2).map(u64::from),
        6 => Some(u64::from(u16_at(header, 4)?) + 40),
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// `gw/eth0`; numbers where there are no names.
fn interface_name(sample: &Sampled) -> String {
    let netns = netns(sample);
    match sample.interface.as_ref().map(|device| (&device.name, device.index)) {
        Some((Some(name), _)) => format!("{netns}/{}", clean(name)),
        Some((None, index)) => format!("{netns}/if{index}"),
        None => format!("{netns}/unknown"),
    }
}

fn netns(sample: &Sampled) -> Cow<'_, str> {
    match sample.netns.as_ref().map(|netns| (&netns.name, netns.inum)) {
        Some((Some(name), _)) => clean(name),
        Some((None, inum)) => inum.to_string().into(),
        None => "unknown".into(),
    }
}

/// `dropped at nf_hook_slow+0x7d (NETFILTER_DROP), netns gw, on CPU: nginx/812, stands for 40 drops`
fn comment(sample: &Sampled) -> String {
    let mut comment = format!("dropped at {}", location(sample));
    if let Some(reason) = &sample.place.reason {
        comment += &format!(" ({})", clean(reason));
    }
    comment += &format!(", netns {}", netns(sample));
    if let Some(task) = &sample.task {
        comment += &format!(", {}", on_cpu(task));
    }
    if sample.weight > 1 {
        comment += &format!(", stands for {} drops", sample.weight);
    }
    comment
}

/// `nf_hook_slow+0x7d`. A file is passed on, so that it has raw addresses only where they were
/// asked for.
fn location(sample: &Sampled) -> String {
    let Place { symbol, offset, module, reason: _, subsystem: _ } = &sample.place;
    let Some(symbol) = symbol else {
        return sample.address.public().map_or_else(|| "[unknown]".to_owned(), Address::hex);
    };
    let mut location = clean(symbol).into_owned();
    if let Some(offset) = offset {
        location += &format!("+{offset:#x}");
    }
    if let Some(module) = module {
        location += &format!(" [{}]", clean(module));
    }
    location
}

#[cfg(test)]
mod tests;
