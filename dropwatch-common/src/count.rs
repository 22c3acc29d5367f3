//! How one drop is counted: first in a small front cache, else in the hash map.
//!
//! A hash-map look-up is the dearest part of counting a drop, so each CPU has [`SLOTS`] counters
//! that are found without one. A slot is claimed once, by the first key that comes to it, and never
//! given up or moved: its counter only grows, and a reader on another CPU can add slots and map
//! entries up at any time. Keys that find both of their slots taken are counted in the map.
//!
//! **Interruptions.** A drop in process context can be interrupted by a softirq that drops on the
//! same CPU, and before Linux 6.0 the program then runs within itself. The inner run ends before the
//! outer one goes on. So plain words are enough to keep both apart: a slot whose counter is being
//! changed has the [`busy`] tag, and a slot that is being claimed says so in a word of its own. Whoever
//! finds either counts elsewhere, at last in the map, where the kernel and an atomic addition keep
//! order. The steps are a trait, so that a test (`tests/nesting.rs`) runs this very code with an
//! interruption between any two of them.
//!
//! **Namespaces.** A key has the number of a namespace, which the kernel gives again once the namespace
//! is gone. So there are never more keys than namespaces that lived at once, and none has to be removed;
//! but a counter can have drops of several. It says which is its last one (`Counter::cookie`). Before
//! the first drop of another is counted, it is noted up to where the older one's go ([`Turn`]). A count
//! never moves, and no reader sees one of which nobody knows whose it is.
//!
//! **Readers.** The location of a slot is written once, and so is its tag, of reason and namespace, but
//! for being busy and not: neither is ever zero then, so a reader that sees both sees the key, in
//! whatever order they come to it.

use crate::{Counter, DropKey, Lost, Turn};

/// Slots of one CPU.
pub const SLOTS: usize = 256;
/// Where in the tag the reason begins: one shift both puts it there and clears what a register may
/// have beyond its 32 bits.
const REASON_SHIFT: u32 = 32;

/// One counter of the front cache: a line of the CPU's cache.
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes))]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// [`DropKey::location`]; zero until claimed.
    pub location: u64,
    /// [`tag`] of its key, or the [`busy`] one; zero until claimed.
    pub tag: u64,
    pub counter: Counter,
    /// Not zero while a key claims the slot.
    pub claiming: u64,
}

/// The front cache of one CPU: pages of its own.
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes))]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Front {
    pub slots: [Slot; SLOTS],
}

const _: () = assert!(size_of::<Slot>() == 64 && size_of::<Front>() == 16 << 10);

impl Slot {
    /// Its key, once both words of it have arrived.
    pub const fn key(&self) -> Option<DropKey> {
        if self.location == 0 || self.tag == 0 {
            return None;
        }
        // No tag has the highest bit, so it is a busy one.
        let tag = if self.tag >> (u64::BITS - 1) == 0 { self.tag } else { busy(self.tag) };
        Some(key(self.location, tag))
    }
}

/// What a drop is counted under, in words as the front cache has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    pub location: u64,
    /// [`tag`] of its reason and the number of its namespace.
    pub tag: u64,
    /// Which of the namespaces that had this number it is.
    pub cookie: u64,
}

/// The key that has this tag.
#[inline(always)]
const fn key(location: u64, tag: u64) -> DropKey {
    let reason = (tag >> REASON_SHIFT).wrapping_sub(1) as u32;
    DropKey { location, reason, netns: tag as u32 }
}

/// The tag of a slot that has a key with this reason and this namespace, while nobody is at it.
///
/// It is never zero, and its highest bit is never set: a reason is the number of a subsystem above 16
/// bits of its own numbering (`include/net/dropreason.h`, 6.4), of which no kernel has 2^15.
#[inline(always)]
pub const fn tag(reason: u32, netns: u32) -> u64 {
    (reason as u64).wrapping_add(1) << REASON_SHIFT | netns as u64
}

/// The tag while the slot's counter is being changed: no other key's, and back again by the same
/// step. All bits, since that takes one instruction.
#[inline(always)]
pub const fn busy(tag: u64) -> u64 {
    !tag
}

/// A word of [`Front`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Claiming(usize),
    Location(usize),
    Tag(usize),
    Count(usize),
    Cookie(usize),
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
    /// What a counter of the hash map has.
    fn count(&self, counter: Self::Place) -> u64;
    /// The namespace that a counter of the hash map counts for.
    fn cookie(&self, counter: Self::Place) -> u64;
    /// Has a counter of the hash map count for another namespace.
    fn set_cookie(&self, counter: Self::Place, cookie: u64);
    /// Notes that the namespace with a number has become another one; [`Turn::cpu`] is left to this.
    fn note(&self, turn: Turn) -> Result<(), Lost>;
}

/// What came of [`hit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    /// Counted, and that was all.
    Counted,
    /// Counted. The slot stays [`busy`] until [`release`].
    Held,
    /// Not counted yet: [`miss`] does.
    Missed,
}

/// Counts a drop in the first slot of its key, if that has the key and the namespace already. The slot
/// is held if `more`, which looks at the counter and the new count, says that there is more to do with
/// it. This is all that a drop costs in a flood: whatever is rare is not done here, and needs no
/// register that this code would have to save.
#[inline(always)]
pub fn hit<S: Steps>(steps: &S, words: Words, more: impl Fn(S::Place, u64) -> bool) -> Hit {
    let slot = home(words.location, words.tag);
    if !has_key(steps, slot, words) || steps.load(Word::Cookie(slot)) != words.cookie {
        return Hit::Missed;
    }
    steps.store(Word::Tag(slot), busy(words.tag));
    let count = count_in(steps, slot);
    if more(steps.slot(slot), count) {
        return Hit::Held;
    }
    steps.store(Word::Tag(slot), words.tag);
    Hit::Counted
}

