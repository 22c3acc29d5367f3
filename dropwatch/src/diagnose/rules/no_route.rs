//! Packets to where no route leads.
//!
//! A router drops what it cannot forward and reports to the sender (`ip_error`, net/ipv4/route.c;
//! `ip6_pkt_drop`, net/ipv6/route.c). What a host sends itself mostly fails before there is a
//! packet, which is counted, too; packets are dropped where the route went away under a connection
//! (`__ip_queue_xmit`, net/ipv4/ip_output.c; `ip6_pkt_drop`).
//!
//! A routing rule that refuses (`ip rule add … unreachable`) ends a look-up with the same error, and is
//! counted as the same. So the host is asked before it is said that no route leads to an address.

use std::net::IpAddr;

use super::{Counts, Draft, Facts, Kept, Makes, Rule, Verdict, matters};
use crate::{
    diagnose::facts::NetnsFacts,
    report::{
        finding::{Finding, Severity},
        question::{Ask, Packet, Refusal, Refused, Route, Unanswered},
    },
};

/// A direction of a family.
struct Way {
    /// What is to be done with packets.
    verb: &'static str,
    counter: &'static str,
    /// Where the counter is read.
    source: &'static str,
    /// True for packets that came in, false for those that the host sends itself.
    came_in: bool,
    reason: &'static str,
    functions: &'static [&'static str],
    /// What `ip` is to be asked with for this family's table.
    option: &'static str,
}

const FORWARD4: &[&str] = &["ip_error"];
const SEND4: &[&str] = &["__ip_queue_xmit", "ip_queue_xmit"];
const IPV6: &[&str] = &["ip6_pkt_drop"];

const WAYS: [Way; 4] = [
    Way {
        verb: "forward",
        counter: "IpExt.InNoRoutes",
        source: "netstat",
        came_in: true,
        reason: "IP_INNOROUTES",
        functions: FORWARD4,
        option: "",
    },
    Way {
        verb: "forward",
        counter: "Ip6.InNoRoutes",
        source: "snmp6",
        came_in: true,
        reason: "IP_INNOROUTES",
        functions: IPV6,
        option: "-6 ",
    },
    Way {
        verb: "send",
        counter: "Ip.OutNoRoutes",
        source: "snmp",
        came_in: false,
        reason: "IP_OUTNOROUTES",
        functions: SEND4,
        option: "",
    },
    Way {
        verb: "send",
        counter: "Ip6.OutNoRoutes",
        source: "snmp6",
        came_in: false,
        reason: "IP_OUTNOROUTES",
        functions: IPV6,
        option: "-6 ",
    },
];

const FORWARDING6: &str = "net.ipv6.conf.all.forwarding";

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "no_route",
        severity: "warning",
        says: "no route to the destination",
        rests_on: "`InNoRoutes`, `OutNoRoutes`",
    }],
    counters: &["Ip.OutNoRoutes", "Ip6.InNoRoutes", "Ip6.OutNoRoutes", "IpExt.InNoRoutes"],
    settings: &[FORWARDING6],
    device_settings: &["net/ipv6/conf/DEV/accept_ra"],
    counts: &[
        Counts::of(Kept::Netns(&["IpExt.InNoRoutes"]), &["IP_INNOROUTES"], FORWARD4),
        Counts::of(Kept::Netns(&["Ip6.InNoRoutes"]), &["IP_INNOROUTES"], IPV6),
        Counts::of(Kept::Netns(&["Ip.OutNoRoutes"]), &["IP_OUTNOROUTES"], SEND4),
        Counts::of(Kept::Netns(&["Ip6.OutNoRoutes"]), &["IP_OUTNOROUTES"], IPV6),
    ],
    check_or_ask,
    ..Rule::NONE
};

fn check_or_ask(facts: &Facts<'_>) -> Vec<Verdict> {
    let decided = facts
        .namespaces()
        .flat_map(|namespace| WAYS.iter().map(move |way| missing(facts, namespace, way)));
    decided.filter_map(Verdict::of).collect()
}

