//! `--every` and `--each`: not one drop goes unseen, or it is counted as not seen.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::UdpSocket,
    ops::Range,
    process::{Child, ChildStderr, Stdio},
    thread,
    time::{Duration, Instant},
};

use dropwatch::report::{
    facts::{Context, Details},
    model::{Line, Sampled},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testbed::{
    command::{die_with_parent, output},
    flood::Wire,
    folder::Folder,
    link,
    machine::{fewer, longer},
    netns::Netns,
    udp::{ClosedPort, Family},
    unproved::unproved,
};

use crate::{
    capture::Scratch,
    captured::packets,
    harness::{
        ETHERTYPE, RECEIVE_PATH, Recording, Run, UDP4, decoded, dropwatch, has_reasons, wait_until,
        within,
    },
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A run that shows drops, which has attached.
struct Shown {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

/// What such a run has written.
struct Written {
    code: Option<i32>,
    lines: Vec<String>,
    /// Its last message.
    sum: String,
}

impl Shown {
    fn start(netns: &[&Netns], args: &[&str]) -> Self {
        let mut command = dropwatch(&["--each"]);
        command.args(within(netns)).args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Else lines are of ASCII.
        command.env("LC_ALL", "C.UTF-8");
        die_with_parent(&mut command);
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        // Comes once it has attached.
        while !line.contains("every drop is sampled") {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended before it had attached");
        }
        Self { child, stderr }
    }

    fn stop(self) -> Written {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
        self.finish()
    }

    fn finish(mut self) -> Written {
        let mut out = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        let mut messages = String::new();
        self.stderr.read_to_string(&mut messages).unwrap();
        Written {
            code: self.child.wait().unwrap().code(),
            lines: out.lines().map(str::to_owned).collect(),
            sum: messages.lines().last().unwrap_or_default().to_owned(),
        }
    }
}

impl Written {
    /// Its lines as objects, each checked against the schema.
    fn samples(&self) -> Vec<Sampled> {
        let sample = |line| match line {
            Line::Sample(sample) => *sample,
            other => panic!("no drop: {other:?}"),
        };
        decoded(self.lines.iter().map(String::as_str)).into_iter().map(sample).collect()
    }
}

/// Sends a datagram to each of the closed ports, from one socket, and returns its own port.
fn send(netns: &Netns, ports: Range<u16>) -> u16 {
    let sent = netns.enter(|| {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        for port in ports.clone() {
            socket.send_to(b"nobody listens", ("127.0.0.1", port))?;
        }
        Ok(socket.local_addr()?.port())
    });
    sent.unwrap()
}

/// Without, the first 16 of an interval are kept whole, then ever fewer.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn every_drop_is_a_packet() {
    const SENT: u64 = 200;
    let closed = ClosedPort::new().unwrap();
    let file = Scratch::new("every.pcapng");
    // Long after the test has ended: the packets are not those of a report.
    let run = Run::within(&[closed.netns()], &["--every", "--pcap", file.path(), "-i", "1h"]);
    closed.send(Family::V4, SENT).unwrap();
    let discarded =
        |file: &[u8]| packets(file).iter().filter(|packet| packet.to.port() == 9).count() as u64;
    let written = || fs::metadata(file.path()).unwrap().len();
    wait_until(longer(PATIENCE), "packets come before the report", || written() > SENT * 40);
    let recording = run.stop();
    assert_eq!(recording.count(UDP4), SENT);
    assert_eq!((recording.lost().unsampled, recording.lost().samples), (0, 0));
    assert_eq!(discarded(&file.read()), SENT);
    let rows: Vec<_> = recording.locations().filter_map(|row| row.details.as_ref()).collect();
    let sum = |of: fn(&Details) -> u64| rows.iter().map(|details| of(details)).sum::<u64>();
    assert_eq!((sum(|it| it.samples), sum(|it| it.weight)), (SENT, SENT));
    assert!(recording.start.notices.iter().any(|it| it.contains("at most 10000 a second")));
}

/// Every line is what was sent, in its order, as it happens and into a pipe.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn each_drop_is_a_line_in_order() {
    let netns = Netns::new("each").unwrap();
    let folder = Folder::new("each-in-order").unwrap();
    let record = folder.file("reports.ndjson");
    // No report comes meanwhile.
    let options = ["-i", "1h", "-o", record.to_str().unwrap()];
    let mut run = Shown::start(&[&netns], &options);
    let ports = 9000..9100_u16;
    let from = send(&netns, ports.clone());
    let mut out = BufReader::new(run.child.stdout.take().unwrap());
    let begun = Instant::now();
    for port in ports {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let (clock, rest) = line.trim_end().split_once("  ").unwrap();
        assert!(clock.len() == "07:35:06.204518".len(), "{line}");
        let mut facts = rest.split(" · ");
        let place = facts.next().unwrap();
        let function = place.split(['.', '+']).next().unwrap();
        assert!(UDP4.iter().any(|(name, _)| *name == function), "{line}");
        assert_eq!(place.ends_with(" (NO_SOCKET)"), has_reasons(), "{line}");
        let flow = format!("udp 127.0.0.1:{from} → 127.0.0.1:{port}");
        let facts: Vec<&str> = facts.collect();
        assert_eq!(facts[..3], [netns.name(), "lo", flow.as_str()], "{line}");
        let task = facts[3].strip_prefix("on CPU: ").or(facts[3].strip_prefix("by "));
        assert!(task.is_some_and(|task| !task.is_empty()), "{line}");
        assert_eq!(facts.len(), 4, "{line}");
    }
    assert!(begun.elapsed() < longer(PATIENCE), "lines wait for something");
    run.child.stdout = Some(out.into_inner());
    let written = run.stop();
    assert_eq!(written.code, Some(0));
    assert_eq!(written.lines, [""; 0], "another line");
    // Of others' drops, some may leave the filter undecided.
    let sum = written.sum.split(", none lost").next().unwrap();
    assert!(sum.ends_with(": 100 shown") && sum != written.sum, "{}", written.sum);
    assert!(written.sum.contains(" 100 drops in "), "{}", written.sum);
}

/// `-c` counts drops, as for tcpdump.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_run_ends_after_as_many_drops_as_asked_for() {
    let closed = ClosedPort::new().unwrap();
    let run = Shown::start(&[closed.netns()], &["-c", "7", "--json"]);
    closed.send(Family::V4, 20).unwrap();
    let written = run.finish();
    assert_eq!(written.code, Some(0));
    assert_eq!(written.samples().len(), 7);
    assert!(written.sum.contains(" 20 drops in "), "{}", written.sum);
    assert!(written.sum.contains(": 7 shown"), "{}", written.sum);
}

