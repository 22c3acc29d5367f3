//! What the program in the kernel costs, as the kernel itself measures it.

use std::{io, os::fd::OwnedFd, time::Duration};

use aya::sys::{Stats, enable_stats};

use super::{Probe, info};

/// Runs of the program since it was loaded, while the kernel measured them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunTime {
    pub runs: u64,
    /// Time of all runs together. It includes what measuring takes, some tens of nanoseconds a run.
    pub time: Duration,
}

impl RunTime {
    /// Runs and time since an earlier reading.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            runs: self.runs.saturating_sub(earlier.runs),
            time: self.time.saturating_sub(earlier.time),
        }
    }

    /// Mean time of one run, nanoseconds; `None` where there was no run.
    pub fn each(self) -> Option<f64> {
        (self.runs > 0).then(|| self.time.as_secs_f64() * 1e9 / self.runs as f64)
    }
}

/// Lets the kernel measure the run time of all programs, for as long as the descriptor is open
/// (`BPF_ENABLE_STATS`, Linux 5.8).
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn measure_run_time() -> io::Result<OwnedFd> {
    enable_stats(Stats::RunTime).map_err(|error| error.io_error)
}

impl Probe {
    /// How often the programs have run, and for how long.
    pub fn run_time(&self) -> io::Result<RunTime> {
        self.programs.iter().try_fold(RunTime::default(), |sum, program| {
            let one = info::read(program)?.run_time().ok_or_else(|| {
                io::Error::other("this kernel does not tell the run time of programs")
            })?;
            Ok(RunTime { runs: sum.runs + one.runs, time: sum.time + one.time })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_differences() {
        let at = |runs, nanos| RunTime { runs, time: Duration::from_nanos(nanos) };
        let cost = at(300, 9_000).since(at(100, 3_000));
        assert_eq!((cost, cost.each()), (at(200, 6_000), Some(30.0)));
        assert_eq!(at(100, 3_000).since(at(100, 3_000)).each(), None);
    }
}
