//! Every map, one line each. Sizes here are for the smallest host: the loader sets them from the
//! number of CPUs, since per-CPU memory multiplies.

use aya_ebpf::{
    macros::map,
    maps::{PerCpuArray, PerCpuHashMap},
};
use dropwatch_common::{DropKey, LOST_SLOTS};

/// Drops by location and reason since attach, one count for each CPU; entries are never removed.
#[map]
pub static DROPS: PerCpuHashMap<DropKey, u64> = PerCpuHashMap::with_max_entries(1024, 0);

/// Drops that could not be counted at their location, by cause (`dropwatch_common::Lost`).
#[map]
pub static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(LOST_SLOTS, 0);
