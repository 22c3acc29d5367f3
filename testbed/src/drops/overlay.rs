//! A VXLAN network between two hosts, of which one does not know where the other's stations are.

use std::net::{Ipv4Addr, UdpSocket};

use anyhow::{Context, Result};

use super::{
    Cause, PORT,
    network::{CLIENT, Network, SERVER},
};
use crate::{command::output, netns::Netns};

/// The client's device has no remote; the server's has the client for its own.
#[derive(Debug)]
pub struct Overlay {
    network: Network,
    source: UdpSocket,
    inbox: UdpSocket,
}

impl Overlay {
    pub const DEVICE: &str = "vx0";
    /// The server's station.
    pub const STATION: &str = "02:00:00:00:42:01";
    const NEAR: Ipv4Addr = Ipv4Addr::new(198, 19, 42, 2);
    const FAR: Ipv4Addr = Ipv4Addr::new(198, 19, 42, 1);

    /// # Errors
    /// As [`Network::direct`], and without VXLAN.
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        let ends = [
            (network.client(), Self::NEAR, CLIENT, "02:00:00:00:42:02", None),
            (network.server(), Self::FAR, SERVER, Self::STATION, Some(CLIENT)),
        ];
        for (netns, address, local, station, remote) in ends {
            let remote = remote.map(|remote| format!(" remote {remote}")).unwrap_or_default();
            let device = Self::DEVICE;
            netns.ip(&format!(
                "link add {device} address {station} type vxlan id 42 dstport 4789 local {local}{remote} \
                 nolearning"
            ))?;
            netns.ip(&format!("address add {address}/24 dev {device}"))?;
            netns.ip(&format!("link set {device} up"))?;
        }
        let neighbour = format!("neigh add {} lladdr {}", Self::FAR, Self::STATION);
        network.client().ip(&format!("{neighbour} dev {}", Self::DEVICE))?;
        let bind = |netns: &Netns, to| {
            netns.enter(|| UdpSocket::bind(to).context("cannot bind to the device's address"))
        };
        let inbox = bind(network.server(), (Self::FAR, PORT))?;
        let source = bind(network.client(), (Self::NEAR, 0))?;
        Ok(Self { network, source, inbox })
    }

    /// Tells the client's device where the station is.
    ///
    /// # Errors
    /// When `bridge` fails.
    pub fn mend(&self) -> Result<()> {
        let mut command = self.network.client().command("bridge");
        command.args(["fdb", "append", Self::STATION, "dev", Self::DEVICE, "dst"]);
        output(command.arg(SERVER.to_string())).map(drop)
    }

    /// Datagrams that the server has got.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn received(&self) -> Result<u64> {
        let mut received = 0;
        self.inbox.set_nonblocking(true)?;
        while self.inbox.recv(&mut [0; 64]).is_ok() {
            received += 1;
        }
        Ok(received)
    }
}

impl Cause for Overlay {
    fn netns(&self) -> &Netns {
        self.network.client()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        self.network.datagrams(&self.source, (Self::FAR, PORT), packets)
    }
}
