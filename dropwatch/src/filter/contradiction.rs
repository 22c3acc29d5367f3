//! Filters that no drop can pass: each alone may well be meant, together they count nothing.
//!
//! Decided as the kernel side decides: an address or a port is the source's or the destination's,
//! packets other than IP have neither, and only some protocols have ports.

use dropwatch_common::filter::{ANY, Bits, Lengths, Masked, NAME, Ports, Protocol, direction};
use thiserror::Error;

use super::{Packets, port_bearing};
use crate::report::{
    keys::{Choice, Keys},
    protocol::{IPV4, IPV6, number::TCP},
};

/// Extension headers of IPv6 (IANA, IPv6 Extension Header Types).
const EXTENSIONS: [u16; 8] = [0, 43, 44, 51, 60, 135, 139, 140];
/// All IPv4 addresses, mapped into IPv6 (`::ffff:0:0/96`).
const MAPPED: Range = Range { first: 0xffff_0000_0000, last: 0xffff_ffff_ffff };

/// Numbers from `first` to `last`, both of them in it.
#[derive(Clone, Copy, Debug)]
struct Range {
    first: u128,
    last: u128,
}

impl Range {
    fn has(self, number: u128) -> bool {
        self.first <= number && number <= self.last
    }
}

/// Why filters let nothing through, with the options as they were typed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NothingPasses {
    /// One option alone excludes every drop.
    #[error("{0} excludes every drop")]
    Excluded(String),
    /// What one of these options lets through, others exclude.
    #[error("no drop can pass {}{}", .0.join(" "), if .0.len() == 1 { "" } else { " together" })]
    Together(Vec<String>),
}

/// Finds values that can let nothing through.
///
/// `netns` are the namespaces in `packets`; `typed` is how every value was typed, those of `keys`
/// first and then as [`Packets`] has them.
///
/// Returns a notice for each value that is in vain beside others.
///
/// # Errors
/// Which options together let nothing through.
pub fn check(
    keys: &Keys,
    packets: &Packets,
    netns: &[NetnsId],
    typed: &[String],
) -> Result<Vec<String>, NothingPasses> {
    let namespaces = packets.netns.iter().zip(netns);
    let namespaces: Vec<Choice<&NetnsId>> =
        namespaces.map(|(choice, id)| Choice { exclude: choice.exclude, value: id }).collect();
    let mut rest = typed;
    let mut next = |length: usize| {
        let (own, others) = rest.split_at(length.min(rest.len()));
        rest = others;
        own
    };
    let reasons = next(keys.reasons.len());
    let symbols = next(keys.symbols.len());
    let typed_netns = next(namespaces.len());
    let interfaces = next(packets.iface.len());
    let protocol = next(packets.protocol.len());
    let host = next(packets.host.len());
    let port = next(packets.port.len());
    let tcp_flags = next(packets.tcp_flags.len());
    let length = next(packets.length.len());
    let mark = next(packets.mark.len());
    let direction = next(packets.direction.len());

    let mut notices = Vec::new();
    notices.extend(within(&keys.reasons, reasons, |a, b| a.covers(b))?);
    notices.extend(within(&keys.symbols, symbols, |a, b| a.covers(b))?);
    for (glob, typed) in keys.reasons.iter().zip(reasons) {
        everything(glob.exclude && glob.value.is_everything(), typed)?;
    }
    for (function, typed) in keys.symbols.iter().zip(symbols) {
        everything(function.exclude && function.value.is_everything(), typed)?;
    }
    notices.extend(within(&namespaces, typed_netns, PartialEq::eq)?);
    notices.extend(within(&packets.iface, interfaces, PartialEq::eq)?);
    notices.extend(alone(&packets.length, length, are_lengths)?);
    notices.extend(within(&packets.mark, mark, covers)?);
    for (bits, typed) in packets.mark.iter().zip(mark) {
        everything(bits.exclude && bits.value.mask == 0, typed)?;
    }
    notices.extend(alone(&packets.direction, direction, is_a_direction)?);

    let headers = Headers::of(packets);
    let typed = [protocol, host, port, tcp_flags];
    // Few options before many: these are the ones to blame.
    let mut some: Vec<u32> = (1..1 << typed.len()).collect();
    some.sort_by_key(|options| options.count_ones());
    for options in some {
        if !headers.only(options).is_possible() {
            let blamed = typed.iter().zip(0..).filter(|(_, option)| options & 1 << option != 0);
            return Err(NothingPasses::Together(
                blamed.flat_map(|(own, _)| own.to_vec()).collect(),
            ));
        }
    }
    let others = |own: &[String]| {
        let headers = typed.concat().into_iter();
        headers.filter(|typed| !own.contains(typed)).collect::<Vec<_>>()
    };
    let Headers { protocols, hosts, ports, flags } = headers;
    let vain = [
        (
            protocol,
            excluding(protocols, protocol),
            in_vain(protocols, |own| Headers { protocols: own, ..headers }.is_possible()),
        ),
        (
            host,
            excluding(hosts, host),
            in_vain(hosts, |own| Headers { hosts: own, ..headers }.is_possible()),
        ),
        (
            port,
            excluding(ports, port),
            in_vain(ports, |own| Headers { ports: own, ..headers }.is_possible()),
        ),
        (
            tcp_flags,
            excluding(flags, tcp_flags),
            in_vain(flags, |own| Headers { flags: own, ..headers }.is_possible()),
        ),
    ];
    for (own, excluding, indices) in vain {
        let beside = [others(own), excluding].concat();
        notices.extend(indices.iter().filter_map(|index| Some(lost(own.get(*index)?, &beside))));
    }
    Ok(notices)
}

