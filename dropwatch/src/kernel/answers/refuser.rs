//! What refuses a packet whose look-up the kernel ended with an error: a route of a type that does so, or a
//! routing rule.
//!
//! The kernel's answer is the error alone. So rules and routes that refuse are listed, and gone
//! through as the kernel does (`fib_rules_lookup`, net/core/fib_rules.c): the rules in their order, and in
//! each table the longest prefix. Routes that lead on need not be known, since the look-up did not
//! end at one. Where it is not known whether a rule concerns the packet (a user, the port of a
//! fragment), the kernel's answer may be about another packet, and there is none.

use std::net::IpAddr;

use libc::{RTA_DST, RTA_PRIORITY, RTA_SRC, RTA_TABLE, RTM_GETROUTE, RTM_GETRULE};
use netlink_packet_core::Emitable as _;
use netlink_packet_route::route::{RouteHeader, RouteMessageBuffer, RouteType};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::net::if_::if_nametoindex;

use super::{octets, route};
use crate::{
    kernel::netlink::{Netlink, NetlinkError, address, attributes, number},
    report::question::{Packet, Prefix, Refusal, Refuser, RefusingType},
};

/// Before the attributes, `struct rtmsg`.
const ROUTE_HEADER: usize = size_of::<RouteMessageBuffer>();
/// Before the attributes, `struct fib_rule_hdr` (include/uapi/linux/fib_rules.h).
const RULE_HEADER: usize = 12;
/// Most rules, and most routes to the packet's address, that are looked at.
const MOST: usize = 1024;

/// `FIB_RULE_INVERT`: the rule is about what its selectors do not fit.
const INVERT: u32 = 2;
/// `FRA_*`, attributes of a rule.
const TO: u16 = 1;
const FROM: u16 = 2;
const IIF: u16 = 3;
const GOTO: u16 = 4;
const PREFERENCE: u16 = 6;
const MARK: u16 = 10;
const FLOW: u16 = 11;
const SUPPRESS_PREFIX: u16 = 14;
const TABLE: u16 = 15;
const MARK_MASK: u16 = 16;
const OIF: u16 = 17;
const PAD: u16 = 18;
const L3MDEV: u16 = 19;
const UIDS: u16 = 20;
/// Who has made the rule.
const PROTOCOL: u16 = 21;
const ABOVE: u16 = 22;
const FROM_PORTS: u16 = 23;
const TO_PORTS: u16 = 24;
const FROM_PORT_MASK: u16 = 28;
const TO_PORT_MASK: u16 = 29;

/// What a rule does (`FR_ACT_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Action {
    Table(u32),
    GoTo(u32),
    Nothing,
    Refuse(RefusingType),
    #[default]
    Unknown,
}

/// A routing rule, as far as it can be told from a packet whether it is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RoutingRule {
    preference: u32,
    action: Action,
    inverted: bool,
    to: Option<Prefix>,
    from: Option<Prefix>,
    /// Name of the device that packets come in by; those of the host itself, by `lo`.
    iif: Option<String>,
    /// The mark of packets, and which of its bits count (`fwmark`).
    mark: (u32, u32),
    /// Number above IP.
    protocol: Option<u8>,
    /// The first and the last one.
    from_ports: Option<(u16, u16)>,
    to_ports: Option<(u16, u16)>,
    /// The users whose packets it is about, the first and the last one.
    users: Option<(u32, u32)>,
    /// It is about packets that a socket sends by a device, which is no device that samples know.
    has_oif: bool,
    /// It is about packets of the devices of VRFs, and has the table of each.
    of_vrfs: bool,
    /// It looks at what samples do not show.
    looks_further: bool,
    /// It leaves out some of the routes in its table.
    suppresses: bool,
}

/// A route of a type that refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RefusingRoute {
    kind: RefusingType,
    to: Prefix,
    from: Option<Prefix>,
    table: u32,
    metric: u32,
}

