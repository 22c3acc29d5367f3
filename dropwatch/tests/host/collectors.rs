//! JSON lines on their way into log collectors: each arrives whole, over restarts and rotation.
//!
//! The configurations are those of docs/logging.md, with other paths. The truth is what dropwatch
//! printed meanwhile, which its own end line sums up.

mod fifo;
mod setting;

use std::{collections::BTreeSet, fs};

use nix::sys::signal::Signal;
use testbed::{
    drops::{
        Cause,
        closed::{Closed, Transport},
    },
    netns::Netns,
    udp::Family,
    watch::Watch,
};

use crate::harness::{Recording, Run, UDP4, binary, dropwatch, within};
use setting::{Collector, Folder, Kind, recipe, run_to_end, soon, wait_for};

/// How many packets are dropped at a time.
const ROUND: u64 = 50;

/// A dropwatch that writes to a folder's file, and what it has to see.
struct Story<'a> {
    folder: &'a Folder,
    closed: Closed,
    run: Run,
    sent: u64,
}

impl<'a> Story<'a> {
    fn begin(folder: &'a Folder) -> Self {
        let closed = Closed::new(Transport::Udp, Family::V4).unwrap();
        let file = folder.path("dropwatch.ndjson");
        let run = begin(closed.netns(), &["--output", file.to_str().unwrap()]);
        Self { folder, closed, run, sent: 0 }
    }

    /// Drops packets, over a few reports.
    fn go_on(&mut self) {
        for _ in 0..3 {
            self.sent += self.closed.send(ROUND).unwrap();
            std::thread::sleep(soon(150));
        }
    }

    /// Has logrotate do what the recipe says.
    fn rotate(&self) {
        let (file, old) =
            (self.folder.path("dropwatch.ndjson"), self.folder.path("dropwatch.ndjson.1"));
        let text = self.folder.place(&recipe("/etc/logrotate.d/dropwatch"));
        let hangup = "systemctl reload dropwatch.service || true";
        assert!(text.contains(hangup), "{text}");
        let text = text.replace(hangup, &format!("kill -HUP {}", self.run.0.pid()));
        let configuration = self.folder.write("logrotate.conf", &text);
        let state = self.folder.path("logrotate.state");
        run_to_end(
            setting::program("logrotate")
                .arg("--force")
                .arg("--state")
                .args([state, configuration]),
        );
        assert!(old.exists(), "not rotated");
        wait_for("a new file", || file.exists());
    }

    /// Ends the run, and checks what the files hold: all that was printed, each line once.
    fn end(self) -> (Recording, Vec<String>) {
        let ended = self.run.0.stop().unwrap();
        let recording = Recording::of(&ended);
        assert_eq!(recording.count(UDP4), self.sent, "{:?}", recording.end);
        let mut written = Vec::new();
        for name in ["dropwatch.ndjson.1", "dropwatch.ndjson"] {
            let Ok(text) = fs::read_to_string(self.folder.path(name)) else { continue };
            assert!(text.ends_with('\n'), "{name} ends within a line");
            written.extend(text.lines().map(str::to_owned));
        }
        assert_eq!(written, ended.lines);
        (recording, written)
    }
}

/// A dropwatch that prints JSON of drops in `netns` beside what it writes to a file: with `--json`,
/// it would not.
fn begin(netns: &Netns, args: &[&str]) -> Run {
    let mut command = dropwatch(&["-i", "100ms", "--format", "json"]);
    Run(Watch::start(command.args(within(&[netns])).args(args)).unwrap())
}

/// Fields of the reports, one line each, as `name=value`.
fn check_fields(text: &str, recording: &Recording) {
    let field = |line: &str, name: &str| {
        let value = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("no {name}: {line}")).to_owned()
    };
    let number = |line: &str, name: &str| field(line, name).parse::<u64>().unwrap();
    let seqs: Vec<u64> = text.lines().map(|line| number(line, "seq")).collect();
    let expected: Vec<u64> = recording.reports.iter().map(|report| report.seq).collect();
    assert_eq!(seqs, expected);
    let drops: u64 = text.lines().map(|line| number(line, "drops")).sum();
    assert_eq!(drops, recording.end.drops);
    for (line, report) in text.lines().zip(&recording.reports) {
        assert_eq!(field(line, "host"), report.host.host);
        let first = report.locations.first().and_then(|location| location.place.symbol.as_deref());
        assert_eq!(field(line, "at"), first.unwrap_or_default(), "{line}");
    }
}

