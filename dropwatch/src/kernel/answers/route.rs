//! Which route a packet would take: `RTM_GETROUTE` (`inet_rtm_getroute`, net/ipv4/route.c;
//! `inet6_rtm_getroute`, net/ipv6/route.c).
//!
//! The kernel looks it up as for a real packet and sends none. What it refuses, it answers with the
//! error of the look-up; from IPv6 it may also be a route whose type refuses. The reply that IPv4 has
//! made ready by then it frees as if it were dropped (`kfree_skb`): no packet, and known as harmless.

use std::net::IpAddr;

use libc::{RTA_DST, RTA_GATEWAY, RTA_IIF, RTA_MARK, RTA_OIF, RTA_SRC, RTA_TABLE, RTM_GETROUTE};
use netlink_packet_core::Emitable as _;
use netlink_packet_route::{
    AddressFamily,
    route::{RouteFlags, RouteHeader, RouteMessageBuffer, RouteType},
};

use super::{ask_kernel, octets, refuser};
use crate::{
    kernel::netlink::{Netlink, add_attribute, address, attributes, number},
    report::{
        flow::AboveIp,
        protocol::number::{ICMP, ICMPV6, TCP, UDP},
        question::{Leads, Packet, Refusal, Refused, Route, Unanswered},
    },
};

/// Before the attributes, `struct rtmsg`.
const HEADER: usize = size_of::<RouteMessageBuffer>();
/// A gateway of the other family: 16 bits of family, then the address (Linux 4.1,
/// include/uapi/linux/rtnetlink.h). The libc crate has it for some C libraries alone.
const RTA_VIA: u16 = 18;
/// What is above IP (Linux 4.17); ports are in the network's order of bytes.
const RTA_IP_PROTO: u16 = 27;
const RTA_SPORT: u16 = 28;
const RTA_DPORT: u16 = 29;

pub(super) fn ask(netlink: &mut Netlink, packet: &Packet) -> Result<Route, Unanswered> {
    let route = look_up(netlink, packet)?;
    let rules = refuser::rules(packet).map_err(|_| Unanswered::Failed)?;
    match route {
        Route::Leads(leads) if refuser::decide(&rules, packet, leads.table) => {
            let above = refuser::look_above(&rules);
            Ok(Route::Leads(Leads { above, ..leads }))
        }
        Route::Refused(Refused { why, .. }) if refuser::decide(&rules, packet, None) => {
            Ok(Route::Refused(Refused { why, by: refuser::find(&rules, packet, why) }))
        }
        _ => Err(Unanswered::Undecided),
    }
}

/// What is above IP, as far as the kernel takes it in a question (`rtm_getroute_parse_ip_proto`,
/// net/ipv4/fib_frontend.c). Asked without, it looks up a packet of UDP.
pub(super) fn above(packet: &Packet) -> AboveIp {
    let is_taken = |protocol| match packet.to {
        IpAddr::V4(_) => [TCP, UDP, ICMP].contains(&protocol),
        IpAddr::V6(_) => [TCP, UDP, ICMPV6].contains(&protocol),
    };
    match packet.above {
        AboveIp { protocol: Some(protocol), .. } if is_taken(protocol) => packet.above,
        _ => AboveIp::default(),
    }
}

fn look_up(netlink: &mut Netlink, packet: &Packet) -> Result<Route, Unanswered> {
    let question = question(packet).ok_or(Unanswered::Failed)?;
    match ask_kernel(netlink, RTM_GETROUTE, &question)? {
        Ok(message) => answer(&message).ok_or(Unanswered::Failed),
        Err(libc::EPERM) => Err(Unanswered::NotPermitted),
        Err(error) => refusal(error).map(refused).ok_or(Unanswered::Failed),
    }
}

fn refused(why: Refusal) -> Route {
    Route::Refused(why.into())
}

