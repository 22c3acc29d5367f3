//! `--pcap`: real drops, written and read back.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, UdpSocket},
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::PathBuf,
    process::{Child, ChildStderr, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use dropwatch::report::{decode::decode, model::Line};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testbed::{
    command::{die_with_parent, output as run},
    machine::longer,
    netns::Netns,
    udp::{ClosedPort, Family},
    undo::Undo,
    watch::Ended,
};

use crate::{
    captured::{Captured, packets},
    harness::{Recording, Run, UDP4, UDP6, dropwatch, function, has_reasons, output, within},
};

/// Functions that refuse a segment to a closed port.
const TCP4: &str = "tcp_v4_rcv";
const PATIENCE: Duration = Duration::from_secs(20);

/// A file of the test's own, removed with it.
pub(crate) struct Scratch(PathBuf, #[expect(dead_code, reason = "removes it")] Undo);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = PathBuf::from(format!("/tmp/dropwatch-{}-{name}", std::process::id()));
        let gone = path.clone();
        let undo = Undo::new(move || match fs::remove_file(gone) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        });
        Self(path, undo.unwrap())
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    pub(crate) fn read(&self) -> Vec<u8> {
        fs::read(&self.0).unwrap()
    }
}

/// What a packet's comment begins with, dropped at one of `functions` for `reason`.
fn is_told(packet: &Captured, functions: &[&str], reason: &str, netns: &Netns) -> bool {
    let place = packet.comment.strip_prefix("dropped at ").unwrap();
    let function = place.split(['.', '+']).next().unwrap();
    let reason = if has_reasons() { format!(" ({reason})") } else { String::new() };
    functions.contains(&function)
        && place.contains("+0x")
        && place.contains(&format!("{reason}, netns {}, ", netns.name()))
        && (place.contains(", on CPU: ") || place.contains(", by "))
        && packet.interface == format!("{}/lo", netns.name())
}

/// Sends a datagram for each port of `to`, and tells from where.
fn datagrams(netns: &Netns, from: &str, to: &[SocketAddr]) -> SocketAddr {
    let send = || {
        let socket = UdpSocket::bind(from)?;
        for to in to {
            socket.send_to(b"nobody listens", to)?;
        }
        Ok(socket.local_addr()?)
    };
    netns.enter(send).unwrap()
}

/// Knocks at a closed port from a port of our own.
fn knock(netns: &Netns, from: SocketAddr, to: SocketAddr) {
    let refused = netns.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        Ok(runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind(from)?;
            socket.connect(to).await.map(drop)
        }))
    });
    let error = refused.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
}

/// Every dropped packet, as it was sent, with place, reason, namespace and interface.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn packets_are_those_that_were_sent() {
    let netns = Netns::new("pcap").unwrap();
    let file = Scratch::new("sent.pcapng");
    let run = Run::within(&[&netns], &["--pcap", file.path(), "-i", "1h"]);
    let mode = fs::metadata(file.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "packets are private");

    let at = |address: &str| -> SocketAddr { address.parse().unwrap() };
    let to4: Vec<_> = (9..16).map(|port| SocketAddr::new(at("127.0.0.3:0").ip(), port)).collect();
    let to6: Vec<_> = (9..14).map(|port| SocketAddr::new(at("[::1]:0").ip(), port)).collect();
    let from4 = datagrams(&netns, "127.0.0.2:0", &to4);
    let from6 = datagrams(&netns, "[::1]:0", &to6);
    let (knocker, closed) = (at("127.0.0.4:40404"), at("127.0.0.5:81"));
    knock(&netns, knocker, closed);
    let recording = run.stop();
    assert_eq!((recording.count(UDP4), recording.count(UDP6)), (7, 5));
    assert_eq!(recording.lost().pcap, 0);

    let packets = packets(&file.read());
    let from = |from: SocketAddr| -> Vec<&Captured> {
        packets.iter().filter(|packet| packet.from == from).collect()
    };
    let sorted = |packets: &[&Captured]| {
        let mut to: Vec<_> = packets.iter().map(|packet| packet.to).collect();
        to.sort();
        to
    };
    let names = |places: &[(&'static str, _)]| -> Vec<&str> {
        places.iter().map(|(name, _)| *name).collect()
    };
    for (sent, to, protocol, functions) in [
        (from(from4), to4, 17, names(UDP4)),
        (from(from6), to6, 17, names(UDP6)),
        (from(knocker), vec![closed], 6, vec![TCP4]),
    ] {
        assert_eq!(sorted(&sent), to, "{packets:#?}");
        for packet in sent {
            assert_eq!(packet.protocol, protocol);
            assert!(is_told(packet, &functions, "NO_SOCKET", &netns), "{packet:?}");
        }
    }
}

