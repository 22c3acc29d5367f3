//! Under a service manager: what is reported to it, and when. What systemd itself makes of it is tested by
//! `cargo xtask packaging`.

use std::{
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testbed::{
    command::die_with_parent,
    drops::{
        Cause,
        closed::{Closed, Transport},
    },
    machine::longer,
    udp::Family,
};

use crate::harness::{decoded, dropwatch, text};

/// More than attaching takes, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// Datagrams to a closed port.
const SENT: u64 = 200;

/// The socket of a service manager; removed with its test.
struct Manager {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Manager {
    fn new(name: &str) -> Self {
        let name = format!("dropwatch-{name}-{}.socket", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _absent = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(longer(PATIENCE))).unwrap();
        Self { path, socket }
    }

    /// `command` as the main process of a service.
    fn runs(&self, mut command: Command) -> Command {
        command.env("NOTIFY_SOCKET", &self.path);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        die_with_parent(&mut command);
        command
    }

    /// What is reported next, waiting for it.
    fn next(&self) -> String {
        let mut bytes = [0; 1024];
        let length = self.socket.recv(&mut bytes).unwrap();
        text(&bytes[..length])
    }

    /// All that was reported and not read yet.
    fn rest(&self) -> Vec<String> {
        self.socket.set_nonblocking(true).unwrap();
        let mut bytes = [0; 1024];
        let next = || {
            let length = self.socket.recv(&mut bytes).ok()?;
            Some(text(&bytes[..length]))
        };
        std::iter::from_fn(next).collect()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _absent = std::fs::remove_file(&self.path);
    }
}

/// What is dropped from the moment of readiness on is counted, the first packet included.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_service_is_ready_once_it_counts() {
    let manager = Manager::new("ready");
    let closed = Closed::new(Transport::Udp, Family::V4).unwrap();
    let args = ["--json", "--netns", closed.netns().name()];
    let child = manager.runs(dropwatch(&args)).spawn().unwrap();
    assert_eq!(manager.next(), "READY=1\n");
    assert_eq!(closed.send(SENT).unwrap(), SENT);
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(manager.next(), "STOPPING=1\n");
    let ended = child.wait_with_output().unwrap();
    assert_eq!(manager.rest(), [""; 0]);
    assert!(ended.status.success(), "{}", text(&ended.stderr));
    let lines = decoded(text(&ended.stdout).lines());
    let drops: u64 = lines
        .iter()
        .filter_map(|line| match line {
            dropwatch::report::model::Line::Report(report) => Some(report),
            _ => None,
        })
        .flat_map(|report| &report.locations)
        .map(|row| row.count)
        .sum();
    assert_eq!(drops, SENT);
}

/// A manager must not take a service for started that does not count; why goes to its log.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_start_that_fails_is_not_ready() {
    for (args, status) in [
        (&["--no-such-option"][..], 2),
        (&["--output", "/nonexistent/folder/file"], 1),
        (&["--metrics", "192.0.2.1:9435"], 1),
        (&["run", "--no-baseline", "--", "/nonexistent/command"], 127),
    ] {
        let manager = Manager::new("failing");
        let ended = manager.runs(dropwatch(args)).output().unwrap();
        assert_eq!(ended.status.code(), Some(status), "{args:?}");
        assert_ne!(text(&ended.stderr), "", "{args:?}");
        let printed = manager.rest();
        assert!(!printed.iter().any(|line| line.contains("READY")), "{args:?}: {printed:?}");
    }
}

/// The command of `run` is not the service: it learns of no manager, and readiness is its start.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_command_of_a_run_does_not_speak_for_it() {
    let manager = Manager::new("run");
    let mut command =
        manager.runs(dropwatch(&["run", "--no-baseline", "--", "sh", "-c", "env; sleep 0.2"]));
    command.env("WATCHDOG_USEC", "30000000").env("WATCHDOG_PID", "1").env("KEPT", "1");
    let child = command.spawn().unwrap();
    assert_eq!(manager.next(), "READY=1\n");
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", text(&ended.stderr));
    let environment = text(&ended.stdout);
    assert!(environment.lines().any(|line| line == "KEPT=1"), "{environment}");
    for variable in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        assert!(!environment.contains(variable), "{environment}");
    }
    assert_eq!(manager.rest(), ["STOPPING=1\n"]);
}

/// Whatever else may run as a service says so, too.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn servers_of_recordings_and_watchers_of_tables_are_ready() {
    let file = format!("dropwatch-service-{}.ndjson", std::process::id());
    let recording = std::env::temp_dir().join(file);
    std::fs::write(&recording, include_str!("../fixtures/replay/v1.ndjson")).unwrap();
    for args in [
        &["replay", recording.to_str().unwrap(), "--metrics", "127.0.0.1:0"][..],
        &["conntrack", "--watch=100ms", "--json"],
    ] {
        let manager = Manager::new("others");
        let mut child = manager.runs(dropwatch(args)).stdout(Stdio::null()).spawn().unwrap();
        assert_eq!(manager.next(), "READY=1\n", "{args:?}");
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert!(child.wait().unwrap().success(), "{args:?}");
    }
    std::fs::remove_file(&recording).unwrap();
}
