//! Carrying the plan out: load, attach, detach.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use aya::{maps::MapType, sys::is_map_supported};
use aya_log::EbpfLogger;
use dropwatch_common::{
    self as common, count::Front, filter::Filter, mode, offsets::Offsets, typed,
};
use nix::{
    sys::{
        resource::{RLIM_INFINITY, Resource, setrlimit},
        time::TimeSpec,
    },
    time::{ClockId, clock_gettime},
    unistd::{SysconfVar, sysconf},
};
use rustix::thread::{MembarrierCommand, membarrier};
use zerocopy::IntoBytes as _;

use super::{
    KernelLog,
    counters::{FRONTS, GROUP_FRONTS, Maps},
    cpus::Cpus,
    expression, info,
    later::{self, Awaited, LATER, Later},
    load::{Linked, LoadError, LoadSettings, Loader, Size},
    maps::Map,
    plan::{self, AttachRefusal, Candidate, Grouping, Step},
    programs::{self, Lack, PROGRAMS, Program},
    samples::Samples,
    sys::{self, Arguments},
};
use crate::{exit::Failure, filter::expression::ExpressionCode};

/// The eBPF program that ships (`cargo xtask build-ebpf`).
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("DROPWATCH_OBJECT"));

/// Ring buffer of the program's own diagnostics.
const LOG_BYTES: u32 = 128 << 10;
/// Levels of aya-log: 0 is off, 4 is debug.
const LOG_OFF: u8 = 0;
const LOG_DEBUG: u8 = 4;

/// What to attach, where the kernel allows it.
#[derive(Clone, Debug)]
pub struct Requested {
    /// The running kernel's, where anything needs them.
    pub offsets: Offsets,
    /// Count by network namespace.
    pub netns: bool,
    /// Sample drops in detail.
    pub samples: bool,
    /// Sample all drops, so many a second at most.
    pub every: Option<u32>,
    /// What the rules of `--netns` that stand for namespaces to come mean from the beginning.
    pub later: Awaited,
    /// Only with reasons, or only without; `None` is what the kernel takes.
    pub reasons: Option<bool>,
    /// Keep the kernel side's diagnostics, readable through [`Probe::take_log`].
    pub log: bool,
    /// Which packets to count, and what of them decides about it (bits of
    /// [`part`](dropwatch_common::filter::part)); 0 counts all.
    pub filter: (Filter, u32),
    /// The code of a filter expression, if that is among what decides.
    pub expression: Option<ExpressionCode>,
    pub grouping: Grouping,
}

impl Requested {
    /// What to try, in order, where this kernel's types allow it.
    pub fn candidates(&self) -> Vec<Candidate> {
        let netns = self.netns && typed::tells_namespaces(&self.offsets);
        let most = Candidate { netns, samples: self.samples, reason: true, log: self.log };
        plan::candidates(most, self.reasons)
    }
}

impl Default for Requested {
    /// Counts alone.
    fn default() -> Self {
        Self {
            offsets: Offsets::NONE,
            netns: false,
            samples: false,
            every: None,
            reasons: None,
            log: false,
            filter: (Filter::NONE, 0),
            later: later::NONE,
            expression: None,
            grouping: Grouping::default(),
        }
    }
}

/// A candidate that was tried.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub candidate: Candidate,
    /// `None`: this one is attached.
    pub refusal: Option<AttachRefusal>,
}

#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("this kernel has no BPF ring buffer: dropwatch needs Linux 5.8 or later")]
    TooOld,
    #[error("the kernel refused the program: {}", refusals(.0))]
    Refused(Vec<Attempt>),
    #[error("cannot count the CPUs ({0}): /sys must be there (`mount -t sysfs sysfs /sys`)")]
    Cpus(io::Error),
}

impl AttachError {
    /// True when permission is all that was missing.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Refused(attempts) if attempts
            .iter()
            .all(|attempt| matches!(attempt.refusal, Some(AttachRefusal::NotPermitted { .. }))))
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

