//! The story that `cargo xtask scenario nat` tells, with its numbers held to account.

use std::{os::unix::process::ExitStatusExt, process::Command, time::Duration};

use dropwatch::report::{
    decode::decode,
    facts::Field,
    flow::Flow,
    model::{Line, Location},
};
use nix::sys::signal::Signal;
use testbed::{
    host_value::restore_leftovers,
    machine::longer,
    netns::{Netns, remove_leftovers},
    scenario::nat::{CLIENT, LOW, OUTSIDE, OUTSIDE_LINK, Outcome, PORT, Story, Tools},
    watch::{Ended, Watch},
};

use crate::{
    harness::{binary, function},
    noise::MADE,
};

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_full_conntrack_table_is_counted_to_the_packet_and_room_ends_it() {
    expect_the_story(Tools::Own);
}

/// With the tools that everybody knows, as the demonstration has it.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_story_of_nginx_and_ab() {
    expect_the_story(Tools::NginxAndAb);
}

fn expect_the_story(tools: Tools) {
    let before = limit();
    let story = Story::new(&binary(), tools).unwrap();

    let full = story.full_table().unwrap();
    assert!(full.conntrack_drops > 0, "the table never filled: {full:#?}");
    assert!(full.answered < full.requests, "the load did not suffer: {full:#?}");
    assert!(full.agrees(), "{full:#?}");
    expect_the_flow(&full);
    assert_eq!(full.refused, full.conntrack_drops, "the finding quotes conntrack: {full:#?}");

    let room = story.mended(&full).unwrap();
    assert_eq!((room.refused, &room.other_findings[..]), (0, &[][..]), "{room:#?}");
    assert_eq!((room.conntrack_drops, room.reported), (0, 0), "{room:#?}");
    assert_eq!((room.answered, room.failed), (room.requests, 0), "{room:#?}");

    drop(story);
    assert_eq!(limit(), before, "the host's limit is back");
}

/// The report of most drops names the gateway, and the clients' connections to its port on their
/// way in: what SystemTap showed as `nf_hook_slow` alone.
fn expect_the_flow(full: &Outcome) {
    let rows = full.lines.iter().filter_map(|line| match decode(line).unwrap() {
        Line::Report(report) => Some(report.locations),
        _ => None,
    });
    let refused = |row: &Location| {
        function(row) == "nf_hook_slow" && row.place.reason.as_deref().is_none_or(|r| r == REASON)
    };
    let row = rows.flatten().filter(refused).max_by_key(|row| row.count).unwrap();
    let details = row.details.as_ref().unwrap();
    let netns = details.netns.as_ref().unwrap();
    assert_eq!(netns.is.name.as_deref(), Some(full.gateway.as_str()), "{details:#?}");
    let interface = details.interface.as_ref().unwrap();
    assert_eq!(interface.is.name.as_deref(), Some(OUTSIDE_LINK), "{details:#?}");
    assert!(!details.direction.as_ref().unwrap().is.outgoing, "{details:#?}");
    // Their connections are what the table has no room for.
    assert!(!details.conntrack.as_ref().unwrap().is.entry, "{details:#?}");
    let flow = details.flow.as_ref().unwrap();
    let expected = Flow {
        protocol: Some("tcp".into()),
        src: CLIENT.parse().ok(),
        // Before its translation, which comes after connection tracking.
        dst: OUTSIDE.parse().ok(),
        dst_port: Some(PORT),
        kind: Some("SYN".into()),
        ..Flow::default()
    };
    assert_eq!((&flow.flow, &flow.varies[..]), (&expected, &[Field::SrcPort][..]), "{details:#?}");
    let path = details.path.as_ref().unwrap();
    let names: Vec<_> = path.is.callers.iter().flatten().map(String::as_str).collect();
    assert!(names.contains(&"ip_rcv"), "prerouting is in ip_rcv: {details:#?}");
    // Packets of other kinds (the FIN of a connection that was evicted) may be among them.
    for share in [netns.share, interface.share, flow.share, path.share] {
        assert!(share >= 0.8, "{details:#?}");
    }
}

const REASON: &str = "NETFILTER_DROP";

/// Set in the process that [`interrupt`] starts.
const HOLDER: &str = "DROPWATCH_TEST_HOLDS_THE_LIMIT";

#[test]
#[ignore = "needs root: cargo xtask test"]
fn ctrl_c_puts_the_limit_back() {
    if std::env::var_os(HOLDER).is_some() {
        return hold();
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let before = limit();
        let (pid, ended) = interrupt(signal);
        assert_eq!(ended.status.signal(), Some(signal as i32), "{ended:#?}");
        assert_eq!(limit(), before, "{signal}");
        assert_eq!(namespaces_of(pid), [""; 0], "{signal}");
    }
}

/// SIGKILL leaves no time to put anything back: the next run does.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_next_run_puts_right_what_a_killed_one_left() {
    let before = limit();
    let (pid, ended) = interrupt(Signal::SIGKILL);
    assert_eq!(ended.status.signal(), Some(Signal::SIGKILL as i32), "{ended:#?}");
    assert_ne!(limit(), before, "nothing was left to put right");
    restore_leftovers().unwrap();
    assert_eq!(limit(), before);
    remove_leftovers();
    assert_eq!(namespaces_of(pid), [""; 0]);
}

/// Changes the host and waits to be interrupted.
fn hold() {
    let _netns = Netns::new("held").unwrap();
    let _story = Story::new(&binary(), Tools::Own).unwrap();
    println!("\nholding");
    std::thread::sleep(Duration::from_secs(60));
}

/// Has another process of this test program [`hold`], and sends it `signal` while it does.
fn interrupt(signal: Signal) -> (u32, Ended) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "nat::ctrl_c_puts_the_limit_back", "--nocapture"])
        .env(HOLDER, "1")
        .env(MADE, "elsewhere");
    let mut watch = Watch::start(&mut command).unwrap();
    while watch.next_line(longer(Duration::from_secs(20))).unwrap().expect("it holds") != "holding"
    {
    }
    assert_eq!(limit(), LOW.to_string());
    let pid = watch.pid();
    assert_eq!(namespaces_of(pid).len(), 1);
    watch.signal(signal).unwrap();
    (pid, watch.finish().unwrap())
}

fn namespaces_of(pid: u32) -> Vec<String> {
    let prefix = format!("dwt-{pid}-");
    let names = std::fs::read_dir("/run/netns").unwrap().flatten();
    names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(&prefix))
        .collect()
}

fn limit() -> String {
    let path = "/proc/sys/net/netfilter/nf_conntrack_max";
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}
