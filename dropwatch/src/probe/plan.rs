//! Which ways of loading to try, in which order: features in, candidates out.
//!
//! Pure. Asks no version number: a candidate that the kernel cannot take is refused by the kernel,
//! and the next one is tried.

use std::fmt;

use dropwatch_common::{Counter, CpuKey, sample::Record};

use super::{cpus::Cpus, programs::Tracepoint};

/// Most keys that the counter map has room for on every CPU: more call sites than any kernel has, and
/// some for each of many namespaces.
const MOST_KEYS: u32 = 24_576;
/// Fewest, so that a host with very many CPUs still sees every location of a busy day.
const FEWEST_KEYS: u32 = 1_024;
/// Memory for the counter map, bytes: what 20 CPUs need for [`MOST_KEYS`]. Few keys are counted on each
/// CPU of a large host.
const MAP_MEMORY: usize = 64 << 20;
/// What an entry takes of it, with the kernel's own part and its place in the table (`struct htab_elem`,
/// `struct bucket`, kernel/bpf/hashtab.c).
const ENTRY_BYTES: usize = size_of::<CpuKey>() + size_of::<Counter>() + 72;

/// Ring buffer of the samples of some drops: 2,900 records, between two ticks.
pub const SAMPLES_BYTES: u32 = 2 << 20;
/// Bytes before each record of a ring buffer (`BPF_RINGBUF_HDR_SZ`, include/uapi/linux/bpf.h).
const RING_HEADER: usize = 8;

/// Most groups that have room on every CPU: past them drops are still counted, as "other".
const MOST_GROUPS: u32 = 8_192;
/// Memory for the map of groups, bytes.
const GROUP_MEMORY: usize = 16 << 20;

/// One way to load and attach the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Tell network namespaces apart in the counts, by arguments that have types.
    pub netns: bool,
    /// Keep some drops in detail.
    pub samples: bool,
    /// Read the drop reason, the tracepoint's third argument.
    pub reason: bool,
    /// Keep the program's own diagnostics in.
    pub log: bool,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let features = [
            (self.reason, "reasons"),
            (self.netns, "namespaces"),
            (self.samples, "samples"),
            (self.log, "log"),
        ];
        let has: Vec<&str> =
            features.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect();
        f.write_str(if has.is_empty() { "counts alone" } else { "counts, " })?;
        f.write_str(&has.join(", "))
    }
}

/// Candidates in the order to try them: whatever shows more comes first. `most` has what is asked
/// for, but for reasons: `reasons` leaves only candidates with, or without, those.
pub fn candidates(most: Candidate, reasons: Option<bool>) -> Vec<Candidate> {
    let ways = |requested: bool| [true, false].into_iter().filter(move |on| requested || !on);
    let reason = [true, false].into_iter().filter(move |on| reasons.is_none_or(|only| only == *on));
    ways(most.samples)
        .flat_map(|samples| ways(most.netns).map(move |netns| (samples, netns)))
        .flat_map(|(samples, netns)| reason.clone().map(move |reason| (samples, netns, reason)))
        .flat_map(|(samples, netns, reason)| {
            ways(most.log).map(move |log| Candidate { netns, samples, reason, log })
        })
        .collect()
}

/// Entries of the counter map on a host with that many possible CPUs, each of which has its own.
pub fn map_entries(cpus: usize) -> u32 {
    entries(cpus, MOST_KEYS, MAP_MEMORY)
}

fn entries(cpus: usize, most_keys: u32, memory: usize) -> u32 {
    // As many as any kernel can be built for, and more (`CONFIG_NR_CPUS`).
    let cpus = cpus.clamp(1, 1 << 16) as u32;
    let fitting = (memory / ENTRY_BYTES) as u32;
    fitting.clamp(FEWEST_KEYS * cpus, most_keys * cpus)
}

