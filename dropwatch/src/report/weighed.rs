//! The samples that a report looks at, and how many drops each of them stands for.

use std::{collections::HashMap, ops::Deref};

use dropwatch_common::DropKey;

use super::{precision::effective, sample::Sample};

/// Most samples of one location and reason that a report looks at.
pub const MAX_SAMPLES: usize = 256;

/// A sample with the drops of the report that it stands for.
#[derive(Clone, Copy, Debug)]
pub struct Weighed<'a> {
    sample: &'a Sample,
    pub weight: u64,
}

impl Deref for Weighed<'_> {
    type Target = Sample;

    fn deref(&self) -> &Sample {
        self.sample
    }
}

/// Samples by their keys, at most [`MAX_SAMPLES`] of each, in an order that does not depend on that
/// of `samples`.
pub fn weighed(
    samples: &[Sample],
    key: impl Fn(&Sample) -> DropKey,
) -> HashMap<DropKey, Vec<Weighed<'_>>> {
    at_most(MAX_SAMPLES, samples, key)
}

/// Forgets samples, so that at most `most` are left of all keys together, and one of each at least; those
/// stand for the drops of all.
pub fn thin(samples: &mut Vec<Sample>, most: usize) {
    let mut each = MAX_SAMPLES;
    while samples.len() > most && each > 0 {
        let by_key = at_most(each, samples, |sample| sample.key);
        let kept = by_key.into_values().flatten().map(|Weighed { sample, weight }| Sample {
            weight,
            carried: 0,
            ..sample.clone()
        });
        *samples = kept.collect();
        each /= 2;
    }
}

fn at_most(
    each: usize,
    samples: &[Sample],
    key: impl Fn(&Sample) -> DropKey,
) -> HashMap<DropKey, Vec<Weighed<'_>>> {
    let mut by_key: HashMap<_, Vec<_>> = HashMap::new();
    for sample in samples {
        let weighed = Weighed { sample, weight: sample.within_interval() };
        by_key.entry(key(sample)).or_default().push(weighed);
    }
    for samples in by_key.values_mut() {
        samples.sort_by_key(|it| (it.key, it.cpu, it.time, it.weight));
        if samples.len() > each {
            *samples = thinned(samples, each);
        }
    }
    by_key
}

/// So many of the samples at most, which stand for the drops of all.
///
/// The drops that all stand for, in a row, are cut into equal pieces, and one drop is drawn of each: its
/// sample stands for the piece. The heaviest samples instead would leave out who has dropped few. The
/// draw is by chance, so that it is not in step with samples that alternate, but the same each time.
fn thinned<'a>(samples: &[Weighed<'a>], most: usize) -> Vec<Weighed<'a>> {
    let total = u128::from(weigh(samples));
    let mut kept: Vec<Weighed<'_>> = Vec::with_capacity(most);
    let mut at = 0;
    let mut until = samples.first().map_or(0, |it| u128::from(it.weight));
    let mut last = None;
    for piece in 0..most as u128 {
        let bound = |piece: u128| total * piece / most as u128;
        let (begin, end) = (bound(piece), bound(piece + 1));
        let drawn = begin + (end - begin) * u128::from(chance(piece as u64)) / (1 << 32);
        while until <= drawn && at + 1 < samples.len() {
            at += 1;
            until += u128::from(samples[at].weight);
        }
        let weight = (end - begin) as u64;
        match kept.last_mut() {
            Some(kept) if last == Some(at) => kept.weight += weight,
            _ => kept.push(Weighed { weight, ..samples[at] }),
        }
        last = Some(at);
    }
    kept
}

/// 32 bits that follow from `number` without a pattern (SplitMix64).
fn chance(number: u64) -> u32 {
    let mut z = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ z >> 31) >> 32) as u32
}

/// Takes from samples, the first ones, what they stand for beyond so many `drops`, and those that
/// then stand for none: a drop that comes while the counters are read can be counted in one report and
/// have its sample in the next.
pub fn limit(samples: &mut Vec<Weighed<'_>>, drops: u64) {
    let mut beyond = weigh(samples).saturating_sub(drops);
    samples.retain_mut(|sample| {
        let taken = beyond.min(sample.weight);
        sample.weight -= taken;
        beyond -= taken;
        sample.weight > 0
    });
}

