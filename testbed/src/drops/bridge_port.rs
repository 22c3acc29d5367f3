//! A bridge whose ports do not send on what comes in.

use std::{
    net::{SocketAddrV4, UdpSocket},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    Cause, PORT, SOURCE_PORT,
    frame::Frame,
    network::{CLIENT, CLIENT_MAC, CLIENT_SIDE, LINK, Network, SERVER, SERVER_MAC, SERVER_SIDE},
};
use crate::{command::output, machine::longer, netns::Netns};

/// A client, a server, and a bridge between them.
#[derive(Debug)]
pub struct Ports {
    network: Network,
    source: UdpSocket,
    _inbox: UdpSocket,
    sends: Sends,
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
        Ok(Self { network, source, _inbox: inbox, sends })
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
                        .send_to(&vec![0; *bytes], (SERVER, PORT))
                        .context("cannot send a datagram")?;
                }
                sleep(longer(Duration::from_millis(200)));
                Ok(packets)
            }
        }
    }
}
