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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Table(u32),
    GoTo(u32),
    Nothing,
    Refuse(RefusingType),
    Unknown,
}

/// A routing rule, as far as it can be told from a packet whether it is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        preference: 0,
        action: Action::Unknown,
        inverted: u32::from_ne_bytes(flags) & INVERT != 0,
        to: None,
        from: None,
        iif: None,
        mark: (0, 0),
        protocol: None,
        from_ports: None,
        to_ports: None,
        users: None,
        has_oif: false,
        of_vrfs: false,
        looks_further: tos != 0,
        suppresses: false,
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{kernel::netlink::fixture::attribute, report::flow::AboveIp};

    const MAIN: u32 = 254;

    fn packet() -> Packet {
        let from = Some([198, 18, 1, 2].into());
        Packet { from, iif: Some(3), ..Packet::to([203, 0, 113, 9].into()) }
    }

    fn prefix(address: [u8; 4], length: u8) -> Prefix {
        Prefix { address: address.into(), length }
    }

    fn looks_up(preference: u32, table: u32) -> RoutingRule {
        RoutingRule {
            preference,
            action: Action::Table(table),
            inverted: false,
            to: None,
            from: None,
            iif: None,
            mark: (0, 0),
            protocol: None,
            from_ports: None,
            to_ports: None,
            users: None,
            has_oif: false,
            of_vrfs: false,
            looks_further: false,
            suppresses: false,
        }
    }

    fn refuses(kind: RefusingType, length: u8, table: u32) -> RefusingRoute {
        let to = prefix([203, 0, 113, 0], length);
        RefusingRoute { kind, to, from: None, table, metric: 0 }
    }

    fn found(rules: &[RoutingRule], routes: &[RefusingRoute]) -> Option<(u32, u8)> {
        match refuser(rules, routes, &packet(), |name| name == "port0")? {
            Refuser::Route { to, table, .. } => Some((table, to.length)),
            Refuser::Rule { preference, .. } => Some((preference, 0)),
        }
    }

    #[test]
    fn the_longest_prefix_of_the_first_table_counts() {
        use RefusingType::{Blackhole, Throw};
        let rules = [looks_up(0, 255), looks_up(100, 7), looks_up(32_766, MAIN)];
        let routes = [refuses(Blackhole, 8, MAIN), refuses(Blackhole, 24, MAIN)];
        assert_eq!(found(&rules, &routes), Some((MAIN, 24)));
        let earlier = [&routes[..], &[refuses(Blackhole, 4, 7)]].concat();
        assert_eq!(found(&rules, &earlier), Some((7, 4)));
        let thrown = [&earlier[..], &[refuses(Throw, 16, 7)]].concat();
        assert_eq!(found(&rules, &thrown), Some((MAIN, 24)), "it goes on with the next table");
        assert_eq!(found(&rules, &[refuses(Throw, 16, 7)]), Some((7, 16)), "and there is none");
        assert_eq!(found(&rules, &[refuses(Blackhole, 16, 8)]), None, "no rule leads there");
        assert_eq!(found(&rules, &[]), None);
    }

    #[test]
    fn of_equal_prefixes_the_preferred_one_counts() {
        let of = |metric| RefusingRoute { metric, ..refuses(RefusingType::Prohibit, 24, MAIN) };
        assert_eq!(best(&[of(9), of(2), of(5)], MAIN), Some(of(2)));
    }

    #[test]
    fn a_rule_is_about_some_packets() {
        let rule = |change: fn(&mut RoutingRule)| {
            let mut rule = looks_up(100, 7);
            rule.action = Action::Refuse(RefusingType::Prohibit);
            change(&mut rule);
            found(&[rule, looks_up(32_766, MAIN)], &[])
        };
        let this = Some((100, 0));
        assert_eq!(rule(|_| {}), this);
        assert_eq!(rule(|it| it.to = Some(prefix([203, 0, 113, 0], 24))), this);
        assert_eq!(rule(|it| it.to = Some(prefix([203, 0, 112, 0], 24))), None);
        assert_eq!(rule(|it| it.from = Some(prefix([198, 18, 1, 2], 32))), this);
        assert_eq!(rule(|it| it.from = Some(prefix([198, 18, 1, 3], 32))), None);
        assert_eq!(rule(|it| it.iif = Some("port0".into())), this);
        assert_eq!(rule(|it| it.iif = Some("port1".into())), None);
        assert_eq!(rule(|it| it.has_oif = true), None);
        let inverted = |it: &mut RoutingRule| {
            (it.inverted, it.from) = (true, Some(prefix([198, 18, 1, 3], 32)));
        };
        assert_eq!(rule(inverted), this);
        assert_eq!(rule(|it| it.looks_further = true), None, "it may be about others");
        assert_eq!(rule(|it| it.mark = (7, u32::MAX)), None, "the packet has no mark");
        assert_eq!(rule(|it| it.mark = (0, 0xff)), this);
    }

    #[test]
    fn what_is_not_sure_matters_only_where_it_could_refuse() {
        let rules =
            [RoutingRule { looks_further: true, ..looks_up(100, 7) }, looks_up(32_766, MAIN)];
        let main = refuses(RefusingType::Blackhole, 24, MAIN);
        assert_eq!(found(&rules, &[main]), Some((MAIN, 24)));
        assert_eq!(found(&rules, &[main, refuses(RefusingType::Blackhole, 8, 7)]), None);
        let jump = RoutingRule { action: Action::GoTo(40_000), ..looks_up(100, 0) };
        assert_eq!(found(&[jump.clone(), looks_up(32_766, MAIN)], &[main]), None);
        let after = [jump, looks_up(32_766, 7), looks_up(40_000, MAIN)];
        assert_eq!(found(&after, &[main]), Some((MAIN, 24)));
    }

    /// `ip rule add ipproto udp dport 4000 lookup 7`.
    fn of_udp_4000() -> RoutingRule {
        RoutingRule { protocol: Some(17), to_ports: Some((4000, 4000)), ..looks_up(100, 7) }
    }

    fn of(protocol: u8, from_port: Option<u16>, to_port: Option<u16>) -> Packet {
        Packet { above: AboveIp { protocol: Some(protocol), from_port, to_port }, ..packet() }
    }

    #[test]
    fn a_rule_by_port_is_about_packets_for_that_port() {
        let rules = [of_udp_4000(), looks_up(32_766, MAIN)];
        let kind = RefusingType::Prohibit;
        let routes = [refuses(kind, 0, 7), refuses(kind, 24, MAIN)];
        let table = |packet: &Packet| match refuser(&rules, &routes, packet, |_| false)? {
            Refuser::Route { table, .. } => Some(table),
            Refuser::Rule { .. } => None,
        };
        assert_eq!(table(&of(17, Some(9), Some(4000))), Some(7));
        assert_eq!(table(&of(17, None, Some(4001))), Some(MAIN));
        assert_eq!(table(&of(6, None, Some(4000))), Some(MAIN));
        assert_eq!(table(&packet()), None, "of which nothing is known");
        assert_eq!(table(&of(47, None, None)), None, "the kernel cannot be asked about GRE");
        assert!(look_above(&rules) && !look_above(&rules[1..]));
    }

    #[test]
    fn an_answer_counts_where_all_that_decides_is_known() {
        let main = looks_up(32_766, MAIN);
        let decides = |first: &RoutingRule, packet: &Packet, table| {
            decide_by(&[first.clone(), main.clone()], packet, table, |name| name == "port0")
        };
        let port = of_udp_4000();
        assert!(decides(&port, &of(17, None, Some(4000)), Some(7)));
        assert!(!decides(&port, &packet(), Some(MAIN)));
        assert!(!decides(&port, &of(17, None, None), None), "a fragment shows no port");
        assert!(decides(&port, &of(6, None, None), None), "not of UDP, whatever its port");
        let from_port = RoutingRule { from_ports: Some((1, 1023)), ..looks_up(100, 7) };
        assert!(!decides(&from_port, &of(17, None, Some(4000)), None), "each has another");

        // Of the host's own, and of one that came in by nobody knows what.
        let own = Packet { own: true, ..packet().sent_from_here() };
        let some = packet().sent_from_here();
        let rule = |change: fn(&mut RoutingRule)| {
            let mut rule = looks_up(100, 7);
            change(&mut rule);
            [packet(), own, some].map(|packet| decides(&rule, &packet, Some(MAIN)))
        };
        let by = |name: &'static str| Some(name.to_owned());
        assert_eq!(rule(|_| {}), [true; 3]);
        assert_eq!(rule(|it| it.iif = Some("port1".to_owned())), [true, true, false]);
        assert_eq!(rule(|it| it.from = Some(prefix([198, 18, 1, 0], 24))), [true, false, false]);
        assert_eq!(rule(|it| it.users = Some((1000, 2000))), [true, false, false]);
        assert_eq!(rule(|it| it.has_oif = true), [true, false, false]);
        assert_eq!(rule(|it| it.of_vrfs = true), [true, false, false]);
        assert_eq!(rule(|it| it.looks_further = true), [false; 3], "a type of service, say");

        let late = RoutingRule { iif: by("port1"), ..looks_up(40_000, 7) };
        let rules = [main.clone(), late];
        assert!(decide_by(&rules, &some, Some(MAIN), |_| false), "it has been decided by then");
        assert!(!decide_by(&rules, &some, None, |_| false), "it goes on to the next table");
    }

    #[test]
    fn each_refuser_has_its_error() {
        let to = prefix([0; 4], 0);
        let route = |kind| error_of(&Refuser::Route { kind, to, table: MAIN, metric: 0, rule: 0 });
        let rule = |kind| error_of(&Refuser::Rule { kind, preference: 1 });
        assert_eq!(route(RefusingType::Unreachable), Refusal::Unreachable);
        assert_eq!(rule(RefusingType::Unreachable), Refusal::NoRoute);
        assert_eq!(route(RefusingType::Throw), Refusal::NoRoute);
        assert_eq!(route(RefusingType::Blackhole), rule(RefusingType::Blackhole));
        assert_eq!(route(RefusingType::Prohibit), rule(RefusingType::Prohibit));
    }

    #[test]
    fn messages_are_read_attribute_by_attribute() {
        let header = vec![2, 24, 0, 0, 254, 0, 0, 8, 0, 0, 0, 0];
        let message = [
            header,
            attribute(RTA_DST, &[203, 0, 113, 0]),
            attribute(RTA_TABLE, &1000_u32.to_ne_bytes()),
            attribute(RTA_PRIORITY, &5_u32.to_ne_bytes()),
        ];
        let read = |kind| route(&message.concat(), RefusingType::Prohibit, kind);
        let expected = refuses(RefusingType::Prohibit, 24, 1000);
        let expected = RefusingRoute { metric: 5, ..expected };
        assert_eq!(read(RouteType::Prohibit), Some(expected));
        assert_eq!(read(RouteType::BlackHole), None);

        let message = [
            [&[2, 0, 32, 0, 254, 0, 0, 7][..], &INVERT.to_ne_bytes()].concat(),
            attribute(FROM, &[198, 18, 1, 2]),
            attribute(IIF, b"port0\0"),
            attribute(PREFERENCE, &77_u32.to_ne_bytes()),
            attribute(SUPPRESS_PREFIX, &u32::MAX.to_ne_bytes()),
        ];
        let expected = RoutingRule {
            action: Action::Refuse(RefusingType::Unreachable),
            inverted: true,
            from: Some(prefix([198, 18, 1, 2], 32)),
            iif: Some("port0".into()),
            ..looks_up(77, 0)
        };
        assert_eq!(rule(&message.concat()), Some(expected.clone()));
        let marked = [message.concat(), attribute(10, &7_u32.to_ne_bytes())].concat();
        assert_eq!(rule(&marked), Some(RoutingRule { mark: (7, u32::MAX), ..expected.clone() }));
        let masked = [marked, attribute(16, &0xff_u32.to_ne_bytes())].concat();
        assert_eq!(rule(&masked), Some(RoutingRule { mark: (7, 0xff), ..expected.clone() }));
        let user = 1000_u32.to_ne_bytes();
        let more = [
            message.concat(),
            attribute(20, &[user, user].concat()),
            attribute(22, &[17]),
            attribute(24, &[4000_u16, 4001].map(u16::to_ne_bytes).concat()),
            attribute(29, &[0xff, 0xff]),
        ];
        let expected = RoutingRule {
            users: Some((1000, 1000)),
            protocol: Some(17),
            to_ports: Some((4000, 4001)),
            ..expected
        };
        assert_eq!(rule(&more.concat()), Some(expected.clone()));
        let newer = [more.concat(), attribute(29, &[0x0f, 0xff])].concat();
        assert_eq!(rule(&newer), Some(RoutingRule { looks_further: true, ..expected }));
    }

    #[test]
    fn this_host_has_rules_and_they_lead_to_tables() {
        let rules = rules(&packet()).unwrap();
        assert!(rules.iter().any(|rule| rule.action == Action::Table(MAIN)), "{rules:?}");
        assert!(rules.is_sorted_by_key(|rule| rule.preference));
    }

    proptest! {
        #[test]
        fn no_message_panics(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = rule(&bytes);
            let _ = route(&bytes, RefusingType::Blackhole, RouteType::BlackHole);
        }
    }
}
