//! Packets that no route serves.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::{
    Cause, PORT,
    network::{CLIENT, LINK, Network, SERVER},
};
use crate::netns::Netns;

/// A server that checks whether an answer would leave by the link that the packet came by
/// (`rp_filter`, strict), and gets packets from an address to which it has no route.
#[derive(Debug)]
pub struct ReversePath(Network);

impl ReversePath {
    /// The address without a way back.
    pub const SOURCE: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 9);

    /// # Errors
    /// As [`Network::direct`].
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        network.client().ip(&format!("address add {}/32 dev lo", Self::SOURCE))?;
        network.server().sysctl(&format!("net/ipv4/conf/{LINK}/rp_filter"), "1")?;
        Ok(Self(network))
    }
}

impl Cause for ReversePath {
    fn netns(&self) -> &Netns {
        self.0.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        self.0.datagrams(&self.0.source(Self::SOURCE)?, (SERVER, PORT), packets)
    }
}

/// A router that gets packets on their last hop, as in a routing loop.
#[derive(Debug)]
pub struct TimeToLive(Network);

impl TimeToLive {
    /// # Errors
    /// As [`Network::routed`].
    pub fn new() -> Result<Self> {
        Ok(Self(Network::routed()?))
    }
}

impl Cause for TimeToLive {
    fn netns(&self) -> &Netns {
        self.0.between()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        let source = self.0.source(CLIENT)?;
        source.set_ttl(1)?;
        self.0.datagrams(&source, (SERVER, PORT), packets)
    }
}

/// A server that others take for a router, and that does not forward.
#[derive(Debug)]
pub struct NoRouter(Network);

impl NoRouter {
    /// Somewhere behind the server, set aside for documentation (RFC 5737).
    pub const BEYOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

    /// # Errors
    /// As [`Network::direct`].
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        network.client().ip(&format!("route add {}/32 via {SERVER}", Self::BEYOND))?;
        network.server().sysctl("net/ipv4/ip_forward", "0")?;
        Ok(Self(network))
    }
}

impl Cause for NoRouter {
    fn netns(&self) -> &Netns {
        self.0.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        self.0.datagrams(&self.0.source(CLIENT)?, (Self::BEYOND, PORT), packets)
    }
}
