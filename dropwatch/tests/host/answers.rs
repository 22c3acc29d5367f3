//! What rules ask about a sampled packet, on real routes: the answer confirms a finding, or refutes it.

use std::{collections::BTreeSet, process::Command};

use dropwatch::report::finding::{Finding, Value};
use testbed::{
    counters,
    drops::{
        Cause, PORT,
        bound::{Bound, JoinedElsewhere, Multihomed},
        network::{CLIENT, LINK, SERVER},
        queue::Shaped,
        receive_buffer::FullSocket,
        refusing::{By, Moved, Refusing},
        routing::{BEYOND, NoRoute, NoRouter},
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

/// The only finding about the packets of `cause`, whose commands show something.
fn finding(cause: &impl Cause) -> Finding {
    let run = Run::within(&[cause.netns()], &["-i", LONG]);
    assert_eq!(cause.send(PACKETS).unwrap(), PACKETS);
    let recording = run.stop();
    let mut findings: Vec<_> = recording.reports.into_iter().flat_map(|it| it.findings).collect();
    assert_eq!(findings.len(), 1, "{findings:#?}");
    let finding = findings.remove(0);
    assert_eq!(finding.explains.map(|it| it.drops), Some(PACKETS), "{finding:#?}");
    finding
}

/// What a shell makes of the first command of a finding, as printed.
fn shown(finding: &Finding) -> String {
    command(&finding.actions.first().expect("a command").command)
}

/// What a shell makes of a command.
fn command(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The same address without the mark is reached, which a question without the mark would be about.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_mark_that_leads_to_a_blackhole_is_part_of_the_question() {
    let cause = Refusing::new(By::Mark(true)).unwrap();
    let run = Run::within(&[cause.netns()], &["-i", LONG, "--samples"]);
    assert_eq!(cause.send(PACKETS).unwrap(), PACKETS);
    assert_eq!(cause.send_unmarked(PACKETS).unwrap(), PACKETS);
    assert_eq!(cause.received().unwrap(), PACKETS, "those without a mark are sent on");
    let recording = run.stop();
    let marks: BTreeSet<u32> = recording.samples.iter().map(|sample| sample.mark).collect();
    assert_eq!(marks, [Refusing::MARK].into());
    let mut findings = recording.reports.into_iter().flat_map(|report| report.findings);
    let (finding, name) = (findings.next().expect("a finding"), cause.netns().name());
    assert_eq!(findings.next(), None);
    assert_eq!(finding.explains.map(|it| it.drops), Some(PACKETS), "{finding:#?}");
    let (mark, table, rule) = (Refusing::MARK, Refusing::TABLE, Refusing::PREFERENCE);
    let says = format!(
        "{PACKETS} packets to {BEYOND} with mark {mark:#x} refused in {name} by a route of type \
         blackhole: 0.0.0.0/0 in table {table}, by routing rule {rule}"
    );
    assert_eq!(finding.title, says);
    assert!(shown(&finding).starts_with("blackhole default"), "{finding:#?}");
    let rule = command(&finding.actions[1].command);
    assert!(rule.contains(&format!("fwmark {mark:#x} lookup {table}")), "{rule}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_refuses_is_named_and_shown() {
    for kind in ["blackhole", "prohibit", "unreachable"] {
        let cause = Refusing::new(By::Route(kind)).unwrap();
        let finding = finding(&cause);
        let name = cause.netns().name();
        let says = format!(
            "{PACKETS} packets to {BEYOND} refused in {name} by a route of type {kind}: {BEYOND}/32 in \
             table main"
        );
        assert_eq!(finding.title, says);
        let shown = shown(&finding);
        assert!(shown.starts_with(&format!("{kind} {BEYOND}")), "{shown}");
    }
    let cause = Refusing::new(By::Rule("blackhole")).unwrap();
    let finding = finding(&cause);
    assert!(finding.title.ends_with("by routing rule 100: blackhole"), "{finding:#?}");
    let shown = shown(&finding);
    assert!(shown.contains(&format!("{BEYOND} blackhole")), "{shown}");
}

/// The longest prefix counts, in the table that a rule leads to.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_table_of_its_own_is_named_by_its_number() {
    let cause = Refusing::new(By::Nothing).unwrap();
    let router = cause.netns();
    router.ip("route add prohibit 203.0.113.0/24 table 1000").unwrap();
    router.ip("route add throw 203.0.113.8/30 table 1000").unwrap();
    router.ip(&format!("rule add from {CLIENT} lookup 1000 pref 50")).unwrap();
    router.ip("route add prohibit 203.0.113.8/31 table 1000").unwrap();
    let finding = finding(&cause);
    let says = "by a route of type prohibit: 203.0.113.8/31 in table 1000, by routing rule 50";
    assert!(finding.title.ends_with(says), "{finding:#?}");
    assert!(shown(&finding).starts_with("prohibit 203.0.113.8/31"), "{finding:#?}");
}

/// A routing rule may look at ports: of two routes that refuse, only one is met by these packets.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_port_that_leads_to_a_table_is_part_of_the_question() {
    for selector in [format!("ipproto udp dport {PORT}"), format!("to {BEYOND} ipproto udp")] {
        let cause = Refusing::new(By::Route("unreachable")).unwrap();
        let router = cause.netns();
        router.ip("route add prohibit default table 1000").unwrap();
        router.ip(&format!("rule add {selector} lookup 1000 pref 50")).unwrap();
        router.ip(&format!("rule add ipproto tcp dport {PORT} lookup 1001 pref 40")).unwrap();
        router.ip(&format!("rule add iif lo to {BEYOND} lookup 1001 pref 45")).unwrap();
        router.ip("route add blackhole default table 1001").unwrap();
        let finding = finding(&cause);
        let says = "by a route of type prohibit: 0.0.0.0/0 in table 1000, by routing rule 50";
        assert!(finding.title.ends_with(says), "{selector}: {finding:#?}");
        let rule = command(&finding.actions[1].command);
        assert!(rule.contains("lookup 1000"), "{rule}");
    }
}

/// What samples do not show may decide: then no route is blamed.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_rule_by_the_type_of_service_makes_it_unsure_which_route_refuses() {
    let cause = Refusing::new(By::Route("unreachable")).unwrap();
    let router = cause.netns();
    router.ip("rule add tos 0x10 lookup 1000 pref 50").unwrap();
    router.ip("route add prohibit default table 1000").unwrap();
    let run = Run::within(&[router], &["-i", LONG]);
    assert_eq!(cause.send(PACKETS).unwrap(), PACKETS);
    let recording = run.stop();
    assert!(recording.end.drops >= PACKETS, "{recording:?}");
    let mut findings = recording.reports.iter().flat_map(|report| &report.findings);
    assert_eq!(findings.next(), None);
}

/// No switch brings back what has moved away.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_address_that_moved_is_no_reason_to_forward() {
    let cause = Moved::new().unwrap();
    let before = counters::snmp(cause.netns(), "Ip", "InAddrErrors").unwrap();
    let finding = finding(&cause);
    let after = counters::snmp(cause.netns(), "Ip", "InAddrErrors").unwrap();
    assert_eq!(after - before, PACKETS);
    assert_eq!(finding.rule, "address_elsewhere");
    assert!(finding.actions.iter().all(|it| !it.command.contains("forward")), "{finding:#?}");
    assert!(shown(&finding).contains(&format!("{} dev {LINK}", Moved::ADDRESS)));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_switch_of_a_device_is_the_one_to_turn() {
    let cause = NoRouter::new().unwrap();
    let server = cause.netns();
    server.sysctl("net/ipv4/ip_forward", "1").unwrap();
    server.sysctl(&format!("net/ipv4/conf/{LINK}/forwarding"), "0").unwrap();
    let finding = finding(&cause);
    assert_eq!(finding.rule, "forwarding_disabled");
    let command = &finding.actions[0].command;
    assert!(command.ends_with(&format!("sysctl -w net/ipv4/conf/{LINK}/forwarding=1")));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_socket_that_has_the_port_is_named() {
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
    let comm = comm.trim();
    let loopback = Bound::to_loopback().unwrap();
    let before = counters::snmp(loopback.netns(), "Udp", "NoPorts").unwrap();
    let found = finding(&loopback);
    let after = counters::snmp(loopback.netns(), "Udp", "NoPorts").unwrap();
    assert_eq!(after - before, PACKETS);
    let says = format!(", but {comm} listens at 127.0.0.1 alone: {PACKETS} packets refused");
    assert!(found.title.ends_with(&says), "{found:#?}");
    assert!(shown(&found).contains("127.0.0.1:"), "{found:#?}");
    drop(loopback);
    // The client sends from another port than the one that the socket is connected to.
    let peer = (CLIENT, 1).into();
    let connected = Bound::new(SERVER, Some(peer)).unwrap();
    let found = finding(&connected);
    assert!(found.title.contains(&format!("{comm} is connected to {peer} alone")), "{found:#?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn answers_from_another_address_are_told_from_closed_ports() {
    let server = Multihomed::new().unwrap();
    let run = Run::within(&[server.netns()], &["-i", "300ms"]);
    assert_eq!(server.ask(60).unwrap(), 0);
    let recording = run.stop();
    let findings = recording.reports.iter().flat_map(|report| &report.findings);
    let asked = format!("which had asked {}", Multihomed::ASKED);
    let says = |it: &&Finding| it.title.contains(&format!("answers from {SERVER} port "));
    assert!(findings.clone().filter(says).any(|it| it.title.ends_with(&asked)), "{recording:#?}");
    // Without a socket that is seen to wait, it is a closed port, and nothing more.
    assert!(findings.clone().all(|it| it.rule == "closed_port"), "{recording:#?}");
}

/// No setting of the host changes what a program has set.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_buffer_that_a_program_sets_is_told_from_the_hosts() {
    let cause = FullSocket::new().unwrap();
    let finding = finding(&cause);
    assert_eq!(finding.rule, "udp_receive_buffer");
    let buffer = finding.evidence.iter().find(|it| it.name == "receive buffer");
    let shown = shown(&finding);
    let Some(buffer) = buffer else {
        return testbed::unproved::unproved("the kernel would load a module to show buffers");
    };
    let Value::Number(buffer) = buffer.value else { panic!("{finding:#?}") };
    assert!(shown.contains(&format!(",rb{buffer},")), "{shown} {finding:#?}");
    assert_eq!(finding.actions.len(), 1, "{finding:#?}");
}

/// Who counts the drops of a class is the root; who has the limit is the queue of the class.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_queue_of_a_class_holds_what_its_command_says() {
    const BURST: u64 = 200;
    for queue in [Some("pfifo limit 5"), Some("bfifo limit 500"), None] {
        let cause = Shaped::in_class(queue).unwrap();
        let run = Run::within(&[cause.netns()], &["-i", LONG]);
        cause.send(BURST).unwrap();
        let dropped = cause.dropped().unwrap();
        assert!(dropped > BURST / 2, "{dropped}");
        let recording = run.stop();
        let findings = recording.reports.iter().flat_map(|report| &report.findings);
        let found: Vec<_> = findings.filter(|it| it.rule == "qdisc_drop").collect();
        let [finding] = found[..] else { panic!("{found:#?}") };
        assert!(!shown(finding).is_empty());
        command(&finding.actions.last().unwrap().command);
        cause.send(BURST).unwrap();
        // The burst had some luck at first: what the class may send at once is not counted on again.
        let again = cause.dropped().unwrap().saturating_sub(dropped);
        assert!(again < dropped / 4, "{again} after {dropped}: {finding:#?}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_interface_of_a_membership_is_named() {
    let cause = JoinedElsewhere::new().unwrap();
    let finding = finding(&cause);
    let says = format!(
        ": the group is joined on {}, and they come in by {LINK}",
        JoinedElsewhere::ELSEWHERE
    );
    assert!(finding.title.ends_with(&says), "{finding:#?}");
    assert!(shown(&finding).contains(LINK), "{finding:#?}");
    assert_eq!(cause.received().unwrap(), 0);
}