fn missing(
    facts: &Facts<'_>,
    namespace: NetnsFacts<'_>,
    way: &Way,
) -> Result<Option<Finding>, Ask> {
    let rows = facts.rows_for(way.reason, way.functions);
    let counted = namespace.delta(way.counter);
    let drops = counted.min(rows.count());
    if !matters(drops, facts) {
        return Ok(None);
    }
    // No route helps what is not forwarded, which is a finding of its own.
    if way.came_in && !way.option.is_empty() && namespace.setting(FORWARDING6) == Some("0") {
        return Ok(None);
    }
    let here = rows.within(namespace);
    let packet = here.packet(way.came_in).map(|it| Packet { own: !way.came_in, ..it });
    let claim = packet.map_or(Ok(Claim::Unnamed), |packet| claim(facts, namespace, packet))?;
    let of_all = |to: &IpAddr| Some(*to) == here.destination();
    let (subject, has) = match claim {
        Claim::Missing(to) if of_all(&to) => {
            (format!("{} {to}", way.verb), format!("has no route to {to}"))
        }
        Claim::Missing(_) => (way.verb.to_owned(), "has no route".to_owned()),
        Claim::Unnamed => (way.verb.to_owned(), "found no route".to_owned()),
        Claim::Back(to) if of_all(&to) => {
            (format!("{} {to}", way.verb), format!("had no route to {to}, and has one again,"))
        }
        // Some other of the packets may have none.
        Claim::Back(_) | Claim::Refuted => return Ok(None),
    };
    let title =
        format!("{} {has} for {drops} packets that it should {}", namespace.name(), way.verb);
    let draft = Draft::new(facts, "no_route", Severity::Warning, subject, title)
        .at(namespace)
        .explains(drops, &rows)
        .counted(way.counter, counted, way.source)
        .counted(way.reason, rows.count(), "kfree_skb");
    let deaf = if way.option.is_empty() { None } else { deaf_to_routers(namespace) };
    let draft = match deaf {
        Some(devices) => draft.setting(FORWARDING6).state("accept_ra is 1 on", devices, "sysctl"),
        None => draft,
    };
    let (matching, note) = match packet {
        Some(Packet { to, .. }) => (
            format!(" match {to}"),
            "the routes of all tables that fit the address: none that leads there, or it shows nothing; the \
             missing one, if this host should reach that, is added with `ip route add`",
        ),
        None => (
            String::new(),
            "the routes of all tables; the missing one, if this host should reach that, is added with \
             `ip route add`",
        ),
    };
    let command = format!("ip {}route show table all{matching}", way.option);
    Ok(Some(draft.run(&command, note).done()))
}

