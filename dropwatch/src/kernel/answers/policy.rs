//! Which IPsec policy a packet is for: all of them are listed (`XFRM_MSG_GETPOLICY`, `xfrm_dump_policy`,
//! net/xfrm/xfrm_user.c), since the kernel looks one up for real packets alone.
//!
//! The first in the order of priority whose selector fits is the one (`xfrm_policy_lookup_bytype`,
//! net/xfrm/xfrm_policy.c). Policies with a mark or an interface of their own may or may not be meant, as
//! samples show neither; where one of them fits, there is no answer.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_sys::protocols::NETLINK_XFRM;

use super::unanswered;
use crate::{
    kernel::netlink::{Netlink, NetlinkError, attributes, number},
    report::question::{Policy, PolicyDirection, Secured, Unanswered},
};

/// `XFRM_MSG_GETPOLICY` (include/uapi/linux/xfrm.h).
const GET_POLICY: u16 = 0x15;
/// `struct xfrm_userpolicy_info`, aligned, before the attributes.
const HEADER: usize = 168;
/// `XFRMA_POLICY_TYPE`, `XFRMA_MARK`, `XFRMA_IF_ID`.
const TYPE: u16 = 16;
const MARK: u16 = 21;
const IF_ID: u16 = 31;
/// Sockets of the calling thread's namespace.
const SOCKETS: &str = "/proc/thread-self/net/netlink";

pub(super) fn ask(packet: &Secured) -> Result<Option<Policy>, Unanswered> {
    if !is_used() {
        return Ok(None);
    }
    let mut netlink = Netlink::open(NETLINK_XFRM).map_err(|error| unanswered(&error))?;
    let mut best: Option<Listed> = None;
    let listed = netlink.ask_all(GET_POLICY, &[], |message| {
        let fitting = Listed::read(message).filter(|listed| listed.selector.fits(packet));
        let Some(fitting) = fitting.filter(|it| it.direction == packet.direction) else { return };
        // Of equal ones the older is the first, and they are listed in the order of their age.
        if best.as_ref().is_none_or(|best| fitting.priority < best.priority) {
            best = Some(fitting);
        }
    });
    match listed {
        Ok(()) => match best {
            Some(best) if !best.policy.plain => Err(Unanswered::Failed),
            best => Ok(best.map(|best| best.policy)),
        },
        Err(NetlinkError::Malformed) => Err(Unanswered::Failed),
        Err(NetlinkError::Io(error)) => Err(unanswered(&error)),
    }
}

/// Whether the kernel answers such questions without loading something: its own socket is listed, by
/// protocol and port.
fn is_used() -> bool {
    let sockets = fs::read_to_string(SOCKETS).unwrap_or_default();
    let protocol = NETLINK_XFRM.to_string();
    sockets.lines().any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        columns.next() == Some(protocol.as_str()) && columns.next() == Some("0")
    })
}

/// A policy, and what decides whether it is a packet's.
struct Listed {
    policy: Policy,
    direction: PolicyDirection,
    priority: u32,
    selector: Selector,
}

/// `struct xfrm_selector`
struct Selector {
    from: (IpAddr, u8),
    to: (IpAddr, u8),
    /// Port and mask.
    from_port: (u16, u16),
    to_port: (u16, u16),
    /// 0 is any.
    protocol: u8,
}

impl Listed {
    /// `None` for what is no policy, or one of a socket's own.
    fn read(message: &[u8]) -> Option<Self> {
        let info = message.get(..HEADER)?;
        let byte = |at: usize| info.get(at).copied();
        let word = |at: usize| number(info.get(at..at + 4)?);
        let selector = Selector::read(info)?;
        let direction = match byte(160)? {
            0 => PolicyDirection::In,
            1 => PolicyDirection::Out,
            2 => PolicyDirection::Forward,
            _ => return None,
        };
        // `struct xfrm_userpolicy_type` begins with the type: 0 for the main ones.
        let is_plain = |(kind, value): (u16, &[u8])| match kind {
            TYPE => value.first() == Some(&0),
            MARK | IF_ID => value.iter().all(|byte| *byte == 0),
            _ => true,
        };
        let plain = attributes(message.get(HEADER..)?).all(is_plain) && word(48)? == 0;
        let policy = Policy {
            from: selector.from,
            to: selector.to,
            index: word(156)?,
            plain,
            blocks: byte(161)? == 1,
        };
        Some(Self { policy, direction, priority: word(152)?, selector })
    }
}

