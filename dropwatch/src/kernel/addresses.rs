//! Addresses and multicast groups of the calling thread's namespace, over rtnetlink and from
//! `/proc/net/igmp`. Needs no capability.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use libc::{
    IFA_ADDRESS, IFA_BROADCAST, IFA_F_DADFAILED, IFA_F_OPTIMISTIC, IFA_F_TENTATIVE, IFA_FLAGS,
    IFA_LOCAL, RTM_GETADDR,
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{
    HostRoot,
    netlink::{Netlink, NetlinkError, attributes, number},
};
use crate::report::evidence::{Addresses, UnusableAddress};

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
    if let Ok(file) = root.open(GROUPS) {
        addresses.joined = groups(file);
        let all = addresses.joined.values().flatten().copied().collect();
        addresses.groups = Some(all).filter(|_| !forwards);
    }
    Ok(addresses)
}

/// One `RTM_NEWADDR`.
fn add(addresses: &mut Addresses, message: &[u8]) {
    let Some((header, rest)) = message.split_first_chunk::<HEADER>() else { return };
    let [_, prefix, flags, _, device @ ..] = *header;
    let (mut local, mut address, mut flags) = (None, None, u32::from(flags));
    for (kind, value) in attributes(rest) {
        match kind {
            IFA_FLAGS => flags = number(value).unwrap_or(flags),
            IFA_LOCAL => local = ip(value),
            // The far end of a point-to-point link, where `IFA_LOCAL` is another one.
            IFA_ADDRESS => address = ip(value),
            IFA_BROADCAST => addresses.broadcast.extend(ip(value)),
            _ => {}
        }
    }
    let Some(own) = local.or(address) else { return };
    addresses.own.insert(own);
    let failed = flags & IFA_F_DADFAILED != 0;
    // An optimistic one is in use before it is known to be unique (RFC 4429).
    if failed || flags & (IFA_F_TENTATIVE | IFA_F_OPTIMISTIC) == IFA_F_TENTATIVE {
        let device = u32::from_ne_bytes(device);
        addresses.unusable.insert(own, UnusableAddress { device, failed });
    }
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

/// The groups in the file, by the index of the device: below a line for each device, one for each group,
/// which begins with its address as a number in the machine's order of bytes.
fn groups(file: impl Read) -> BTreeMap<u32, BTreeSet<IpAddr>> {
    let (mut joined, mut device, mut count) = (BTreeMap::new(), None, 0);
    for line in BufReader::new(file.take(MAX_FILE)).lines().map_while(Result::ok) {
        match line.strip_prefix('\t').map(|rest| rest.split_whitespace().next()) {
            None => device = line.split_whitespace().next().and_then(|index| index.parse().ok()),
            Some(group) => {
                let number = group.and_then(|group| u32::from_str_radix(group, 16).ok());
                if let (Some(device), Some(number), 0..MOST) = (device, number, count) {
                    let group = Ipv4Addr::from(number.to_ne_bytes()).into();
                    joined.entry(device).or_insert_with(BTreeSet::new).insert(group);
                    count += 1;
                }
            }
        }
    }
    joined
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
    fn an_address_that_may_not_be_used_says_whether_it_ever_may() {
        let of = |flags: u32, short: u8| {
            let mut addresses = Addresses::default();
            let header = vec![10, 64, short, 0, 7, 0, 0, 0];
            let address = attribute(IFA_ADDRESS, &Ipv6Addr::LOCALHOST.octets());
            let flags = attribute(IFA_FLAGS, &flags.to_ne_bytes());
            add(&mut addresses, &[header, address, flags].concat());
            addresses.unusable.into_values().next().map(|it| (it.device, it.failed))
        };
        let device = u32::from_ne_bytes([7, 0, 0, 0]);
        assert_eq!(of(0x40, 0x40), Some((device, false)));
        assert_eq!(of(0x08, 0x08), Some((device, true)));
        assert_eq!(of(0x48, 0x48), Some((device, true)));
        assert_eq!((of(0x44, 0x44), of(0x80, 0x80)), (None, None), "optimistic, permanent");
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
        let expected = [(1, set(&["224.0.0.1"])), (2, set(&["239.1.2.3"]))].into();
        assert_eq!(groups(text.as_bytes()), expected);
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
