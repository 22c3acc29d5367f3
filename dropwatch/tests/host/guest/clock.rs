//! The wall clock is set while dropwatch runs.

use std::time::Duration;

use nix::{
    sys::time::{TimeSpec, TimeValLike},
    time::{ClockId, clock_gettime, clock_settime},
};
use testbed::udp::{ClosedPort, Family};

use super::need_guest;
use crate::harness::{Run, UDP4};

/// An hour ahead and two back: intervals, rates and counts do not care.
#[test]
#[ignore = "needs a guest: cargo xtask vm"]
fn a_clock_that_is_set_changes_no_interval() {
    need_guest();
    let closed = ClosedPort::new().unwrap();
    let run = Run::start(&["-i", "500ms"]);
    for hours in [1, -2, 1] {
        std::thread::sleep(Duration::from_millis(700));
        closed.send(Family::V4, 10).unwrap();
        let now = clock_gettime(ClockId::CLOCK_REALTIME).unwrap();
        clock_settime(ClockId::CLOCK_REALTIME, now + TimeSpec::hours(hours)).unwrap();
    }
    std::thread::sleep(Duration::from_millis(700));
    let recording = run.stop();
    assert_eq!(recording.count(UDP4), 30, "{recording:#?}");
    let longest = recording.reports.iter().map(|report| report.interval_s).fold(0.0, f64::max);
    assert!(longest < 60.0, "{longest} s");
    let sum: f64 = recording.reports.iter().map(|report| report.interval_s).sum();
    assert!(sum > 2.7 && (sum - recording.end.duration_s).abs() < 0.01, "{sum} s");
    for report in &recording.reports {
        let rate = report.drops as f64 / report.interval_s;
        assert!((report.rate - rate).abs() <= 0.5 + rate / 100.0, "{report:#?}");
    }
}
