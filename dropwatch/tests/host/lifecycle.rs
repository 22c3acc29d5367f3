//! Pace, stalled readers, and every way to end a run.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use testbed::{
    machine::{fewer, longer},
    udp::{ClosedPort, Family},
};

use crate::harness::{Recording, Run, UDP4, binary, dropwatch};

/// A report's end stands on the grid that starts with the run; intervals do not drift.
///
/// A busy machine makes any one report late, and drift makes all later ones: so the most punctual
/// report of the second half has the say.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn reports_keep_their_pace() {
    let (interval, count) = (pace(200), fewer(20).max(5));
    let args = ["-i", &milliseconds(interval), "-c", &count.to_string()];
    let recording = Run::start(&args).finish();
    assert_eq!(recording.reports.len() as u64, count);
    let (mut end, mut covered) = (0.0, 0);
    let late: Vec<f64> = recording
        .reports
        .iter()
        .map(|report| {
            end += report.interval_s;
            covered += report.intervals;
            end - interval.as_secs_f64() * covered as f64
        })
        .collect();
    // Each length is rounded to the millisecond, so the sum of `n` can be off by half of `n`.
    let early = |(n, &late): (f64, &f64)| late < -0.0005 * n - 1e-6;
    let early = (1_u32..).map(f64::from).zip(&late).find(|&report| early(report));
    assert_eq!(early, None, "a report before its time: {late:?}");
    let best = late[late.len() / 2..].iter().copied().fold(f64::INFINITY, f64::min);
    assert!(best <= longer(Duration::from_millis(20)).as_secs_f64(), "off the grid: {late:?}");
}

/// An interval that leaves a slow machine the time to start, most of which is reading symbols.
fn pace(milliseconds: u64) -> Duration {
    longer(Duration::from_millis(milliseconds)).min(Duration::from_millis(milliseconds.max(3_000)))
}

fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// A stopped `less`: no count is lost, and the report that follows says how much time it covers.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_stalled_reader_loses_no_count() {
    const ROUNDS: u64 = 100;
    let closed = ClosedPort::new().unwrap();
    let run = Run::within(&[closed.netns()], &["-i", "10ms"]);
    run.0.pause();
    for _ in 0..ROUNDS {
        closed.send(Family::V4, 10).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    run.0.resume();
    std::thread::sleep(Duration::from_millis(100));
    let recording = run.stop();
    assert_eq!(recording.count(UDP4), ROUNDS * 10);
    let longest = recording.reports.iter().max_by_key(|report| report.intervals).unwrap();
    assert!(longest.intervals > 10, "the reader never stalled: {longest:?}");
    assert!(longest.interval_s > 0.1, "{longest:?}");
}

/// Each way to end reports the last, partial interval; its drops have been in no other report.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn signals_report_what_is_left() {
    let closed = ClosedPort::new().unwrap();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let run = Run::within(&[closed.netns()], &["-i", "1h"]);
        closed.send(Family::V4, 10).unwrap();
        run.0.signal(signal).unwrap();
        expect_one_partial_report(&run.finish(), signal.as_str());
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn duration_and_count_report_what_is_left() {
    let closed = ClosedPort::new().unwrap();
    let length = pace(1_000);
    let argument = milliseconds(length);
    for args in [["-i", "1h", "-d", &argument], ["-i", &argument, "-c", "1"]] {
        let run = Run::within(&[closed.netns()], &args);
        closed.send(Family::V4, 10).unwrap();
        let recording = run.finish();
        expect_one_partial_report(&recording, &args.join(" "));
        let late = recording.end.duration_s - length.as_secs_f64();
        // Far from the hour of the interval, and more than a busy machine takes.
        assert!((0.0..30.0).contains(&late), "{args:?}: {late} s late");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_duration_that_is_no_multiple_ends_with_a_shorter_report() {
    // A machine may be busy for that long, and not be on the grid for that long.
    let unit = pace(500);
    let args = ["-i", &milliseconds(unit * 3), "-d", &milliseconds(unit * 7)];
    let recording = Run::start(&args).finish();
    let lengths: Vec<f64> = recording.reports.iter().map(|report| report.interval_s).collect();
    assert_eq!(lengths.len(), 3, "{lengths:?}");
    let unit = unit.as_secs_f64();
    assert!(lengths[2] < unit * 2.0, "{lengths:?}");
    assert!(lengths.iter().sum::<f64>() >= unit * 7.0 - 1e-6, "{lengths:?}");
}

fn expect_one_partial_report(recording: &Recording, how: &str) {
    assert_eq!(recording.reports.len(), 1, "{how}");
    assert_eq!(recording.count(UDP4), 10, "{how}");
}

/// `dropwatch | head -n 1`: the reader has enough, and that is success.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_reader_that_goes_away_is_success() {
    for format in ["text", "classic", "json"] {
        let started = Instant::now();
        let output = Command::new("timeout")
            .args(["60", "sh", "-c"])
            .arg(r#"{ "$0" -i 50ms --format "$1"; echo "status $?" >&2; } | head -n 1"#)
            .arg(binary())
            .arg(format)
            .output()
            .unwrap();
        // The classic format has its notices there.
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(stderr.lines().last(), Some("status 0"), "{format}: {stderr}");
        assert_eq!(output.stdout.iter().filter(|&&byte| byte == b'\n').count(), 1);
        assert!(started.elapsed() < longer(Duration::from_secs(15)), "{format} went on");
    }
}

/// Two Ctrl-C in a row must not cut the output in the middle of a line.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_impatient_ctrl_c_leaves_no_partial_line() {
    let run = Run::of(&mut dropwatch(&["--json", "-i", "10ms"]));
    run.0.signal(Signal::SIGINT).unwrap();
    // May have ended already.
    let _ = run.0.signal(Signal::SIGINT);
    let ended = run.0.finish().unwrap();
    for line in &ended.lines {
        serde_json::from_str::<serde_json::Value>(line)
            .unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}
