//! The kernel side: counts every packet that the kernel drops, at the place that dropped it, and
//! keeps a few of them in detail.
//!
//! One program on the tracepoint `skb:kfree_skb`, which takes the arguments as they are: their order
//! has only ever grown at the end (`skb, location[, reason[, rx_sk]]`, 4.17 to 7.2), while the layout
//! of the tracepoint's record moved. It is loaded as one whose arguments have types (`tp_btf`), or,
//! where the kernel does not take that, as a raw one.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "a context is one word in a register; a reference to it would be to the caller's stack"
)]

mod count;
mod direction;
mod expression;
mod fields;
mod filter;
mod group;
mod maps;
mod netns;
mod packet;
mod sample;
mod skb;

use core::cmp::min;

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use dropwatch_common::{Settings, Undecided, filter::part, mode};

use crate::fields::{Fields, Probed, Typed};

/// Set by the loader. Whether the tracepoint carries a drop reason as its third argument (Linux 5.17,
/// and stable kernels that took it back), the loader finds out by trying: the kernel refuses to
/// attach a program that reads an argument which the tracepoint lacks, but has dropped the branch
/// not taken before that check.
#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings { mode: 0, cpus: 0 };

#[inline(always)]
fn mode() -> u32 {
    // SAFETY: a field of a static. Volatile, because the loader replaces it after compilation.
    unsafe { (&raw const SETTINGS.mode).read_volatile() }
}

#[inline(always)]
fn cpus() -> u32 {
    // SAFETY: as above.
    unsafe { (&raw const SETTINGS.cpus).read_volatile() }
}

#[raw_tracepoint(tracepoint = "kfree_skb")]
fn dropwatch_kfree_skb(ctx: RawTracePointContext) -> i32 {
    // First, so that nothing but the context has to be kept across the helper's call.
    let front = count::front();
    let mode = mode();
    if mode >> mode::FILTER_SHIFT == 0 {
        count::drop_at(&ctx, mode, front, count::netns(&ctx, mode));
    } else if mode & mode::NETNS != 0 {
        by_packet::<Typed>(ctx);
    } else {
        by_packet::<Probed>(ctx);
    }
    0
}

/// What of packets filters decide by (bits of [`part`]). Read anew for each question, as in
/// [`count`].
#[inline(always)]
fn filtering() -> u32 {
    mode() >> mode::FILTER_SHIFT & mode::PARTS
}

/// What of packets drops are counted by, once more.
#[inline(always)]
fn grouping() -> u32 {
    mode() >> mode::GROUP_SHIFT & mode::PARTS
}

/// Counts a drop where a filter or a group needs to know more of the packet.
///
/// What reads headers, or counts groups, is a function of its own that gets no more than the context:
/// what one needs in registers and on the stack is then nothing to whoever asks for none of it.
#[inline(never)]
fn by_packet<F: Fields>(ctx: RawTracePointContext) {
    let ctx = &ctx;
    let of_place = part::NETNS | part::IFACE;
    let of_device = of_place | part::DIRECTION;
    if filtering() & (of_device | part::EXPRESSION) != 0 || grouping() & of_device != 0 {
        netns::learn();
    }
    let mut verdict = filter::SELECTED;
    if filtering() & of_place != 0 {
        verdict = filter::by_place::<F>(count::same(ctx));
    }
    if filtering() & (part::LENGTH | part::MARK | part::DIRECTION) != 0
        && verdict != filter::REFUSED
    {
        verdict = min(verdict, filter::by_notes::<F>(count::same(ctx)));
    }
    if filtering() & (part::HEADERS | part::TCP_FLAGS) != 0 && verdict != filter::REFUSED {
        verdict = min(verdict, filter::by_headers::<F>(count::same(ctx)));
    }
    if filtering() & part::EXPRESSION != 0 && verdict != filter::REFUSED {
        let said = expression::judge::<F>(count::same(ctx));
        verdict = min(verdict, filter::said(said, Undecided::Expression));
    }
    match verdict {
        filter::REFUSED => {}
        filter::SELECTED => {
            count::drop_at(ctx, mode(), count::front(), count::netns(ctx, mode()));
            if grouping() != 0 {
                group::count::<F>(count::same(ctx));
            }
        }
        number => count::undecided(number - 1),
    }
}

/// The verifier refuses a program that could reach this; the linker drops it.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Helpers that read the kernel's memory are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
