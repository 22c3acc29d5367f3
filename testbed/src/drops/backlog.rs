//! A connection that its own process keeps busy, so that segments wait for it.

use std::{
    io::Write,
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd,
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, send, setsockopt, sockopt::RcvBuf},
};

use super::network::{LINK, Network, SERVER};
use crate::missing_page::MissingPage;

/// A server that is stuck inside its socket while a client sends to it.
#[derive(Debug)]
pub struct Stuck {
    network: Network,
    listener: TcpListener,
    is_stuck: bool,
}

impl Stuck {
    const PORT: u16 = 7006;
    /// What may be sent before the first answer, which does not come: all of it.
    const INITIAL_WINDOW: u32 = 1000;
    /// More segments than a backlog takes: each is charged some 800 bytes, and it takes 64 KiB
    /// and the buffers.
    const SEGMENTS: usize = 400;

    /// # Errors
    /// As [`Network::direct`], and when the server cannot listen.
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        let window = Self::INITIAL_WINDOW;
        network.client().ip(&format!("route replace {SERVER} dev {LINK} initcwnd {window}"))?;
        let listener = network
            .server()
            .enter(|| TcpListener::bind((SERVER, Self::PORT)).context("cannot listen"))?;
        Ok(Self { network, listener, is_stuck: true })
    }

    /// From now on the server does not stay inside its socket.
    pub fn mend(&mut self) {
        self.is_stuck = false;
    }

    /// Sends to a server that does not leave its socket before all is sent.
    ///
    /// # Errors
    /// When it cannot be sent, and where a page cannot be kept missing.
    pub fn send(&mut self) -> Result<()> {
        let client = self
            .network
            .client()
            .enter(|| TcpStream::connect((SERVER, Self::PORT)).context("cannot connect"))?;
        let (mut server, _) = self.listener.accept()?;
        if !self.is_stuck {
            client.set_nodelay(true)?;
            return segments(&client, Self::SEGMENTS);
        }
        // Too small: the kernel makes it the smallest there is (SOCK_MIN_RCVBUF).
        setsockopt(&server, RcvBuf, &1).context("cannot make the buffer small")?;
        client.set_nodelay(true)?;
        let page = MissingPage::new()?;
        std::thread::scope(|scope| {
            // Copying from the page, inside the socket, waits until the page is there.
            let busy = scope.spawn(|| server.write_all(page.bytes()));
            let sent = page.wait_for_reader().and_then(|()| segments(&client, Self::SEGMENTS));
            page.give();
            match busy.join() {
                Ok(written) => written.context("cannot write")?,
                Err(_) => bail!("the server's thread panicked"),
            }
            sent
        })
    }
}

/// Sends so many bytes, each in a segment that the receiver keeps apart, for it is urgent: others
/// are merged in the backlog (`tcp_add_backlog`, net/ipv4/tcp_ipv4.c).
fn segments(client: &TcpStream, segments: usize) -> Result<()> {
    for _ in 0..segments {
        match send(client.as_raw_fd(), b"!", MsgFlags::MSG_OOB | MsgFlags::MSG_DONTWAIT) {
            Ok(_) => {}
            Err(Errno::EAGAIN) => break, // the window is used up, which is as good
            Err(error) => return Err(error).context("cannot send"),
        }
    }
    Ok(())
}
