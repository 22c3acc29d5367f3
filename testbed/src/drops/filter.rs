//! Packet filters: one rule that drops datagrams to [`PORT`].

use std::{net::Ipv4Addr, path::Path};

use anyhow::{Context, Result, ensure};

use super::{
    Cause, PORT,
    network::{CLIENT, CLIENT_MAC, Network, SERVER},
};
use crate::{command::output, netns::Netns};

/// A network with a filter somewhere on the way.
#[derive(Debug)]
pub struct Filtered(Network);

impl Filtered {
    /// A rule of iptables drops what comes in to the server (INPUT).
    ///
    /// # Errors
    /// As [`Network::direct`], and without the filter's program; so for all of them.
    pub fn input_by_iptables() -> Result<Self> {
        Self::by_iptables(Network::direct()?, "INPUT")
    }

    /// A rule of iptables drops what a router forwards (FORWARD).
    pub fn forward_by_iptables() -> Result<Self> {
        Self::by_iptables(Network::routed()?, "FORWARD")
    }

    /// A rule of iptables drops what a bridge forwards (FORWARD): bridges pass IP packets through
    /// the filters of IP where br_netfilter is there.
    ///
    /// # Errors
    /// Without br_netfilter, too: see [`bridges_filter`].
    pub fn bridge_by_iptables() -> Result<Self> {
        need_filtering_bridges()?;
        let network = Network::bridged()?;
        network.between().sysctl("net/bridge/bridge-nf-call-iptables", "1")?;
        Self::by_iptables(network, "FORWARD")
    }

    fn by_iptables(network: Network, chain: &str) -> Result<Self> {
        network.listen(SERVER)?;
        let rule = format!("-w -A {chain} -p udp --dport {PORT} -j DROP");
        output(network.between().command("iptables-legacy").args(rule.split(' ')))?;
        Ok(Self(network))
    }

    /// Packets that the rule of iptables has dropped, by its own counter.
    ///
    /// # Errors
    /// Where the filter is not of iptables.
    pub fn dropped(&self) -> Result<u64> {
        let list = ["-w", "-n", "-v", "-x", "-L"];
        let listed = output(self.0.between().command("iptables-legacy").args(list))?;
        let port = format!("dpt:{PORT}");
        let rule = listed.lines().find(|line| line.split_whitespace().any(|word| word == port));
        let packets = rule.and_then(|rule| rule.split_whitespace().next());
        packets.and_then(|packets| packets.parse().ok()).context("no rule of iptables")
    }

    /// A rule of nft drops what comes in to the server.
    pub fn input_by_nft() -> Result<Self> {
        let network = Network::direct()?;
        network.listen(SERVER)?;
        let rules = format!(
            "add table ip t; add chain ip t c {{ type filter hook input priority 0; }}; \
             add rule ip t c udp dport {PORT} drop"
        );
        output(network.server().command("nft").arg(rules))?;
        Ok(Self(network))
    }

    /// The rules are taken away.
    ///
    /// # Errors
    /// When they cannot.
    pub fn open(&self) -> Result<()> {
        output(self.0.between().command("iptables-legacy").args(["-w", "-F"]))?;
        output(self.0.between().command("nft").args(["flush", "ruleset"])).map(drop)
    }
}

/// Questions for the server's link-layer address (ARP), which a filter of the server drops.
#[derive(Debug)]
pub struct Questions(Network);

impl Questions {
    /// Who asks, which is no station of the network.
    pub const FROM: Ipv4Addr = Ipv4Addr::new(198, 18, 9, 9);

    /// A rule of nft that counts drops them.
    ///
    /// # Errors
    /// As [`Network::direct`], and without nft.
    pub fn by_nft() -> Result<Self> {
        let network = Network::direct()?;
        let rules = format!(
            "add table arp t; add chain arp t c {{ type filter hook input priority 0; }}; \
             add rule arp t c arp saddr ip {} counter drop",
            Self::FROM
        );
        output(network.server().command("nft").arg(rules))?;
        Ok(Self(network))
    }

    /// The second rule of arptables does.
    ///
    /// # Errors
    /// As [`Network::direct`], and without arptables-legacy.
    pub fn by_arptables() -> Result<Self> {
        let network = Network::direct()?;
        for from in [Ipv4Addr::new(198, 18, 9, 8), Self::FROM] {
            let rule = format!("-A INPUT -s {from} -j DROP");
            output(network.server().command("arptables-legacy").args(rule.split(' ')))?;
        }
        Ok(Self(network))
    }
}

impl Cause for Questions {
    fn netns(&self) -> &Netns {
        self.0.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        // RFC 826: Ethernet, IPv4, lengths of their addresses, a question.
        let head = [0, 1, 8, 0, 6, 4, 0, 1];
        let question = [&[0xff; 6][..], &CLIENT_MAC, &[8, 6], &head, &CLIENT_MAC];
        let addresses = [&Self::FROM.octets()[..], &[0; 6], &SERVER.octets()];
        let mut frame = [question.concat(), addresses.concat()].concat();
        frame.resize(60, 0);
        self.0.frames(frame, packets)
    }
}

/// Datagrams that come in fragments, each of which a rule of nft drops before they are put together.
#[derive(Debug)]
pub struct Fragments(Network);

impl Fragments {
    /// Fragments of each datagram; the first one alone has its ports.
    pub const EACH: u64 = 3;
    /// With headers 3,028 bytes, over links of 1,500.
    const PAYLOAD: [u8; 3_000] = [0; 3_000];

    /// # Errors
    /// As [`Network::direct`], and without nft.
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        // Before fragments are put together (NF_IP_PRI_CONNTRACK_DEFRAG, -400). The last one has 48
        // bytes of data; tokens have 8.
        let rules = "add table ip t; \
            add chain ip t c { type filter hook prerouting priority -450; }; \
            add rule ip t c ip length > 60 drop";
        output(network.server().command("nft").arg(rules))?;
        Ok(Self(network))
    }
}

impl Cause for Fragments {
    fn netns(&self) -> &Netns {
        self.0.server()
    }

    /// `packets` is a multiple of [`Fragments::EACH`].
    fn send(&self, packets: u64) -> Result<u64> {
        let source = self.0.source(CLIENT)?;
        let datagrams = packets / Self::EACH;
        let sent = self.0.datagrams_of(&Self::PAYLOAD, &source, (SERVER, PORT), datagrams)?;
        Ok(sent * Self::EACH)
    }
}

/// Whether bridges can have IP packets filtered on this host: br_netfilter is built in or loaded.
/// To load it would change what happens on the host's own bridges.
pub fn bridges_filter() -> bool {
    Path::new("/proc/sys/net/bridge").exists()
}

/// # Errors
/// Where [`bridges_filter`] says no.
pub(super) fn need_filtering_bridges() -> Result<()> {
    ensure!(bridges_filter(), "bridges do not filter IP here: no br_netfilter");
    Ok(())
}

impl Cause for Filtered {
    fn netns(&self) -> &Netns {
        self.0.between()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        self.0.datagrams(&self.0.source(CLIENT)?, (SERVER, PORT), packets)
    }
}
