//! Reading what the kernel has counted.

use std::{
    collections::HashMap,
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use aya::{Pod, maps::PerCpuValues};
use dropwatch_common::{Lost as Cause, filter::Group};

use super::Probe;
use crate::report::snapshot::{Counters, Lost};

impl Probe {
    /// Every counter, summed over CPUs unless they are counted by CPU.
    ///
    /// Exact after [`Probe::detach`]. While attached, drops that happen during the read may or may
    /// not be in it; whatever is not will be in the next one, because counters only grow.
    pub fn read(&self) -> Result<Counters> {
        let mut groups = HashMap::new();
        let mut drops = HashMap::new();
        let by_place = self.grouping.of_places();
        for entry in self.drops.iter() {
            let (key, values) = entry.context("cannot read the drop counters")?;
            if by_place {
                add_per_cpu(&mut groups, EVERY, values.iter().map(|counter| counter.count));
            }
            drops.insert(key, sum(&values, |counter| counter.count));
        }
        for entry in self.groups.iter() {
            let (group, values) = entry.context("cannot read the counters by group")?;
            if self.grouping.by_cpu {
                add_per_cpu(&mut groups, group, values.iter().copied());
            } else {
                groups.insert((group, None), sum(&values, |count| *count));
            }
        }
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
            pcap: 0, // not the kernel's to know
        };
        let undecided = slot(Cause::Undecided)?;
        let ungrouped = slot(Cause::Group)?;
        Ok(Counters { drops, lost, undecided, groups, ungrouped })
    }

    /// Whether the counters can be read with the capabilities of this moment.
    pub fn is_readable(&self) -> bool {
        self.lost.get(&(Cause::MapFull as u32), 0).is_ok()
    }
}

/// The one group of drops that are told apart by nothing but their CPU.
const EVERY: Group = Group { known: 1, netns: 0, ifindex: 0, network: 0, transport: 0 };

/// Adds the counts of each CPU that has any.
fn add_per_cpu(
    groups: &mut HashMap<(Group, Option<u32>), u64>,
    group: Group,
    counts: impl Iterator<Item = u64>,
) {
    for (cpu, count) in (0..).zip(counts).filter(|(_, count)| *count > 0) {
        *groups.entry((group, Some(cpu))).or_default() += count;
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
