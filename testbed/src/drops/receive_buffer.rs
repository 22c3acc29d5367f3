//! A reader that does not keep up.

use std::net::UdpSocket;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt::RcvBuf};

use super::{
    Cause,
    network::{CLIENT, Network, SERVER},
};
use crate::{counters, host_value::HostValue, netns::Netns};

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

    /// Datagrams that the namespace has counted as refused because there was no room.
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

/// A server that reads its UDP socket only after a burst is over, and whose buffer is as large as
/// the host gives to sockets that do not ask (`rmem_default`): too small for a burst.
#[derive(Debug)]
pub struct LateReader {
    network: Network,
    socket: Option<UdpSocket>,
    _default: HostValue,
}

impl LateReader {
    const PORT: u16 = 7002;
    /// A dozen small datagrams, as they are charged.
    const SMALL: &str = "8192";

    /// # Errors
    /// As [`Network::direct`], and when another run has changed the host's default.
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        let default = HostValue::set("net/core/rmem_default", Self::SMALL)?;
        let mut reader = Self { network, socket: None, _default: default };
        reader.restart()?;
        Ok(reader)
    }

    /// Opens the socket anew; its buffer is what the default is now.
    ///
    /// # Errors
    /// When the port cannot be bound.
    pub fn restart(&mut self) -> Result<()> {
        self.socket = None; // the port has to be free
        let open = || UdpSocket::bind((SERVER, Self::PORT)).context("cannot bind");
        self.socket = Some(self.network.server().enter(open)?);
        Ok(())
    }

    /// Sends so many datagrams at once, and then has the server read what is left of them.
    ///
    /// # Errors
    /// When they cannot be sent.
    pub fn burst(&self, datagrams: u64) -> Result<()> {
        let source = self.network.source(CLIENT)?;
        self.network.datagrams(&source, (SERVER, Self::PORT), datagrams)?;
        if let Some(socket) = &self.socket {
            socket.set_nonblocking(true)?;
            while socket.recv(&mut [0; 64]).is_ok() {}
        }
        Ok(())
    }
}
