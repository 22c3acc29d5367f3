//! The kernel side's own schedule of samples, run outside the kernel on floods whose shares are known.

use dropwatch_common::{
    Counter,
    schedule::{FINEST, WHOLE, fineness, is_due, schedule},
};

/// Runs of each kind.
const SEEDS: u64 = 40;
/// Drops of a flood on one CPU in an interval.
const FLOOD: u64 = 300_000;

/// SplitMix64, as a source of random numbers that a failure can be repeated with.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 32) as u32
    }
}

/// The samples that are taken of so many further drops of a key in an interval: which drop each is of,
/// and what it stands for.
fn sample(
    counter: &mut Counter,
    drops: u64,
    epoch: u32,
    fineness: u32,
    random: &mut Random,
) -> Vec<(u64, u64)> {
    let mut taken = Vec::new();
    for _ in 0..drops {
        counter.count += 1;
        let count = counter.count;
        if is_due(counter.next, counter.epoch, count, epoch) {
            taken.push((count, schedule(counter, count, epoch, fineness, random.next())));
        }
    }
    taken
}

/// Part of the weight that is of drops of the kind, and how many equal samples say as much (Kish).
fn share(samples: &[(u64, u64)], is_of_kind: impl Fn(u64) -> bool) -> (f64, f64) {
    let weight = |it: &(u64, u64)| it.1 as f64;
    let all: f64 = samples.iter().map(weight).sum();
    let of_kind: f64 = samples.iter().filter(|it| is_of_kind(it.0)).map(weight).sum();
    let squares: f64 = samples.iter().map(|it| weight(it).powi(2)).sum();
    (of_kind / all, all * all / squares)
}

/// The mean of `runs` shares is `true_share`, and each is as far from it as its number of samples allows.
fn assert_honest(runs: &[(f64, f64)], true_share: f64, what: &str) {
    let mut squares = 0.0;
    for (share, effective) in runs {
        let error = (true_share * (1.0 - true_share) / effective).sqrt();
        let off = (share - true_share) / error;
        assert!(off.abs() < 4.5, "{what}: {share} of {effective} samples");
        squares += off * off;
    }
    // Of the squares of so many standard deviations, the mean is 1 and spreads by the root of 2/n.
    let mean = squares / runs.len() as f64;
    assert!(
        mean < 1.0 + 5.0 * (2.0 / runs.len() as f64).sqrt(),
        "{what}: {mean} times the variance"
    );
    let mean = runs.iter().map(|run| run.0).sum::<f64>() / runs.len() as f64;
    let effective = runs.iter().map(|run| run.1).sum::<f64>();
    let error = (true_share * (1.0 - true_share) / effective).sqrt();
    assert!((mean - true_share).abs() < 4.5 * error, "{what}: {mean} on average");
}

/// So many runs of a flood, of which `is_of_kind` picks a part.
fn runs(fineness: u32, drops: u64, is_of_kind: impl Fn(u64) -> bool) -> Vec<(f64, f64)> {
    let run = |seed| {
        let samples = sample(&mut Counter::default(), drops, 1, fineness, &mut Random(seed << 32));
        share(&samples, &is_of_kind)
    };
    (0..SEEDS).map(run).collect()
}

#[test]
fn of_twenty_equal_flows_each_has_its_twentieth() {
    // In a row, and by chance.
    for flow in 0..20 {
        let in_turn = runs(FINEST, FLOOD, |drop| drop % 20 == flow);
        assert_honest(&in_turn, 0.05, &format!("flow {flow} in turn"));
        let by_chance = |drop: u64| u64::from(Random(drop ^ 0x5eed).next() % 20) == flow;
        assert_honest(&runs(FINEST, FLOOD, by_chance), 0.05, &format!("flow {flow} by chance"));
    }
}

#[test]
fn of_alternating_protocols_each_has_its_half() {
    for fineness in 0..=FINEST {
        // While gaps are a few drops wide, and in a flood.
        for drops in [40, 80, 200, 1000, FLOOD] {
            let what = format!("{drops} drops at fineness {fineness}");
            assert_honest(&runs(fineness, drops, |drop| drop % 2 == 0), 0.5, &what);
        }
    }
}

