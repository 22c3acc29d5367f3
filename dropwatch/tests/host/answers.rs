//! What rules ask about a sampled packet, on real routes: the answer confirms a finding, or refutes it.

use dropwatch::report::finding::Finding;
use testbed::{
    drops::{
        Cause,
        network::{CLIENT, SERVER},
        routing::{BEYOND, NoRoute},
    },
    netns::Netns,
};

use crate::{harness::Run, reach::LONG};

const PACKETS: u64 = 50;

/// Packets that the router counted as without a route.
fn unrouted(router: &Netns) -> u64 {
    let page = router.proc_net("netstat").unwrap();
    let mut lines = page.lines().filter(|line| line.starts_with("IpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut columns = names.split_whitespace().zip(values.split_whitespace());
    columns.find(|(name, _)| *name == "InNoRoutes").unwrap().1.parse().unwrap()
}

/// What is found about routes when packets beyond the server are refused, which `meanwhile` follows.
fn found(cause: &NoRoute, meanwhile: impl FnOnce(&Netns)) -> Vec<Finding> {
    let run = Run::within(&[cause.netns()], &["-i", LONG]);
    let before = unrouted(cause.netns());
    assert_eq!(cause.send(PACKETS).unwrap(), PACKETS);
    assert_eq!(unrouted(cause.netns()) - before, PACKETS, "the kernel counts each");
    meanwhile(cause.netns());
    let recording = run.stop();
    assert!(recording.end.drops >= PACKETS, "{recording:?}");
    let findings = recording.reports.into_iter().flat_map(|report| report.findings);
    findings.filter(|finding| finding.rule == "no_route").collect()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_route_that_is_missing_is_confirmed() {
    let cause = NoRoute::new().unwrap();
    let findings = found(&cause, |_| {});
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    let says = format!("has no route to {BEYOND} for {PACKETS} packets that it should forward");
    assert!(finding.title.ends_with(&says), "{finding:?}");
}

/// There is a route, and a rule that refuses what comes from the client: the kernel counts the same.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_routing_rule_that_refuses_is_no_missing_route() {
    let cause = NoRoute::new().unwrap();
    let router = cause.netns();
    router.ip(&format!("route add {BEYOND}/32 via {SERVER}")).unwrap();
    router.ip(&format!("rule add from {CLIENT} to {BEYOND} unreachable")).unwrap();
    assert_eq!(found(&cause, |_| {}), []);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_route_that_came_back_is_not_called_missing() {
    let cause = NoRoute::new().unwrap();
    let findings = found(&cause, |router| {
        router.ip(&format!("route add {BEYOND}/32 via {SERVER}")).unwrap();
    });
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    let says = format!("had no route to {BEYOND}, and has one again, for {PACKETS} packets");
    assert!(finding.title.contains(&says), "{finding:?}");
}
