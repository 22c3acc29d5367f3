//! Packets that a route or a routing rule is there to refuse: `blackhole`, `prohibit`, `unreachable`, `throw`.
//!
//! What comes in dies in `ip_error` (net/ipv4/route.c), which gives a reason and counts only where no
//! route leads on; of IPv6 in `ip6_pkt_drop` (net/ipv6/route.c), which counts all as without a
//! route, and in `dst_discard` (include/net/dst.h). What the host sends itself mostly fails before there is a
//! packet; of a connection, what it sends dies where the route is looked up anew.
//!
//! No counter tells which route it was, so the host is asked for the sampled packets. A prefix that
//! refuses one of them refuses all that it has, unless a longer one does not; of those none would be here.

use std::net::IpAddr;

use super::{Draft, Facts, Makes, Rule, Verdict, matters};
use crate::{
    diagnose::{
        facts::Rows,
        knowledge::{NOT_SPECIFIED, function_name},
    },
    report::{
        facts::{Netns, Routed},
        finding::{Finding, Severity},
        model::Location,
        object::Object,
        question::{Ask, Packet, Refused, Refuser, RefusingType, Route},
    },
};

/// Where packets that came in are refused.
const IN: [&str; 5] =
    ["ip_error", "ip6_pkt_drop", "ip6_pkt_discard", "ip6_pkt_prohibit", "dst_discard"];
/// Where those are that the host sends itself.
const OUT: [&str; 7] = [
    "__ip_queue_xmit",
    "ip_queue_xmit",
    "inet6_csk_xmit",
    "ip6_pkt_discard_out",
    "ip6_pkt_prohibit_out",
    "dst_discard_out",
    "ip6_pkt_drop",
];
const REASONS: [&str; 3] = [NOT_SPECIFIED, "IP_INNOROUTES", "IP_OUTNOROUTES"];
/// Most addresses of a namespace and a direction that the host is asked about.
const MOST: usize = 12;

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "route_refuses",
        severity: "warning",
        says: "a route or a routing rule is there to refuse",
        rests_on: "rows at `ip_error`, `ip6_pkt_drop`, `dst_discard`; the host's own look-up",
    }],
    check_or_ask,
    ..Rule::NONE
};

fn check_or_ask(facts: &Facts<'_>) -> Vec<Verdict> {
    let at = |functions, came_in| {
        let mut rows = facts.rows(&REASONS, functions);
        rows.0.retain(|row| is_sent(row) != came_in);
        rows.by_netns().into_iter().flat_map(move |(netns, rows)| match netns {
            Some(netns) => decided(facts, netns, &rows, came_in),
            None => Vec::new(),
        })
    };
    at(&IN, true).chain(at(&OUT, false)).collect()
}

/// Whether the packets of a row are the host's own: one function serves both directions.
fn is_sent(row: &Location) -> bool {
    let function = row.place.symbol.as_deref().map(function_name);
    let came_in = function.is_some_and(|function| IN.contains(&function));
    !came_in || row.place.reason.as_deref() == Some("IP_OUTNOROUTES")
}