/// What `--json --samples` records makes the same file.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_recording_makes_the_same_file() {
    let closed = ClosedPort::new().unwrap();
    let [file, recording, again] = ["live.pcapng", "run.ndjson", "again.pcapng"].map(Scratch::new);
    let args = ["--pcap", file.path(), "--snaplen", "42", "--samples", "-i", "1h"];
    let run = Run::within(&[closed.netns()], &args);
    closed.send(Family::V4, 10).unwrap();
    let ended = run.0.stop().unwrap();
    fs::write(recording.path(), ended.lines.join("\n")).unwrap();
    let replayed = output(&["replay", recording.path(), "--pcap", again.path(), "--snaplen", "42"]);
    assert_eq!(replayed.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&replayed.stderr), "");
    assert!(packets(&file.read()).len() >= 10, "Ethernet, IPv4 and UDP headers are 42 bytes");
    assert!(file.read() == again.read(), "the files differ");
}

/// A run that writes packets to standard output and reports to standard error.
struct Piped {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// First line of the reports.
    first: String,
}

impl Piped {
    fn start(closed: &ClosedPort, args: &[&str]) -> Self {
        let mut command = dropwatch(&["--pcap", "-"]);
        die_with_parent(&mut command);
        command
            .args(within(&[closed.netns()]))
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut first = String::new();
        stderr.read_line(&mut first).unwrap();
        assert!(first.contains("\"type\":\"start\""), "{first}");
        Self { child, stderr, first }
    }

    /// Waits for the end, and returns the packets and the reports.
    fn end(mut self) -> (Vec<u8>, Recording) {
        let mut stdout = self.child.stdout.take();
        let file = thread::spawn(move || {
            let mut file = Vec::new();
            stdout.as_mut().map(|stdout| stdout.read_to_end(&mut file).unwrap());
            file
        });
        let mut stderr = String::new();
        self.stderr.read_to_string(&mut stderr).unwrap();
        let lines = [self.first.as_str()].into_iter().chain(stderr.lines());
        let lines = lines.map(|line| line.trim_end().to_owned()).collect();
        let status = self.child.wait().unwrap();
        (file.join().unwrap(), Recording::of(&Ended { status, lines, stderr: String::new() }))
    }
}

/// `dropwatch --pcap - | tshark -r -`: packets alone on standard output, reports beside it.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn standard_output_is_a_capture_and_nothing_else() {
    let closed = ClosedPort::new().unwrap();
    let run = Piped::start(&closed, &["--json", "-i", "1h"]);
    closed.send(Family::V4, 10).unwrap();
    kill(Pid::from_raw(run.child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let (file, recording) = run.end();
    assert_eq!(recording.count(UDP4), 10);
    let discarded = packets(&file).into_iter().filter(|packet| packet.to.port() == 9);
    assert_eq!(discarded.count(), 10);
}

/// `dropwatch --pcap - | tshark -r - -c 1`: success, and the reports are whole.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_reader_that_has_enough_ends_the_run() {
    let closed = ClosedPort::new().unwrap();
    let mut run = Piped::start(&closed, &["--json", "-i", "50ms"]);
    drop(run.child.stdout.take());
    let deadline = Instant::now() + longer(PATIENCE);
    while run.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "goes on without a reader");
        closed.send(Family::V4, 1).unwrap();
        thread::sleep(Duration::from_millis(10));
    }
    let (_, recording) = run.end();
    assert!(recording.count(UDP4) > 0);
    assert_eq!(recording.lost().pcap, 0, "nobody asked for them");
}

