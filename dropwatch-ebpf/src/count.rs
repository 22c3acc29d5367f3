//! Exact counting: every drop ends in exactly one counter, at its location or under a cause of loss.

use core::mem::transmute;

use aya_ebpf::{
    EbpfContext, bindings::BPF_NOEXIST, helpers::bpf_get_smp_processor_id, maps::HashMap,
    programs::RawTracePointContext,
};
use aya_log_ebpf::debug;
use dropwatch_common::{
    Counter, CpuKey, DropKey, Lost, NO_COOKIE, NO_NETNS, NO_REASON, Netns, Turn, Undecided,
    count::{self, Front, Hit, Slot, Steps, Word, Words, tag},
};

use crate::{
    cpus,
    fields::Typed,
    maps::{DROPS, FRONTS, GROUPS, LOST, TURNS},
    mode, netns,
    sample::{self, allow, is_due, schedule},
};

/// `E2BIG` (include/uapi/asm-generic/errno-base.h): what a full map answers.
const E2BIG: i32 = -7;
/// `EEXIST`: another CPU, or a drop that interrupted this one, put the key in first.
const EEXIST: i32 = -17;

const ZERO: Counter =
    Counter { count: 0, next: 0, sampled: 0, epoch: 0, counted: 0, cookie: NO_COOKIE };

/// Counts one drop of a namespace, or of [`Netns::NONE`], and takes a sample of it if one is due.
///
/// What is rare has functions of its own that end the program, so that nothing has to be kept across
/// their calls: this one then saves no registers but the context's.
#[inline(always)]
pub fn drop_at(ctx: &RawTracePointContext, mode: u32, front: Option<*mut Front>, netns: Netns) {
    let Some(front) = front else {
        // There is one for every possible CPU. If there were not, that would be counted.
        return lost(Lost::MapBusy);
    };
    let more = |counter, count| mode & mode::SAMPLES != 0 && is_due(counter, count);
    let Netns { inum, cookie } = netns;
    let words = Words { location: location(ctx), tag: tag(reason(ctx, mode), inum), cookie };
    match count::hit(&Places { front }, words, more) {
        Hit::Counted => {}
        // The namespace is handed over: read again, it could be another.
        Hit::Held => sampled(same(ctx), front, inum, cookie),
        Hit::Missed => missed(same(ctx), front, inum, cookie),
    }
}

/// This CPU's front cache.
#[inline(always)]
pub fn front() -> Option<*mut Front> {
    front_of((&raw mut FRONTS).cast())
}

/// This CPU's of some front caches.
#[inline(always)]
pub fn front_of(fronts: *mut Front) -> Option<*mut Front> {
    // `bpf_get_smp_processor_id` (include/uapi/linux/bpf.h). The crate's own binding answers with 32
    // bits, which takes two instructions to make sure of; the kernel's function returns 64.
    // SAFETY: the helper of that number takes no argument.
    let number = unsafe { transmute::<usize, unsafe extern "C" fn() -> u64>(8) };
    // SAFETY: touches no memory.
    let cpu = unsafe { number() };
    if cpu >= u64::from(cpus()) {
        return None;
    }
    // Wrapping, because the compiler knows of one only.
    Some(fronts.wrapping_add(cpu as usize))
}

#[inline(always)]
fn location(ctx: &RawTracePointContext) -> u64 {
    ctx.arg(1)
}

#[inline(always)]
fn reason(ctx: &RawTracePointContext, mode: u32) -> u32 {
    if mode & mode::REASON == 0 { NO_REASON } else { ctx.arg(2) }
}

/// The namespace to count a drop in, where they are told apart.
#[inline(always)]
pub fn netns(ctx: &RawTracePointContext, mode: u32) -> Netns {
    if mode & mode::NETNS == 0 { Netns::NONE } else { netns::netns::<Typed>(ctx) }
}

/// The context for a function of its own: by value, since a reference would be one to the stack.
#[inline(always)]
pub fn same(ctx: &RawTracePointContext) -> RawTracePointContext {
    RawTracePointContext::new(ctx.as_ptr())
}

