//! Packets that a route or a routing rule is there to refuse, and packets for an address that is
//! somebody else's.

use std::{
    net::{Ipv4Addr, Ipv6Addr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    Cause, PORT,
    network::{CLIENT, CLIENT6, LINK, Network, SERVER, SERVER_MAC, SERVER6},
    routing::BEYOND,
};
use crate::{command::output, machine::longer, netns::Netns};

/// What refuses, as arguments of `ip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A route of this type to [`BEYOND`], longer than the one that leads there.
    Route(&'static str),
    /// A routing rule of this type, for what goes to [`BEYOND`].
    Rule(&'static str),
    /// A route of the type `blackhole` in a table of its own, where a routing rule has packets with
    /// [`Refusing::MARK`] looked up; whether those to [`BEYOND`] have it.
    Mark(bool),
    /// A route to somewhere else: nothing is refused.
    Nothing,
}

/// A router with a route to where packets are for, and something that refuses them.
#[derive(Debug)]
pub struct Refusing {
    network: Network,
    /// What reaches the server waits there.
    _reader: UdpSocket,
    /// At the next port.
    others: UdpSocket,
}

impl Refusing {
    /// Preference of the routing rule.
    pub const PREFERENCE: u32 = 100;
    pub const MARK: u32 = 0x17;
    /// The table for packets with that mark.
    pub const TABLE: u32 = 1700;

    /// # Errors
    /// As [`Network::routed`]; where packets are marked, without nft.
    pub fn new(by: By) -> Result<Self> {
        let network = Network::routed()?;
        let (router, server) = (network.between(), network.server());
        server.ip(&format!("address add {BEYOND}/32 dev lo"))?;
        let bind = |port| {
            server.enter(|| UdpSocket::bind((BEYOND, port)).context("cannot bind to the port"))
        };
        let (reader, others) = (bind(PORT)?, bind(PORT + 1)?);
        router.ip(&format!("route add 203.0.113.0/24 via {SERVER}"))?;
        let refuses = match by {
            By::Route(kind) => format!("route add {kind} {BEYOND}/32"),
            By::Rule(kind) => {
                format!("rule add to {BEYOND} {kind} pref {}", Self::PREFERENCE)
            }
            By::Mark(marked) => {
                if marked {
                    let rules = format!(
                        "add table ip marks; add chain ip marks early {{ type filter hook prerouting \
                         priority -150; }}; add rule ip marks early ip daddr {BEYOND} udp dport {PORT} \
                         meta mark set {:#x}",
                        Self::MARK
                    );
                    output(router.command("nft").arg(rules))?;
                }
                router.ip(&format!("route add blackhole default table {}", Self::TABLE))?;
                let (mark, table, pref) = (Self::MARK, Self::TABLE, Self::PREFERENCE);
                format!("rule add fwmark {mark:#x} table {table} pref {pref}")
            }
            By::Nothing => "route add blackhole 203.0.113.8/32".to_owned(),
        };
        router.ip(&refuses)?;
        Ok(Self { network, _reader: reader, others })
    }
}

impl Cause for Refusing {
    fn netns(&self) -> &Netns {
        self.network.between()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        self.network.datagrams(&self.network.source(CLIENT)?, (BEYOND, PORT), packets)
    }
}

impl Refusing {
    /// Sends datagrams to another port, which nobody marks.
    ///
    /// # Errors
    /// When they cannot be sent.
    pub fn send_unmarked(&self, packets: u64) -> Result<u64> {
        self.network.datagrams(&self.network.source(CLIENT)?, (BEYOND, PORT + 1), packets)
    }

    /// Datagrams that the server has got at [`BEYOND`], and takes.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn received(&self) -> Result<u64> {
        let mut received = 0;
        self.others.set_nonblocking(true)?;
        while self.others.recv(&mut [0; 64]).is_ok() {
            received += 1;
        }
        Ok(received)
    }
}

/// Somewhere behind the server, set aside for documentation (RFC 3849).
const BEYOND6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);

/// A server that a client takes for an IPv6 router.
#[derive(Debug)]
pub struct Router6(Network);

impl Router6 {
    /// It forwards, and has a route of the type `kind` to where packets are for; without one, it does not
    /// forward.
    ///
    /// # Errors
    /// As [`Network::direct`], and without IPv6.
    pub fn new(kind: Option<&str>) -> Result<Self> {
        let network = Network::direct()?;
        network.enable_ipv6()?;
        network.client().ip(&format!("route add {BEYOND6}/128 via {SERVER6}"))?;
        let server = network.server();
        server.ip("link add other0 type veth peer name other1")?;
        server.sysctl("net/ipv6/conf/other0/addr_gen_mode", "1")?;
        server.sysctl("net/ipv6/conf/other0/disable_ipv6", "0")?;
        server.ip("link set other0 up")?;
        server.ip("link set other1 up")?;
        server.ip(&format!("neigh add {BEYOND6} lladdr 02:00:00:00:00:09 dev other0"))?;
        // A wider route leads on, which is left when the narrower one is gone.
        server.ip("route add 2001:db8::/48 dev other0")?;
        if let Some(kind) = kind {
            server.sysctl("net/ipv6/conf/all/forwarding", "1")?;
            server.ip(&format!("route add {kind} 2001:db8::/64"))?;
        }
        Ok(Self(network))
    }
}

