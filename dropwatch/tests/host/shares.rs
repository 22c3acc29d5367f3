//! Shares of a flood whose true ones are known: as far off as chance allows for samples of these weights,
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
/// A share that honest samples would show less often than this is wrong: a test holds some hundred
/// shares against it, and runs many thousand times.
const IMPROBABLE: f64 = 1e-9;
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

/// No less than the chance that samples of these weights show `found` or more of what has `share`.
///
/// Chernoff's bound with the weights themselves. A normal error would be wrong here: a twentieth of a
/// few dozen samples is skewed, and four or five errors too many are then nothing rare.
fn chance_of_more(weights: &[f64], share: f64, found: f64) -> f64 {
    if found <= share {
        return 1.0;
    }
    let all: f64 = weights.iter().sum();
    let most = weights.iter().copied().fold(0.0, f64::max);
    let exponent = |tilt: f64| {
        let of_samples: f64 =
            weights.iter().map(|weight| (share * (tilt * weight).exp_m1()).ln_1p()).sum();
        of_samples - tilt * found * all
    };
    (1..=200).map(|step| exponent(f64::from(step) * 0.05 / most)).fold(0.0, f64::min).exp()
}

/// Fails if chance alone does not explain that `found` was seen instead of `share`.
fn expect_near(weights: &[f64], share: f64, found: f64, of: &str) {
    let chance = chance_of_more(weights, share, found).min(chance_of_more(
        weights,
        1.0 - share,
        1.0 - found,
    ));
    assert!(chance > IMPROBABLE, "{found} of {of}, not {share}: by chance {chance:e} at most");
}

#[test]
fn chance_is_bounded_by_the_binomial_tail() {
    // Of 26 samples: six or more of what has a twentieth, by the binomial distribution 0.0015.
    let six = chance_of_more(&[1.0; 26], 0.05, 6.0 / 26.0);
    assert!((0.0015..0.015).contains(&six), "{six}");
    // All heads in thirty throws: 2^-30, where the bound's best tilt is without end.
    let heads = chance_of_more(&[2.5; 30], 0.5, 1.0);
    assert!((0.9..2.0).contains(&(heads * 2f64.powi(30))), "{heads}");
    assert_eq!(chance_of_more(&[1.0, 9.0], 0.5, 0.5), 1.0);
    // One heavy sample among light ones decides the share by itself.
    let heavy = [&[100.0][..], &[1.0; 100]].concat();
    assert!(chance_of_more(&heavy, 0.05, 0.52) > 0.05, "{}", chance_of_more(&heavy, 0.05, 0.52));
    assert!(chance_of_more(&[1.0; 101], 0.05, 0.52) < 1e-30);
}

/// Each ethertype has its share of the weight of the flood's samples; and so has what the row says of
/// the most frequent one.
fn expect_equal_shares(kinds: u16) {
    let share = 1.0 / f64::from(kinds);
    let mut sums = vec![0.0; kinds.into()];
    let mut weights_of_all = Vec::new();
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
        let weights: Vec<f64> = samples.iter().map(|it| it.weight as f64 / all as f64).collect();
        for (kind, sum) in ethertypes(kinds).into_iter().zip(&mut sums) {
            let of_kind = samples.iter().filter(|it| it.ethertype == kind);
            let found = of_kind.map(|it| it.weight).sum::<u64>() as f64 / all as f64;
            expect_near(&weights, share, found, &format!("{kind:#x}"));
            *sum += found;
        }

        let details = details(&recording);
        let worth = details.effective_samples.expect("said by this version");
        assert!(worth > 20.0 && worth <= details.samples as f64, "{details:#?}");
        let precision = details.precision();
        assert!(matches!(precision, Precision::Estimated(_)), "{precision:?}");
        let most = details.protocol.as_ref().expect("an ethertype").share;
        expect_near(&weights, share, most, "the row's most frequent");
        assert!(precision.at_least(most) < (1.0 + share) / 2.0, "no majority of what has {share}");
        weights_of_all.extend(weights);
    }
    for sum in sums {
        expect_near(&weights_of_all, share, sum / RUNS as f64, "all runs on average");
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
