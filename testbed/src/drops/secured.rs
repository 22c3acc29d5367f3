//! Packets that IPsec refuses, or does not send.

use std::net::UdpSocket;

use anyhow::{Context, Result};

use super::{
    Cause, PORT,
    network::{CLIENT, Network, SERVER},
};
use crate::netns::Netns;

/// A client and a server, one of which has an IPsec policy and neither of which has a state.
#[derive(Debug)]
pub struct Secured {
    network: Network,
    /// Whether the policy is the server's, for what comes in.
    came_in: bool,
    _reader: UdpSocket,
}

impl Secured {
    /// The server demands protection for what comes in.
    ///
    /// # Errors
    /// As [`Network::direct`], and without IPsec; so for all of them.
    pub fn demanded() -> Result<Self> {
        Self::of(true, "required")
    }

    /// The server takes what comes in with or without it.
    pub fn optional() -> Result<Self> {
        Self::of(true, "use")
    }

    /// The client is to protect what it sends, and has no state to do it by.
    pub fn without_state() -> Result<Self> {
        Self::of(false, "required")
    }

    fn of(came_in: bool, level: &str) -> Result<Self> {
        let network = Network::direct()?;
        let reader =
            network.server().enter(|| UdpSocket::bind((SERVER, PORT)).context("cannot bind"))?;
        let secured = Self { network, came_in, _reader: reader };
        let (from, to) = (CLIENT, SERVER);
        // Of that port alone: tokens have another one.
        secured.netns().ip(&format!(
            "xfrm policy add src {from}/32 dst {to}/32 proto udp dport {PORT} dir {} priority 100 \
             tmpl src {from} dst {to} proto esp reqid 1 mode transport level {level}",
            if came_in { "in" } else { "out" }
        ))?;
        Ok(secured)
    }

    /// Removes the policy.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn open(&self) -> Result<()> {
        self.netns().ip("xfrm policy flush").map(drop)
    }

    /// A counter of `/proc/net/xfrm_stat`.
    ///
    /// # Errors
    /// Where the kernel does not have it.
    pub fn counted(&self, name: &str) -> Result<u64> {
        let counters = self.netns().proc_net("xfrm_stat")?;
        let line = counters.lines().find(|line| line.split_whitespace().next() == Some(name));
        let value = line.and_then(|line| line.split_whitespace().nth(1));
        value.with_context(|| format!("no counter {name}"))?.parse().context("no number")
    }
}

impl Cause for Secured {
    fn netns(&self) -> &Netns {
        if self.came_in { self.network.server() } else { self.network.client() }
    }

    fn send(&self, packets: u64) -> Result<u64> {
        let source = self.network.source(CLIENT)?;
        if self.came_in {
            return self.network.datagrams(&source, (SERVER, PORT), packets);
        }
        self.network.client().enter(|| {
            for _ in 0..packets {
                // What is lost is sent, as far as the program is told.
                source.send_to(b"secret", (SERVER, PORT)).context("cannot send")?;
            }
            Ok(packets)
        })
    }
}
