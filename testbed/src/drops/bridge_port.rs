//! A bridge whose ports do not send on what comes in.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    Cause, PORT, SOURCE_PORT,
    filter::need_filtering_bridges,
    frame::Frame,
    network::{CLIENT, CLIENT_MAC, CLIENT_SIDE, LINK, Network, SERVER, SERVER_MAC, SERVER_SIDE},
};
use crate::{command::output, machine::longer, netns::Netns};

/// The address of a service, which the bridge's host translates (RFC 5737), and its own.
const SERVICE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 12);
const HOST: Ipv4Addr = Ipv4Addr::new(198, 18, 3, 1);
const HOST_MAC: &str = "02:00:00:00:00:33";

/// A client, a server, and a bridge between them.
#[derive(Debug)]
pub struct Ports {
    network: Network,
    source: UdpSocket,
    inbox: UdpSocket,
    sends: Sends,
    to: Ipv4Addr,
}

#[derive(Debug)]
enum Sends {
    /// Datagrams to the server, of so many bytes.
    Datagrams(usize),
    /// A frame from the client's link, by which the client itself is reached.
    Frames(Vec<u8>),
}

impl Ports {
    /// A VLAN that only some ports have.
    pub const VLAN: u16 = 30;
    /// Another station behind the client's port.
    const NEIGHBOUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x55];

    fn new(sends: Sends) -> Result<Self> {
        let network = Network::bridged()?;
        let source = network.source(CLIENT)?;
        let inbox = network
            .server()
            .enter(|| UdpSocket::bind((SERVER, PORT)).context("cannot bind the server's socket"))?;
        Ok(Self { network, source, inbox, sends, to: SERVER })
    }

    /// A service that the bridge's host translates to one of its stations, and that station calls it: the
    /// datagram would leave by the port that it came in by.
    ///
    /// # Errors
    /// Without iptables-legacy, too, and where bridges ask no rules of IP.
    pub fn own_service() -> Result<Self> {
        need_filtering_bridges()?;
        let mut this = Self::new(Sends::Datagrams(100))?;
        let (client, host) = (this.network.client(), this.network.between());
        host.ip(&format!("address add {HOST}/16 dev br0"))?;
        client.ip(&format!("route add {SERVICE}/32 via {HOST}"))?;
        // Both know each other, so that nothing waits for that.
        let mac = CLIENT_MAC.map(|byte| format!("{byte:02x}")).join(":");
        host.ip(&format!("link set br0 address {HOST_MAC}"))?;
        host.ip(&format!("neigh replace {CLIENT} lladdr {mac} dev br0 nud permanent"))?;
        client.ip(&format!("neigh replace {HOST} lladdr {HOST_MAC} dev {LINK} nud permanent"))?;
        host.sysctl("net/ipv4/ip_forward", "1")?;
        host.sysctl("net/bridge/bridge-nf-call-iptables", "1")?;
        for rule in [
            format!(
                "PREROUTING -d {SERVICE} -p udp --dport {PORT} -j DNAT --to-destination {CLIENT}"
            ),
            format!("POSTROUTING -s {CLIENT} -d {CLIENT} -j MASQUERADE"),
        ] {
            let rule = format!("-w -t nat -A {rule}");
            output(host.command("iptables-legacy").args(rule.split(' ')))?;
        }
        this.inbox =
            client.enter(|| UdpSocket::bind((CLIENT, PORT)).context("cannot bind the service"))?;
        this.to = SERVICE;
        Ok(this)
    }

    /// A frame to the client, which comes in by the client's port.
    fn to_client(source: [u8; 6]) -> Sends {
        let (from, to) = (SocketAddrV4::new(SERVER, PORT), SocketAddrV4::new(CLIENT, SOURCE_PORT));
        let frame = Frame { source, destination: CLIENT_MAC, vlan: None, from, to };
        Sends::Frames(frame.bytes())
    }

    fn port(&self, port: &str, setting: &str) -> Result<()> {
        let mut command = self.network.between().command("bridge");
        command.args(["link", "set", "dev", port]).args(setting.split(' '));
        output(&mut command).map(drop)
    }

    /// All of it works.
    ///
    /// # Errors
    /// As [`Network::bridged`]; so for all kinds of ports.
    pub fn healthy() -> Result<Self> {
        Self::new(Sends::Datagrams(100))
    }

    /// The client sends to an address that leads back to itself.
    pub fn back() -> Result<Self> {
        Self::new(Self::to_client(CLIENT_MAC))
    }

    /// The same, and the port may send back.
    pub fn back_with_hairpin() -> Result<Self> {
        let this = Self::back()?;
        this.port(CLIENT_SIDE, "hairpin on")?;
        Ok(this)
    }

    /// Two stations behind one port send to each other, which is none of the bridge's business.
    pub fn behind_one_port() -> Result<Self> {
        Self::new(Self::to_client(Self::NEIGHBOUR_MAC))
    }

    /// Client and server are kept apart.
    pub fn isolated() -> Result<Self> {
        let this = Self::healthy()?;
        this.port(CLIENT_SIDE, "isolated on")?;
        this.port(SERVER_SIDE, "isolated on")?;
        Ok(this)
    }

    /// The client's port is switched off, though its link is up.
    pub fn disabled() -> Result<Self> {
        let this = Self::healthy()?;
        this.port(CLIENT_SIDE, "state 0")?;
        Ok(this)
    }

    /// The bridge filters VLANs, and the client sends in one that the server's port has; `both` ports have
    /// it, or the client's does not.
    pub fn tagged(both: bool) -> Result<Self> {
        let (from, to) = (SocketAddrV4::new(CLIENT, SOURCE_PORT), SocketAddrV4::new(SERVER, PORT));
        let (source, destination) = (CLIENT_MAC, SERVER_MAC);
        let frame = Frame { source, destination, vlan: Some(Self::VLAN), from, to };
        let this = Self::new(Sends::Frames(frame.bytes()))?;
        this.network.between().ip("link set br0 type bridge vlan_filtering 1")?;
        // What gets there is taken in.
        let server = this.network.server();
        server.ip(&format!("link add link {LINK} name tagged type vlan id {}", Self::VLAN))?;
        server.sysctl("net/ipv4/conf/all/rp_filter", "0")?;
        server.sysctl("net/ipv4/conf/tagged/rp_filter", "0")?;
        server.ip("link set tagged up")?;
        let ports = if both { &[CLIENT_SIDE, SERVER_SIDE][..] } else { &[SERVER_SIDE] };
        for port in ports {
            let mut command = this.network.between().command("bridge");
            command.args(["vlan", "add", "dev", port, "vid", &Self::VLAN.to_string()]);
            output(&mut command)?;
        }
        Ok(this)
    }

    /// The server's port takes less than the client's.
    pub fn narrow() -> Result<Self> {
        let this = Self::new(Sends::Datagrams(1_400))?;
        this.network.between().ip(&format!("link set {SERVER_SIDE} mtu 1280"))?;
        Ok(this)
    }
}

impl Cause for Ports {
    fn netns(&self) -> &Netns {
        self.network.between()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        match &self.sends {
            Sends::Frames(frame) => self.network.frames(frame.clone(), packets),
            Sends::Datagrams(bytes) => {
                for _ in 0..packets {
                    self.source
                        .send_to(&vec![0; *bytes], (self.to, PORT))
                        .context("cannot send a datagram")?;
                }
                sleep(longer(Duration::from_millis(200)));
                Ok(packets)
            }
        }
    }
}
