//! Exact counting: every drop ends in exactly one counter, at its location or under a cause of loss.

use aya_ebpf::{bindings::BPF_NOEXIST, programs::RawTracePointContext};
use aya_log_ebpf::debug;
use dropwatch_common::{DropKey, Lost};

use crate::maps::{DROPS, LOST};

/// `E2BIG` (include/uapi/asm-generic/errno-base.h): what a full map answers.
const E2BIG: i32 = -7;
/// `EEXIST`: another CPU, or a drop that interrupted this one, put the key in first.
const EEXIST: i32 = -17;

#[inline(always)]
pub fn drop_at(ctx: &RawTracePointContext, key: DropKey) {
    if let Some(count) = DROPS.get_ptr_mut(key) {
        add(count, 1);
    } else {
        first_drop_at(ctx, key);
    }
}

/// Inserts a zero and then adds to it: inserting a one could overwrite what an interrupting drop
/// counted in the meantime.
#[inline(never)]
fn first_drop_at(ctx: &RawTracePointContext, key: DropKey) {
    let inserted = DROPS.insert(key, 0u64, BPF_NOEXIST.into());
    if let (Ok(()) | Err(EEXIST), Some(count)) = (inserted, DROPS.get_ptr_mut(key)) {
        add(count, 1);
        debug!(ctx, "first drop at {:x}, reason {}", key.location, key.reason);
        return;
    }
    let cause = if inserted == Err(E2BIG) { Lost::MapFull } else { Lost::MapBusy };
    if let Some(lost) = LOST.get_ptr_mut(cause as u32) {
        add(lost, 1);
    }
    debug!(ctx, "no counter for {:x}: error {}", key.location, inserted.err().unwrap_or(0));
}

/// Adds to a counter of this CPU in one instruction.
///
/// Before Linux 6.0 the program can interrupt itself on one CPU, between the load and the store of
/// a plain addition, and one of the two drops would vanish. `fetch_add` does not compile for this
/// target below CPU version 3; `lock add` runs on every kernel that has raw tracepoints.
#[inline(always)]
fn add(counter: *mut u64, by: u64) {
    // SAFETY: the pointer comes from a map lookup that the verifier has checked, and map values
    // are aligned to 8 bytes.
    unsafe {
        core::arch::asm!("lock *(u64 *)({p} + 0) += {v}", p = in(reg) counter, v = in(reg) by);
    }
}
