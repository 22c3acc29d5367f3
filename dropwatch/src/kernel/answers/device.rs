//! The state of a device: `RTM_GETLINK` for one (`rtnl_fill_ifinfo`, net/core/rtnetlink.c), and for the
//! other end of a veth in its own namespace (`IFLA_TARGET_NETNSID`, Linux 4.20).

use std::{fs::File, os::fd::AsRawFd as _};

use libc::{
    IFLA_IFNAME, IFLA_LINK, IFLA_LINKINFO, IFLA_MASTER, IFLA_MTU, IFLA_STATS64, IFLA_TXQLEN,
    RTM_GETLINK,
};
use netlink_packet_core::{Emitable as _, NlaBuffer, Parseable as _};
use netlink_packet_route::link::{
    BridgePortState, InfoBridgePort, LinkFlags, LinkHeader, LinkMessageBuffer, Stats64,
};

use super::{HostToAsk, ask_kernel};
use crate::{
    kernel::{
        bpf, clean, interfaces,
        netlink::{Netlink, add_attribute, attributes, number},
    },
    report::{
        device::{BridgePort, Device, Peer, PortState, Program, XdpMode, XdpProgram},
        question::Unanswered,
    },
};

/// Before the attributes, `struct ifinfomsg`.
const HEADER: usize = size_of::<LinkMessageBuffer>();
/// Attributes that the libc crate lacks (include/uapi/linux/if_link.h).
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
const IFLA_TARGET_NETNSID: u16 = 46;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;
/// Numbers of namespaces that one namespace gives to others (include/uapi/linux/net_namespace.h).
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
/// Before their attributes, `struct rtgenmsg`, padded.
const NSID_HEADER: usize = 4;

pub(super) fn ask(
    netlink: &mut Netlink,
    host: &HostToAsk,
    index: u32,
) -> Result<Device, Unanswered> {
    let message = get(netlink, index, None)?;
    let Parsed { mut device, link, master } = parse(&message).ok_or(Unanswered::Failed)?;
    for xdp in &mut device.xdp {
        xdp.program = bpf::program(xdp.program.id);
    }
    if let (Some(port), Some(name)) = (&mut device.port, master.and_then(interfaces::name)) {
        port.bridge = name;
    }
    if let (Some("veth"), Some((peer, netns))) = (device.kind.as_deref(), link) {
        device.peer = self::peer(netlink, host, peer, netns);
    }
    Ok(device)
}

/// The bridge that a device is a port of, by index.
pub(super) fn bridge_of(netlink: &mut Netlink, port: u32) -> Result<Option<u32>, Unanswered> {
    let parsed = parse(&get(netlink, port, None)?).ok_or(Unanswered::Failed)?;
    Ok(parsed.master.filter(|_| parsed.device.port.is_some()))
}

/// Asks for one device, in the namespace that the socket's calls `netns`, or in its own.
pub(super) fn get(
    netlink: &mut Netlink,
    index: u32,
    netns: Option<u32>,
) -> Result<Vec<u8>, Unanswered> {
    let mut message = vec![0; HEADER];
    LinkHeader { index, ..LinkHeader::default() }.emit(&mut message);
    if let Some(netns) = netns {
        add_attribute(&mut message, IFLA_TARGET_NETNSID, &netns.to_ne_bytes());
    }
    ask_kernel(netlink, RTM_GETLINK, &message)?.map_err(|error| match error {
        libc::EPERM => Unanswered::NotPermitted,
        _ => Unanswered::Failed,
    })
}

/// The other end of a veth; `None` where it cannot be read.
fn peer(netlink: &mut Netlink, host: &HostToAsk, index: u32, netns: Option<u32>) -> Option<Peer> {
    let message = get(netlink, index, netns).ok()?;
    let Device { name, up, mtu, rx_dropped, .. } = parse(&message)?.device;
    let number = match netns {
        None => Some(host.number),
        Some(netns) => host.namespaces.iter().find_map(|(number, path)| {
            let file = File::open(path).ok()?;
            (nsid(netlink, &file)? == netns).then_some(*number)
        }),
    };
    Some(Peer { index, name, up, mtu, rx_dropped, netns: number })
}

/// What the socket's namespace calls the one whose file is open; `None` where it has no number for it.
fn nsid(netlink: &mut Netlink, file: &File) -> Option<u32> {
    let mut message = vec![0; NSID_HEADER];
    add_attribute(&mut message, NETNSA_FD, &file.as_raw_fd().to_ne_bytes());
    let answer = ask_kernel(netlink, libc::RTM_GETNSID, &message).ok()?.ok()?;
    let found = attributes(answer.get(NSID_HEADER..)?).find(|(kind, _)| *kind == NETNSA_NSID);
    // -1 where there is none.
    found.and_then(|(_, value)| number(value)).filter(|nsid| *nsid != u32::MAX)
}

/// What one message says.
struct Parsed {
    device: Device,
    /// Index of what it is linked to, and what its namespace calls that one's, if another.
    link: Option<(u32, Option<u32>)>,
    master: Option<u32>,
}

