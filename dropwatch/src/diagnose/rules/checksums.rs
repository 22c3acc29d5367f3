//! Packets that were damaged on their way, or made wrongly.
//!
//! The checksum of a header or of what it carries is not that of the bytes that came, and the
//! protocol drops the packet and counts it (`ip_rcv_core`, `udp_queue_rcv_one_skb`, `tcp_v4_rcv`,
//! `icmp_rcv` and others, net/ipv4 and net/ipv6). A cable, a device's memory, its checksum offload, or
//! the sender's.

use super::{Draft, Facts, Makes, Proof, Rule, matters, quote};
use crate::{
    diagnose::facts::{NetnsFacts, Rows},
    report::finding::{Finding, Severity},
};

struct ChecksummedProtocol {
    name: &'static str,
    counters: &'static [(&'static str, &'static str)],
    reason: &'static str,
    functions: &'static [&'static str],
}

const PROTOCOLS: [ChecksummedProtocol; 4] = [
    ChecksummedProtocol {
        name: "IP",
        counters: &[("IpExt.InCsumErrors", "netstat")],
        reason: "IP_CSUM",
        functions: &["ip_rcv_core", "ip_rcv"],
    },
    ChecksummedProtocol {
        name: "TCP",
        counters: &[("Tcp.InCsumErrors", "snmp")],
        reason: "TCP_CSUM",
        functions: &[
            "tcp_v4_rcv",
            "tcp_v6_rcv",
            "tcp_v4_do_rcv",
            "tcp_v6_do_rcv",
            "tcp_rcv_established",
        ],
    },
    ChecksummedProtocol {
        name: "UDP",
        counters: &[("Udp.InCsumErrors", "snmp"), ("Udp6.InCsumErrors", "snmp6")],
        reason: "UDP_CSUM",
        functions: &[
            "__udp4_lib_rcv",
            "__udp6_lib_rcv",
            "udp_rcv",
            "udpv6_rcv",
            "udp_queue_rcv_one_skb",
            "udpv6_queue_rcv_one_skb",
            "__first_packet_length",
            "skb_consume_udp",
            "udp_recvmsg",
            "udpv6_recvmsg",
        ],
    },
    ChecksummedProtocol {
        name: "ICMP",
        counters: &[("Icmp.InCsumErrors", "snmp"), ("Icmp6.InCsumErrors", "snmp6")],
        reason: "ICMP_CSUM",
        functions: &["icmp_rcv", "icmpv6_rcv"],
    },
];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "checksum",
        severity: "warning",
        says: "packets arrive damaged",
        rests_on: "`InCsumErrors`",
    }],
    counters: &[
        "Icmp.InCsumErrors",
        "Icmp6.InCsumErrors",
        "IpExt.InCsumErrors",
        "Tcp.InCsumErrors",
        "Udp.InCsumErrors",
        "Udp6.InCsumErrors",
    ],
    proofs: &[
        Proof::of(&["IpExt.InCsumErrors"], "IP_CSUM", &[]),
        Proof::of(&["Tcp.InCsumErrors"], "TCP_CSUM", &[]),
        Proof::of(&["Udp.InCsumErrors", "Udp6.InCsumErrors"], "UDP_CSUM", &[]),
        Proof::of(&["Icmp.InCsumErrors", "Icmp6.InCsumErrors"], "ICMP_CSUM", &[]),
    ],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    facts.namespaces().filter_map(|namespace| damaged(facts, namespace)).collect()
}

fn damaged(facts: &Facts<'_>, namespace: NetnsFacts<'_>) -> Option<Finding> {
    let (mut counted, mut drops, mut names) = (0, 0, Vec::new());
    let mut rows = Rows(Vec::new());
    for ChecksummedProtocol { name, counters, reason, functions } in &PROTOCOLS {
        let here: u64 = counters.iter().map(|(counter, _)| namespace.delta(counter)).sum();
        if here == 0 {
            continue;
        }
        let theirs = facts.rows_for(reason, functions);
        counted += here;
        drops += here.min(theirs.count());
        rows.0.extend(theirs.0);
        names.push(*name);
    }
    if !matters(counted, facts) {
        return None;
    }
    let rows = rows.within(namespace);
    let device = rows.device();
    let source = rows.source().map(|source| source.to_string());
    let from = source.map(|source| format!(" from {source}")).unwrap_or_default();
    let by = device.map(|device| format!(" by {device}")).unwrap_or_default();
    let title = format!(
        "{} gets damaged packets{from}{by}: {counted} with a wrong checksum ({})",
        namespace.name(),
        names.join(", ")
    );
    let mut draft =
        Draft::new(facts, "checksum", Severity::Warning, device.unwrap_or_default(), title)
            .at(namespace);
    if drops > 0 {
        draft = draft.explains(drops, &rows);
    }
    for (counter, source) in PROTOCOLS.iter().flat_map(|protocol| protocol.counters) {
        let counted = namespace.delta(counter);
        if counted > 0 {
            draft = draft.counted(counter, counted, source);
        }
    }
    let link = namespace.links().find(|link| Some(link.now.name.as_str()) == device);
    if let Some(link) = link {
        draft = draft.counted("rx_crc_errors", link.delta("rx_crc_errors"), "rtnetlink");
    }
    let Some(device) = device.map(quote) else {
        let note = "errors that a device saw: if one has some, look at cable, port and transceiver";
        return Some(draft.run("ip -s -s link show", note).done());
    };
    let finding = draft
        .run(
            &format!("ethtool -S {device}"),
            "errors that the device saw: if it has some, look at cable, port and transceiver",
        )
        .run(
            &format!("ethtool -K {device} rx off"),
            "the kernel sums up by itself; if that ends it, the device's offload is at fault. \
             Costs CPU time",
        );
    Some(finding.done())
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn protocols_are_one_finding() {
        let found = TestHost::new()
            .row(48, "__udp4_lib_rcv", "UDP_CSUM")
            .interface("eth0")
            .row(2, "tcp_v4_rcv", "TCP_CSUM")
            .row(40, "tcp_v4_rcv", "NO_SOCKET")
            .counted("Udp.InCsumErrors", 48)
            .counted("Tcp.InCsumErrors", 3)
            .run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.title,
            "gw gets damaged packets by eth0: 51 with a wrong checksum (TCP, UDP)"
        );
        assert_eq!(finding.explains.map(|e| e.drops), Some(50));
        let counted: Vec<_> = finding.evidence.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(counted, ["Tcp.InCsumErrors", "Udp.InCsumErrors"]);
        assert_eq!(finding.actions[0].command, "ip netns exec gw ethtool -S eth0");
    }

    #[test]
    fn the_counter_proves_what_no_event_shows() {
        let found = TestHost::new().counted("Tcp.InCsumErrors", 3).run(&RULE);
        assert_eq!(found[0].explains, None);
    }

    #[test]
    fn a_packet_or_two_happen_everywhere() {
        assert_eq!(TestHost::new().counted("Tcp.InCsumErrors", 2).run(&RULE), []);
        let rows =
            TestHost::new().row(50, "__udp4_lib_rcv", "UDP_CSUM").counted("Udp.InCsumErrors", 0);
        assert_eq!(rows.run(&RULE), []);
    }
}
