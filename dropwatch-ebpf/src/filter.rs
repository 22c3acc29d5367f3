//! Which drops are counted at all.
//!
//! A drop is counted when every option lets it through. What cannot be read of a packet decides
//! nothing: where no other option has refused it already, it is counted as undecided.
//!
//! What is read of a packet and what rules say of it is [`opaque`] to the verifier. Before Linux 6.8 it
//! forgets now and then that a branch was decided by a constant ("bpf: support non-r10 register
//! spill/fill to/from stack in precision tracking"), takes another way through the code for the same as
//! that one, and removes code that does run: on 5.10 and 6.1, one filter left every packet undecided.
//! For the same reason nothing here gets a pointer to its caller's stack, and there is no loop.

use core::cmp::{max, min};

use aya_ebpf::programs::RawTracePointContext;
use dropwatch_common::{
    NO_NETNS, Netns, Undecided,
    expression::verdict,
    filter::{
        ANY, Filter, LATER as NOT_YET, MOST, Masked, NetnsValue, Ports, Protocol, Rule,
        direction as way, kind, part,
    },
};

use crate::{
    direction,
    fields::{Fields, opaque},
    filtering,
    netns::Place,
    packet::{IPV4, IPV6, NO_PORTS, Packet, UNKNOWN},
};

/// Set by the loader.
#[unsafe(no_mangle)]
static FILTER: Filter = Filter::NONE;

/// The network namespaces that were not there when the program was loaded. User space writes each when
/// it has come, its inode number last; number 0 is none.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.later")]
static mut LATER: [NetnsValue; MOST] = [NetnsValue::any(NOT_YET); MOST];

/// What the rules of one option say of a packet. Plain numbers in an order: the least of several is
/// what they say together.
type Verdict = u32;
const NO: Verdict = verdict::NO;
const UNDECIDED: Verdict = verdict::UNDECIDED;
const YES: Verdict = verdict::YES;

/// What several options say together: the least of what each says, by [`said`].
///
/// The numbers between the two of [`REFUSED`] and [`SELECTED`] are one above those of the options
/// that cannot be decided ([`Undecided`]).
pub type Together = u32;
pub const REFUSED: Together = 0;
pub const SELECTED: Together = 1 + Undecided::ALL.len() as u32;

/// What an option says, beside others.
#[inline(always)]
pub fn said(verdict: Verdict, by: Undecided) -> Together {
    opaque(match verdict {
        NO => REFUSED,
        YES => SELECTED,
        _ => 1 + by as u32,
    })
}

/// What the filters in use say of where a packet is.
#[inline(always)]
pub fn by_place<F: Fields>(ctx: RawTracePointContext) -> Together {
    let place = Place::of::<F>(&ctx);
    let mut together = SELECTED;
    if filtering() & part::NETNS != 0 {
        together = said(namespaces(place.netns::<F>(&ctx)), Undecided::Netns);
    }
    if filtering() & part::IFACE != 0 {
        together = min(together, said(interfaces::<F>(&place), Undecided::Iface));
    }
    together
}

/// What they say of the kernel's own notes of it: its length, its mark, where it came from.
#[inline(never)]
pub fn by_notes<F: Fields>(ctx: RawTracePointContext) -> Together {
    let skb = ctx.arg(0);
    let mut verdict = opaque(YES);
    // Every packet has a length and a mark.
    if filtering() & part::LENGTH != 0 {
        verdict = lengths(F::skb_len(skb));
    }
    if filtering() & part::MARK != 0 {
        verdict = min(verdict, marks(F::skb_mark(skb)));
    }
    if filtering() & part::DIRECTION != 0 && verdict != NO {
        verdict = min(verdict, directions(direction::of::<F>(&ctx)));
    }
    said(verdict, Undecided::Direction)
}

