//! A router that translates addresses: without a free port, to a place that is gone, or not at all.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    Cause, PORT,
    frame::Frame,
    neighbour::wait_for_answer,
    network::{CLIENT, LINK, Network, SERVER, SERVER_MAC, SERVER_SIDE},
};
use crate::{
    command::output, counters, flood::PacketSocket, machine::longer, netns::Netns,
    socket::stream_numbers,
};

/// The address of a service, which the router translates (RFC 5737).
pub const SERVICE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 4);
/// Beside the server, and nobody's.
const GONE: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 9);

fn iptables(netns: &Netns, rule: &str) -> Result<()> {
    output(netns.command("iptables-legacy").arg("-w").args(rule.split(' '))).map(drop)
}

/// What writes and keeps the rule of a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    IptablesLegacy,
    /// The program of iptables that works on nftables.
    IptablesNft,
    Nft,
}

impl Keeps {
    /// Gives connections to the server's [`PORT`] these ports.
    fn translate(self, netns: &Netns, ports: &str) -> Result<()> {
        let program = match self {
            Self::IptablesLegacy => "iptables-legacy",
            Self::IptablesNft => "iptables-nft",
            Self::Nft => {
                let rules = format!(
                    "add table ip masq; add chain ip masq out {{ type nat hook postrouting priority \
                     100; }}; add rule ip masq out oifname {SERVER_SIDE} udp dport {PORT} counter \
                     masquerade to :{ports}"
                );
                return output(netns.command("nft").arg(rules)).map(drop);
            }
        };
        let rule = format!(
            "-t nat -A POSTROUTING -o {SERVER_SIDE} -p udp --dport {PORT} -j MASQUERADE --to-ports \
             {ports}"
        );
        output(netns.command(program).arg("-w").args(rule.split(' '))).map(drop)
    }
}

/// A router whose rule gives connections one of few ports.
#[derive(Debug)]
pub struct FewPorts {
    network: Network,
    _reader: UdpSocket,
}

impl FewPorts {
    /// Ports that the narrow rule has.
    pub const PORTS: u64 = 5;

    /// # Errors
    /// As [`Network::routed`], and without the program; so for all three.
    pub fn new(keeps: Keeps) -> Result<Self> {
        Self::of(keeps, &format!("40000-{}", 40_000 + Self::PORTS - 1))
    }

    /// The rule has one port, which it matches, too.
    pub fn one(keeps: Keeps) -> Result<Self> {
        Self::of(keeps, &PORT.to_string())
    }

    /// The rule has ports for all.
    pub fn enough(keeps: Keeps) -> Result<Self> {
        Self::of(keeps, "40000-49999")
    }

    fn of(keeps: Keeps, ports: &str) -> Result<Self> {
        let network = Network::routed()?;
        let reader =
            network.server().enter(|| UdpSocket::bind((SERVER, PORT)).context("cannot bind"))?;
        keeps.translate(network.between(), ports)?;
        Ok(Self { network, _reader: reader })
    }

    /// What the router's own counter says of connections without a port.
    ///
    /// # Errors
    /// When `conntrack` fails.
    pub fn failed(&self) -> Result<u64> {
        counters::conntrack(self.network.between(), "insert_failed")
    }
}

/// Connections, each of another port of the client's.
impl Cause for FewPorts {
    fn netns(&self) -> &Netns {
        self.network.between()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        for _ in 0..packets {
            let source = self
                .network
                .client()
                .enter(|| UdpSocket::bind((CLIENT, 0)).context("cannot bind"))?;
            self.network.datagrams(&source, (SERVER, PORT), 1)?;
        }
        Ok(packets)
    }
}

/// A service that has moved to the server, and a client whose connection is older.
#[derive(Debug)]
pub struct Moved {
    network: Network,
    _reader: UdpSocket,
}

impl Moved {
    /// # Errors
    /// As [`Network::routed`], and without iptables-legacy; so for both.
    pub fn new() -> Result<Self> {
        let moved = Self::down()?;
        iptables(moved.network.between(), "-t nat -F PREROUTING")?;
        moved.leads_to(SERVER)?;
        Ok(moved)
    }

    /// The service is where it was, and nobody is there.
    pub fn down() -> Result<Self> {
        let network = Network::routed()?;
        let reader =
            network.server().enter(|| UdpSocket::bind((SERVER, PORT)).context("cannot bind"))?;
        let moved = Self { network, _reader: reader };
        moved.leads_to(GONE)?;
        moved.send(1)?;
        Ok(moved)
    }

