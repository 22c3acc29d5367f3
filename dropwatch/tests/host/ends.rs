//! What findings explain over a run of many short reports: all of it, and nothing twice.
//!
//! Counters of the host are read a moment behind those of drops, so at the end of each interval some
//! packets are in one of them alone. The test floods while ten reports a second are made, and compares
//! each report's findings with its rows, and their sums with the counters at the end.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    thread::sleep,
    time::{Duration, Instant},
};

use dropwatch::report::model::Report;
use testbed::{command::output, machine::longer, netns::Netns};

use crate::harness::{Recording, Run, UDP4, is_at, wait_until};

const FILTERED: u16 = 6002;
const FULL: u16 = 6003;
const CLOSED: u16 = 6004;
/// What rules count is read once counting has begun, in the background.
const FIRST_READING: Duration = Duration::from_secs(1);
const FLOOD: Duration = Duration::from_secs(4);
/// Fewer drops than this in a report are not worth a finding that rests on drops.
const LEAST: u64 = 3;

/// Functions that free what a socket has no room for; which one is a matter of inlining.
const NO_ROOM: &[(&str, &str)] = &[
    ("udp_queue_rcv_one_skb", "SOCKET_RCVBUFF"),
    ("__udp_queue_rcv_skb", "SOCKET_RCVBUFF"),
    ("__udp_enqueue_schedule_skb", "SOCKET_RCVBUFF"),
];

/// A cause, its finding, its rows, and the least of its drops that make a finding.
type Cause = (&'static str, &'static [(&'static str, &'static str)], u64);

const CAUSES: [Cause; 3] = [
    ("netfilter_rule", &[("nf_hook_slow", "NETFILTER_DROP")], LEAST),
    ("udp_receive_buffer", NO_ROOM, 1),
    ("closed_port", UDP4, LEAST),
];

/// Datagrams to the three ports in turn, for as long as the flood lasts; how many of them each got.
fn flood(netns: &Netns) -> u64 {
    let sent = netns.enter(|| {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (begin, mut sent) = (Instant::now(), 0);
        while begin.elapsed() < longer(FLOOD) {
            for port in [FILTERED, FULL, CLOSED] {
                let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
                // What a rule of the sender's own side refuses, it would learn here.
                socket.send_to(b"dropped", to)?;
            }
            sent += 1;
            // The queue of a CPU has room for a thousand, and others have work to do, too.
            if sent % 20 == 0 {
                sleep(Duration::from_millis(5));
            }
        }
        Ok(sent)
    });
    sent.unwrap()
}

/// The value of a counter in `/proc/net/snmp` of a namespace.
fn snmp(netns: &Netns, group: &str, name: &str) -> u64 {
    let text = output(netns.command("cat").arg("/proc/net/snmp")).unwrap();
    let prefix = format!("{group}:");
    let mut lines = text.lines().filter(|line| line.starts_with(&prefix));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split_whitespace().position(|it| it == name).unwrap();
    values.split_whitespace().nth(at).unwrap().parse().unwrap()
}

/// Packets that the only rule of a namespace has dropped.
fn filtered(netns: &Netns) -> u64 {
    let listed = output(netns.command("iptables-legacy").args(["-w", "-nvxL", "INPUT", "1"]));
    listed.unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

fn rows(report: &Report, places: &[(&str, &str)]) -> u64 {
    report.locations.iter().filter(|row| is_at(row, places)).map(|row| row.count).sum()
}

/// What findings of a rule explain in a report; `None` where there are none.
fn explained(report: &Report, rule: &str) -> Option<u64> {
    let found: Vec<u64> = report
        .findings
        .iter()
        .filter(|it| it.rule == rule)
        .map(|it| it.explains.unwrap().drops)
        .collect();
    (!found.is_empty()).then(|| found.iter().sum())
}

/// Each report's findings explain its rows, and all together `counted`.
fn assert_all_explained(recording: &Recording, counted: [u64; 3]) {
    for ((rule, places, least), counted) in CAUSES.into_iter().zip(counted) {
        let (mut sum, mut few) = (0, 0);
        for report in &recording.reports {
            let rows = rows(report, places);
            match explained(report, rule) {
                Some(explained) => {
                    assert_eq!(explained, rows, "{rule} in report {}", report.seq);
                    sum += explained;
                }
                None => {
                    assert!(rows < least, "{rows} drops without {rule} in report {}", report.seq);
                    few += rows;
                }
            }
        }
        println!("{rule}: {sum} drops explained, {few} too few for a finding, {counted} counted");
        assert_eq!(sum + few, counted, "{rule}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn over_many_short_reports_findings_explain_what_the_counters_say() {
    let netns = Netns::new("ends").unwrap();
    netns.ip("link set lo up").unwrap();
    let rule = format!("-w -A INPUT -p udp --dport {FILTERED} -j DROP");
    output(netns.command("iptables-legacy").args(rule.split(' '))).unwrap();
    // Nobody reads from it.
    let full = netns.enter(|| Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, FULL))?)).unwrap();

    let run = Run::within(&[&netns], &["-i", "100ms"]);
    sleep(longer(FIRST_READING));
    let sent = flood(&netns);
    let arrived = || filtered(&netns) == sent && snmp(&netns, "Udp", "NoPorts") == sent;
    wait_until(longer(Duration::from_secs(10)), "all have arrived", arrived);
    let recording = run.stop();
    drop(full);

    let no_room = snmp(&netns, "Udp", "RcvbufErrors");
    assert!(no_room > sent / 2, "{no_room} of {sent} found no room");
    assert!(recording.reports.len() > 4, "{} reports", recording.reports.len());
    assert_all_explained(&recording, [filtered(&netns), no_room, snmp(&netns, "Udp", "NoPorts")]);
}
