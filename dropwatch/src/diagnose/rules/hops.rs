//! Packets whose hops are used up on this router.
//!
//! Each router takes one off TTL or hop limit, and the one that finds none left drops the packet
//! and reports to the sender (`ip_forward`, net/ipv4/ip_forward.c; `ip6_forward`,
//! net/ipv6/ip6_output.c). traceroute lives on that, a few packets at a time; many for the same
//! destination go round in circles.

use super::{Draft, Facts, Makes, Proof, Rule, by_rate, matters};
use crate::{
    diagnose::facts::NetnsFacts,
    report::{finding::Finding, question::Packet},
};

/// Counter, where it is read, and the function.
const FAMILIES: [(&str, &str, &str); 2] =
    [("Ip.InHdrErrors", "snmp", "ip_forward"), ("Ip6.InHdrErrors", "snmp6", "ip6_forward")];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "ttl_expired",
        severity: "warning, notice below 10/s",
        says: "no hops left: a loop, or traceroute",
        rests_on: "`InHdrErrors`",
    }],
    counters: &["Ip.InHdrErrors", "Ip6.InHdrErrors"],
    proofs: &[
        Proof::of(&["Ip.InHdrErrors"], "IP_INHDR", &["ip_forward"]),
        Proof::of(&["Ip6.InHdrErrors"], "IP_INHDR", &["ip6_forward"]),
    ],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let found = facts.namespaces().flat_map(|namespace| {
        FAMILIES.iter().filter_map(move |(counter, source, function)| {
            used_up(facts, namespace, counter, source, function)
        })
    });
    found.collect()
}

fn used_up(
    facts: &Facts<'_>,
    namespace: NetnsFacts<'_>,
    counter: &str,
    source: &str,
    function: &str,
) -> Option<Finding> {
    let rows = facts.rows_or_unspecified(&["IP_INHDR"], &[function]);
    let counted = namespace.delta(counter);
    let drops = counted.min(rows.count());
    if !matters(drops, facts) {
        return None;
    }
    let here = rows.within(namespace);
    let to = here.destination();
    let what = to.map(|to| format!(" to {to}")).unwrap_or_default();
    let title = format!(
        "{drops} packets{what} had no hops left in {}: a routing loop, or traceroute",
        namespace.name()
    );
    let draft = Draft::new(facts, "ttl_expired", by_rate(drops, facts), function, title)
        .at(namespace)
        .explains(drops, &rows)
        .counted(counter, counted, source)
        .counted(&format!("IP_INHDR at {function}"), rows.count(), "kfree_skb");
    let finding = match to {
        Some(to) => draft
            .run(
                &Packet::command(to, here.mark_to(to)),
                "the next router; it must not send them back here",
            )
            .run(
                &format!("timeout 30 tcpdump -n -v -c 20 dst host {to}"),
                "a packet that comes again, with less `ttl` each time, is in a loop",
            ),
        None => draft.run("ip route show table all", "a router must not send them back here"),
    };
    Some(finding.done())
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::{finding::Severity, flow::Flow};

    fn router(drops: u64, counted: u64) -> TestHost {
        TestHost::new().row(drops, "ip_forward", "IP_INHDR").counted("Ip.InHdrErrors", counted)
    }

    #[test]
    fn many_packets_to_one_place_are_a_loop() {
        let flow = Flow { dst: Some([203, 0, 113, 9].into()), ..Flow::default() };
        let found = router(50, 50).flow(flow).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.title,
            "50 packets to 203.0.113.9 had no hops left in gw: a routing loop, or traceroute"
        );
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(finding.actions[0].command, "ip netns exec gw ip route get 203.0.113.9");
    }

    #[test]
    fn traceroute_is_a_notice() {
        assert_eq!(router(5, 5).run(&RULE)[0].severity, Severity::Notice);
        assert_eq!(router(2, 2).run(&RULE), []);
    }

    #[test]
    fn bad_headers_are_another_functions() {
        let found = TestHost::new()
            .row(50, "ip_rcv_core", "IP_INHDR")
            .counted("Ip.InHdrErrors", 50)
            .run(&RULE);
        assert_eq!(found, []);
        assert_eq!(router(50, 0).run(&RULE), []);
    }
}