/// Bytes of the ring buffer that samples come by where all drops are sampled, up to `rate` a second:
/// it has room for all of a second, since a second's may come in one moment.
pub fn ring_bytes(rate: u32) -> u32 {
    let records = u64::from(rate) * (size_of::<Record>() + RING_HEADER) as u64;
    u32::try_from(records.next_power_of_two()).unwrap_or(1 << 31).max(SAMPLES_BYTES)
}

/// What to count by, besides locations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grouping {
    /// Bits of [`part`](dropwatch_common::filter::part).
    pub parts: u32,
    /// Count each CPU by itself.
    pub by_cpu: bool,
}

impl Grouping {
    /// Whether the counters of the locations suffice for it, since each CPU has its own.
    pub fn of_places(&self) -> bool {
        self.by_cpu && self.parts == 0
    }

    /// Front caches of groups: one for each CPU, by its number. Where there are no groups, one that
    /// nobody uses, since a map cannot be empty.
    pub(super) fn fronts(&self, cpus: &Cpus) -> u32 {
        if self.parts == 0 { 1 } else { cpus.end() }
    }

    /// Entries of the map of groups on a host with that many possible CPUs.
    pub fn map_entries(&self, cpus: usize) -> u32 {
        if self.parts == 0 {
            return 1;
        }
        entries(cpus, MOST_GROUPS, GROUP_MEMORY)
    }
}

/// Why the kernel did not take a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachRefusal {
    /// The tracepoint has fewer arguments than the program reads (`EINVAL` when attaching).
    NoReasonArgument,
    /// The kernel lacks the tracepoint (`ENOENT`).
    NoTracepoint { tracepoint: Tracepoint },
    /// Not permitted (`EPERM`), while doing that.
    NotPermitted { step: &'static str },
    /// No memory, or over the locked-memory limit of kernels before 5.11.
    NoMemory { step: &'static str },
    /// The verifier did not accept the program.
    Verifier { errno: i32 },
    /// Anything else, by step and error.
    Other { step: &'static str, cause: String },
}

/// `include/uapi/asm-generic/errno-base.h`
mod errno {
    pub(super) const EPERM: i32 = 1;
    pub(super) const ENOENT: i32 = 2;
    pub(super) const ENOMEM: i32 = 12;
    pub(super) const EACCES: i32 = 13;
    pub(super) const EINVAL: i32 = 22;
}

/// Where loading stood when the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Maps,
    Load,
    Attach {
        tracepoint: Tracepoint,
        /// The program reads the drop reason.
        reason: bool,
    },
}

impl Step {
    pub fn words(self) -> &'static str {
        match self {
            Self::Maps => "creating the counter maps",
            Self::Load => "loading the program",
            Self::Attach { .. } => "attaching to the tracepoint",
        }
    }
}

impl AttachRefusal {
    /// Reads an error number in the light of the step that got it.
    pub fn from_errno(step: Step, errno: Option<i32>, cause: String) -> Self {
        match (step, errno) {
            (Step::Attach { reason: true, .. }, Some(errno::EINVAL)) => Self::NoReasonArgument,
            (Step::Attach { tracepoint, .. }, Some(errno::ENOENT)) => {
                Self::NoTracepoint { tracepoint }
            }
            (_, Some(errno::EPERM)) => Self::NotPermitted { step: step.words() },
            (_, Some(errno::ENOMEM)) => Self::NoMemory { step: step.words() },
            (Step::Load, Some(errno @ (errno::EACCES | errno::EINVAL))) => Self::Verifier { errno },
            _ => Self::Other { step: step.words(), cause },
        }
    }
}

