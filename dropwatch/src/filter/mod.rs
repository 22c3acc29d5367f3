//! Which packets to count, as people write it and as the kernel side takes it.
//!
//! Values of one option are alternatives, those with `!` before them are excluded, and every
//! option must let a packet through.

pub mod bits;
pub mod contradiction;
pub mod expression;

use std::net::{IpAddr, Ipv6Addr};

use dropwatch_common::filter::{
    Bits, Filter, Lengths, MOST, Masked, NAME, NetnsValue, Ports, Protocol, Rule, direction, kind,
    part,
};
use thiserror::Error;

use crate::report::{keys::Choice, protocol::number};

/// Why a text is no value of an option that filters packets.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ValueError {
    #[error("names of interfaces have 1 to {} characters", NAME - 1)]
    InterfaceLength,
    #[error("no interface can have that name")]
    InterfaceName,
    #[error("not an address such as 192.168.0.2 or fd00::2, nor a network such as 10.0.0.0/8")]
    Address,
    #[error("the length of the network must be 0 to {most}")]
    PrefixLength { most: u32 },
    /// The address is one of `network`, and not its first.
    #[error("it has bits behind the network: {network}/{length} would be one")]
    BitsBehindNetwork { network: IpAddr, length: u32 },
    #[error("not a port such as 443, nor a range such as 8000-8099")]
    Port,
    #[error("not a length in bytes such as 1500, nor a range such as 64-128 or 1401-")]
    Length,
    #[error("not `in` (came in by a device) or `out` (sent by this host)")]
    Direction,
}

/// An option has more values than the kernel side has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{option} takes at most {MOST} values")]
pub struct TooManyValues {
    pub option: &'static str,
}

/// The packet filter of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    /// Network namespaces, as somebody calls them.
    pub netns: Vec<Choice<String>>,
    pub iface: Vec<Choice<Masked>>,
    pub protocol: Vec<Choice<Protocol>>,
    pub host: Vec<Choice<Masked>>,
    pub port: Vec<Choice<Ports>>,
    pub tcp_flags: Vec<Choice<Bits>>,
    pub length: Vec<Choice<Lengths>>,
    pub mark: Vec<Choice<Bits>>,
    /// Each one of [`mod@direction`], but not unknown.
    pub direction: Vec<Choice<u32>>,
    pub expression: Option<TypedExpression>,
}

/// An expression as tcpdump takes it, and how it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypedExpression {
    pub text: String,
    /// It stands where a command could, without an option before it.
    pub is_free: bool,
}

impl Packets {
    /// What of a packet has to be read to decide, as bits of [`part`].
    pub fn parts(&self) -> u32 {
        let needs = |is_empty: bool, part| if is_empty { 0 } else { part };
        needs(self.netns.is_empty(), part::NETNS)
            | needs(self.iface.is_empty(), part::IFACE)
            | needs(
                self.protocol.is_empty() && self.host.is_empty() && self.port.is_empty(),
                part::HEADERS,
            )
            | needs(self.tcp_flags.is_empty(), part::TCP_FLAGS)
            | needs(self.length.is_empty(), part::LENGTH)
            | needs(self.mark.is_empty(), part::MARK)
            | needs(self.direction.is_empty(), part::DIRECTION)
            | needs(self.expression.is_none(), part::EXPRESSION)
    }

    /// Whether they may leave out packets of a namespace that they select.
    pub fn are_within_netns(&self) -> bool {
        self.parts() & !part::NETNS != 0
    }

    /// Returns the filter as the kernel side takes it. `netns` are the namespaces of `--netns`.
    ///
    /// # Errors
    /// Which option has more values than there is room for.
    pub fn compile(
        &self,
        netns: impl IntoIterator<Item = NetnsValue>,
    ) -> Result<Filter, TooManyValues> {
        let netns = self.netns.iter().zip(netns);
        let netns: Vec<_> = netns
            .map(|(Choice { exclude, .. }, value)| Choice { exclude: *exclude, value })
            .collect();
        let mut filter = Filter::NONE;
        fill(&mut filter.netns, &netns, "--netns")?;
        fill(&mut filter.iface, &self.iface, "--iface")?;
        fill(&mut filter.protocol, &self.protocol, "--proto")?;
        fill(&mut filter.host, &self.host, "--host")?;
        fill(&mut filter.port, &self.port, "--port")?;
        fill(&mut filter.tcp_flags, &self.tcp_flags, "--tcp-flags")?;
        fill(&mut filter.length, &self.length, "--length")?;
        fill(&mut filter.mark, &self.mark, "--mark")?;
        fill(&mut filter.direction, &self.direction, "--direction")?;
        Ok(filter)
    }
}