/// Above the rate, what is shown and what is said to be not sampled are all that was dropped.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_a_flood_leaves_out_is_counted() {
    let wire = Wire::new().unwrap();
    let receiver = within(&[wire.receiver()]);
    let before = wire.received().unwrap().rx_dropped;
    let args = ["--every=500", "--samples", "-i", "1h", "--proto", ETHERTYPE];
    let run = Run::of(dropwatch(&args).args(receiver).arg("--json"));
    let frames = fewer(200_000);
    let sent = wire.flood(frames, None).unwrap();
    assert_eq!((sent.accepted, sent.refused), (frames, 0));
    let ended = run.0.stop().unwrap();
    let dropped = wire.received().unwrap().rx_dropped - before;
    let (samples, others): (Vec<_>, Vec<_>) =
        ended.lines.iter().partition(|line| line.contains("\"type\":\"sample\""));
    let samples = decoded(samples.into_iter().map(String::as_str));
    let lines = others.into_iter().cloned().collect();
    let recording =
        Recording::of(&testbed::watch::Ended { status: ended.status, lines, stderr: ended.stderr });
    let lost = recording.lost();
    println!("{} samples of {dropped} drops, {lost:?}", samples.len());
    assert_eq!((recording.count(RECEIVE_PATH), dropped), (frames, frames), "counts are as ever");
    assert_eq!(samples.len() as u64 + lost.unsampled + lost.samples, frames);
    let rate = 500 * (sent.elapsed.as_secs() + 2);
    assert!(samples.len() >= 500 && samples.len() as u64 <= rate, "{}", samples.len());
}

