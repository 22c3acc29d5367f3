//! Packets for ports where nobody listens.
//!
//! UDP counts them as `NoPorts` and answers with ICMP (`__udp4_lib_rcv`, net/ipv4/udp.c;
//! net/ipv6/udp.c; `udp_rcv` on newer kernels). TCP answers with a reset (`tcp_v4_rcv`,
//! net/ipv4/tcp_ipv4.c) and has no counter but that of resets. There, late segments of closed
//! connections die in the same place on every healthy host, so only rows count of which samples say
//! that they are connection attempts.
//!
//! One port that most of it is for is a service that somebody expects: a warning. Many are scans;
//! they and the ports that clients get are answers to programs that have gone: a notice.

use std::ops::RangeInclusive;

use super::{Draft, Facts, Makes, Proof, Rule, matters};
use crate::{
    diagnose::facts::{NetnsFacts, Rows},
    report::{
        facts::Field,
        finding::{Finding, Severity},
        model::Location,
    },
};

const UDP: &[&str] = &["__udp4_lib_rcv", "udp_rcv", "__udp6_lib_rcv", "udpv6_rcv"];
const TCP: &[&str] = &["tcp_v4_rcv", "tcp_v6_rcv"];
/// What kernels give to clients (`ip_local_port_range`).
const CLIENTS: RangeInclusive<u16> = 32_768..=60_999;
/// TCP flags of a connection attempt, without and with explicit congestion notification.
const ATTEMPTS: [&str; 2] = ["SYN", "SYN ECE CWR"];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "closed_port",
        severity: "warning for one service, else notice",
        says: "nobody listens",
        rests_on: "`NoPorts`; for TCP, refused connection attempts and resets",
    }],
    counters: &["Tcp.OutRsts", "Udp.NoPorts", "Udp6.NoPorts"],
    proofs: &[Proof::of(&["Udp.NoPorts", "Udp6.NoPorts"], "NO_SOCKET", UDP)],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let udp = facts.namespaces().filter_map(|namespace| udp(facts, namespace));
    udp.chain(facts.namespaces().filter_map(|namespace| tcp(facts, namespace))).collect()
}

fn udp(facts: &Facts<'_>, namespace: NetnsFacts<'_>) -> Option<Finding> {
    let (ipv4, ipv6) = (namespace.delta("Udp.NoPorts"), namespace.delta("Udp6.NoPorts"));
    let rows = facts.rows(&["NO_SOCKET"], UDP);
    let refused = ipv4 + ipv6;
    let drops = refused.min(rows.count());
    if !matters(drops, facts) {
        return None;
    }
    let draft =
        draft(facts, namespace, "UDP", facts.selected(refused, &rows), &rows.within(namespace))
            .explains(drops, &rows)
            .counted_too("Udp.NoPorts", ipv4, "snmp")
            .counted_too("Udp6.NoPorts", ipv6, "snmp6");
    Some(draft.run("ss -uln", WHAT_LISTENS).done())
}

fn tcp(facts: &Facts<'_>, namespace: NetnsFacts<'_>) -> Option<Finding> {
    let resets = namespace.delta("Tcp.OutRsts");
    let mut rows = facts.rows(&["NO_SOCKET"], TCP).within(namespace);
    rows.0.retain(|row| attempts(row));
    let drops = resets.min(rows.count());
    if !matters(drops, facts) {
        return None;
    }
    let draft = draft(facts, namespace, "TCP", drops, &rows)
        .explains(drops, &rows)
        .counted("NO_SOCKET", rows.count(), "kfree_skb")
        .counted("Tcp.OutRsts", resets, "snmp");
    Some(draft.run("ss -tln", WHAT_LISTENS).done())
}

const WHAT_LISTENS: &str = "what listens, at which address: start the service, or stop the sender";

/// Whether most of the sampled packets of a row were to open a connection.
fn attempts(row: &Location) -> bool {
    let flow = row.details.as_ref().and_then(|details| details.flow.as_ref());
    let kind = flow.filter(|flow| !flow.varies(Field::Kind)).and_then(|f| f.flow.kind.as_deref());
    kind.is_some_and(|kind| ATTEMPTS.contains(&kind))
}

