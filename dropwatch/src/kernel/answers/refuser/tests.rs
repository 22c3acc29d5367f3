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
    RoutingRule { preference, action: Action::Table(table), ..RoutingRule::default() }
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
    let rules = [RoutingRule { looks_further: true, ..looks_up(100, 7) }, looks_up(32_766, MAIN)];
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
