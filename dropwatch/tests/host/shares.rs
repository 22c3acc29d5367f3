//! Shares of a flood whose true ones are known: as far off as the effective number of samples allows,
//! and no further.

use dropwatch::report::{
    facts::Details,
    model::{Location, Sampled},
    precision::{Precision, effective},
};
use testbed::{flood::Wire, machine::fewer};

use crate::harness::{RECEIVE_PATH, Recording, Run, is_at};

/// Floods of each kind.
const RUNS: usize = 4;
/// Frames of each.
const FRAMES: u64 = 400_000;
/// Standard errors that one share in many may be off.
const FAR: f64 = 4.5;
/// Ethertypes that no protocol has, in the range that was experimental once.
const FIRST: u16 = 0x0a10;

fn ethertypes(kinds: u16) -> Vec<u16> {
    (FIRST..FIRST + kinds).collect()
}

/// A flood of so many ethertypes in turn, in one report.
fn recording(kinds: u16) -> Recording {
    let wire = Wire::new().unwrap();
    let run = Run::within(&[wire.receiver()], &["-i", "1m", "--samples"]);
    let frames = fewer(FRAMES);
    let sent = wire.flood_in_turn(&ethertypes(kinds), frames).unwrap();
    assert_eq!((sent.accepted, sent.refused), (frames, 0));
    let recording = run.stop();
    assert_eq!(recording.count(RECEIVE_PATH), frames, "counts are exact whatever is sampled");
    recording
}

fn details(recording: &Recording) -> &Details {
    let rows = recording.locations().filter(|row| is_at(row, RECEIVE_PATH));
    let row: &Location = rows.max_by_key(|row| row.count).expect("the flood's row");
    row.details.as_ref().expect("samples")
}

fn error(share: f64, effective: f64) -> f64 {
    (share * (1.0 - share) / effective).sqrt()
}

/// Each ethertype has its share of the weight of the flood's samples; and so has what the row says of
/// the most frequent one.
fn expect_equal_shares(kinds: u16) {
    let share = 1.0 / f64::from(kinds);
    let mut sums = vec![0.0; kinds.into()];
    let mut inverse = 0.0;
    for _ in 0..RUNS {
        let recording = recording(kinds);
        let samples: Vec<&Sampled> = recording
            .samples
            .iter()
            .filter(|it| ethertypes(kinds).contains(&it.ethertype))
            .collect();
        let all: u64 = samples.iter().map(|it| it.weight).sum();
        assert!(all <= fewer(FRAMES) && all * 100 >= fewer(FRAMES) * 75, "{all} drops stood for");
        let most = samples.iter().map(|it| it.weight).max().unwrap();
        assert!(most * 8 <= all, "one sample stands for {most} of {all}");
        let worth = effective(samples.iter().map(|it| it.weight));
        assert!(worth > 25.0 && samples.len() > 100, "{worth} of {}", samples.len());
        inverse += 1.0 / worth;
        for (kind, sum) in ethertypes(kinds).into_iter().zip(&mut sums) {
            let of_kind = samples.iter().filter(|it| it.ethertype == kind);
            let found = of_kind.map(|it| it.weight).sum::<u64>() as f64 / all as f64;
            assert!((found - share).abs() < FAR * error(share, worth), "{kind:#x}: {found}");
            *sum += found;
        }

        let details = details(&recording);
        let worth = details.effective_samples.expect("said by this version");
        assert!(worth > 20.0 && worth <= details.samples as f64, "{details:#?}");
        let precision = details.precision();
        assert!(matches!(precision, Precision::Estimated(_)), "{precision:?}");
        let most = details.protocol.as_ref().expect("an ethertype").share;
        assert!((most - share).abs() < FAR * error(share, worth), "{most} of {details:#?}");
        assert!(precision.at_least(most) < share + 0.1, "no majority of what has {share}");
    }
    for sum in sums {
        // The error of a mean of so many.
        let error = (share * (1.0 - share) * inverse).sqrt() / RUNS as f64;
        let mean = sum / RUNS as f64;
        assert!((mean - share).abs() < FAR * error, "{mean} on average, not {share}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn twenty_equal_flows_have_a_twentieth_each() {
    expect_equal_shares(20);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn two_alternating_protocols_have_half_each() {
    expect_equal_shares(2);
}