fn draft<'a>(
    facts: &'a Facts<'a>,
    namespace: NetnsFacts<'a>,
    protocol: &str,
    refused: u64,
    rows: &Rows<'a>,
) -> Draft<'a> {
    let (name, port) = (namespace.name(), rows.port());
    let (subject, title) = match port {
        Some(port) => (
            format!("{protocol} port {port}"),
            format!(
                "nobody listens at {protocol} port {port} in {name}: {refused} packets refused"
            ),
        ),
        None => (
            format!("{protocol} ports"),
            format!("{refused} packets for closed {protocol} ports refused in {name}"),
        ),
    };
    let main = rows.main_port();
    let missed = main.is_some_and(|port| !CLIENTS.contains(&port));
    let severity = if missed { Severity::Warning } else { Severity::Notice };
    let draft = Draft::new(facts, "closed_port", severity, subject, title).at(namespace);
    let draft = match main.filter(|_| port.is_none()) {
        Some(main) => draft.state("most for port", u64::from(main), "samples"),
        None => draft,
    };
    match rows.source() {
        Some(sender) => draft.state("sender", sender.to_string(), "samples"),
        None => draft,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::flow::Flow;

    fn flow(kind: Option<&'static str>, port: Option<u16>) -> Flow {
        let src = Some("192.0.2.7".parse().unwrap());
        Flow { src, dst_port: port, kind: kind.map(Into::into), ..Flow::default() }
    }

    fn udp(drops: u64, port: Option<u16>) -> TestHost {
        TestHost::new().row(drops, "__udp4_lib_rcv", "NO_SOCKET").flow(flow(None, port))
    }

    fn tcp(drops: u64, kind: &'static str) -> TestHost {
        TestHost::new().row(drops, "tcp_v4_rcv", "NO_SOCKET").flow(flow(Some(kind), Some(80)))
    }

    #[test]
    fn one_port_is_a_service_that_somebody_misses() {
        let found = udp(50, Some(53)).counted("Udp.NoPorts", 50).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.title, "nobody listens at UDP port 53 in gw: 50 packets refused");
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(finding.explains.map(|e| e.drops), Some(50));
        assert!(
            finding.evidence.iter().any(|e| e.name == "sender" && e.value == "192.0.2.7".into())
        );
        assert_eq!(finding.actions[0].command, "ip netns exec gw ss -uln");
    }

    #[test]
    fn many_ports_are_worth_a_notice() {
        let found = udp(50, None).counted("Udp.NoPorts", 50).run(&RULE);
        assert_eq!(found[0].title, "50 packets for closed UDP ports refused in gw");
        assert_eq!(found[0].severity, Severity::Notice);
    }

    #[test]
    fn a_port_is_named_if_nearly_all_were_for_it() {
        let to = |port| flow(None, Some(port));
        let udp = || TestHost::new().row(90, "__udp4_lib_rcv", "NO_SOCKET");
        let two = udp().flows(&[to(53), to(53), to(99)]).counted("Udp.NoPorts", 90).run(&RULE);
        assert_eq!(two[0].title, "90 packets for closed UDP ports refused in gw");
        assert_eq!(two[0].severity, Severity::Warning);
        assert!(two[0].evidence.iter().any(|it| it.name == "most for port"), "{two:?}");
    }

    #[test]
    fn late_answers_to_a_client_are_no_missing_service() {
        let severity = |port| udp(50, Some(port)).counted("Udp.NoPorts", 50).run(&RULE)[0].severity;
        assert_eq!(severity(32_767), Severity::Warning);
        assert_eq!(severity(32_768), Severity::Notice);
    }

    #[test]
    fn without_samples_the_counter_still_proves_it() {
        let found = udp(50, Some(53)).unsampled().counted("Udp.NoPorts", 50).run(&RULE);
        assert_eq!(found[0].severity, Severity::Notice);
        assert_eq!(udp(50, Some(53)).run(&RULE), [], "another namespace's");
        assert_eq!(udp(2, Some(53)).counted("Udp.NoPorts", 2).run(&RULE), [], "a few are nothing");
    }

    #[test]
    fn connection_attempts_are_answered_with_resets() {
        let found = tcp(50, "SYN").counted("Tcp.OutRsts", 49).run(&RULE);
        assert_eq!(found[0].title, "nobody listens at TCP port 80 in gw: 49 packets refused");
        assert_eq!(found[0].explains.map(|e| e.drops), Some(49));
        assert_eq!(tcp(50, "SYN").run(&RULE), [], "not one reset");
    }

    #[test]
    fn late_segments_of_closed_connections_are_usual() {
        assert_eq!(tcp(50, "FIN ACK").counted("Tcp.OutRsts", 50).run(&RULE), []);
        assert_eq!(tcp(50, "SYN").unsampled().counted("Tcp.OutRsts", 50).run(&RULE), []);
    }
}