/// A finding for each refuser, or what has to be asked first.
fn decided(facts: &Facts<'_>, netns: &Netns, rows: &Rows<'_>, came_in: bool) -> Vec<Verdict> {
    if !matters(rows.count(), facts) {
        return Vec::new();
    }
    // Compilers make one function of the two that discard what is forwarded and what is sent.
    let is_discarded = |row: &&&Location| {
        row.place.symbol.as_deref().is_some_and(|it| function_name(it).starts_with("dst_discard"))
    };
    let is_own = !came_in && rows.0.iter().find(is_discarded).is_none();
    // The rules of both families count from the same numbers.
    let is_same = |(known, asked): &(Refuser, Vec<Routed>), by, to: IpAddr| {
        *known == by && asked.iter().all(|it| it.to.is_ipv6() == to.is_ipv6())
    };
    let mut refusers: Vec<(Refuser, Vec<Routed>)> = Vec::new();
    let mut asks = Vec::new();
    for (packet, _) in rows.routed_packets(came_in, MOST) {
        let Packet { to, mark, above, .. } = packet;
        let routed = Routed { to, mark, above };
        match refuser(facts, netns, Packet { own: is_own, ..packet }) {
            Ok(None) => {}
            Ok(Some(by)) => match refusers.iter_mut().find(|it| is_same(it, by, to)) {
                Some((_, asked)) => asked.push(routed),
                None => refusers.push((by, vec![routed])),
            },
            Err(ask) => asks.push(Verdict::Ask(ask)),
        }
    }
    if !asks.is_empty() {
        return asks;
    }
    let found = refusers.iter().filter_map(|(by, asked)| {
        let is_theirs = |routed: &Routed| match by {
            Refuser::Route { to: prefix, table, .. } => {
                let other = refusers.iter().any(|(it, asked)| it != by && asked.contains(routed));
                // A routing rule leads there, and may look at any of it.
                let by_rule = !OF_EVERY_HOST.contains(table);
                let is_like = |it: &Routed| {
                    let (own, theirs) = (it.above, routed.above);
                    let ports = own.protocol == theirs.protocol && own.to_port == theirs.to_port;
                    it.mark == routed.mark && (ports || !by_rule)
                };
                prefix.contains(routed.to) && asked.iter().any(is_like) && !other
            }
            // It may look at anything.
            Refuser::Rule { .. } => asked.contains(routed),
        };
        refused(facts, netns, rows, *by, is_theirs)
    });
    found.map(Verdict::Found).collect()
}

/// What refuses such a packet, as far as the host knows.
fn refuser(facts: &Facts<'_>, netns: &Netns, packet: Packet) -> Result<Option<Refuser>, Ask> {
    // The kernel refuses a packet that comes in from nowhere, whatever the routes are.
    let packet = if packet.from.is_some() { packet } else { Packet { iif: None, ..packet } };
    Ok(match facts.route(netns.number(), packet)? {
        Ok(Route::Refused(Refused { by, .. })) => by,
        Ok(Route::Leads(_)) | Err(_) => None,
    })
}

