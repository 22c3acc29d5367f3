//! Traffic control: a filter at the receiving link, before any protocol sees the packet.

use anyhow::Result;

use super::{
    Cause, PORT,
    link_layer::tagged,
    network::{CLIENT, LINK, Network, SERVER},
};
use crate::{command::output, netns::Netns};

/// A server whose link drops datagrams to [`PORT`] as they come in.
#[derive(Debug)]
pub struct Ingress {
    network: Network,
    /// Sent instead of datagrams.
    frame: Option<Vec<u8>>,
}

impl Ingress {
    /// # Errors
    /// As [`Network::direct`], and without `tc`, or cls_bpf and sch_ingress in the kernel.
    pub fn new() -> Result<Self> {
        Self::of("ip", None)
    }

    /// For datagrams with the tag of a VLAN, which the kernel has taken off and keeps beside the
    /// packet.
    ///
    /// # Errors
    /// As [`Ingress::new`].
    pub fn of_vlan() -> Result<Self> {
        Self::of("802.1Q", Some(tagged().bytes()))
    }

    fn of(protocol: &str, frame: Option<Vec<u8>>) -> Result<Self> {
        let network = Network::direct()?;
        network.listen(SERVER)?;
        let tc = |arguments: &str| {
            let mut command = network.server().command("tc");
            command.args(arguments.split(' '));
            command
        };
        output(&mut tc(&format!("qdisc add dev {LINK} clsact")))?;
        let filter =
            format!("filter add dev {LINK} ingress protocol {protocol} bpf direct-action bytecode");
        output(tc(&filter).arg(program()))?;
        Ok(Self { network, frame })
    }

    /// The filter is taken away.
    ///
    /// # Errors
    /// When it cannot.
    pub fn open(&self) -> Result<()> {
        let all = ["qdisc", "del", "dev", LINK, "clsact"];
        output(self.network.server().command("tc").args(all)).map(drop)
    }
}

/// A classic BPF program: action 2 (TC_ACT_SHOT) for UDP to [`PORT`], else 0 (TC_ACT_OK). It needs
/// no action module, which kernels lack more often than BPF. Offsets are from the Ethernet header
/// on, of an IPv4 packet without options.
fn program() -> String {
    let protocol = "48 0 0 23,21 0 3 17"; // load byte 23; not 17 (UDP): to the last instruction
    let port = format!("40 0 0 36,21 0 1 {PORT}"); // load half word 36; another one: the same
    format!("6,{protocol},{port},6 0 0 2,6 0 0 0")
}

impl Cause for Ingress {
    fn netns(&self) -> &Netns {
        self.network.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        match &self.frame {
            Some(frame) => self.network.frames(frame.clone(), packets),
            None => {
                let source = self.network.source(CLIENT)?;
                self.network.datagrams(&source, (SERVER, PORT), packets)
            }
        }
    }
}
