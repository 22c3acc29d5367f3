//! Datagrams that do not arrive whole.

use std::{
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::Duration,
};

use anyhow::Result;

use super::{Cause, link_layer::datagram, network::Network};
use crate::{machine::longer, netns::Netns};

/// A server that gets datagrams whose UDP checksum is wrong.
#[derive(Debug)]
pub struct Damaged(Network);

impl Damaged {
    /// # Errors
    /// As [`Network::direct`].
    pub fn new() -> Result<Self> {
        Ok(Self(Network::direct()?))
    }
}

impl Cause for Damaged {
    fn netns(&self) -> &Netns {
        self.0.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        self.0.frames(datagram().damaged(), packets)
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
        Ok(Self { network: Network::direct()?, next: AtomicU16::new(1), wait })
    }
}

impl Cause for FirstFragments {
    fn netns(&self) -> &Netns {
        self.network.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        for _ in 0..packets {
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            self.network.frames(datagram().first_fragment(id), 1)?;
        }
        thread::sleep(longer(self.wait));
        Ok(packets)
    }
}
