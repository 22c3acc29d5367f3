//! Datagrams that do not arrive whole.

use std::{
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::Duration,
};

use anyhow::Result;

use super::{
    Cause,
    link_layer::datagram,
    network::{Network, SERVER},
};
use crate::{machine::longer, netns::Netns};

/// A server that gets datagrams whose UDP checksum is wrong.
#[derive(Debug)]
pub struct Damaged {
    network: Network,
    is_whole: bool,
}

impl Damaged {
    /// # Errors
    /// As [`Network::direct`].
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        network.listen(SERVER)?;
        Ok(Self { network, is_whole: false })
    }

    /// From now on they arrive as they were sent.
    pub fn mend(&mut self) {
        self.is_whole = true;
    }
}

impl Cause for Damaged {
    fn netns(&self) -> &Netns {
        self.network.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        let frame = if self.is_whole { datagram().bytes() } else { datagram().damaged() };
        self.network.frames(frame, packets)
    }
}

/// A server that gets the first fragment of each datagram, and never the rest.
#[derive(Debug)]
pub struct FirstFragments {
    network: Network,
    /// Number of the next datagram.
    next: AtomicU16,
    /// How long to wait for the last of them to be given up.
    wait: Duration,
    is_whole: bool,
}

impl FirstFragments {
    /// The server gives them up after a second.
    ///
    /// # Errors
    /// As [`Network::direct`].
    pub fn lost() -> Result<Self> {
        let this = Self::new(Duration::from_millis(1_500))?;
        this.netns().sysctl("net/ipv4/ipfrag_time", "1")?;
        Ok(this)
    }

    /// The server has room for some 20 of them, and waits longer than this lives.
    ///
    /// # Errors
    /// As [`Network::direct`].
    pub fn without_room() -> Result<Self> {
        let this = Self::new(Duration::ZERO)?;
        // The low mark is not above the high one.
        this.netns().sysctl("net/ipv4/ipfrag_low_thresh", "8192")?;
        this.netns().sysctl("net/ipv4/ipfrag_high_thresh", "16384")?;
        Ok(this)
    }

    fn new(wait: Duration) -> Result<Self> {
        let network = Network::direct()?;
        network.listen(SERVER)?;
        Ok(Self { network, next: AtomicU16::new(1), wait, is_whole: false })
    }

    /// From now on each datagram arrives whole.
    pub fn mend(&mut self) {
        self.is_whole = true;
    }
}

impl Cause for FirstFragments {
    fn netns(&self) -> &Netns {
        self.network.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        for _ in 0..packets {
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            let whole = self.is_whole;
            let frame = if whole { datagram().bytes() } else { datagram().first_fragment(id) };
            self.network.frames(frame, 1)?;
        }
        thread::sleep(longer(self.wait));
        Ok(packets)
    }
}
