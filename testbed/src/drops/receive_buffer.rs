//! A reader that does not keep up.

use std::net::UdpSocket;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt::RcvBuf};

use super::{
    Cause,
    network::{CLIENT, Network, SERVER},
};
use crate::{counters, netns::Netns};

/// A server whose UDP socket is full, and stays so: nobody reads it.
#[derive(Debug)]
pub struct FullSocket {
    network: Network,
    /// Held for its queue.
    _socket: UdpSocket,
}

impl FullSocket {
    /// The port of the full socket.
    pub const PORT: u16 = 7001;
    /// More datagrams than the smallest buffer holds.
    const ENOUGH: u64 = 100;

    /// # Errors
    /// As [`Network::direct`], and when the socket does not fill up.
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        let socket = network.server().enter(|| {
            let socket = UdpSocket::bind((SERVER, Self::PORT)).context("cannot bind")?;
            // Too small: the kernel makes it the smallest there is (SOCK_MIN_RCVBUF).
            setsockopt(&socket, RcvBuf, &1).context("cannot make the buffer small")?;
            Ok(socket)
        })?;
        let full = Self { network, _socket: socket };
        full.send(Self::ENOUGH)?;
        ensure!(full.refused()? > 0, "{} datagrams do not fill a socket", Self::ENOUGH);
        Ok(full)
    }

    /// Datagrams that the namespace has counted as refused for want of room.
    pub fn refused(&self) -> Result<u64> {
        counters::snmp(self.network.server(), "Udp", "RcvbufErrors")
    }
}

impl Cause for FullSocket {
    fn netns(&self) -> &Netns {
        self.network.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        self.network.datagrams(&self.network.source(CLIENT)?, (SERVER, Self::PORT), packets)
    }
}
