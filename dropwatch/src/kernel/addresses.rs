//! Addresses and multicast groups of the calling thread's namespace, over rtnetlink and from
//! `/proc/net/igmp`. Needs no capability.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use libc::{IFA_ADDRESS, IFA_BROADCAST, IFA_LOCAL, RTM_GETADDR};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{
    HostRoot,
    netlink::{Netlink, NetlinkError, attributes},
};
use crate::report::evidence::Addresses;

/// `struct ifaddrmsg` (include/uapi/linux/if_addr.h): in a question, all of any family and device.
const HEADER: usize = 8;
/// Most addresses, and most groups, read of one namespace.
const MOST: usize = 4096;
/// Most bytes read of the list of groups.
const MAX_FILE: u64 = 1 << 20;
/// Of each device, the groups that it has joined (`igmp_mc_seq_show`, net/ipv4/igmp.c).
const GROUPS: &str = "proc/thread-self/net/igmp";
/// 1 while a program routes multicast (Documentation/networking/ip-sysctl.rst).
const FORWARDING: &str = "net.ipv4.conf.all.mc_forwarding";

/// All addresses, and the groups that an interface has joined.
///
/// # Errors
/// When the kernel refuses to list the addresses.
pub(super) fn read(root: &HostRoot) -> Result<Addresses, NetlinkError> {
    let mut addresses = Addresses::default();
    Netlink::open(NETLINK_ROUTE)?.ask_all(RTM_GETADDR, &[0; HEADER], |message| {
        if addresses.own.len() < MOST {
            add(&mut addresses, message);
        }
    })?;
    let forwards = root.sysctl(FORWARDING).is_ok_and(|value| value.trim() != "0");
    addresses.groups = root.open(GROUPS).ok().filter(|_| !forwards).map(groups);
    Ok(addresses)
}

/// One `RTM_NEWADDR`.
fn add(addresses: &mut Addresses, message: &[u8]) {
    let Some(prefix) = message.get(1).copied() else { return };
    let (mut local, mut address) = (None, None);
    for (kind, value) in attributes(message.get(HEADER..).unwrap_or_default()) {
        match kind {
            IFA_LOCAL => local = ip(value),
            // The far end of a point-to-point link, where `IFA_LOCAL` is another one.
            IFA_ADDRESS => address = ip(value),
            IFA_BROADCAST => addresses.broadcast.extend(ip(value)),
            _ => {}
        }
    }
    let Some(own) = local.or(address) else { return };
    addresses.own.insert(own);
    // The last address of a network means all of it, also where none is set (`fib_add_ifaddr`,
    // net/ipv4/fib_frontend.c); one of 31 bits has two hosts and no such address.
    if let IpAddr::V4(own) = own
        && prefix < 31
    {
        addresses.broadcast.insert(Ipv4Addr::from(u32::from(own) | u32::MAX >> prefix).into());
    }
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

/// The groups in the file: below a line for each device, one for each group, which begins with its
/// address as a number in the machine's order of bytes.
fn groups(file: impl Read) -> BTreeSet<IpAddr> {
    let lines = BufReader::new(file.take(MAX_FILE)).lines().map_while(Result::ok);
    let group = |line: String| {
        let number = line.strip_prefix('\t')?.split_whitespace().next()?;
        Some(Ipv4Addr::from(u32::from_str_radix(number, 16).ok()?.to_ne_bytes()).into())
    };
    lines.filter_map(group).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::netlink::fixture::attribute, *};

    fn of(prefix: u8, attributes: &[Vec<u8>]) -> Addresses {
        let mut addresses = Addresses::default();
        add(&mut addresses, &[vec![2, prefix, 0, 0, 1, 0, 0, 0], attributes.concat()].concat());
        addresses
    }

    fn set(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn an_address_has_a_network_whose_last_one_means_all() {
        let here = attribute(IFA_LOCAL, &[10, 1, 2, 3]);
        let there = attribute(IFA_ADDRESS, &[10, 1, 2, 4]);
        let all = attribute(IFA_BROADCAST, &[10, 1, 9, 9]);
        let addresses = of(24, &[there.clone(), here.clone(), all]);
        assert_eq!(addresses.own, set(&["10.1.2.3"]));
        assert_eq!(addresses.broadcast, set(&["10.1.9.9", "10.1.2.255"]));
        let two = of(31, &[there, here]);
        assert_eq!(two.broadcast, set(&[]));
        let six = of(64, &[attribute(IFA_ADDRESS, &Ipv6Addr::LOCALHOST.octets())]);
        assert_eq!((six.own, six.broadcast), (set(&["::1"]), set(&[])));
        assert_eq!(of(24, &[attribute(IFA_LOCAL, b"x")]), Addresses::default());
    }

    #[test]
    fn groups_stand_below_their_devices() {
        let of = |group: [u8; 4]| u32::from_ne_bytes(group);
        let text = format!(
            "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
             1\tlo        :     1      V3\n\t\t\t\t{:08X}     1 0:00000000\t\t0\n\
             2\teth0      :     2      V3\n\t\t\t\t{:08X}     1 0:00000000\t\t0\n\t\t\t\tx 1\n",
            of([224, 0, 0, 1]),
            of([239, 1, 2, 3]),
        );
        assert_eq!(groups(text.as_bytes()), set(&["224.0.0.1", "239.1.2.3"]));
    }

    #[test]
    fn this_host_has_its_own_and_all_hosts() {
        let addresses = read(&HostRoot::default()).unwrap();
        assert!(addresses.own.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)), "{addresses:?}");
        let all_hosts = Ipv4Addr::new(224, 0, 0, 1).into();
        assert!(addresses.groups.is_some_and(|groups| groups.contains(&all_hosts)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            add(&mut Addresses::default(), &bytes);
            let _ = groups(bytes.as_slice());
        }
    }
}
