//! Carrying the plan out: load, attach, detach.

use std::{
    error, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Map, MapError, MapType},
    programs::{RawTracePoint, raw_trace_point::RawTracePointLinkId},
    sys::is_map_supported,
    util::nr_cpus,
};
use aya_log::EbpfLogger;
use dropwatch_common::{filter::Filter, mode, offsets::Offsets};

use super::{
    KernelLog,
    counters::Maps,
    maps::PerCpuMap,
    plan::{self, Candidate, Grouping, Refusal, Step},
    samples::Samples,
};

/// The eBPF program that ships (`cargo xtask build-ebpf`).
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("DROPWATCH_OBJECT"));

const PROGRAM: &str = "dropwatch_kfree_skb";
const TRACEPOINT: &str = "kfree_skb";
/// Ring buffer of the samples: 1,700 records, between two ticks.
const SAMPLES_BYTES: u32 = 1 << 20;
/// Levels of aya-log: 0 is off, 4 is debug.
const LOG_OFF: u8 = 0;
const LOG_DEBUG: u8 = 4;

/// What to attach, where the kernel allows it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The running kernel's, where anything needs them.
    pub offsets: Offsets,
    /// Sample drops in detail.
    pub samples: bool,
    /// Only with reasons, or only without; `None` is what the kernel takes.
    pub reasons: Option<bool>,
    /// Keep the kernel side's diagnostics, readable through [`Probe::take_log`].
    pub log: bool,
    /// Which packets to count, and what of them decides about it (bits of
    /// [`part`](dropwatch_common::filter::part)); 0 counts all.
    pub filter: (Filter, u32),
    pub grouping: Grouping,
}

impl Default for Wanted {
    /// Counts alone.
    fn default() -> Self {
        Self {
            offsets: Offsets::NONE,
            samples: false,
            reasons: None,
            log: false,
            filter: (Filter::NONE, 0),
            grouping: Grouping::default(),
        }
    }
}

/// A candidate that was tried.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub candidate: Candidate,
    /// `None`: this one is attached.
    pub refusal: Option<Refusal>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this kernel has no BPF ring buffer: dropwatch needs Linux 5.8 or later")]
    TooOld,
    #[error("the kernel refused the program: {}", refusals(.0))]
    Refused(Vec<Attempt>),
    #[error("cannot count the CPUs ({0})")]
    Cpus(io::Error),
}

impl Error {
    /// True when permission is all that was missing.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Refused(attempts) if attempts
            .iter()
            .all(|attempt| matches!(attempt.refusal, Some(Refusal::NotPermitted { .. }))))
    }
}

/// Every different refusal, once.
fn refusals(attempts: &[Attempt]) -> String {
    let mut words: Vec<String> = attempts
        .iter()
        .filter_map(|attempt| attempt.refusal.as_ref())
        .map(ToString::to_string)
        .collect();
    words.dedup();
    words.join("; ")
}

/// The attached program. Dropping it detaches; nothing is pinned, so nothing stays behind.
pub struct Probe {
    /// Holds the program, and through it the link.
    ebpf: Ebpf,
    link: Option<RawTracePointLinkId>,
    pub(super) maps: Maps,
    pub(super) grouping: Grouping,
    /// The program again, to ask the kernel what it skipped.
    pub(super) program: OwnedFd,
    attached: Instant,
    attached_at: u64,
    pub(super) samples: Option<Samples>,
    attempts: Vec<Attempt>,
    log: Option<EbpfLogger<&'static dyn log::Log>>,
}

/// Gives memory that starting took, and the run does not need, back to the kernel: the loader reads
/// all of the kernel's types (some 15 MiB), and the C library would keep the room for later.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointers; malloc_trim(3) may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

impl Probe {
    /// Tries the candidates in order and returns the first that the kernel takes.
    ///
    /// # Errors
    /// What the kernel said to each of them.
    pub fn attach(wanted: &Wanted) -> Result<Self, Error> {
        // EPERM here is for the candidates to report: only a clear "no" is a kernel too old.
        if let Ok(false) = is_map_supported(MapType::RingBuf) {
            return Err(Error::TooOld);
        }
        raise_memory_limit();
        let cpus = nr_cpus().map_err(|(_, error)| Error::Cpus(error))?;
        let mut attempts = Vec::new();
        for candidate in plan::candidates(wanted.samples, wanted.reasons, wanted.log) {
            match load(candidate, cpus, wanted) {
                Ok(mut probe) => {
                    attempts.push(Attempt { candidate, refusal: None });
                    probe.attempts = attempts;
                    return Ok(probe);
                }
                Err(refusal) => attempts.push(Attempt { candidate, refusal: Some(refusal) }),
            }
        }
        Err(Error::Refused(attempts))
    }

    /// What was tried, the attached candidate last.
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// Whether drops carry a reason.
    pub fn has_reason(&self) -> bool {
        self.attempts.last().is_some_and(|attempt| attempt.candidate.reason)
    }

    /// Whether drops are sampled.
    pub fn has_samples(&self) -> bool {
        self.samples.is_some()
    }

    /// When counting began.
    pub fn attached(&self) -> Instant {
        self.attached
    }

    /// The same moment as the kernel side's clock has it (`bpf_ktime_get_ns`, `CLOCK_MONOTONIC`),
    /// nanoseconds.
    pub fn attached_at(&self) -> u64 {
        self.attached_at
    }

    /// The kernel side's diagnostics, where asked for and available.
    ///
    /// Needs a tokio runtime with I/O.
    pub fn take_log(&mut self) -> Option<io::Result<KernelLog>> {
        self.log.take().map(KernelLog::new)
    }