/// The attached programs. Dropping it detaches; nothing is pinned, so nothing stays behind.
pub struct Probe {
    /// Attached while these are open.
    links: Vec<OwnedFd>,
    pub(super) maps: Maps,
    memory: Option<u64>,
    pub(super) grouping: Grouping,
    /// Hold the maps, and answer what the kernel skipped.
    pub(super) programs: Vec<OwnedFd>,
    lacks: Vec<Lack>,
    attached: Instant,
    attached_at: u64,
    pub(super) samples: Option<Samples>,
    later: Map,
    later_from: Awaited,
    attempts: Vec<Attempt>,
    log: Option<EbpfLogger<&'static dyn log::Log>>,
}

/// Gives memory that starting took, and the run does not need, back to the kernel: symbols and the
/// kernel's types are read through buffers whose room the C library would keep for later.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointers; malloc_trim(3) may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What attaching needs whatever is requested. Creating the counter map takes as long as reading
/// the kernel's types, so callers do both at the same time.
pub struct Prepared {
    loader: Result<Loader, LoadError>,
    cpus: Cpus,
    pub(super) programs: Vec<Program>,
}

impl Prepared {
    /// # Errors
    /// Where this kernel cannot do at all. What it refuses is reported by [`Prepared::attach`].
    pub fn new() -> Result<Self, AttachError> {
        // Only a clear "no" means that the kernel is too old. EPERM comes again with each
        // candidate, and is reported then.
        if let Ok(false) = is_map_supported(MapType::RingBuf) {
            return Err(AttachError::TooOld);
        }
        raise_memory_limit();
        let cpus = Cpus::possible().map_err(AttachError::Cpus)?;
        let loader = Loader::new(
            OBJECT,
            &[
                ("DROPS", Size::Entries(plan::map_entries(cpus.count()))),
                (FRONTS, Size::Shared(fronts(cpus.end()))),
            ],
        );
        Ok(Self { loader, cpus, programs: PROGRAMS.to_vec() })
    }

    /// Tries the candidates in order and returns the first that the kernel takes.
    ///
    /// # Errors
    /// What the kernel said to each of them.
    pub fn attach(self, requested: &Requested) -> Result<Probe, AttachError> {
        let mut attempts = Vec::new();
        for candidate in requested.candidates() {
            match self.load(candidate, requested) {
                Ok(mut probe) => {
                    attempts.push(Attempt { candidate, refusal: None });
                    probe.attempts = attempts;
                    return Ok(probe);
                }
                Err(refusal) => attempts.push(Attempt { candidate, refusal: Some(refusal) }),
            }
        }
        Err(AttachError::Refused(attempts))
    }

