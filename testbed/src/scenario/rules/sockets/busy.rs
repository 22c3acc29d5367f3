//! A client and a server with a lot to say to each other, and nothing wrong with either.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    drops::network::{CLIENT, Network, SERVER},
    load::{self, Answers, Server},
    machine::{fewer, longer},
};

const WEB: u16 = 80;
const ECHO: u16 = 7;
const SINK: u16 = 9;

const REQUESTS: u64 = 10_000;
const AT_ONCE: u64 = 50;
/// Datagrams, and how many are under way at most.
const DATAGRAMS: u64 = 200_000;
const WINDOW: u64 = 32;
/// Blocks of one large transfer.
const BLOCKS: u64 = 30_000;
static BLOCK: [u8; 64 << 10] = [7; 64 << 10];

/// Both, and a web server.
#[derive(Debug)]
pub(super) struct Busy {
    network: Network,
    _web: Server,
    echo: UdpSocket,
    sink: TcpListener,
}

impl Busy {
    pub(super) fn new() -> Result<Self> {
        let network = Network::direct()?;
        let server = network.server();
        let web = Server::start(server, (SERVER, WEB).into())?;
        let echo = server.enter(|| UdpSocket::bind((SERVER, ECHO)).context("cannot bind"))?;
        let sink = server.enter(|| TcpListener::bind((SERVER, SINK)).context("cannot listen"))?;
        Ok(Self { network, _web: web, echo, sink })
    }

    /// Requests, datagrams and a large transfer at the same time; fails unless everything arrives.
    pub(super) fn work(&self) -> Result<()> {
        std::thread::scope(|scope| {
            let threads = [
                scope.spawn(|| self.requests()),
                scope.spawn(|| self.datagrams()),
                scope.spawn(|| self.transfer()),
            ];
            let results = threads.map(|thread| thread.join());
            results.into_iter().try_for_each(|result| {
                result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    }

    fn requests(&self) -> Result<()> {
        let (requests, patience) = (fewer(REQUESTS), longer(Duration::from_secs(10)));
        let site = (SERVER, WEB).into();
        let Answers { answered, failed } =
            load::ask(self.network.client(), site, requests, AT_ONCE, patience)?;
        ensure!(answered == requests, "{answered} of {requests} answered, {failed} not in time");
        Ok(())
    }

    /// Each datagram is answered; a few are under way at once.
    fn datagrams(&self) -> Result<()> {
        let client =
            self.network.client().enter(|| UdpSocket::bind((CLIENT, 0)).context("cannot bind"))?;
        client.connect((SERVER, ECHO))?;
        for socket in [&client, &self.echo] {
            socket.set_read_timeout(Some(longer(Duration::from_secs(10))))?;
        }
        let mut data = [0; 64];
        for _ in 0..fewer(DATAGRAMS) / WINDOW {
            for _ in 0..WINDOW {
                client.send(&data)?;
            }
            for _ in 0..WINDOW {
                let (length, from) = self.echo.recv_from(&mut data).context("no datagram")?;
                self.echo.send_to(&data[..length], from)?;
            }
            for _ in 0..WINDOW {
                client.recv(&mut data).context("no answer")?;
            }
        }
        Ok(())
    }

    fn transfer(&self) -> Result<()> {
        let to_sink = || TcpStream::connect((SERVER, SINK)).context("cannot connect");
        let mut sender = self.network.client().enter(to_sink)?;
        let (mut receiver, _) = self.sink.accept()?;
        let blocks = fewer(BLOCKS);
        // The receiver goes in as well: it is closed, and ends the sender, whatever happens.
        std::thread::scope(move |scope| {
            let sending =
                scope.spawn(move || (0..blocks).try_for_each(|_| sender.write_all(&BLOCK)));
            let (mut received, mut data) = (0, vec![0; BLOCK.len()]);
            loop {
                match receiver.read(&mut data)? {
                    0 => break,
                    bytes => received += bytes as u64,
                }
            }
            sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            ensure!(received == blocks * BLOCK.len() as u64, "{received} bytes of the transfer");
            Ok(())
        })
    }
}