/// The message's content; `None` for addresses of two families.
fn question(packet: &Packet) -> Option<Vec<u8>> {
    let Packet { to, from, iif, mark, .. } = packet;
    let (family, to) = octets(*to);
    let bits = |address: &[u8]| u8::try_from(address.len() * 8).unwrap_or(0);
    let from = match from.map(octets) {
        Some((other, _)) if other != family => return None,
        from => from.map(|(_, from)| from),
    };
    let header = RouteHeader {
        address_family: family,
        destination_prefix_length: bits(&to),
        source_prefix_length: from.as_deref().map_or(0, bits),
        // The answer says which table the route is in (Linux 4.4).
        flags: RouteFlags::LookupTable,
        ..RouteHeader::default()
    };
    let mut message = vec![0; HEADER];
    header.emit(&mut message);
    add_attribute(&mut message, RTA_DST, &to);
    if let Some(from) = from {
        add_attribute(&mut message, RTA_SRC, &from);
    }
    if let Some(iif) = iif {
        add_attribute(&mut message, RTA_IIF, &iif.to_ne_bytes());
    }
    if *mark != 0 {
        add_attribute(&mut message, RTA_MARK, &mark.to_ne_bytes());
    }
    let AboveIp { protocol, from_port, to_port } = above(packet);
    if let Some(protocol) = protocol {
        add_attribute(&mut message, RTA_IP_PROTO, &[protocol]);
    }
    for (kind, port) in [(RTA_SPORT, from_port), (RTA_DPORT, to_port)] {
        // The kernel takes no port for one that is 0.
        if let Some(port) = port.filter(|port| *port != 0) {
            add_attribute(&mut message, kind, &port.to_be_bytes());
        }
    }
    Some(message)
}

/// What a `RTM_NEWROUTE` says; `None` where it makes no sense.
fn answer(message: &[u8]) -> Option<Route> {
    let header = RouteHeader::parse(message).ok()?;
    if !matches!(header.address_family, AddressFamily::Inet | AddressFamily::Inet6) {
        return None;
    }
    let local = match header.kind {
        RouteType::Unicast | RouteType::Broadcast | RouteType::Multicast => false,
        RouteType::Local | RouteType::Anycast => true,
        RouteType::BlackHole => return Some(refused(Refusal::Blackhole)),
        RouteType::Unreachable => return Some(refused(Refusal::Unreachable)),
        RouteType::Prohibit => return Some(refused(Refusal::Prohibited)),
        _ => return None,
    };
    let mut leads = Leads { local, ..Leads::default() };
    for (kind, value) in attributes(message.get(HEADER..)?) {
        match kind {
            RTA_OIF => leads.device = number(value),
            RTA_GATEWAY => leads.via = address(value),
            RTA_VIA => leads.via = value.get(2..).and_then(address),
            RTA_TABLE => leads.table = number(value),
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
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// As `strace ip route get 203.0.113.9 from 198.18.1.2 iif port0 mark 7` shows it, little endian.
    #[test]
    #[cfg(target_endian = "little")]
    fn a_question_has_all_that_decides() {
        let to = ip("203.0.113.9");
        let packet =
            Packet { from: Some(ip("198.18.1.2")), iif: Some(3), mark: 7, ..Packet::to(to) };
        let expected = [
            &[2, 32, 32, 0, 0, 0, 0, 0, 0, 0x10, 0, 0][..],
            &[8, 0, 1, 0, 203, 0, 113, 9],
            &[8, 0, 2, 0, 198, 18, 1, 2],
            &[8, 0, 3, 0, 3, 0, 0, 0],
            &[8, 0, 16, 0, 7, 0, 0, 0],
        ];
        assert_eq!(question(&packet), Some(expected.concat()));
        // `ip route get … ipproto udp sport 40000 dport 4000`.
        let above = |protocol| {
            let (from_port, to_port) = (Some(40_000), Some(4000));
            Packet { above: AboveIp { protocol, from_port, to_port }, ..packet }
        };
        let of_udp = [&[5, 0, 27, 0, 17, 0, 0, 0][..], &[6, 0, 28, 0, 0x9c, 0x40, 0, 0]];
        let of_udp = [&expected.concat(), &of_udp.concat()[..], &[6, 0, 29, 0, 0x0f, 0xa0, 0, 0]];
        assert_eq!(question(&above(Some(UDP))), Some(of_udp.concat()));
        assert_eq!(question(&above(Some(47))), Some(expected.concat()), "the kernel refuses GRE");
        assert_eq!(question(&above(None)), Some(expected.concat()));
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
        assert_eq!(of_type(6), Some(refused(Refusal::Blackhole)));
        assert_eq!(of_type(7), Some(refused(Refusal::Unreachable)));
        assert_eq!(of_type(8), Some(refused(Refusal::Prohibited)));
        assert_eq!((of_type(0), of_type(9), of_type(200)), (None, None, None));
        assert_eq!(answer(&[28, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]), None, "MPLS");
        assert_eq!(answer(&[2; HEADER - 1]), None, "cut off");
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