    fn load(&self, candidate: Candidate, requested: &Requested) -> Result<Probe, AttachRefusal> {
        let refused = |step: Step, cause: &io::Error| {
            AttachRefusal::from_errno(step, cause.raw_os_error(), cause.to_string())
        };
        let failed = |error: &LoadError| refused(error.step, &error.cause);
        let loader = self.loader.as_ref().map_err(failed)?;
        let arguments = match u32::try_from(requested.offsets.type_kfree_skb) {
            Ok(typedef) if candidate.netns => Arguments::Typed(typedef),
            _ => Arguments::Raw,
        };
        let mut linked = self.link(loader, candidate, requested).map_err(|error| failed(&error))?;
        let mut lacks = Vec::new();
        let programs = self.programs.iter().map(|program| (*program, ())).collect();
        let programs = programs::each(programs, &mut lacks, |program, ()| {
            linked.load(program.name, arguments).map_err(|error| failed(&error))
        })?;
        let memory = linked.memory();
        let maps = &mut linked.maps;
        let unexpected = || AttachRefusal::Other {
            step: Step::Maps.words(),
            cause: "unexpected object: a map is missing, or has another layout".to_owned(),
        };
        let samples = match candidate.samples {
            true => Some(Samples::take_from(maps).ok_or_else(unexpected)?),
            false => None,
        };
        let later = maps.remove(LATER).filter(Later::fits).ok_or_else(unexpected)?;
        later.set(requested.later.as_bytes()).map_err(|error| refused(Step::Maps, &error))?;
        let maps = Maps::take_from(maps, &self.cpus, requested.grouping)
            .map_err(|error| refused(Step::Maps, &error))?
            .ok_or_else(unexpected)?;
        let log = programs.first().filter(|_| candidate.log);
        let log = log.and_then(|(_, program)| diagnostics(program));
        // Read before attaching, or the first drop could precede the interval that reports it.
        let (attached, attached_at) = (Instant::now(), monotonic());
        let programs = programs::each(programs, &mut lacks, |program, loaded: OwnedFd| {
            let Program { tracepoint, reads_reason, .. } = program;
            let reason = candidate.reason && reads_reason;
            let name = (arguments == Arguments::Raw).then_some(tracepoint.name);
            sys::attach_tracepoint(name, loaded.as_fd())
                .map(|link| (loaded, link))
                .map_err(|error| refused(Step::Attach { tracepoint, reason }, &error))
        })?;
        let (programs, links) = programs.into_iter().map(|(_, attached)| attached).unzip();
        Ok(Probe {
            links,
            maps,
            memory,
            grouping: requested.grouping,
            programs,
            lacks,
            samples,
            later,
            later_from: requested.later,
            attached,
            attached_at,
            attempts: Vec::new(),
            log,
        })
    }

    /// The object as the candidate has it.
    fn link(
        &self,
        loader: &Loader,
        candidate: Candidate,
        requested: &Requested,
    ) -> Result<Linked, LoadError> {
        let (filter, filtering) = &requested.filter;
        let groups = requested.grouping.parts;
        let mut mode = filtering << mode::FILTER_SHIFT | groups << mode::GROUP_SHIFT;
        if candidate.reason {
            mode |= mode::REASON;
        }
        if candidate.samples {
            mode |= mode::SAMPLES;
            if requested.every.is_some() {
                mode |= mode::EVERY;
            }
        }
        let rate = u64::from(requested.every.unwrap_or(0));
        let reads = requested.expression.as_ref().map_or(0, expression::reads);
        let ring = requested.every.map_or(plan::SAMPLES_BYTES, plan::ring_bytes);
        if candidate.netns {
            mode |= mode::NETNS;
        }
        let settings = common::Settings { mode, cpus: self.cpus.end() };
        let level = if candidate.log { LOG_DEBUG } else { LOG_OFF };
        // The smallest size that is allowed, for a ring buffer that no code is left to write to.
        let least = page_size();
        loader.link(LoadSettings {
            offsets: &requested.offsets,
            expression: requested.expression.as_ref(),
            globals: HashMap::from([
                ("SETTINGS", settings.as_bytes()),
                ("OFFSETS", requested.offsets.as_bytes()),
                ("FILTER", filter.as_bytes()),
                ("RATE", rate.as_bytes()),
                ("READS", reads.as_bytes()),
                (aya_log::LEVEL, level.as_bytes()),
            ]),
            sizes: HashMap::from([
                (GROUP_FRONTS, Size::Shared(fronts(requested.grouping.fronts(&self.cpus)))),
                ("GROUPS", Size::Entries(requested.grouping.map_entries(self.cpus.count()))),
                ("SAMPLES", Size::Entries(if candidate.samples { ring } else { least })),
                ("AYA_LOGS", Size::Entries(if candidate.log { LOG_BYTES } else { least })),
            ]),
        })
    }
}

impl Probe {
    /// What was tried, the attached candidate last.
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// What the run lacks, because the kernel refuses programs that are optional.
    pub fn lacks(&self) -> &[Lack] {
        &self.lacks
    }

    /// Whether drops carry a reason.
    pub fn has_reason(&self) -> bool {
        self.attempts.last().is_some_and(|attempt| attempt.candidate.reason)
    }

