//! Which drops are kept in detail: the first ones of each location in an interval whole, then ever
//! fewer. Rare drops are seen completely, and a flood costs next to nothing.

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_RB_NO_WAKEUP,
    helpers::{
        bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_ktime_get_ns, generated::bpf_get_stack,
    },
    programs::RawTracePointContext,
};
use dropwatch_common::{
    Counter, DropKey, Lost,
    sample::{ABSENT, Record, STACK_DEPTH},
};

use crate::{count::lost, maps::SAMPLES, skb};

/// Number of the interval, which user space counts up at each tick: every location then has its
/// whole budget again. Written while the program runs, so not read-only.
#[unsafe(no_mangle)]
static mut EPOCH: u32 = 0;

/// Samples of a key on one CPU in an interval that are taken one after the other.
const WHOLE: u32 = 16;
/// Widest mean gap between later ones, as a power of two.
const WIDEST: u32 = 24;

/// Whether the drop that was just counted, as the `count`th, is to be sampled.
#[inline(always)]
pub fn is_due(counter: *mut Counter, count: u64) -> bool {
    // SAFETY: a checked pointer to a counter of this CPU.
    unsafe { count >= (*counter).next || (*counter).epoch != epoch() }
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
    // SAFETY: a checked pointer to a counter of this CPU.
    let counter = unsafe { &mut *counter };
    let epoch = epoch();
    if counter.epoch != epoch {
        counter.epoch = epoch;
        counter.taken = 0;
    }
    let weight = count.wrapping_sub(counter.sampled);
    counter.sampled = count;
    counter.taken += 1;
    let gap = if counter.taken < WHOLE {
        1
    } else {
        let doublings = counter.taken - WHOLE + 1;
        let mean = 1_u64 << if doublings < WIDEST { doublings } else { WIDEST };
        // Between half and one and a half: a fixed gap would fall in step with periodic traffic.
        // SAFETY: takes no argument, touches no memory.
        let random = u64::from(unsafe { bpf_get_prandom_u32() });
        mean / 2 + 1 + (random & (mean - 1))
    };
    counter.next = count + gap;
    weight
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
