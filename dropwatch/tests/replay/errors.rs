//! Recordings that are not what they should be: what came before is rendered, and one line says
//! where it ends and why.

use std::io::{self, BufReader, Read, Write};

use dropwatch::{
    command::replay::{MAX_LINE, ReplayError, replay},
    render::{Format, Json},
    report::{
        model::{Line, Lost},
        options::Options,
        view::View,
    },
};
use serde_json::{Value, json};

use crate::support::{again, run, show, snapshot};

fn recording() -> String {
    let lost = Lost { recursion: 2, ..Lost::default() };
    let snapshots = [(snapshot(5000, &[(0, 2, 10), (1, 1, 5)], lost), 1)];
    show(&run(Options::default(), &[], &snapshots), Format::Json)
}

/// The error that a recording ends with.
fn error(recording: impl AsRef<[u8]>) -> String {
    let (_, result) = again(recording.as_ref(), Format::Text, &Format::Text.view(None, false));
    result.expect_err("the recording was accepted").to_string()
}

/// The error of a recording whose report has one value replaced.
fn edited(pointer: &str, value: Value) -> String {
    let recording = recording();
    let mut lines: Vec<Value> =
        recording.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    *lines[1].pointer_mut(pointer).unwrap() = value;
    error(lines.iter().map(|line| format!("{line}\n")).collect::<String>())
}

#[test]
fn lines_before_the_error_are_rendered() {
    let recording = recording() + "{\"v\":1,\"type\":\"rep";
    let (shown, result) =
        again(recording.as_bytes(), Format::Text, &Format::Text.view(None, false));
    assert!(shown.ends_with("Stopping dropped packet monitor\n"), "{shown}");
    assert_eq!(
        result.unwrap_err().to_string(),
        "line 4 ends in the middle: the recording was cut off there"
    );
}

#[test]
fn wherever_a_recording_is_cut_it_says_so() {
    let recording = recording();
    let line = recording.lines().nth(1).unwrap();
    for end in 1..line.len() {
        assert_eq!(
            error(&line[..end]),
            "line 1 ends in the middle: the recording was cut off there"
        );
    }
    // Only the last line end is missing: all the data is there.
    let (_, result) = again(line.as_bytes(), Format::Json, &View::default());
    result.unwrap();
    // Within a character of two bytes.
    assert_eq!(
        error(b"{\"v\":1,\"type\":\"start\",\"host\":\"Z\xc3"),
        "line 1 ends in the middle: the recording was cut off there"
    );
}

#[test]
fn foreign_lines_are_named() {
    let long = "x".repeat(5000);
    for (line, expected) in [
        ("hello", "line 1 is not JSON (expected value at column 1)"),
        ("{\"v\":1}}", "line 1 is not JSON (trailing characters at column 8)"),
        ("\n\n[1,", "line 3 ends in the middle: the recording was cut off there"),
        ("5", "line 1 is JSON, but not dropwatch's: it has no \"v\" and \"type\""),
        ("{\"level\":\"info\"}", "line 1 is JSON, but not dropwatch's: it has no \"v\""),
        ("{\"v\":1}", "line 1 is JSON, but not dropwatch's: it has no \"type\""),
        (
            "{\"v\":2,\"type\":\"report\"}",
            "line 1 has schema version 2, which a newer dropwatch recorded; this one reads version 1",
        ),
        (
            "{\"v\":0,\"type\":\"report\"}",
            "line 1 has schema version 0, which no dropwatch ever wrote",
        ),
        (
            "{\"v\":\"1\",\"type\":\"report\"}",
            "line 1 has schema version \"1\", which no dropwatch ever wrote",
        ),
        ("{\"v\":1,\"type\":\"stop\"}", "line 1 has the unknown type \"stop\""),
        ("{\"v\":1,\"type\":7}", "line 1 has the unknown type 7"),
        ("{\"v\":1,\"type\":\"\u{9b}2J\"}", "line 1 has the unknown type \"\u{fffd}2J\""),
        (
            "{\"v\":1,\"type\":\"end\"}",
            "line 1 is not a valid end line (missing field `time` at column 20)",
        ),
        (
            &format!("{{\"v\":1,\"type\":\"{long}\"}}"),
            &format!("line 1 has the unknown type \"{}…", "x".repeat(99)),
        ),
    ] {
        assert_eq!(error(line), expected, "for {line:?}");
    }
    assert_eq!(
        error(b"\xff\xfe{\0"),
        "line 1 is not UTF-8 text (byte 1): not a dropwatch recording"
    );
}