    /// Whether drops are counted by network namespace.
    pub fn has_namespaces(&self) -> bool {
        self.attempts.last().is_some_and(|attempt| attempt.candidate.netns)
    }

    /// Whether drops are sampled.
    pub fn has_samples(&self) -> bool {
        self.samples.is_some()
    }

    /// Bytes that the maps take in the kernel, for all CPUs that can be; `None` where it does not
    /// report them.
    pub fn kernel_memory(&self) -> Option<u64> {
        self.memory
    }

    /// When counting began.
    pub fn attached(&self) -> Instant {
        self.attached
    }

    /// When counting began as the kernel side's clock has it (`bpf_ktime_get_ns`,
    /// `CLOCK_MONOTONIC`), nanoseconds.
    pub fn attached_at(&self) -> u64 {
        self.attached_at
    }

    /// The kernel side's diagnostics, where asked for and available.
    ///
    /// Needs a tokio runtime with I/O.
    pub fn take_log(&mut self) -> Option<io::Result<KernelLog>> {
        self.log.take().map(KernelLog::new)
    }

    /// The list of the namespaces that the filter waits for, to be changed by one owner alone.
    ///
    /// # Errors
    /// Where the process may open no more files.
    pub fn later(&self) -> io::Result<Later> {
        self.later.try_clone().map(|map| Later::new(map, self.later_from))
    }

    /// Stops counting. When this returns, no program is still running: a read sees everything.
    pub fn detach(&mut self) {
        if self.links.is_empty() {
            return;
        }
        // Closing a raw tracepoint's link cannot fail; the kernel unregisters it on close.
        self.links.clear();
        wait_for_running_programs();
    }
}

/// The kernel side's diagnostics, whose map is found by the program's number: that takes
/// `CAP_SYS_ADMIN`.
fn diagnostics(program: &OwnedFd) -> Option<EbpfLogger<&'static dyn log::Log>> {
    let id = info::read(program).ok()?.id()?;
    EbpfLogger::init_from_id(id)
        .inspect_err(|error| log::debug!("no diagnostics from the kernel side: {error}"))
        .ok()
}

/// `CLOCK_MONOTONIC`, nanoseconds.
fn monotonic() -> u64 {
    // The kernel refuses no clock that it has, and it has this one (clock_gettime(2)).
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap_or(TimeSpec::new(0, 0));
    now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs()
}

/// Bytes of so many front caches.
fn fronts(cpus: u32) -> u32 {
    cpus * size_of::<Front>() as u32
}

/// Bytes of a page: the least that a ring buffer can have.
fn page_size() -> u32 {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| size.try_into().ok()).unwrap_or(4096)
}

/// Kernels before 5.11 charge maps to the locked-memory limit, which is small by default. Needs
/// `CAP_SYS_RESOURCE`; without it the limit stays, and a map that does not fit says so.
fn raise_memory_limit() {
    let _refused = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
}

/// Waits until every CPU has left the tracepoint.
///
/// Programs of a raw tracepoint run inside an RCU read-side section (`__bpf_trace_run`,
/// kernel/trace/bpf_trace.c). `MEMBARRIER_CMD_GLOBAL` is `synchronize_rcu()`
/// (kernel/sched/membarrier.c, Linux 4.3); it is refused where CPUs run without a tick (`nohz_full`).
fn wait_for_running_programs() {
    if membarrier(MembarrierCommand::Global).is_err() {
        // The longest a program of this size can take, with a wide margin for a busy host.
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe")
            .field("programs", &self.programs)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

/// Why nothing is attached.
impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Self {
        match error {
            _ if error.is_permission() => Self::Privilege(format!(
                "{error}, although the capabilities are there: a container's user namespace, a \
                 security module or kernel lockdown is in the way; run on the host itself"
            )),
            AttachError::TooOld | AttachError::Refused(_) => Self::Kernel(error.to_string()),
            AttachError::Cpus(_) => Self::Runtime(error.into()),
        }
    }
}
