//! Exact counting: every drop ends in exactly one counter, at its location or under a cause of loss.

use aya_ebpf::{bindings::BPF_NOEXIST, programs::RawTracePointContext};
use aya_log_ebpf::debug;
use dropwatch_common::{Counter, DropKey, Lost};

use crate::maps::{DROPS, LOST};

/// `E2BIG` (include/uapi/asm-generic/errno-base.h): what a full map answers.
const E2BIG: i32 = -7;
/// `EEXIST`: another CPU, or a drop that interrupted this one, put the key in first.
pub const EEXIST: i32 = -17;

const ZERO: Counter = Counter { count: 0, next: 0, sampled: 0, epoch: 0, taken: 0 };

/// Counts one drop, and returns the counter that has it; `None` if it had to be counted as lost.
#[inline(always)]
pub fn drop_at(ctx: &RawTracePointContext, key: &DropKey) -> Option<*mut Counter> {
    let mut counter = DROPS.get_ptr_mut(key);
    if counter.is_none() {
        if let Some(cause) = make_room(ctx, key) {
            lost(cause);
            return None;
        }
        counter = DROPS.get_ptr_mut(key);
    }
    match counter {
        Some(counter) => add(counter.cast(), 1),
        // Entries are never removed, so this cannot be; if it is, it is counted.
        None => lost(Lost::MapBusy),
    }
    counter
}

/// Inserts a new key with a zero, which is added to afterwards: inserting a one could overwrite
/// what an interrupting drop counted in the meantime. Returns why there is no room.
#[inline(never)]
fn make_room(ctx: &RawTracePointContext, key: &DropKey) -> Option<Lost> {
    match DROPS.insert(key, ZERO, BPF_NOEXIST.into()) {
        Ok(()) | Err(EEXIST) => {
            debug!(ctx, "first drop at {:x}, reason {}", key.location, key.reason);
            None
        }
        Err(errno) => {
            debug!(ctx, "no counter for {:x}: error {}", key.location, errno);
            Some(if errno == E2BIG { Lost::MapFull } else { Lost::MapBusy })
        }
    }
}

/// Counts something that was lost.
#[inline(always)]
pub fn lost(cause: Lost) {
    if let Some(count) = LOST.get_ptr_mut(cause as u32) {
        add(count, 1);
    }
}

/// Adds to a counter of this CPU in one instruction.
///
/// Before Linux 6.0 the program can interrupt itself on one CPU, between the load and the store of
/// a plain addition, and one of the two drops would vanish. `fetch_add` does not compile for this
/// target below CPU version 3; `lock add` runs on every kernel that has raw tracepoints.
#[inline(always)]
pub fn add(counter: *mut u64, by: u64) {
    // SAFETY: the pointer comes from a map lookup that the verifier has checked, and map values
    // are aligned to 8 bytes.
    unsafe {
        core::arch::asm!("lock *(u64 *)({p} + 0) += {v}", p = in(reg) counter, v = in(reg) by);
    }
}