#[test]
fn an_empty_recording_is_an_error() {
    for empty in ["", "\n", " \r\n\n"] {
        assert_eq!(error(empty), "holds no lines; record with `dropwatch --json > FILE`");
    }
}

#[test]
fn numbers_that_contradict_each_other_are_refused() {
    for (pointer, value, expected) in [
        ("/drops", json!(16), "locations and other sum to 17, drops is 16"),
        (
            "/locations/0/count",
            json!(u64::MAX),
            "a location has count 18446744073709551615 and total 10",
        ),
        ("/locations/0/count", json!(0), "a location has count 0 and total 10"),
        ("/other/count", json!(u64::MAX), "the sum of locations and other overflows"),
        (
            "/other",
            json!({"locations": 0, "count": 2, "unknown_location": 2, "benign": 1}),
            "other counts 0 drops, 1 of them benign",
        ),
        ("/other/locations", json!(1), "other counts 0 drops at 1 locations"),
        (
            "/other/unknown_location",
            json!(0),
            "other counts 2 drops, 0 of unknown location, where lost has 2",
        ),
        ("/lost/map_busy", json!(u64::MAX), "the sum of lost overflows"),
        ("/interval_s", json!(-5.0), "interval_s is -5"),
        ("/interval_s", json!(1e300), &format!("interval_s is {}", 1e300)),
        ("/rate", json!(-0.1), "rate is -0.1"),
        ("/locations/0/share", json!(1.1), "share is 1.1"),
        ("/seq", json!(0), "seq and intervals count from 1"),
        ("/intervals", json!(0), "seq and intervals count from 1"),
        ("/kernel", json!("6".repeat(5000)), "a text of 5000 bytes, where 4096 is the most"),
        (
            "/locations/0/symbol",
            json!("f".repeat(5000)),
            "a text of 5000 bytes, where 4096 is the most",
        ),
        (
            "/findings",
            json!([{
                "rule": "r", "severity": "notice", "netns": null, "title": "t", "explains": null,
                "evidence": [], "actions": [],
                "unreachable": {"ended": false, "why": "w".repeat(5000)},
            }]),
            "a text of 5000 bytes, where 4096 is the most",
        ),
    ] {
        assert_eq!(edited(pointer, value), format!("line 2 contradicts itself: {expected}"));
    }
    for (pointer, value) in [
        ("/drops", json!(-1)),
        ("/drops", json!(1.5)),
        ("/end", json!("yesterday")),
        ("/locations", json!({})),
        ("/lost", json!(null)),
    ] {
        let error = edited(pointer, value);
        assert!(error.starts_with("line 2 is not a valid report line ("), "{error}");
    }
}

#[test]
fn namespaces_are_the_drops_of_their_location() {
    let mut lines: Vec<Value> =
        recording().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |inum: Option<u32>, count: u64| json!({"name": null, "inum": inum, "count": count, "rate": 1.0, "share": 0.5, "total": count});
    let mut replayed = |namespaces: Value| {
        lines[1]["locations"][0]["namespaces"] = namespaces;
        let recording: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let (shown, result) =
            again(recording.as_bytes(), Format::Text, &Format::Text.view(None, false));
        result.map(|()| shown).map_err(|error| error.to_string())
    };
    let shown = replayed(json!([of(Some(7), 6), of(None, 4)])).unwrap();
    assert!(shown.contains("6  netns 7") && shown.contains("4  netns unknown"), "{shown}");
    let sum = "line 2 contradicts itself: namespaces of a location do not sum to its 10 drops";
    for namespaces in [
        json!([of(Some(7), 6)]),
        json!([of(Some(7), 6), of(Some(8), 5)]),
        json!([of(Some(7), u64::MAX), of(Some(8), 11)]),
    ] {
        assert_eq!(replayed(namespaces).unwrap_err(), sum);
    }
    let mut named = of(Some(7), 10);
    named["name"] = json!("n".repeat(5000));
    let long = "line 2 contradicts itself: a text of 5000 bytes, where 4096 is the most";
    assert_eq!(replayed(json!([named])).unwrap_err(), long);
    let mut sampled = of(Some(7), 10);
    let flow = json!({"interface": null, "flow": null, "path": null, "share": 2.0, "samples": 1});
    sampled["flows"] = json!([flow]);
    let share = "line 2 contradicts itself: share is 2";
    assert_eq!(replayed(json!([sampled])).unwrap_err(), share);
}