/// Whether `rules` of one option let through what `is` one of their values: none excludes it, and one
/// includes it where any includes something.
pub fn lets_through<R: Rule>(rules: &[R], is: impl Fn(R::Value) -> bool) -> bool {
    let of = |kind| rules.iter().filter(move |rule| rule.kind() == kind);
    let included =
        of(kind::INCLUDE).next().is_none() || of(kind::INCLUDE).any(|rule| is(rule.value()));
    included && !of(kind::EXCLUDE).any(|rule| is(rule.value()))
}

/// Whether packets of a protocol above IP begin with ports.
fn port_bearing(transport: u8) -> bool {
    use number::{DCCP, SCTP, TCP, UDP, UDP_LITE};
    matches!(transport, TCP | UDP | DCCP | SCTP | UDP_LITE)
}

fn fill<R: Rule>(
    rules: &mut [R; MOST],
    choices: &[Choice<R::Value>],
    option: &'static str,
) -> Result<(), TooManyValues> {
    if choices.len() > MOST {
        return Err(TooManyValues { option });
    }
    for (rule, Choice { exclude, value }) in rules.iter_mut().zip(choices) {
        let kind = if *exclude { kind::EXCLUDE } else { kind::INCLUDE };
        *rule = R::new(kind, *value);
    }
    Ok(())
}

/// Reads the name of an interface.
///
/// # Errors
/// When no interface can have it (`dev_valid_name`, net/core/dev.c).
pub fn interface(text: &str) -> Result<Masked, ValueError> {
    if text.is_empty() || text.len() >= NAME {
        return Err(ValueError::InterfaceLength);
    }
    // `isspace` of lib/ctype.c knows Latin-1: its no-break space is a byte of some letters.
    let is_refused = |byte| matches!(byte, b'/' | b':' | b'\t'..=b'\r' | b' ' | 0xa0);
    if text == "." || text == ".." || text.bytes().any(is_refused) {
        return Err(ValueError::InterfaceName);
    }
    let (mut value, mut mask) = ([0; NAME], [0; NAME]);
    value[..text.len()].copy_from_slice(text.as_bytes());
    mask[..=text.len()].fill(0xff);
    Ok(masked(value, mask))
}

/// The name of an interface, as it was typed.
pub fn interface_name(name: &Masked) -> String {
    let bytes: Vec<u8> = name.value.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reads an address, or a network: `192.168.0.2`, `10.0.0.0/8`, `fd00::/64`.
///
/// # Errors
/// It is neither, or an address within a network.
pub fn host(text: &str) -> Result<Masked, ValueError> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| ValueError::Address)?;
    let most: u32 = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        Some(length) => length
            .parse()
            .ok()
            .filter(|length| *length <= most)
            .ok_or(ValueError::PrefixLength { most })?,
        None => most,
    };
    // Of an IPv4 address the first 96 bits are those of all mapped ones.
    let mask = match u128::BITS - most + length {
        0 => 0,
        length => u128::MAX << (u128::BITS - length),
    };
    let address = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let value = u128::from(address);
    if value & mask != value {
        let network = Ipv6Addr::from(value & mask);
        let network = network.to_ipv4_mapped().map_or(IpAddr::V6(network), IpAddr::V4);
        return Err(ValueError::BitsBehindNetwork { network, length });
    }
    Ok(masked(value.to_be_bytes(), mask.to_be_bytes()))
}

/// Reads a port, or a range of them: `443`, `8000-8099`.
///
/// # Errors
/// It is neither.
pub fn ports(text: &str) -> Result<Ports, ValueError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(Ports { first, last }),
        _ => Err(ValueError::Port),
    }
}

/// Reads a length in bytes, or a range of them, which may have no end: `1500`, `64-128`, `1401-`.
///
/// # Errors
/// It is neither.
pub fn lengths(text: &str) -> Result<Lengths, ValueError> {
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<u32>().map_err(|_| ValueError::Length),
        false => Err(ValueError::Length),
    };
    let (first, last) = match text.split_once('-') {
        Some((first, "")) => (number(first)?, u32::MAX),
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first <= last { Ok(Lengths { first, last }) } else { Err(ValueError::Length) }
}

