//! A client and a server, with or without something between them.
//!
//! What is sent is handled in the order of sending: all of it stays on one CPU, whose backlog is a
//! queue. So when a token that is sent last arrives, everything before it has been delivered or
//! dropped.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::sched::sched_getcpu;

use super::{PORT, SOURCE_PORT};
use crate::{
    flood::{PacketSocket, pin},
    link,
    machine::longer,
    netns::Netns,
    socket::set_int,
};

/// Addresses set aside for benchmarks (RFC 2544, RFC 5180), so that none can be somebody's.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 2);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 2);
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 2);
pub const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1);
/// The router's, towards the client and towards the server.
const NEAR: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 1);

/// The link of the client and of the server.
pub const LINK: &str = "eth0";
/// The links of what is between them, towards the client and towards the server.
pub const CLIENT_SIDE: &str = "port0";
pub const SERVER_SIDE: &str = "port1";

/// Locally administered addresses (IEEE 802).
pub(super) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(super) const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Port of the server at which tokens arrive.
const INBOX: u16 = 7000;
/// Far more than a datagram between two namespaces takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// The namespaces, linked and able to reach each other.
#[derive(Debug)]
pub struct Network {
    client: Netns,
    between: Option<Netns>,
    server: Netns,
    inbox: UdpSocket,
    /// Sockets at [`PORT`], which take what reaches it; nobody reads them.
    readers: Mutex<Vec<UdpSocket>>,
    /// Tokens sent so far: each is another number.
    tokens: AtomicU64,
}

impl Network {
    /// The client's link leads to the server.
    ///
    /// # Errors
    /// Without root or `ip`, and when interrupted; so for all kinds of networks.
    pub fn direct() -> Result<Self> {
        let (client, server) = (Netns::new("client")?, Netns::new("server")?);
        link::veth(&client, LINK, &server, LINK)?;
        join(&client, CLIENT, 16, CLIENT_MAC)?;
        join(&server, SERVER, 16, SERVER_MAC)?;
        Self::open(client, None, server)
    }

    /// A router is between them.
    pub fn routed() -> Result<Self> {
        let (client, router, server) =
            (Netns::new("client")?, Netns::new("router")?, Netns::new("server")?);
        link::veth(&client, LINK, &router, CLIENT_SIDE)?;
        link::veth(&server, LINK, &router, SERVER_SIDE)?;
        router.sysctl("net/ipv4/ip_forward", "1")?;
        for (link, address) in [(CLIENT_SIDE, NEAR), (SERVER_SIDE, FAR)] {
            router.ip(&format!("address add {address}/24 dev {link}"))?;
            router.ip(&format!("link set {link} up"))?;
        }
        join(&client, CLIENT, 24, CLIENT_MAC)?;
        join(&server, SERVER, 24, SERVER_MAC)?;
        client.ip(&format!("route add default via {NEAR}"))?;
        server.ip(&format!("route add default via {FAR}"))?;
        Self::open(client, Some(router), server)
    }

    /// A bridge is between them.
    pub fn bridged() -> Result<Self> {
        let (client, bridge, server) =
            (Netns::new("client")?, Netns::new("bridge")?, Netns::new("server")?);
        link::veth(&client, LINK, &bridge, CLIENT_SIDE)?;
        link::veth(&server, LINK, &bridge, SERVER_SIDE)?;
        bridge.ip("link add br0 type bridge")?;
        for port in [CLIENT_SIDE, SERVER_SIDE] {
            bridge.ip(&format!("link set {port} master br0"))?;
            bridge.ip(&format!("link set {port} up"))?;
        }
        bridge.ip("link set br0 up")?;
        join(&client, CLIENT, 16, CLIENT_MAC)?;
        join(&server, SERVER, 16, SERVER_MAC)?;
        Self::open(client, Some(bridge), server)
    }

    /// Waits until the two reach each other; that resolves their neighbours as well, which drops
    /// nothing later on.
    fn open(client: Netns, between: Option<Netns>, server: Netns) -> Result<Self> {
        let inbox = server.enter(|| bind((SERVER, INBOX).into()))?;
        let readers = Mutex::default();
        let network = Self { client, between, server, inbox, readers, tokens: AtomicU64::new(0) };
        network.client.enter(|| network.settle())?;
        Ok(network)
    }

    pub fn client(&self) -> &Netns {
        &self.client
    }

    pub fn server(&self) -> &Netns {
        &self.server
    }

