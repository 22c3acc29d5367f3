//! Packets to where no route leads.
//!
//! A router drops what it cannot forward and tells the sender (`ip_error`, net/ipv4/route.c;
//! `ip6_pkt_drop`, net/ipv6/route.c). What a host sends itself mostly fails before there is a
//! packet, which is counted, too; packets are dropped where the route went away under a connection
//! (`__ip_queue_xmit`, net/ipv4/ip_output.c; `ip6_pkt_drop`).

use super::{Draft, Facts, Makes, Rule, matters};
use crate::{
    diagnose::facts::Changed,
    report::finding::{Finding, Severity},
};

/// A direction of a family.
struct Way {
    /// What is to be done with packets.
    verb: &'static str,
    counter: &'static str,
    /// Where the counter is read.
    source: &'static str,
    reason: &'static str,
    functions: &'static [&'static str],
    /// What `ip` is to be asked with for this family's table.
    option: &'static str,
}

const WAYS: [Way; 4] = [
    Way {
        verb: "forward",
        counter: "IpExt.InNoRoutes",
        source: "netstat",
        reason: "IP_INNOROUTES",
        functions: &["ip_error"],
        option: "",
    },
    Way {
        verb: "forward",
        counter: "Ip6.InNoRoutes",
        source: "snmp6",
        reason: "IP_INNOROUTES",
        functions: &["ip6_pkt_drop"],
        option: "-6 ",
    },
    Way {
        verb: "send",
        counter: "Ip.OutNoRoutes",
        source: "snmp",
        reason: "IP_OUTNOROUTES",
        functions: &["__ip_queue_xmit", "ip_queue_xmit"],
        option: "",
    },
    Way {
        verb: "send",
        counter: "Ip6.OutNoRoutes",
        source: "snmp6",
        reason: "IP_OUTNOROUTES",
        functions: &["ip6_pkt_drop"],
        option: "-6 ",
    },
];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "no_route",
        severity: "warning",
        says: "no route to the destination",
        rests_on: "`InNoRoutes`, `OutNoRoutes`",
    }],
    counters: &["Ip.OutNoRoutes", "Ip6.InNoRoutes", "Ip6.OutNoRoutes", "IpExt.InNoRoutes"],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let found = facts
        .spaces()
        .flat_map(|space| WAYS.iter().filter_map(move |way| missing(facts, space, way)));
    found.collect()
}

fn missing(facts: &Facts<'_>, space: Changed<'_>, way: &Way) -> Option<Finding> {
    let rows = facts.rows_for(way.reason, way.functions);
    let counted = space.delta(way.counter);
    let drops = counted.min(rows.count());
    if !matters(drops, facts) {
        return None;
    }
    let address = rows.of(space).flow().and_then(|flow| flow.dst).map(|dst| dst.to_string());
    let to = address.as_ref().map(|address| format!(" to {address}")).unwrap_or_default();
    let title = format!(
        "{} has no route{to} for {drops} packets that it should {}",
        space.name(),
        way.verb
    );
    let draft = Draft::new(facts, "no_route", Severity::Warning, title)
        .at(space)
        .explains(drops, &rows)
        .counted(way.counter, counted, way.source)
        .counted(way.reason, rows.count(), "kfree_skb");
    let note = "how this host answers the question; the missing route, if it should reach that, is \
                added with `ip route add`";
    let command = match address {
        Some(address) => format!("ip route get {address}"),
        None => format!("ip {}route show table all", way.option),
    };
    Some(draft.run(&command, note).done())
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::flow::Flow;

    fn router(drops: u64, counted: u64) -> Host {
        Host::new().row(drops, "ip_error", "IP_INNOROUTES").counted("IpExt.InNoRoutes", counted)
    }

    #[test]
    fn the_destination_is_named() {
        let flow = Flow { dst: Some([203, 0, 113, 9].into()), ..Flow::default() };
        let found = router(50, 50).flow(flow).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.title,
            "gw has no route to 203.0.113.9 for 50 packets that it should forward"
        );
        let commands: Vec<_> = finding.actions.iter().map(|a| a.command.as_str()).collect();
        assert_eq!(commands, ["ip netns exec gw ip route get 203.0.113.9"]);
    }

    #[test]
    fn many_destinations_are_nobodys_name() {
        let found = router(50, 50).run(&RULE);
        assert_eq!(found[0].title, "gw has no route for 50 packets that it should forward");
        assert_eq!(found[0].actions[0].command, "ip netns exec gw ip route show table all");
    }

    #[test]
    fn directions_of_ipv6_are_told_apart_by_reason_and_counter() {
        let found = Host::new()
            .row(30, "ip6_pkt_drop", "IP_INNOROUTES")
            .row(20, "ip6_pkt_drop", "IP_OUTNOROUTES")
            .counted("Ip6.InNoRoutes", 30)
            .counted("Ip6.OutNoRoutes", 25)
            .run(&RULE);
        let explained: Vec<_> = found.iter().filter_map(|f| Some(f.explains?.drops)).collect();
        assert_eq!(explained, [30, 20]);
    }

    #[test]
    fn what_failed_before_there_was_a_packet_is_no_drop() {
        assert_eq!(Host::new().counted("Ip.OutNoRoutes", 50).run(&RULE), []);
        assert_eq!(router(50, 0).run(&RULE), []);
        assert_eq!(router(2, 2).run(&RULE), []);
    }
}
