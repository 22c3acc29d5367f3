//! The network namespace of a packet, by loads that need no helper.
//!
//! Only in a program that is loaded with typed arguments. A pointer may be stale, or its field hold
//! something else (see [`skb`](crate::skb)). A load through it cannot fault: the kernel makes it zero.
//! It may read rubbish, though, so a namespace counts only when `net->ns.ops` is what every network
//! namespace has there.

use aya_ebpf::programs::RawTracePointContext;
use dropwatch_common::{Netns, typed};

use crate::skb::{self, offset};

/// `net->ns.ops` of every network namespace of this boot; zero until the first drop has learnt it.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.learnt")]
static mut NET_OPS: u64 = 0;

/// Loads a field of that many bits through a pointer. The number stands where the loader writes the
/// field's offset.
macro_rules! load {
    ($bits:literal, $base:expr, $field:ident) => {{
        let value: u64;
        // SAFETY: one load, from a pointer that the verifier follows by its type.
        unsafe {
            core::arch::asm!(
                concat!("{value} = *(u", $bits, " *)({base} + {number})"),
                value = out(reg) value,
                base = in(reg) $base,
                number = const typed::$field,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        value
    }};
}

/// The packet's network namespace: its device's, else its socket's, else that of the socket that was
/// to receive it; [`Netns::NONE`] where none is proved.
#[inline(always)]
pub fn netns(ctx: &RawTracePointContext) -> Netns {
    let ops = ops();
    let skb: u64 = ctx.arg(0);
    let device = load!("64", skb, SKB_DEV);
    if device != 0 {
        let net = load!("64", device, DEV_NET);
        // Before anything is learnt, nothing is proved: a stale pointer's load is zero, too.
        if ops != 0 && net != 0 && load!("64", net, NET_OPS) == ops {
            let inum = load!("32", net, NET_INUM) as u32;
            return Netns { inum, cookie: load!("64", net, NET_COOKIE) };
        }
    }
    of_socket(ctx, skb, ops)
}

#[inline(always)]
fn of_socket(ctx: &RawTracePointContext, skb: u64, ops: u64) -> Netns {
    let mut socket = load!("64", skb, SKB_SK);
    // The verifier drops the branch where the tracepoint has no such argument.
    if socket == 0 && offset!(arg_rx_sk) == 3 {
        socket = ctx.arg(3);
    }
    if socket == 0 {
        return Netns::NONE;
    }
    let net = load!("64", socket, SOCK_NET);
    if ops == 0 || net == 0 || load!("64", net, NET_OPS) != ops {
        return Netns::NONE;
    }
    let inum = load!("32", net, NET_INUM) as u32;
    Netns { inum, cookie: load!("64", net, NET_COOKIE) }
}

#[inline(always)]
fn ops() -> u64 {
    // SAFETY: one aligned word. Volatile, because other CPUs write it.
    unsafe { (&raw const NET_OPS).read_volatile() }
}

/// Learns what proves a namespace, if nobody has yet. Whether it has learnt something.
#[inline(always)]
pub fn learn() -> bool {
    if ops() != 0 {
        return false;
    }
    let ops = skb::own_ops();
    // SAFETY: one aligned word, to which every CPU writes the same.
    unsafe { (&raw mut NET_OPS).write_volatile(ops) };
    ops != 0
}
