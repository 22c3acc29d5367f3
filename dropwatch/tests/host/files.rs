//! Whose the files are that a run writes.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown, symlink},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use testbed::{folder::Folder, machine::longer, watch::Watch};

use crate::harness::{dropwatch, text, wait_until};

/// Nobody of this host.
const CALLER: (u32, u32) = (54_321, 54_322);

/// Owner, group and permissions.
fn owner(path: &Path) -> (u32, u32) {
    let file = fs::metadata(path).unwrap();
    (file.uid(), file.gid())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

/// As sudo calls it.
fn sudo(args: &[&str]) -> Command {
    let mut command = dropwatch(args);
    command.env("SUDO_UID", CALLER.0.to_string()).env("SUDO_GID", CALLER.1.to_string());
    command
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn new_files_belong_to_whoever_called_sudo() {
    let folder = Folder::new("files-new").unwrap();
    let [lines, packets, replayed, old] =
        ["lines", "packets", "replayed", "old"].map(|name| folder.file(name));
    fs::write(&old, "").unwrap();
    let run = |file: &Path, more: &[&str]| {
        let mut command = sudo(&["-d", "100ms", "-o"]);
        let output = command.arg(file).args(more).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    run(&lines, &["--samples", "--pcap", packets.to_str().unwrap()]);
    let mut replay = sudo(&["replay", lines.to_str().unwrap(), "--pcap"]);
    assert!(replay.arg(&replayed).output().unwrap().status.success());
    for file in [&lines, &packets, &replayed] {
        assert_eq!((owner(file), mode(file)), (CALLER, 0o600), "{}", file.display());
    }
    run(&old, &[]);
    assert_eq!(owner(&old), (0, 0), "what was there stays whose it was");
    let plain = folder.file("plain");
    let mut command = dropwatch(&["-d", "100ms", "-o"]);
    assert!(command.arg(&plain).env_remove("SUDO_UID").output().unwrap().status.success());
    assert_eq!(owner(&plain), (0, 0), "nobody called sudo");
}

/// Log rotation happens when the capabilities are given up, and the folder may be the caller's.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn so_does_the_file_after_log_rotation() {
    for (name, of, options) in [
        ("roots", (0, 0), &[][..]),
        ("callers", CALLER, &[][..]),
        ("bare", CALLER, &["--no-samples", "--no-findings"]),
    ] {
        let folder = Folder::new(&format!("files-{name}")).unwrap();
        chown(folder.path(), Some(of.0), Some(of.1)).unwrap();
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .unwrap();
        let file = folder.file("lines");
        let mut command = sudo(&["-i", "100ms", "--json", "-o"]);
        let run = Watch::start(command.arg(&file).args(options)).unwrap();
        fs::rename(&file, folder.file("lines.1")).unwrap();
        run.signal(Signal::SIGHUP).unwrap();
        let patience = longer(Duration::from_secs(10));
        wait_until(patience, "a new file", || file.metadata().is_ok_and(|file| file.len() > 0));
        let ended = run.stop().unwrap();
        assert!(ended.status.success() && !ended.stderr.contains("cannot"), "{}", ended.stderr);
        assert_eq!((owner(&file), owner(&folder.file("lines.1"))), (CALLER, CALLER), "{name}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_caller_that_cannot_be_told_gets_no_file_of_roots() {
    let folder = Folder::new("files-wrong").unwrap();
    let file = folder.file("lines");
    for (uid, gid) in [("x", "0"), ("", "0"), ("-1", "0"), ("4294967295", "0"), ("1000", "x")] {
        for option in ["-o", "--pcap"] {
            let mut command = dropwatch(&["-d", "100ms", option]);
            let output = command.arg(&file).env("SUDO_UID", uid).env("SUDO_GID", gid).output();
            let output = output.unwrap();
            let printed = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{uid:?} {gid:?}: {printed}");
            assert!(printed.contains("SUDO_"), "{printed}");
            assert!(!file.exists(), "{uid:?} {gid:?}");
        }
        let mut command = dropwatch(&["run", "--no-baseline", "--", "id", "-u"]);
        let output = command.env("SUDO_UID", uid).env("SUDO_GID", gid).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{uid:?} {gid:?}");
        assert!(output.stdout.is_empty(), "the command runs as nobody then");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn no_link_leads_to_another_owner() {
    let folder = Folder::new("files-link").unwrap();
    let (link, end) = (folder.file("link"), folder.file("end"));
    symlink(&end, &link).unwrap();
    for option in ["-o", "--pcap"] {
        let output = sudo(&["-d", "100ms", option]).arg(&link).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        assert!(!end.exists());
    }
    fs::write(&end, "").unwrap();
    let output = sudo(&["-d", "100ms", "-o"]).arg(&link).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(owner(&end), (0, 0));
}

/// A run with an end has one, and what its recording lacks is said with the cause.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_run_with_an_end_ends_on_a_full_disk() {
    let patience = longer(Duration::from_secs(20));
    let ended = |args: &[&str]| {
        let args: Vec<&str> = args.iter().copied().chain(["-o", "/dev/full"]).collect();
        let run = Watch::start(&mut dropwatch(&args)).unwrap();
        let begin = Instant::now();
        let ended = run.finish().unwrap();
        assert!(begin.elapsed() < patience, "{args:?} took {:?}", begin.elapsed());
        ended
    };
    for end in [["-c", "1"], ["-c", "3"], ["-d", "300ms"]] {
        let ended = ended(&[&["-i", "200ms"][..], &end].concat());
        assert_eq!(ended.status.code(), Some(1), "{end:?}: {}", ended.stderr);
        let last = ended.stderr.lines().last().unwrap();
        let full = "cannot write to /dev/full: No space left on device (os error 28); it lacks 1 ";
        assert!(last.contains(full), "{end:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains("stalled"), "{}", ended.stderr);
        // Whoever looks at the reports need not wait for the disk.
        assert_eq!(ended.lines.last().unwrap(), "Stopping dropped packet monitor");
        let is_report = |line: &String| line.contains("drops in ") && line.contains("lost");
        assert!(ended.lines.iter().any(is_report), "{:?}", ended.lines);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn no_command_is_started_where_the_disk_is_full() {
    let run = |options: &[&str]| {
        let mut command = dropwatch(&["run", "-o", "/dev/full"]);
        command.args(options).args(["--", "echo", "started"]).output().unwrap()
    };
    let output = run(&["--baseline", "100ms"]);
    let printed = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{printed}");
    assert!(printed.contains("/dev/full: No space left on device"), "{printed}");
    assert!(printed.contains("the command was not started"), "{printed}");
    assert_eq!(text(&output.stdout), "");
    let output = run(&["--no-baseline"]);
    assert_eq!(output.status.code(), Some(125), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "started\n");
}
