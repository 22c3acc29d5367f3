//! Datagrams to a port where nobody listens.
//!
//! Each is dropped at the UDP receive function with NO_SOCKET and counted by the namespace as
//! `NoPorts`. How many ICMP errors come back is limited by the kernel and does not matter.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{counters, netns::Netns};

/// Far more than a datagram over loopback takes.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// A namespace with a loopback link and not one open port.
#[derive(Debug)]
pub struct ClosedPort {
    netns: Netns,
}

impl ClosedPort {
    /// # Errors
    /// Without root or `ip`, and when interrupted.
    pub fn new() -> Result<Self> {
        Ok(Self { netns: Netns::new("udp")? })
    }

    /// Where the datagrams are dropped.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Sends `n` datagrams over loopback and waits until the namespace has counted them: on a busy
    /// machine their receiving end is put off, and what is not dropped yet cannot be reported.
    ///
    /// # Errors
    /// When a datagram cannot be sent, or is not counted.
    pub fn send(&self, family: Family, n: u64) -> Result<()> {
        let before = self.counted(family)?;
        self.send_all(family, n)?;
        let deadline = Instant::now() + PATIENCE;
        while self.counted(family)? < before + n {
            ensure!(Instant::now() < deadline, "{n} datagrams are not dropped after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn send_all(&self, family: Family, n: u64) -> Result<()> {
        let loopback = match family {
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        };
        self.netns.enter(|| {
            // Not connected: the ICMP errors that come back would fail the next send.
            let socket = UdpSocket::bind(SocketAddr::new(loopback, 0)).context("cannot bind")?;
            // Discard service; the namespace has no service at all.
            let closed = SocketAddr::new(loopback, 9);
            for i in 0..n {
                socket
                    .send_to(b"nobody listens", closed)
                    .with_context(|| format!("cannot send datagram {i} of {n} to {closed}"))?;
            }
            Ok(())
        })
    }

    /// Datagrams that the namespace has counted as undeliverable so far.
    pub fn counted(&self, family: Family) -> Result<u64> {
        match family {
            Family::V4 => counters::snmp(&self.netns, "Udp", "NoPorts"),
            Family::V6 => counters::snmp6(&self.netns, "Udp6NoPorts"),
        }
    }
}