/// Killed at any moment, a run leaves whole packets.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_kill_leaves_a_whole_file() {
    let closed = ClosedPort::new().unwrap();
    let file = Scratch::new("killed.pcapng");
    let mut run = Run::within(&[closed.netns()], &["--pcap", file.path(), "-i", "50ms"]);
    let mut reported = 0;
    while reported < 30 {
        closed.send(Family::V4, 10).unwrap();
        let line = run.0.next_line(longer(PATIENCE)).unwrap().unwrap();
        let Line::Report(report) = decode(line).unwrap() else { panic!("{line}") };
        reported += report.drops;
    }
    run.0.signal(Signal::SIGKILL).unwrap();
    let ended = run.0.finish().unwrap();
    assert_eq!(ended.status.signal(), Some(Signal::SIGKILL as i32), "{}", ended.stderr);
    let discarded = packets(&file.read()).into_iter().filter(|packet| packet.to.port() == 9);
    // The packets of the last report may have been under way.
    assert!(discarded.count() >= 10);
}

/// A small file system that fills up: every drop is counted, what is missing too, and the file is
/// whole as far as it goes.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_full_disk_costs_packets_and_no_count() {
    const SENT: u64 = 400;
    let closed = ClosedPort::new().unwrap();
    let disk = Disk::new();
    let file = disk.0.join("full.pcapng");
    let run = Run::within(&[closed.netns()], &["--pcap", file.to_str().unwrap(), "-i", "20ms"]);
    for _ in 0..SENT / 10 {
        closed.send(Family::V4, 10).unwrap();
        thread::sleep(Duration::from_millis(20));
    }
    let ended = run.0.stop().unwrap();
    let recording = Recording::ended_with(1, &ended);
    assert_eq!(recording.count(UDP4), SENT);

    let (lost, path) = (recording.lost().pcap, file.to_str().unwrap());
    let discarded = packets(&fs::read(&file).unwrap());
    let kept = discarded.iter().filter(|packet| packet.to.port() == 9).count() as u64;
    let sampled: u64 = recording
        .locations()
        .filter(|location| UDP4.iter().any(|(name, _)| *name == function(location)))
        .filter_map(|location| location.details.as_ref())
        .map(|details| details.samples)
        .sum();
    assert!(
        lost > 0 && kept > 0 && kept + lost >= sampled,
        "{kept} kept, {lost} lost of {sampled}"
    );
    let printed: Vec<&str> = ended.stderr.lines().collect();
    let cause = "No space left on device (os error 28)";
    let expected = [
        format!("dropwatch: cannot write packets to {path}: {cause}; the run goes on without them"),
        format!("dropwatch: {path} lacks {lost} sampled packets: {cause}"),
    ];
    assert_eq!(printed, expected, "once, and at the end what is missing");
}

/// A disk of four pages.
struct Disk(PathBuf, #[expect(dead_code, reason = "unmounts it")] Undo);

impl Disk {
    fn new() -> Self {
        let path = PathBuf::from(format!("/tmp/dropwatch-{}-disk", std::process::id()));
        let gone = path.clone();
        let undo = Undo::new(move || {
            run(Command::new("umount").arg(&gone))?;
            Ok(fs::remove_dir(gone)?)
        });
        let undo = undo.unwrap();
        fs::create_dir(&path).unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=16k", "none"]).arg(&path))
            .unwrap();
        Self(path, undo)
    }
}

/// What cannot work is refused before anything is attached or overwritten.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_cannot_work_is_refused() {
    let file = Scratch::new("kept.pcapng");
    fs::write(file.path(), "kept").unwrap();
    for (args, words) in [
        (&["--pcap", file.path(), "--no-samples"][..], "cannot be used with '--no-samples'"),
        (&["--pcap", file.path(), "--snaplen", "257"], "from 1 to 256"),
        (&["--snaplen", "64"], "--pcap <FILE>"),
    ] {
        let refused = output(args);
        let printed = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{printed}");
        assert!(printed.contains(words) && printed.lines().count() == 1, "{printed}");
    }
    assert_eq!(file.read(), b"kept");

    let nowhere = output(&["--pcap", "/nonexistent/file", "-c", "1"]);
    let printed = String::from_utf8_lossy(&nowhere.stderr);
    assert_eq!(nowhere.status.code(), Some(1), "{printed}");
    assert!(
        printed.starts_with("dropwatch: cannot write packets to /nonexistent/file: "),
        "{printed}"
    );
}
