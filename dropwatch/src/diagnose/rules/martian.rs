//! Packets with addresses that cannot be right where they came in: martians.
//!
//! The route lookup of an arriving packet refuses them (`ip_route_input_slow`, net/ipv4/route.c;
//! `__fib_validate_source`, net/ipv4/fib_frontend.c), and `ip_rcv_finish_core`
//! (net/ipv4/ip_input.c) drops them. No counter knows them, and before Linux 6.14 no reason does: there,
//! this finds nothing.

use super::{Draft, Facts, Makes, Rule, by_rate, matters, quote};
use crate::{
    diagnose::facts::Rows,
    report::{facts::Netns, finding::Finding, object::Object},
};

struct MartianKind {
    reason: &'static str,
    /// What is wrong with them.
    with: &'static str,
    /// The setting of a device that lets them in, and who needs that.
    switch: Option<(&'static str, &'static str)>,
}

const KINDS: [MartianKind; 4] = [
    MartianKind {
        reason: "IP_LOCAL_SOURCE",
        with: "whose source is an address of this very host",
        switch: Some(("accept_local", "if two interfaces of this host are to talk over the wire")),
    },
    MartianKind {
        reason: "IP_LOCALNET",
        with: "with a loopback address",
        switch: Some(("route_localnet", "if 127.0.0.0/8 is translated or balanced on purpose")),
    },
    MartianKind {
        reason: "IP_INVALID_SOURCE",
        with: "whose source is no host's address",
        switch: None,
    },
    MartianKind {
        reason: "IP_INVALID_DEST",
        with: "whose destination is no address to send to",
        switch: None,
    },
];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "martian",
        severity: "warning, notice below 10/s",
        says: "impossible addresses",
        rests_on: "rows with their reasons",
    }],
    device_settings: &["net/ipv4/conf/DEV/accept_local", "net/ipv4/conf/DEV/route_localnet"],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let found = KINDS.iter().flat_map(|kind| {
        let rows = facts.rows(&[kind.reason], &[]).by_netns();
        rows.into_iter().filter_map(move |(netns, rows)| impossible(facts, netns, &rows, kind))
    });
    found.collect()
}

fn impossible(
    facts: &Facts<'_>,
    netns: Option<&Netns>,
    rows: &Rows<'_>,
    kind: &MartianKind,
) -> Option<Finding> {
    let drops = rows.count();
    if !matters(drops, facts) {
        return None;
    }
    let device = rows.device();
    let source = rows.source().map(|source| source.to_string());
    let name = netns.and_then(|netns| netns.name.as_deref());
    let at = name.map(|name| format!(" in {name}")).unwrap_or_default();
    let by = device.map(|device| format!(" by {device}")).unwrap_or_default();
    let from = source.as_ref().map(|source| format!(" ({source})")).unwrap_or_default();
    let subject = format!("{}{by}", kind.with);
    let title = format!("{drops} packets came in{by}{at} {}{from}", kind.with);
    let filter = source.map(|source| format!(" src host {source}")).unwrap_or_default();
    let mut draft = Draft::new(facts, "martian", by_rate(drops, facts), subject, title)
        .somewhere(netns)
        .explains(drops, rows)
        .names_any(device.map(|device| Object::interface(device, None)))
        .counted(kind.reason, drops, "kfree_skb")
        .run(
            &format!(
                "timeout 30 tcpdump -e -n -c 10 -i {}{filter}",
                device.map_or("any".into(), quote)
            ),
            "the link-layer address of who sends them: a loop if it is this host's own",
        );
    if let (Some((switch, why)), Some(device)) = (kind.switch, device) {
        let switch = format!("net/ipv4/conf/{device}/{switch}");
        draft = draft.setting(&switch).set(&switch, 1, why);
    }
    Some(draft.done())
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::{finding::Severity, flow::Flow};

    fn host(drops: u64, reason: &str) -> TestHost {
        TestHost::new().row(drops, "ip_rcv_finish_core", reason).interface("eth0")
    }

    #[test]
    fn a_source_of_its_own_can_be_accepted() {
        let flow = Flow { src: Some([198, 18, 2, 2].into()), ..Flow::default() };
        let found = host(50, "IP_LOCAL_SOURCE").flow(flow).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.title,
            "50 packets came in by eth0 in gw whose source is an address of this very host \
             (198.18.2.2)"
        );
        let commands: Vec<_> = finding.actions.iter().map(|a| a.command.as_str()).collect();
        assert_eq!(
            commands,
            [
                "ip netns exec gw timeout 30 tcpdump -e -n -c 10 -i eth0 src host 198.18.2.2",
                "ip netns exec gw sysctl -w net/ipv4/conf/eth0/accept_local=1"
            ]
        );
    }

    #[test]
    fn what_can_only_be_wrong_has_no_switch() {
        let found = host(50, "IP_INVALID_SOURCE").run(&RULE);
        assert_eq!(found[0].actions.len(), 1);
        assert_eq!(found[0].severity, Severity::Warning);
    }

    #[test]
    fn a_few_are_a_notice_or_nothing() {
        assert_eq!(host(5, "IP_LOCALNET").run(&RULE)[0].severity, Severity::Notice);
        assert_eq!(host(2, "IP_LOCALNET").run(&RULE), []);
        assert_eq!(host(50, "NOT_SPECIFIED").run(&RULE), [], "a kernel without reasons");
    }
}
