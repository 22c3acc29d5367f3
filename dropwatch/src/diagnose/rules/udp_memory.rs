//! UDP sockets lose datagrams because all of them together hold as much memory as UDP may have.
//!
//! Above the last number of `udp_mem` a socket gets no more, although its own buffer has room; the
//! datagram is freed and counted as `MemErrors` (`__udp_enqueue_schedule_skb` and
//! `__udp_queue_rcv_skb`, net/ipv4/udp.c; the counter is there since 5.11). The limit is one for
//! all namespaces.

use super::{Draft, Facts, udp_receive_buffer::FUNCTIONS};
use crate::{
    diagnose::facts::Changed,
    report::finding::{Finding, Severity},
};

pub(super) fn check(facts: &Facts<'_>) -> Vec<Finding> {
    facts.spaces().filter_map(|space| exhausted(facts, space)).collect()
}

fn exhausted(facts: &Facts<'_>, space: Changed<'_>) -> Option<Finding> {
    let (ipv4, ipv6) = (space.delta("Udp.MemErrors"), space.delta("Udp6.MemErrors"));
    let lost = ipv4 + ipv6;
    if lost == 0 {
        return None;
    }
    let rows = facts.rows(&["PROTO_MEM"], FUNCTIONS);
    let title =
        format!("UDP is out of memory (udp_mem): {lost} datagrams lost in {}", space.name());
    let finding = Draft::new(facts, "udp_memory", Severity::Critical, title)
        .at(space)
        .explains(lost.min(rows.count()))
        .counted_too("Udp.MemErrors", ipv4, "snmp")
        .counted_too("Udp6.MemErrors", ipv6, "snmp6")
        .setting("net.ipv4.udp_mem")
        .double("net.ipv4.udp_mem", 0, "in pages")
        .run("ss -uamn", "Recv-Q: who holds the memory; a reader that stands still fills any");
    Some(finding.done())
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    fn host() -> Host {
        Host::new()
            .row(20, "udp_queue_rcv_one_skb", "PROTO_MEM")
            .host_setting("net.ipv4.udp_mem", "10\t20\t30")
    }

    #[test]
    fn the_limit_of_all_of_udp_is_told_apart_from_a_sockets_own() {
        let found = host().counted("Udp.MemErrors", 20).run(check);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.title, "UDP is out of memory (udp_mem): 20 datagrams lost in gw");
        assert_eq!(finding.severity, Severity::Critical);
        assert_eq!(finding.explains.map(|e| e.drops), Some(20));
        assert_eq!(finding.actions[0].command, "sysctl -w net.ipv4.udp_mem='20 40 60'");
        assert_eq!(host().counted("Udp.RcvbufErrors", 20).run(check), []);
    }

    #[test]
    fn drops_of_another_protocol_are_not_explained() {
        let found = Host::new().row(20, "tcp_data_queue", "PROTO_MEM").counted("Udp6.MemErrors", 1);
        assert_eq!(found.run(check)[0].explains.map(|e| e.drops), Some(0));
    }
}
