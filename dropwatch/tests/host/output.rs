//! What the formats look like on a live run.

use std::path::PathBuf;

use testbed::{
    udp::{ClosedPort, Family},
    undo::Undo,
    watch::Watch,
};

use crate::harness::{Run, UDP4, dropwatch, has_reasons, output, within};

/// The SystemTap script's output: begin line, an empty line, rows, end line; nothing else.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn classic_has_the_scripts_shape() {
    let closed = ClosedPort::new().unwrap();
    let watch = Watch::start(dropwatch(&["--classic", "-i", "1h"]).args(within(&[closed.netns()])))
        .unwrap();
    closed.send(Family::V4, 51).unwrap();
    let ended = watch.stop().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);

    let [first, empty, rows @ .., last] = ended.lines.as_slice() else {
        panic!("too few lines: {:?}", ended.lines)
    };
    assert_eq!(first, "Monitoring for dropped packets");
    assert_eq!(empty, "");
    assert_eq!(last, "Stopping dropped packet monitor");
    let rows: Vec<(u64, &str)> = rows
        .iter()
        .map(|row| {
            let (count, symbol) = row
                .split_once(" packets dropped at ")
                .unwrap_or_else(|| panic!("not the script's line: {row:?}"));
            assert!(!symbol.is_empty() && !symbol.contains('+'), "no offset: {row:?}");
            (count.parse().unwrap_or_else(|_| panic!("not a count: {row:?}")), symbol)
        })
        .collect();
    assert!(rows.is_sorted_by(|a, b| a.0 >= b.0), "highest first: {rows:?}");
    let udp: u64 = rows
        .iter()
        .filter(|(_, symbol)| UDP4.iter().any(|(name, _)| name == symbol))
        .map(|(count, _)| count)
        .sum();
    assert_eq!(udp, 51);
}

/// What newcomers do first: start it, make ten drops, press Ctrl-C.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn text_shows_ten_drops_with_place_and_reason() {
    let closed = ClosedPort::new().unwrap();
    let watch =
        Watch::start(dropwatch(&["-i", "1s", "-n", "0"]).args(within(&[closed.netns()]))).unwrap();
    closed.send(Family::V4, 10).unwrap();
    let ended = watch.stop().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.lines[0], "Monitoring for dropped packets");
    assert_eq!(ended.lines.last().unwrap(), "Stopping dropped packet monitor");
    let row = ended
        .lines
        .iter()
        .find(|line| UDP4.iter().any(|(name, _)| line.contains(&format!(" {name}+0x"))))
        .unwrap_or_else(|| panic!("{:#?}", ended.lines));
    let (count, place) = row.trim_start().split_once(" packets dropped at ").unwrap();
    assert_eq!(count, "10");
    assert!(UDP4.iter().any(|(name, _)| place.starts_with(&format!("{name}+0x"))), "{row}");
    assert_eq!(row.contains("(NO_SOCKET)"), has_reasons(), "{row}");
    for line in &ended.lines {
        assert!(!line.contains('\u{1b}'), "no colours into a pipe: {line:?}");
    }
}

/// A recording shows the same table later, without root or kernel.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn replay_prints_what_json_recorded() {
    let closed = ClosedPort::new().unwrap();
    let run = Run::within(&[closed.netns()], &["-i", "1s"]);
    closed.send(Family::V4, 10).unwrap();
    let ended = run.0.stop().unwrap();
    let recorded = ended.lines.join("\n") + "\n";

    let file = PathBuf::from(format!("/tmp/dropwatch-replay-{}", std::process::id()));
    let _undo = {
        let file = file.clone();
        Undo::new(move || Ok(std::fs::remove_file(file)?)).unwrap()
    };
    std::fs::write(&file, &recorded).unwrap();
    let path = file.to_str().unwrap();
    let json = output(&["replay", path, "--json"]);
    assert_eq!(String::from_utf8_lossy(&json.stdout), recorded, "JSON comes back as it was");
    let text = output(&["replay", path]);
    let text = String::from_utf8_lossy(&text.stdout);
    assert!(text.lines().any(|line| line.trim_start().starts_with("10 packets dropped at ")));
}

/// The kernel's layout is no business of a log collector.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn addresses_appear_only_when_asked_for() {
    let closed = ClosedPort::new().unwrap();
    for (args, shown) in [(&[][..], false), (&["--addresses"], true)] {
        let run = Run::within(&[closed.netns()], args);
        closed.send(Family::V4, 1).unwrap();
        let recording = run.stop();
        assert_eq!(recording.count(UDP4), 1);
        for location in recording.locations() {
            assert_eq!(!location.address.is_withheld(), shown, "{args:?}: {location:?}");
        }
    }
}