impl Selector {
    fn read(bytes: &[u8]) -> Option<Self> {
        let half = |at: usize| <[u8; 2]>::try_from(bytes.get(at..at + 2)?).ok();
        let port = |at: usize| Some(u16::from_be_bytes(half(at)?));
        let family = i32::from(u16::from_ne_bytes(half(40)?));
        let address = |at: usize| -> Option<IpAddr> {
            let bytes: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
            match family {
                libc::AF_INET => Some(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()),
                libc::AF_INET6 => Some(Ipv6Addr::from(bytes).into()),
                _ => None,
            }
        };
        let prefix = |at: usize| bytes.get(at).copied();
        Some(Self {
            from: (address(16)?, prefix(43)?),
            to: (address(0)?, prefix(42)?),
            from_port: (port(36)?, port(38)?),
            to_port: (port(32)?, port(34)?),
            protocol: *bytes.get(44)?,
        })
    }

    /// Whether it fits the packet; a port that samples do not show fits only any.
    fn fits(&self, packet: &Secured) -> bool {
        let port = |(port, mask): (u16, u16), shown: Option<u16>| {
            mask == 0 || shown.is_some_and(|shown| (shown ^ port) & mask == 0)
        };
        has(self.from, packet.from)
            && has(self.to, packet.to)
            && port(self.from_port, packet.from_port)
            && port(self.to_port, packet.to_port)
            && (self.protocol == 0 || self.protocol == packet.protocol)
    }
}

/// Whether a network has an address.
fn has((network, prefix): (IpAddr, u8), address: IpAddr) -> bool {
    let same = |a: u128, b: u128, bits: u32| {
        let host = bits.saturating_sub(prefix.into());
        host >= bits || (a ^ b) >> host == 0
    };
    match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// From 10.107.0.0/24 to 10.107.0.2/32, port 9000 of UDP, as `ip xfrm policy add` makes it.
    fn message(direction: u8, mark: u32) -> Vec<u8> {
        let mut info = vec![0; HEADER];
        info[..4].copy_from_slice(&[10, 107, 0, 2]);
        info[16..20].copy_from_slice(&[10, 107, 0, 0]);
        info[32..36].copy_from_slice(&[0x23, 0x28, 0xff, 0xff]);
        info[40..42].copy_from_slice(&2_u16.to_ne_bytes());
        (info[42], info[43], info[44]) = (32, 24, 17);
        info[152..156].copy_from_slice(&100_u32.to_ne_bytes());
        info[156..160].copy_from_slice(&8_u32.to_ne_bytes());
        (info[160], info[161]) = (direction, 0);
        let mark = [mark.to_ne_bytes(), mark.to_ne_bytes()].concat();
        crate::kernel::netlink::add_attribute(&mut info, MARK, &mark);
        info
    }

    fn packet() -> Secured {
        Secured {
            direction: PolicyDirection::In,
            protocol: 17,
            from: [10, 107, 0, 1].into(),
            from_port: Some(5555),
            to: [10, 107, 0, 2].into(),
            to_port: Some(9000),
        }
    }

    #[test]
    fn a_selector_fits_addresses_ports_and_protocol() {
        let listed = Listed::read(&message(0, 0)).unwrap();
        assert_eq!((listed.direction, listed.priority), (PolicyDirection::In, 100));
        assert_eq!((listed.policy.index, listed.policy.plain), (8, true));
        assert_eq!(listed.policy.from, ([10, 107, 0, 0].into(), 24));
        let fits = |packet: Secured| listed.selector.fits(&packet);
        assert!(fits(packet()));
        assert!(!fits(Secured { to_port: Some(9001), ..packet() }));
        assert!(!fits(Secured { to_port: None, ..packet() }), "it may be another port");
        assert!(fits(Secured { from_port: None, ..packet() }));
        assert!(!fits(Secured { protocol: 6, ..packet() }));
        assert!(!fits(Secured { from: [10, 107, 1, 1].into(), ..packet() }));
        assert!(!fits(Secured { from: [0; 16].into(), ..packet() }));
    }

    #[test]
    fn what_samples_cannot_tell_apart_is_not_plain() {
        assert!(!Listed::read(&message(2, 7)).unwrap().policy.plain);
        assert!(Listed::read(&message(3, 0)).is_none(), "a socket's own");
        assert!(Listed::read(&message(0, 0)[..HEADER - 1]).is_none());
    }

    #[test]
    fn networks_of_every_length() {
        let contains = |network: &str, prefix, address: &str| {
            has((network.parse().unwrap(), prefix), address.parse().unwrap())
        };
        assert!(contains("0.0.0.0", 0, "198.18.1.2"));
        assert!(contains("198.18.1.2", 32, "198.18.1.2"));
        assert!(!contains("198.18.1.2", 32, "198.18.1.3"));
        assert!(contains("fd00::", 8, "fdff::1"));
        assert!(!contains("fd00::", 128, "fd00::1"));
        assert!(contains("198.18.1.2", 255, "198.18.1.2"), "longer than any");
    }

    proptest! {
        #[test]
        fn no_message_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(listed) = Listed::read(&bytes) {
                let _ = listed.selector.fits(&packet());
            }
        }
    }
}