/// Finds what refuses `packet`, in the calling thread's namespace; `None` where nothing there does, and
/// where it is not sure.
pub(super) fn find(rules: &[RoutingRule], packet: &Packet, why: Refusal) -> Option<Refuser> {
    let kinds: &[(RefusingType, RouteType)] = match why {
        Refusal::NoRoute => &[(RefusingType::Throw, RouteType::Throw)],
        Refusal::Blackhole => &[
            (RefusingType::Throw, RouteType::Throw),
            (RefusingType::Blackhole, RouteType::BlackHole),
        ],
        Refusal::Unreachable => &[
            (RefusingType::Throw, RouteType::Throw),
            (RefusingType::Unreachable, RouteType::Unreachable),
        ],
        Refusal::Prohibited => &[
            (RefusingType::Throw, RouteType::Throw),
            (RefusingType::Prohibit, RouteType::Prohibit),
        ],
        Refusal::ReversePath => return None,
    };
    let mut routes = Vec::new();
    for (kind, route_type) in kinds {
        add_routes(&mut routes, packet, *kind, *route_type).ok()?;
    }
    refuser(rules, &routes, packet, came_in_by(packet)).filter(|by| error_of(by) == why)
}

/// Whether what is known of `packet` is enough for `rules` to decide: an answer is about another packet where
/// one that comes before the `table` of the answer looks at more. Without a table, all count.
pub(super) fn decide(rules: &[RoutingRule], packet: &Packet, table: Option<u32>) -> bool {
    decide_by(rules, packet, table, came_in_by(packet))
}

fn decide_by(
    rules: &[RoutingRule],
    packet: &Packet,
    table: Option<u32>,
    came_in_by: impl Fn(&str) -> bool,
) -> bool {
    for rule in rules {
        match rule.concerns(packet, &came_in_by) {
            // The kernel knows whose the device is that it came in by.
            None if !rule.of_vrfs || rule.looks_further || packet.iif.is_none() => return false,
            Some(true) if table.is_some_and(|table| rule.action == Action::Table(table)) => {
                return true;
            }
            // Of several that do so, the first one ends the look-up.
            Some(true) if matches!(rule.action, Action::Refuse(_)) => return true,
            _ => {}
        }
    }
    true
}

/// Whether any rule looks at what is above IP.
pub(super) fn look_above(rules: &[RoutingRule]) -> bool {
    let looks = |rule: &RoutingRule| {
        rule.protocol.is_some() || rule.from_ports.is_some() || rule.to_ports.is_some()
    };
    rules.iter().any(looks)
}

/// Tells whether `packet` came in by a device of some name.
fn came_in_by(packet: &Packet) -> impl Fn(&str) -> bool {
    let index = packet.iif.unwrap_or(LOOPBACK);
    move |name| if_nametoindex(name).ok() == Some(index)
}

/// Index of the loopback device, the first of every namespace (`LOOPBACK_IFINDEX`, include/net/flow.h):
/// the kernel takes what a host sends itself for coming in there.
const LOOPBACK: u32 = 1;

/// Adds the routes of one type that lead to where `packet` goes, of all tables.
fn add_routes(
    routes: &mut Vec<RefusingRoute>,
    packet: &Packet,
    kind: RefusingType,
    route_type: RouteType,
) -> Result<(), NetlinkError> {
    let (address_family, _) = octets(packet.to);
    let header = RouteHeader { address_family, kind: route_type, ..RouteHeader::default() };
    let mut question = vec![0; ROUTE_HEADER];
    header.emit(&mut question);
    Netlink::open(NETLINK_ROUTE)?.filters()?.ask_all(RTM_GETROUTE, &question, |message| {
        if routes.len() < MOST
            && let Some(route) = route(message, kind, route_type)
            && route.is_for(packet)
        {
            routes.push(route);
        }
    })
}

/// The rules of the packet's family, in their order.
pub(super) fn rules(packet: &Packet) -> Result<Vec<RoutingRule>, NetlinkError> {
    let (family, _) = octets(packet.to);
    let mut question = [0; RULE_HEADER];
    question[0] = u8::from(family);
    let mut rules = Vec::new();
    Netlink::open(NETLINK_ROUTE)?.ask_all(RTM_GETRULE, &question, |message| {
        if rules.len() < MOST {
            rules.extend(rule(message));
        }
    })?;
    Ok(rules)
}

