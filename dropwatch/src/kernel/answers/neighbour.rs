//! What is known of a next hop: `RTM_GETNEIGH` for one (`neigh_get`, net/core/neighbour.c, Linux 5.0).

use super::{ask_kernel, octets};
use crate::{
    kernel::netlink::{Netlink, add_attribute},
    report::question::{Neighbour, NextHop, Unanswered},
};

/// include/uapi/linux/rtnetlink.h
const RTM_GETNEIGH: u16 = 30;
/// Bytes of `struct ndmsg` (include/uapi/linux/neighbour.h): family and three of padding, 32 bits of
/// device index, 16 of state, then flags and type.
const NDMSG: usize = 12;
const STATE: usize = 8;
/// `NDA_DST`
const DST: u16 = 1;

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
    let mut message = vec![family, 0, 0, 0];
    message.extend(hop.device.to_ne_bytes());
    message.resize(NDMSG, 0);
    add_attribute(&mut message, DST, &address);
    message
}

/// What a `RTM_NEWNEIGH` says: one `NUD_*` of include/uapi/linux/neighbour.h.
fn answer(message: &[u8]) -> Option<Neighbour> {
    let (header, _) = message.split_at_checked(NDMSG)?;
    let state = header.get(STATE..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))?;
    match state {
        0x00 => Some(Neighbour::Unknown),
        0x01 => Some(Neighbour::Awaited),
        0x02 | 0x40 | 0x80 => Some(Neighbour::Answers), // reachable, no ARP, permanent
        0x04 | 0x08 | 0x10 => Some(Neighbour::Answered), // stale, delay, probe
        0x20 => Some(Neighbour::Failed),
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
        assert_eq!(of_state(0x01), Some(Neighbour::Awaited));
        assert_eq!(of_state(0x02), Some(Neighbour::Answers));
        assert_eq!(of_state(0x80), Some(Neighbour::Answers));
        assert_eq!(of_state(0x04), Some(Neighbour::Answered));
        assert_eq!(of_state(0x20), Some(Neighbour::Failed));
        assert_eq!(of_state(0x22), None, "two at once");
        assert_eq!(answer(&[2; NDMSG - 1]), None, "cut off");
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = answer(&bytes);
        }
    }
}
