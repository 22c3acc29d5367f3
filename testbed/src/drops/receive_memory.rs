//! TCP data that its receiver has no memory for.

use std::{
    io::Write,
    net::{TcpListener, TcpStream},
};

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt::RcvBuf};

use super::network::{Network, SERVER};

/// Connections whose receiver makes its buffer small after it has promised the sender a large
/// window, and does not read.
#[derive(Debug)]
pub struct Shrunk {
    network: Network,
    listener: TcpListener,
    /// Both ends, held so that nothing is thrown away at a close.
    ends: Vec<(TcpStream, TcpStream)>,
    shrinks: bool,
}

impl Shrunk {
    const PORT: u16 = 7004;
    /// Of each connection; as many as a sender may send before the first answer (TCP_INIT_CWND).
    const SEGMENTS: usize = 10;

    /// # Errors
    /// As [`Network::direct`], and when the server cannot listen.
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        let listener = network
            .server()
            .enter(|| TcpListener::bind((SERVER, Self::PORT)).context("cannot listen"))?;
        Ok(Self { network, listener, ends: Vec::new(), shrinks: true })
    }

    /// From now on buffers stay as they are.
    pub fn mend(&mut self) {
        self.shrinks = false;
    }

    /// Opens so many connections and sends what the window allows.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub fn send(&mut self, connections: usize) -> Result<()> {
        for _ in 0..connections {
            let mut sender = self
                .network
                .client()
                .enter(|| TcpStream::connect((SERVER, Self::PORT)).context("cannot connect"))?;
            let (receiver, _) = self.listener.accept()?;
            if self.shrinks {
                // Too small: the kernel makes it the smallest there is (SOCK_MIN_RCVBUF).
                setsockopt(&receiver, RcvBuf, &1).context("cannot make the buffer small")?;
            }
            sender.set_nodelay(true)?;
            for _ in 0..Self::SEGMENTS {
                sender.write_all(&[0; 1000])?;
            }
            self.ends.push((sender, receiver));
        }
        Ok(())
    }
}
