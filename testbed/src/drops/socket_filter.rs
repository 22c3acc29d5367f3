//! A program that refuses what comes to its socket.

use std::{io, net::UdpSocket, os::fd::AsRawFd};

use anyhow::{Context, Result, ensure};

use super::{
    Cause,
    network::{CLIENT, Network, SERVER},
};
use crate::{netns::Netns, socket::set_int};

/// A server whose UDP socket has a filter that lets nothing through.
#[derive(Debug)]
pub struct Refusing {
    network: Network,
    socket: UdpSocket,
}

impl Refusing {
    /// The port of the socket.
    pub const PORT: u16 = 7010;

    /// # Errors
    /// As [`Network::direct`], and when the filter is refused.
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        let socket = network.server().enter(|| {
            let socket = UdpSocket::bind((SERVER, Self::PORT)).context("cannot bind")?;
            refuse_all(&socket)?;
            Ok(socket)
        })?;
        Ok(Self { network, socket })
    }

    /// The socket takes all.
    ///
    /// # Errors
    /// When the filter cannot be taken off.
    pub fn open(&self) -> Result<()> {
        set_int(&self.socket, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0)
            .context("cannot take off a filter")
    }
}

/// Attaches the classic BPF program `ret 0`.
pub(crate) fn refuse_all(socket: &UdpSocket) -> Result<()> {
    let mut instruction =
        libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut instruction };
    // SAFETY: pointer and length describe `program`, which points to its one instruction; the
    // kernel copies both.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    ensure!(result == 0, "cannot attach a filter: {}", io::Error::last_os_error());
    Ok(())
}

impl Cause for Refusing {
    fn netns(&self) -> &Netns {
        self.network.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        self.network.datagrams(&self.network.source(CLIENT)?, (SERVER, Self::PORT), packets)
    }
}
