//! Names of protocols, both ways.

use std::borrow::Cow;

use dropwatch_common::filter::{ANY, Protocol};
use thiserror::Error;

use self::number::{DCCP, GRE, ICMP, ICMPV6, SCTP, TCP, UDP, UDP_LITE};
use super::near::{did_you_mean, near};

/// Text that is mostly one of a few words.
pub type Term = Cow<'static, str>;

/// Numbers of protocols above IP that more is known of than their names (IANA, protocol numbers).
pub mod number {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const DCCP: u8 = 33;
    pub const GRE: u8 = 47;
    pub const ICMPV6: u8 = 58;
    pub const SCTP: u8 = 132;
    pub const UDP_LITE: u8 = 136;
}

/// Protocols above IP by their numbers, as people call them.
const TRANSPORT: [(u8, &str); 16] = [
    (ICMP, "icmp"),
    (2, "igmp"),
    (4, "ipip"),
    (TCP, "tcp"),
    (UDP, "udp"),
    (DCCP, "dccp"),
    (41, "ipv6-in-ip"),
    (GRE, "gre"),
    (50, "esp"),
    (51, "ah"),
    (ICMPV6, "icmpv6"),
    (89, "ospf"),
    (103, "pim"),
    (112, "vrrp"),
    (SCTP, "sctp"),
    (UDP_LITE, "udplite"),
];

/// Protocols by ethertype (`include/uapi/linux/if_ether.h`), as people call them.
const NETWORK: [(u16, &str); 18] = [
    // Linux's own number for frames with a length instead of a type, such as spanning tree's.
    (0x0004, "llc"),
    (0x0800, "ipv4"),
    (0x0806, "arp"),
    (0x0842, "wake-on-lan"),
    (0x8100, "vlan"),
    (0x86dd, "ipv6"),
    (0x8809, "lacp"),
    (0x8847, "mpls"),
    (0x8848, "mpls"),
    (0x8863, "pppoe-discovery"),
    (0x8864, "pppoe"),
    (0x888e, "eapol"),
    (0x88a8, "qinq"),
    (0x88cc, "lldp"),
    (0x88e5, "macsec"),
    (0x88f7, "ptp"),
    (0x8906, "fcoe"),
    (0x8914, "fip"),
];

/// Ethertypes that more is known of than their names (include/uapi/linux/if_ether.h).
pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;

/// `tcp`, or `ip-proto-253` for one without a name here.
pub fn transport(number: u8) -> Term {
    let found = TRANSPORT.iter().find(|(known, _)| *known == number);
    found.map_or_else(|| format!("ip-proto-{number}").into(), |(_, name)| (*name).into())
}

/// `arp`, or `0x88b5` for one without a name here.
pub fn network(ethertype: u16) -> Term {
    let found = NETWORK.iter().find(|(known, _)| *known == ethertype);
    found.map_or_else(|| format!("{ethertype:#06x}").into(), |(_, name)| (*name).into())
}

/// The protocol that the kernel side groups a packet by: the one above IP, else the ethertype.
pub fn of_group(ethertype: u16, above: u16) -> Term {
    match u8::try_from(above) {
        Ok(number) => transport(number),
        Err(_) => network(ethertype),
    }
}

/// Why a text names no protocol.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// Less than four digits of hexadecimal: somebody may mean the number above IP, 0x06 for TCP.
    #[error(
        "ethertypes have four digits: write {number} for {} above IP, {number:#06x} for an \
         ethertype",
        transport(*number)
    )]
    Ambiguous { number: u8 },
    /// The text is none of what can be typed; `near` are names that look like it.
    #[error(
        "not a protocol such as tcp, udp, icmp, icmpv6, sctp, arp, ip, ipv6, an IP protocol \
         number or an ethertype such as 0x88cc{}",
        did_you_mean(near)
    )]
    Unknown { near: Vec<&'static str> },
}

