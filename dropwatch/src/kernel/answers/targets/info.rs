//! What the target of a rule is to do, as iptables hands it to the kernel. Programs of iptables that
//! write to nftables hand over the same bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::report::question::{Does, Sought};

/// `NF_NAT_RANGE_MAP_IPS`, `NF_NAT_RANGE_PROTO_SPECIFIED` (include/uapi/linux/netfilter/nf_nat.h).
const HAS_ADDRESSES: u32 = 1;
const HAS_PORTS: u32 = 2;
/// `NFQ_INFO_BYPASS`; `NFQ_FLAG_BYPASS` (include/uapi/linux/netfilter/xt_NFQUEUE.h).
const BYPASS: u16 = 1;

/// Addresses and ports of a NAT target.
struct Range {
    addresses: Option<(IpAddr, IpAddr)>,
    ports: Option<(u16, u16)>,
}

/// What a target does, if it is of the kind that is sought.
pub(super) fn does(
    name: &str,
    revision: u8,
    info: &[u8],
    is_ipv6: bool,
    sought: Sought,
) -> Option<Does> {
    match (name, sought) {
        ("NFQUEUE", Sought::Queue) => queue(revision, info),
        ("MASQUERADE", Sought::SourceNat) => {
            let range = if is_ipv6 { new_range(info, true)? } else { old_range(info)? };
            Some(Does::SourceNat { ports: range.ports })
        }
        ("SNAT", Sought::SourceNat) => {
            let ports = range(revision, info, is_ipv6)?.ports;
            Some(Does::SourceNat { ports })
        }
        ("DNAT", Sought::To(address)) => {
            let (first, last) = range(revision, info, is_ipv6)?.addresses?;
            (first..=last).contains(&address).then_some(Does::Destination)
        }
        // A network for a network: it may.
        ("NETMAP", Sought::To(_)) => Some(Does::Destination),
        _ => None,
    }
}

/// `struct xt_NFQ_info` and its revisions 1 to 3, which each add to the one before.
fn queue(revision: u8, info: &[u8]) -> Option<Does> {
    let half = |at: usize| Some(u16::from_ne_bytes(*info.get(at..)?.first_chunk()?));
    let first = half(0)?;
    let queues = if revision >= 1 { half(2)?.max(1) } else { 1 };
    let bypass = revision >= 2 && half(4)? & BYPASS != 0;
    Some(Does::Queue { first, last: first.saturating_add(queues - 1), bypass })
}

/// The first revision of IPv4 has a form of its own.
fn range(revision: u8, info: &[u8], is_ipv6: bool) -> Option<Range> {
    match (revision, is_ipv6) {
        (0, false) => old_range(info),
        _ => new_range(info, is_ipv6),
    }
}

/// `struct nf_nat_ipv4_multi_range_compat`, of which there is one range.
fn old_range(info: &[u8]) -> Option<Range> {
    let flags = u32::from_ne_bytes(*info.get(4..)?.first_chunk()?);
    let address = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 4] = *info.get(at..)?.first_chunk()?;
        Some(Ipv4Addr::from(bytes).into())
    };
    Some(Range {
        addresses: if flags & HAS_ADDRESSES == 0 { None } else { address(8).zip(address(12)) },
        ports: ports(info, flags, 16),
    })
}

/// `struct nf_nat_range`, with which `struct nf_nat_range2` begins.
fn new_range(info: &[u8], is_ipv6: bool) -> Option<Range> {
    let flags = u32::from_ne_bytes(*info.first_chunk()?);
    let address = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 16] = *info.get(at..)?.first_chunk()?;
        Some(match is_ipv6 {
            true => Ipv6Addr::from(bytes).into(),
            false => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        })
    };
    Some(Range {
        addresses: if flags & HAS_ADDRESSES == 0 { None } else { address(4).zip(address(20)) },
        ports: ports(info, flags, 36),
    })
}

fn ports(info: &[u8], flags: u32, at: usize) -> Option<(u16, u16)> {
    let port = |at: usize| Some(u16::from_be_bytes(*info.get(at..)?.first_chunk()?));
    if flags & HAS_PORTS == 0 { None } else { port(at).zip(port(at + 2)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old(flags: u32) -> Vec<u8> {
        [
            &1_u32.to_ne_bytes()[..],
            &flags.to_ne_bytes(),
            &[10, 104, 1, 11],
            &[10, 104, 1, 20],
            &40_000_u16.to_be_bytes(),
            &40_004_u16.to_be_bytes(),
        ]
        .concat()
    }

    fn new(flags: u32) -> Vec<u8> {
        let mut info = flags.to_ne_bytes().to_vec();
        info.extend([10, 104, 1, 11].into_iter().chain([0; 12]));
        info.extend([10, 104, 1, 20].into_iter().chain([0; 12]));
        info.extend(40_000_u16.to_be_bytes());
        info.extend(40_004_u16.to_be_bytes());
        info
    }

    #[test]
    fn ports_of_source_nat_are_those_of_the_rule_or_any() {
        let of = |name, revision, info: &[u8]| does(name, revision, info, false, Sought::SourceNat);
        let some = Some(Does::SourceNat { ports: Some((40_000, 40_004)) });
        assert_eq!(of("MASQUERADE", 0, &old(2)), some);
        assert_eq!(of("SNAT", 0, &old(3)), some);
        assert_eq!(of("SNAT", 2, &new(3)), some);
        assert_eq!(of("MASQUERADE", 0, &old(0)), Some(Does::SourceNat { ports: None }));
        assert_eq!(of("DNAT", 2, &new(3)), None);
        assert_eq!(of("MASQUERADE", 0, &[0; 7]), None, "cut off");
    }

    #[test]
    fn destinations_are_those_that_a_rule_may_choose() {
        let of = |info: &[u8], revision, last| {
            let sought = Sought::To([10, 104, 1, last].into());
            does("DNAT", revision, info, false, sought).is_some()
        };
        assert!(of(&old(1), 0, 11) && of(&old(1), 0, 20) && of(&new(1), 2, 15));
        assert!(!of(&old(1), 0, 10) && !of(&new(1), 2, 21));
        assert!(!of(&old(2), 0, 11), "a port alone");
        let v6 = Sought::To([0; 16].into());
        assert!(does("DNAT", 1, &new(1), true, v6).is_none());
    }

    #[test]
    fn queues_have_a_number_or_several_and_may_be_passed_by() {
        let of = |revision, info: &[u8]| does("NFQUEUE", revision, info, false, Sought::Queue);
        let queue = |first, last, bypass| Some(Does::Queue { first, last, bypass });
        let info = [5_u16, 4, 1].map(u16::to_ne_bytes).concat();
        assert_eq!(of(0, &info), queue(5, 5, false));
        assert_eq!(of(1, &info), queue(5, 8, false));
        assert_eq!(of(2, &info), queue(5, 8, true));
        assert_eq!(of(3, &info), queue(5, 8, true));
        assert_eq!(of(3, &info[..5]), None);
    }
}
