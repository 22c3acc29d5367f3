//! What the kernel says about a loaded program, and about a map.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use super::RunTime;

/// The lines behind a descriptor (`bpf_prog_show_fdinfo` and `bpf_map_show_fdinfo`,
/// kernel/bpf/syscall.c).
pub(super) struct Info(String);

pub(super) fn read(of: impl AsFd) -> io::Result<Info> {
    fs::read_to_string(format!("/proc/self/fdinfo/{}", of.as_fd().as_raw_fd())).map(Info)
}

impl Info {
    /// How often the kernel skipped the program because it was running on that CPU already.
    ///
    /// `recursion_misses`: Linux 5.12; counted for raw tracepoints from 6.0. Where the line is
    /// absent the kernel runs the program nested, and skips nothing.
    pub(super) fn recursion_misses(&self) -> u64 {
        self.value("recursion_misses:").unwrap_or(0)
    }

    /// The number by which programs are found.
    pub(super) fn id(&self) -> Option<u32> {
        self.value("prog_id:")?.try_into().ok()
    }

    /// `run_cnt` and `run_time_ns`, which grow while statistics are enabled (Linux 5.1).
    pub(super) fn run_time(&self) -> Option<RunTime> {
        let (runs, nanos) = (self.value("run_cnt:")?, self.value("run_time_ns:")?);
        Some(RunTime { runs, time: Duration::from_nanos(nanos) })
    }

    /// Bytes that a map takes in the kernel, for all CPUs (`memlock`; Linux 6.4 counts them, older
    /// kernels estimate).
    pub(super) fn memory(&self) -> Option<u64> {
        self.value("memlock:")
    }

    fn value(&self, name: &str) -> Option<u64> {
        self.0.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_where_the_kernel_has_them() {
        let info = |text: &str| Info(text.to_owned());
        let newer =
            info("pos:\t0\nprog_type:\t17\nprog_id:\t9\nrun_cnt:\t0\nrecursion_misses:\t42\n");
        assert_eq!((newer.recursion_misses(), newer.id()), (42, Some(9)));
        let measured = info("run_time_ns:\t9000\nrun_cnt:\t300\n").run_time();
        assert_eq!(measured, Some(RunTime { runs: 300, time: Duration::from_nanos(9_000) }));
        assert_eq!(newer.run_time(), None);
        assert_eq!(info("map_type:\t27\nmemlock:\t1057760\n").memory(), Some(1_057_760));
        let older = info("pos:\t0\nprog_type:\t17\n");
        assert_eq!((older.recursion_misses(), older.id()), (0, None));
    }
}