/// Of a run that is complete; what came before its end line is rendered.
#[test]
fn an_end_line_has_the_sums_of_its_reports() {
    let recording = recording();
    let mut lines: Vec<Value> =
        recording.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines[2]["drops"] = json!(999_999);
    let text = |lines: &[Value]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let damaged = text(&lines);
    let (shown, result) = again(damaged.as_bytes(), Format::Json, &View::default());
    assert_eq!(
        result.unwrap_err().to_string(),
        "line 3 has 999999 drops, where the reports of its run have 17: the recording is damaged"
    );
    assert_eq!(shown.lines().count(), 2);
    // A log rotation may have the begin in another file.
    let (_, result) = again(text(&lines[1..]).as_bytes(), Format::Json, &View::default());
    result.unwrap();
}

/// A cause may be found in each namespace of a host, at the same time.
#[test]
fn a_report_has_as_many_findings_as_there_are() {
    let recording = recording();
    let mut lines: Vec<Value> =
        recording.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let finding = |inum: u32| {
        json!({
            "rule": "accept_queue_full", "severity": "critical",
            "netns": {"name": null, "inum": inum}, "title": "t", "explains": null,
            "evidence": [], "actions": [],
        })
    };
    lines[1]["findings"] = (0..256).map(finding).collect();
    let many: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let (shown, result) = again(many.as_bytes(), Format::Json, &View::default());
    result.unwrap();
    assert_eq!(shown.matches("accept_queue_full").count(), 256);
}

#[test]
fn fields_of_later_versions_are_passed_over() {
    let recording = recording();
    let grown = recording.replace("\"drops\":", "\"later\":{\"a\":[1]},\"drops\":");
    assert_ne!(recording, grown);
    let (shown, result) = again(grown.as_bytes(), Format::Json, &View::default());
    result.unwrap();
    assert_eq!(shown, recording);
}

#[test]
fn a_line_without_end_is_not_read_into_memory() {
    struct Endless(usize);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer.fill(b'{');
            self.0 += buffer.len();
            assert!(self.0 <= 2 * MAX_LINE, "reads on and on");
            Ok(buffer.len())
        }
    }
    let result = replay(BufReader::new(Endless(0)), &View::default(), &Json, &mut io::sink());
    assert!(matches!(result, Err(ReplayError::TooLong { line: 1 })), "{result:?}");
}

#[test]
fn failing_to_read_and_to_write_are_told_apart() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("disk on fire"))
        }
    }
    let result = replay(BufReader::new(Broken), &View::default(), &Json, &mut io::sink());
    assert_eq!(result.unwrap_err().to_string(), "cannot read line 1: disk on fire");

    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let result = replay(recording().as_bytes(), &View::default(), &Json, &mut Closed);
    let Err(ReplayError::Write(error)) = result else { panic!("{result:?}") };
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn each_line_is_written_at_once_and_flushed() {
    #[derive(Default)]
    struct Calls(Vec<String>);
    impl Write for Calls {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            self.0.push("flush".to_owned());
            Ok(())
        }
    }
    let recording = recording();
    let mut calls = Calls::default();
    replay(recording.as_bytes(), &View::default(), &Json, &mut calls).unwrap();
    let expected: Vec<_> =
        recording.lines().flat_map(|line| [format!("{line}\n"), "flush".to_owned()]).collect();
    assert_eq!(calls.0, expected);
}

#[test]
fn runs_recorded_one_after_the_other_replay() {
    let twice = recording().repeat(2);
    let (shown, result) =
        again(twice.as_bytes(), Format::Classic, &Format::Classic.view(None, false));
    result.unwrap();
    assert_eq!(shown.matches("Monitoring for dropped packets\n").count(), 2);
    assert!(matches!(
        dropwatch::report::decode::decode(twice.lines().last().unwrap()),
        Ok(Line::End(_))
    ));
}
