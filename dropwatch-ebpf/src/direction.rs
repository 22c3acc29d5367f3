//! Whether a packet came in by a device, or this host made it.
//!
//! No field of a packet says so. These do, in this order (Linux 5.8 to 7.2):
//!
//! - `skb_iif` is set where the stack takes a packet from a device (`__netif_receive_skb_core`,
//!   net/core/dev.c), stays when it is forwarded, and is zero in one that was made here. Tunnels and the
//!   ends of a veth pair set it back (`skb_scrub_packet`, net/core/skbuff.c).
//! - `PACKET_OUTGOING` is on the copies alone that packet sockets get of what is sent
//!   (`dev_queue_xmit_nit`, net/core/dev.c).
//! - A driver that hands a packet over looks at its link-layer header and steps behind it
//!   (`eth_type_trans`, net/ethernet/eth.c): `data` is then above `mac_header`, and `pkt_type` may be
//!   that of a broadcast, a multicast or another station's. What is sent has `data` at that header or
//!   below, since it is set where the device's queue begins (`__dev_queue_xmit`), or has none yet.
//! - What a socket of IP, or a packet socket, sends has that socket in `sk`. So has, on its way into
//!   another namespace, what came out of the other end of a veth pair, up to IP (`ip_rcv_core`): there
//!   the device is of another namespace than the socket.
//!
//! Packets that none of this is true of stay unknown: those that the host makes without a socket (ARP,
//! IGMP, what tunnels put around a packet that they forward), and those that a driver has taken from
//! their socket before it drops them.

use aya_ebpf::programs::RawTracePointContext;
use dropwatch_common::{NO_NETNS, filter::direction};

use crate::{
    fields::{Fields, UNSET, opaque},
    netns::{Place, inum_of_socket},
};

/// `pkt_type` (include/uapi/linux/if_packet.h).
const BROADCAST: u8 = 1;
pub const OTHERHOST: u8 = 3;
const OUTGOING: u8 = 4;
/// Its bits.
pub const PKT_TYPE: u8 = 7;
/// Address families whose sockets send packets (include/linux/socket.h).
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const AF_PACKET: u16 = 17;

/// One of [`direction`]. Namespaces have to be [learnt](crate::netns::learn) before.
#[inline(always)]
pub fn of<F: Fields>(ctx: &RawTracePointContext) -> u32 {
    let skb = ctx.arg(0);
    if F::skb_iif(skb) != 0 {
        return opaque(direction::IN);
    }
    match F::skb_pkt_type(skb) & PKT_TYPE {
        OUTGOING => return opaque(direction::OUT),
        BROADCAST..=OTHERHOST => return opaque(direction::IN),
        _ => {}
    }
    let mac = F::skb_mac_header(skb);
    let data = F::skb_data(skb).wrapping_sub(F::skb_head(skb));
    if mac != UNSET && data > u64::from(mac) {
        return opaque(direction::IN);
    }
    let socket = F::skb_sk(skb);
    if socket == 0 || !matches!(F::sock_family(socket), AF_INET | AF_INET6 | AF_PACKET) {
        return opaque(direction::UNKNOWN);
    }
    let netns = inum_of_socket::<F>(socket);
    let device = Place::of::<F>(ctx).device_netns;
    // A packet that has no device yet is nowhere else.
    let is_elsewhere = device != NO_NETNS && device != netns;
    opaque(if netns == NO_NETNS || is_elsewhere { direction::UNKNOWN } else { direction::OUT })
}
