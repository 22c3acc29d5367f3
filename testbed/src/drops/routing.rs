//! Packets that no route serves.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    Cause, PORT, SOURCE_PORT,
    frame::Frame,
    link_layer::datagram,
    network::{CLIENT, LINK, Network, SERVER, SERVER_SIDE},
};
use crate::{machine::longer, netns::Netns, socket::set_int};

/// Somewhere behind the server, set aside for documentation (RFC 5737).
pub const BEYOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

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

    /// The way back to the address leads out of another link.
    ///
    /// # Errors
    /// As [`Network::direct`].
    pub fn asymmetric() -> Result<Self> {
        let this = Self::new()?;
        let server = this.0.server();
        server.ip("link add other0 type veth peer name other1")?;
        server.ip("link set other0 up")?;
        server.ip("link set other1 up")?;
        server.ip(&format!("route add {}/32 dev other0", Self::SOURCE))?;
        this.0.listen(SERVER)?;
        Ok(this)
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
    /// # Errors
    /// As [`Network::direct`].
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        network.client().ip(&format!("route add {}/32 via {SERVER}", BEYOND))?;
        network.server().sysctl("net/ipv4/ip_forward", "0")?;
        Ok(Self(network))
    }

    /// The server gets a route, out of another link.
    ///
    /// # Errors
    /// When it cannot.
    pub fn add(&self) -> Result<()> {
        let server = self.0.server();
        server.ip("link add other0 type veth peer name other1")?;
        server.ip("link set other0 up")?;
        server.ip("link set other1 up")?;
        server.ip(&format!("neigh add {BEYOND} lladdr 02:00:00:00:00:09 dev other0"))?;
        server.ip(&format!("route add {BEYOND}/32 dev other0")).map(drop)
    }
}

impl Cause for NoRouter {
    fn netns(&self) -> &Netns {
        self.0.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        self.0.datagrams(&self.0.source(CLIENT)?, (BEYOND, PORT), packets)
    }
}

/// A router that has no route to where packets are for.
#[derive(Debug)]
pub struct NoRoute(Network);

impl NoRoute {
    /// # Errors
    /// As [`Network::routed`].
    pub fn new() -> Result<Self> {
        let network = Network::routed()?;
        network.listen(Ipv4Addr::UNSPECIFIED)?;
        // Unused until the router knows that the server has it.
        network.server().ip(&format!("address add {BEYOND}/32 dev lo"))?;
        Ok(Self(network))
    }

    /// The router gets the route.
    ///
    /// # Errors
    /// When it cannot.
    pub fn add(&self) -> Result<()> {
        self.0.between().ip(&format!("route add {BEYOND}/32 via {SERVER}")).map(drop)
    }
}

impl Cause for NoRoute {
    fn netns(&self) -> &Netns {
        self.0.between()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        self.0.datagrams(&self.0.source(CLIENT)?, (BEYOND, PORT), packets)
    }
}

/// A router whose better route to [`BEYOND`] leads out of a device without carrier.
#[derive(Debug)]
pub struct BetterRoute(Network);

impl BetterRoute {
    /// The device: nobody has it open.
    const DEVICE: &str = "usb0";
    /// Who is to be behind it.
    const NEXT: &str = "198.18.5.2";

    /// # Errors
    /// As [`Network::routed`], and without taps.
    pub fn new() -> Result<Self> {
        let network = Network::routed()?;
        network.server().ip(&format!("address add {BEYOND}/32 dev lo"))?;
        network.listen(Ipv4Addr::UNSPECIFIED)?;
        let (router, device, next) = (network.between(), Self::DEVICE, Self::NEXT);
        router.ip(&format!("tuntap add dev {device} mode tap"))?;
        router.ip(&format!("address add 198.18.5.1/24 dev {device}"))?;
        router.ip(&format!("link set {device} up"))?;
        let mac = "02:00:00:00:00:20";
        router.ip(&format!("neigh replace {next} lladdr {mac} dev {device} nud permanent"))?;
        router.ip(&format!("route add {BEYOND}/32 via {next} dev {device} metric 100"))?;
        router.ip(&format!("route add {BEYOND}/32 via {SERVER} metric 400"))?;
        Ok(Self(network))
    }
}

impl Cause for BetterRoute {
    fn netns(&self) -> &Netns {
        self.0.between()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        self.0.datagrams(&self.0.source(CLIENT)?, (BEYOND, PORT), packets)
    }
}

/// A router and a server that each take the other for the way to [`BEYOND`].
#[derive(Debug)]
pub struct Loop(Network);

impl Loop {
    /// # Errors
    /// As [`Network::routed`].
    pub fn new() -> Result<Self> {
        let network = Network::routed()?;
        let (router, server) = (network.between(), network.server());
        router.ip(&format!("route add {BEYOND}/32 via {SERVER}"))?;
        // They come back by another link than the one to their source.
        for name in ["all", SERVER_SIDE] {
            router.sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "0")?;
        }
        server.sysctl("net/ipv4/ip_forward", "1")?;
        network.listen(Ipv4Addr::UNSPECIFIED)?;
        Ok(Self(network))
    }

    /// The server has the address after all.
    pub fn end(&self) -> Result<()> {
        self.0.server().ip(&format!("address add {BEYOND}/32 dev lo")).map(drop)
    }
}

impl Cause for Loop {
    fn netns(&self) -> &Netns {
        self.0.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        let sent = self.0.datagrams(&self.0.source(CLIENT)?, (BEYOND, PORT), packets)?;
        // The token behind them goes no round.
        thread::sleep(longer(Duration::from_millis(200)));
        Ok(sent)
    }
}

/// A router whose link to the server takes less than the one to the client, and a sender that
/// forbids to cut its datagrams and does not learn how large they may be.
#[derive(Debug)]
pub struct NarrowLink(Network);

impl NarrowLink {
    /// The smallest that IPv6 would allow; links of a pair have 1,500.
    const MTU: u32 = 1_280;
    const PAYLOAD: [u8; 1_400] = [0; 1_400];

    /// # Errors
    /// As [`Network::routed`].
    pub fn new() -> Result<Self> {
        let network = Network::routed()?;
        network.between().ip(&format!("link set {SERVER_SIDE} mtu {}", Self::MTU))?;
        network.listen(SERVER)?;
        Ok(Self(network))
    }
}

impl Cause for NarrowLink {
    fn netns(&self) -> &Netns {
        self.0.between()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        let source = self.0.source(CLIENT)?;
        never_cut(&source)?;
        self.0.datagrams_of(&Self::PAYLOAD, &source, (SERVER, PORT), packets)
    }
}

/// Datagrams of `socket` may not be cut, whatever is known of the path (ip(7), `IP_MTU_DISCOVER`).
fn never_cut(socket: &impl AsRawFd) -> Result<()> {
    set_int(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
        .context("cannot forbid fragments")
}

/// A server that gets packets from its own address, over the wire.
#[derive(Debug)]
pub struct OwnAddress(Network);

impl OwnAddress {
    /// # Errors
    /// As [`Network::direct`].
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        network.listen(SERVER)?;
        Ok(Self(network))
    }
}

impl Cause for OwnAddress {
    fn netns(&self) -> &Netns {
        self.0.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        let from = SocketAddrV4::new(SERVER, SOURCE_PORT);
        self.0.frames(Frame { from, ..datagram() }.bytes(), packets)
    }
}
