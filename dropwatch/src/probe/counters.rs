//! Reading what the kernel has counted.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use aya::{Pod, maps::PerCpuValues};
use dropwatch_common::Lost as Cause;

use super::Probe;
use crate::report::snapshot::{Counters, Lost};

impl Probe {
    /// Every counter, summed over CPUs.
    ///
    /// Exact after [`Probe::detach`]. While attached, drops that happen during the read may or may
    /// not be in it; whatever is not will be in the next one, because counters only grow.
    pub fn read(&self) -> Result<Counters> {
        let drops = self
            .drops
            .iter()
            .map(|entry| entry.map(|(key, values)| (key, sum(&values, |counter| counter.count))))
            .collect::<Result<_, _>>()
            .context("cannot read the drop counters")?;
        let slot = |cause: Cause| {
            self.lost
                .get(&(cause as u32), 0)
                .map(|values| sum(&values, |count| *count))
                .context("cannot read the counters of lost drops")
        };
        let lost = Lost {
            map_full: slot(Cause::MapFull)?,
            map_busy: slot(Cause::MapBusy)?,
            recursion: recursion_misses(&self.program)
                .context("cannot read how often the kernel skipped the program")?,
            samples: slot(Cause::Sample)?,
            stacks: slot(Cause::Stack)?,
        };
        Ok(Counters { drops, lost })
    }

    /// Whether the counters can be read with the capabilities of this moment.
    pub fn is_readable(&self) -> bool {
        self.lost.get(&(Cause::MapFull as u32), 0).is_ok()
    }
}

fn sum<V: Pod>(values: &PerCpuValues<V>, count: impl Fn(&V) -> u64) -> u64 {
    values.iter().map(count).sum()
}

/// How often the kernel skipped the program because it was running on that CPU already.
///
/// `recursion_misses` in the descriptor's information (`bpf_prog_show_fdinfo`,
/// kernel/bpf/syscall.c, Linux 5.12; counted for raw tracepoints from 6.0). Where the line is
/// absent the kernel runs the program nested, and skips nothing.
fn recursion_misses(program: &OwnedFd) -> io::Result<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    Ok(parse_recursion_misses(&info))
}

fn parse_recursion_misses(info: &str) -> u64 {
    info.lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::parse_recursion_misses;

    #[test]
    fn skipped_runs_are_read_where_the_kernel_counts_them() {
        let info = "pos:\t0\nprog_type:\t17\nrun_cnt:\t0\nrecursion_misses:\t42\n";
        assert_eq!(parse_recursion_misses(info), 42);
        assert_eq!(parse_recursion_misses("pos:\t0\nprog_type:\t17\n"), 0);
    }
}