fn refused(
    facts: &Facts<'_>,
    netns: &Netns,
    rows: &Rows<'_>,
    by: Refuser,
    is_theirs: impl Fn(&Routed) -> bool,
) -> Option<Finding> {
    let mut theirs = rows.routed();
    theirs.retain(|(routed, _)| is_theirs(routed));
    let part: f64 = theirs.iter().map(|(_, drops)| drops).sum();
    let drops = if rows.is_nearly_all(part) { rows.count() } else { part as u64 };
    if !matters(drops, facts) {
        return None;
    }
    let Routed { to: first, mark, .. } = theirs.first()?.0;
    let mut to = match theirs.iter().all(|(it, _)| it.to == first) {
        true => format!(" to {first}"),
        false => String::new(),
    };
    // One without a mark beside them would be refused as well.
    let mark =
        Some(mark).filter(|mark| *mark != 0 && theirs.iter().all(|(it, _)| it.mark == *mark));
    if let Some(mark) = mark {
        to += &format!(" with mark {mark:#x}");
    }
    let name = netns.name.clone().unwrap_or_else(|| netns.to_string());
    let what = match by {
        Refuser::Route { kind: RefusingType::Throw, to: prefix, table, .. } => format!(
            "a throw route: {prefix} in table {}, and no table behind it has one",
            table_name(table)
        ),
        Refuser::Route { kind, to: prefix, table, .. } => {
            format!("a route of type {}: {prefix} in table {}", kind.name(), table_name(table))
        }
        Refuser::Rule { kind, preference } => {
            format!("routing rule {preference}: {}", kind.name())
        }
    };
    let by_rule = match by {
        Refuser::Route { kind: RefusingType::Throw, .. } => String::new(),
        Refuser::Route { table, rule, .. } if !OF_EVERY_HOST.contains(&table) => {
            format!(", by routing rule {rule}")
        }
        _ => String::new(),
    };
    let title = format!("{drops} packets{to} refused in {name} by {what}{by_rule}");
    let mut draft = Draft::new(facts, "route_refuses", Severity::Warning, what, title)
        .somewhere(Some(netns))
        .explains(drops, rows)
        .names(Object::refuser(&by, &refuser_table(by)));
    for row in &rows.0 {
        let function = row.place.symbol.as_deref().map_or("unknown", function_name);
        let reason = row.place.reason.as_deref().unwrap_or("drops");
        draft = draft.counted(&format!("{reason} at {function}"), row.count, "kfree_skb");
    }
    if let Some(mark) = mark {
        draft = draft.state("mark", format!("{mark:#x}"), "samples");
    }
    let family = if first.is_ipv6() { "-6 " } else { "" };
    Some(match by {
        Refuser::Route { kind, to: prefix, table, metric, rule } => {
            let (kind, name) = (kind.name(), table_name(table));
            let metric = if metric > 0 { format!(" metric {metric}") } else { String::new() };
            draft = draft.state("route", format!("{kind} {prefix}{metric}"), "rtnetlink").run(
                &format!("ip {family}route show table {name} type {kind} exact {prefix}"),
                "the route, and by `proto` who has put it there",
            );
            if !OF_EVERY_HOST.contains(&table) {
                draft = draft.state("routing rule", u64::from(rule), "rtnetlink").run(
                    &format!("ip {family}rule show pref {rule}"),
                    "the rule that has these packets looked up in that table",
                );
            }
            draft
                .run(
                    &format!("ip {family}route del {kind} {prefix} table {name}{metric}"),
                    "if the network is in use: without it, the next shorter prefix counts; a routing \
                     daemon may put it back",
                )
                .done()
        }
        Refuser::Rule { preference, .. } => draft
            .state("routing rule", u64::from(preference), "rtnetlink")
            .run(&format!("ip {family}rule show pref {preference}"), "the rule, and what it is for")
            .run(
                &format!("ip {family}rule del pref {preference}"),
                "if these packets should pass: then the rules behind it decide",
            )
            .done(),
    })
}

/// Tables that every host has, and rules that lead there: `default`, `main`, `local`.
const OF_EVERY_HOST: [u32; 3] = [253, 254, 255];

fn refuser_table(by: Refuser) -> String {
    match by {
        Refuser::Route { table, .. } => table_name(table),
        Refuser::Rule { .. } => String::new(),
    }
}

