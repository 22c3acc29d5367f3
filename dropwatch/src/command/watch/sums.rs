//! What a whole run comes to.

use std::time::Duration;

use crate::{
    exit::Failure,
    report::{model::Report, number::exact_per_second, summary::Summing},
    settings::{Limits, Reported},
};

/// The sums of a run, where anything rests on them.
pub(super) struct Sums {
    needed: bool,
    pub(super) summing: Summing,
    interval: Duration,
    /// The highest rate of what is not known to be harmless, in a full interval.
    highest: f64,
}

impl Sums {
    pub(super) fn new(reported: &Reported, of_command: bool) -> Self {
        let needed = reported.limits.are_set() || of_command;
        Self { needed, summing: Summing::default(), interval: reported.interval, highest: 0.0 }
    }

    pub(super) fn add(&mut self, report: &Report) {
        if !self.needed {
            return;
        }
        let before = self.summing.harmful();
        self.summing.add(report);
        // The last interval of a run may be so short that a single drop makes a high rate.
        if report.interval_s >= self.interval.as_secs_f64() * 0.9 {
            let drops = self.summing.harmful() - before;
            self.highest = self.highest.max(exact_per_second(drops, report.interval_s));
        }
    }

    pub(super) fn check(&self, limits: Limits) -> Result<(), Failure> {
        limits.check(&self.summing, self.highest)
    }
}
