//! Every map, one line each. Sizes here are for the smallest host: the loader sets them from the
//! number of CPUs, since per-CPU memory multiplies.

use aya_ebpf::{
    macros::map,
    maps::{HashMap, PerCpuArray, RingBuf},
};
use dropwatch_common::{Counter, CpuKey, LOST_SLOTS, Turn, count::Front};

/// Drops by location and reason since attach, at the places that came first: a front cache for each
/// CPU. All of them are one value, whose address the program has in its code: so none takes a look-up.
/// The loader gives the value its true length, and shares it with user space.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.fronts")]
// SAFETY: integers only.
pub static mut FRONTS: [Front; 1] = unsafe { core::mem::zeroed() };

/// Front caches of drops by group; as long as those above only where drops are grouped.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.groups")]
// SAFETY: integers only.
pub static mut GROUP_FRONTS: [Front; 1] = unsafe { core::mem::zeroed() };

/// The others; entries are never removed.
#[map]
pub static DROPS: HashMap<CpuKey, Counter> = HashMap::with_max_entries(1024, 0);

/// Where the counts of a namespace end whose number another one has got since user space last looked,
/// which then removes them. The values mean nothing.
#[map]
pub static TURNS: HashMap<Turn, u64> = HashMap::with_max_entries(4096, 0);

/// What could not be counted at its location, or not be sampled, by cause (`Lost`).
#[map]
pub static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(LOST_SLOTS, 0);

/// Those by group of which the front caches have none; empty unless asked for.
#[map]
pub static GROUPS: HashMap<CpuKey, Counter> = HashMap::with_max_entries(1, 0);

/// Samples (`sample::Record`) on their way to user space, which collects them at its ticks.
#[map]
pub static SAMPLES: RingBuf = RingBuf::with_byte_size(4096, 0);
