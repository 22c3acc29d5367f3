//! Hosts that show less, or more, of themselves: each is said, and none stops the counting.

use std::{path::Path, process::Command};

use dropwatch::report::model::Location;
use testbed::{
    drops::{Cause, link_layer::GroupSource, routing::TimeToLive},
    host_value::HostValue,
    tracepoint::{Tracepoint, provide_tracefs},
    udp::{ClosedPort, Family},
};

use crate::harness::{Recording, Run, UDP4, binary, function, has_reasons, within};

const N: u64 = 10;

/// dropwatch in a mount namespace of its own that `mounts` has changed.
fn run_after(mounts: &str, args: &[&str]) -> Run {
    let script = format!("set -e; {mounts}; exec \"$0\" --json \"$@\"");
    // Private by unshare's default: nothing outside sees these mounts.
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).arg(binary()).args(args);
    Run::of(&mut command)
}

/// Drops at one of these places.
type Places = &'static [(&'static str, &'static str)];

/// [`N`] drops, recorded after `mounts`, and where they are.
///
/// Without BTF dropwatch cannot tell whose a packet is. So these are of a kind that few hosts have: a
/// router gets packets on their last hop, or a bridge some from a group. A second dropwatch, which
/// does have BTF, says whether others had such drops meanwhile.
fn ten_without_btf(mounts: &str) -> (Recording, Places) {
    let causes: [(Box<dyn Cause>, Places); 2] = [
        (Box::new(TimeToLive::new().unwrap()), &[("ip_forward", "IP_INHDR")]),
        (
            Box::new(GroupSource::new().unwrap()),
            &[("br_handle_frame", "MAC_INVALID_SOURCE"), ("br_handle_frame", "NOT_SPECIFIED")],
        ),
    ];
    for (cause, places) in causes {
        let others = Run::start(&["--netns", &format!("!{}", cause.netns().name())]);
        let run = run_after(&format!("{HIDE_BTF}; {mounts}"), &[]);
        assert_eq!(cause.send(N).unwrap(), N);
        let recording = run.stop();
        match others.stop().count(places) {
            0 => return (recording, places),
            count => println!("{count} drops of others at {places:?}"),
        }
    }
    panic!("others drop at every place that was tried");
}

fn notices(recording: &Recording) -> String {
    recording.start.notices.join("\n")
}

const HIDE_BTF: &str = "mount -t tmpfs none /sys/kernel/btf";
/// Where nothing has mounted it before: the kernel refuses a second mount at the same place.
const TRACEFS: &str = "test -d /sys/kernel/tracing/events || \
                       mount -t tracefs tracefs /sys/kernel/tracing";
/// In both places where it can be; below debugfs the kernel mounts it by itself.
const HIDE_TRACEFS: &str = "mount -t tmpfs none /sys/kernel/tracing; \
                            test ! -d /sys/kernel/debug/tracing || \
                            mount -t tmpfs none /sys/kernel/debug/tracing";

/// Set in the process that looks for tracefs.
const LOOKS: &str = "DROPWATCH_TEST_LOOKS_FOR_TRACEFS";

/// What these tests know of tracefs they read where it is mounted, and mount it where it is not: the
/// kernel refuses a second mount at the same place.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn tracefs_is_read_wherever_it_is_mounted() {
    if std::env::var_os(LOOKS).is_some() {
        assert_ne!(Tracepoint::read().unwrap().id, 0);
        provide_tracefs().unwrap();
        assert!(Path::new("/sys/kernel/tracing/events/skb/kfree_skb/id").exists());
        return;
    }
    let elsewhere = format!(
        "{HIDE_TRACEFS}; mkdir '/sys/kernel/tracing/else where'; \
         mount -t tracefs none '/sys/kernel/tracing/else where'"
    );
    for mounts in [TRACEFS, HIDE_TRACEFS, &elsewhere] {
        let script = format!("set -e; {mounts}; exec \"$0\" \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).arg(std::env::current_exe().unwrap());
        command.args([
            "--ignored",
            "--exact",
            "environment::tracefs_is_read_wherever_it_is_mounted",
        ]);
        let said = testbed::command::output(command.env(LOOKS, "1")).unwrap();
        assert!(said.contains("1 passed"), "{mounts}: {said}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn reasons_are_named_by_btf_alone() {
    let closed = ClosedPort::new().unwrap();
    let run = run_after(HIDE_TRACEFS, &within(&[closed.netns()]));
    closed.send(Family::V4, N).unwrap();
    let recording = run.stop();
    assert_eq!(recording.count(UDP4), N, "{recording:#?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn reasons_are_named_by_tracefs_where_there_is_no_btf() {
    let (recording, places) = ten_without_btf(TRACEFS);
    assert_eq!(recording.count(places), N, "{recording:#?}");
    expect_notice_of_btf(&recording);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn reasons_are_numbers_where_there_is_neither_and_counts_stay_exact() {
    let (recording, places) = ten_without_btf(HIDE_TRACEFS);
    let is_place = |row: &&Location| places.iter().any(|(name, _)| function(row) == *name);
    let ten: Vec<_> = recording.locations().filter(is_place).collect();
    assert_eq!(ten.iter().map(|row| row.count).sum::<u64>(), N, "{recording:#?}");
    let reason = ten[0].place.reason.as_deref();
    assert_eq!(reason.is_some_and(|reason| reason.contains("0x")), has_reasons(), "{ten:#?}");
    expect_notice_of_btf(&recording);
}

/// Without BTF reasons lose names; a kernel without reasons loses nothing.
fn expect_notice_of_btf(recording: &Recording) {
    let notices = notices(recording);
    assert_eq!(notices.contains("BTF"), has_reasons(), "{notices}");
}

/// 0 and 1 show symbols to root, 2 to nobody; the run says so and goes on.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn kptr_restrict_hides_names_but_no_counts() {
    let closed = ClosedPort::new().unwrap();
    let setting = HostValue::set("kernel/kptr_restrict", "0").unwrap();
    for value in ["0", "1", "2"] {
        setting.change(value).unwrap();
        let run = Run::within(&[closed.netns()], &[]);
        closed.send(Family::V4, N).unwrap();
        let recording = run.stop();
        if value == "2" {
            let counted: u64 = recording
                .locations()
                .filter(|row| row.place.reason.as_deref() == has_reasons().then_some("NO_SOCKET"))
                .map(|row| row.count)
                .sum();
            assert_eq!(counted, N, "{recording:#?}");
            assert!(recording.locations().all(|row| row.place.symbol.is_none()), "{recording:#?}");
            assert!(notices(&recording).contains("kptr_restrict"), "{}", notices(&recording));
        } else {
            assert_eq!(recording.count(UDP4), N, "kptr_restrict {value}: {recording:#?}");
        }
    }
}
