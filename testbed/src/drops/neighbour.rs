//! A next hop that does not answer.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    Cause, PORT,
    network::{CLIENT, LINK, Network},
};
use crate::{host_value::HostValue, machine::longer, netns::Netns};

/// A client that asks for the link-layer address of a host which is not there.
///
/// What it sends meanwhile waits in the neighbour's queue. A packet that finds it full pushes the
/// oldest one out (NEIGH_QUEUEFULL); the rest is dropped when the kernel gives up (NEIGH_FAILED).
#[derive(Debug)]
pub struct SilentNeighbour {
    network: Network,
    /// The packets' owner, as long as this lives.
    source: UdpSocket,
}

impl SilentNeighbour {
    /// The host that is not there.
    pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 9, 9);
    /// Between two of the three questions, before the kernel gives up.
    const RETRANS: Duration = Duration::from_millis(300);

    /// All that is sent can wait.
    ///
    /// # Errors
    /// As [`Network::direct`].
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        let source = network.source(CLIENT)?;
        network.listen(Ipv4Addr::UNSPECIFIED)?;
        let this = Self { network, source };
        this.set("retrans_time_ms", Self::RETRANS.as_millis())?;
        Ok(this)
    }

    /// One packet can wait, the last one: so many bytes are exceeded by any second one.
    ///
    /// # Errors
    /// As [`Network::direct`].
    pub fn with_short_queue() -> Result<Self> {
        let this = Self::new()?;
        this.set("unres_qlen_bytes", 1)?;
        Ok(this)
    }

    fn set(&self, name: &str, value: u128) -> Result<()> {
        self.netns().sysctl(&format!("net/ipv4/neigh/{LINK}/{name}"), &value.to_string())
    }

    /// The host is there after all.
    pub fn appear(&self) -> Result<()> {
        self.network.server().ip(&format!("address add {}/32 dev lo", Self::ADDRESS)).map(drop)
    }
}

impl Cause for SilentNeighbour {
    fn netns(&self) -> &Netns {
        self.network.client()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        let sent = self.network.datagrams(&self.source, (Self::ADDRESS, PORT), packets)?;
        wait_for_answer(self.netns(), Self::ADDRESS)?;
        Ok(sent)
    }
}

/// Waits until the namespace's kernel has the link-layer address of `host`, or has given up asking and
/// dropped what waited for it.
pub(super) fn wait_for_answer(netns: &Netns, host: Ipv4Addr) -> Result<()> {
    let deadline = Instant::now() + longer(Duration::from_secs(10));
    while netns.ip(&format!("neigh show {host}"))?.contains("INCOMPLETE") {
        ensure!(Instant::now() < deadline, "{host} is still looked for");
        std::thread::sleep(Duration::from_millis(20));
    }
    // The state changes first; then the queue is emptied, in the same timer (neigh_invalidate).
    std::thread::sleep(longer(Duration::from_millis(50)));
    Ok(())
}

/// A client that looks for many hosts at once, with a small neighbour table.
///
/// The table and its limits are the whole host's: they are low as long as this lives.
#[derive(Debug)]
pub struct FullTable {
    network: Network,
    _limits: [HostValue; 2],
}

impl FullTable {
    /// Entries that the table has room for, besides those that are there.
    const ROOM: u64 = 16;

    /// # Errors
    /// As [`Network::direct`], and as [`HostValue::set`].
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        let limit = entries()? + Self::ROOM;
        let set = |name: &str| {
            HostValue::set(&format!("net/ipv4/neigh/default/{name}"), &limit.to_string())
        };
        let limits = [set("gc_thresh2")?, set("gc_thresh3")?];
        Ok(Self { network, _limits: limits })
    }
}

impl Cause for FullTable {
    fn netns(&self) -> &Netns {
        self.network.client()
    }

    /// One packet to each of `packets` hosts, which are not there; at most 250. What the table has
    /// no room for is dropped.
    fn send(&self, packets: u64) -> Result<u64> {
        let source = self.network.source(CLIENT)?;
        for host in 1..=u8::try_from(packets.min(250))? {
            let [a, b, ..] = CLIENT.octets();
            // Refused with an error or without, as kernels differ in it.
            let _ = source.send_to(b"dropped", (Ipv4Addr::from([a, b, 7, host]), PORT));
        }
        Ok(packets)
    }
}

/// Entries of the host's ARP table: the first column of its statistics, the same for each CPU.
fn entries() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/stat/arp_cache").context("cannot read arp_cache")?;
    let first = text.lines().nth(1).and_then(|line| line.split_whitespace().next());
    u64::from_str_radix(first.context("arp_cache is empty")?, 16).context("no number of entries")
}
