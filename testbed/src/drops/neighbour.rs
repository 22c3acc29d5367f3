//! A next hop that does not answer.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{
    Cause, PORT,
    network::{CLIENT, LINK, Network},
};
use crate::{machine::longer, netns::Netns};

/// A client that asks for the link-layer address of a host which is not there.
///
/// What it sends meanwhile waits in the neighbour's queue. A packet that finds it full pushes the
/// oldest one out (NEIGH_QUEUEFULL); the rest is dropped when the kernel gives up (NEIGH_FAILED).
#[derive(Debug)]
pub struct SilentNeighbour {
    network: Network,
    /// The packets' owner, as long as this lives.
    source: UdpSocket,
}

impl SilentNeighbour {
    /// The host that is not there.
    pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 9, 9);
    /// Between two of the three questions, before the kernel gives up.
    const RETRANS: Duration = Duration::from_millis(300);

    /// All that is sent can wait.
    ///
    /// # Errors
    /// As [`Network::direct`].
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        let source = network.source(CLIENT)?;
        let this = Self { network, source };
        this.set("retrans_time_ms", Self::RETRANS.as_millis())?;
        Ok(this)
    }

    /// One packet can wait, the last one: so many bytes are exceeded by any second one.
    ///
    /// # Errors
    /// As [`Network::direct`].
    pub fn with_short_queue() -> Result<Self> {
        let this = Self::new()?;
        this.set("unres_qlen_bytes", 1)?;
        Ok(this)
    }

    fn set(&self, name: &str, value: u128) -> Result<()> {
        self.netns().sysctl(&format!("net/ipv4/neigh/{LINK}/{name}"), &value.to_string())
    }

    /// Waits until the kernel has given up.
    fn wait_for_failure(&self) -> Result<()> {
        let deadline = Instant::now() + longer(Duration::from_secs(10));
        while !self.netns().ip(&format!("neigh show {}", Self::ADDRESS))?.contains("FAILED") {
            ensure!(Instant::now() < deadline, "{} is still looked for", Self::ADDRESS);
            std::thread::sleep(Duration::from_millis(20));
        }
        // The state changes first; then the queue is emptied, in the same timer (neigh_invalidate).
        std::thread::sleep(longer(Duration::from_millis(50)));
        Ok(())
    }
}

impl Cause for SilentNeighbour {
    fn netns(&self) -> &Netns {
        self.network.client()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        let sent = self.network.datagrams(&self.source, (Self::ADDRESS, PORT), packets)?;
        self.wait_for_failure()?;
        Ok(sent)
    }
}
