//! Rows as they stand in what dropwatch prints: each can be asked for.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use dropwatch::{command::explain, diagnose::knowledge::DropEntry};

use crate::{explained, host, known};

/// The place and reason of one row for each entry that has an event.
fn places() -> Vec<(&'static DropEntry, &'static str, &'static str)> {
    let entries = known().entries.iter().filter(|entry| !entry.unseen);
    let place = |entry: &'static DropEntry| {
        let function = entry.at.first().map_or("some_function", String::as_str);
        (entry, function, entry.reasons[0].as_str())
    };
    entries.map(place).collect()
}

/// A recording with a row for each of them: of a command that ran, so that there is a summary.
fn recording(name: &str) -> PathBuf {
    let who = r#""host":"gw","boot_id":"b","kernel":"6.18.44""#;
    let lost = r#""lost":{"map_full":0,"map_busy":0,"recursion":0,"samples":0,"stacks":0}"#;
    let time = "2026-11-22T07:35:00.000Z";
    let (mut rows, mut all) = (Vec::new(), 0);
    for (index, (entry, function, reason)) in places().into_iter().enumerate() {
        let count = 1000 - index;
        all += count;
        let module = if index % 2 == 0 { "null" } else { "\"nf_tables\"" };
        let subsystem = &entry.subsystem;
        rows.push(format!(
            r#"{{"symbol":"{function}","offset":125,"module":{module},"reason":"{reason}","#
        ) + &format!(
            r#""subsystem":"{subsystem}","count":{count},"rate":{count}.0,"share":0.01,"total":{count},"#
        ) + r#""benign":false,"new":true}"#);
    }
    let mut lines = String::new();
    let rows = rows.join(",");
    writeln!(
        lines,
        r#"{{"v":1,"type":"start",{who},"dropwatch":"0.1.0","time":"{time}","interval_s":1.0,"notices":[]}}"#
    )
    .expect("writes");
    writeln!(
        lines,
        r#"{{"v":1,"type":"report","seq":1,{who},"start":"{time}","end":"{time}","interval_s":1.0,"intervals":1,"drops":{all},"rate":{all}.0,"locations":[{rows}],"other":{{"locations":0,"count":0,"unknown_location":0}},{lost},"findings":[]}}"#
    )
    .expect("writes");
    writeln!(
        lines,
        r#"{{"v":1,"type":"end",{who},"time":"{time}","duration_s":1.0,"reports":1,"drops":{all},{lost}}}"#
    )
    .expect("writes");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&file, lines).expect("writes");
    file
}

/// What `dropwatch replay` prints of it.
fn replayed(file: &Path, options: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_dropwatch"))
        .arg("replay")
        .args(options)
        .arg(file)
        .output()
        .expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Entries about a line: those shown in full, and those listed.
fn about(line: &str) -> (Vec<&'static DropEntry>, Vec<&'static DropEntry>) {
    let page = explain::page(known(), &[line], &host("6.18"));
    let page = page.unwrap_or_else(|failure| panic!("{line:?}: {failure}"));
    (page.explained, page.related)
}

/// The rows of a rendering, in the order of [`places`].
fn rows(text: &str) -> Vec<String> {
    text.lines().filter(|line| line.contains("+0x7d")).map(str::to_owned).collect()
}

#[test]
fn every_row_of_a_report_finds_its_entry() {
    let file = recording("rows.ndjson");
    for color in ["never", "always"] {
        let text = replayed(&file, &["--all", "--top", "0", "--color", color]);
        let rows = rows(&text);
        assert_eq!(rows.len(), places().len(), "{text}");
        for ((entry, ..), row) in places().into_iter().zip(&rows) {
            let cut = row.split_once(" <").map_or(row.as_str(), |(row, _)| row);
            for row in [
                row.clone(),
                row.replace(' ', "   "),
                format!("'{row}'"),
                cut.replace("packets dropped at", "at") + ", new",
                row.replace(" packets dropped at", "/s  12  ▇▇██▇ "),
            ] {
                assert_eq!(about(&row).0, [entry], "{row}");
            }
        }
    }
}

#[test]
fn rows_of_the_classic_format_find_their_function() {
    let text = replayed(&recording("classic.ndjson"), &["--classic"]);
    let mut seen = 0;
    for (entry, function, _) in places().into_iter().filter(|(entry, ..)| !entry.at.is_empty()) {
        let row = text.lines().find(|line| line.ends_with(&format!(" {function}"))).expect("a row");
        let (full, listed) = about(row);
        assert!(full.contains(&entry) || listed.contains(&entry), "{row}");
        seen += 1;
    }
    assert!(seen > 15, "{seen}");
}

#[test]
fn rows_of_a_comparison_find_their_entry() {
    let file = recording("diff.ndjson");
    let before = file.to_str().expect("UTF-8");
    let text = replayed(&file, &["--diff", before, "--top", "0"]);
    for (entry, function, reason) in places() {
        let place = |line: &&str| {
            line.split_whitespace().any(|word| word == function)
                && line.contains(&format!("({reason})"))
        };
        let row =
            text.lines().find(place).unwrap_or_else(|| panic!("{function} ({reason}): {text}"));
        assert_eq!(about(row).0, [entry], "{row}");
    }
}

/// Of a function that nobody has described the row says what it is, and that nothing more is known.
#[test]
fn a_row_is_one_whatever_its_function() {
    for (row, not_known) in [
        ("4 packets dropped at ip6_pkt_discard_x", Some("ip6_pkt_discard_x")),
        ("5 packets dropped at 0xffffffff8134abcd", None),
        ("3 packets dropped at 0xffffffff81080000 <0.1%", None),
        ("1 packets dropped at [unknown]", None),
        ("676 packets dropped at my_rcv+0x40 [mine] 6.3% 0xffffffffc0123456", Some("my_rcv+0x40")),
        ("125/s     125/s  my_upcall [mine]", Some("my_upcall")),
        ("  135/s     2.4/s  my_rcv: gone", Some("my_rcv")),
        ("   10 at my_rcv+0x7d 100.0%, new", Some("my_rcv+0x7d")),
    ] {
        let page = explained(row).unwrap_or_else(|failure| panic!("{row}: {failure}"));
        assert!(page.words.iter().any(|word| word.names[0] == "row"), "{row}: {page:?}");
        assert_eq!(page.not_known.first().map(String::as_str), not_known, "{row}");
        assert!(page.explained.is_empty() && page.related.is_empty(), "{row}");
    }
    for text in ["676 of my_rcv", "look at my_rcv", "12 at the gate", "my_rcv"] {
        assert!(explained(text).is_err(), "{text}");
    }
}
