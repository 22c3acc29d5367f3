//! When reports are due: a fixed grid, so that intervals never drift. It begins at the moment of
//! attaching, or where a run begins in earnest.
//!
//! Pure: moments come in as values.

use std::time::Duration;

const NANOS: u128 = 1_000_000_000;

/// Position on the grid. All times are monotonic, since attach.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    interval: Duration,
    /// Where the grid begins.
    from: Duration,
    /// Grid points that reports have covered.
    done: u64,
}

impl Pace {
    pub fn new(interval: Duration) -> Self {
        Self { interval, from: Duration::ZERO, done: 0 }
    }

    /// Time between two grid points.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Begins the grid anew, at `from`.
    pub fn restart(&mut self, from: Duration) {
        *self = Self { interval: self.interval, from, done: 0 };
    }

    /// When the next report is due. A grid point that has gone by unreported, because the reader
    /// of the output was slow, is not made up for: the next report covers the longer time.
    pub fn due(&self, now: Duration) -> Duration {
        let next = self.done.max(self.passed(now)) + 1;
        let nanos = self.interval.as_nanos() * u128::from(next);
        self.from.saturating_add(Duration::new((nanos / NANOS) as u64, (nanos % NANOS) as u32))
    }

    /// Moves to `now` and returns how many intervals have ended since the last call: more than 1
    /// when grid points went by unreported; at least 1, because a report is of some interval.
    pub fn advance(&mut self, now: Duration) -> u64 {
        let passed = self.passed(now).max(self.done);
        let intervals = passed - self.done;
        self.done = passed;
        intervals.max(1)
    }

    /// Grid points that have gone by unreported.
    pub fn unreported(&self, now: Duration) -> u64 {
        self.passed(now).saturating_sub(self.done)
    }

    fn passed(&self, now: Duration) -> u64 {
        let since = now.saturating_sub(self.from).as_nanos();
        u64::try_from(since / self.interval.as_nanos().max(1)).unwrap_or(u64::MAX - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn reports_are_due_on_the_grid_however_late_the_last_one_was() {
        let mut pace = Pace::new(MS(100));
        assert_eq!(pace.due(MS(0)), MS(100));
        assert_eq!(pace.advance(MS(103)), 1);
        assert_eq!(pace.due(MS(103)), MS(200));
        assert_eq!(pace.advance(MS(219)), 1);
        assert_eq!(pace.due(MS(220)), MS(300));
    }

    #[test]
    fn missed_grid_points_are_merged_into_the_next_report() {
        let mut pace = Pace::new(MS(100));
        pace.advance(MS(101));
        assert_eq!(pace.unreported(MS(199)), 0);
        assert_eq!(pace.due(MS(450)), MS(500));
        assert_eq!(pace.unreported(MS(450)), 3);
        assert_eq!(pace.advance(MS(501)), 4);
        assert_eq!(pace.due(MS(501)), MS(600));
    }

    #[test]
    fn a_grid_may_begin_later() {
        let mut pace = Pace::new(MS(100));
        pace.advance(MS(1020));
        pace.restart(MS(1030));
        assert_eq!(pace.due(MS(1030)), MS(1130));
        assert_eq!(pace.advance(MS(1131)), 1);
        assert_eq!(pace.due(MS(1131)), MS(1230));
    }

    #[test]
    fn the_last_report_is_of_a_partial_interval() {
        let mut pace = Pace::new(MS(100));
        assert_eq!(pace.advance(MS(40)), 1);
        assert_eq!(pace.due(MS(40)), MS(100));
    }
}