/// What they say of its headers.
#[inline(never)]
pub fn by_headers<F: Fields>(ctx: RawTracePointContext) -> Together {
    let skb = ctx.arg(0);
    let packet = Packet::read::<F>(skb);
    let mut together = min(
        said(protocols(&packet), Undecided::Proto),
        min(said(hosts(&packet), Undecided::Host), said(ports(&packet), Undecided::Port)),
    );
    if filtering() & part::TCP_FLAGS != 0 && together != REFUSED {
        let flags = flags(packet.tcp_flags::<F>(skb));
        together = min(together, said(flags, Undecided::TcpFlags));
    }
    together
}

/// What one option says: no value that it excludes may match, and one that it includes must, if
/// there are any. The first rule that is not in use is the end of them: those behind it are not even
/// loaded, since the verifier drops what is not reached.
#[inline(always)]
fn judge<R: Rule>(
    rules: *const [R; MOST],
    matches: impl Fn(usize, R::Value) -> Verdict,
) -> Verdict {
    // Opaque, or the verifier would decide by a verdict that only some packets get.
    let (mut any, mut included, mut excluded) = (false, opaque(NO), opaque(NO));
    let rules = rules.cast::<R>();
    // Written out, since the compiler would leave a loop with an early end one.
    macro_rules! each {
        ($($index:literal)*) => { 'all: { $(
            // SAFETY: within the array. Volatile, because the loader replaces the value after
            // compilation; the verifier knows it as a constant.
            let rule = unsafe { rules.add($index).read_volatile() };
            match rule.kind() {
                kind::INCLUDE => {
                    any = true;
                    included = max(included, opaque(matches($index, rule.value())));
                }
                kind::EXCLUDE => {
                    excluded = max(excluded, opaque(matches($index, rule.value())));
                }
                _ => break 'all,
            }
        )* } };
    }
    const { assert!(MOST == 8) };
    each!(0 1 2 3 4 5 6 7);
    let allowed = YES - excluded;
    opaque(if any { min(included, allowed) } else { allowed })
}

#[inline(always)]
fn yes_if(condition: bool) -> Verdict {
    if condition { YES } else { NO }
}

/// What `--netns` says.
#[inline(always)]
fn namespaces(netns: Netns) -> Verdict {
    judge(&raw const FILTER.netns, |index, wanted| match netns.inum {
        NO_NETNS => UNDECIDED,
        _ if wanted.inum == NOT_YET => yes_if(later(index).is(netns)),
        _ => yes_if(wanted.is(netns)),
    })
}

#[inline(always)]
fn later(index: usize) -> NetnsValue {
    // SAFETY: within the array. Volatile, because user space writes it at any time.
    unsafe { (&raw const LATER).cast::<NetnsValue>().add(index).read_volatile() }
}

/// What `--iface` says: the name of the packet's device matches.
#[inline(always)]
fn interfaces<F: Fields>(place: &Place) -> Verdict {
    let known = place.device_netns != NO_NETNS;
    let name = if known { F::dev_name(place.device) } else { [0; 4] };
    judge(
        &raw const FILTER.iface,
        |_, wanted| if known { masked(&name, wanted) } else { UNDECIDED },
    )
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

#[inline(always)]
fn lengths(length: u32) -> Verdict {
    judge(&raw const FILTER.length, |_, wanted| {
        yes_if(wanted.first <= length && length <= wanted.last)
    })
}

#[inline(always)]
fn marks(mark: u32) -> Verdict {
    judge(&raw const FILTER.mark, |_, wanted| yes_if(mark & wanted.mask == wanted.value))
}

#[inline(always)]
fn directions(direction: u32) -> Verdict {
    judge(&raw const FILTER.direction, |_, wanted| match direction {
        way::UNKNOWN => UNDECIDED,
        direction => yes_if(direction == wanted),
    })
}

#[inline(always)]
fn flags(flags: u32) -> Verdict {
    judge(&raw const FILTER.tcp_flags, |_, wanted| match flags {
        NO_PORTS => NO,
        UNKNOWN => UNDECIDED,
        flags => yes_if(flags & wanted.mask == wanted.value),
    })
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