/// What identifies a namespace: its number, or its name while it has none.
pub type NetnsId = (Option<u32>, String);

/// Looks among the values of one option for those that others of it exclude; `covers` says whether
/// all that its second argument matches is matched by its first.
fn within<T: Clone>(
    choices: &[Choice<T>],
    typed: &[String],
    covers: impl Fn(&T, &T) -> bool,
) -> Result<Vec<String>, NothingPasses> {
    let excluded = |value: &T| choices.iter().any(|it| it.exclude && covers(&it.value, value));
    let vain = in_vain(choices, |own| {
        own.iter().any(|choice| !choice.exclude && !excluded(&choice.value))
    });
    let selected = choices.iter().filter(|choice| !choice.exclude).count();
    if selected > 0 && vain.len() == selected {
        return Err(NothingPasses::Together(typed.to_vec()));
    }
    let excluding = excluding(choices, typed);
    Ok(vain.iter().filter_map(|index| Some(lost(typed.get(*index)?, &excluding))).collect())
}

/// How the excluded values were typed.
fn excluding<T>(choices: &[Choice<T>], typed: &[String]) -> Vec<String> {
    let excluded = choices.iter().zip(typed).filter(|(choice, _)| choice.exclude);
    excluded.map(|(_, typed)| typed.clone()).collect()
}

fn everything(excluded: bool, typed: &str) -> Result<(), NothingPasses> {
    if excluded { Err(NothingPasses::Excluded(typed.to_owned())) } else { Ok(()) }
}

/// Indices of the selecting values of which each alone, with all excluded ones, lets nothing
/// through.
fn in_vain<T: Clone>(choices: &[Choice<T>], possible: impl Fn(&[Choice<T>]) -> bool) -> Vec<usize> {
    let excluded: Vec<_> = choices.iter().filter(|choice| choice.exclude).cloned().collect();
    let selecting = choices.iter().enumerate().filter(|(_, choice)| !choice.exclude);
    let in_vain = selecting.filter(|(_, choice)| {
        let mut alone = excluded.clone();
        alone.push((*choice).clone());
        !possible(&alone)
    });
    in_vain.map(|(index, _)| index).collect()
}

fn lost(typed: &str, beside: &[String]) -> String {
    format!("{typed} counts nothing beside {}", beside.join(" "))
}

/// As [`within`], of values of which `is_possible` tells whether some let anything through.
fn alone<T: Clone>(
    choices: &[Choice<T>],
    typed: &[String],
    is_possible: impl Fn(&[Choice<T>]) -> bool,
) -> Result<Vec<String>, NothingPasses> {
    if !is_possible(choices) {
        return Err(NothingPasses::Together(typed.to_vec()));
    }
    let (vain, excluding) = (in_vain(choices, is_possible), excluding(choices, typed));
    Ok(vain.iter().filter_map(|index| Some(lost(typed.get(*index)?, &excluding))).collect())
}

/// Whether a packet of some length is let through.
fn are_lengths(choices: &[Choice<Lengths>]) -> bool {
    let range = |it: &Lengths| Range { first: it.first.into(), last: it.last.into() };
    let ranges: Vec<_> = choices.iter().map(|choice| map(choice, range)).collect();
    leaves_any(&ranges, Range { first: 0, last: u32::MAX.into() })
}

/// Whether a packet of either direction is let through.
fn is_a_direction(choices: &[Choice<u32>]) -> bool {
    [direction::IN, direction::OUT].iter().any(|one| is_selected(choices, |it| it == one))
}

/// Whether what has the bits of the second has those of the first.
fn covers(all: &Bits, some: &Bits) -> bool {
    some.mask & all.mask == all.mask && some.value & all.mask == all.value
}

/// Whether one value of an option lets something through, and none excludes it.
fn is_selected<T>(choices: &[Choice<T>], is: impl Fn(&T) -> bool) -> bool {
    (is_passed_without(choices) || choices.iter().any(|it| !it.exclude && is(&it.value)))
        && !choices.iter().any(|it| it.exclude && is(&it.value))
}

/// The options about headers, which depend on each other.
#[derive(Clone, Copy)]
struct Headers<'a> {
    protocols: &'a [Choice<Protocol>],
    hosts: &'a [Choice<Masked>],
    ports: &'a [Choice<Ports>],
    flags: &'a [Choice<Bits>],
}

impl<'a> Headers<'a> {
    fn of(packets: &'a Packets) -> Self {
        let Packets { protocol, host, port, tcp_flags, .. } = packets;
        Self { protocols: protocol, hosts: host, ports: port, flags: tcp_flags }
    }

