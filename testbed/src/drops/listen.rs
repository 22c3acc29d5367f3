//! Listening sockets that refuse connections because one of their queues is full.

use std::{
    net::{SocketAddrV4, TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, connect, listen, socket,
    },
};

use super::network::{Network, SERVER};
use crate::{netns::Netns, socket::set_int};

const PORT: u16 = 7003;
/// How long either queue is at first.
const SHORT: &str = "4";

/// A server that listens and accepts nothing before all of a crowd have knocked.
#[derive(Debug)]
pub struct Listening {
    network: Network,
    listener: TcpListener,
}

impl Listening {
    /// The accept queue holds no more than `somaxconn` lets it, which is little.
    ///
    /// # Errors
    /// As [`Network::direct`], and when the server cannot listen.
    pub fn with_short_accept_queue() -> Result<Self> {
        Self::new()
    }

    /// Handshakes stay half done until the client sends data (TCP_DEFER_ACCEPT), the queue for them
    /// is short, and there are no SYN cookies.
    ///
    /// # Errors
    /// As [`Listening::with_short_accept_queue`].
    pub fn with_short_syn_queue() -> Result<Self> {
        let listening = Self::new()?;
        listening.network.server().sysctl("net/ipv4/tcp_syncookies", "0")?;
        let seconds = 30;
        set_int(&listening.listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds)
            .context("cannot have handshakes wait for data")?;
        Ok(listening)
    }

    fn new() -> Result<Self> {
        let network = Network::direct()?;
        network.server().sysctl("net/core/somaxconn", SHORT)?;
        let listener = network
            .server()
            .enter(|| TcpListener::bind((SERVER, PORT)).context("cannot listen"))?;
        listener.set_nonblocking(true)?;
        Ok(Self { network, listener })
    }

    /// Where the server listens.
    pub fn netns(&self) -> &Netns {
        self.network.server()
    }

    /// Asks for the longest accept queue there may be, and empties it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn listen_again(&self) -> Result<()> {
        listen(&self.listener, Backlog::MAXCONN).context("cannot listen again")?;
        self.accept();
        Ok(())
    }

    /// So many clients try to connect, all at once; nobody waits for an answer.
    ///
    /// # Errors
    /// When they cannot even try.
    pub fn knock(&self, clients: usize) -> Result<()> {
        let clients = self.network.client().enter(|| (0..clients).map(|_| client()).collect());
        // What a client does is handled before its system call returns. Whoever got in leaves now.
        let clients: Vec<OwnedFd> = clients?;
        drop(clients);
        Ok(())
    }

    /// As [`Listening::knock`], with a server that accepts whoever has got in.
    ///
    /// # Errors
    /// As [`Listening::knock`].
    pub fn welcome(&self, clients: usize) -> Result<()> {
        let inside = |_| {
            let client = client()?;
            Ok((client, self.accept()))
        };
        let all: Result<Vec<_>> =
            self.network.client().enter(|| (0..clients).map(inside).collect());
        drop(all?);
        // A client that leaves ends its handshake, too.
        self.accept();
        Ok(())
    }

    fn accept(&self) -> Vec<TcpStream> {
        self.listener.incoming().map_while(Result::ok).collect()
    }
}

/// A socket that has begun to connect.
fn client() -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let client = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    match connect(client.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(SERVER, PORT))) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(client),
        Err(error) => bail!("cannot connect: {error}"),
    }
}
