//! Filters by what the kernel notes of a packet, and by the flags of TCP, against the counters of rules
//! of iptables that match the same.

use dropwatch::report::model::UndecidedBy;
use testbed::{
    drops::{
        Cause,
        closed::{Closed, Transport},
        filter::Fragments,
        matched::{Counted, Hook, Matched},
        queue::Shaped,
        tap::Tap,
    },
    flood::Wire,
    machine::fewer,
    netns::Netns,
    udp::Family,
};

use crate::harness::{RECEIVE_PATH, Recording, Run, output, text};

/// Runs with each of these options, of drops in the namespace alone.
fn each<'a>(netns: &Netns, options: &[&'a str]) -> Vec<(&'a str, Run)> {
    let start = |options: &&'a str| {
        let words: Vec<&str> = options.split(' ').collect();
        (*options, Run::within(&[netns], &[&["--no-samples"], &words[..]].concat()))
    };
    options.iter().map(start).collect()
}

/// What filters could not decide but for the namespace: drops of others, of which nothing shows theirs, are
/// in none of this test's.
fn undecided(recording: &Recording) -> UndecidedBy {
    UndecidedBy { netns: 0, ..recording.end.filter_undecided_by }
}

/// What each has counted; all of them could be decided.
fn counted(runs: Vec<(&str, Run)>) -> Vec<u64> {
    let drops = |(options, run): (&str, Run)| {
        let recording = run.stop();
        assert_eq!(undecided(&recording).sum(), 0, "{options}: {recording:#?}");
        assert!(recording.start.filters.len() > 1, "{options}");
        recording.end.drops
    };
    runs.into_iter().map(drops).collect()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn lengths_are_those_that_rules_match() {
    let cause = Matched::new(Hook::Input, "udp", "-m length --length 100:200").unwrap();
    // On both sides of both ends, with 28 bytes of headers.
    let sizes = [0, 71, 72, 73, 171, 172, 173, 1_000];
    let options = ["--length 100-200", "--length !100-200", "--length 1028-", "--length 0-27"];
    let runs = each(cause.netns(), &options);
    for _ in 0..5 {
        cause.send_lengths(&sizes).unwrap();
    }
    let Counted { matching, others } = cause.counted().unwrap();
    assert_eq!((matching, others), (20, 20), "the rules have seen all");
    assert_eq!(counted(runs), [matching, others, 5, 0]);
}

/// What lies in a router's way has been received, what a socket of the host sends has not.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn marks_and_directions_are_those_of_the_rules() {
    for (hook, way) in [(Hook::Output, "out"), (Hook::Input, "in"), (Hook::Forward, "in")] {
        let cause = Matched::new(hook, "udp", "-m mark --mark 0x10/0xf0").unwrap();
        let both = format!("--mark 0x10/0xf0 --direction {way}");
        let [own, other] = [format!("--direction {way}"), format!("--direction !{way}")];
        let options = [
            "--mark 0x10/0xf0",
            "--mark !0x10/0xf0",
            "--mark 0x1f --mark 0x20",
            &both,
            &own,
            &other,
        ];
        let runs = each(cause.netns(), &options);
        cause.send_marks(&[0, 1, 0x10, 0x1f, 0x20, 0x110, 0xf0]).unwrap();
        let Counted { matching, others } = cause.counted().unwrap();
        // Marks stay in the namespace that they were given in.
        let (marked, two) = if hook == Hook::Output { (3, 2) } else { (0, 0) };
        assert_eq!((matching, matching + others), (marked, 7), "{hook:?}");
        assert_eq!(counted(runs), [matching, others, two, matching, 7, 0], "{hook:?}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn flags_are_those_that_rules_match() {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const PSH: u8 = 8;
    const ACK: u8 = 16;
    let flags = [0, SYN, SYN | ACK, ACK, RST, RST | ACK, FIN | ACK, SYN | FIN, PSH | ACK, 0xc2];
    for (matches, options, matched) in [
        ("--tcp-flags SYN,ACK SYN", "--tcp-flags syn/syn,ack", 3),
        ("--tcp-flags RST RST", "--tcp-flags rst", 2),
        ("--tcp-flags ALL NONE", "--tcp-flags none", 1),
        ("--tcp-flags FIN,SYN,RST,PSH,ACK,URG SYN", "--tcp-flags syn/fin,syn,rst,psh,ack,urg", 2),
    ] {
        let cause = Matched::new(Hook::Input, "tcp", matches).unwrap();
        let others = options.replace(' ', " !");
        let port = format!("{options} --port 9 --proto tcp");
        let elsewhere = format!("{options} --port 10");
        let runs = each(cause.netns(), &[options, &others, &port, &elsewhere]);
        cause.send_segments(&flags).unwrap();
        let rules = cause.counted().unwrap();
        assert_eq!((rules.matching, rules.others), (matched, 10 - matched), "{matches}");
        assert_eq!(counted(runs), [rules.matching, rules.others, rules.matching, 0], "{matches}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn attempts_of_both_families_have_the_flag_and_datagrams_have_none() {
    for (transport, family) in [
        (Transport::Tcp, Family::V4),
        (Transport::Tcp, Family::V6),
        (Transport::Udp, Family::V4),
        (Transport::Udp, Family::V6),
    ] {
        let cause = Closed::new(transport, family).unwrap();
        // What hosts tell each other of their groups has headers between those of IPv6 and ICMPv6.
        let (_, server) = cause.ends();
        let options = ["syn/syn,ack", "ack", "!ack"];
        let options = options.map(|flags| format!("--tcp-flags {flags} --host {server}"));
        let runs = each(cause.netns(), &options.each_ref().map(String::as_str));
        let sent = cause.send(20).unwrap();
        let with_syn = if transport == Transport::Tcp { sent } else { 0 };
        assert_eq!(counted(runs), [with_syn, 0, sent], "{transport:?} {family:?}");
    }
}

/// A driver that has handed a packet over, a queue of a device that is full, and a receiver that is in
/// another namespace than the sender.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn directions_below_ip() {
    let wire = Wire::new().unwrap();
    let runs = each(wire.receiver(), &["--direction in", "--direction out"]);
    let sent = wire.flood(fewer(100_000), None).unwrap();
    assert_eq!(counted(runs), [sent.accepted, 0]);

    let shaped = Shaped::new().unwrap();
    let options = ["--direction out", "--direction in", "--proto udp"];
    let runs = each(shaped.netns(), &options);
    // More than the queue holds, on any machine.
    shaped.send(500).unwrap();
    let counted = counted(runs);
    assert!(counted[0] > 0, "the queue was full");
    assert_eq!(counted, [counted[0], 0, counted[0]]);
}

/// A tap takes a packet from its socket before it finds that there is no room.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn directions_that_nothing_shows_are_undecided() {
    let tap = Tap::unread().unwrap();
    let all = Run::within(&[tap.netns()], &["--proto", "udp"]);
    let known = Run::within(&[tap.netns()], &["--proto", "udp", "--direction", "in"]);
    let groups = Run::within(&[tap.netns()], &["--proto", "udp", "--by", "direction"]);
    tap.send(100).unwrap();
    let dropped = all.stop().end.drops;
    assert!(dropped > 0, "the tap has no room");
    let known = known.stop();
    let undecided = undecided(&known);
    assert_eq!((known.end.drops, undecided.direction, undecided.sum()), (0, dropped, dropped));
    let groups = groups.stop();
    assert_eq!(groups.groups().map(|groups| groups.unknown).sum::<u64>(), dropped, "{groups:#?}");
}

/// Drops of one direction, by the groups of a run.
fn grouped(recording: &Recording, way: &str) -> u64 {
    recording.grouped(|row| row.direction.as_deref() == Some(way))
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn groups_by_direction_are_exact() {
    let sent = Matched::new(Hook::Output, "udp", "-m mark --mark 1").unwrap();
    let received = Closed::new(Transport::Udp, Family::V4).unwrap();
    let netns = [sent.netns(), received.netns()];
    let by_direction = Run::within(&netns, &["--by", "direction"]);
    let by_all = Run::within(&netns, &["--by", "netns,protocol,direction,cpu"]);
    sent.send_marks(&[1; 30]).unwrap();
    let received = received.send(50).unwrap();
    let rules = sent.counted().unwrap();
    for recording in [by_direction.stop(), by_all.stop()] {
        assert_eq!(grouped(&recording, "out"), rules.matching, "{recording:#?}");
        assert_eq!(grouped(&recording, "in"), received, "{recording:#?}");
        assert_eq!(recording.end.drops, rules.matching + received);
    }
}

/// What is undecided is counted by the first filter that was.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn undecided_drops_are_counted_by_filter() {
    let cause = Fragments::new().unwrap();
    let runs = ["--port 9", "--tcp-flags !syn --port 9", "--tcp-flags syn", "--filter udp[200]=0"]
        .map(|options| {
            let words: Vec<&str> = options.split(' ').collect();
            Run::within(&[cause.netns()], &words)
        });
    let sent = cause.send(10 * Fragments::EACH).unwrap();
    let [by_port, by_both, by_flags, by_expression] = runs.map(Run::stop);
    for recording in [&by_port, &by_both] {
        let by = undecided(recording);
        assert_eq!((by.port, by.sum()), (sent - 10, by.port), "{recording:#?}");
        assert!(recording.undecided() >= recording.end.filter_undecided_by.sum());
        let reports = recording.reports.iter().map(|report| report.filter_undecided_by.port);
        assert_eq!(reports.sum::<u64>(), by.port);
    }
    // They are of UDP, which no fragment hides.
    assert_eq!((by_flags.end.drops, undecided(&by_flags).sum()), (0, 0), "{by_flags:#?}");
    assert_eq!(undecided(&by_expression).sum(), 0, "{by_expression:#?}");
}

/// With expressions, samples of each drop, and lines of each.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn beside_all_that_looks_at_packets() {
    let cause = Matched::new(Hook::Input, "udp", "-m length --length 100:200").unwrap();
    let filters =
        ["--length", "100-200", "--mark", "0", "--direction", "in", "--tcp-flags", "!syn"];
    let run = |more: &[&str]| Run::within(&[cause.netns()], &[&filters[..], more].concat());
    let sampled = run(&["--every", "--samples", "--filter", "udp dst port 9 and len > 100"]);
    let grouped = run(&["--by", "iface,direction", "--port", "9", "--host", "198.18.0.0/15"]);
    cause.send_lengths(&[50, 100, 100, 150, 300]).unwrap();
    let Counted { matching, .. } = cause.counted().unwrap();
    let sampled = sampled.stop();
    assert_eq!((sampled.end.drops, sampled.samples.len() as u64), (matching, matching));
    assert!(sampled.samples.iter().all(|sample| (100..=200).contains(&sample.length)));
    let grouped = grouped.stop();
    assert_eq!(self::grouped(&grouped, "in"), matching, "{grouped:#?}");
    assert_eq!(grouped.count(RECEIVE_PATH), 0);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_can_match_nothing_is_refused() {
    for (args, why) in [
        (&["--mark", "0x11/0x10"][..], "outside of the mask"),
        (&["--tcp-flags", "syn,ack/syn"], "not among the flags behind the slash"),
        (&["--tcp-flags", "syn", "--proto", "udp"], "--proto udp --tcp-flags syn"),
        (&["--length", "200-100"], "a range such as"),
        (&["--length", "9", "--length", "!0-"], "--length 9 --length !0-"),
        (&["--direction", "sideways"], "not `in`"),
        (&["--direction", "!in", "--direction", "!out"], "--direction !in --direction !out"),
        (&["--mark", "7", "--mark", "!0/0"], "--mark"),
    ] {
        let refused = output(&[&["-d", "1s"], args].concat());
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        let stderr = text(&refused.stderr);
        assert!(stderr.contains(why), "{args:?}: {stderr}");
    }
}
