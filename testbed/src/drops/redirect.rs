//! Traffic control: a filter at the receiving link that hands packets over to another device.

use std::net::UdpSocket;

use anyhow::{Context, Result};

use super::{
    Cause, PORT,
    network::{CLIENT, LINK, Network, SERVER},
};
use crate::{command::output, netns::Netns};

/// A server that redirects datagrams to [`PORT`] to a device (`ifb`), from which they come in again.
#[derive(Debug)]
pub struct Redirected {
    network: Network,
    _inbox: UdpSocket,
}

impl Redirected {
    const TARGET: &str = "ifb0";

    /// That device is up.
    ///
    /// # Errors
    /// As [`Network::direct`], and without `tc`, or cls_u32, act_mirred and ifb in the kernel.
    pub fn new() -> Result<Self> {
        let this = Self::to_nowhere()?;
        this.network.server().ip(&format!("link set {} up", Self::TARGET))?;
        Ok(this)
    }

    /// That device is down.
    ///
    /// # Errors
    /// As [`Redirected::new`].
    pub fn to_nowhere() -> Result<Self> {
        let network = Network::direct()?;
        let server = network.server();
        server.ip(&format!("link add {} type ifb", Self::TARGET))?;
        let filter = format!(
            "filter add dev {LINK} ingress protocol ip u32 match ip dport {PORT} 0xffff action mirred \
             egress redirect dev {}",
            Self::TARGET
        );
        for arguments in [format!("qdisc add dev {LINK} clsact"), filter] {
            output(server.command("tc").args(arguments.split(' ')))?;
        }
        let inbox = server
            .enter(|| UdpSocket::bind((SERVER, PORT)).context("cannot bind the server's socket"))?;
        Ok(Self { network, _inbox: inbox })
    }
}

impl Cause for Redirected {
    fn netns(&self) -> &Netns {
        self.network.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        self.network.datagrams(&self.network.source(CLIENT)?, (SERVER, PORT), packets)
    }
}
