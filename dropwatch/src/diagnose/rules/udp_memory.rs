//! UDP sockets lose datagrams because all of them together hold as much memory as UDP may have.
//!
//! Above the first number of `udp_mem` a socket gets no more than `udp_rmem_min`, although its own
//! buffer has room: the numbers after it are for protocols that know memory pressure, which UDP
//! does not (`__sk_mem_raise_allocated`, net/core/sock.c; measured on 6.18). The datagram is freed and counted as `MemErrors` (`__udp_enqueue_schedule_skb` and
//! `__udp_queue_rcv_skb`, net/ipv4/udp.c; the counter is there since 5.11). The limit is one for
//! all namespaces. From 6.18 on the first of them frees in batches and counts nothing ("TODO:
//! update SNMP values"): there the drops themselves, whose reason is this one's, are the evidence.

use super::{Counts, Draft, Facts, Kept, Makes, Rule, matters, udp_receive_buffer::FUNCTIONS};
use crate::{
    diagnose::facts::{NetnsFacts, Rows, name},
    report::{
        facts::Netns,
        finding::{Finding, Severity},
    },
};

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "udp_memory",
        severity: "critical",
        says: "UDP as a whole is out of memory",
        rests_on: "`MemErrors`",
    }],
    counters: &["Udp.MemErrors", "Udp6.MemErrors"],
    host_settings: &["net.ipv4.udp_mem"],
    counts: &[Counts::of(
        Kept::Netns(&["Udp.MemErrors", "Udp6.MemErrors"]),
        &["PROTO_MEM"],
        FUNCTIONS,
    )],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let rows = facts.rows(&["PROTO_MEM"], FUNCTIONS);
    let counted: Vec<Finding> =
        facts.namespaces().filter_map(|namespace| exhausted(facts, namespace, &rows)).collect();
    if !counted.is_empty() {
        return counted;
    }
    // A row without a reason could be anything, so it does not count as evidence.
    let with_reason = Rows(rows.0.into_iter().filter(|row| row.place.reason.is_some()).collect());
    let uncounted =
        with_reason.by_netns().into_iter().filter(|(_, rows)| matters(rows.count(), facts));
    uncounted.map(|(netns, rows)| out_of_memory(facts, netns, &rows)).collect()
}

fn exhausted(facts: &Facts<'_>, namespace: NetnsFacts<'_>, rows: &Rows<'_>) -> Option<Finding> {
    let (ipv4, ipv6) = (namespace.delta("Udp.MemErrors"), namespace.delta("Udp6.MemErrors"));
    let lost = ipv4 + ipv6;
    if lost == 0 {
        return None;
    }
    let draft =
        Draft::new(facts, "udp_memory", Severity::Critical, "", title(lost, &namespace.name()))
            .at(namespace)
            .explains(lost.min(rows.count()), rows)
            .counted_too("Udp.MemErrors", ipv4, "snmp")
            .counted_too("Udp6.MemErrors", ipv6, "snmp6");
    Some(raise_udp_mem(draft))
}

/// The finding that rests on the drops alone, where no counter moved.
fn out_of_memory(facts: &Facts<'_>, netns: Option<&Netns>, rows: &Rows<'_>) -> Finding {
    let lost = rows.count();
    let draft = Draft::new(facts, "udp_memory", Severity::Critical, "", title(lost, &name(netns)))
        .somewhere(netns)
        .explains(lost, rows)
        .counted("PROTO_MEM", lost, "kfree_skb");
    raise_udp_mem(draft)
}

fn title(lost: u64, place: &str) -> String {
    format!("UDP is out of memory (udp_mem): {lost} datagrams lost in {place}")
}

fn raise_udp_mem(draft: Draft<'_>) -> Finding {
    draft
        .setting("net.ipv4.udp_mem")
        .double("net.ipv4.udp_mem", 0, "in pages")
        .run("ss -uamn", "Recv-Q: who holds the memory; a reader that stands still fills any")
        .done()
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    fn host() -> TestHost {
        TestHost::new()
            .row(20, "udp_queue_rcv_one_skb", "PROTO_MEM")
            .host_setting("net.ipv4.udp_mem", "10\t20\t30")
    }

    #[test]
    fn the_limit_of_all_of_udp_is_told_apart_from_a_sockets_own() {
        let found = host().counted("Udp.MemErrors", 20).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.title, "UDP is out of memory (udp_mem): 20 datagrams lost in gw");
        assert_eq!(finding.severity, Severity::Critical);
        assert_eq!(finding.explains.map(|e| e.drops), Some(20));
        assert_eq!(finding.actions[0].command, "sysctl -w net.ipv4.udp_mem='20 40 60'");
        let own = TestHost::new().row(20, "udp_queue_rcv_one_skb", "SOCKET_RCVBUFF");
        assert_eq!(own.counted("Udp.RcvbufErrors", 20).run(&RULE), []);
    }

    #[test]
    fn where_the_kernel_counts_nothing_the_drops_are_the_evidence() {
        let host = || {
            TestHost::new()
                .row(20, "__udp_enqueue_schedule_skb", "PROTO_MEM")
                .host_setting("net.ipv4.udp_mem", "10 20 30")
        };
        let found = host().run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.title, "UDP is out of memory (udp_mem): 20 datagrams lost in gw");
        assert_eq!(finding.explains.map(|e| e.drops), Some(20));
        assert_eq!(finding.actions[0].command, "sysctl -w net.ipv4.udp_mem='20 40 60'");
        let found = host().counted("Udp.MemErrors", 20).run(&RULE);
        assert_eq!(found.len(), 1, "once, not twice: {found:?}");
        let few = TestHost::new().row(2, "__udp_enqueue_schedule_skb", "PROTO_MEM");
        assert_eq!(few.run(&RULE), []);
        let without_reason = TestHost::new().row(20, "__udp_enqueue_schedule_skb", "");
        assert_eq!(without_reason.run(&RULE), []);
        let others = TestHost::new().row(20, "tcp_data_queue", "PROTO_MEM");
        assert_eq!(others.run(&RULE), []);
    }

    #[test]
    fn drops_of_another_protocol_are_not_explained() {
        let found =
            TestHost::new().row(20, "tcp_data_queue", "PROTO_MEM").counted("Udp6.MemErrors", 1);
        assert_eq!(found.run(&RULE)[0].explains.map(|e| e.drops), Some(0));
    }
}
