//! New connections are refused because too many handshakes of a listening socket are half done,
//! and SYN cookies are off.
//!
//! At as many half-open connections as the socket's backlog, SYNs are ignored and counted as
//! `TCPReqQFullDrop`; already from three quarters of `tcp_max_syn_backlog` on those of peers not
//! known yet, counted as `ListenDrops` alone (`tcp_conn_request` and `tcp_syn_flood_action`,
//! net/ipv4/tcp_input.c). With cookies neither happens. No drop event shows these SYNs.

use super::{Draft, Facts, LEAST_DROPS, Makes, Rule};
use crate::{
    diagnose::facts::NetnsFacts,
    report::finding::{Finding, Severity},
};

const COOKIES: &str = "net.ipv4.tcp_syncookies";
const BACKLOG: &str = "net.ipv4.tcp_max_syn_backlog";

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "syn_queue_full",
        severity: "critical",
        says: "handshakes find no room; no drop event",
        rests_on: "`TCPReqQFullDrop`, `ListenDrops`",
    }],
    counters: &[
        "Ip.OutNoRoutes",
        "TcpExt.ListenDrops",
        "TcpExt.TCPReqQFullDrop",
        "TcpExt.ListenOverflows",
    ],
    settings: &["net.ipv4.tcp_max_syn_backlog", "net.ipv4.tcp_syncookies"],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    facts.namespaces().filter_map(|namespace| full(facts, namespace)).collect()
}

fn full(facts: &Facts<'_>, namespace: NetnsFacts<'_>) -> Option<Finding> {
    let full = namespace.delta("TcpExt.TCPReqQFullDrop");
    let early = early(&namespace, full);
    let refused = full + early;
    if refused == 0 {
        return None;
    }
    let title = format!(
        "SYN queue full in {} and SYN cookies off: {refused} SYNs refused",
        namespace.name()
    );
    let finding = Draft::new(facts, "syn_queue_full", Severity::Critical, "", title)
        .at(namespace)
        .counted_too("TcpExt.TCPReqQFullDrop", full, "netstat")
        .counted("TcpExt.ListenDrops", namespace.delta("TcpExt.ListenDrops"), "netstat")
        .setting(COOKIES)
        .setting(BACKLOG)
        .set(COOKIES, 1, "")
        .double(BACKLOG, 0, "the program's own backlog (listen(), somaxconn) counts as well")
        .run("ss -tn state syn-recv", "who leaves handshakes half done: many sources are a flood");
    Some(finding.done())
}

/// SYNs refused to keep the last quarter free. `ListenDrops` counts whatever else ends a handshake,
/// too: an overflow, no route back; the rest of those is rare.
fn early(namespace: &NetnsFacts<'_>, full: u64) -> u64 {
    if namespace.setting(COOKIES) != Some("0") {
        return 0;
    }
    let others =
        full + namespace.delta("TcpExt.ListenOverflows") + namespace.delta("Ip.OutNoRoutes");
    let rest = namespace.delta("TcpExt.ListenDrops").saturating_sub(others);
    if rest >= LEAST_DROPS { rest } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    fn host(cookies: &str) -> TestHost {
        TestHost::new().setting(COOKIES, cookies).setting(BACKLOG, "128")
    }

    #[test]
    fn a_full_queue_without_cookies_is_found_without_any_drop() {
        let host = host("0").counted("TcpExt.TCPReqQFullDrop", 40);
        let found = host.counted("TcpExt.ListenDrops", 40).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.title, "SYN queue full in gw and SYN cookies off: 40 SYNs refused");
        assert_eq!(finding.severity, Severity::Critical);
        assert_eq!(finding.explains, None);
        let commands: Vec<_> = finding.actions.iter().map(|a| a.command.as_str()).collect();
        assert_eq!(
            commands,
            [
                "ip netns exec gw sysctl -w net.ipv4.tcp_syncookies=1",
                "ip netns exec gw sysctl -w net.ipv4.tcp_max_syn_backlog=256",
                "ip netns exec gw ss -tn state syn-recv"
            ]
        );
    }

    #[test]
    fn the_last_quarter_is_kept_free_without_cookies_alone() {
        let early = |cookies| host(cookies).counted("TcpExt.ListenDrops", 30).run(&RULE);
        assert!(early("0")[0].title.ends_with("30 SYNs refused"));
        assert_eq!(early("1"), []);
    }

    #[test]
    fn what_else_ends_a_handshake_is_no_full_queue() {
        let host = |drops| {
            host("0")
                .counted("TcpExt.ListenDrops", drops)
                .counted("TcpExt.ListenOverflows", 20)
                .counted("Ip.OutNoRoutes", 10)
        };
        assert_eq!(host(30).run(&RULE), []);
        assert_eq!(host(32).run(&RULE), [], "out of memory now and then");
        assert_eq!(host(33).run(&RULE).len(), 1);
    }
}
