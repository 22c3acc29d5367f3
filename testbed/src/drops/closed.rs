//! Ports where nobody listens.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{
    Cause, PORT,
    network::{CLIENT, CLIENT6, Network, SERVER, SERVER6},
};
use crate::{machine::longer, netns::Netns, udp::Family};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Each connection attempt is one SYN, which is answered with a reset.
    Tcp,
    /// Datagrams, answered with ICMP as often as its limits allow.
    Udp,
}

/// A server without any service.
#[derive(Debug)]
pub struct Closed {
    network: Network,
    transport: Transport,
    family: Family,
    listener: Option<TcpListener>,
}

impl Closed {
    /// # Errors
    /// As [`Network::direct`], and without IPv6 where that is asked for.
    pub fn new(transport: Transport, family: Family) -> Result<Self> {
        let network = Network::direct()?;
        if family == Family::V6 {
            network.enable_ipv6()?;
        }
        Ok(Self { network, transport, family, listener: None })
    }

    /// The service is started.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn open(&mut self) -> Result<()> {
        let (_, server) = self.ends();
        match self.transport {
            Transport::Udp => self.network.listen(server),
            Transport::Tcp => {
                let listen = || TcpListener::bind((server, PORT)).context("cannot listen");
                self.listener = Some(self.network.server().enter(listen)?);
                Ok(())
            }
        }
    }

    /// Addresses of the client and of the server.
    pub fn ends(&self) -> (IpAddr, IpAddr) {
        match self.family {
            Family::V4 => (CLIENT.into(), SERVER.into()),
            Family::V6 => (CLIENT6.into(), SERVER6.into()),
        }
    }

    /// Tries to connect `times` times, from another port each time.
    fn knock(&self, server: SocketAddr, times: u64) -> Result<u64> {
        // Less than a SYN takes to be sent again (TCP_TIMEOUT_INIT, 1 s), where the machine is not
        // too slow for that.
        let patience = longer(Duration::from_millis(900));
        self.network.client().enter(|| {
            for knock in 0..times {
                match TcpStream::connect_timeout(&server, patience) {
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                    Err(error) => bail!("connection {knock} of {times} to {server}: {error}"),
                    Ok(_) if self.listener.is_some() => {}
                    Ok(_) => bail!("somebody listens at {server}"),
                }
            }
            Ok(times)
        })
    }
}

impl Cause for Closed {
    fn netns(&self) -> &Netns {
        self.network.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        let (client, server) = self.ends();
        let server = SocketAddr::from((server, PORT));
        match self.transport {
            Transport::Tcp => self.knock(server, packets),
            Transport::Udp => {
                self.network.datagrams(&self.network.source(client)?, server, packets)
            }
        }
    }
}
