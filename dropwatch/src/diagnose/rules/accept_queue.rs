//! New connections are refused because the accept queue of a listening socket is full.
//!
//! Finished handshakes wait there until the program calls accept(). With more of them than
//! listen() asked for, or `somaxconn` allows, the kernel ignores SYNs and last ACKs of further
//! handshakes and counts `ListenOverflows` (`tcp_conn_request`, net/ipv4/tcp_input.c;
//! `tcp_v4_syn_recv_sock`, net/ipv4/tcp_ipv4.c). The SYNs are freed as if they had been used, so no
//! drop event shows them; the ACKs have a reason on newer kernels. Clients try again after a
//! second and more, and are counted again.

use super::{Draft, Facts, Makes, Proof, Rule};
use crate::{
    diagnose::{facts::NetnsFacts, named::Local},
    report::{
        evidence::Listener,
        finding::{Finding, Severity},
        object::Object,
    },
};

/// Counts each connection that a full queue refused.
pub const OVERFLOWS: &str = "TcpExt.ListenOverflows";
const SOMAXCONN: &str = "net.core.somaxconn";
/// What kernels start with since 5.4 (`SOMAXCONN`, include/linux/socket.h).
const LEAST: u64 = 4096;

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "accept_queue_full",
        severity: "critical",
        says: "a server accepts connections too slowly; no drop event",
        rests_on: "`ListenOverflows`",
    }],
    counters: &["TcpExt.ListenDrops", "TcpExt.ListenOverflows"],
    proofs: &[Proof::of(&[OVERFLOWS], "TCP_LISTEN_OVERFLOW", &[])],
    settings: &["net.core.somaxconn"],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    facts.namespaces().filter_map(|namespace| full(facts, namespace)).collect()
}

fn full(facts: &Facts<'_>, namespace: NetnsFacts<'_>) -> Option<Finding> {
    let overflows = namespace.delta(OVERFLOWS);
    if overflows == 0 {
        return None;
    }
    // More than may wait: a queue takes one too many (`sk_acceptq_is_full`, include/net/sock.h).
    let somaxconn = namespace.setting(SOMAXCONN).and_then(|value| value.parse::<u64>().ok());
    let fullest = namespace.now.fullest_listener;
    let proved = fullest.filter(|fullest| somaxconn.is_some_and(|most| fullest.waiting > most));
    let port = proved.map(|listener| format!(" of port {}", listener.port)).unwrap_or_default();
    let title = format!(
        "accept queue{port} full in {}: connections refused {overflows} times",
        namespace.name()
    );
    let mut draft = Draft::new(
        facts,
        "accept_queue_full",
        Severity::Critical,
        port.trim_start_matches(" of "),
        title,
    )
    .at(namespace)
    .counted(OVERFLOWS, overflows, "netstat")
    .counted("TcpExt.ListenDrops", namespace.delta("TcpExt.ListenDrops"), "netstat");
    if let Some(Listener { port, .. }) = proved {
        draft = draft.names(Object::socket("tcp", Local::Port(port), None));
    }
    if let Some(Listener { port, waiting }) = fullest {
        let text = format!("port {port}: {waiting} connections wait");
        draft = draft.state("longest accept queue", text, "/proc/net/tcp");
    }
    let seen = facts.rows(&["TCP_LISTEN_OVERFLOW"], &[]);
    if !seen.is_empty() {
        draft = draft.explains(overflows.min(seen.count()), &seen);
    }
    draft = draft.setting(SOMAXCONN);
    let finding = match (proved, fullest, somaxconn) {
        (Some(_), ..) => look(draft.double(SOMAXCONN, LEAST, "")),
        // So few that the limit is the program's own, unless it has accepted the others meanwhile.
        (None, Some(Listener { port, waiting }), Some(most)) if waiting.saturating_mul(2) < most => draft.run(
            &format!("ss -tln sport = :{port}"),
            "Send-Q: how many may wait. Below somaxconn it is what the program asks listen() for: have it ask \
             for more, or call accept() sooner",
        ),
        // The limit may as well be the program's own, which asked listen() for less.
        (None, ..) => look(draft).double(SOMAXCONN, LEAST, "where Send-Q is as much as it is now"),
    };
    Some(finding.done())
}

fn look(draft: Draft<'_>) -> Draft<'_> {
    draft.run(
        "ss -tln",
        "Recv-Q: connections that wait, Send-Q: how many may; below somaxconn it is the program \
         that asks listen() for so few, or calls accept() too rarely",
    )
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    fn overflowing() -> TestHost {
        TestHost::new()
            .counted("TcpExt.ListenOverflows", 40)
            .counted("TcpExt.ListenDrops", 41)
            .setting(SOMAXCONN, "128")
    }

    #[test]
    fn refused_syns_are_found_without_any_drop() {
        let found = overflowing().run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.title, "accept queue full in gw: connections refused 40 times");
        assert_eq!(finding.severity, Severity::Critical);
        assert_eq!(finding.explains, None, "no drop event shows them");
        let commands: Vec<_> = finding.actions.iter().map(|a| a.command.as_str()).collect();
        assert_eq!(
            commands,
            ["ip netns exec gw ss -tln", "ip netns exec gw sysctl -w net.core.somaxconn=4096"]
        );
    }

    #[test]
    fn a_limit_above_the_usual_is_doubled() {
        let found = overflowing().setting(SOMAXCONN, "5000").run(&RULE);
        assert!(found[0].actions[1].command.ends_with("somaxconn=10000"));
    }

    #[test]
    fn last_acks_are_drops_where_the_kernel_says_why() {
        let found = overflowing().row(7, "tcp_v4_rcv", "TCP_LISTEN_OVERFLOW").run(&RULE);
        assert_eq!(found[0].explains.map(|e| e.drops), Some(7));
        let found = overflowing().row(70, "tcp_v4_rcv", "TCP_LISTEN_OVERFLOW").run(&RULE);
        assert_eq!(found[0].explains.map(|e| e.drops), Some(40), "no more than was counted");
    }

    #[test]
    fn a_queue_beyond_the_limit_is_named() {
        let at = |waiting| overflowing().listener(Listener { port: 80, waiting }).run(&RULE);
        let found = at(129);
        assert_eq!(
            found[0].title,
            "accept queue of port 80 full in gw: connections refused 40 times"
        );
        assert!(found[0].actions[0].command.ends_with("somaxconn=4096"), "that is the limit");
        let found = at(128);
        assert_eq!(found[0].title, "accept queue full in gw: connections refused 40 times");
        assert!(
            found[0].evidence.iter().any(|e| e.value == "port 80: 128 connections wait".into()),
            "it may be the program's own limit"
        );
    }

    #[test]
    fn a_short_backlog_is_the_programs_own() {
        let found = overflowing().listener(Listener { port: 80, waiting: 6 }).run(&RULE);
        let commands: Vec<_> = found[0].actions.iter().map(|it| it.command.as_str()).collect();
        assert_eq!(
            commands,
            ["ip netns exec gw ss -tln sport = :80"],
            "somaxconn is not what ends it"
        );
    }

    #[test]
    fn other_listen_drops_are_no_overflow() {
        assert_eq!(TestHost::new().counted("TcpExt.ListenDrops", 9).run(&RULE), []);
    }
}