/// Reads `in` or `out`, as one of [`mod@direction`].
///
/// # Errors
/// It is neither.
pub fn direction(text: &str) -> Result<u32, ValueError> {
    match text {
        "in" => Ok(direction::IN),
        "out" => Ok(direction::OUT),
        _ => Err(ValueError::Direction),
    }
}

/// Sixteen bytes as the kernel side compares them.
fn masked(value: [u8; NAME], mask: [u8; NAME]) -> Masked {
    let words = |bytes: [u8; NAME]| {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        words
    };
    Masked { value: words(value), mask: words(mask) }
}

#[cfg(test)]
mod tests {
    use dropwatch_common::{NO_COOKIE, Netns, filter::NetnsRule};

    use super::*;

    /// Whether the kernel side finds that the bytes match; those of an address may be IPv4's.
    fn matches(Masked { value, mask }: Masked, bytes: [u8; NAME], is_ipv4: bool) -> bool {
        let bytes = masked(bytes, [0; NAME]).value;
        if is_ipv4 && mask[2] != u32::MAX {
            return false;
        }
        (0..4).all(|i| bytes[i] & mask[i] == value[i])
    }

    fn address(text: &str) -> [u8; NAME] {
        match text.parse().unwrap() {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        }
    }

    fn name(text: &[u8]) -> [u8; NAME] {
        let mut bytes = [0; NAME];
        bytes[..text.len()].copy_from_slice(text);
        bytes
    }

    #[test]
    fn one_includes_and_none_excludes() {
        let rule = |kind, inum| NetnsRule { kind, value: NetnsValue::any(inum) };
        let (unused, only, never) =
            (rule(kind::UNUSED, 1), rule(kind::INCLUDE, 1), rule(kind::EXCLUDE, 2));
        let through = |rules: &[NetnsRule]| {
            [1, 2, 3].map(|inum| lets_through(rules, |it| it.is(Netns { inum, cookie: 5 })))
        };
        assert_eq!(through(&[unused]), [true; 3]);
        assert_eq!(through(&[only, unused]), [true, false, false]);
        assert_eq!(through(&[never]), [true, false, true]);
        let also = rule(kind::INCLUDE, 2);
        assert_eq!(through(&[only, also, never]), [true, false, false]);
    }

    #[test]
    fn a_namespace_is_another_than_the_one_that_has_its_number_later() {
        let [older, younger] = [7 << 32 | 1, 7 << 32 | 2].map(|cookie| Netns { inum: 3, cookie });
        let it = NetnsValue::new(older);
        assert!(it.is(older) && !it.is(younger) && !it.is(Netns { inum: 4, ..older }));
        assert!(it.is(Netns { cookie: NO_COOKIE, ..older }), "kernels before 5.12 have none");
        assert!(NetnsValue::any(3).is(younger));
    }

    #[test]
    fn addresses_and_networks_of_both_families() {
        for (network, inside, outside) in [
            ("192.168.0.2", "192.168.0.2", "192.168.0.3"),
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("0.0.0.0/0", "255.255.255.255", "fd00::1"),
            ("fd00::/64", "fd00::1", "fd00:0:0:1::1"),
            ("::/0", "fd00::1", "192.168.0.2"),
            ("::/64", "::1", "127.0.0.1"),
            ("::ffff:10.0.0.0/104", "10.0.0.1", "11.0.0.1"),
            ("fd00::2", "fd00::2", "fd00::3"),
        ] {
            let network = host(network).unwrap();
            let is_matched = |text: &str| matches(network, address(text), text.contains('.'));
            assert!(is_matched(inside), "{inside}");
            assert!(!is_matched(outside), "{outside}");
        }
    }

    #[test]
    fn wrong_addresses_are_refused_by_what_is_wrong() {
        for text in ["", "gw", "10.0.0"] {
            assert_eq!(host(text), Err(ValueError::Address), "{text}");
        }
        for (text, most) in
            [("10.0.0.1/33", 32), ("fd00::/129", 128), ("10.0.0.0/x", 32), ("10.0.0.0/-1", 32)]
        {
            assert_eq!(host(text), Err(ValueError::PrefixLength { most }), "{text}");
        }
        let error = host("10.0.0.1/8").unwrap_err();
        assert!(error.to_string().ends_with("10.0.0.0/8 would be one"), "{error}");
    }

