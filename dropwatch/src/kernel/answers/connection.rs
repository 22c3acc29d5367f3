//! Which tracked connection a packet belongs to, and which of NAT's ports are taken: `CTA_TUPLE_REPLY`
//! of `IPCTNL_MSG_CT_GET` (`ctnetlink_get_conntrack`, net/netfilter/nf_conntrack_netlink.c).
//!
//! One entry is looked up by its hash, so the size of the table costs nothing. Connections of other
//! zones than the default one are not found.

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::unanswered;
use crate::{
    kernel::{
        HostRoot, conntrack,
        netlink::{Netlink, NetlinkError},
    },
    report::question::{Connection, NatPorts, PortsInUse, Tuple, Unanswered},
};

/// Most ports that are looked at: each takes some microseconds.
const MOST_PORTS: u32 = 256;

pub(super) fn ask(reply: Tuple) -> Result<Option<Connection>, Unanswered> {
    let Some(mut netlink) = open()? else { return Ok(None) };
    find(&mut netlink, reply)
}

pub(super) fn ports_in_use(ports: &NatPorts) -> Result<PortsInUse, Unanswered> {
    let mut in_use = PortsInUse { probed: 0, taken: 0 };
    let Some(mut netlink) = open()? else { return Ok(in_use) };
    for port in probes(ports) {
        let answers = Tuple {
            protocol: ports.protocol,
            from: ports.server,
            to: (ports.address, port).into(),
        };
        in_use.probed += 1;
        in_use.taken += u32::from(find(&mut netlink, answers)?.is_some());
    }
    Ok(in_use)
}

/// The ports to look at: all, or as many as may be, evenly spread.
fn probes(ports: &NatPorts) -> impl Iterator<Item = u16> + use<> {
    let all = u32::from(ports.last.saturating_sub(ports.first)) + 1;
    let probed = all.min(MOST_PORTS);
    let first = u32::from(ports.first);
    (0..probed).filter_map(move |n| u16::try_from(first + n * all / probed).ok())
}

/// A socket to connection tracking; `None` where it is not in use, since the question alone would have
/// the kernel load it.
fn open() -> Result<Option<Netlink>, Unanswered> {
    match conntrack::is_used(&HostRoot::default()) {
        true => Netlink::open(NETLINK_NETFILTER).map(Some).map_err(|error| unanswered(&error)),
        false => Ok(None),
    }
}

fn find(netlink: &mut Netlink, reply: Tuple) -> Result<Option<Connection>, Unanswered> {
    let question = conntrack::by_reply(&reply).ok_or(Unanswered::Failed)?;
    let mut found = None;
    match netlink.ask(conntrack::GET, &question, |message| {
        found = conntrack::connection(message);
    }) {
        // The kernel looks in both directions.
        Ok(()) => Ok(found.filter(|connection| connection.reply == reply)),
        Err(NetlinkError::Malformed) => Err(Unanswered::Failed),
        Err(NetlinkError::Io(error)) => match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(None),
            _ => Err(unanswered(&error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_ports_are_all_looked_at_and_many_evenly() {
        let of = |first, last| {
            let server = "203.0.113.9:80".parse().unwrap();
            let address = [198, 18, 1, 1].into();
            probes(&NatPorts { protocol: 6, server, address, first, last }).collect::<Vec<_>>()
        };
        assert_eq!(of(40_000, 40_004), [40_000, 40_001, 40_002, 40_003, 40_004]);
        assert_eq!(of(9, 9), [9]);
        assert_eq!(of(9, 8), [9], "a range that makes no sense is its begin");
        let spread = of(0, u16::MAX);
        assert_eq!((spread.len(), spread[1], spread[255]), (256, 256, 65_280));
    }
}
