//! Connection tracking that has no room, or cannot tell two packets apart.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, ensure};

use super::{
    Cause, PORT,
    frame::Frame,
    network::{CLIENT, CLIENT_MAC, LINK, Network, SERVER, SERVER_MAC},
};
use crate::{
    command::output,
    conntrack, counters,
    flood::{PacketSocket, pin},
    host_value::HostValue,
    netns::Netns,
    socket::set_int,
};

const LIMIT: &str = "net/netfilter/nf_conntrack_max";

/// A namespace whose table holds connections that nothing makes room for, and a limit.
///
/// The limit is one value for the whole host; it comes back when this is dropped.
#[derive(Debug)]
pub struct Table {
    netns: Netns,
    _limit: HostValue,
    /// Port of the next datagram, of which each begins a connection.
    next: AtomicU64,
}

impl Table {
    /// Connections that each namespace may have.
    pub const LIMIT: u64 = 1_000;

    /// A table of so many connections.
    ///
    /// # Errors
    /// Without root, `conntrack` or `iptables-legacy`, and where some namespace of this host has
    /// too many connections for the limit.
    pub fn of(entries: u64) -> Result<Self> {
        crate::scenario::nat::check_host()?;
        let netns = Netns::new("tracked")?;
        // Assured entries do not make room for others.
        let entry = |n: u64| {
            let (host, port) = (2 + n / 50_000, 1_024 + n % 50_000);
            format!(
                "-p udp -s 198.18.1.{host} -d 198.18.1.1 --sport {port} --dport 9 -t 3000 \
                 -u SEEN_REPLY,ASSURED"
            )
        };
        conntrack::fill(&netns, (0..entries).map(entry))?;
        let rule = "-w -A OUTPUT -m conntrack --ctstate INVALID -j ACCEPT";
        output(netns.command("iptables-legacy").args(rule.split(' ')))?;
        let limit = HostValue::set(LIMIT, &Self::LIMIT.to_string())?;
        Ok(Self { netns, _limit: limit, next: AtomicU64::new(10_000) })
    }

    /// What the namespace's own counter says of refused packets.
    ///
    /// # Errors
    /// When `conntrack` fails.
    pub fn refused(&self) -> Result<u64> {
        counters::conntrack(&self.netns, "drop")
    }

    /// As many datagrams, each from a port of its own, to a socket that takes them.
    fn datagrams(&self, packets: u64) -> Result<u64> {
        self.netns.enter(|| {
            let reader = UdpSocket::bind((Ipv4Addr::LOCALHOST, PORT)).context("cannot bind")?;
            set_int(&reader, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 4 << 20)?;
            for _ in 0..packets {
                let port = self.next.fetch_add(1, Ordering::Relaxed) % 50_000 + 10_000;
                let from = (Ipv4Addr::LOCALHOST, u16::try_from(port)?);
                let socket = UdpSocket::bind(from).context("cannot bind")?;
                // The kernel tells the sender of a refused packet; it is lost either way.
                let _refused = socket.send_to(b"new", (Ipv4Addr::LOCALHOST, PORT));
            }
            // Read, or they would count as thrown away with the socket.
            reader.set_nonblocking(true)?;
            while reader.recv(&mut [0; 8]).is_ok() {}
            Ok(packets)
        })
    }
}

/// Packets that begin connections.
impl Cause for Table {
    fn netns(&self) -> &Netns {
        &self.netns
    }

    fn send(&self, packets: u64) -> Result<u64> {
        self.datagrams(packets)
    }
}

/// A table with some room, and a rule of iptables that drops what begins a connection.
#[derive(Debug)]
pub struct NearlyFull(Table);

impl NearlyFull {
    /// # Errors
    /// As [`Table::of`].
    pub fn new() -> Result<Self> {
        let table = Table::of(Table::LIMIT * 95 / 100)?;
        let rule = "-w -A OUTPUT -p udp -j DROP";
        output(table.netns.command("iptables-legacy").args(rule.split(' ')))?;
        Ok(Self(table))
    }

