//! Datagrams to another station's address, which a link hands up all the same, as while somebody
//! captures. They die where IP begins (`ip_rcv_core`; OTHERHOST, where the kernel has reasons for IP).

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;

use super::frame::Frame;
use crate::flood::{SOURCE, Sent, Wire};

/// Nobody on the wire has it.
const STATION: [u8; 6] = [0x02, 0, 0, 0, 0, 0xee];
/// Of the network for benchmarks (RFC 2544).
pub const FROM: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 7, 1), 40_000);
pub const TO: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 7, 2), 9);

/// As [`Wire::flood`], of such datagrams.
///
/// # Errors
/// As [`Wire::flood`].
pub fn flood(wire: &Wire, frames: u64, cpu: Option<usize>) -> Result<Sent> {
    let frame = Frame { source: SOURCE, destination: STATION, vlan: None, from: FROM, to: TO };
    wire.flood_of(&mut frame.bytes(), frames, cpu)
}