/// As `ip` calls the tables that every host has.
fn table_name(table: u32) -> String {
    match table {
        253 => "default".to_owned(),
        254 => "main".to_owned(),
        255 => "local".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::{
        flow::{AboveIp, Flow},
        question::{Answer, Leads, Prefix, Question, Refusal},
    };

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 1, 2));

    fn to(last: u8) -> IpAddr {
        [203, 0, 113, last].into()
    }

    fn flow(last: u8) -> Flow {
        Flow { src: Some(FROM), dst: Some(to(last)), ..Flow::default() }
    }

    fn asked(last: u8) -> Question {
        Question::Route(Packet { from: Some(FROM), iif: Some(2), ..Packet::to(to(last)) })
    }

    fn by(kind: RefusingType, length: u8) -> Answer {
        let address = [203, 0, 113, if length == 32 { 9 } else { 0 }].into();
        let to = Prefix { address, length };
        let by = Some(Refuser::Route { kind, to, table: 254, metric: 0, rule: 32_766 });
        Answer::Route(Route::Refused(Refused { why: Refusal::Blackhole, by }))
    }

    fn host(flows: &[Flow]) -> TestHost {
        TestHost::new().row(50, "ip_error", NOT_SPECIFIED).interface("port0").flows(flows)
    }

    fn commands(finding: &Finding) -> Vec<&str> {
        finding.actions.iter().map(|action| action.command.as_str()).collect()
    }

    #[test]
    fn the_route_is_named_with_its_table() {
        let found = host(&[flow(9)]).answer(asked(9), by(RefusingType::Blackhole, 24)).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.title,
            "50 packets to 203.0.113.9 refused in gw by a route of type blackhole: 203.0.113.0/24 in \
             table main"
        );
        assert_eq!(finding.explains.map(|it| it.drops), Some(50));
        assert_eq!(
            commands(finding),
            [
                "ip netns exec gw ip route show table main type blackhole exact 203.0.113.0/24",
                "ip netns exec gw ip route del blackhole 203.0.113.0/24 table main",
            ]
        );
    }

    #[test]
    fn a_network_is_refused_as_one() {
        let flows: Vec<Flow> = (1..=10).map(flow).collect();
        let refused = (1..=4).fold(host(&flows), |host, last| {
            host.answer(asked(last), by(RefusingType::Prohibit, 24))
        });
        let found = refused.run(&RULE);
        assert_eq!(
            found[0].title,
            "50 packets refused in gw by a route of type prohibit: 203.0.113.0/24 in table main"
        );
    }

    #[test]
    fn each_of_two_refusers_has_its_part() {
        let found = host(&[flow(9), flow(10)])
            .answer(asked(9), by(RefusingType::Prohibit, 32))
            .answer(asked(10), by(RefusingType::Blackhole, 24))
            .run(&RULE);
        let explained: Vec<_> = found.iter().filter_map(|f| Some(f.explains?.drops)).collect();
        assert_eq!(explained, [25, 25]);
    }

    #[test]
    fn a_mark_leads_to_a_table_of_its_own() {
        let asked = |mark| {
            Question::Route(Packet { from: Some(FROM), iif: Some(2), mark, ..Packet::to(to(9)) })
        };
        let all = Prefix { address: [0; 4].into(), length: 0 };
        let kind = RefusingType::Blackhole;
        let by = Some(Refuser::Route { kind, to: all, table: 100, metric: 0, rule: 50 });
        let refused = Answer::Route(Route::Refused(Refused { why: Refusal::Blackhole, by }));
        let leads = Answer::Route(Route::Leads(Leads::default()));
        let host = |mark| {
            let host = host(&[flow(9)]).mark(mark);
            host.answer(asked(0x17), refused.clone()).answer(asked(0), leads.clone()).run(&RULE)
        };
        let found = host(0x17);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.title,
            "50 packets to 203.0.113.9 with mark 0x17 refused in gw by a route of type blackhole: \
             0.0.0.0/0 in table 100, by routing rule 50"
        );
        assert_eq!(commands(finding)[1], "ip netns exec gw ip rule show pref 50");
        assert_eq!(host(0), [], "without a mark they are sent on");
    }

    /// Packets for two ports of one address, of which a routing rule has one looked up elsewhere.
    #[test]
    fn a_port_leads_to_a_table_of_its_own() {
        let all = Prefix { address: [0; 4].into(), length: 0 };
        let refused = |to, table, rule| {
            let by = Refuser::Route { kind: RefusingType::Prohibit, to, table, metric: 0, rule };
            Answer::Route(Route::Refused(Refused { why: Refusal::Prohibited, by: Some(by) }))
        };
        let above = |port| AboveIp { protocol: Some(17), from_port: None, to_port: Some(port) };
        let asked = |port| {
            let (from, iif, above) = (Some(FROM), Some(2), above(port));
            Question::Route(Packet { from, iif, above, ..Packet::to(to(9)) })
        };
        let sent = |from_port, port| Flow {
            protocol: Some("udp".into()),
            src_port: Some(from_port),
            dst_port: Some(port),
            ..flow(9)
        };
        // Clients have a port of their own each.
        let flows =
            [sent(40_001, 4000), sent(40_002, 4000), sent(40_003, 5000), sent(40_004, 5000)];
        let main = refused(Prefix { address: to(0), length: 24 }, 254, 32_766);
        let found = host(&flows)
            .answer(asked(4000), refused(all, 77, 50))
            .answer(asked(5000), main)
            .run(&RULE);
        let titles: Vec<_> = found.iter().map(|it| it.title.as_str()).collect();
        assert_eq!(
            titles,
            [
                "24 packets to 203.0.113.9 refused in gw by a route of type prohibit: 0.0.0.0/0 in \
                 table 77, by routing rule 50",
                "24 packets to 203.0.113.9 refused in gw by a route of type prohibit: 203.0.113.0/24 in \
                 table main",
            ]
        );
    }

    #[test]
    fn a_rule_is_named_by_its_preference() {
        let rule = Refuser::Rule { kind: RefusingType::Prohibit, preference: 100 };
        let refused = Refused { why: Refusal::Prohibited, by: Some(rule) };
        let answer = Answer::Route(Route::Refused(refused));
        let found = host(&[flow(9)]).answer(asked(9), answer).run(&RULE);
        assert_eq!(
            found[0].title,
            "50 packets to 203.0.113.9 refused in gw by routing rule 100: prohibit"
        );
        let expected =
            ["ip netns exec gw ip rule show pref 100", "ip netns exec gw ip rule del pref 100"];
        assert_eq!(commands(&found[0]), expected);
    }

    #[test]
    fn rules_of_two_families_may_have_one_number() {
        let to6: IpAddr = "2001:db8::9".parse().unwrap();
        let from6: IpAddr = "2001:2::2".parse().unwrap();
        let six = Flow { src: Some(from6), dst: Some(to6), ..Flow::default() };
        let rule = Refuser::Rule { kind: RefusingType::Prohibit, preference: 100 };
        let refused = Refused { why: Refusal::Prohibited, by: Some(rule) };
        let answer = Answer::Route(Route::Refused(refused));
        let asked6 = Packet { from: Some(from6), iif: Some(2), ..Packet::to(to6) };
        let found = host(&[flow(9), six])
            .answer(asked(9), answer.clone())
            .answer(Question::Route(asked6), answer)
            .run(&RULE);
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(commands(&found[1])[0].contains("ip -6 rule show pref 100"), "{found:#?}");
    }

    #[test]
    fn a_throw_route_is_named_where_nothing_is_behind_it() {
        let found = TestHost::new()
            .row(50, "ip_error", "IP_INNOROUTES")
            .interface("port0")
            .flow(flow(9))
            .answer(asked(9), by(RefusingType::Throw, 24))
            .run(&RULE);
        assert!(found[0].title.ends_with("in table main, and no table behind it has one"));
    }

    #[test]
    fn the_two_directions_are_asked_about_apart() {
        let own = Question::Route(Packet { from: Some(FROM), own: true, ..Packet::to(to(9)) });
        for (function, reason) in
            [("__ip_queue_xmit", "IP_OUTNOROUTES"), ("ip6_pkt_drop", "IP_OUTNOROUTES")]
        {
            let found = TestHost::new()
                .row(50, function, reason)
                .interface("port0")
                .flow(flow(9))
                .answer(own, by(RefusingType::Unreachable, 24))
                .run(&RULE);
            assert_eq!(found.len(), 1, "{function}");
        }
    }

    #[test]
    fn what_the_host_would_forward_or_does_not_say_is_not_found() {
        let leads = Answer::Route(Route::Leads(Leads::default()));
        assert_eq!(host(&[flow(9)]).answer(asked(9), leads).run(&RULE), []);
        assert_eq!(host(&[flow(9)]).run(&RULE), [], "no answer");
        let missing = Answer::Route(Route::Refused(Refusal::NoRoute.into()));
        assert_eq!(host(&[flow(9)]).answer(asked(9), missing).run(&RULE), [], "nothing is there");
        let off = TestHost::new().row(50, "ip_error", "IP_INADDRERRORS").interface("port0");
        let off = off.flow(flow(9)).answer(asked(9), by(RefusingType::Blackhole, 24));
        assert_eq!(off.run(&RULE), [], "no router");
        let few = TestHost::new().row(2, "ip_error", NOT_SPECIFIED).interface("port0");
        assert_eq!(few.flow(flow(9)).answer(asked(9), by(RefusingType::Throw, 24)).run(&RULE), []);
    }
}
