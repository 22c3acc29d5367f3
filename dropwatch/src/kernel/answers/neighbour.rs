//! What is known of a next hop: `RTM_GETNEIGH` for one (`neigh_get`, net/core/neighbour.c, Linux 5.0).

use libc::{NDA_DST, RTM_GETNEIGH};
use netlink_packet_core::Emitable as _;
use netlink_packet_route::neighbour::{NeighbourHeader, NeighbourMessageBuffer, NeighbourState};

use super::{ask_kernel, octets};
use crate::{
    kernel::netlink::{Netlink, add_attribute},
    report::question::{Neighbour, NextHop, Unanswered},
};

/// Before the attributes, `struct ndmsg`.
const HEADER: usize = size_of::<NeighbourMessageBuffer>();

pub(super) fn ask(netlink: &mut Netlink, hop: &NextHop) -> Result<Neighbour, Unanswered> {
    match ask_kernel(netlink, RTM_GETNEIGH, &question(hop))? {
        Ok(message) => answer(&message).ok_or(Unanswered::Failed),
        Err(libc::ENOENT) => Ok(Neighbour::Unknown),
        Err(libc::EPERM) => Err(Unanswered::NotPermitted),
        Err(_) => Err(Unanswered::Failed),
    }
}

fn question(hop: &NextHop) -> Vec<u8> {
    let (family, address) = octets(hop.address);
    let header = NeighbourHeader { family, ifindex: hop.device, ..NeighbourHeader::default() };
    let mut message = vec![0; HEADER];
    header.emit(&mut message);
    add_attribute(&mut message, NDA_DST, &address);
    message
}

/// What a `RTM_NEWNEIGH` says: one state of a neighbour, `NUD_*`.
fn answer(message: &[u8]) -> Option<Neighbour> {
    match NeighbourHeader::parse(message).ok()?.state {
        NeighbourState::None => Some(Neighbour::Unknown),
        NeighbourState::Incomplete => Some(Neighbour::Awaited),
        NeighbourState::Reachable | NeighbourState::Noarp | NeighbourState::Permanent => {
            Some(Neighbour::Answers)
        }
        NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe => {
            Some(Neighbour::Answered)
        }
        NeighbourState::Failed => Some(Neighbour::Failed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_question_names_address_and_device() {
        let hop = NextHop { address: [198, 18, 2, 2].into(), device: 5 };
        let expected = [2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 8, 0, 1, 0, 198, 18, 2, 2];
        assert_eq!(question(&hop), expected);
    }

    #[test]
    fn every_state_means_something() {
        let of_state = |state: u16| {
            let mut message = vec![2, 0, 0, 0, 5, 0, 0, 0];
            message.extend(state.to_ne_bytes());
            message.extend([0, 1]);
            answer(&message)
        };
        assert_eq!(of_state(0x00), Some(Neighbour::Unknown));
        assert_eq!(of_state(0x01), Some(Neighbour::Awaited));
        assert_eq!(of_state(0x02), Some(Neighbour::Answers));
        assert_eq!(of_state(0x40), Some(Neighbour::Answers));
        assert_eq!(of_state(0x80), Some(Neighbour::Answers));
        assert_eq!(of_state(0x04), Some(Neighbour::Answered));
        assert_eq!(of_state(0x08), Some(Neighbour::Answered));
        assert_eq!(of_state(0x10), Some(Neighbour::Answered));
        assert_eq!(of_state(0x20), Some(Neighbour::Failed));
        assert_eq!(of_state(0x22), None, "two at once");
        assert_eq!(answer(&[2; HEADER - 1]), None, "cut off");
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = answer(&bytes);
        }
    }
}