/// What dies in its sender's own context is the sender's; the name and number are those that ran.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_task_is_the_one_that_ran() {
    let wire = Wire::new().unwrap();
    let run = Shown::start(&[wire.sender()], &["--json", "--proto", ETHERTYPE]);
    wire.cut().unwrap();
    let mut sent = Vec::new();
    for _ in 0..20 {
        sent.push(wire.flood(1, None).unwrap());
    }
    let written = run.stop();
    let samples = written.samples();
    assert_eq!(samples.len(), sent.len(), "{}", written.sum);
    for sample in samples {
        let task = sample.task.expect("a task");
        assert_eq!(task.context, Some(Context::Task), "{:?}", sample.stack);
        if fs::read_link("/proc/self/ns/pid").unwrap().ends_with(INITIAL_PIDS) {
            assert_eq!(task.pid, std::process::id());
        }
    }
}

/// The first PID namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
const INITIAL_PIDS: &str = "pid:[4026531836]";

/// A datagram in VXLAN, to a host that has no such tunnel.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_tunnel_shows_what_it_carries() {
    let (near, far) = (Netns::new("near").unwrap(), Netns::new("far").unwrap());
    link::veth(&near, "v0", &far, "v1").unwrap();
    near.ip("addr add 192.0.2.1/24 dev v0").unwrap();
    far.ip("addr add 192.0.2.2/24 dev v1").unwrap();
    near.ip("link set v0 up").unwrap();
    far.ip("link set v1 up").unwrap();
    if near.ip("link add vx0 type vxlan id 42 dstport 4789 remote 192.0.2.2 dev v0").is_err() {
        return unproved("this kernel has no vxlan");
    }
    near.ip("addr add 198.51.100.1/24 dev vx0").unwrap();
    near.ip("link set vx0 up").unwrap();
    near.ip("neigh add 198.51.100.2 lladdr 02:00:00:00:00:02 dev vx0 nud permanent").unwrap();
    let run = Shown::start(&[&far], &["--json", "--proto", "udp", "--port", "4789"]);
    let sent = near.enter(|| {
        let socket = UdpSocket::bind("198.51.100.1:0")?;
        for _ in 0..10 {
            socket.send_to(b"in a tunnel", "198.51.100.2:7777")?;
        }
        Ok(socket.local_addr()?)
    });
    let from = sent.unwrap();
    let own = |sample: &Sampled| {
        let inner = sample.inner.as_ref()?;
        let flow = &inner.flow;
        assert_eq!((&*inner.tunnel, inner.tunnel_id), ("vxlan", Some(42)), "{inner:?}");
        let to = flow.dst.zip(flow.dst_port);
        let is_own = to == Some(("198.51.100.2".parse().unwrap(), 7777));
        is_own.then(|| {
            assert_eq!(flow.src.zip(flow.src_port), Some((from.ip(), from.port())));
            assert_eq!(sample.flow.as_ref().unwrap().dst, Some("192.0.2.2".parse().unwrap()));
        })
    };
    thread::sleep(longer(Duration::from_millis(300)));
    let samples = run.stop().samples();
    assert_eq!(samples.iter().filter_map(own).count(), 10, "{samples:?}");
}

/// A datagram that a rule drops at another port than the one that it was sent to.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_translated_connection_shows_where_it_came_from() {
    let netns = Netns::new("nat").unwrap();
    for rule in [
        "-t nat -A OUTPUT -p udp --dport 5353 -j DNAT --to-destination 127.0.0.1:9",
        "-A INPUT -p udp -j DROP",
    ] {
        output(netns.command("iptables-legacy").args(rule.split(' '))).unwrap();
    }
    // Afterwards, since the rules load what describes connection tracking.
    let run = Shown::start(&[&netns], &["--json", "--proto", "udp"]);
    let from = send(&netns, 5353..5354);
    send(&netns, 7777..7778);
    thread::sleep(longer(Duration::from_millis(300)));
    let samples = run.stop().samples();
    let to = |port| {
        let found = samples.iter().find(|it| it.flow.as_ref().unwrap().dst_port == Some(port));
        found.unwrap_or_else(|| panic!("{port}: {samples:?}")).clone()
    };
    assert_eq!(to(7777).nat, None, "it was not translated");
    let Some(nat) = to(9).nat else { return unproved("the kernel does not describe its tuples") };
    assert_eq!((nat.original.src_port, nat.original.dst_port), (Some(from), Some(5353)));
    assert_eq!((nat.reply.src_port, nat.reply.dst_port), (Some(9), Some(from)));
}
