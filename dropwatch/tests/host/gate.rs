//! Runs that fail because of what was found, with losses that no drop event shows.

use std::{
    io::Read,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use dropwatch::report::finding::Finding;
use testbed::{
    drops::{listen::Listening, receive_buffer::FullSocket},
    machine::longer,
    netns::Netns,
    unproved::unproved,
    watch::Watch,
};

use crate::{
    harness::{binary, dropwatch, has_reasons, text, wait_until, within},
    run::Recording,
};

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
    let recording = Recording::new("began");
    let file = recording.0.to_str().unwrap();
    let mut run = start(&[], &["--no-baseline", "--fail-on", "critical", "-o", file]);
    runs(&mut run);
    let listening = Listening::with_short_accept_queue().unwrap();
    listening.knock(CLIENTS).unwrap();
    let run = end(run);
    assert_eq!(run.status.code(), Some(5), "{}", text(&run.stderr));
    let (reports, _) = recording.reports_and_end();
    let name = listening.netns().name();
    let of_it = |it: &&Finding| it.netns.as_ref().and_then(|it| it.name.as_deref()) == Some(name);
    let found = reports.iter().flat_map(|report| &report.findings);
    let found = found.filter(of_it).find(|finding| finding.rule == "accept_queue_full");
    let found = found.unwrap_or_else(|| panic!("not found: {reports:#?}"));
    let command = format!("ip netns exec {name} ss -tln");
    assert!(found.actions.iter().any(|action| action.command == command), "{found:#?}");
}

/// Its counters are gone. What its drops prove by their reason fails the run; for the rest, the run
/// says that it does not know.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_namespace_that_ended_before_the_report_fails_a_run_by_its_drops_alone() {
    if !has_reasons() {
        return unproved("without reasons its drops prove nothing");
    }
    let recording = Recording::new("ended");
    let file = recording.0.to_str().unwrap();
    let mut run = start(&[], &["--no-baseline", "--fail-on", "critical", "-o", file]);
    runs(&mut run);
    drop(FullSocket::new().unwrap());
    let run = end(run);
    let printed = text(&run.stderr);
    assert_eq!(run.status.code(), Some(5), "{printed}");
    let (reports, _) = recording.reports_and_end();
    let subject = format!("port {}", FullSocket::PORT);
    let found = reports.iter().flat_map(|report| &report.findings);
    let found = found
        .into_iter()
        .find(|finding| finding.rule == "udp_receive_buffer" && finding.subject == subject);
    let found = found.unwrap_or_else(|| panic!("not found: {reports:#?}"));
    assert!(found.unreachable.as_ref().is_some_and(|it| it.ended), "{found:#?}");
    assert_eq!(found.actions, [], "no setting helps a program that is gone");
    assert!(printed.contains("ended before"), "{printed}");
    assert!(printed.contains("so --fail-on critical says nothing of losses"), "{printed}");
}

/// A gate with filters is about the packets that they let through, alone.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn losses_of_other_packets_fail_no_run_with_filters() {
    let gate = |filter: &[&str]| {
        start(&[], &[&["--no-baseline", "--fail-on", "critical", "-i", "1h"], filter].concat())
    };
    let port = FullSocket::PORT.to_string();
    let mut runs_of = [gate(&["--port", "4", "--iface", "lo"]), gate(&["--port", &port])];
    runs_of.iter_mut().for_each(runs);
    let full = FullSocket::new().unwrap();
    let [other, same] = runs_of.map(end);
    drop(full);
    let printed = text(&other.stderr);
    assert_eq!(other.status.code(), Some(0), "{printed}");
    assert!(!printed.contains("UDP receive buffer"), "{printed}");
    let printed = text(&same.stderr);
    assert_eq!(same.status.code(), Some(5), "{printed}");
    assert!(printed.contains(&format!("UDP receive buffer of port {port} full")), "{printed}");
}

/// Nothing of it is left but that its name was there: a green gate is no proof then, and says so.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_namespace_that_came_and_went_unseen_is_named() {
    let stays = Netns::new("stays").unwrap();
    let mut run = start(&[], &["--no-baseline", "--fail-on", "critical", "-i", "1h"]);
    runs(&mut run);
    let brief = Netns::new("brief").unwrap();
    let name = brief.name().to_owned();
    drop(brief);
    let printed = text(&end(run).stderr);
    let said = printed.lines().find(|line| line.contains("ended before"));
    let said = said.unwrap_or_else(|| panic!("not said: {printed}"));
    assert!(said.contains(&name) && !said.contains(stays.name()), "{said}");
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
