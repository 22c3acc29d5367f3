//! When a drop is sampled, and how many drops it stands for.
//!
//! In an interval, the first drops of a key on a CPU are sampled one by one, then ever fewer: the gap
//! to the next sample is a random number of drops up to a part of what was counted in the interval so
//! far. So no sample stands for more than that part, however long a flood lasts, while ten times as
//! many drops cost only some dozen samples more. Weights are unequal but bounded, and so is the error of
//! a share that is made of them.
//!
//! **Random all through.** Any gap from one to the widest is as likely as another. A gap with a fixed part
//! would fall in step with traffic that alternates.
//!
//! **Sums.** A sample stands for the drops since the one before it, itself included, in whatever interval
//! that was. So the weights of a key's samples on a CPU always add up to its count at the last of them.

use crate::Counter;

/// Drops of a key on one CPU in an interval that are always sampled one by one.
pub const WHOLE: u32 = 16;

/// The widest gap is what was counted in the interval by two to this power, where there is room: the
/// finest of the [`fineness`]es.
pub const FINEST: u32 = 4;

/// Whether the drop that was just counted, as the `count`th in the interval `epoch`, is to be sampled;
/// `next` and `of` are those of its [`Counter`], its `next` and its `epoch`.
#[inline(always)]
pub const fn is_due(next: u64, of: u32, count: u64, epoch: u32) -> bool {
    count >= next || of != epoch
}

/// How finely to sample while `used` of `size` bytes of the samples' buffer wait to be read, as a power
/// of two: [`FINEST`] to zero.
///
/// The fuller the buffer, the wider the gaps, so that a host with many keys or many CPUs has coarser
/// samples of each and not a full buffer.
#[inline(always)]
pub const fn fineness(used: u64, size: u64) -> u32 {
    if size == 0 {
        return 0;
    }
    let steps = used * (FINEST as u64 + 1) / size;
    if steps < FINEST as u64 { FINEST - steps as u32 } else { 0 }
}

/// Sets when the next sample of this key is due after this one, of the `count`th drop, in the interval
/// `epoch`; returns how many drops this one stands for. `random` is any 32 bits.
#[inline(always)]
pub const fn schedule(
    counter: &mut Counter,
    count: u64,
    epoch: u32,
    fineness: u32,
    random: u32,
) -> u64 {
    let weight = count.wrapping_sub(counter.sampled);
    counter.sampled = count;
    if counter.epoch == epoch {
        let counted = counter.counted as u64 + weight;
        counter.counted = if counted < u32::MAX as u64 { counted as u32 } else { u32::MAX };
    } else {
        // The first drop of an interval is always sampled: the others are of intervals before.
        counter.epoch = epoch;
        counter.counted = 1;
    }
    let widest = if counter.counted < WHOLE { 0 } else { counter.counted >> fineness };
    // Below `widest`, which may be zero: a multiplication, since a remainder would favour some.
    counter.next = count + 1 + ((random as u64 * widest as u64) >> u32::BITS);
    weight
}
