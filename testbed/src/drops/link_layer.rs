//! Frames that a link or a bridge has no use for.

use std::net::SocketAddrV4;

use anyhow::Result;

use super::{
    Cause, PORT, SOURCE_PORT,
    frame::Frame,
    network::{CLIENT, CLIENT_MAC, LINK, Network, SERVER, SERVER_MAC},
};
use crate::netns::Netns;

/// The VLAN of tagged frames.
pub const VLAN: u16 = 7;

const FROM: SocketAddrV4 = SocketAddrV4::new(CLIENT, SOURCE_PORT);
const TO: SocketAddrV4 = SocketAddrV4::new(SERVER, PORT);

/// A datagram of [`VLAN`] from the client to [`PORT`] of the server.
pub(super) fn tagged() -> Frame {
    Frame { vlan: Some(VLAN), ..datagram() }
}

/// A datagram from the client to [`PORT`] of the server.
pub(super) fn datagram() -> Frame {
    Frame { source: CLIENT_MAC, destination: SERVER_MAC, vlan: None, from: FROM, to: TO }
}

/// Whether the kernel has links for VLANs, which is found out by making one.
///
/// # Errors
/// As [`Netns::new`], and without veth pairs.
pub fn has_vlan_links() -> Result<bool> {
    let netns = Netns::new("vlan")?;
    netns.ip("link add wire0 type veth peer name wire1")?;
    Ok(netns.ip("link add link wire0 name vlan1 type vlan id 1").is_ok())
}

/// A server that gets frames with a VLAN tag.
#[derive(Debug)]
pub struct Tagged(Network);

impl Tagged {
    /// The server's link for [`VLAN`], where it has one.
    pub const LINK: &str = "vlan7";

    /// The server knows nothing of the VLAN. The kernel takes the tag off and then treats the
    /// packet as another host's (`__netif_receive_skb_core`, net/core/dev.c), also where it is
    /// built without VLANs.
    ///
    /// # Errors
    /// As [`Network::direct`].
    pub fn of_strange_vlan() -> Result<Self> {
        Ok(Self(Network::direct()?))
    }

    /// The server has a link for the VLAN, and a closed UDP port.
    ///
    /// # Errors
    /// As [`Network::direct`], and where the kernel has no VLAN links.
    pub fn to_closed_port() -> Result<Self> {
        let network = Network::direct()?;
        let server = network.server();
        let link = Self::LINK;
        server.ip(&format!("link add link {LINK} name {link} type vlan id {VLAN}"))?;
        server.ip(&format!("link set {link} up"))?;
        // The way back to the client is by another link.
        for name in ["all", link] {
            server.sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "0")?;
        }
        Ok(Self(network))
    }
}

impl Cause for Tagged {
    fn netns(&self) -> &Netns {
        self.0.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        self.0.frames(tagged().bytes(), packets)
    }
}

/// A bridge that gets frames from a group address, which no station can have
/// (`br_handle_frame`, net/bridge/br_input.c).
#[derive(Debug)]
pub struct GroupSource(Network);

impl GroupSource {
    /// # Errors
    /// As [`Network::bridged`].
    pub fn new() -> Result<Self> {
        Ok(Self(Network::bridged()?))
    }
}

impl Cause for GroupSource {
    fn netns(&self) -> &Netns {
        self.0.between()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        // The lowest bit of the first byte marks a group (IEEE 802).
        let (source, destination) = ([3, 0, 0, 0, 0, 2], SERVER_MAC);
        let frame = Frame { source, destination, vlan: None, from: FROM, to: TO };
        self.0.frames(frame.bytes(), packets)
    }
}
