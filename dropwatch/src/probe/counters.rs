//! Reading what the kernel has counted.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use dropwatch_common::{Counter, DropKey, Lost as Cause, count::Front, filter::Group};

use super::{Probe, maps::PerCpuMap, sums::Sums};
use crate::report::snapshot::{Counters, Lost};

/// The maps that have counts.
pub(super) struct Maps {
    pub(super) front: PerCpuMap<u32, Front>,
    pub(super) drops: PerCpuMap<DropKey, Counter>,
    pub(super) groups: PerCpuMap<Group, u64>,
    pub(super) lost: PerCpuMap<u32, u64>,
}

impl Probe {
    /// Every counter, summed over CPUs unless they are counted by CPU.
    ///
    /// Exact after [`Probe::detach`]. While attached, drops that happen during the read may or may
    /// not be in it; whatever is not will be in the next one, because counters only grow.
    pub fn read(&self) -> Result<Counters> {
        let maps = &self.maps;
        let mut sums = Sums::new(self.grouping);
        let fronts = maps.front.entry(0).context("cannot read the drop counters")?;
        sums.add_fronts(&fronts);
        let read = maps.drops.each(|key, counters| sums.add_drops(key, counters));
        read.context("cannot read the drop counters")?;
        let read = maps.groups.each(|group, counts| sums.add_group(group, counts));
        read.context("cannot read the counters by group")?;
        let (drops, groups) = sums.into_parts();

        let slot = |cause: Cause| {
            let counts = maps.lost.entry(cause as u32);
            let counts = counts.context("cannot read the counters of lost drops")?;
            Ok::<_, anyhow::Error>(counts.iter().sum::<u64>())
        };
        let lost = Lost {
            map_full: slot(Cause::MapFull)?,
            map_busy: slot(Cause::MapBusy)?,
            recursion: recursion_misses(&self.program)
                .context("cannot read how often the kernel skipped the program")?,
            samples: slot(Cause::Sample)?,
            stacks: slot(Cause::Stack)?,
            pcap: 0, // not the kernel's to know
        };
        let undecided = slot(Cause::Undecided)?;
        let ungrouped = slot(Cause::Group)?;
        Ok(Counters { drops, lost, undecided, groups, ungrouped })
    }

    /// Whether the counters can be read with the capabilities of this moment.
    pub fn is_readable(&self) -> bool {
        self.maps.lost.entry(Cause::MapFull as u32).is_ok()
    }
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