/// One `RTM_NEWROUTE`; `None` for another type, too, which a kernel sends that knows no filter.
fn route(message: &[u8], kind: RefusingType, route_type: RouteType) -> Option<RefusingRoute> {
    let header = RouteHeader::parse(message).ok().filter(|header| header.kind == route_type)?;
    let (mut to, mut from, mut table, mut metric) = (None, None, u32::from(header.table), 0);
    for (kind, value) in attributes(message.get(ROUTE_HEADER..)?) {
        match kind {
            RTA_DST => to = address(value),
            RTA_SRC => from = address(value),
            RTA_TABLE => table = number(value)?,
            RTA_PRIORITY => metric = number(value)?,
            _ => {}
        }
    }
    let all: IpAddr = match header.address_family {
        netlink_packet_route::AddressFamily::Inet => [0; 4].into(),
        netlink_packet_route::AddressFamily::Inet6 => [0; 16].into(),
        _ => return None,
    };
    let to = Prefix { address: to.unwrap_or(all), length: header.destination_prefix_length };
    let from = from.map(|address| Prefix { address, length: header.source_prefix_length });
    Some(RefusingRoute { kind, to, from, table, metric })
}

impl RefusingRoute {
    fn is_for(&self, packet: &Packet) -> bool {
        let from = |prefix: Prefix| packet.from.is_some_and(|from| prefix.contains(from));
        self.to.contains(packet.to) && self.from.is_none_or(from)
    }
}

/// One `RTM_NEWRULE`.
fn rule(message: &[u8]) -> Option<RoutingRule> {
    let (header, rest) = message.split_first_chunk::<RULE_HEADER>()?;
    let [_, to_length, from_length, tos, table, _, _, action, flags @ ..] = *header;
    let (mut table, mut goto, mut mask) = (u32::from(table), None, None);
    let mut rule = RoutingRule {
        inverted: u32::from_ne_bytes(flags) & INVERT != 0,
        looks_further: tos != 0,
        ..RoutingRule::default()
    };
    let prefix = |value: &[u8], length| Some(Prefix { address: address(value)?, length });
    for (kind, value) in attributes(rest) {
        match kind {
            TO => rule.to = Some(prefix(value, to_length)?),
            FROM => rule.from = Some(prefix(value, from_length)?),
            IIF => rule.iif = Some(name(value)),
            OIF => rule.has_oif = true,
            GOTO => goto = number(value),
            PREFERENCE => rule.preference = number(value)?,
            TABLE => table = number(value)?,
            // All ones: it leaves out no route.
            SUPPRESS_PREFIX => rule.suppresses |= number(value) != Some(u32::MAX),
            MARK => rule.mark = (number(value)?, u32::MAX),
            MARK_MASK => mask = number(value),
            L3MDEV => rule.of_vrfs = value.first().is_some_and(|value| *value != 0),
            UIDS => rule.users = Some((number(value)?, number(value.get(4..)?)?)),
            ABOVE => rule.protocol = value.first().copied(),
            FROM_PORTS => rule.from_ports = Some(range(value)?),
            TO_PORTS => rule.to_ports = Some(range(value)?),
            // All ones: it looks at the whole of the port.
            FROM_PORT_MASK | TO_PORT_MASK if value.iter().all(|byte| *byte == u8::MAX) => {}
            FLOW | PAD | PROTOCOL => {}
            // Something newer.
            _ => rule.looks_further = true,
        }
    }
    // A mask stands for a mark of 0, too, which has no attribute.
    rule.mark.1 = mask.unwrap_or(rule.mark.1);
    rule.action = match action {
        1 => Action::Table(table),
        2 => goto.map_or(Action::Unknown, Action::GoTo),
        3 => Action::Nothing,
        6 => Action::Refuse(RefusingType::Blackhole),
        7 => Action::Refuse(RefusingType::Unreachable),
        8 => Action::Refuse(RefusingType::Prohibit),
        _ => Action::Unknown,
    };
    Some(rule)
}

/// `struct fib_rule_port_range`.
fn range(value: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *value.first_chunk()?;
    Some((u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])))
}

