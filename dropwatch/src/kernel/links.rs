//! Network devices of the calling thread's namespace, with their statistics, over rtnetlink.
//! Needs no capability.

use std::collections::BTreeMap;

use super::{
    clean,
    netlink::{Error, Netlink, attributes},
};
use crate::report::evidence::Link;

/// `NETLINK_ROUTE`, `RTM_GETLINK`, `RTM_GETQDISC` (include/uapi/linux/{netlink,rtnetlink}.h).
const ROUTE: isize = 0;
const GET_LINK: u16 = 18;
const GET_QDISC: u16 = 38;
/// Bytes of `struct ifinfomsg` and of `struct tcmsg`, before the attributes.
const IFINFO: usize = 16;
const TCMSG: usize = 20;
/// `IFF_UP` (include/uapi/linux/if.h)
const UP: u32 = 1;
/// Parent of a device's root queueing discipline (`TC_H_ROOT`).
const TC_ROOT: u32 = u32::MAX;
/// Most devices read of one namespace.
pub(super) const MAX_LINKS: usize = 4096;

/// Losses that are told, by their place in `struct rtnl_link_stats64`
/// (include/uapi/linux/if_link.h), which only ever grew at its end.
const STATS: [(&str, usize); 9] = [
    ("rx_errors", 4),
    ("tx_errors", 5),
    ("rx_dropped", 6),
    ("tx_dropped", 7),
    ("rx_over_errors", 11),
    ("rx_crc_errors", 12),
    ("rx_fifo_errors", 14),
    ("rx_missed_errors", 15),
    ("rx_nohandler", 23),
];

/// Place of `tx_packets` in it.
const SENT: usize = 1;

/// All devices, by index.
///
/// # Errors
/// When the kernel refuses to list them.
pub(super) fn read() -> Result<BTreeMap<u32, Link>, Error> {
    let mut netlink = Netlink::open(ROUTE)?;
    let mut links = BTreeMap::new();
    netlink.ask_all(GET_LINK, &[0; IFINFO], |message| {
        if links.len() < MAX_LINKS
            && let Some((index, link)) = link(message)
        {
            links.insert(index, link);
        }
    })?;
    netlink.ask_all(GET_QDISC, &[0; TCMSG], |message| add_qdisc(&mut links, message))?;
    Ok(links)
}

/// The name of every device, and what else people call it (`ip link property add`).
///
/// # Errors
/// When the kernel refuses to list them.
pub(super) fn names() -> Result<Vec<(String, Vec<String>)>, Error> {
    /// `IFLA_PROP_LIST` and the `IFLA_ALT_IFNAME`s in it (include/uapi/linux/if_link.h, Linux 5.5).
    const PROPERTIES: u16 = 52;
    const OTHER_NAME: u16 = 53;
    let mut names = Vec::new();
    Netlink::open(ROUTE)?.ask_all(GET_LINK, &[0; IFINFO], |message| {
        let (mut name, mut others) = (None, Vec::new());
        for (kind, value) in message.get(IFINFO..).into_iter().flat_map(attributes) {
            match kind {
                3 => name = Some(text(value)),
                PROPERTIES => {
                    let inner = attributes(value).filter(|(kind, _)| *kind == OTHER_NAME);
                    others.extend(inner.map(|(_, value)| text(value)));
                }
                _ => {}
            }
        }
        if let (Some(name), true) = (name, names.len() < MAX_LINKS) {
            names.push((name, others));
        }
    })?;
    Ok(names)
}

/// One `RTM_NEWLINK`.
fn link(message: &[u8]) -> Option<(u32, Link)> {
    let index = u32_at(message, 4)?;
    let mut link = Link { up: u32_at(message, 8)? & UP != 0, ..Link::default() };
    for (kind, value) in attributes(message.get(IFINFO..)?) {
        match kind {
            3 => link.name = text(value),                            // IFLA_IFNAME
            4 => link.mtu = u32_at(value, 0).unwrap_or(0),           // IFLA_MTU
            13 => link.queue_length = u32_at(value, 0).unwrap_or(0), // IFLA_TXQLEN
            23 => add_stats(&mut link, value),                       // IFLA_STATS64
            _ => {}
        }
    }
    Some((index, link))
}