/// Names the devices that learn no route from router advertisements, since this host forwards
/// (`ipv6_accept_ra`, include/net/ipv6.h).
fn deaf_to_routers(namespace: NetnsFacts<'_>) -> Option<String> {
    if namespace.setting(FORWARDING6)? == "0" {
        return None;
    }
    let is_deaf = |name: &&str| {
        namespace.setting(&format!("net/ipv6/conf/{name}/accept_ra")) == Some("1") && *name != "lo"
    };
    let names = namespace.now.links.values().map(|link| link.name.as_str());
    let names: Vec<&str> = names.filter(is_deaf).take(MOST).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Most devices that are named.
const MOST: usize = 4;

/// What may be said of the route to where a sampled packet was going.
enum Claim {
    /// No address is named: samples show none, or the host does not answer.
    Unnamed,
    Missing(IpAddr),
    /// A route leads there by now.
    Back(IpAddr),
    /// Routes lead there, yet this packet is refused by something else.
    Refuted,
}

/// Compares what the counter says with the host's own answer, since other causes raise that
/// counter, too. What a route or a rule refuses is [`super::refusing_route`]'s.
fn claim(facts: &Facts<'_>, namespace: NetnsFacts<'_>, packet: Packet) -> Result<Claim, Ask> {
    let Some(netns) = namespace.netns() else { return Ok(Claim::Unnamed) };
    match facts.route(netns.number(), packet.sent_from_here())? {
        // Such a rule may look at where packets come from.
        Err(Unanswered::Undecided) => {
            let answer = facts.route(netns.number(), packet)?;
            let missing = Ok(Route::Refused(Refused { why: Refusal::NoRoute, by: None }));
            return Ok(if answer == missing { Claim::Missing(packet.to) } else { Claim::Refuted });
        }
        Err(_) => return Ok(Claim::Unnamed),
        Ok(Route::Refused(Refused { why: Refusal::NoRoute, by: None })) => {
            return Ok(Claim::Missing(packet.to));
        }
        Ok(Route::Refused(_)) => return Ok(Claim::Refuted),
        Ok(Route::Leads(_)) => {}
    }
    // Routing rules may look at the source, so a question without it would be about another packet.
    if packet.from.is_none() {
        return Ok(Claim::Refuted);
    }
    match facts.route(netns.number(), packet)? {
        Ok(Route::Leads(_)) => Ok(Claim::Back(packet.to)),
        Ok(Route::Refused(_)) | Err(_) => Ok(Claim::Refuted),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::{super::testing::*, *};
    use crate::report::{
        flow::{AboveIp, Flow},
        question::{Answer, Leads, Prefix, Question, Refuser, RefusingType},
    };

    const TO: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
    const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 1, 2));
    /// As [`TestHost::interface`] numbers it.
    const WHOLE: Packet = Packet {
        to: TO,
        from: Some(FROM),
        iif: Some(2),
        mark: 0,
        above: AboveIp { protocol: None, from_port: None, to_port: None },
        own: false,
    };

    const NONE: Answer = Answer::Route(Route::Refused(Refused { why: Refusal::NoRoute, by: None }));
    const LEADS: Answer = Answer::Route(Route::Leads(Leads {
        local: false,
        device: Some(3),
        via: None,
        table: Some(254),
        above: false,
    }));

    /// Packets to one address were dropped.
    fn sampled() -> TestHost {
        let flow = Flow { src: Some(FROM), dst: Some(TO), ..Flow::default() };
        router(50, 50).interface("port0").flow(flow)
    }

    fn router(drops: u64, counted: u64) -> TestHost {
        TestHost::new().row(drops, "ip_error", "IP_INNOROUTES").counted("IpExt.InNoRoutes", counted)
    }

    #[test]
    fn the_destination_is_named() {
        let found = sampled().answer(Question::Route(Packet::to(TO)), NONE).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.title,
            "gw has no route to 203.0.113.9 for 50 packets that it should forward"
        );
        let commands: Vec<_> = finding.actions.iter().map(|a| a.command.as_str()).collect();
        assert_eq!(commands, ["ip netns exec gw ip route show table all match 203.0.113.9"]);
    }

    #[test]
    fn a_host_that_does_not_answer_names_no_destination() {
        let found = sampled().run(&RULE);
        assert_eq!(found[0].title, "gw found no route for 50 packets that it should forward");
    }

    /// What the host cannot say of any packet to that address, it may say of this one.
    #[test]
    fn a_rule_by_the_source_has_the_whole_packet_asked_about() {
        let host = sampled().unanswered(Question::Route(Packet::to(TO)), Unanswered::Undecided);
        let found = host.clone().answer(Question::Route(WHOLE), NONE).run(&RULE);
        assert_eq!(
            found[0].title,
            "gw has no route to 203.0.113.9 for 50 packets that it should forward"
        );
        assert_eq!(host.run(&RULE), [], "nothing is known of it");
    }

    #[test]
    fn a_routing_rule_that_refuses_is_no_missing_route() {
        let host = sampled().answer(Question::Route(Packet::to(TO)), LEADS);
        assert_eq!(host.clone().answer(Question::Route(WHOLE), NONE).run(&RULE), []);
        assert_eq!(host.run(&RULE), [], "and what is not answered is not guessed");
    }

    #[test]
    fn a_route_that_refuses_is_not_missing() {
        let to = Prefix { address: TO, length: 32 };
        let by = |kind| Refuser::Route { kind, to, table: 254, metric: 0, rule: 32_766 };
        for (why, by) in [
            (Refusal::NoRoute, Some(by(RefusingType::Throw))),
            (Refusal::Unreachable, Some(by(RefusingType::Unreachable))),
            (Refusal::Prohibited, None),
        ] {
            let refused = Answer::Route(Route::Refused(Refused { why, by }));
            let found = sampled().answer(Question::Route(Packet::to(TO)), refused).run(&RULE);
            assert_eq!(found, [], "{why:?}");
        }
    }

    #[test]
    fn a_route_that_is_back_is_not_called_missing() {
        let host = sampled()
            .answer(Question::Route(Packet::to(TO)), LEADS)
            .answer(Question::Route(WHOLE), LEADS);
        assert_eq!(
            host.run(&RULE)[0].title,
            "gw had no route to 203.0.113.9, and has one again, for 50 packets that it should \
             forward"
        );
    }

    #[test]
    fn many_destinations_are_nobodys_name() {
        let found = router(50, 50).run(&RULE);
        assert_eq!(found[0].title, "gw found no route for 50 packets that it should forward");
        assert_eq!(found[0].actions[0].command, "ip netns exec gw ip route show table all");
    }

    #[test]
    fn directions_of_ipv6_are_told_apart_by_reason_and_counter() {
        let found = TestHost::new()
            .row(30, "ip6_pkt_drop", "IP_INNOROUTES")
            .row(20, "ip6_pkt_drop", "IP_OUTNOROUTES")
            .counted("Ip6.InNoRoutes", 30)
            .counted("Ip6.OutNoRoutes", 25)
            .run(&RULE);
        let explained: Vec<_> = found.iter().filter_map(|f| Some(f.explains?.drops)).collect();
        assert_eq!(explained, [30, 20]);
    }

    #[test]
    fn a_router_says_where_it_learns_no_routes() {
        let names = |forwarding: &str| -> Vec<String> {
            let found = TestHost::new()
                .row(30, "ip6_pkt_drop", "IP_INNOROUTES")
                .counted("Ip6.InNoRoutes", 30)
                .device(2, "eth0", 1500)
                .setting(FORWARDING6, forwarding)
                .setting("net/ipv6/conf/eth0/accept_ra", "1")
                .run(&RULE);
            found.iter().flat_map(|it| &it.evidence).map(|it| it.name.clone()).collect()
        };
        assert!(names("1").contains(&"accept_ra is 1 on".to_owned()));
        assert_eq!(names("0"), [""; 0], "it is no router, which `forwarding_disabled` says");
    }

    #[test]
    fn what_failed_before_there_was_a_packet_is_no_drop() {
        assert_eq!(TestHost::new().counted("Ip.OutNoRoutes", 50).run(&RULE), []);
        assert_eq!(router(50, 0).run(&RULE), []);
        assert_eq!(router(2, 2).run(&RULE), []);
    }
}
