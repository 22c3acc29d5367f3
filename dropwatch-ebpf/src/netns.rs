//! The network namespace of a packet, and its device where that proves it.
//!
//! A pointer may be stale, or its field hold something else: `skb->dev` shares storage with
//! `dev_scratch` and `rbnode`, for one. A load through it does not fault, but may read rubbish. So a
//! namespace counts only when `net->ns.ops` is what every network namespace has there, and a device only
//! in a namespace that counts.

use aya_ebpf::{helpers::bpf_get_current_task, programs::RawTracePointContext};
use dropwatch_common::{NO_NETNS, Netns};

use crate::fields::{Fields, field, offset};

/// `net->ns.ops` of every network namespace of this boot; zero until the first drop has learnt it.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.learnt")]
static mut NET_OPS: u64 = 0;

/// The packet's network namespace: its device's, else its socket's, else that of the socket that was
/// to receive it; [`Netns::NONE`] where none is proved.
#[inline(always)]
pub fn netns<F: Fields>(ctx: &RawTracePointContext) -> Netns {
    Place::of::<F>(ctx).netns::<F>(ctx)
}

/// Where a packet is: its device, which means something only where its namespace is proved. Plain
/// numbers, as in [`Packet`](crate::packet::Packet).
pub struct Place {
    pub device: u64,
    /// Inode number, or [`NO_NETNS`].
    pub device_netns: u32,
    /// The namespace itself, which means something only where it is proved.
    net: u64,
}

impl Place {
    /// Not looked at.
    pub const NONE: Self = Self { device: 0, device_netns: NO_NETNS, net: 0 };

    #[inline(always)]
    pub fn of<F: Fields>(ctx: &RawTracePointContext) -> Self {
        let device = F::skb_dev(ctx.arg(0));
        if device == 0 {
            return Self::NONE;
        }
        let net = F::dev_net(device);
        Self { device, device_netns: proved::<F>(net), net }
    }

    /// As [`netns`].
    #[inline(always)]
    pub fn netns<F: Fields>(&self, ctx: &RawTracePointContext) -> Netns {
        if self.device_netns != NO_NETNS {
            return self.of_device::<F>();
        }
        of_socket::<F>(socket::<F>(ctx))
    }

    /// The device's namespace, or [`Netns::NONE`].
    #[inline(always)]
    pub fn of_device<F: Fields>(&self) -> Netns {
        if self.device_netns == NO_NETNS {
            return Netns::NONE;
        }
        Netns { inum: self.device_netns, cookie: F::net_cookie(self.net) }
    }
}

/// The packet's socket, or the one that was to receive it; 0 where there is neither. It means something
/// only where [`of_socket`] proves its namespace.
#[inline(always)]
pub fn socket<F: Fields>(ctx: &RawTracePointContext) -> u64 {
    let socket = F::skb_sk(ctx.arg(0));
    // The verifier drops the branch where the tracepoint has no such argument.
    if socket == 0 && offset!(arg_rx_sk) == 3 {
        return ctx.arg(3);
    }
    socket
}

/// A socket's namespace, or [`Netns::NONE`].
#[inline(always)]
fn of_socket<F: Fields>(socket: u64) -> Netns {
    if socket == 0 {
        return Netns::NONE;
    }
    let net = F::sock_net(socket);
    match proved::<F>(net) {
        NO_NETNS => Netns::NONE,
        inum => Netns { inum, cookie: F::net_cookie(net) },
    }
}

/// Inode number of a socket's namespace, or [`NO_NETNS`].
#[inline(always)]
pub fn inum_of_socket<F: Fields>(socket: u64) -> u32 {
    if socket == 0 { NO_NETNS } else { proved::<F>(F::sock_net(socket)) }
}

/// Inode number of the network namespace that the pointer leads to, or [`NO_NETNS`]: its operations
/// are the same for all of them, and for nothing else.
#[inline(always)]
fn proved<F: Fields>(net: u64) -> u32 {
    let ops = ops();
    // Before anything is learnt, nothing is proved: a stale pointer's load is zero, too.
    if ops == 0 || net == 0 || F::net_ops(net) != ops {
        return NO_NETNS;
    }
    F::net_inum(net)
}

#[inline(always)]
fn ops() -> u64 {
    // SAFETY: one aligned word. Volatile, because other CPUs write it.
    unsafe { (&raw const NET_OPS).read_volatile() }
}

/// Learns what proves a namespace, if nobody has yet. Whether it has learnt something.
#[inline(always)]
pub fn learn() -> bool {
    ops() == 0 && learn_now()
}

#[inline(never)]
fn learn_now() -> bool {
    let ops = own_ops();
    // SAFETY: one aligned word, to which every CPU writes the same.
    unsafe { (&raw mut NET_OPS).write_volatile(ops) };
    ops != 0
}

/// The operations that every network namespace has, as the current task's namespace shows them; or that
/// of its parent, where it is about to end and has left its own (`exit_task_namespaces()`).
#[inline(always)]
fn own_ops() -> u64 {
    // SAFETY: takes no argument, touches no memory.
    let task = unsafe { bpf_get_current_task() };
    let mut nsproxy: u64 = field(task, offset!(task_nsproxy)).unwrap_or(0);
    if nsproxy == 0 {
        let parent = field(task, offset!(task_real_parent)).unwrap_or(0);
        nsproxy = field(parent, offset!(task_nsproxy)).unwrap_or(0);
    }
    field(nsproxy, offset!(nsproxy_net)).and_then(|net| field(net, offset!(net_ops))).unwrap_or(0)
}
