//! Packets for other hosts, which this one does not forward.
//!
//! The route lookup finds that a packet is not for this host, and forwarding is off on the device
//! that it came in by (`ip_error` with `-EHOSTUNREACH`, net/ipv4/route.c; `ip6_forward`,
//! net/ipv6/ip6_output.c). Somebody uses this host as a router.

use super::{Draft, Facts, Makes, Rule, matters};
use crate::{
    diagnose::facts::NetnsFacts,
    report::finding::{Finding, Severity},
};

/// A family's switch, counter, and the functions that drop.
struct ForwardingFamily {
    name: &'static str,
    switch: &'static str,
    counter: &'static str,
    functions: &'static [&'static str],
}

const FAMILIES: [ForwardingFamily; 2] = [
    ForwardingFamily {
        name: "IPv4",
        switch: "net.ipv4.ip_forward",
        counter: "Ip.InAddrErrors",
        functions: &["ip_error"],
    },
    ForwardingFamily {
        name: "IPv6",
        switch: "net.ipv6.conf.all.forwarding",
        counter: "Ip6.InAddrErrors",
        functions: &["ip6_pkt_drop", "ip6_forward"],
    },
];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "forwarding_disabled",
        severity: "warning",
        says: "packets for others, and no router",
        rests_on: "`InAddrErrors`, `ip_forward`",
    }],
    counters: &["Ip.InAddrErrors", "Ip6.InAddrErrors"],
    settings: &["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let found = facts.namespaces().flat_map(|namespace| {
        FAMILIES.iter().filter_map(move |family| refused(facts, namespace, family))
    });
    found.collect()
}

fn refused(
    facts: &Facts<'_>,
    namespace: NetnsFacts<'_>,
    family: &ForwardingFamily,
) -> Option<Finding> {
    if namespace.setting(family.switch)? != "0" {
        return None;
    }
    let rows = facts.rows_or_unspecified(&["IP_INADDRERRORS"], family.functions);
    let (counted, dropped) = (namespace.delta(family.counter), rows.count());
    let drops = counted.min(dropped);
    if !matters(drops, facts) {
        return None;
    }
    let title = format!(
        "{} does not forward {}: {counted} packets for other hosts refused",
        namespace.name(),
        family.name
    );
    let finding = Draft::new(facts, "forwarding_disabled", Severity::Warning, family.name, title)
        .at(namespace)
        .explains(drops, &rows)
        .counted(family.counter, counted, "snmp")
        .setting(family.switch)
        .set(family.switch, 1, "if it is meant to be a router");
    Some(finding.done())
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    fn host(drops: u64, counted: u64, switch: &str) -> Vec<Finding> {
        TestHost::new()
            .row(drops, "ip_error", "IP_INADDRERRORS")
            .counted("Ip.InAddrErrors", counted)
            .setting("net.ipv4.ip_forward", switch)
            .run(&RULE)
    }

    #[test]
    fn a_host_that_is_no_router_is_named_with_its_switch() {
        let found = host(10, 10, "0");
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.title, "gw does not forward IPv4: 10 packets for other hosts refused");
        assert_eq!(finding.explains.map(|e| e.drops), Some(10));
        assert_eq!(finding.actions[0].command, "ip netns exec gw sysctl -w net.ipv4.ip_forward=1");
    }

    #[test]
    fn a_router_has_another_reason_to_refuse() {
        assert_eq!(host(10, 10, "1"), []);
    }

    #[test]
    fn another_namespaces_drops_are_not_this_ones() {
        assert_eq!(host(10, 0, "0"), []);
        assert_eq!(host(2, 10, "0"), [], "a few are nothing");
    }
}