    /// The router or bridge; the server where there is none.
    pub fn between(&self) -> &Netns {
        self.between.as_ref().unwrap_or(&self.server)
    }

    /// Gives both ends IPv6 addresses, with which nothing but the tests' own packets is sent.
    pub(super) fn enable_ipv6(&self) -> Result<()> {
        for (netns, address) in [(&self.client, CLIENT6), (&self.server, SERVER6)] {
            // 1: no link-local address, so nobody asks for routers (IN6_ADDR_GEN_MODE_NONE).
            netns.sysctl(&format!("net/ipv6/conf/{LINK}/addr_gen_mode"), "1")?;
            netns.sysctl(&format!("net/ipv6/conf/{LINK}/disable_ipv6"), "0")?;
            netns.ip(&format!("address add {address}/64 dev {LINK} nodad"))?;
        }
        let inbox = self.server.enter(|| bind((SERVER6, INBOX).into()))?;
        self.client.enter(|| self.pass_token(&inbox, SERVER6.into()))
    }

    /// From now on somebody listens at [`PORT`] of the server's `address`, so that what reaches it is not
    /// refused.
    pub(super) fn listen(&self, address: impl Into<IpAddr>) -> Result<()> {
        let address = (address.into(), PORT).into();
        let reader = self.server.enter(|| bind(address))?;
        // As much as all datagrams of a test take (SO_RCVBUFFORCE, socket(7)).
        set_int(&reader, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 4 << 20)?;
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        Ok(())
    }

    /// A socket of the client's, at [`SOURCE_PORT`]. It is not connected: the ICMP errors that come
    /// back would fail its next send.
    pub(super) fn source(&self, from: impl Into<IpAddr>) -> Result<UdpSocket> {
        let address = (from.into(), SOURCE_PORT).into();
        self.client.enter(|| bind(address))
    }

    /// Sends datagrams from `source` to `to`, and waits until all are handled.
    pub(super) fn datagrams(
        &self,
        source: &UdpSocket,
        to: impl Into<SocketAddr>,
        packets: u64,
    ) -> Result<u64> {
        self.datagrams_of(b"dropped", source, to, packets)
    }

    /// Sends datagrams with `payload` from `source` to `to`, and waits until all are handled.
    pub(super) fn datagrams_of(
        &self,
        payload: &[u8],
        source: &UdpSocket,
        to: impl Into<SocketAddr>,
        packets: u64,
    ) -> Result<u64> {
        let to = to.into();
        self.client.enter(|| {
            pin(sched_getcpu()?)?;
            for packet in 0..packets {
                source.send_to(payload, to).with_context(|| {
                    format!("cannot send datagram {packet} of {packets} to {to}")
                })?;
            }
            self.settle()?;
            Ok(packets)
        })
    }

    /// Sends one frame many times from the client's link, and waits until all are handled.
    pub(super) fn frames(&self, mut frame: Vec<u8>, frames: u64) -> Result<u64> {
        self.client.enter(|| {
            pin(sched_getcpu()?)?;
            let sent = PacketSocket::open(LINK)?.send(&mut frame, frames)?;
            self.settle()?;
            Ok(sent.accepted)
        })
    }

    /// Waits until the network has handled what this thread, of the client's, has sent so far.
    fn settle(&self) -> Result<()> {
        self.pass_token(&self.inbox, SERVER.into())
    }

    fn pass_token(&self, inbox: &UdpSocket, server: IpAddr) -> Result<()> {
        let patience = longer(PATIENCE);
        let token = self.tokens.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let unspecified: IpAddr = match server {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = bind((unspecified, 0).into())?;
        socket.send_to(&token, (server, INBOX)).context("cannot send a token")?;
        let deadline = Instant::now() + patience;
        let mut received = [0; 16];
        while let left = deadline.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            inbox.set_read_timeout(Some(left))?;
            match inbox.recv(&mut received) {
                Ok(length) if received[..length] == token => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("cannot receive a token"),
            }
        }
        bail!("nothing gets from the client to the server: no token after {patience:?}")
    }
}

/// Gives the only link of an end its addresses, and brings it up.
fn join(netns: &Netns, address: Ipv4Addr, prefix: u8, mac: [u8; 6]) -> Result<()> {
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    netns.ip(&format!("address add {address}/{prefix} dev {LINK}"))?;
    netns.ip(&format!("link set {LINK} address {mac} up")).map(drop)
}

fn bind(address: SocketAddr) -> Result<UdpSocket> {
    UdpSocket::bind(address).with_context(|| format!("cannot bind to {address}"))
}
