//! How one drop is counted: first in a small front cache, else in the hash map.
//!
//! A hash-map look-up is the dearest part of counting a drop, so each CPU has [`SLOTS`] counters
//! that are found without one. A slot is claimed once, by the first key that comes to it, and never
//! given up or moved: its counter only grows, and a reader on another CPU can add slots and map
//! entries up at any time. Keys that find both of their slots taken are counted in the map.
//!
//! **Interruptions.** A drop in process context can be interrupted by a softirq that drops on the
//! same CPU, and before Linux 6.0 the program then runs within itself. The inner run ends before the
//! outer one goes on. So one busy word per CPU is enough: whoever finds it set counts in the map,
//! where the kernel and an atomic addition keep order. The steps are a trait, so that a test
//! (`tests/nesting.rs`) runs this very code with an interruption between any two of them.
//!
//! **Readers.** Both words of a slot's key are written once, from zero to their final value, and
//! [`TAKEN`] makes the second never zero: a reader that sees both sees the key, in whatever order
//! they come to it.

use crate::{Counter, DropKey, Lost};

/// Slots of one CPU.
pub const SLOTS: usize = 256;
/// Set in the tag of every slot that has a key.
pub const TAKEN: u64 = 1 << 32;

/// One counter of the front cache.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// [`DropKey::location`]; zero until claimed.
    pub location: u64,
    /// [`DropKey::reason`] and [`TAKEN`]; zero until claimed.
    pub tag: u64,
    pub counter: Counter,
}

/// The front cache of one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Front {
    /// Not zero while a drop is being counted in a slot.
    pub busy: u64,
    pub slots: [Slot; SLOTS],
}

// The kernel's per-CPU allocator gives 32 KiB at most (`PCPU_MIN_UNIT_SIZE`, include/linux/percpu.h).
const _: () = assert!(size_of::<Slot>() == 48 && size_of::<Front>() == 8 + 48 * SLOTS);

impl Slot {
    /// Its key, once both words of it have arrived.
    pub const fn key(&self) -> Option<DropKey> {
        if self.location == 0 || self.tag & TAKEN == 0 {
            return None;
        }
        Some(DropKey::new(self.location, self.tag as u32))
    }
}

/// A word of [`Front`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Busy,
    Location(usize),
    Tag(usize),
    Count(usize),
}

/// What counting does to memory, each a step that is whole: an interruption comes between two.
pub trait Steps {
    /// Where a counter is.
    type Place: Copy;

    fn load(&self, word: Word) -> u64;
    fn store(&self, word: Word, value: u64);
    /// The counter of a slot.
    fn slot(&self, slot: usize) -> Self::Place;
    /// The counter of a key in the hash map.
    fn find(&self, key: &DropKey) -> Option<Self::Place>;
    /// Puts a zero into the hash map, unless the key is there.
    fn insert(&self, key: &DropKey) -> Result<(), Lost>;
    /// Adds one to a counter of the hash map, in one instruction.
    fn add(&self, counter: Self::Place);
}

/// Counts one drop, and does `then` with its counter before an interruption can come to that slot.
///
/// # Errors
///
/// Where the hash map has no room for another key: the drop is counted nowhere yet.
#[inline(always)]
pub fn count<S: Steps, R>(
    steps: &S,
    key: &DropKey,
    then: impl Fn(S::Place) -> R,
) -> Result<R, Lost> {
    if steps.load(Word::Busy) == 0 {
        steps.store(Word::Busy, 1);
        let first = home(key);
        let mut slot = first;
        let mut mine = claim(steps, slot, key);
        if !mine {
            slot = first ^ 1;
            mine = claim(steps, slot, key);
        }
        if mine {
            steps.store(Word::Count(slot), steps.load(Word::Count(slot)) + 1);
            let result = then(steps.slot(slot));
            steps.store(Word::Busy, 0);
            return Ok(result);
        }
        steps.store(Word::Busy, 0);
    }
    count_in_map(steps, key).map(then)
}

/// The first of the two slots of a key; the other is its neighbour, in most cases in the same line
/// of the CPU's cache. Fibonacci hashing: locations differ in their low bits, reasons in a few.
#[inline(always)]
pub fn home(key: &DropKey) -> usize {
    let mixed = (key.location ^ (key.reason as u64) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (u64::BITS - SLOTS.ilog2())) as usize
}

/// Whether the slot is the key's, now.
#[inline(always)]
fn claim<S: Steps>(steps: &S, slot: usize, key: &DropKey) -> bool {
    let wanted = TAKEN | key.reason as u64;
    let tag = steps.load(Word::Tag(slot));
    if tag == 0 && key.location != 0 {
        steps.store(Word::Location(slot), key.location);
        steps.store(Word::Tag(slot), wanted);
        return true;
    }
    tag == wanted && steps.load(Word::Location(slot)) == key.location
}

/// A zero is inserted first and added to afterwards: inserting a one could overwrite what an
/// interrupting drop has counted meanwhile.
#[inline(always)]
fn count_in_map<S: Steps>(steps: &S, key: &DropKey) -> Result<S::Place, Lost> {
    let mut counter = steps.find(key);
    if counter.is_none() {
        steps.insert(key)?;
        counter = steps.find(key);
    }
    // Entries are never removed, so the second look finds it; if not, that is counted.
    let counter = counter.ok_or(Lost::MapBusy)?;
    steps.add(counter);
    Ok(counter)
}