    /// Some of them alone, as bits in the order of the fields.
    fn only(self, options: u32) -> Self {
        fn kept<T>(values: &[T], kept: bool) -> &[T] {
            if kept { values } else { &[] }
        }
        let has = |option: u32| options & 1 << option != 0;
        Self {
            protocols: kept(self.protocols, has(0)),
            hosts: kept(self.hosts, has(1)),
            ports: kept(self.ports, has(2)),
            flags: kept(self.flags, has(3)),
        }
    }

    /// Whether there is any packet that all of them let through.
    fn is_possible(self) -> bool {
        let Self { protocols, hosts, ports, flags } = self;
        is_possible(protocols, hosts, ports, flags)
    }
}

fn is_possible(
    protocols: &[Choice<Protocol>],
    hosts: &[Choice<Masked>],
    ports: &[Choice<Ports>],
    flags: &[Choice<Bits>],
) -> bool {
    let v4: Vec<_> = hosts.iter().map(|choice| map(choice, addresses_of_ipv4)).collect();
    let hosts: Vec<_> = hosts.iter().map(|choice| map(choice, addresses)).collect();
    let ports: Vec<_> = ports.iter().map(|choice| map(choice, numbers)).collect();
    let v6 = [Choice { exclude: true, value: MAPPED }].into_iter().chain(hosts.iter().cloned());
    let v6: Vec<_> = v6.collect();
    let all = Range { first: 0, last: u128::MAX };
    let addressed = |network| match network {
        IPV4 => leaves_any(&v4, MAPPED),
        IPV6 => leaves_any(&v6, all),
        _ => is_passed_without(&hosts),
    };
    let numbered = |transport| match u8::try_from(transport).is_ok_and(port_bearing) {
        true => leaves_any(&ports, Range { first: 0, last: u16::MAX.into() }),
        false => is_passed_without(&ports),
    };
    let set =
        (0..=u32::from(u8::MAX)).any(|set| is_selected(flags, |it| set & it.mask == it.value));
    let flagged = |transport| match transport == u16::from(TCP) {
        true => set,
        false => is_passed_without(flags),
    };
    // Each ethertype that a filter names, IP, and 0xffff for all that none names.
    let asked = protocols.iter().map(|choice| choice.value.network).filter(|it| *it != 0);
    let networks = asked.chain([IPV4, IPV6, u16::MAX]);
    networks.filter(|network| addressed(*network)).any(|network| {
        let mut above = match network {
            IPV4 | IPV6 => 0..=u16::from(u8::MAX),
            _ => ANY..=ANY,
        };
        above.any(|transport| {
            // Behind an extension header stands another: which, the kernel side does not look for.
            !(network == IPV6 && EXTENSIONS.contains(&transport))
                && numbered(transport)
                && flagged(transport)
                && is_let(protocols, network, transport)
        })
    })
}

/// Whether `protocols` let packets of one through.
fn is_let(protocols: &[Choice<Protocol>], network: u16, transport: u16) -> bool {
    let is = |selected: &Protocol| {
        (selected.network == 0 || selected.network == network)
            && (selected.transport == ANY || selected.transport == transport)
    };
    is_selected(protocols, is)
}

/// Whether a packet that has none of what the option looks at passes it.
fn is_passed_without<T>(choices: &[Choice<T>]) -> bool {
    choices.iter().all(|choice| choice.exclude)
}

/// Whether any number of `space` is let through. A packet has two of them, of which one suffices to
/// be selected, and one to be excluded: it passes only if one with the better of them twice does.
fn leaves_any(choices: &[Choice<Range>], space: Range) -> bool {
    let ranges =
        |exclude| choices.iter().filter(move |it| it.exclude == exclude).map(|it| it.value);
    let is_selected = |number| is_passed_without(choices) || ranges(false).any(|it| it.has(number));
    // If anything is left, its first number is the first one selected or follows one that is
    // excluded, so only these are tried.
    let starts = ranges(false).map(|range| range.first.max(space.first));
    let ends = ranges(true).filter_map(|range| range.last.checked_add(1));
    starts.chain(ends).chain([space.first]).any(|number| {
        space.has(number) && is_selected(number) && !ranges(true).any(|range| range.has(number))
    })
}

fn map<T, U>(choice: &Choice<T>, value: impl Fn(&T) -> U) -> Choice<U> {
    Choice { exclude: choice.exclude, value: value(&choice.value) }
}

fn numbers(ports: &Ports) -> Range {
    Range { first: ports.first.into(), last: ports.last.into() }
}

/// The IPv4 addresses of a network; none for a network of IPv6.
fn addresses_of_ipv4(network: &Masked) -> Range {
    match network.mask[2] {
        u32::MAX => addresses(network),
        _ => Range { first: 1, last: 0 },
    }
}

fn addresses(network: &Masked) -> Range {
    let number = |words: [u32; 4]| {
        let mut bytes = [0; NAME];
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_ne_bytes();
        }
        u128::from_be_bytes(bytes)
    };
    let first = number(network.value);
    Range { first, last: first | !number(network.mask) }
}

#[cfg(test)]
mod tests;
