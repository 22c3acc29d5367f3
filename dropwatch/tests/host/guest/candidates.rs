//! Every way to attach counts the same.

use std::collections::BTreeMap;

use testbed::{
    flood::Wire,
    machine::fewer,
    udp::{ClosedPort, Family},
};

use super::need_guest;
use crate::harness::{Recording, Run, has_reasons, output};

/// Drops that are watched by every way at once: with and without samples, with reasons, where the
/// kernel has them, and without.
#[test]
#[ignore = "needs a guest: cargo xtask vm"]
fn all_candidates_count_the_same() {
    need_guest();
    let (wire, closed) = (Wire::new().unwrap(), ClosedPort::new().unwrap());
    let without_reasons = ["--candidate", "without-reasons"];
    let runs = [
        (has_reasons(), Run::start(&[])),
        (has_reasons(), Run::start(&["--no-samples"])),
        (false, Run::start(&without_reasons)),
        (false, Run::start(&[without_reasons.as_slice(), &["--no-samples"]].concat())),
    ];
    wire.flood(fewer(100_000), None).unwrap();
    closed.send(Family::V4, 100).unwrap();
    closed.send(Family::V6, 100).unwrap();
    let counted = runs.map(|(reasons, run)| {
        let recording = run.stop();
        assert!(
            recording.locations().all(|row| row.place.reason.is_some() == reasons),
            "{recording:#?}"
        );
        ours(&recording)
    });
    assert!(counted[0].values().sum::<u64>() >= fewer(100_000) + 200, "{counted:#?}");
    assert!(counted.iter().all(|counts| *counts == counted[0]), "{counted:#?}");
}

/// Counts by place: all of a size that only this test makes.
fn ours(recording: &Recording) -> BTreeMap<(String, u64), u64> {
    let mut places = BTreeMap::new();
    for row in recording.locations() {
        let place = (row.place.symbol.clone().unwrap(), row.place.offset.unwrap());
        *places.entry(place).or_insert(0) += row.count;
    }
    places.retain(|_, count| *count >= 100);
    places
}

#[test]
#[ignore = "needs a guest: cargo xtask vm"]
fn the_first_candidate_is_taken_where_the_kernel_has_reasons() {
    need_guest();
    let page = output(&["doctor"]);
    let page = String::from_utf8(page.stdout).unwrap();
    let line = |number: &str| {
        page.lines().find(|line| line.contains(&format!(" {number}. counts"))).unwrap()
    };
    if has_reasons() {
        assert!(line("1").contains("counts, reasons, namespaces, samples"), "{page}");
        assert!(line("1").ends_with("attached"), "{page}");
    } else {
        // A program whose arguments have types is refused when it is loaded, a raw one when attached.
        assert!(line("1").contains("did not accept the program"), "{page}");
        assert!(line("2").contains("counts, namespaces, samples"), "{page}");
        assert!(line("2").ends_with("attached"), "{page}");
        let refused = output(&["--candidate", "with-reasons", "-d", "1s"]);
        assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    }
}
