//! A packet as routing sees it, and the command that asks about it.

use std::net::IpAddr;

use super::{
    flow::AboveIp,
    protocol::number::{ICMP, TCP, UDP},
};

/// What decides about a packet's route, as far as samples show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Packet {
    pub to: IpAddr,
    pub from: Option<IpAddr>,
    /// Index of the device that it came in by; `None` for what the host sends itself. The kernel checks
    /// such a packet as one that came in, its source, too: without `from` it refuses.
    pub iif: Option<u32>,
    /// `skb->mark`; 0 where there is none, or samples do not show it.
    pub mark: u32,
    pub above: AboveIp,
    /// It surely is the host's own. Else one without `iif` may have come in by any device.
    pub own: bool,
}

impl Packet {
    /// A packet to `to`, of which nothing else is known.
    pub fn to(to: IpAddr) -> Self {
        Self { to, from: None, iif: None, mark: 0, above: AboveIp::default(), own: false }
    }

    /// The same packet, as if the host sent it: from wherever, by whatever it came in. So a router is asked
    /// where an address is, whatever else it checks of packets that come in.
    #[must_use]
    pub fn sent_from_here(self) -> Self {
        Self { from: None, iif: None, ..self }
    }

    /// The command that asks for one of the host's own with this mark, if that is not 0.
    pub fn command(to: IpAddr, mark: u32) -> String {
        let mark = if mark == 0 { String::new() } else { format!(" mark {mark:#x}") };
        format!("ip route get {to}{mark}")
    }

    /// The command that asks for such a packet of the host's own; what is above IP is left out where no
    /// routing rule looks at it.
    pub fn command_for(&self, above: bool) -> String {
        let mut command = Self::command(self.to, self.mark);
        let AboveIp { protocol, from_port, to_port } = self.above;
        if let (true, Some(protocol)) = (above, protocol) {
            command += &match protocol {
                ICMP => " ipproto icmp".to_owned(),
                TCP => " ipproto tcp".to_owned(),
                UDP => " ipproto udp".to_owned(),
                other => format!(" ipproto {other}"),
            };
            for (what, port) in [("sport", from_port), ("dport", to_port)] {
                command += &port.map(|port| format!(" {what} {port}")).unwrap_or_default();
            }
        }
        command
    }
}
