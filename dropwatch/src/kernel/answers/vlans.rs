//! The VLANs of a bridge's port, where the bridge filters by them: `RTM_GETLINK` of the family `AF_BRIDGE`
//! (`rtnl_bridge_getlink`, net/core/rtnetlink.c; `br_fill_ifvlaninfo_range`, net/bridge/br_netlink.c).

use libc::{IFLA_EXT_MASK, IFLA_LINKINFO, RTM_GETLINK};
use netlink_packet_core::Emitable as _;
use netlink_packet_route::{
    AddressFamily,
    link::{LinkHeader, LinkMessageBuffer},
};

use super::device;
use crate::{
    kernel::netlink::{Netlink, NetlinkError, add_attribute, attributes},
    report::{device::PortVlans, question::Unanswered},
};

/// Before the attributes, `struct ifinfomsg`.
const HEADER: usize = size_of::<LinkMessageBuffer>();
/// Attributes of a link and of a bridge (include/uapi/linux/if_link.h, if_bridge.h).
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BR_VLAN_FILTERING: u16 = 7;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
/// `RTEXT_FILTER_BRVLAN_COMPRESSED`: VLANs, neighbouring ones as a range.
const WITH_VLANS: u32 = 1 << 2;
/// `BRIDGE_VLAN_INFO_*`.
const PVID: u16 = 1 << 1;
const RANGE_BEGIN: u16 = 1 << 3;
const RANGE_END: u16 = 1 << 4;

/// The VLANs of the port with this index; `None` where its bridge looks at none.
pub(super) fn ask(netlink: &mut Netlink, port: u32) -> Result<Option<PortVlans>, Unanswered> {
    let bridge = device::bridge_of(netlink, port)?.ok_or(Unanswered::Failed)?;
    if !filters(&device::get(netlink, bridge, None)?) {
        return Ok(None);
    }
    let mut found = None;
    let asked = netlink.ask_all(RTM_GETLINK, &question(), |message| {
        if LinkHeader::parse(message).is_ok_and(|header| header.index == port) {
            found = Some(vlans(message));
        }
    });
    asked.map_err(|error| match error {
        NetlinkError::Io(error) => super::unanswered(&error),
        NetlinkError::Malformed => Unanswered::Failed,
    })?;
    // Without any VLAN there is no list.
    Ok(Some(found.unwrap_or_default()))
}

fn question() -> Vec<u8> {
    let header = LinkHeader { interface_family: AddressFamily::Bridge, ..LinkHeader::default() };
    let mut message = vec![0; HEADER];
    header.emit(&mut message);
    add_attribute(&mut message, IFLA_EXT_MASK, &WITH_VLANS.to_ne_bytes());
    message
}

/// Whether a bridge's own `RTM_NEWLINK` says that it filters.
fn filters(message: &[u8]) -> bool {
    let inside = |bytes, kind| attributes(bytes).find(|(it, _)| *it == kind).map(|(_, it)| it);
    let data = message.get(HEADER..).and_then(|all| inside(all, IFLA_LINKINFO));
    let data = data.and_then(|info| inside(info, IFLA_INFO_DATA));
    data.and_then(|data| inside(data, IFLA_BR_VLAN_FILTERING)).is_some_and(|value| value != [0])
}

/// The VLANs that one `RTM_NEWLINK` of a bridge's port lists.
fn vlans(message: &[u8]) -> PortVlans {
    let mut vlans = PortVlans::default();
    let all = attributes(message.get(HEADER..).unwrap_or_default());
    let mut first = None;
    for (_, spec) in all.filter(|(kind, _)| *kind == IFLA_AF_SPEC) {
        for (_, value) in attributes(spec).filter(|(kind, _)| *kind == IFLA_BRIDGE_VLAN_INFO) {
            let &[a, b, c, d] = value else { continue };
            let (flags, vlan) = (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]));
            if flags & PVID != 0 {
                vlans.native = Some(vlan);
            }
            if flags & RANGE_BEGIN != 0 {
                first = Some(vlan);
                continue;
            }
            let begin = if flags & RANGE_END != 0 { first.take() } else { None };
            vlans.ranges.push((begin.unwrap_or(vlan), vlan));
        }
    }
    vlans
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::netlink::fixture::attribute;

    fn listed(vlans: &[(u16, u16)]) -> Vec<u8> {
        let each = vlans.iter().flat_map(|(flags, vlan)| {
            let value = [flags.to_ne_bytes(), vlan.to_ne_bytes()].concat();
            attribute(IFLA_BRIDGE_VLAN_INFO, &value)
        });
        let spec: Vec<u8> = each.collect();
        [vec![0; HEADER], attribute(IFLA_AF_SPEC, &spec)].concat()
    }

    #[test]
    fn vlans_are_read_with_their_ranges() {
        let all = vlans(&listed(&[(PVID | 4, 1), (RANGE_BEGIN, 10), (RANGE_END, 20), (0, 30)]));
        assert_eq!(all, PortVlans { native: Some(1), ranges: vec![(1, 1), (10, 20), (30, 30)] });
        assert!(all.has(15) && all.has(30) && !all.has(21));
        assert_eq!(vlans(&[0; HEADER]), PortVlans::default());
    }

    #[test]
    fn a_bridge_says_whether_it_filters() {
        let says = |on: u8| {
            let data = attribute(IFLA_BR_VLAN_FILTERING, &[on]);
            let info = attribute(IFLA_LINKINFO, &attribute(IFLA_INFO_DATA, &data));
            filters(&[vec![0; HEADER], info].concat())
        };
        assert!(says(1) && !says(0) && !filters(&[0; HEADER]));
    }

    proptest! {
        #[test]
        fn no_message_panics(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = vlans(&bytes);
            let _ = filters(&bytes);
        }
    }
}