/// Does `then` with a counter that [`hit`] has held, and lets it go.
#[inline(always)]
pub fn release<S: Steps, R>(steps: &S, words: Words, then: impl Fn(S::Place, u64) -> R) -> R {
    follow(steps, home(words.location, words.tag), words.tag, then)
}

/// Counts a drop for which [`hit`] was of no use: in a slot of its key that counts for another namespace
/// so far, in the other slot, in one that it claims, or in the hash map.
///
/// # Errors
///
/// Where the hash map has no room for another key, or it cannot be noted whose the older counts are:
/// the drop is counted nowhere yet.
#[inline(always)]
pub fn miss<S: Steps, R>(
    steps: &S,
    words: Words,
    then: impl Fn(S::Place, u64) -> R,
) -> Result<R, Lost> {
    let first = home(words.location, words.tag);
    let second = first ^ 1;
    let slot = if claim(steps, first, words) || has_key(steps, first, words) {
        Some(first)
    } else if steps.load(Word::Tag(first)) == busy(words.tag) {
        // It may be this key's: then the map has room for both.
        None
    } else if has_key(steps, second, words) || claim(steps, second, words) {
        Some(second)
    } else {
        None
    };
    if let Some(slot) = slot {
        steps.store(Word::Tag(slot), busy(words.tag));
        let counted = turn(steps, slot, words).map(|()| count_in(steps, slot));
        if let Err(lost) = counted {
            steps.store(Word::Tag(slot), words.tag);
            return Err(lost);
        }
        return Ok(follow(steps, slot, words.tag, then));
    }
    let place = in_map(steps, words)?;
    Ok(then(place, steps.count(place)))
}

/// The first of the two slots of a key; the other is its neighbour, in most cases in the same line
/// of the CPU's cache. Fibonacci hashing: locations differ in their low bits, reasons in a few.
#[inline(always)]
pub fn home(location: u64, tag: u64) -> usize {
    let mixed = (location ^ tag).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (u64::BITS - SLOTS.ilog2())) as usize
}

/// Whether a slot has the key and is not busy.
#[inline(always)]
fn has_key<S: Steps>(steps: &S, slot: usize, Words { location, tag, .. }: Words) -> bool {
    steps.load(Word::Tag(slot)) == tag && steps.load(Word::Location(slot)) == location
}

/// Has a busy slot count for the namespace of `words` from now on.
#[inline(always)]
fn turn<S: Steps>(steps: &S, slot: usize, words: Words) -> Result<(), Lost> {
    let cookie = steps.load(Word::Cookie(slot));
    if cookie == words.cookie {
        return Ok(());
    }
    let until = steps.load(Word::Count(slot));
    if until != 0 {
        let key = key(words.location, words.tag);
        steps.note(Turn { key, counter: slot as u32, cpu: 0, cookie, until })?;
    }
    steps.store(Word::Cookie(slot), words.cookie);
    Ok(())
}

/// Counts in a busy slot.
#[inline(always)]
fn count_in<S: Steps>(steps: &S, slot: usize) -> u64 {
    let count = steps.load(Word::Count(slot)) + 1;
    steps.store(Word::Count(slot), count);
    count
}

/// Does `then` with the counter of a slot that this drop made busy, which it is no longer then.
#[inline(always)]
fn follow<S: Steps, R>(steps: &S, slot: usize, tag: u64, then: impl Fn(S::Place, u64) -> R) -> R {
    let result = then(steps.slot(slot), steps.load(Word::Count(slot)));
    steps.store(Word::Tag(slot), tag);
    result
}

/// Makes a slot the key's, if it is nobody's.
#[inline(always)]
fn claim<S: Steps>(steps: &S, slot: usize, Words { location, tag, cookie }: Words) -> bool {
    if location == 0 || steps.load(Word::Tag(slot)) != 0 || steps.load(Word::Claiming(slot)) != 0 {
        return false;
    }
    steps.store(Word::Claiming(slot), 1);
    // An interruption may have claimed it since. From here on none can.
    let free = steps.load(Word::Tag(slot)) == 0;
    if free {
        steps.store(Word::Location(slot), location);
        steps.store(Word::Cookie(slot), cookie);
        steps.store(Word::Tag(slot), tag);
    }
    steps.store(Word::Claiming(slot), 0);
    free
}

/// Counts a drop in the hash map alone.
///
/// A zero is inserted first and added to afterwards: inserting a one could overwrite what an
/// interrupting drop has counted meanwhile.
#[inline(always)]
pub fn in_map<S: Steps>(steps: &S, words: Words) -> Result<S::Place, Lost> {
    let key = key(words.location, words.tag);
    let mut counter = steps.find(&key);
    if counter.is_none() {
        steps.insert(&key)?;
        counter = steps.find(&key);
    }
    // Entries are never removed, so the second look finds it; if not, that is counted.
    let counter = counter.ok_or(Lost::MapBusy)?;
    // The count first: what an interruption has counted by the time the cookie is read is not the older
    // namespace's, but then the cookie is the younger one's already.
    let until = steps.count(counter);
    let cookie = steps.cookie(counter);
    if cookie != words.cookie {
        if until != 0 {
            steps.note(Turn { key, counter: Turn::IN_MAP, cpu: 0, cookie, until })?;
        }
        steps.set_cookie(counter, words.cookie);
    }
    steps.add(counter);
    Ok(counter)
}