/// Takes the sample that is due of a drop that [`drop_at`] has counted.
#[inline(never)]
fn sampled(ctx: RawTracePointContext, front: *mut Front, netns: u32, cookie: u64) {
    let ctx = &ctx;
    let (location, reason) = (location(ctx), reason(ctx, mode()));
    let words = Words { location, tag: tag(reason, netns), cookie };
    let weight = count::release(&Places { front }, words, weigh);
    if weight != 0 {
        sample::take(ctx, &DropKey { location, reason, netns }, cookie, weight);
    }
}

/// How many drops the sample that is due stands for; 0 where it is not to be taken.
#[inline(always)]
fn weigh(counter: *mut Counter, count: u64) -> u64 {
    if mode() & mode::EVERY == 0 { schedule(counter, count) } else { allow(counter, count) }
}

/// Counts a drop that the first look does not find, and takes a sample of it if one is due.
///
/// The settings are read anew for each question: verifiers of 5.10 forget that a word is a constant
/// where it is kept on the stack across a call, and would look at code that is not to be run.
#[inline(never)]
fn missed(ctx: RawTracePointContext, front: *mut Front, mut netns: u32, mut cookie: u64) {
    let ctx = &ctx;
    if mode() & mode::NETNS != 0 && netns == NO_NETNS && netns::learn() {
        Netns { inum: netns, cookie } = netns::netns::<Typed>(ctx);
    }
    let (location, reason) = (location(ctx), reason(ctx, mode()));
    let weight = |counter, count| {
        if count == 1 {
            debug!(ctx, "first drop at {:x}, reason {}", location, reason);
        }
        if mode() & mode::SAMPLES == 0 || !is_due(counter, count) {
            return 0;
        }
        weigh(counter, count)
    };
    let maps = Places { front };
    let words = Words { location, tag: tag(reason, netns), cookie };
    let mut counted = count::miss(&maps, words, weight);
    if netns != NO_NETNS && matches!(counted, Err(Lost::MapFull)) {
        // No room for another namespace: the place has its count all the same.
        Netns { inum: netns, cookie } = Netns::NONE;
        let words = Words { location, tag: tag(reason, netns), cookie };
        counted = count::miss(&maps, words, weight);
    }
    match counted {
        Ok(0) => {}
        Ok(weight) => sample::take(ctx, &DropKey { location, reason, netns }, cookie, weight),
        Err(cause) => lost(cause),
    }
}

/// This CPU's counters: of groups, or of places.
pub struct Counters<const OF_GROUPS: bool> {
    pub front: *mut Front,
}

type Places = Counters<false>;

/// Loads a word of a front cache.
///
/// # Safety
///
/// `front` is within the map's value, which the verifier has checked, and `word` is one of a slot below
/// [`SLOTS`](dropwatch_common::count::SLOTS), which it checks, too.
#[inline(always)]
unsafe fn load(front: *mut Front, word: Word) -> u64 {
    // SAFETY: the caller's promise. Volatile, and fenced in `store`: an interruption on this CPU must
    // find the words in the order of the code.
    unsafe { address(front, word).read_volatile() }
}

/// Stores a word of a front cache.
///
/// # Safety
///
/// As for [`load`].
#[inline(always)]
unsafe fn store(front: *mut Front, word: Word, value: u64) {
    in_order();
    // SAFETY: as above.
    unsafe { address(front, word).write_volatile(value) };
    in_order();
}

#[inline(always)]
unsafe fn address(front: *mut Front, word: Word) -> *mut u64 {
    // SAFETY: the caller's promise.
    unsafe {
        match word {
            Word::Claiming(slot) => &raw mut (*slot_of(front, slot)).claiming,
            Word::Location(slot) => &raw mut (*slot_of(front, slot)).location,
            Word::Tag(slot) => &raw mut (*slot_of(front, slot)).tag,
            Word::Count(slot) => &raw mut (*slot_of(front, slot)).counter.count,
            Word::Cookie(slot) => &raw mut (*slot_of(front, slot)).counter.cookie,
        }
    }
}

/// # Safety
///
/// `slot` is below [`SLOTS`](dropwatch_common::count::SLOTS).
#[inline(always)]
unsafe fn slot_of(front: *mut Front, slot: usize) -> *mut Slot {
    // SAFETY: the caller's promise.
    unsafe { (&raw mut (*front).slots).cast::<Slot>().add(slot) }
}

