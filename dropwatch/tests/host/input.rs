//! What users get wrong is answered in one line, with a documented exit code.

use std::{fs, process::Output};

use crate::harness::output;

/// Standard error is one line that holds every one of `words`; standard output is empty.
fn expect_one_line(output: &Output, status: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "`{word}` is not in: {stderr}");
    }
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_wrong_command_line_is_status_2() {
    for (args, word) in [
        (&["--no-such-option"][..], "--no-such-option"),
        (&["-i", "0"], "--interval"),
        (&["-i", "0s"], "--interval"),
        (&["-i", "-5s"], "--interval"),
        (&["-i", "soon"], "--interval"),
        (&["-n", "x"], "--top"),
        (&["-n", "-1"], "-1"),
        (&["-c", "0"], "--count"),
        (&["-d", "-1s"], "--duration"),
        (&["--format", "xml"], "xml"),
        (&["--json", "--classic"], "--classic"),
        (&["run", "--fail-ovr", "0", "--", "id"], "--fail-over"),
        (&["run", "--fail-ovr", "0", "id"], "--fail-over"),
        (&["run", "--no-baselin", "--", "id"], "--no-baseline"),
        (&["run", "--fail-on", "critcal", "--", "id"], "critical"),
        (&["run", "-d", "10s", "--", "id"], "-d"),
        (&["run", "-d", "10s", "id"], "-d"),
        (&["--fail-on", "critical", "--no-findings"], "--no-findings"),
        (&["replay"], "FILE"),
    ] {
        expect_one_line(&output(args), 2, &[word]);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_recording_that_cannot_be_read_is_named() {
    let missing = "/no/such/recording.ndjson";
    expect_one_line(&output(&["replay", missing]), 1, &[missing, "No such file"]);
    expect_one_line(&output(&["replay", "/"]), 1, &["/", "directory"]);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_foreign_or_cut_line_is_named_by_its_number() {
    let folder = std::env::temp_dir().join(format!("dropwatch-input-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    for (name, text) in [
        ("foreign", "{\"hello\":\"world\"}\n"),
        ("cut", "{\"v\":1,\"type\":\"rep"),
        ("binary", "\u{0}\u{1}\u{2}\n"),
    ] {
        let file = folder.join(name);
        fs::write(&file, text).unwrap();
        expect_one_line(&output(&["replay", file.to_str().unwrap()]), 1, &["line 1"]);
    }
    fs::remove_dir_all(folder).unwrap();
}