    fn leads_to(&self, place: Ipv4Addr) -> Result<()> {
        let rule = format!(
            "-t nat -A PREROUTING -d {SERVICE} -p udp --dport {PORT} -j DNAT --to-destination {place}"
        );
        iptables(self.network.between(), &rule)
    }
}

impl Cause for Moved {
    fn netns(&self) -> &Netns {
        self.network.between()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        let sent =
            self.network.datagrams(&self.network.source(CLIENT)?, (SERVICE, PORT), packets)?;
        // The router asks three times before it gives up and drops what waits.
        wait_for_answer(self.network.between(), GONE)?;
        Ok(sent)
    }
}

/// A server whose segments are outside of their connection's window, so that the router does not know
/// them for answers.
#[derive(Debug)]
pub struct OutOfWindow {
    network: Network,
    server: TcpListener,
    router: [u8; 6],
}

impl OutOfWindow {
    const PORT: u16 = 8080;

    /// # Errors
    /// As [`Network::routed`], and without iptables-legacy.
    pub fn new() -> Result<Self> {
        let network = Network::routed()?;
        let server = network
            .server()
            .enter(|| TcpListener::bind((SERVER, Self::PORT)).context("cannot listen"))?;
        let rule = format!(
            "-t nat -A PREROUTING -d {SERVICE} -p tcp --dport 80 -j DNAT --to-destination \
             {SERVER}:{}",
            Self::PORT
        );
        iptables(network.between(), &rule)?;
        let shown = network.between().ip(&format!("-o link show dev {SERVER_SIDE}"))?;
        let router = mac(&shown).context("the router's link has no address")?;
        Ok(Self { network, server, router })
    }

    /// Where the segments are dropped.
    pub fn client(&self) -> &Netns {
        self.network.client()
    }

    /// What the router's own counter says of segments that fit no connection.
    ///
    /// # Errors
    /// When `conntrack` fails.
    pub fn invalid(&self) -> Result<u64> {
        counters::conntrack(self.network.between(), "invalid")
    }
}

/// Segments of the server's that the client refuses.
impl Cause for OutOfWindow {
    fn netns(&self) -> &Netns {
        self.network.between()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        let patience = longer(Duration::from_secs(5));
        let mut client = self.network.client().enter(|| {
            TcpStream::connect_timeout(&(SERVICE, 80).into(), patience).context("cannot connect")
        })?;
        let (mut accepted, from) = self.server.accept().context("no connection")?;
        client.write_all(b"hello")?;
        accepted.set_read_timeout(Some(patience))?;
        accepted.read_exact(&mut [0; 5])?;
        let to = SocketAddrV4::new(CLIENT, from.port());
        let frame = Frame {
            source: SERVER_MAC,
            destination: self.router,
            vlan: None,
            from: SocketAddrV4::new(SERVER, Self::PORT),
            to,
        };
        // Beyond what the client may be sent by now; what is behind it counts as sent again.
        let [next, expected] = stream_numbers(&accepted).context("cannot ask for numbers")?;
        let far = next.wrapping_add(1 << 30);
        // In two bursts, more than a second apart: each report that has one can tell.
        let sent = self.network.server().enter(|| {
            let (socket, mut data) = (PacketSocket::open(LINK)?, frame.data(far, expected));
            let first = socket.send(&mut data, packets / 2)?.accepted;
            thread::sleep(longer(Duration::from_millis(1_300)));
            Ok(first + socket.send(&mut data, packets - packets / 2)?.accepted)
        })?;
        // Their resets end the server's connection, after which it has nothing more to say.
        thread::sleep(longer(Duration::from_millis(500)));
        Ok(sent)
    }
}

/// The address in a line of `ip -o link show`.
fn mac(line: &str) -> Option<[u8; 6]> {
    let (_, after) = line.split_once("link/ether ")?;
    let text = after.split_whitespace().next()?;
    let bytes: Option<Vec<u8>> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stands_behind_its_kind() {
        let line = "3: port1@if2: <UP> mtu 1500 \\    link/ether 0a:00:00:00:00:ff brd ff:ff";
        assert_eq!(mac(line), Some([10, 0, 0, 0, 0, 255]));
        assert_eq!(mac("link/loopback 00"), None);
        assert_eq!(mac("link/ether 0a:00"), None);
    }
}