fn add_stats(link: &mut Link, stats: &[u8]) {
    let at = |place: usize| {
        let bytes = stats.get(place * 8..).and_then(|rest| rest.first_chunk());
        bytes.map(|bytes| u64::from_ne_bytes(*bytes))
    };
    for (name, place) in STATS {
        if let Some(count) = at(place) {
            link.counters.add(name.to_owned(), count);
        }
    }
    link.sent = at(SENT).unwrap_or(0);
}

/// One `RTM_NEWQDISC`: kind and drops of a device's root queueing discipline.
fn add_qdisc(links: &mut BTreeMap<u32, Link>, message: &[u8]) {
    let (Some(index), Some(TC_ROOT)) = (u32_at(message, 4), u32_at(message, 12)) else { return };
    let Some(link) = links.get_mut(&index) else { return };
    for (kind, value) in attributes(message.get(TCMSG..).unwrap_or_default()) {
        match kind {
            1 => link.qdisc = Some(text(value)), // TCA_KIND
            // TCA_STATS2; in it TCA_STATS_QUEUE, `struct gnet_stats_queue`: qlen, backlog, drops.
            7 => {
                let queue = attributes(value).find(|(kind, _)| *kind == 3);
                if let Some(drops) = queue.and_then(|(_, queue)| u32_at(queue, 8)) {
                    link.counters.add("qdisc_drops".to_owned(), drops.into());
                }
            }
            _ => {}
        }
    }
}

fn u32_at(bytes: &[u8], place: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(place..)?.first_chunk()?))
}

/// Text up to its final zero, cleaned: a device's name is anyone's choice.
fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    clean(&String::from_utf8_lossy(&value[..end]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::netlink::fixture::attribute, *};

    fn info(index: u32, flags: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let head = [0, index, flags, 0].map(u32::to_ne_bytes).concat();
        [head, attributes.concat()].concat()
    }

    #[test]
    fn a_device_has_a_name_and_statistics() {
        let stats: Vec<u8> = (100..125_u64).flat_map(u64::to_ne_bytes).collect();
        let message = info(
            7,
            UP,
            &[
                attribute(3, b"eth0\0"),
                attribute(4, &1500_u32.to_ne_bytes()),
                attribute(13, &1000_u32.to_ne_bytes()),
                attribute(23, &stats),
            ],
        );
        let (index, link) = link(&message).unwrap();
        assert_eq!((index, link.name.as_str(), link.mtu, link.up), (7, "eth0", 1500, true));
        assert_eq!(link.queue_length, 1000);
        assert_eq!(link.counters.get("rx_missed_errors"), Some(115));
        assert_eq!(link.counters.get("rx_nohandler"), Some(123));
        assert_eq!((link.sent, link.counters.get("tx_errors")), (101, Some(105)));
    }

    #[test]
    fn statistics_of_an_older_kernel_are_shorter() {
        let (_, link) = link(&info(1, 0, &[attribute(23, &[1; 23 * 8])])).unwrap();
        assert!(!link.up);
        assert_eq!(link.counters.get("rx_nohandler"), None);
        assert!(link.counters.get("rx_missed_errors").is_some());
    }

    #[test]
    fn the_root_queueing_discipline_speaks_for_the_device() {
        let queue = attribute(3, &[0, 0, 42, 0, 0_u32].map(u32::to_ne_bytes).concat());
        let message = |parent: u32| {
            let head = [0, 7, 1, parent, 0].map(u32::to_ne_bytes).concat();
            [head, attribute(1, b"fq_codel\0"), attribute(7, &queue)].concat()
        };
        let mut links = BTreeMap::from([(7, Link::default())]);
        add_qdisc(&mut links, &message(3));
        assert_eq!(links[&7], Link::default());
        add_qdisc(&mut links, &message(TC_ROOT));
        assert_eq!(links[&7].qdisc.as_deref(), Some("fq_codel"));
        assert_eq!(links[&7].counters.get("qdisc_drops"), Some(42));
    }

    #[test]
    fn this_host_has_a_loopback() {
        let links = read().unwrap();
        assert!(links.values().any(|link| link.name == "lo" && link.mtu > 0), "{links:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut links = BTreeMap::from([(7, Link::default())]);
            let _ = link(&bytes);
            add_qdisc(&mut links, &bytes);
        }
    }
}
