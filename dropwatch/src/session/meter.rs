//! What counting costs while it goes on: logged with `-v`, for each interval.

use std::{os::fd::OwnedFd, time::Duration};

use log::debug;

use crate::probe::{Probe, RunTime, measure_run_time};

/// As a percentage with two decimals; a share that these would show as zero is a bound instead.
pub fn share_of_a_core(cost: RunTime, elapsed: Duration) -> String {
    let percent = cost.time.as_secs_f64() / elapsed.as_secs_f64().max(f64::MIN_POSITIVE) * 100.0;
    match percent {
        0.01.. => format!("{percent:.2} %"),
        _ => "less than 0.01 %".to_owned(),
    }
}

/// Logs what counting cost in each interval of a run with `-v`.
pub struct Meter {
    _measuring: OwnedFd,
    seen: RunTime,
    /// Since attach.
    at: Duration,
}

impl Meter {
    /// Has the kernel measure programs; where it may not, says so.
    pub fn start() -> Option<Self> {
        match measure_run_time() {
            Ok(measuring) => {
                Some(Self { _measuring: measuring, seen: RunTime::default(), at: Duration::ZERO })
            }
            Err(error) => {
                debug!("what counting costs cannot be told (it takes CAP_SYS_ADMIN): {error}");
                None
            }
        }
    }

    /// Logs what counting has cost since the last call, up to `at` after attaching.
    pub fn log(&mut self, probe: &Probe, at: Duration) {
        let Ok(now) = probe.run_time() else { return };
        let cost = now.since(self.seen);
        if let Some(each) = cost.each() {
            let share = share_of_a_core(cost, at.saturating_sub(self.at));
            debug!("counting {} drops took {each:.0} ns each, {share} of a core", cost.runs);
        }
        (self.seen, self.at) = (now, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_shares_are_not_rounded_to_nothing() {
        let cost = RunTime { runs: 1, time: Duration::from_nanos(40) };
        assert_eq!(share_of_a_core(cost, Duration::from_secs(5)), "less than 0.01 %");
    }
}