/// A collector that is stopped and started again knows where it was.
fn restarts(kind: Kind) {
    let folder = Folder::new(kind.name());
    let mut story = Story::begin(&folder);
    let collector = Collector::start(kind, &folder);
    story.go_on();
    collector.end(Signal::SIGTERM);
    story.go_on();
    let collector = Collector::start(kind, &folder);
    story.go_on();
    let (recording, written) = story.end();
    collector.wait_for(written.len());
    collector.end(Signal::SIGTERM);
    assert_eq!(folder.lines(kind.lines()), written, "every line once, and in order");
    check_fields(&fs::read_to_string(folder.path(kind.fields())).unwrap(), &recording);
}

/// One that is killed may say a line twice, and loses none.
fn is_killed(kind: Kind) {
    let folder = Folder::new(kind.name());
    let mut story = Story::begin(&folder);
    let collector = Collector::start(kind, &folder);
    story.go_on();
    collector.wait_for(2);
    collector.end(Signal::SIGKILL);
    story.go_on();
    let collector = Collector::start(kind, &folder);
    story.go_on();
    let (_, written) = story.end();
    let last = written.last().unwrap();
    wait_for("the end line", || folder.lines(kind.lines()).last() == Some(last));
    collector.end(Signal::SIGTERM);
    let collected: BTreeSet<String> = folder.lines(kind.lines()).into_iter().collect();
    assert_eq!(collected, written.into_iter().collect());
}

/// logrotate moves the file away while the collector reads it.
fn sees_rotation(kind: Kind) {
    let folder = Folder::new(kind.name());
    let mut story = Story::begin(&folder);
    let collector = Collector::start(kind, &folder);
    story.go_on();
    story.rotate();
    story.go_on();
    let (recording, written) = story.end();
    collector.wait_for(written.len());
    collector.end(Signal::SIGTERM);
    assert_eq!(folder.lines(kind.lines()), written);
    check_fields(&fs::read_to_string(folder.path(kind.fields())).unwrap(), &recording);
}

/// Lines of 32 KiB and more: an end line tells the command as typed.
fn takes_long_lines(kind: Kind) {
    let folder = Folder::new(kind.name());
    let collector = Collector::start(kind, &folder);
    let file = folder.path("dropwatch.ndjson");
    let word = "w".repeat(512);
    for _ in 0..3 {
        let mut command = std::process::Command::new(binary());
        command.args(["run", "--no-baseline", "-i", "100ms", "--output"]).arg(&file);
        command.args(["--", "sh", "-c", "sleep 0.3"]).args((0..60).map(|_| &word));
        run_to_end(&mut command);
    }
    let written = folder.lines("dropwatch.ndjson");
    assert_eq!(written.iter().filter(|line| line.len() > 30_000).count(), 3);
    collector.wait_for(written.len());
    collector.end(Signal::SIGTERM);
    assert_eq!(folder.lines(kind.lines()), written);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn rsyslog_is_restarted() {
    restarts(Kind::Rsyslog);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn rsyslog_is_killed() {
    is_killed(Kind::Rsyslog);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn rsyslog_sees_rotation() {
    sees_rotation(Kind::Rsyslog);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn rsyslog_takes_long_lines() {
    takes_long_lines(Kind::Rsyslog);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn syslog_ng_is_restarted() {
    restarts(Kind::SyslogNg);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn syslog_ng_is_killed() {
    is_killed(Kind::SyslogNg);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn syslog_ng_sees_rotation() {
    sees_rotation(Kind::SyslogNg);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn syslog_ng_takes_long_lines() {
    takes_long_lines(Kind::SyslogNg);
}
