//! Which drops are kept in detail: the first ones of each location in an interval whole, then ever
//! fewer. Rare drops are seen completely, and a flood costs next to nothing. Or, where that is asked
//! for, all of them: in each second as many as user space allows.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_ktime_get_ns,
        generated::{bpf_get_current_comm, bpf_get_stack},
    },
    programs::RawTracePointContext,
};
use dropwatch_common::{
    Counter, DropKey, Lost,
    sample::{ABSENT, COMM, Record, STACK_DEPTH, TUPLE},
    schedule,
};

use crate::{
    count::{add, lost},
    maps::SAMPLES,
    skb,
};

/// Most samples of all CPUs in one second, where every drop is to be sampled. Set by the loader.
#[unsafe(no_mangle)]
static RATE: u64 = 0;

/// Samples of one second of the kernel's clock, in all CPUs.
#[repr(C)]
struct Allowance {
    second: u64,
    taken: u64,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.allowance")]
static mut ALLOWANCE: Allowance = Allowance { second: 0, taken: 0 };

const NANOSECONDS: u64 = 1_000_000_000;

/// Number of the interval, which user space counts up at each tick: every location then has its
/// whole budget again. Written while the program runs, so not read-only.
#[unsafe(no_mangle)]
static mut EPOCH: u32 = 0;

/// Whether the drop that was just counted, as the `count`th, is to be sampled. Each one is where all
/// are: nothing is scheduled then, and a counter's `next` stays zero.
#[inline(always)]
pub fn is_due(counter: *mut Counter, count: u64) -> bool {
    // SAFETY: a checked pointer to a counter of this CPU.
    unsafe { schedule::is_due((*counter).next, (*counter).epoch, count, epoch()) }
}

#[inline(always)]
fn epoch() -> u32 {
    // SAFETY: one aligned word that user space replaces.
    unsafe { (&raw const EPOCH).read_volatile() }
}

/// Sets when the next sample of this key is due, and returns how many drops this one stands for.
///
/// In the hash map, a drop that interrupts this one (before Linux 6.0) may schedule at the same time:
/// a weight can then be a little off, a count never.
#[inline(always)]
pub fn schedule(counter: *mut Counter, count: u64) -> u64 {
    let used = SAMPLES.query(BPF_RB_AVAIL_DATA.into());
    let fineness = schedule::fineness(used, SAMPLES.query(BPF_RB_RING_SIZE.into()));
    // SAFETY: takes no argument, touches no memory.
    let random = unsafe { bpf_get_prandom_u32() };
    // SAFETY: a checked pointer to a counter of this CPU.
    let counter = unsafe { &mut *counter };
    schedule::schedule(counter, count, epoch(), fineness, random)
}

/// Uses up a part of the second's samples, and returns how many drops the sample of this key stands
/// for; 0 where there is none left, which is counted.
#[inline(always)]
pub fn allow(counter: *mut Counter, count: u64) -> u64 {
    if !is_allowed() {
        lost(Lost::Unsampled);
        return 0;
    }
    // SAFETY: a checked pointer to a counter of this CPU.
    let counter = unsafe { &mut *counter };
    let weight = count.wrapping_sub(counter.sampled);
    counter.sampled = count;
    weight
}

/// CPUs that begin a second at the same time may each allow a few more. None is lost: what is not
/// allowed is counted, however many are.
#[inline(always)]
fn is_allowed() -> bool {
    let allowance = &raw mut ALLOWANCE;
    // SAFETY: aligned words; volatile, because other CPUs write them, and the loader the rate.
    unsafe {
        let second = bpf_ktime_get_ns() / NANOSECONDS;
        if (&raw const (*allowance).second).read_volatile() != second {
            // In this order: a drop that comes between begins the second once more.
            (&raw mut (*allowance).taken).write_volatile(0);
            (&raw mut (*allowance).second).write_volatile(second);
        }
        if (&raw const (*allowance).taken).read_volatile() >= (&raw const RATE).read_volatile() {
            return false;
        }
        add(&raw mut (*allowance).taken, 1);
    }
    true
}

/// Writes one record.
#[inline(never)]
pub fn take(ctx: &RawTracePointContext, key: &DropKey, cookie: u64, weight: u64) {
    let Some(mut entry) = SAMPLES.reserve::<Record>(0) else {
        lost(Lost::Sample);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is large enough for a record, and every field that is read is written.
    unsafe {
        (*record).time = bpf_ktime_get_ns();
        (*record).key = *key;
        (*record).cookie = cookie;
        (*record).weight = weight;
        (*record).cpu = bpf_get_smp_processor_id();
        (*record).socket = 0;
        (*record).netns = 0;
        (*record).ifindex = 0;
        (*record).iif = 0;
        (*record).length = 0;
        (*record).protocol = 0;
        (*record).flags = 0;
        (*record).packet_len = 0;
        (*record).network = ABSENT;
        (*record).vlan = 0;
        (*record).spare = [0; 4];
        (*record).pid = (bpf_get_current_pid_tgid() >> 32) as u32;
        (*record).mark = 0;
        (*record).tuples = [[0; TUPLE]; 2];
        // Where it fails, it fills in zeros.
        bpf_get_current_comm((&raw mut (*record).comm).cast(), COMM as u32);
        let stack = (&raw mut (*record).stack).cast();
        let bytes = bpf_get_stack(ctx.as_ptr(), stack, (STACK_DEPTH * 8) as u32, 0);
        if bytes < 0 {
            (*record).stack_len = 0;
            lost(Lost::Stack);
        } else {
            (*record).stack_len = (bytes as u64 / 8) as u16;
        }
        skb::describe(ctx, record);
    }
    entry.submit(BPF_RB_NO_WAKEUP.into());
}