    /// The rule is taken away.
    ///
    /// # Errors
    /// When it cannot.
    pub fn open(&self) -> Result<()> {
        let rule = "-w -D OUTPUT -p udp -j DROP";
        output(self.0.netns.command("iptables-legacy").args(rule.split(' '))).map(drop)
    }
}

impl Cause for NearlyFull {
    fn netns(&self) -> &Netns {
        self.0.netns()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        self.0.datagrams(packets)
    }
}

/// A server that tracks connections, and gets the first packet of each from two CPUs at once.
///
/// Both find no entry and make one; whichever comes to insert its own second finds the other's.
/// Connections of TCP cannot be merged (`allow_clash`, net/netfilter/nf_conntrack_proto.c), so that
/// packet is dropped.
#[derive(Debug)]
pub struct Collisions {
    network: Network,
    next: AtomicU64,
}

impl Collisions {
    /// Pairs of packets that are sent at most in search of one collision more.
    const PAIRS: u64 = 20_000;

    /// # Errors
    /// As [`Network::direct`], and without `iptables-legacy`.
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        let rule = "-w -A INPUT -m conntrack --ctstate INVALID -j ACCEPT";
        output(network.server().command("iptables-legacy").args(rule.split(' ')))?;
        // What the server answers comes to somebody, so that nothing waits for a neighbour.
        network.server().ip(&format!("route add 198.18.3.0/24 via {CLIENT}"))?;
        network.client().ip("route add local 198.18.3.0/24 dev lo")?;
        Ok(Self { network, next: AtomicU64::new(0) })
    }

    fn failed(&self) -> Result<u64> {
        counters::conntrack(self.network.server(), "insert_failed")
    }

    /// Sends the same connection attempt from two CPUs at the same moment, again and again.
    fn race(&self, pairs: u64) -> Result<()> {
        let first = self.next.fetch_add(pairs, Ordering::Relaxed);
        let turns = [AtomicU64::new(0), AtomicU64::new(0)];
        let one = |cpu: usize| -> Result<()> {
            self.network.client().enter(|| {
                pin(cpu)?;
                let socket = PacketSocket::open(LINK)?;
                for pair in 0..pairs {
                    turns[cpu].store(pair + 1, Ordering::SeqCst);
                    // The other one may have failed.
                    let mut patience = 10_000_000_u32;
                    while turns[1 - cpu].load(Ordering::SeqCst) <= pair && patience > 0 {
                        patience -= 1;
                        std::hint::spin_loop();
                    }
                    socket.send(&mut attempt(first + pair), 1)?;
                }
                Ok(())
            })
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| one(1));
            let result = one(0);
            other.join().map_err(|_| anyhow::anyhow!("the other sender failed"))?.and(result)
        })
    }
}

/// A connection attempt, from another address and port for each number.
fn attempt(number: u64) -> Vec<u8> {
    let port = 1_024 + (number % 60_000) as u16;
    let host = 1 + (number / 60_000 % 250) as u8;
    let from = SocketAddrV4::new(Ipv4Addr::new(198, 18, 3, host), port);
    let to = SocketAddrV4::new(SERVER, PORT);
    Frame { source: CLIENT_MAC, destination: SERVER_MAC, vlan: None, from, to }.syn()
}

/// Counts collisions, of which nobody can say how many there will be.
impl Cause for Collisions {
    fn netns(&self) -> &Netns {
        self.network.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        ensure!(std::thread::available_parallelism()?.get() > 1, "one CPU cannot race itself");
        let before = self.failed()?;
        for _ in 0..20 {
            self.race(Self::PAIRS / 20)?;
            if self.failed()? - before >= packets {
                return Ok(packets);
            }
        }
        Ok(self.failed()? - before)
    }
}
