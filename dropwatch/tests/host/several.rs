//! Several runs at once, many in a row, and one that is killed: counts stay exact, nothing stays
//! in the kernel.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use nix::sys::signal::Signal;
use testbed::{
    flood::Wire,
    machine::fewer,
    udp::{ClosedPort, Family},
};

use crate::harness::{ETHERTYPE, Held, RECEIVE_PATH, Run, UDP4};

#[test]
#[ignore = "needs root: cargo xtask test"]
fn three_at_once_count_the_same() {
    // On a slow machine more would wait in the CPU's backlog than that has room for.
    let n = fewer(5_000);
    let closed = ClosedPort::new().unwrap();
    let runs =
        ["100ms", "250ms", "1h"].map(|interval| Run::within(&[closed.netns()], &["-i", interval]));
    closed.send(Family::V4, n).unwrap();
    for recording in runs.map(Run::stop) {
        assert_eq!(recording.count(UDP4), n);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn fifty_starts_and_stops_under_load_leave_nothing() {
    let mut held = Held::default();
    let wire = Wire::new().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                wire.flood(fewer(10_000), None).unwrap();
            }
        });
        let stop_at_end = StopAtEnd(&stop);
        for round in 0..fewer(50).max(5) {
            let run = Run::start(&["-i", "20ms"]);
            held.add(Held::by(run.0.pid()));
            std::thread::sleep(Duration::from_millis(round % 5 * 10));
            let recording = run.stop();
            assert_eq!(recording.lost(), recording.end.lost, "round {round}");
        }
        // One that is surely up while frames are dropped.
        let before = wire.received().unwrap().rx_dropped;
        let run = Run::start(&["--proto", ETHERTYPE]);
        while wire.received().unwrap().rx_dropped < before + fewer(100_000) {
            assert!(!flood.is_finished(), "the flood has failed");
        }
        assert!(run.stop().count(RECEIVE_PATH) > 0);
        drop(stop_at_end);
    });
    assert!(held.programs.len() >= 5, "{held:?}");
    held.expect_gone();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_killed_run_leaves_nothing() {
    let run = Run::start(&["-i", "100ms"]);
    let held = Held::by(run.0.pid());
    assert_eq!((held.programs.len(), held.links.len()), (1, 1), "while it runs: {held:?}");
    assert!(!held.maps.is_empty(), "{held:?}");
    run.0.signal(Signal::SIGKILL).unwrap();
    assert_eq!(run.0.finish().unwrap().status.code(), None);
    held.expect_gone();

    // And the next one starts and counts as if nothing had been.
    let closed = ClosedPort::new().unwrap();
    let run = Run::within(&[closed.netns()], &[]);
    closed.send(Family::V4, 10).unwrap();
    assert_eq!(run.stop().count(UDP4), 10);
}

/// Ends the flood even when an assertion fails, or its scope would wait for ever.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
