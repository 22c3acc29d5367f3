//! Network devices of the calling thread's namespace, with their statistics, over rtnetlink.
//! Needs no capability.

use std::collections::BTreeMap;

use libc::{
    IFLA_ALT_IFNAME, IFLA_IFNAME, IFLA_MTU, IFLA_PROP_LIST, IFLA_STATS64, IFLA_TXQLEN, RTM_GETLINK,
    RTM_GETQDISC, TCA_KIND, TCA_OPTIONS, TCA_STATS2,
};
use netlink_packet_route::{
    link::{LinkFlags, LinkHeader, LinkMessageBuffer, Stats64},
    tc::{TcHandle, TcHeader, TcMessageBuffer, TcStatsQueue},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{
    clean,
    netlink::{Netlink, NetlinkError, add_attribute, attributes, number},
};
use crate::report::evidence::{Link, QDISC_DROPS, Queue, QueueId};

/// Before the attributes, `struct ifinfomsg` and `struct tcmsg`: in a question, all of any device.
const LINK_HEADER: usize = size_of::<LinkMessageBuffer>();
const QDISC_HEADER: usize = size_of::<TcMessageBuffer>();
/// `struct gnet_stats_queue` in `TCA_STATS2` (include/uapi/linux/gen_stats.h).
const TCA_STATS_QUEUE: u16 = 3;
/// A flag of a question (include/uapi/linux/rtnetlink.h).
const TCA_DUMP_INVISIBLE: u16 = 10;
/// Disciplines whose options are a `struct tc_fifo_qopt`, a limit (net/sched/sch_fifo.c).
const PLAIN: [&str; 3] = ["pfifo", "bfifo", "pfifo_head_drop"];
/// Parent of a device's root queueing discipline (`TC_H_ROOT`, include/uapi/linux/pkt_sched.h).
const TC_ROOT: TcHandle = TcHandle { major: u16::MAX, minor: u16::MAX };
/// Most queueing disciplines of a device that are kept: one for each queue of a large card, twice.
const MAX_QUEUES: usize = 256;
/// Most devices read of one namespace.
pub(super) const MAX_LINKS: usize = 4096;

/// All devices, by index.
///
/// # Errors
/// When the kernel refuses to list them.
pub(super) fn read() -> Result<BTreeMap<u32, Link>, NetlinkError> {
    let mut netlink = Netlink::open(NETLINK_ROUTE)?;
    let mut links = BTreeMap::new();
    netlink.ask_all(RTM_GETLINK, &[0; LINK_HEADER], |message| {
        if links.len() < MAX_LINKS
            && let Some((index, link)) = link(message)
        {
            links.insert(index, link);
        }
    })?;
    // Those that a kernel makes for classes without one are shown to who asks for them (Linux 4.12).
    let mut question = vec![0; QDISC_HEADER];
    add_attribute(&mut question, TCA_DUMP_INVISIBLE, &[]);
    netlink.ask_all(RTM_GETQDISC, &question, |message| add_qdisc(&mut links, message))?;
    Ok(links)
}

/// The name of every device, and what else people call it (`ip link property add`).
///
/// # Errors
/// When the kernel refuses to list them.
pub(super) fn names() -> Result<Vec<(String, Vec<String>)>, NetlinkError> {
    let mut names = Vec::new();
    Netlink::open(NETLINK_ROUTE)?.ask_all(RTM_GETLINK, &[0; LINK_HEADER], |message| {
        let (mut name, mut others) = (None, Vec::new());
        for (kind, value) in message.get(LINK_HEADER..).into_iter().flat_map(attributes) {
            match kind {
                IFLA_IFNAME => name = Some(text(value)),
                // Alternative names of interfaces (Linux 5.5).
                IFLA_PROP_LIST => {
                    let inner = attributes(value).filter(|(kind, _)| *kind == IFLA_ALT_IFNAME);
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

/// Index and name of every device; none where the kernel refuses to list them.
pub(super) fn by_index() -> Vec<(u32, String)> {
    let mut names = Vec::new();
    let each = |message: &[u8]| {
        let Ok(header) = LinkHeader::parse(message) else { return };
        let mut attributes = message.get(LINK_HEADER..).into_iter().flat_map(attributes);
        let name = attributes.find(|(kind, _)| *kind == IFLA_IFNAME);
        if let (Some((_, name)), true) = (name, names.len() < MAX_LINKS) {
            names.push((header.index, text(name)));
        }
    };
    let list = || Netlink::open(NETLINK_ROUTE)?.ask_all(RTM_GETLINK, &[0; LINK_HEADER], each);
    if let Err::<_, NetlinkError>(error) = list() {
        log::debug!("no names of interfaces: {error}");
    }
    names
}

/// One `RTM_NEWLINK`.
///
/// Attributes are read one by one, those alone that are needed: one that a newer kernel writes in
/// another way must not cost the whole device.
fn link(message: &[u8]) -> Option<(u32, Link)> {
    let header = LinkHeader::parse(message).ok()?;
    let mut link = Link {
        up: header.flags.contains(LinkFlags::Up),
        carrier: header.flags.contains(LinkFlags::LowerUp),
        ..Link::default()
    };
    for (kind, value) in attributes(message.get(LINK_HEADER..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = number(value).unwrap_or(0),
            IFLA_TXQLEN => link.queue_length = number(value).unwrap_or(0),
            IFLA_STATS64 => add_stats(&mut link, value),
            _ => {}
        }
    }
    Some((header.index, link))
}

/// Adds the losses in a `struct rtnl_link_stats64` (include/uapi/linux/if_link.h), all of which are
/// older than any kernel that this runs on.
fn add_stats(link: &mut Link, stats: &[u8]) {
    let Ok(stats) = Stats64::parse(stats) else { return };
    for (name, count) in [
        ("rx_errors", stats.rx_errors),
        ("tx_errors", stats.tx_errors),
        ("rx_dropped", stats.rx_dropped),
        ("tx_dropped", stats.tx_dropped),
        ("rx_over_errors", stats.rx_over_errors),
        ("rx_crc_errors", stats.rx_crc_errors),
        ("rx_fifo_errors", stats.rx_fifo_errors),
        ("rx_missed_errors", stats.rx_missed_errors),
        ("rx_nohandler", stats.rx_nohandler),
    ] {
        link.counters.add(name.to_owned(), count);
    }
    link.sent = stats.tx_packets;
}

/// One `RTM_NEWQDISC`: a queueing discipline that has dropped something, and kind and drops of a device's
/// root one.
fn add_qdisc(links: &mut BTreeMap<u32, Link>, message: &[u8]) {
    let Ok(header) = TcHeader::parse(message) else { return };
    let Some(link) = links.get_mut(&header.index.cast_unsigned()) else { return };
    let (mut name, mut drops, mut options) = (None, None, None);
    for (kind, value) in attributes(message.get(QDISC_HEADER..).unwrap_or_default()) {
        match kind {
            TCA_KIND => name = Some(text(value)),
            TCA_OPTIONS => options = number(value),
            TCA_STATS2 => {
                let queue = attributes(value).find(|(kind, _)| *kind == TCA_STATS_QUEUE);
                let queue = queue.and_then(|(_, queue)| TcStatsQueue::parse(queue).ok());
                drops = queue.map(|queue| u64::from(queue.drops));
            }
            _ => {}
        }
    }
    if let Some(drops) = drops.filter(|drops| *drops > 0)
        && link.queues.len() < MAX_QUEUES
    {
        let id = QueueId { handle: header.handle.into(), parent: header.parent.into() };
        let kind = name.clone().unwrap_or_default();
        let limit = options.filter(|_| PLAIN.contains(&kind.as_str()));
        link.queues.insert(id, Queue { kind, drops, limit });
    }
    if header.parent == TC_ROOT {
        link.qdisc = name;
        if let Some(drops) = drops {
            link.counters.add(QDISC_DROPS.to_owned(), drops);
        }
    }
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
            (LinkFlags::Up | LinkFlags::LowerUp).bits(),
            &[
                attribute(3, b"eth0\0"),
                attribute(4, &1500_u32.to_ne_bytes()),
                attribute(13, &1000_u32.to_ne_bytes()),
                attribute(23, &stats),
            ],
        );
        let (index, link) = link(&message).unwrap();
        assert_eq!((index, link.name.as_str(), link.mtu, link.up), (7, "eth0", 1500, true));
        assert!(link.carrier);
        assert_eq!(link.queue_length, 1000);
        assert_eq!(link.counters.get("rx_missed_errors"), Some(115));
        assert_eq!(link.counters.get("rx_nohandler"), Some(123));
        assert_eq!((link.sent, link.counters.get("tx_errors")), (101, Some(105)));
    }

    #[test]
    fn statistics_of_an_older_kernel_are_shorter() {
        // Without `rx_otherhost_dropped` (Linux 6.1).
        let (_, link) = link(&info(1, 0, &[attribute(23, &[1; 24 * 8])])).unwrap();
        assert!(!link.up && !link.carrier);
        assert_eq!(link.counters.get("rx_nohandler"), Some(0x0101_0101_0101_0101));
    }

    #[test]
    fn an_attribute_of_another_form_costs_no_other() {
        let attributes = [attribute(4, b"x"), attribute(23, b""), attribute(3, b"eth0\0")];
        let (_, link) = link(&info(1, 0, &attributes)).unwrap();
        assert_eq!((link.name.as_str(), link.mtu), ("eth0", 0));
    }

    #[test]
    fn the_root_queueing_discipline_speaks_for_the_device() {
        let queue = attribute(3, &[0, 0, 42, 0, 0_u32].map(u32::to_ne_bytes).concat());
        let message = |parent: u32| {
            let head = [0, 7, 0, parent, 0].map(u32::to_ne_bytes).concat();
            [head, attribute(1, b"fq_codel\0"), attribute(7, &queue)].concat()
        };
        let mut links = BTreeMap::from([(7, Link::default())]);
        add_qdisc(&mut links, &message(0x0001_0010));
        assert_eq!(links[&7].qdisc, None);
        let [(id, below)] = &links[&7].queues.clone().into_iter().collect::<Vec<_>>()[..] else {
            panic!("{links:?}")
        };
        assert_eq!((id.to_string().as_str(), below.drops), ("0: in 1:10", 42));
        add_qdisc(&mut links, &message(u32::MAX));
        assert_eq!(links[&7].qdisc.as_deref(), Some("fq_codel"));
        let head = [0, 7, 0x0014_0000, 0x0001_0014, 0].map(u32::to_ne_bytes).concat();
        let options = attribute(2, &5_u32.to_ne_bytes());
        let plain = [head, attribute(1, b"pfifo\0"), options, attribute(7, &queue)].concat();
        add_qdisc(&mut links, &plain);
        let limits: Vec<_> = links[&7].queues.values().map(|queue| queue.limit).collect();
        assert_eq!(limits, [None, None, Some(5)]);
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
