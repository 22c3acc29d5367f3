//! Which drops are counted at all.
//!
//! A drop is counted when every option lets it through. What cannot be read of a packet decides
//! nothing: where no other option has refused it already, it is counted as undecided.
//!
//! All of it is inlined, and so is what it reads ([`Packet`], [`Place`]). In a function that gets a
//! pointer to its caller's stack, verifiers before Linux 6.8 forget that a branch was decided by a
//! constant read through that pointer ("bpf: support non-r10 register spill/fill to/from stack in
//! precision tracking"). They then take another path for the same as that one, and remove code
//! that does run: on 5.10 and 6.1, one filter left every packet undecided.

use core::cmp::{max, min};

use aya_ebpf::programs::RawTracePointContext;
use dropwatch_common::filter::{
    ANY, Filter, LATER as NOT_YET, MOST, Masked, Ports, Protocol, Rule, kind, part,
};

use crate::{
    packet::{IPV4, IPV6, NO_PORTS, Packet, UNKNOWN},
    skb::{Place, field, offset},
};

/// Set by the loader.
#[unsafe(no_mangle)]
static FILTER: Filter = Filter::NONE;

/// Inode numbers of the network namespaces that were not there when the program was loaded. User
/// space writes each when its namespace has come; 0 is none.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.later")]
static mut LATER: [u32; MOST] = [0; MOST];

/// What rules say of a packet. Plain numbers in an order: the least of several is what they say
/// together.
type Verdict = u32;
const NO: Verdict = 0;
const UNDECIDED: Verdict = 1;
const YES: Verdict = 2;

/// Whether to count a drop, by the options in use (bits of [`part`]); `None` where that cannot be
/// decided.
#[inline(always)]
pub fn wants(ctx: &RawTracePointContext, filtering: u32) -> Option<bool> {
    if filtering == 0 {
        return Some(true);
    }
    let mut verdict = YES;
    if filtering & (part::NETNS | part::IFACE) != 0 {
        let place = Place::of(ctx);
        if filtering & part::NETNS != 0 {
            verdict = namespaces(&place);
        }
        if filtering & part::IFACE != 0 {
            verdict = min(verdict, interfaces(&place));
        }
    }
    if filtering & part::HEADERS != 0 && verdict != NO {
        let packet = Packet::read(ctx.arg(0));
        verdict = min(verdict, protocols(&packet));
        verdict = min(verdict, hosts(&packet));
        verdict = min(verdict, ports(&packet));
    }
    match verdict {
        NO => Some(false),
        YES => Some(true),
        _ => None,
    }
}

/// What one option says: no value that it excludes may match, and one that it includes must, if
/// there are any.
#[inline(always)]
fn judge<R: Rule>(
    rules: *const [R; MOST],
    matches: impl Fn(usize, R::Value) -> Verdict,
) -> Verdict {
    let (mut any, mut included, mut excluded) = (false, NO, NO);
    let rules = rules.cast::<R>();
    for index in 0..MOST {
        // SAFETY: within the array. Volatile, because the loader replaces the value after
        // compilation; the verifier knows it as a constant.
        let rule = unsafe { rules.add(index).read_volatile() };
        match rule.kind() {
            kind::INCLUDE => {
                any = true;
                included = max(included, matches(index, rule.value()));
            }
            kind::EXCLUDE => excluded = max(excluded, matches(index, rule.value())),
            _ => {}
        }
    }
    let allowed = YES - excluded;
    if any { min(included, allowed) } else { allowed }
}

#[inline(always)]
fn yes_if(condition: bool) -> Verdict {
    if condition { YES } else { NO }
}

/// What `--netns` says.
#[inline(always)]
fn namespaces(place: &Place) -> Verdict {
    judge(&raw const FILTER.netns, |index, wanted| match place.netns() {
        0 => UNDECIDED,
        inum if wanted == NOT_YET => yes_if(inum == later(index)),
        inum => yes_if(inum == wanted),
    })
}

#[inline(always)]
fn later(index: usize) -> u32 {
    // SAFETY: within the array. Volatile, because user space writes it at any time.
    unsafe { (&raw const LATER).cast::<u32>().add(index).read_volatile() }
}

#[inline(always)]
fn interfaces(place: &Place) -> Verdict {
    judge(&raw const FILTER.iface, |_, wanted| name(place, wanted))
}

#[inline(always)]
fn protocols(packet: &Packet) -> Verdict {
    judge(&raw const FILTER.protocol, |_, wanted| protocol(packet, wanted))
}

#[inline(always)]
fn hosts(packet: &Packet) -> Verdict {
    judge(&raw const FILTER.host, |_, wanted| host(packet, wanted))
}

#[inline(always)]
fn ports(packet: &Packet) -> Verdict {
    judge(&raw const FILTER.port, |_, wanted| port(packet, wanted))
}

/// The name of the packet's device matches.
#[inline(always)]
fn name(place: &Place, wanted: Masked) -> Verdict {
    if place.device_netns == 0 {
        return UNDECIDED;
    }
    match field(place.device, offset!(dev_name)) {
        Some(bytes) => masked(&bytes, wanted),
        None => UNDECIDED,
    }
}

#[inline(always)]
fn masked(bytes: &[u32; 4], Masked { value, mask }: Masked) -> Verdict {
    let differs = (bytes[0] & mask[0] ^ value[0])
        | (bytes[1] & mask[1] ^ value[1])
        | (bytes[2] & mask[2] ^ value[2])
        | (bytes[3] & mask[3] ^ value[3]);
    yes_if(differs == 0)
}

#[inline(always)]
fn protocol(packet: &Packet, wanted: Protocol) -> Verdict {
    if packet.network == UNKNOWN {
        return UNDECIDED;
    }
    if wanted.network != 0 && u32::from(wanted.network) != packet.network {
        return NO;
    }
    if wanted.transport == ANY {
        return YES;
    }
    if packet.transport == UNKNOWN {
        return UNDECIDED;
    }
    yes_if(packet.transport == u32::from(wanted.transport))
}

/// Source or destination is in the network. IPv4 is in no network of IPv6, although its addresses are
/// mapped there: `::/0` is all of IPv6.
#[inline(always)]
fn host(packet: &Packet, wanted: Masked) -> Verdict {
    match packet.network {
        UNKNOWN => UNDECIDED,
        IPV4 if wanted.mask[2] != u32::MAX => NO,
        IPV4 | IPV6 => max(masked(&packet.hosts[0], wanted), masked(&packet.hosts[1], wanted)),
        _ => NO,
    }
}

#[inline(always)]
fn port(packet: &Packet, wanted: Ports) -> Verdict {
    let within = |port| u32::from(wanted.first) <= port && port <= u32::from(wanted.last);
    match packet.source {
        NO_PORTS => NO,
        UNKNOWN => UNDECIDED,
        source => yes_if(within(source) || within(packet.destination)),
    }
}
