//! By which port a bridge sends a frame on: `RTM_GETNEIGH` for one entry of its forwarding database
//! (`rtnl_fdb_get`, net/core/rtnetlink.c, Linux 5.0; `br_fdb_get`, net/bridge/br_fdb.c).

use libc::{NDA_LLADDR, RTM_GETNEIGH};
use netlink_packet_core::Emitable as _;
use netlink_packet_route::{
    AddressFamily,
    neighbour::{NeighbourHeader, NeighbourMessageBuffer},
};

use super::{HostToAsk, ask_kernel, device};
use crate::{
    kernel::netlink::{Netlink, add_attribute},
    report::{
        device::{Device, Frame},
        question::Unanswered,
    },
};

/// Before the attributes, `struct ndmsg`.
const HEADER: usize = size_of::<NeighbourMessageBuffer>();
/// Index of the bridge (include/uapi/linux/neighbour.h).
const NDA_MASTER: u16 = 9;

pub(super) fn ask(
    netlink: &mut Netlink,
    host: &HostToAsk,
    frame: &Frame,
) -> Result<Option<Box<Device>>, Unanswered> {
    let bridge = device::bridge_of(netlink, frame.port)?.ok_or(Unanswered::Failed)?;
    let message = match ask_kernel(netlink, RTM_GETNEIGH, &question(bridge, frame))? {
        Ok(message) => message,
        Err(libc::ENOENT) => return Ok(None),
        Err(libc::EPERM) => return Err(Unanswered::NotPermitted),
        Err(_) => return Err(Unanswered::Failed),
    };
    let port = NeighbourHeader::parse(&message).map_err(|_| Unanswered::Failed)?.ifindex;
    // An address of the bridge's own has the bridge for its port.
    if port == bridge {
        return Ok(None);
    }
    device::ask(netlink, host, port).map(|port| Some(Box::new(port)))
}

fn question(bridge: u32, frame: &Frame) -> Vec<u8> {
    let header = NeighbourHeader { family: AddressFamily::Bridge, ..NeighbourHeader::default() };
    let mut message = vec![0; HEADER];
    header.emit(&mut message);
    add_attribute(&mut message, NDA_MASTER, &bridge.to_ne_bytes());
    add_attribute(&mut message, NDA_LLADDR, &frame.to);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_question_names_bridge_and_address() {
        let frame = Frame { port: 3, to: [2, 0, 0, 0, 0, 9] };
        let expected = [
            &[7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[8, 0, 9, 0, 5, 0, 0, 0],
            &[10, 0, 2, 0, 2, 0, 0, 0, 0, 9, 0, 0],
        ];
        assert_eq!(question(5, &frame), expected.concat());
    }
}
