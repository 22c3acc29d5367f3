//! Hosts that show less, or more, of themselves: each is said, and none stops the counting.

use std::process::Command;

use testbed::{
    host_value::HostValue,
    udp::{ClosedPort, Family},
};

use crate::harness::{Recording, Run, UDP4, binary, has_reasons};

const N: u64 = 10;

/// Ten drops, recorded by dropwatch in a mount namespace of its own that `mounts` has changed.
fn ten_drops_after(mounts: &str) -> Recording {
    let closed = ClosedPort::new().unwrap();
    let script = format!("set -e; {mounts}; exec \"$0\" --json");
    // Private by unshare's default: nothing outside sees these mounts.
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).arg(binary());
    let run = Run::of(&mut command);
    closed.send(Family::V4, N).unwrap();
    run.stop()
}

fn notices(recording: &Recording) -> String {
    recording.start.notices.join("\n")
}

const HIDE_BTF: &str = "mount -t tmpfs none /sys/kernel/btf";
const TRACEFS: &str = "mount -t tracefs tracefs /sys/kernel/tracing";
/// Also where something has mounted it before.
const HIDE_TRACEFS: &str = "mount -t tmpfs none /sys/kernel/tracing";

#[test]
#[ignore = "needs root: cargo xtask test"]
fn reasons_are_named_by_btf_alone() {
    let recording = ten_drops_after(HIDE_TRACEFS);
    assert_eq!(recording.count(UDP4), N, "{recording:#?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn reasons_are_named_by_tracefs_where_there_is_no_btf() {
    let recording = ten_drops_after(&format!("{HIDE_BTF}; {TRACEFS}"));
    assert_eq!(recording.count(UDP4), N, "{recording:#?}");
    expect_notice_of_btf(&recording);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn reasons_are_numbers_where_there_is_neither_and_counts_stay_exact() {
    let recording = ten_drops_after(&format!("{HIDE_BTF}; {HIDE_TRACEFS}"));
    let ten: Vec<_> = recording
        .locations()
        .filter(|row| UDP4.iter().any(|(name, _)| row.symbol.as_deref() == Some(name)))
        .collect();
    assert_eq!(ten.iter().map(|row| row.count).sum::<u64>(), N, "{recording:#?}");
    let reason = ten[0].reason.as_deref();
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
        let run = Run::start(&[]);
        closed.send(Family::V4, N).unwrap();
        let recording = run.stop();
        if value == "2" {
            let counted: u64 = recording
                .locations()
                .filter(|row| row.reason.as_deref() == has_reasons().then_some("NO_SOCKET"))
                .map(|row| row.count)
                .sum();
            assert_eq!(counted, N, "{recording:#?}");
            assert!(recording.locations().all(|row| row.symbol.is_none()), "{recording:#?}");
            assert!(notices(&recording).contains("kptr_restrict"), "{}", notices(&recording));
        } else {
            assert_eq!(recording.count(UDP4), N, "kptr_restrict {value}: {recording:#?}");
        }
    }
}
