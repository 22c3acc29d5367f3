//! Whether a VXLAN device knows where a station is, or where to send what is for unknown ones:
//! `RTM_GETNEIGH` for one entry of its own forwarding database (`rtnl_fdb_get`, net/core/rtnetlink.c, Linux
//! 5.0; `vxlan_fdb_get`, drivers/net/vxlan/vxlan_core.c).

use libc::{NDA_LLADDR, RTM_GETNEIGH};
use netlink_packet_core::Emitable as _;
use netlink_packet_route::{
    AddressFamily,
    neighbour::{NeighbourFlags, NeighbourHeader, NeighbourMessageBuffer},
};

use super::ask_kernel;
use crate::{
    kernel::netlink::{Netlink, add_attribute},
    report::{
        device::{Frame, Mac},
        question::Unanswered,
    },
};

/// Before the attributes, `struct ndmsg`.
const HEADER: usize = size_of::<NeighbourMessageBuffer>();
/// What stands for all stations that are not known (`all_zeros_mac`).
const UNKNOWN: Mac = [0; 6];

pub(super) fn ask(netlink: &mut Netlink, frame: &Frame) -> Result<bool, Unanswered> {
    for station in [frame.to, UNKNOWN] {
        match ask_kernel(netlink, RTM_GETNEIGH, &question(frame.port, station))? {
            Ok(_) => return Ok(true),
            Err(libc::ENOENT) => {}
            Err(libc::EPERM) => return Err(Unanswered::NotPermitted),
            Err(_) => return Err(Unanswered::Failed),
        }
    }
    Ok(false)
}

fn question(device: u32, station: Mac) -> Vec<u8> {
    let header = NeighbourHeader {
        family: AddressFamily::Bridge,
        ifindex: device,
        // Its own database, not that of a bridge that it is a port of.
        flags: NeighbourFlags::Own,
        ..NeighbourHeader::default()
    };
    let mut message = vec![0; HEADER];
    header.emit(&mut message);
    add_attribute(&mut message, NDA_LLADDR, &station);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_question_is_about_the_devices_own_entries() {
        let expected =
            [&[7, 0, 0, 0, 5, 0, 0, 0, 0, 0, 2, 0][..], &[10, 0, 2, 0, 2, 0, 0, 0, 0, 9, 0, 0]];
        assert_eq!(question(5, [2, 0, 0, 0, 0, 9]), expected.concat());
    }
}