    /// Stops counting. When this returns, no program is still running: a read sees everything.
    pub fn detach(&mut self) {
        let Some(link) = self.link.take() else { return };
        if let Some(program) = program_mut(&mut self.ebpf) {
            // Closing a raw tracepoint's link cannot fail; the kernel unregisters it on close.
            let _closed = program.detach(link);
        }
        wait_for_running_programs();
    }
}

fn program_mut(ebpf: &mut Ebpf) -> Option<&mut RawTracePoint> {
    ebpf.program_mut(PROGRAM)?.try_into().ok()
}

fn load(candidate: Candidate, cpus: usize, wanted: &Wanted) -> Result<Probe, Refusal> {
    let refused = |step: Step, error: &(dyn error::Error + 'static)| {
        let io = io_error(error);
        let cause = io.map_or_else(|| "unexpected object".to_owned(), ToString::to_string);
        Refusal::from_errno(step, candidate, io.and_then(io::Error::raw_os_error), cause)
    };
    let missing = |what: &str| Refusal::Other {
        step: Step::Maps.words(),
        cause: format!("the object has no {what}"),
    };

    let mut loader = EbpfLoader::new();
    let (filter, filtering) = &wanted.filter;
    let mut mode = filtering << mode::FILTER_SHIFT | wanted.grouping.parts << mode::GROUP_SHIFT;
    if candidate.reason {
        mode |= mode::REASON;
    }
    if candidate.samples {
        mode |= mode::SAMPLES;
    }
    let level = if candidate.log { LOG_DEBUG } else { LOG_OFF };
    loader
        // The program needs no relocation against the kernel's types.
        .btf(None)
        .verifier_log_level(VerifierLogLevel::DISABLE)
        .override_global("MODE", &mode, true)
        .override_global("OFFSETS", &wanted.offsets, true)
        .override_global("FILTER", filter, true)
        .override_global(aya_log::LEVEL, &level, true)
        .map_max_entries("SAMPLES", if candidate.samples { SAMPLES_BYTES } else { 1 })
        .map_max_entries("DROPS", plan::map_entries(cpus))
        .map_max_entries("GROUPS", wanted.grouping.map_entries(cpus));
    if !candidate.log {
        // The verifier has dropped all code that writes to it: keep the least the kernel allows.
        loader.map_max_entries("AYA_LOGS", 1);
    }
    let mut ebpf = loader.load(OBJECT).map_err(|error| refused(Step::Maps, &error))?;
    let log = if candidate.log {
        Some(EbpfLogger::init(&mut ebpf).map_err(|error| refused(Step::Maps, &error))?)
    } else {
        None
    };
    let maps = maps(&mut ebpf, cpus).map_err(|error| refused(Step::Maps, &error))?;

    let samples = match candidate.samples {
        true => Some(Samples::new(&mut ebpf).map_err(|error| refused(Step::Maps, &error))?),
        false => None,
    };

    let program = program_mut(&mut ebpf).ok_or_else(|| missing("program"))?;
    program.load().map_err(|error| refused(Step::Load, &error))?;
    let fd = program.fd().and_then(|fd| Ok(fd.as_fd().try_clone_to_owned()?));
    let fd = fd.map_err(|error| refused(Step::Load, &error))?;
    // Before attaching: the first drop must not precede the interval that reports it.
    let (attached, attached_at) = (Instant::now(), monotonic());
    let link = program.attach(TRACEPOINT).map_err(|error| refused(Step::Attach, &error))?;
    Ok(Probe {
        ebpf,
        link: Some(link),
        maps,
        grouping: wanted.grouping,
        program: fd,
        samples,
        attached,
        attached_at,
        attempts: Vec::new(),
        log,
    })
}

fn maps(ebpf: &mut Ebpf, cpus: usize) -> Result<Maps, MapError> {
    let mut take = |name: &str| match ebpf.take_map(name) {
        Some(Map::PerCpuArray(map) | Map::PerCpuHashMap(map)) => Ok(map),
        _ => Err(MapError::InvalidName { name: name.to_owned() }),
    };
    Ok(Maps {
        front: PerCpuMap::new(take("FRONT")?, cpus)?,
        drops: PerCpuMap::new(take("DROPS")?, cpus)?,
        groups: PerCpuMap::new(take("GROUPS")?, cpus)?,
        lost: PerCpuMap::new(take("LOST")?, cpus)?,
    })
}

/// `CLOCK_MONOTONIC`, nanoseconds.
fn monotonic() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, which the call fills in.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// The system call's own error somewhere below aya's, whose text can be a whole verifier log.
fn io_error<'a>(error: &'a (dyn error::Error + 'static)) -> Option<&'a io::Error> {
    std::iter::successors(Some(error), |error| error.source())
        .find_map(|error| error.downcast_ref::<io::Error>())
}

/// Kernels before 5.11 charge maps to the locked-memory limit, which is small by default. Needs
/// `CAP_SYS_RESOURCE`; without it the limit stays, and a map that does not fit says so.
fn raise_memory_limit() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the pointer is to a live rlimit, which the call only reads.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}

/// Waits until every CPU has left the tracepoint.
///
/// Programs of a raw tracepoint run inside an RCU read-side section (`__bpf_trace_run`,
/// kernel/trace/bpf_trace.c). `MEMBARRIER_CMD_GLOBAL` is `synchronize_rcu()`
/// (kernel/sched/membarrier.c, Linux 4.3); it is refused where CPUs run without a tick (`nohz_full`).
fn wait_for_running_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: takes integers, touches no memory of ours.
    let refused = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } != 0;
    if refused {
        // The longest a program of this size can take, with a wide margin for a busy host.
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe")
            .field("program", &self.program.as_raw_fd())
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}