/// What somebody means by `tcp`, `arp`, `ip`, `ipv6`, `132` (a number above IP) or `0x88cc` (an
/// ethertype).
///
/// # Errors
/// It is none of these, or may be two of them.
pub fn parse(text: &str) -> Result<Protocol, ProtocolError> {
    let text = text.to_ascii_lowercase();
    let above = |number| Protocol { network: 0, transport: u16::from(number) };
    let ethertype = |network| Protocol { network, transport: ANY };
    match text.as_str() {
        // Only the ICMP of its own family is meant, although the number alone would match in both.
        "icmp" => return Ok(Protocol { network: IPV4, transport: ICMP.into() }),
        "icmpv6" | "icmp6" => return Ok(Protocol { network: IPV6, transport: ICMPV6.into() }),
        // As /etc/protocols has it.
        "ipv6-icmp" => return Ok(Protocol { network: IPV6, transport: ICMPV6.into() }),
        "ip" => return Ok(ethertype(IPV4)),
        "ip6" => return Ok(ethertype(IPV6)),
        _ => {}
    }
    if let Some((number, _)) = TRANSPORT.iter().find(|(_, name)| *name == text) {
        return Ok(above(*number));
    }
    if let Some((number, _)) = NETWORK.iter().find(|(_, name)| *name == text) {
        return Ok(ethertype(*number));
    }
    if let Some(hex) = text.strip_prefix("0x")
        && let Ok(number @ 1..) = u16::from_str_radix(hex, 16)
    {
        if let (1..4, Ok(number)) = (hex.len(), u8::try_from(number)) {
            return Err(ProtocolError::Ambiguous { number });
        }
        return Ok(ethertype(number));
    }
    // `ip-proto-253` is how reports print a protocol without a name.
    let number = text.strip_prefix("ip-proto-").unwrap_or(&text);
    number.parse().map(above).map_err(|_| ProtocolError::Unknown { near: near(&text, names()) })
}

/// Every name that [`parse`] takes.
pub fn names() -> impl Iterator<Item = &'static str> {
    let others = ["icmp6", "ip", "ip6", "ipv6-icmp"];
    let mut names: Vec<&str> = TRANSPORT
        .iter()
        .map(|(_, name)| *name)
        .chain(NETWORK.iter().map(|(_, name)| *name))
        .chain(others)
        .collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_is_shown_can_be_typed() {
        for number in 0..=u8::MAX {
            let name = transport(number);
            assert_eq!(parse(&name).unwrap().transport, u16::from(number), "{name}");
        }
        for (number, name) in NETWORK {
            let first = NETWORK.iter().find(|(_, other)| *other == name).unwrap().0;
            assert_eq!(parse(name).unwrap(), Protocol { network: first, transport: ANY });
            assert_eq!(network(number), name);
        }
        assert_eq!(parse(&network(0x88b5)), Ok(Protocol { network: 0x88b5, transport: ANY }));
    }

    #[test]
    fn families_numbers_and_nonsense() {
        assert_eq!(parse("TCP"), Ok(Protocol { network: 0, transport: 6 }));
        assert_eq!(parse("icmp"), Ok(Protocol { network: IPV4, transport: 1 }));
        assert_eq!(parse("ip"), Ok(Protocol { network: IPV4, transport: ANY }));
        assert_eq!(parse("253"), Ok(Protocol { network: 0, transport: 253 }));
        assert_eq!(parse("0x0006"), Ok(Protocol { network: 6, transport: ANY }));
        for (text, number, says) in
            [("0x06", 6, "write 6 for tcp above IP, 0x0006"), ("0x3a", 58, "write 58 for icmpv6")]
        {
            let error = parse(text).unwrap_err();
            assert_eq!(error, ProtocolError::Ambiguous { number });
            assert!(error.to_string().contains(says), "{error}");
        }
        for text in ["", "tpc", "256", "-1", "0x", "0x0", "0x10000", "tcp "] {
            assert!(matches!(parse(text), Err(ProtocolError::Unknown { .. })), "{text}");
        }
        assert!(parse("tpc").unwrap_err().to_string().ends_with(": did you mean tcp?"));
        assert!(parse("UPD").unwrap_err().to_string().contains("udp"));
        for name in names() {
            assert!(parse(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_group_is_named_by_what_it_has() {
        assert_eq!(of_group(0, 6), "tcp");
        assert_eq!(of_group(0, 58), "icmpv6");
        assert_eq!(of_group(0x0806, ANY), "arp");
    }
}
