//! A connection of TCP whose reader stands still: its sender asks whether there is room.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::network::{Network, SERVER};
use crate::{machine::longer, netns::Netns};

/// A client that sends for as long as its server takes something.
#[derive(Debug)]
pub struct Stalled {
    network: Network,
    client: TcpStream,
    server: TcpStream,
    reads: bool,
}

impl Stalled {
    /// Where the server listens.
    pub const PORT: u16 = 7005;
    /// Most that buffers of both ends hold.
    const MOST: usize = 256 << 20;

    /// The server does not read.
    ///
    /// # Errors
    /// As [`Network::direct`], and when the two cannot connect; so for both.
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        let listener = network
            .server()
            .enter(|| TcpListener::bind((SERVER, Self::PORT)).context("cannot listen"))?;
        let client = network
            .client()
            .enter(|| TcpStream::connect((SERVER, Self::PORT)).context("cannot connect"))?;
        client.set_nonblocking(true)?;
        let (server, _) = listener.accept()?;
        Ok(Self { network, client, server, reads: false })
    }

    /// The server reads all that comes.
    ///
    /// # Errors
    /// As [`Stalled::new`].
    pub fn read() -> Result<Self> {
        Ok(Self { reads: true, ..Self::new()? })
    }

    /// Where the server is.
    pub fn netns(&self) -> &Netns {
        self.network.server()
    }

    /// Sends for a while. Where the server does not read, the client asks three times at least for room: it
    /// waits for twice as long each time, from 0.2 s on.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn send(&mut self) -> Result<()> {
        let mut reader = self.server.try_clone()?;
        let until = Instant::now() + longer(Duration::from_millis(2_500));
        let reading = self.reads.then(|| thread::spawn(move || drain(&mut reader, until)));
        let mut sent = 0;
        while Instant::now() < until {
            match self.client.write(&[0; 16 << 10]) {
                Ok(bytes) => sent += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(error).context("cannot send"),
            }
            if self.reads {
                thread::sleep(Duration::from_millis(1));
            }
        }
        ensure!(self.reads || sent < Self::MOST, "the window never closed");
        if let Some(reading) = reading {
            reading.join().ok().context("the reader is gone")??;
        }
        Ok(())
    }

    /// Reads all that waits, and what comes from now on.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn start_reading(&mut self) -> Result<()> {
        self.reads = true;
        let mut reader = self.server.try_clone()?;
        drain(&mut reader, Instant::now() + longer(Duration::from_millis(1_000)))
    }
}

fn drain(reader: &mut TcpStream, until: Instant) -> Result<()> {
    reader.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut buffer = vec![0; 256 << 10];
    while Instant::now() < until + Duration::from_millis(100) {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error).context("cannot read"),
        }
    }
    Ok(())
}