impl<const OF_GROUPS: bool> Steps for Counters<OF_GROUPS> {
    type Place = *mut Counter;

    #[inline(always)]
    fn load(&self, word: Word) -> u64 {
        // SAFETY: the front cache of this CPU; `count` names slots that there are.
        unsafe { load(self.front, word) }
    }

    #[inline(always)]
    fn store(&self, word: Word, value: u64) {
        // SAFETY: as above.
        unsafe { store(self.front, word, value) };
    }

    #[inline(always)]
    fn slot(&self, slot: usize) -> *mut Counter {
        // SAFETY: as above.
        unsafe { &raw mut (*slot_of(self.front, slot)).counter }
    }

    #[inline(always)]
    fn find(&self, key: &DropKey) -> Option<*mut Counter> {
        map::<OF_GROUPS>().get_ptr_mut(CpuKey::new(*key, cpu()))
    }

    #[inline(always)]
    fn insert(&self, key: &DropKey) -> Result<(), Lost> {
        match insert::<OF_GROUPS>(key) {
            0 => Ok(()),
            E2BIG => Err(Lost::MapFull),
            _ => Err(Lost::MapBusy),
        }
    }

    #[inline(always)]
    fn add(&self, counter: *mut Counter) {
        add(counter.cast(), 1);
    }

    #[inline(always)]
    fn count(&self, counter: *mut Counter) -> u64 {
        // SAFETY: a counter that `find` has found. Volatile, so that it is read before the cookie.
        unsafe { (&raw const (*counter).count).read_volatile() }
    }

    #[inline(always)]
    fn cookie(&self, counter: *mut Counter) -> u64 {
        // SAFETY: as for the count.
        unsafe { (&raw const (*counter).cookie).read_volatile() }
    }

    #[inline(always)]
    fn set_cookie(&self, counter: *mut Counter, cookie: u64) {
        in_order();
        // SAFETY: as for the count.
        unsafe { (&raw mut (*counter).cookie).write_volatile(cookie) };
        in_order();
    }

    #[inline(always)]
    fn note(&self, turn: Turn) -> Result<(), Lost> {
        let group = if OF_GROUPS { Turn::OF_GROUP } else { 0 };
        match note(&Turn { counter: turn.counter | group, cpu: cpu(), ..turn }) {
            0 => Ok(()),
            _ => Err(Lost::MapFull),
        }
    }
}

/// Puts a turn into its map, and returns the error if that fails.
#[inline(never)]
fn note(turn: &Turn) -> i32 {
    match TURNS.insert(turn, 0, BPF_NOEXIST.into()) {
        Ok(()) | Err(EEXIST) => 0,
        Err(errno) => errno,
    }
}

/// Keeps the compiler from moving memory accesses across. The CPU needs nothing: an interruption
/// sees its own CPU's accesses in their order.
#[inline(always)]
fn in_order() {
    // SAFETY: no instruction.
    unsafe { core::arch::asm!("") };
}

/// Puts a zero for a new key into the map, and returns the error if that fails.
#[inline(never)]
fn insert<const OF_GROUPS: bool>(key: &DropKey) -> i32 {
    match map::<OF_GROUPS>().insert(CpuKey::new(*key, cpu()), ZERO, BPF_NOEXIST.into()) {
        Ok(()) | Err(EEXIST) => 0,
        Err(errno) => errno,
    }
}

#[inline(always)]
fn map<const OF_GROUPS: bool>() -> &'static HashMap<CpuKey, Counter> {
    if OF_GROUPS { &GROUPS } else { &DROPS }
}

/// The number of this CPU.
#[inline(always)]
fn cpu() -> u32 {
    // SAFETY: takes no argument, touches no memory.
    unsafe { bpf_get_smp_processor_id() }
}

/// Counts something that was lost.
#[inline(always)]
pub fn lost(cause: Lost) {
    if let Some(count) = LOST.get_ptr_mut(cause as u32) {
        add(count, 1);
    }
}

/// Counts a drop that the filter of that number could not decide ([`Undecided`]).
#[inline(always)]
pub fn undecided(number: u32) {
    if let Some(count) = LOST.get_ptr_mut(Undecided::slot_of(number)) {
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
