//! Segments find a connection busy, and its backlog full.
//!
//! While a process works inside the socket, arriving segments wait in its backlog, which may hold
//! about as much as the buffers of the connection. Beyond that they are freed and counted as
//! `TCPBacklogDrop` (`tcp_add_backlog`, net/ipv4/tcp_ipv4.c). A program that holds the socket for
//! long does this, or buffers made small for a fast peer. The limit is the connection's own and the
//! sender transmits again, so it is a warning; a few are nothing.

use super::{Draft, Facts, LEAST_DROPS, Makes, Proof, Rule, tcp_receive_memory::raise_tcp_rmem};
use crate::{
    diagnose::{facts::NetnsFacts, named::Local},
    report::{
        finding::{Finding, Severity},
        object::Object,
    },
};

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "tcp_backlog",
        severity: "warning",
        says: "a socket is busy while too much arrives",
        rests_on: "`TCPBacklogDrop`",
    }],
    counters: &["TcpExt.TCPBacklogDrop"],
    proofs: &[Proof::of(&["TcpExt.TCPBacklogDrop"], "SOCKET_BACKLOG", &[])],
    settings: &["net.ipv4.tcp_rmem"],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    facts.namespaces().filter_map(|namespace| full(facts, namespace)).collect()
}

fn full(facts: &Facts<'_>, namespace: NetnsFacts<'_>) -> Option<Finding> {
    let lost = namespace.delta("TcpExt.TCPBacklogDrop");
    if lost < LEAST_DROPS {
        return None;
    }
    // Without reasons they look like segments of a TIME_WAIT socket, so those rows are left alone.
    let rows = facts.rows(&["SOCKET_BACKLOG"], &[]);
    let here = rows.within(namespace);
    let port = here.port().map(|port| format!(" of port {port}")).unwrap_or_default();
    let title = format!(
        "TCP backlog{port} full in {}: {} segments dropped",
        namespace.name(),
        facts.selected(lost, &here)
    );
    let mut draft =
        Draft::new(facts, "tcp_backlog", Severity::Warning, port.trim_start_matches(" of "), title)
            .at(namespace)
            .explains(lost.min(rows.count()), &rows)
            .counted("TcpExt.TCPBacklogDrop", lost, "netstat")
            .setting("net.ipv4.tcp_rmem");
    if here.port().is_some() || here.owner().is_some() {
        draft = draft.names(Object::socket("tcp", Local::port(here.port()), here.owner()));
    }
    if let Some(owner) = here.owner() {
        draft = draft.state("process", format!("{} ({})", owner.comm, owner.pid), "samples");
    }
    Some(raise_tcp_rmem(draft).run("ss -tmn", "bl: bytes in the backlog, rb: its buffer").done())
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn a_full_backlog_is_a_warning_with_a_larger_buffer() {
        let found = TestHost::new()
            .row(20, "tcp_v4_rcv", "SOCKET_BACKLOG")
            .row(90, "tcp_v4_rcv", "NO_SOCKET")
            .counted("TcpExt.TCPBacklogDrop", 20)
            .setting("net.ipv4.tcp_rmem", "4096 131072 6291456")
            .run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.title, "TCP backlog full in gw: 20 segments dropped");
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(finding.explains.map(|e| e.drops), Some(20));
        assert_eq!(
            finding.actions[0].command,
            "ip netns exec gw sysctl -w net.ipv4.tcp_rmem='4096 131072 12582912'"
        );
    }

    #[test]
    fn a_kernel_without_reasons_has_the_counter_alone() {
        let host = TestHost::new().row(20, "tcp_v4_rcv", "").counted("TcpExt.TCPBacklogDrop", 20);
        assert_eq!(host.run(&RULE)[0].explains.map(|e| e.drops), Some(0));
    }

    #[test]
    fn a_few_are_nothing() {
        let host = |lost| {
            TestHost::new()
                .row(2, "tcp_v4_rcv", "SOCKET_BACKLOG")
                .counted("TcpExt.TCPBacklogDrop", lost)
        };
        assert_eq!(host(2).run(&RULE), []);
        assert_eq!(host(3).run(&RULE).len(), 1);
    }
}