    #[test]
    fn a_name_matches_whole_whatever_stands_behind_it() {
        let eth0 = interface("eth0").unwrap();
        assert_eq!(interface_name(&eth0), "eth0");
        assert!(matches(eth0, name(b"eth0"), false));
        assert!(matches(eth0, name(b"eth0\0old"), false), "left over from a longer name");
        assert!(!matches(eth0, name(b"eth01"), false) && !matches(eth0, name(b"eth"), false));
        let longest = "abcdefghijklmno";
        assert!(matches(interface(longest).unwrap(), name(longest.as_bytes()), false));
        assert_eq!(interface_name(&interface(longest).unwrap()), longest);
        for text in ["", "abcdefghijklmnop"] {
            assert_eq!(interface(text), Err(ValueError::InterfaceLength), "{text}");
        }
        for text in ["a b", "a/b", "a:b", ".", "..", "a\u{b}b", "\u{e0}"] {
            assert_eq!(interface(text), Err(ValueError::InterfaceName), "{text}");
        }
    }

    #[test]
    fn ports_and_ranges() {
        assert_eq!(ports("443"), Ok(Ports { first: 443, last: 443 }));
        assert_eq!(ports("8000-8099"), Ok(Ports { first: 8000, last: 8099 }));
        for text in ["", "http", "65536", "9-8", "1-2-3", "-1"] {
            assert_eq!(ports(text), Err(ValueError::Port), "{text}");
        }
    }

    #[test]
    fn lengths_and_ranges_of_them() {
        for (text, first, last) in
            [("1500", 1500, 1500), ("0-63", 0, 63), ("1401-", 1401, u32::MAX), ("0", 0, 0)]
        {
            assert_eq!(lengths(text), Ok(Lengths { first, last }), "{text}");
        }
        for text in ["", "-", "-5", "9-8", "+1", "1k", "4294967296", "1-2-3", " 1"] {
            assert_eq!(lengths(text), Err(ValueError::Length), "{text}");
        }
    }

    #[test]
    fn there_are_two_directions() {
        assert_eq!(["in", "out"].map(direction), [Ok(direction::IN), Ok(direction::OUT)]);
        for text in ["", "IN", "both", "unknown"] {
            assert_eq!(direction(text), Err(ValueError::Direction), "{text}");
        }
    }

    #[test]
    fn a_filter_reads_no_more_than_it_needs() {
        let port = |exclude| Choice { exclude, value: Ports { first: 1, last: 2 } };
        let mut packets = Packets::default();
        assert_eq!(packets.parts(), 0);
        packets.port = vec![port(false), port(true)];
        assert_eq!(packets.parts(), part::HEADERS);
        packets.netns.push(Choice { exclude: false, value: "gw".into() });
        assert_eq!(packets.parts(), part::HEADERS | part::NETNS);
        let bits = || vec![Choice { exclude: false, value: Bits { value: 1, mask: 1 } }];
        let length = vec![Choice { exclude: false, value: Lengths { first: 1, last: 2 } }];
        let direction = vec![Choice { exclude: true, value: direction::IN }];
        let of = |packets: Packets| packets.parts();
        assert_eq!(of(Packets { tcp_flags: bits(), ..Packets::default() }), part::TCP_FLAGS);
        assert_eq!(of(Packets { mark: bits(), ..Packets::default() }), part::MARK);
        assert_eq!(of(Packets { length, ..Packets::default() }), part::LENGTH);
        assert_eq!(of(Packets { direction, ..Packets::default() }), part::DIRECTION);

        let filter = packets.compile([NetnsValue::any(7)]).unwrap();
        assert_eq!(filter.netns[0], NetnsRule { kind: kind::INCLUDE, value: NetnsValue::any(7) });
        let kinds: Vec<_> = filter.port.iter().map(|rule| rule.kind).collect();
        assert_eq!(kinds[..3], [kind::INCLUDE, kind::EXCLUDE, kind::UNUSED]);
        packets.port = vec![port(false); MOST + 1];
        assert_eq!(packets.compile([NetnsValue::any(7)]), Err(TooManyValues { option: "--port" }));
    }
}
