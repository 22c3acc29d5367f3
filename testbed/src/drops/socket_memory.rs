//! All UDP sockets together hold as much as UDP may have.

use std::net::UdpSocket;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use super::network::{CLIENT, Network, SERVER};
use crate::{host_value::HostValue, socket::receive_memory};

/// A server whose socket may hold more than all of UDP on this host, and which reads only after a
/// burst is over.
#[derive(Debug)]
pub struct Hungry {
    network: Network,
    socket: UdpSocket,
    _limit: HostValue,
}

impl Hungry {
    const PORT: u16 = 7005;
    /// Pages; the first number counts. The kernel's own sum lags behind by up to a megabyte on each
    /// CPU, so it is large.
    const LIMIT: &str = "4096 6144 8192";
    /// Bytes: one and a half times the limit, so that twice the limit is enough.
    const BURST: u64 = 6144 * 4096;
    /// Bytes: four times the limit.
    const BUFFER: usize = 64 << 20;
    const PAYLOAD: [u8; 1400] = [0; 1400];

    /// # Errors
    /// As [`Network::direct`], and when another run has changed the host's limit.
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        let limit = HostValue::set("net/ipv4/udp_mem", Self::LIMIT)?;
        let socket = network.server().enter(|| {
            let socket = UdpSocket::bind((SERVER, Self::PORT)).context("cannot bind")?;
            setsockopt(&socket, RcvBufForce, &Self::BUFFER).context("cannot make it large")?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })?;
        Ok(Self { network, socket, _limit: limit })
    }

    /// Sends a burst, and then has the server read what is left of it.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn burst(&self) -> Result<()> {
        let source = self.network.source(CLIENT)?;
        let send = |datagrams| {
            self.network.datagrams_of(&Self::PAYLOAD, &source, (SERVER, Self::PORT), datagrams)
        };
        send(1)?;
        // Not the same on all kernels.
        let each = receive_memory(&self.socket).context("cannot ask for its memory")?;
        ensure!(each > 0, "a datagram takes no memory");
        send(Self::BURST / u64::from(each))?;
        while self.socket.recv(&mut [0; 64]).is_ok() {}
        Ok(())
    }
}
