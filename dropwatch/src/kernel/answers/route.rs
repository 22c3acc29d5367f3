//! Which route a packet would take: `RTM_GETROUTE` (`inet_rtm_getroute`, net/ipv4/route.c;
//! `inet6_rtm_getroute`, net/ipv6/route.c).
//!
//! The kernel looks it up as for a real packet and sends none. What it refuses, it answers with the
//! error of the look-up; from IPv6 it may also be a route whose type refuses.

use super::{AF_INET, AF_INET6, ask_kernel, octets};
use crate::{
    kernel::netlink::{Netlink, add_attribute, address, attributes, number},
    report::question::{Leads, Packet, Refusal, Route, Unanswered},
};

/// include/uapi/linux/rtnetlink.h
const RTM_GETROUTE: u16 = 26;
/// Have the answer say which table the route is in (Linux 4.4).
const RTM_F_LOOKUP_TABLE: u32 = 0x1000;
/// Bytes of `struct rtmsg`: family, prefix lengths of destination and source, TOS, table, protocol,
/// scope and type, a byte each, then 32 bits of flags.
const RTMSG: usize = 12;
/// Where the type stands in it.
const TYPE: usize = 7;

mod attribute {
    pub(super) const DST: u16 = 1;
    pub(super) const SRC: u16 = 2;
    pub(super) const IIF: u16 = 3;
    pub(super) const OIF: u16 = 4;
    pub(super) const GATEWAY: u16 = 5;
    pub(super) const TABLE: u16 = 15;
    pub(super) const MARK: u16 = 16;
    /// A gateway of the other family: 16 bits of family, then the address (Linux 4.1).
    pub(super) const VIA: u16 = 18;
}

pub(super) fn ask(netlink: &mut Netlink, packet: &Packet) -> Result<Route, Unanswered> {
    let question = question(packet).ok_or(Unanswered::Failed)?;
    match ask_kernel(netlink, RTM_GETROUTE, &question)? {
        Ok(message) => answer(&message).ok_or(Unanswered::Failed),
        Err(libc::EPERM) => Err(Unanswered::NotPermitted),
        Err(error) => refusal(error).map(Route::Refused).ok_or(Unanswered::Failed),
    }
}

/// The message's content; `None` for addresses of two families.
fn question(packet: &Packet) -> Option<Vec<u8>> {
    let Packet { to, from, iif, mark } = packet;
    let (family, to) = octets(*to);
    let bits = |address: &[u8]| u8::try_from(address.len() * 8).unwrap_or(0);
    let from = match from.map(octets) {
        Some((other, _)) if other != family => return None,
        from => from.map(|(_, from)| from),
    };
    let mut message = vec![family, bits(&to), from.as_deref().map_or(0, bits), 0, 0, 0, 0, 0];
    message.extend(RTM_F_LOOKUP_TABLE.to_ne_bytes());
    add_attribute(&mut message, attribute::DST, &to);
    if let Some(from) = from {
        add_attribute(&mut message, attribute::SRC, &from);
    }
    if let Some(iif) = iif {
        add_attribute(&mut message, attribute::IIF, &iif.to_ne_bytes());
    }
    if *mark != 0 {
        add_attribute(&mut message, attribute::MARK, &mark.to_ne_bytes());
    }
    Some(message)
}

/// What a `RTM_NEWROUTE` says; `None` where it makes no sense.
fn answer(message: &[u8]) -> Option<Route> {
    let (header, rest) = message.split_at_checked(RTMSG)?;
    if !matches!(header.first(), Some(&(AF_INET | AF_INET6))) {
        return None;
    }
    // RTN_* of include/uapi/linux/rtnetlink.h.
    let local = match header.get(TYPE)? {
        1 | 3 | 5 => false, // unicast, broadcast, multicast
        2 | 4 => true,      // local, anycast
        6 => return Some(Route::Refused(Refusal::Blackhole)),
        7 => return Some(Route::Refused(Refusal::Unreachable)),
        8 => return Some(Route::Refused(Refusal::Prohibited)),
        _ => return None,
    };
    let mut leads = Leads { local, ..Leads::default() };
    for (kind, value) in attributes(rest) {
        match kind {
            attribute::OIF => leads.device = number(value),
            attribute::GATEWAY => leads.via = address(value),
            attribute::VIA => leads.via = value.get(2..).and_then(address),
            attribute::TABLE => leads.table = number(value),
            _ => {}
        }
    }
    Some(Route::Leads(leads))
}