/// A device's name, up to its final zero.
fn name(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

impl RoutingRule {
    /// Whether it concerns `packet`; `None` where that is not known.
    fn concerns(&self, packet: &Packet, came_in_by: &impl Fn(&str) -> bool) -> Option<bool> {
        let (came_in, above) = (packet.iif.is_some(), route::above(packet));
        let is_one = |range: Option<(u16, u16)>, port: Option<u16>| {
            range.map_or(Some(true), |(first, last)| Some((first..=last).contains(&port?)))
        };
        let fits = [
            Some(self.to.is_none_or(|prefix| prefix.contains(packet.to))),
            Some((packet.mark ^ self.mark.0) & self.mark.1 == 0),
            match self.from.filter(|prefix| prefix.length > 0) {
                None => Some(true),
                Some(prefix) => packet.from.map(|from| prefix.contains(from)),
            },
            match &self.iif {
                None => Some(true),
                Some(name) => (came_in || packet.own).then(|| came_in_by(name)),
            },
            // What comes in has no device to go out by yet.
            if self.has_oif { came_in.then_some(false) } else { Some(true) },
            // What comes in counts as root's (`ip_route_input_slow`, net/ipv4/route.c).
            self.users.map_or(Some(true), |(first, _)| came_in.then_some(first == 0)),
            self.protocol.map_or(Some(true), |protocol| Some(above.protocol? == protocol)),
            is_one(self.from_ports, above.from_port),
            is_one(self.to_ports, above.to_port),
            if self.of_vrfs || self.looks_further { None } else { Some(true) },
        ];
        let fits = match fits {
            // What is not known can only make it fit less.
            fits if fits.contains(&Some(false)) => Some(false),
            fits if fits.contains(&None) => None,
            _ => Some(true),
        };
        fits.map(|fits| fits != self.inverted)
    }
}

/// What ends the look-up, where `routes` lead to where the packet goes.
fn refuser(
    rules: &[RoutingRule],
    routes: &[RefusingRoute],
    packet: &Packet,
    came_in_by: impl Fn(&str) -> bool,
) -> Option<Refuser> {
    let (mut next, mut thrown) = (0, None);
    for rule in rules {
        let concerns = rule.concerns(packet, &came_in_by);
        if rule.preference < next || concerns == Some(false) {
            continue;
        }
        let is_sure = concerns.is_some() && !rule.suppresses;
        let refuser = match rule.action {
            Action::Nothing => continue,
            // A VRF's rule names no table.
            Action::Unknown | Action::Table(0) => return None,
            Action::GoTo(preference) if is_sure => {
                next = preference;
                continue;
            }
            Action::GoTo(_) => return None,
            Action::Refuse(kind) => Refuser::Rule { kind, preference: rule.preference },
            Action::Table(table) => match best(routes, table) {
                Some(RefusingRoute { kind, to, table, metric, .. }) => {
                    Refuser::Route { kind, to, table, metric, rule: rule.preference }
                }
                None => continue,
            },
        };
        if !is_sure {
            return None;
        }
        match refuser {
            Refuser::Route { kind: RefusingType::Throw, .. } => thrown = Some(refuser),
            _ => return Some(refuser),
        }
    }
    thrown
}

/// The route that counts in a table: the one with the longest prefix, and of these the one that is preferred.
fn best(routes: &[RefusingRoute], table: u32) -> Option<RefusingRoute> {
    let routes = routes.iter().filter(|route| route.table == table);
    routes.min_by_key(|route| (u8::MAX - route.to.length, route.metric)).copied()
}

/// The error that a look-up ends with there (`fib_props`, net/ipv4/fib_semantics.c; `fib6_prop`,
/// net/ipv6/route.c; `fib4_rule_action`, net/ipv4/fib_rules.c).
fn error_of(refuser: &Refuser) -> Refusal {
    match refuser {
        Refuser::Route { kind: RefusingType::Unreachable, .. } => Refusal::Unreachable,
        Refuser::Route { kind, .. } | Refuser::Rule { kind, .. } => match kind {
            RefusingType::Blackhole => Refusal::Blackhole,
            RefusingType::Prohibit => Refusal::Prohibited,
            RefusingType::Unreachable | RefusingType::Throw => Refusal::NoRoute,
        },
    }
}

#[cfg(test)]
mod tests;
