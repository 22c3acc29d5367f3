//! Rules and policies of every kind of packet filter that refuse datagrams to [`PORT`].

use std::net::IpAddr;

use anyhow::Result;

use super::{
    Cause, PORT,
    filter::need_filtering_bridges,
    network::{CLIENT, CLIENT6, LINK, Network, SERVER, SERVER6},
};
use crate::{command::output, netns::Netns, udp::Family};

/// Takes all rules of nft away.
pub const NO_RULES: &str = "nft flush ruleset";

/// A network, and rules in the namespace that its packets go through.
#[derive(Debug)]
pub struct Ruled {
    network: Network,
    family: Family,
    /// Takes the rules away.
    undo: &'static str,
}

/// Where packets meet the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the server, which gets packets of this family.
    Server(Family),
    /// In a router.
    Router,
    /// In a bridge.
    Bridge,
    /// In a bridge that has rules of IP asked, too (br_netfilter).
    BridgeOfIp,
}

impl Ruled {
    /// Makes rules by `rules`, which a shell runs there; `undo` takes them away.
    ///
    /// # Errors
    /// As [`Network::direct`], without the filter's programs, and where bridges ask no rules of IP.
    pub fn new(place: Place, rules: &str, undo: &'static str) -> Result<Self> {
        let (network, family) = match place {
            Place::Server(family) => (Network::direct()?, family),
            Place::Router => (Network::routed()?, Family::V4),
            Place::Bridge | Place::BridgeOfIp => (Network::bridged()?, Family::V4),
        };
        if family == Family::V6 {
            network.enable_ipv6()?;
        }
        if place == Place::BridgeOfIp {
            need_filtering_bridges()?;
            network.between().sysctl("net/bridge/bridge-nf-call-iptables", "1")?;
        }
        let this = Self { network, family, undo };
        this.network.listen(this.ends().1)?;
        this.run(rules)?;
        Ok(this)
    }

    /// A rule of nft that counts drops what a bridge forwards, in the family of bridges.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn bridge_by_nft() -> Result<Self> {
        let hook = "type filter hook forward priority 0;";
        Self::new(Place::Bridge, &counted_by_nft("bridge", hook), NO_RULES)
    }

    /// A rule of nft that counts drops what comes in by the server's link, before any protocol has it.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn ingress_by_nft() -> Result<Self> {
        let hook = format!("type filter hook ingress device {LINK} priority 0;");
        Self::new(Place::Server(Family::V4), &counted_by_nft("netdev", &hook), NO_RULES)
    }

    /// The rules are taken away.
    ///
    /// # Errors
    /// When they cannot.
    pub fn open(&self) -> Result<()> {
        self.run(self.undo)
    }

    fn run(&self, rules: &str) -> Result<()> {
        output(self.network.between().command("sh").args(["-ec", rules])).map(drop)
    }

    fn ends(&self) -> (IpAddr, IpAddr) {
        match self.family {
            Family::V4 => (CLIENT.into(), SERVER.into()),
            Family::V6 => (CLIENT6.into(), SERVER6.into()),
        }
    }
}

/// In a table of this family and a chain at this hook, one rule that counts what it drops.
fn counted_by_nft(family: &str, hook: &str) -> String {
    format!(
        "nft add table {family} t
        nft 'add chain {family} t c {{ {hook} }}'
        nft add rule {family} t c udp dport {PORT} counter drop"
    )
}

impl Cause for Ruled {
    fn netns(&self) -> &Netns {
        self.network.between()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        let (client, server) = self.ends();
        self.network.datagrams(&self.network.source(client)?, (server, PORT), packets)
    }
}