impl Cause for Router6 {
    fn netns(&self) -> &Netns {
        self.0.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        self.0.datagrams(&self.0.source(CLIENT6)?, (BEYOND6, PORT), packets)
    }
}

/// A server that gets what is for another address of its link: the client has its link-layer address
/// for that one, and keeps it.
#[derive(Debug)]
pub struct Moved(Network);

impl Moved {
    /// The address that has moved away.
    pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 9, 100);

    /// # Errors
    /// As [`Network::direct`].
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        network.server().sysctl("net/ipv4/ip_forward", "0")?;
        pin(&network, &Self::ADDRESS.to_string())?;
        network.listen(Ipv4Addr::UNSPECIFIED)?;
        Ok(Self(network))
    }

    /// It comes back.
    ///
    /// # Errors
    /// When it cannot.
    pub fn come_back(&self) -> Result<()> {
        self.0.server().ip(&format!("address add {}/32 dev lo", Self::ADDRESS)).map(drop)
    }
}

/// Has the client take the server for the one that has `address`.
fn pin(network: &Network, address: &str) -> Result<()> {
    let mac = SERVER_MAC.map(|byte| format!("{byte:02x}")).join(":");
    let entry = format!("neigh replace {address} lladdr {mac} dev {LINK} nud permanent");
    network.client().ip(&entry).map(drop)
}

impl Cause for Moved {
    fn netns(&self) -> &Netns {
        self.0.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        self.0.datagrams(&self.0.source(CLIENT)?, (Self::ADDRESS, PORT), packets)
    }
}

/// A server that may not use one of its addresses, since the client has it, too.
#[derive(Debug)]
pub struct Duplicate(Network);

impl Duplicate {
    /// The address of both.
    pub const ADDRESS: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 5);

    /// # Errors
    /// As [`Network::direct`], without IPv6, and where the server uses the address.
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        network.enable_ipv6()?;
        let (client, server) = (network.client(), network.server());
        let address = Self::ADDRESS;
        client.ip(&format!("address add {address}/64 dev {LINK} nodad"))?;
        server.ip(&format!("address add {address}/64 dev {LINK}"))?;
        let deadline = Instant::now() + longer(Duration::from_secs(10));
        while server.ip(&format!("-6 address show dev {LINK} dadfailed"))?.is_empty() {
            ensure!(Instant::now() < deadline, "both have {address}, and nobody minds");
            thread::sleep(Duration::from_millis(50));
        }
        client.ip(&format!("address del {address}/64 dev {LINK}"))?;
        pin(&network, &address.to_string())?;
        Ok(Self(network))
    }

    /// The server gets it once more, and does not ask.
    ///
    /// # Errors
    /// When it cannot.
    pub fn settle(&self) -> Result<()> {
        let server = self.0.server();
        server.ip(&format!("address del {}/64 dev {LINK}", Self::ADDRESS))?;
        server.ip(&format!("address add {}/64 dev {LINK} nodad", Self::ADDRESS))?;
        self.0.listen(Self::ADDRESS)
    }
}

impl Cause for Duplicate {
    fn netns(&self) -> &Netns {
        self.0.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        self.0.datagrams(&self.0.source(CLIENT6)?, (Self::ADDRESS, PORT), packets)
    }
}

/// A server whose only link takes no IPv6, which the client does not know.
#[derive(Debug)]
pub struct Ipv6Off(Network);

impl Ipv6Off {
    /// # Errors
    /// As [`Network::direct`], and without IPv6.
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        network.enable_ipv6()?;
        pin(&network, &SERVER6.to_string())?;
        network.server().sysctl(&format!("net/ipv6/conf/{LINK}/disable_ipv6"), "1")?;
        Ok(Self(network))
    }

    /// The link has its address again, which it has lost with IPv6.
    ///
    /// # Errors
    /// When it cannot be added.
    pub fn add(&self) -> Result<()> {
        self.0.server().ip(&format!("address add {SERVER6}/64 dev {LINK} nodad"))?;
        self.0.listen(SERVER6)
    }
}

impl Cause for Ipv6Off {
    fn netns(&self) -> &Netns {
        self.0.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        self.0.datagrams(&self.0.source(CLIENT6)?, (SERVER6, PORT), packets)
    }
}
