//! A client and a server at the two ends of a pair, of which one end is not as the other.

use std::{
    net::UdpSocket,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    Cause, PORT,
    network::{CLIENT, LINK, Network, SERVER, SERVER_MAC},
};
use crate::{machine::longer, netns::Netns, socket::set_int};

/// A client that sends to a server, which has a socket for it.
#[derive(Debug)]
pub struct Pair {
    network: Network,
    source: UdpSocket,
    _inbox: UdpSocket,
    /// Bytes of each datagram.
    payload: usize,
    /// What is sent may wait for so long until it is dropped.
    wait: Duration,
}

impl Pair {
    /// What the narrow end takes, as in the networks of some containers.
    pub const NARROW: u32 = 1_402;

    /// Both ends are up and take the same.
    ///
    /// # Errors
    /// As [`Network::direct`].
    pub fn healthy() -> Result<Self> {
        let network = Network::direct()?;
        let source = network.source(CLIENT)?;
        // Larger datagrams than the link takes are cut, not refused (ip(7)).
        set_int(&source, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?;
        let inbox = network
            .server()
            .enter(|| UdpSocket::bind((SERVER, PORT)).context("cannot bind the server's socket"))?;
        // As much as all datagrams of a test take: nobody reads them.
        set_int(&inbox, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 4 << 20)?;
        Ok(Self { network, source, _inbox: inbox, payload: 1_400, wait: Duration::ZERO })
    }

    /// The server's end is switched off, so the client's has no carrier; the client need not ask for the
    /// server's link-layer address.
    ///
    /// # Errors
    /// As [`Network::direct`].
    pub fn without_carrier() -> Result<Self> {
        let this = Self::healthy()?;
        this.switch_off()?;
        let mac = SERVER_MAC.map(|byte| format!("{byte:02x}")).join(":");
        let neighbour = format!("neigh replace {SERVER} lladdr {mac} dev {LINK} nud permanent");
        this.network.client().ip(&neighbour)?;
        Ok(this)
    }

    /// As [`Pair::without_carrier`], but the client asks, and nobody hears it.
    ///
    /// # Errors
    /// As [`Network::direct`].
    pub fn unheard() -> Result<Self> {
        let this = Self { wait: Duration::from_millis(1_500), ..Self::healthy()? };
        this.network.client().sysctl(&format!("net/ipv4/neigh/{LINK}/retrans_time_ms"), "300")?;
        this.switch_off()?;
        Ok(this)
    }

    /// Switches the server's end off, and waits until the client's has lost its queue: the kernel takes
    /// up to a second for that (net/core/link_watch.c).
    fn switch_off(&self) -> Result<()> {
        self.network.server().ip(&format!("link set {LINK} down"))?;
        let deadline = Instant::now() + longer(Duration::from_secs(10));
        let shown = || self.network.client().ip(&format!("link show dev {LINK}"));
        while shown()?.contains("state UP") {
            ensure!(Instant::now() < deadline, "the client's link does not lose its carrier");
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The server's end takes less than the client's.
    ///
    /// # Errors
    /// As [`Network::direct`].
    pub fn narrow() -> Result<Self> {
        let this = Self::healthy()?;
        this.network.server().ip(&format!("link set {LINK} mtu {}", Self::NARROW))?;
        Ok(this)
    }

    /// The server, at the other end.
    pub fn server(&self) -> &Netns {
        self.network.server()
    }
}

impl Cause for Pair {
    fn netns(&self) -> &Netns {
        self.network.client()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        let payload = vec![0; self.payload];
        for packet in 0..packets {
            self.source
                .send_to(&payload, (SERVER, PORT))
                .with_context(|| format!("cannot send datagram {packet}"))?;
        }
        sleep(longer(Duration::from_millis(100) + self.wait));
        Ok(packets)
    }
}