/// One `RTM_NEWLINK`; attributes are read one by one, so that none of another form costs the others.
fn parse(message: &[u8]) -> Option<Parsed> {
    let header = LinkHeader::parse(message).ok()?;
    let mut device = Device {
        index: header.index,
        up: header.flags.contains(LinkFlags::Up),
        carrier: header.flags.contains(LinkFlags::LowerUp),
        ..Device::default()
    };
    let (mut link, mut netns, mut master) = (None, None, None);
    for (kind, value) in attributes(message.get(HEADER..)?) {
        match kind {
            IFLA_IFNAME => device.name = text(value),
            IFLA_MTU => device.mtu = number(value).unwrap_or(0),
            IFLA_TXQLEN => device.queue_length = number(value).unwrap_or(0),
            IFLA_STATS64 => {
                device.rx_dropped = Stats64::parse(value).map_or(0, |stats| stats.rx_dropped);
            }
            IFLA_LINK => link = number(value),
            IFLA_LINK_NETNSID => netns = number(value),
            IFLA_MASTER => master = number(value),
            IFLA_LINKINFO => add_info(&mut device, value),
            IFLA_XDP => device.xdp = attributes(value).filter_map(xdp).collect(),
            _ => {}
        }
    }
    Some(Parsed { device, link: link.map(|link| (link, netns)), master })
}

fn add_info(device: &mut Device, info: &[u8]) {
    let (mut is_port, mut port) = (false, BridgePort::default());
    for (kind, value) in attributes(info) {
        match kind {
            IFLA_INFO_KIND => device.kind = Some(text(value)),
            IFLA_INFO_SLAVE_KIND => is_port = text(value) == "bridge",
            IFLA_INFO_SLAVE_DATA => port = self::port(value),
            _ => {}
        }
    }
    device.port = is_port.then_some(port);
}

/// `IFLA_BRPORT_*` (`br_port_fill_attrs`, net/bridge/br_netlink.c).
fn port(data: &[u8]) -> BridgePort {
    let mut port = BridgePort::default();
    let mut rest = data;
    for (_, value) in attributes(data) {
        // The whole attribute, as the crate parses it.
        let length = value.len() + 4;
        let Some(whole) = rest.get(..length) else { break };
        let parsed =
            NlaBuffer::new_checked(whole).ok().and_then(|it| InfoBridgePort::parse(&it).ok());
        match parsed {
            Some(InfoBridgePort::State(state)) => port.state = self::state(state),
            Some(InfoBridgePort::HairpinMode(on)) => port.hairpin = on,
            Some(InfoBridgePort::Isolated(on)) => port.isolated = on,
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    port
}

fn state(state: BridgePortState) -> PortState {
    match state {
        BridgePortState::Disabled => PortState::Disabled,
        BridgePortState::Listening => PortState::Listening,
        BridgePortState::Learning => PortState::Learning,
        BridgePortState::Blocking => PortState::Blocking,
        _ => PortState::Forwarding,
    }
}

fn xdp((kind, value): (u16, &[u8])) -> Option<XdpProgram> {
    let mode = match kind {
        IFLA_XDP_DRV_PROG_ID => XdpMode::Driver,
        IFLA_XDP_SKB_PROG_ID => XdpMode::Generic,
        IFLA_XDP_HW_PROG_ID => XdpMode::Hardware,
        _ => return None,
    };
    let id = number(value).filter(|id| *id != 0)?;
    Some(XdpProgram { mode, program: Program { id, name: None } })
}

/// Text up to its final zero, cleaned: names of devices are anyone's choice.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    clean(&String::from_utf8_lossy(&value[..end]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::netlink::fixture::attribute;

    fn message(flags: LinkFlags, attributes: &[Vec<u8>]) -> Vec<u8> {
        let head = [0, 7, flags.bits(), 0].map(u32::to_ne_bytes).concat();
        [head, attributes.concat()].concat()
    }

    #[test]
    fn a_device_without_carrier_is_up_and_has_nobody_at_its_other_end() {
        let name = attribute(3, b"eth0\0");
        let of = |flags| parse(&message(flags, std::slice::from_ref(&name))).unwrap().device;
        let (healthy, lonely, off) =
            (of(LinkFlags::Up | LinkFlags::LowerUp), of(LinkFlags::Up), of(LinkFlags::empty()));
        assert_eq!((healthy.up, healthy.carrier), (true, true));
        assert_eq!((lonely.up, lonely.carrier), (true, false));
        assert_eq!((off.up, off.carrier, off.name.as_str()), (false, false, "eth0"));
    }

    #[test]
    fn a_port_of_a_bridge_has_its_flags() {
        let data = [attribute(1, &[4]), attribute(4, &[1]), attribute(33, &[1])].concat();
        let info =
            [attribute(1, b"veth\0"), attribute(4, b"bridge\0"), attribute(5, &data)].concat();
        let parsed = parse(&message(
            LinkFlags::Up,
            &[attribute(10, &9_u32.to_ne_bytes()), attribute(18, &info)],
        ))
        .unwrap();
        let port = parsed.device.port.unwrap();
        assert_eq!((parsed.master, parsed.device.kind.as_deref()), (Some(9), Some("veth")));
        assert_eq!((port.state, port.hairpin, port.isolated), (PortState::Blocking, true, true));
    }

    #[test]
    fn a_port_of_something_else_is_none_of_a_bridge() {
        let info = [attribute(4, b"bond\0"), attribute(5, &attribute(1, &[4]))].concat();
        let parsed = parse(&message(LinkFlags::Up, &[attribute(18, &info)])).unwrap();
        assert_eq!(parsed.device.port, None);
    }

    #[test]
    fn programs_have_a_mode() {
        let xdp = [attribute(2, &[2]), attribute(4, &7_u32.to_ne_bytes())];
        let xdp = [xdp.concat(), attribute(6, &7_u32.to_ne_bytes())].concat();
        let device = parse(&message(LinkFlags::Up, &[attribute(43, &xdp)])).unwrap().device;
        assert_eq!(device.xdp.len(), 1);
        assert_eq!((device.xdp[0].mode, device.xdp[0].program.id), (XdpMode::Generic, 7));
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = port(&bytes);
        }
    }
}