#[test]
fn no_short_period_falls_in_step() {
    for period in 2..=33 {
        let shares = runs(FINEST, 2000, |drop| drop % period == 0);
        assert_honest(&shares, 1.0 / period as f64, &format!("one in {period}"));
    }
}

#[test]
fn the_first_drops_are_taken_one_by_one_at_any_fineness() {
    for fineness in 0..=FINEST {
        let mut counter = Counter::default();
        let drops = u64::from(WHOLE);
        let samples = sample(&mut counter, drops, 1, fineness, &mut Random(1));
        assert_eq!(samples, (1..=drops).map(|drop| (drop, 1)).collect::<Vec<_>>());
    }
    let twice = u64::from(2 * WHOLE);
    let samples = sample(&mut Counter::default(), twice, 1, FINEST, &mut Random(1));
    assert_eq!(samples.len() as u64, twice, "where there is room, twice as many");
}

#[test]
fn a_flood_has_some_hundred_samples_none_of_which_stands_for_much() {
    for seed in 0..SEEDS / 4 {
        let samples =
            sample(&mut Counter::default(), 10_000_000, 1, FINEST, &mut Random(seed << 32));
        assert!((250..700).contains(&samples.len()), "{}", samples.len());
        let most = samples.iter().map(|(drop, weight)| *weight as f64 / *drop as f64);
        let most = most.skip(WHOLE as usize).fold(0.0, f64::max);
        assert!(most <= 1.0 / 8.0, "a sample stood for {most} of what was counted by then");
        let (_, effective) = share(&samples, |_| true);
        assert!(effective > 30.0, "{effective}");
    }
}

#[test]
fn weights_add_up_to_the_count_over_intervals_and_finenesses() {
    for seed in 0..SEEDS {
        let (mut counter, mut random) = (Counter::default(), Random(seed << 32));
        let mut sum = 0;
        for epoch in 0..50 {
            let (drops, fineness) = (random.next() % 3000, random.next() % (FINEST + 1));
            let samples = sample(&mut counter, drops.into(), epoch, fineness, &mut random);
            sum += samples.iter().map(|it| it.1).sum::<u64>();
            let last = samples.last().map_or(counter.sampled, |it| it.0);
            assert_eq!((sum, counter.sampled), (last, last));
            assert!(samples.iter().all(|it| it.1 > 0));
            assert!(drops == 0 || !samples.is_empty(), "the first of an interval is sampled");
        }
        assert!(sum <= counter.count);
    }
}

#[test]
fn what_was_left_of_an_interval_does_not_widen_the_gaps_of_the_next() {
    let (mut counter, mut random) = (Counter::default(), Random(3));
    sample(&mut counter, FLOOD, 1, FINEST, &mut random);
    let samples = sample(&mut counter, 10, 2, FINEST, &mut random);
    assert_eq!(samples.len(), 10);
    assert!(samples[1..].iter().all(|it| it.1 == 1));
}

#[test]
fn an_interval_without_end_does_not_overflow() {
    let start = u64::from(u32::MAX) - 5;
    let mut counter = Counter { count: start, sampled: 0, ..Counter::default() };
    counter.epoch = 1;
    for step in 1..=10 {
        counter.count = start * step;
        schedule(&mut counter, start * step, 1, 0, u32::MAX);
        assert!(counter.next > counter.count && counter.next <= counter.count + (1 << 32));
    }
    assert_eq!(counter.counted, u32::MAX);
}

#[test]
fn the_fuller_the_buffer_the_coarser() {
    let size = 2 << 20;
    let by_fill: Vec<u32> = (0..=10).map(|tenth| fineness(size * tenth / 10, size)).collect();
    assert_eq!((by_fill[0], by_fill[5], by_fill[10]), (FINEST, 2, 0));
    assert!(by_fill.is_sorted_by(|a, b| a >= b));
    assert_eq!(fineness(0, 0), 0);
}
