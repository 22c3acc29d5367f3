//! `dropwatch run`: a command, what was dropped meanwhile, and the status that comes out of it.

use std::{
    fs,
    io::Read,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::Duration,
};

use dropwatch::report::model::{End, Line, Location, Report};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testbed::{
    drops::{
        Cause,
        closed::{Closed, Transport},
    },
    machine::longer,
    netns::Netns,
    udp::Family,
};

use crate::harness::{
    UDP4, binary, decoded, has_reasons, is_at, refused, text, wait_until, within,
};

/// What a run is recorded in: a file that is removed with its test.
pub(crate) struct Recording(pub(crate) PathBuf);

impl Recording {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("dropwatch-run-{name}-{}.ndjson", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _absent = fs::remove_file(&path);
        Self(path)
    }

    fn lines(&self) -> Vec<Line> {
        decoded(fs::read_to_string(&self.0).unwrap().lines())
    }

    pub(crate) fn reports_and_end(&self) -> (Vec<Report>, End) {
        let (mut reports, mut end) = (Vec::new(), None);
        for line in self.lines() {
            match line {
                Line::Report(report) => reports.push(report),
                Line::End(line) => end = Some(line),
                Line::Start(_) | Line::Sample(_) => {}
            }
        }
        (reports, end.unwrap())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _absent = fs::remove_file(&self.0);
    }
}

fn run(options: &[&str], command: &[&str]) -> Output {
    let mut dropwatch = Command::new(binary());
    dropwatch.arg("run").args(options).arg("--").args(command);
    dropwatch.stdin(Stdio::null()).output().unwrap()
}

/// Far more than anything here takes.
fn patience() -> Duration {
    longer(Duration::from_secs(10))
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_threshold_decides_and_the_summary_has_the_drops() {
    let recording = Recording::new("threshold");
    let closed = Closed::new(Transport::Udp, Family::V4).unwrap();
    let file = recording.0.to_str().unwrap();
    let mut dropwatch = Command::new(binary());
    // It says that it runs, and ends when it hears that all is sent.
    dropwatch.arg("run").args(within(&[closed.netns()])).args([
        "--fail-over",
        "100",
        "-o",
        file,
        "--",
        "sh",
        "-c",
        "echo on; read end",
    ]);
    let mut child = dropwatch
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut on = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut on).unwrap();
    closed.send(1000).unwrap();
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    let printed = text(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{printed}");
    assert!(printed.contains("packets dropped, more than --fail-over 100"), "{printed}");
    assert!(printed.contains("exit status 1 after"), "{printed}");

    let (reports, end) = recording.reports_and_end();
    let sum: u64 = reports.iter().map(|report| report.drops).sum();
    assert_eq!(end.drops, sum);
    assert!(reports[0].baseline && reports.iter().filter(|report| report.baseline).count() == 1);
    let ran = end.run.unwrap();
    // `read` finds no line.
    assert_eq!((ran.status, ran.signal), (Some(1), None));
    assert_eq!(ran.summary.drops + ran.summary.before.unwrap().drops, sum);
    assert_eq!(refused(&ran), 1000);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_status_is_the_commands_own() {
    let status = |command: &[&str]| run(&["--no-baseline"], command).status.code();
    assert_eq!(status(&["sh", "-c", "exit 7"]), Some(7));
    assert_eq!(status(&["sh", "-c", "kill -9 $$"]), Some(128 + 9));
    assert_eq!(status(&["/nonexistent/command"]), Some(127));
    assert_eq!(status(&["/dev/null"]), Some(126));
    let nobody = Netns::new("nobody").unwrap();
    let gate = ["--no-baseline", "--fail-over", "0", "--netns", nobody.name()];
    let output = run(&gate, &["true"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

/// As when nothing but reports is asked for.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn wrong_options_are_usage_and_the_command_is_not_started() {
    for wrong in [
        ["--fail-over", "x"],
        ["--reason", "NO_SOKET"],
        ["--symbol", "tcp_v4_rcvv"],
        ["--netns", "no-such-netns"],
        ["--iface", "eco9"],
        ["--user", "no-such-user"],
    ] {
        let output = run(&wrong, &["echo", "started"]);
        // What no name makes right is no usage.
        let status = if wrong[0] == "--reason" && !has_reasons() { 125 } else { 2 };
        assert_eq!(output.status.code(), Some(status), "{wrong:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "", "{wrong:?}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_commands_output_is_untouched() {
    let output = run(&["--no-baseline", "-i", "100ms"], &["sh", "-c", "echo out; echo err >&2"]);
    assert_eq!(text(&output.stdout), "out\n");
    let printed = text(&output.stderr);
    assert!(printed.lines().any(|line| line == "err"), "{printed}");
    assert!(printed.contains("Stopping dropped packet monitor"), "{printed}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn signals_are_the_commands() {
    // Without a terminal, so each of them has to be handed on.
    let trap = "trap 'exit 42' TERM; trap 'exit 43' INT; echo ready; while :; do sleep 0.05; done";
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid.to_string();
    let users = [None, Some(&nobody)];
    let signals = [(Signal::SIGTERM, 42), (Signal::SIGINT, 43)];
    for (user, (signal, status)) in users.iter().flat_map(|user| signals.map(|it| (user, it))) {
        let mut dropwatch = Command::new(binary());
        // The command of a run under sudo is the caller's.
        dropwatch.envs(user.map(|user| ("SUDO_UID", user)));
        dropwatch.args(["run", "--no-baseline", "--", "sh", "-c", trap]);
        let mut child = dropwatch
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        wait_until(patience(), "the command ends", || child.try_wait().unwrap().is_some());
        let ended = child.wait().unwrap();
        assert_eq!((ended.code(), ended.signal()), (Some(status), None), "{signal} {user:?}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn under_sudo_the_command_is_the_callers() {
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let output = Command::new(binary())
        .args(["run", "--no-baseline", "--", "sh", "-c", "id -u; id -G; echo $USER"])
        .env("SUDO_UID", nobody.uid.to_string())
        .output()
        .unwrap();
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let expected = format!("{}\n{}\nnobody\n", nobody.uid, nobody.gid);
    assert_eq!(printed, expected, "no group of root's is left");
    let root = run(&["--no-baseline", "--user", "root"], &["id", "-u"]);
    assert_eq!(text(&root.stdout), "0\n");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_was_so_before_is_not_new() {
    // Drops before and after the start of the command, at the same place.
    let recording = Recording::new("baseline");
    let closed = Closed::new(Transport::Udp, Family::V4).unwrap();
    let file = recording.0.to_str().unwrap();
    let mut dropwatch = Command::new(binary());
    dropwatch.arg("run").args(within(&[closed.netns()]));
    dropwatch.args(["--baseline", "2s", "-o", file, "--", "sleep", "0.1"]);
    let child = dropwatch.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until(patience(), "it begins", || recording.0.metadata().is_ok_and(|file| file.len() > 0));
    closed.send(20).unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    let (reports, end) = recording.reports_and_end();
    assert!(reports[0].baseline);
    let datagrams = |rows: &[Location]| -> u64 {
        rows.iter().filter(|row| is_at(row, UDP4)).map(|row| row.count).sum()
    };
    assert_eq!(datagrams(&reports[0].locations), 20, "{:#?}", reports[0]);
    let summary = end.run.unwrap().summary;
    assert_eq!(summary.before.unwrap().drops, reports[0].drops);
    assert_eq!(summary.drops + summary.before.unwrap().drops, end.drops);
}