impl fmt::Display for AttachRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoReasonArgument => {
                f.write_str("this kernel's tracepoint carries no drop reason (Linux 5.17 added it)")
            }
            Self::NoTracepoint { tracepoint } => {
                write!(f, "this kernel has no tracepoint {tracepoint}")
            }
            Self::NotPermitted { step } => write!(f, "not permitted while {step}"),
            Self::NoMemory { step } => {
                write!(f, "no memory while {step}: raise the limit with `ulimit -l unlimited`")
            }
            Self::Verifier { errno } => {
                write!(f, "the kernel's verifier did not accept the program (error {errno})")
            }
            Self::Other { step, cause } => write!(f, "{step} failed: {cause}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::programs::PROGRAMS, *};

    const BARE: Candidate = Candidate { netns: false, samples: false, reason: false, log: false };
    const REASON: Candidate = Candidate { reason: true, ..BARE };

    #[test]
    fn whatever_shows_more_is_tried_first() {
        assert_eq!(candidates(BARE, None), [REASON, BARE]);
        assert_eq!(candidates(BARE, Some(false)), [BARE]);
        let samples = Candidate { samples: true, ..BARE };
        let all = candidates(samples, None);
        assert_eq!(all, [Candidate { samples: true, ..REASON }, samples, REASON, BARE]);
        let netns = Candidate { netns: true, ..BARE };
        let all = candidates(netns, None);
        assert_eq!(all, [Candidate { netns: true, ..REASON }, netns, REASON, BARE]);
    }

    #[test]
    fn a_kernel_without_logging_loses_only_the_logging() {
        let most = Candidate { netns: true, samples: true, reason: true, log: true };
        let all = candidates(most, None);
        assert_eq!(all[0], most);
        assert_eq!(all[1], Candidate { log: false, ..most });
        assert_eq!((all.len(), all.last()), (16, Some(&BARE)));
    }

    #[test]
    fn cpus_share_the_memory_of_a_map() {
        assert_eq!([0, 1, 2, 20].map(map_entries), [1, 1, 2, 20].map(|cpus| MOST_KEYS * cpus));
        assert_eq!([64, 256].map(map_entries), [(MAP_MEMORY / ENTRY_BYTES) as u32; 2]);
        assert_eq!(map_entries(8_192), FEWEST_KEYS * 8_192);
        let _never_panics = map_entries(usize::MAX);
    }

    #[test]
    fn the_ring_has_room_for_a_second() {
        assert_eq!(ring_bytes(1), SAMPLES_BYTES);
        assert_eq!(ring_bytes(10_000), 8 << 20);
        assert_eq!(ring_bytes(100_000), 128 << 20);
        for rate in [1, 1_700, 10_000, 33_000, 100_000] {
            let records = ring_bytes(rate) as usize / (size_of::<Record>() + RING_HEADER);
            assert!(records >= rate as usize, "{rate}");
        }
        let _never_panics = ring_bytes(u32::MAX);
    }

    #[test]
    fn groups_take_no_memory_unless_asked_for() {
        let grouping = |parts| Grouping { parts, by_cpu: true };
        assert_eq!(grouping(0).map_entries(64), 1);
        let cpus = Cpus::parse("0,2,4").unwrap();
        assert_eq!((grouping(0).fronts(&cpus), grouping(1).fronts(&cpus)), (1, 5));
        assert!(grouping(0).of_places() && !grouping(1).of_places());
        assert_eq!(grouping(1).map_entries(2), MOST_GROUPS * 2);
        assert_eq!(grouping(1).map_entries(64), (GROUP_MEMORY / ENTRY_BYTES) as u32);
    }

    #[test]
    fn einval_means_no_reason_only_where_a_reason_was_read() {
        let refusal = |reason| {
            let step = Step::Attach { tracepoint: PROGRAMS[0].tracepoint, reason };
            AttachRefusal::from_errno(step, Some(errno::EINVAL), "EINVAL".into())
        };
        assert_eq!(refusal(true), AttachRefusal::NoReasonArgument);
        assert!(matches!(refusal(false), AttachRefusal::Other { .. }));
    }

    #[test]
    fn refusals_are_one_line_of_words() {
        let attach = Step::Attach { tracepoint: PROGRAMS[0].tracepoint, reason: true };
        for step in [Step::Maps, Step::Load, attach] {
            for errno in [1, 2, 7, 12, 13, 22, 95] {
                let text = AttachRefusal::from_errno(step, Some(errno), "cause".into()).to_string();
                assert!(!text.contains('\n') && text.len() < 100, "{text}");
            }
        }
    }
}