/// Drops that samples stand for.
pub fn weigh(samples: &[Weighed<'_>]) -> u64 {
    samples.iter().fold(0, |sum: u64, sample| sum.saturating_add(sample.weight))
}

/// Number of equal samples that say as much.
pub fn worth(samples: &[Weighed<'_>]) -> f64 {
    effective(samples.iter().map(|sample| sample.weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cpu: u32, time: u64, weight: u64) -> Sample {
        Sample { cpu, time, weight, ..Sample::default() }
    }

    fn looked_at(samples: &[Sample]) -> Vec<Weighed<'_>> {
        weighed(samples, |sample| sample.key).remove(&DropKey::default()).expect("samples")
    }

    fn share_of_cpu(samples: &[Weighed<'_>], cpu: u32) -> f64 {
        let part: u64 = samples.iter().filter(|it| it.cpu == cpu).map(|it| it.weight).sum();
        part as f64 / weigh(samples) as f64
    }

    #[test]
    fn few_samples_are_all_looked_at() {
        let samples: Vec<_> = (0..MAX_SAMPLES as u64).map(|n| of(0, n, n + 1)).collect();
        let weights: Vec<_> = looked_at(&samples).iter().map(|it| it.weight).collect();
        assert_eq!(weights, (1..=MAX_SAMPLES as u64).collect::<Vec<_>>());
    }

    #[test]
    fn of_many_samples_all_kinds_keep_their_share() {
        // A hundred light ones for each heavy one, that weigh as much together.
        let mut samples: Vec<_> = (0..30).map(|n| of(0, n, 1000)).collect();
        samples.extend((0..3000).map(|n| of(1, n, 10)));
        let found = looked_at(&samples);
        assert!(found.len() <= MAX_SAMPLES);
        assert_eq!(weigh(&found), 60_000);
        assert!((share_of_cpu(&found, 1) - 0.5).abs() < 0.01);
        let reversed: Vec<_> = samples.iter().rev().cloned().collect();
        let again = looked_at(&reversed);
        let shown = |it: &Weighed<'_>| (it.cpu, it.time, it.weight);
        assert_eq!(
            found.iter().map(shown).collect::<Vec<_>>(),
            again.iter().map(shown).collect::<Vec<_>>()
        );
    }

    #[test]
    fn thinning_is_not_in_step_with_samples_that_alternate() {
        for times in 2..=8 {
            let all = MAX_SAMPLES as u64 * times;
            let samples: Vec<_> =
                (0..all).map(|n| Sample { ifindex: Some((n % 2) as u32), ..of(0, n, 1) }).collect();
            let found = looked_at(&samples);
            assert_eq!(weigh(&found), all);
            let first: u64 =
                found.iter().filter(|it| it.ifindex == Some(0)).map(|it| it.weight).sum();
            let share = first as f64 / all as f64;
            // Three standard errors of as many samples.
            assert!((share - 0.5).abs() < 1.5 / (MAX_SAMPLES as f64).sqrt(), "{share}");
        }
    }

    #[test]
    fn no_weight_is_lost_or_overflows() {
        let samples: Vec<_> = (0..1000).map(|n| of(0, n, u64::MAX)).collect();
        assert_eq!(weigh(&looked_at(&samples)), u64::MAX);
        let samples: Vec<_> = (0..MAX_SAMPLES as u64 + 1).map(|n| of(0, n, n % 3 + 1)).collect();
        let found = looked_at(&samples);
        assert_eq!(weigh(&found), samples.iter().map(|it| it.weight).sum::<u64>());
    }

    #[test]
    fn samples_stand_for_no_more_drops_than_there_were() {
        let samples: Vec<_> = [3, 2, 5].into_iter().zip(0..).map(|(w, n)| of(0, n, w)).collect();
        let limited = |drops| {
            let mut found = looked_at(&samples);
            limit(&mut found, drops);
            found.iter().map(|it| it.weight).collect::<Vec<_>>()
        };
        assert_eq!([limited(11), limited(10)], [[3, 2, 5], [3, 2, 5]]);
        assert_eq!([limited(8), limited(6)], [vec![1, 2, 5], vec![1, 5]]);
        assert_eq!(limited(0), [0; 0]);
    }

    #[test]
    fn drops_of_the_interval_before_do_not_weigh() {
        let mut samples = [of(0, 1, 30_000), of(0, 2, 1), of(1, 3, 1), of(1, 4, 2)];
        Sample::settle_carried(&mut samples);
        let found = looked_at(&samples);
        let weights: Vec<_> = found.iter().map(|it| it.weight).collect();
        assert_eq!((weights, samples[0].weight), (vec![1, 1, 1, 2], 30_000));
    }
}
