//! Runs that fail because of what was found, with losses that no drop event shows.

use std::{
    io::Read,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use testbed::{
    drops::{listen::Listening, receive_buffer::FullSocket},
    machine::longer,
    netns::Netns,
    unproved::unproved,
    watch::Watch,
};

use crate::harness::{binary, dropwatch, has_reasons, text, wait_until, within};

/// Far more clients than may wait.
const CLIENTS: usize = 50;

/// A run that says when its command runs, which ends with its input. What is dropped and refused
/// elsewhere than in `netns` is none of its business.
pub(crate) fn start(netns: &[&Netns], options: &[&str]) -> Child {
    let mut dropwatch = Command::new(binary());
    dropwatch.arg("run").args(within(netns)).args(options);
    dropwatch.args(["--", "sh", "-c", "echo on; read end; true"]);
    dropwatch.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until the command runs.
pub(crate) fn runs(child: &mut Child) {
    let mut on = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut on).unwrap();
}

/// Ends the command, and so the run.
pub(crate) fn end(mut child: Child) -> Output {
    drop(child.stdin.take());
    child.wait_with_output().unwrap()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn refused_connections_fail_a_command() {
    let listening = Listening::with_short_accept_queue().unwrap();
    let mut full = start(&[listening.netns()], &["--no-baseline", "--fail-on", "critical"]);
    let limits = ["--no-baseline", "--fail-over", "1000000", "--fail-rate", "1000000"];
    let mut drops = start(&[listening.netns()], &limits);
    runs(&mut full);
    runs(&mut drops);
    listening.knock(CLIENTS).unwrap();
    let (full, drops) = (end(full), end(drops));
    let printed = text(&full.stderr);
    assert_eq!(full.status.code(), Some(5), "{printed}");
    let last = printed.lines().last().unwrap();
    assert!(last.starts_with("dropwatch: critical: accept queue"), "{printed}");
    assert!(last.ends_with("which --fail-on critical forbids"), "{printed}");
    assert_eq!(drops.status.code(), Some(0), "no drop tells of it: {}", text(&drops.stderr));
}

/// All that it refused is the command's, although nobody looked at its counters before.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn connections_refused_where_a_namespace_began_during_the_run_fail_it() {
    let mut run = start(&[], &["--no-baseline", "--fail-on", "critical"]);
    runs(&mut run);
    let listening = Listening::with_short_accept_queue().unwrap();
    listening.knock(CLIENTS).unwrap();
    let run = end(run);
    let printed = text(&run.stderr);
    let name = listening.netns().name();
    assert_eq!(run.status.code(), Some(5), "{printed}");
    let found = format!("full in {name}: connections refused");
    assert!(printed.contains(&found), "{printed}");
    assert!(printed.contains(&format!("ip netns exec {name} ss -tln")), "{printed}");
}

/// Its counters are gone. What its drops prove by their reason fails the run; for the rest, the run
/// says that it does not know.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_namespace_that_ended_before_the_report_fails_a_run_by_its_drops_alone() {
    if !has_reasons() {
        return unproved("without reasons its drops prove nothing");
    }
    let mut run = start(&[], &["--no-baseline", "--fail-on", "critical"]);
    runs(&mut run);
    let full = FullSocket::new().unwrap();
    drop(full);
    let run = end(run);
    let printed = text(&run.stderr);
    assert_eq!(run.status.code(), Some(5), "{printed}");
    let port = FullSocket::PORT;
    assert!(printed.contains(&format!("UDP receive buffer of port {port} full in")), "{printed}");
    assert!(printed.contains("ended before"), "{printed}");
    assert!(printed.contains("so --fail-on critical says nothing of losses"), "{printed}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_was_refused_before_the_command_is_not_its_fault() {
    let listening = Listening::with_short_accept_queue().unwrap();
    let file = std::env::temp_dir().join(format!("dropwatch-gate-{}", std::process::id()));
    let _absent = std::fs::remove_file(&file);
    let baseline = format!("{}s", longer(Duration::from_secs(2)).as_secs());
    let options = ["--baseline", &baseline, "--fail-on", "critical", "-o", file.to_str().unwrap()];
    let mut run = start(&[listening.netns()], &options);
    let patience = longer(Duration::from_secs(10));
    wait_until(patience, "it begins", || file.metadata().is_ok_and(|file| file.len() > 0));
    listening.knock(CLIENTS).unwrap();
    runs(&mut run);
    let run = end(run);
    let printed = text(&run.stderr);
    assert!(std::fs::read_to_string(&file).unwrap().contains("accept_queue_full"), "{printed}");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(run.status.code(), Some(0), "{printed}");
}

/// Without a command, too, and in a format that shows no findings.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn refused_connections_fail_a_run_in_every_format() {
    let listening = Listening::with_short_accept_queue().unwrap();
    let start = |options: &[&str]| {
        let own = ["--netns", listening.netns().name()];
        let mut run = dropwatch(&["--fail-on", "critical", "-i", "1h"]);
        Watch::start(run.args(own).args(options)).unwrap()
    };
    let full = ["--classic", "--json"].map(|format| start(&[format]));
    listening.knock(CLIENTS).unwrap();
    for run in full {
        let ended = run.stop().unwrap();
        assert_eq!(ended.status.code(), Some(5), "{}", ended.stderr);
        assert!(ended.stderr.contains("accept queue"), "{}", ended.stderr);
    }
    let quiet = start(&["--json"]).stop().unwrap();
    assert_eq!(quiet.status.code(), Some(0), "{}", quiet.stderr);
}
