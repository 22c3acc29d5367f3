//! dropwatch as an ordinary user with a few capabilities.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use testbed::{
    host_value::HostValue,
    udp::{ClosedPort, Family},
    undo::Undo,
};

use crate::harness::{Run, UDP4, binary, has_reasons, within};

/// `nobody`, on every distribution.
const USER: &str = "65534";
/// Bit of `CAP_BPF` in `/proc/PID/status` (`include/uapi/linux/capability.h`).
const CAP_BPF: u64 = 1 << 39;
/// Names of namespaces, interfaces and processes are looked up as long as the run lasts:
/// `CAP_DAC_READ_SEARCH`, `CAP_SYS_PTRACE`, `CAP_SYS_ADMIN`.
const FOR_PLACES: u64 = 1 << 2 | 1 << 19 | 1 << 21;
/// Connection tracking is read at each report, and rules of the packet filter: `CAP_NET_ADMIN`,
/// `CAP_NET_RAW`.
const FOR_FINDINGS: u64 = FOR_PLACES | 1 << 12 | 1 << 13;

/// A copy of the binary where every user may run it; a home folder often is closed to others.
pub(crate) struct Copy {
    path: PathBuf,
    _undo: Undo,
}

impl Copy {
    pub(crate) fn new() -> Self {
        let path = PathBuf::from(format!("/run/dropwatch-test-{}", std::process::id()));
        let undo = {
            let path = path.clone();
            Undo::new(move || Ok(fs::remove_file(path)?)).unwrap()
        };
        fs::copy(binary(), &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { path, _undo: undo }
    }

    /// A live run, as [`Copy::command`].
    fn with(&self, capabilities: &[&str]) -> Command {
        let mut command = self.command(capabilities);
        command.arg("--json");
        command
    }

    /// dropwatch as [`USER`] with exactly `capabilities`, which it cannot extend.
    pub(crate) fn command(&self, capabilities: &[&str]) -> Command {
        let set: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
        let set = format!("-all{set}");
        let mut command = Command::new("setpriv");
        command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--no-new-privs"]);
        for option in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
            command.args([option, &set]);
        }
        command.arg(&self.path);
        command
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn counting_needs_bpf_and_perfmon_and_names_need_syslog() {
    let _hidden = HostValue::set("kernel/kptr_restrict", "1").unwrap();
    let (dropwatch, closed) = (Copy::new(), ClosedPort::new().unwrap());

    let own = within(&[closed.netns()]);
    let run = Run::of(dropwatch.with(&["bpf", "perfmon"]).args(&own));
    closed.send(Family::V4, 10).unwrap();
    let recording = run.stop();
    let ten: Vec<_> =
        recording.locations().filter(|row| row.count == 10 && row.place.symbol.is_none()).collect();
    assert_eq!(ten.len(), 1, "counted, without a name: {recording:#?}");
    let reason = has_reasons().then_some("NO_SOCKET");
    assert_eq!(ten[0].place.reason.as_deref(), reason, "reasons need no capability");
    let notice = recording.start.notices.join(" ");
    assert!(notice.contains("CAP_SYSLOG"), "says what is missing: {notice}");

    let run = Run::of(dropwatch.with(&["bpf", "perfmon", "syslog"]).args(&own));
    closed.send(Family::V4, 10).unwrap();
    let recording = run.stop();
    assert_eq!(recording.count(UDP4), 10);
    assert!(!recording.start.notices.iter().any(|notice| notice.contains("CAP_SYSLOG")));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_missing_capability_is_named() {
    let dropwatch = Copy::new();
    for (capabilities, missing, present) in [
        (&["perfmon", "syslog"][..], &["CAP_BPF"][..], &["CAP_PERFMON"][..]),
        (&["bpf", "syslog"], &["CAP_PERFMON"], &["CAP_BPF"]),
        (&[], &["CAP_BPF", "CAP_PERFMON"], &[]),
    ] {
        let output = dropwatch.with(capabilities).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{capabilities:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(missing.iter().all(|name| stderr.contains(name)), "{stderr}");
        assert!(!present.iter().any(|name| stderr.contains(name)), "{stderr}");
        assert!(output.stdout.is_empty(), "{capabilities:?}");
    }
}

/// What no enabled feature needs any more is given up; some kernels demand `CAP_BPF` for every read.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn capabilities_are_given_up_after_attaching() {
    let dropwatch = Copy::new();
    let as_user = Run::of(&mut dropwatch.with(&["bpf", "perfmon", "syslog"]));
    let runs = [
        (as_user, 0),
        (Run::start(&["--no-samples", "--no-findings"]), 0),
        (Run::start(&["--no-findings"]), FOR_PLACES),
        (Run::start(&[]), FOR_FINDINGS),
    ];
    for (run, kept) in runs {
        let status = fs::read_to_string(format!("/proc/{}/status", run.0.pid())).unwrap();
        for (set, kept) in [("CapEff", kept), ("CapPrm", kept), ("CapInh", 0), ("CapAmb", 0)] {
            let value = status
                .lines()
                .find_map(|line| line.strip_prefix(set)?.strip_prefix(":\t"))
                .and_then(|mask| u64::from_str_radix(mask, 16).ok())
                .unwrap();
            assert_eq!(value & !CAP_BPF, kept, "{set} is {value:x}");
        }
        run.stop();
    }
}
