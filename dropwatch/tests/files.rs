//! Files that a command line names, on the program itself. Needs neither root nor a kernel: what is
//! refused here is refused before anything is attached.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::symlink,
    process::{Command, Output},
};

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/replay/v1.ndjson");

/// A folder with a recording `run` in it, and a link `link` to that.
struct Folder(testbed::folder::Folder);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = testbed::folder::Folder::new(&format!("named-{name}")).unwrap();
        fs::copy(RECORDING, folder.file("run")).unwrap();
        symlink("run", folder.file("link")).unwrap();
        Self(folder)
    }

    fn dropwatch(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dropwatch"));
        command.args(arguments).current_dir(self.0.path());
        command
    }

    fn append(&self, name: &str) -> fs::File {
        OpenOptions::new().append(true).create(true).open(self.0.file(name)).unwrap()
    }
}

fn refused(output: &Output) {
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{printed}");
    assert!(printed.contains("are the same file: name another one"), "{printed}");
    assert_eq!(printed.lines().count(), 1, "{printed}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_recording_is_never_written_over_while_it_is_read() {
    let folder = Folder::new("read");
    let before = fs::read(RECORDING).unwrap();
    for arguments in [
        ["replay", "run", "--pcap", "run"],
        ["replay", "run", "--pcap", "link"],
        ["replay", "link", "--pcap", "./run"],
    ] {
        refused(&folder.dropwatch(&arguments).output().unwrap());
    }
    for arguments in [
        &["replay", "run"][..],
        &["replay", "link", "--json"],
        &["replay", "run", "--pcap", "-"],
        &["replay", RECORDING, "--diff", "run"],
    ] {
        let mut command = folder.dropwatch(arguments);
        refused(&command.stdout(folder.append("run")).output().unwrap());
    }
    let mut piped = folder.dropwatch(&["replay", "-", "--pcap", "run"]);
    piped.stdin(fs::File::open(folder.0.file("link")).unwrap());
    refused(&piped.output().unwrap());
    assert_eq!(fs::read(folder.0.file("run")).unwrap(), before);
}

#[test]
fn two_outputs_are_never_one_file() {
    let folder = Folder::new("outputs");
    let wrong = [
        &["-o", "new", "--pcap", "new"][..],
        &["-o", "run", "--pcap", "link"],
        &["run", "-o", "new", "--pcap", "./new", "--", "true"],
    ];
    for arguments in wrong {
        refused(&folder.dropwatch(arguments).output().unwrap());
    }
    for arguments in
        [&["--json", "-o", "out"][..], &["--pcap", "-", "-o", "out"], &["--pcap", "/dev/stdout"]]
    {
        let mut command = folder.dropwatch(arguments);
        refused(&command.stdout(folder.append("out")).output().unwrap());
    }
    // The reports of a run with a command.
    let mut command = folder.dropwatch(&["run", "-o", "out", "--", "true"]);
    let output = command.stderr(folder.append("out")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(!folder.0.file("new").exists());
    assert_eq!(fs::read(folder.0.file("run")).unwrap(), fs::read(RECORDING).unwrap());
}

#[test]
fn other_files_devices_and_pipes_are_as_they_were() {
    let folder = Folder::new("others");
    for arguments in [
        &["replay", "run", "--pcap", "new"][..],
        &["replay", "run", "--pcap", "/dev/null"],
        &["replay", "run", "--diff", "link"],
    ] {
        let output = folder.dropwatch(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
    let mut command = folder.dropwatch(&["replay", "run"]);
    let out = folder.append("out");
    command.stderr(out.try_clone().unwrap()).stdout(out);
    assert!(command.status().unwrap().success(), "2>&1");
}
