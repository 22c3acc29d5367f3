//! Packets for ports whose sockets take something else alone.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sched::sched_getcpu;

use super::{
    Cause, PORT,
    network::{CLIENT, LINK, Network, SERVER},
};
use crate::{flood::pin, machine::longer, netns::Netns};

/// A server whose socket is bound to one of its addresses, or connected to one peer.
#[derive(Debug)]
pub struct Bound {
    network: Network,
    socket: Option<UdpSocket>,
}

impl Bound {
    /// The socket is at `local`, and takes what comes from `peer` alone.
    ///
    /// # Errors
    /// As [`Network::direct`].
    pub fn new(local: Ipv4Addr, peer: Option<SocketAddr>) -> Result<Self> {
        let network = Network::direct()?;
        let mut bound = Self { network, socket: None };
        bound.bind(local)?;
        if let (Some(peer), Some(socket)) = (peer, &bound.socket) {
            socket.connect(peer).with_context(|| format!("cannot connect to {peer}"))?;
        }
        Ok(bound)
    }

    /// Bound to loopback.
    ///
    /// # Errors
    /// As [`Network::direct`].
    pub fn to_loopback() -> Result<Self> {
        Self::new(Ipv4Addr::LOCALHOST, None)
    }

    /// Binds the socket anew.
    ///
    /// # Errors
    /// When the address is in use or not there.
    pub fn bind(&mut self, local: Ipv4Addr) -> Result<()> {
        self.socket = None;
        let bind = || UdpSocket::bind((local, PORT)).with_context(|| format!("no {local}"));
        self.socket = Some(self.network.server().enter(bind)?);
        Ok(())
    }
}

impl Cause for Bound {
    fn netns(&self) -> &Netns {
        self.network.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        self.network.datagrams(&self.network.source(CLIENT)?, (SERVER, PORT), packets)
    }
}

/// A server that answers from another address than the one that was asked.
#[derive(Debug)]
pub struct Multihomed {
    network: Network,
    service: UdpSocket,
}

impl Multihomed {
    /// The address that clients ask.
    pub const ASKED: Ipv4Addr = Ipv4Addr::new(198, 18, 9, 9);
    /// How long a client waits for an answer.
    const PATIENCE: Duration = Duration::from_millis(20);

    /// # Errors
    /// As [`Network::direct`].
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        network.server().ip(&format!("address add {}/32 dev lo", Self::ASKED))?;
        let service = Self::serve(&network, Ipv4Addr::UNSPECIFIED)?;
        Ok(Self { network, service })
    }

    fn serve(network: &Network, at: Ipv4Addr) -> Result<UdpSocket> {
        network.server().enter(|| {
            let socket = UdpSocket::bind((at, PORT)).context("cannot bind")?;
            socket.set_read_timeout(Some(longer(Duration::from_secs(5))))?;
            Ok(socket)
        })
    }

    /// The service binds to the address itself.
    ///
    /// # Errors
    /// When it cannot.
    pub fn mend(&mut self) -> Result<()> {
        // The wildcard socket goes first: both have the same port.
        self.service = self.network.server().enter(|| Ok(UdpSocket::bind((SERVER, 0))?))?;
        self.service = Self::serve(&self.network, Self::ASKED)?;
        Ok(())
    }

    /// Asks from a new socket each time, and returns how many got an answer.
    ///
    /// # Errors
    /// When nothing can be sent.
    pub fn ask(&self, times: u64) -> Result<u64> {
        self.network.client().enter(|| {
            pin(sched_getcpu()?)?;
            let mut answers = 0;
            for _ in 0..times {
                let client = UdpSocket::bind((CLIENT, 0)).context("cannot bind")?;
                client.connect((Self::ASKED, PORT))?;
                client.set_read_timeout(Some(Self::PATIENCE))?;
                client.send(b"question")?;
                let mut question = [0; 16];
                // What comes back for a refused answer is the next call's error.
                let asked = self.service.recv_from(&mut question);
                let asked = asked.or_else(|_| self.service.recv_from(&mut question));
                let (length, from) = asked.context("no question comes")?;
                self.service.send_to(&question[..length], from)?;
                answers += u64::from(client.recv(&mut question).is_ok());
                thread::sleep(Self::PATIENCE / 4);
            }
            Ok(answers)
        })
    }

    /// The clients' namespace, in which answers are refused.
    pub fn netns(&self) -> &Netns {
        self.network.client()
    }
}

/// A server that has joined a group on another link than the one that its packets come in by.
#[derive(Debug)]
pub struct JoinedElsewhere {
    network: Network,
    member: UdpSocket,
}

impl JoinedElsewhere {
    /// Of the scope of an organisation (RFC 2365).
    pub const GROUP: Ipv4Addr = Ipv4Addr::new(239, 192, 9, 9);
    /// The other link, and the address there.
    pub const ELSEWHERE: &str = "other0";
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 19, 1, 1);

    /// # Errors
    /// As [`Network::direct`].
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        let server = network.server();
        let other = Self::ELSEWHERE;
        server.ip(&format!("link add {other} type veth peer name other1"))?;
        server.ip(&format!("address add {}/24 dev {other}", Self::ADDRESS))?;
        server.ip(&format!("link set {other} up"))?;
        server.ip("link set other1 up")?;
        network.client().ip(&format!("route add {}/32 dev {LINK}", Self::GROUP))?;
        let member = server.enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?))?;
        member.join_multicast_v4(&Self::GROUP, &Self::ADDRESS).context("cannot join")?;
        Ok(Self { network, member })
    }

    /// Joins where the packets come in, too.
    ///
    /// # Errors
    /// When it cannot.
    pub fn join(&self) -> Result<()> {
        self.member.join_multicast_v4(&Self::GROUP, &SERVER).context("cannot join")
    }

    /// Datagrams that have reached the member; none of them is there any more.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn received(&self) -> Result<u64> {
        self.member.set_nonblocking(true)?;
        let (mut count, mut datagram) = (0, [0; 64]);
        while self.member.recv(&mut datagram).is_ok() {
            count += 1;
        }
        ensure!(count <= 1 << 20, "more than was ever sent");
        Ok(count)
    }
}

impl Cause for JoinedElsewhere {
    fn netns(&self) -> &Netns {
        self.network.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        self.network.datagrams(&self.network.source(CLIENT)?, (Self::GROUP, PORT), packets)
    }
}
