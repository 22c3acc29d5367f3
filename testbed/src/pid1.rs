//! Drops that happen while PID 1 is the current task.
//!
//! Softirq work runs in the context of whatever task it interrupts, PID 1 included. Some hardened
//! hosts do not run tracing programs there and count that nowhere, so that no program can be exact
//! about those drops. Perf's own counting is not a program and does see them: this counter tells
//! how many such drops there were, and a test of exactness takes them into account.

use std::{
    ffi::{CStr, CString},
    fs::{self, File},
    io::{self, Read},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result, bail, ensure};

use crate::tracepoint::Tracepoint;

/// `PERF_TYPE_TRACEPOINT`, `PERF_FLAG_FD_CLOEXEC`, `PERF_EVENT_IOC_SET_FILTER`
/// (`include/uapi/linux/perf_event.h`).
const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
const PERF_EVENT_IOC_SET_FILTER: libc::Ioctl =
    nix::request_code_write!(b'$', 6, size_of::<usize>()) as libc::Ioctl;

/// `struct perf_event_attr` as its first version has it (`PERF_ATTR_SIZE_VER0`); the kernel takes
/// the fields that came later as zero.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    /// Sampling, flags and wake-up: all off, so the event counts and nothing else.
    rest: [u64; 6],
}
const _: () = assert!(size_of::<PerfEventAttr>() == 64);

/// Counts `skb:kfree_skb` for the threads of PID 1, on every CPU, from its start on.
#[derive(Debug)]
pub struct Pid1Drops {
    threads: Vec<u32>,
    /// One event a CPU.
    events: Vec<File>,
}

impl Pid1Drops {
    /// # Errors
    /// Without tracefs in the kernel, or without the right to use perf events.
    pub fn start() -> Result<Self> {
        Self::of_threads(threads()?, None)
    }

    /// Counts drops of one ethertype.
    ///
    /// # Errors
    /// As [`Pid1Drops::start`].
    pub fn of_ethertype(ethertype: u16) -> Result<Self> {
        Self::open(&Tracepoint::read()?, threads()?, Some(format!("protocol=={ethertype}")))
    }

    /// Counts drops of one reason, named as the kernel does; all of them where drops have none.
    ///
    /// # Errors
    /// As [`Pid1Drops::start`], and where the kernel has reasons, but not this one.
    pub fn of_reason(reason: &str) -> Result<Self> {
        Self::of_threads(threads()?, Some(reason))
    }

    /// Counts for any threads. It is how the counter itself is tested: PID 1 cannot be made to
    /// drop, another thread can.
    ///
    /// # Errors
    /// As [`Pid1Drops::of_reason`].
    pub fn of_threads(threads: Vec<u32>, reason: Option<&str>) -> Result<Self> {
        let tracepoint = Tracepoint::read()?;
        let kind = match reason.filter(|_| tracepoint.has_reasons()) {
            Some(reason) => {
                let number = tracepoint
                    .reason_number(reason)
                    .with_context(|| format!("the kernel has no drop reason {reason}"))?;
                Some(format!("reason=={number}"))
            }
            None => None,
        };
        Self::open(&tracepoint, threads, kind)
    }

    /// Of any kind of drops, as an event's filter says it (Documentation/trace/events.rst).
    fn open(tracepoint: &Tracepoint, threads: Vec<u32>, kind: Option<String>) -> Result<Self> {
        let mut filter = threads
            .iter()
            .map(|thread| format!("common_pid=={thread}"))
            .collect::<Vec<_>>()
            .join("||");
        if let Some(kind) = kind {
            filter = format!("{kind}&&({filter})");
        }
        let events = open_events(tracepoint, &online_cpus()?, &filter)
            .context("cannot count drops in PID 1's context")?;
        Ok(Self { threads, events })
    }

    /// Drops in PID 1's context since the start.
    ///
    /// # Errors
    /// When PID 1 has got new threads, which were not counted: the caller may start over.
    pub fn stop(self) -> Result<u64> {
        let sum = self.sum()?;
        ensure!(
            threads()?.iter().all(|thread| self.threads.contains(thread)),
            "PID 1 has started threads meanwhile, whose drops were not counted"
        );
        Ok(sum)
    }

    /// What is counted so far.
    pub fn sum(&self) -> Result<u64> {
        sum(&self.events)
    }
}

/// Counts `skb:kfree_skb` on one CPU for packets of other ethertypes than one, from its start on:
/// what a test of that ethertype has to do with there, and did not make.
#[derive(Debug)]
pub struct OtherDrops(Vec<File>);

impl OtherDrops {
    /// # Errors
    /// As [`Pid1Drops::start`].
    pub fn start(cpu: usize, than: u16) -> Result<Self> {
        let filter = format!("protocol!={than}");
        let events = open_events(&Tracepoint::read()?, &[i32::try_from(cpu)?], &filter);
        Ok(Self(events.context("cannot count the drops of others")?))
    }

    /// What is counted so far.
    pub fn sum(&self) -> Result<u64> {
        sum(&self.0)
    }
}

fn sum(events: &[File]) -> Result<u64> {
    let mut sum = 0;
    for mut event in events {
        let mut count = [0; 8];
        event.read_exact(&mut count).context("cannot read a perf event")?;
        sum += u64::from_ne_bytes(count);
    }
    Ok(sum)
}

/// An event for each CPU.
fn open_events(tracepoint: &Tracepoint, cpus: &[i32], filter: &str) -> Result<Vec<File>> {
    let filter = CString::new(filter)?;
    cpus.iter()
        .map(|&cpu| open_event(tracepoint.id, cpu, &filter).with_context(|| format!("CPU {cpu}")))
        .collect()
}

fn threads() -> Result<Vec<u32>> {
    let mut threads: Vec<u32> = fs::read_dir("/proc/1/task")
        .context("cannot list PID 1's threads")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    threads.sort_unstable();
    Ok(threads)
}

/// `/sys/devices/system/cpu/online`, for example `0-3,6`.
fn online_cpus() -> Result<Vec<i32>> {
    let path = "/sys/devices/system/cpu/online";
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    parse_cpus(&text).with_context(|| format!("{path} is not a list of CPUs"))
}

fn parse_cpus(text: &str) -> Option<Vec<i32>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<i32>().ok()?..=last.parse().ok()?);
    }
    Some(cpus)
}

/// Opens a counting event for all tasks on one CPU.
fn open_event(id: u64, cpu: i32, filter: &CStr) -> Result<File> {
    let attr = PerfEventAttr {
        kind: PERF_TYPE_TRACEPOINT,
        size: size_of::<PerfEventAttr>() as u32,
        config: id,
        ..PerfEventAttr::default()
    };
    // SAFETY: `attr` is as long as it says and outlives the call; -1 stands for every task and for
    // no group (perf_event_open(2)).
    let fd = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC)
    };
    if fd == -1 {
        bail!("perf_event_open: {}", io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nothing else owns; descriptors fit an int.
    let event = unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) };
    // SAFETY: the request takes a C string, which outlives the call.
    let result =
        unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_FILTER, filter.as_ptr()) };
    ensure!(result == 0, "cannot filter an event: {}", io::Error::last_os_error());
    Ok(event.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpus("0\n"), Some(vec![0]));
        assert_eq!(parse_cpus("0-3,6\n"), Some(vec![0, 1, 2, 3, 6]));
        assert_eq!(parse_cpus(""), None);
        assert_eq!(parse_cpus("a-b"), None);
    }
}