/// What an error of the look-up means; `None` for one that is not about the packet.
fn refusal(error: i32) -> Option<Refusal> {
    match error {
        libc::ENETUNREACH => Some(Refusal::NoRoute),
        libc::EHOSTUNREACH => Some(Refusal::Unreachable),
        libc::EINVAL => Some(Refusal::Blackhole),
        libc::EACCES => Some(Refusal::Prohibited),
        libc::EXDEV => Some(Refusal::ReversePath),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// As `strace ip route get 203.0.113.9 from 198.18.1.2 iif port0 mark 7` shows it, little endian.
    #[test]
    #[cfg(target_endian = "little")]
    fn a_question_has_all_that_decides() {
        let packet =
            Packet { to: ip("203.0.113.9"), from: Some(ip("198.18.1.2")), iif: Some(3), mark: 7 };
        let expected = [
            &[2, 32, 32, 0, 0, 0, 0, 0, 0, 0x10, 0, 0][..],
            &[8, 0, 1, 0, 203, 0, 113, 9],
            &[8, 0, 2, 0, 198, 18, 1, 2],
            &[8, 0, 3, 0, 3, 0, 0, 0],
            &[8, 0, 16, 0, 7, 0, 0, 0],
        ];
        assert_eq!(question(&packet), Some(expected.concat()));
        let plain = [&[10, 128, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 20, 0, 1, 0][..], &[0; 15], &[1]];
        assert_eq!(question(&Packet::to(ip("::1"))), Some(plain.concat()));
    }

    #[test]
    fn addresses_of_two_families_are_no_packet() {
        let packet = Packet { from: Some(ip("::1")), ..Packet::to(ip("127.0.0.1")) };
        assert_eq!(question(&packet), None);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn routes_of_this_kernel_are_read() {
        for (bytes, expected) in super::super::tests::ROUTES {
            assert_eq!(answer(bytes), Some(*expected), "{bytes:?}");
        }
    }

    #[test]
    fn types_that_refuse_and_those_unknown() {
        let of_type = |kind| answer(&[2, 32, 0, 0, 254, 0, 0, kind, 0, 0, 0, 0]);
        assert_eq!(of_type(6), Some(Route::Refused(Refusal::Blackhole)));
        assert_eq!(of_type(7), Some(Route::Refused(Refusal::Unreachable)));
        assert_eq!(of_type(8), Some(Route::Refused(Refusal::Prohibited)));
        assert_eq!((of_type(0), of_type(9), of_type(200)), (None, None, None));
        assert_eq!(answer(&[28, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]), None, "MPLS");
        assert_eq!(answer(&[2; RTMSG - 1]), None, "cut off");
    }

    #[test]
    fn errors_of_a_look_up_are_answers() {
        assert_eq!(refusal(libc::ENETUNREACH), Some(Refusal::NoRoute));
        assert_eq!(refusal(libc::EHOSTUNREACH), Some(Refusal::Unreachable));
        assert_eq!(refusal(libc::EINVAL), Some(Refusal::Blackhole));
        assert_eq!(refusal(libc::EACCES), Some(Refusal::Prohibited));
        assert_eq!(refusal(libc::EXDEV), Some(Refusal::ReversePath));
        assert_eq!(refusal(libc::ENODEV), None, "no such device");
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = answer(&bytes);
            let headed = [&[2, 32, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0][..], &bytes].concat();
            prop_assert!(answer(&headed).is_some());
        }
    }
}
