//! Small networks in which one known cause drops packets, to the packet.
//!
//! Each cause is made in namespaces of its own. Making it drops nothing; [`Cause::send`] sends
//! packets that all die of it, and returns when they have. Everything else that goes over the
//! network is delivered, so that a row of a report is about these packets alone.
//!
//! | module | causes |
//! |---|---|
//! | [`filter`] | a rule of iptables or nft, on the way in, through a router, through a bridge |
//! | [`matched`] | rules of iptables that match a length, a mark, flags of TCP, with their counters |
//! | [`ruled`] | rules and policies of iptables and nft, of every family and at every hook |
//! | [`closed`] | TCP and UDP ports where nobody listens, IPv4 and IPv6 |
//! | [`link_layer`] | a VLAN that the receiver lacks; a source address that a bridge refuses |
//! | [`ingress`] | a traffic control filter at the receiving link |
//! | [`xdp`] | a program at the receiving link |
//! | [`broken`] | wrong checksums; fragments of which the rest never comes, or that find no room |
//! | [`refusing`] | a route or a routing rule that refuses; an address that has moved |
//! | [`bound`] | a socket or a membership that is for something else |
//! | [`routing`] | a source that fails the reverse path check; a time to live that runs out; no route |
//! | [`receive_buffer`] | a reader that does not read |
//! | [`socket_memory`] | all of UDP's memory is in use |
//! | [`backlog`] | segments for a connection that is busy |
//! | [`tracking`] | a full conntrack table; packets whose entries collide |
//! | [`translated`] | NAT without a free port; connections to a place that is gone; answers that pass untranslated |
//! | [`queued`] | a queue of the packet filter at which nobody listens, or that is full |
//! | [`secured`] | a policy of IPsec without a state |
//! | [`queue`] | a link that is slower than its sender |
//! | [`socket_filter`] | a socket whose filter lets nothing through |
//! | [`listen`] | listening sockets with a full queue, of which no drop event tells |
//! | [`receive_memory`] | TCP data that a buffer was promised for and has no room |
//! | [`cpu_backlog`] | a burst that is longer than the input queue of a CPU |
//! | [`neighbour`] | a next hop that does not answer; a table that is full |
//! | [`other_station`] | a flood for somebody else, with headers to read |
//! | [`pair`] | a link without carrier; a receiving end that takes less than the sending one |
//! | [`bridge_port`] | a bridge's port that is off, isolated, or may not send back |
//! | [`overlay`] | a VXLAN device that knows no remote for a station |
//! | [`redirect`] | a filter that hands packets over to a device that is down |
//! | [`stalled`] | a connection of TCP whose reader stands still |
//! | [`tap`] | a tap whose process does not read |
//! | [`control_group`] | a program of a control group |
//! | [`unread`] | a socket that is closed with a full queue, which is harmless |

pub mod backlog;
pub mod bound;
pub mod bridge_port;
pub mod broken;
pub mod closed;
pub mod control_group;
pub mod cpu_backlog;
pub mod filter;
pub(crate) mod frame;
pub mod ingress;
pub mod link_layer;
pub mod listen;
pub mod matched;
pub mod neighbour;
pub mod network;
pub mod other_station;
pub mod overlay;
pub mod pair;
pub mod queue;
pub mod queued;
pub mod receive_buffer;
pub mod receive_memory;
pub mod redirect;
pub mod refusing;
pub mod routing;
pub mod ruled;
pub mod secured;
pub mod socket_filter;
pub mod socket_memory;
pub mod stalled;
pub mod tap;
pub mod tracking;
pub mod translated;
pub mod unread;
pub mod xdp;

use anyhow::Result;

use crate::netns::Netns;

/// The discard service: the networks have no service at all, and filters know it by this port.
pub const PORT: u16 = 9;
/// Where datagrams come from.
pub const SOURCE_PORT: u16 = 40_000;

/// A network that drops packets of one kind.
pub trait Cause {
    /// The namespace in which they are dropped.
    fn netns(&self) -> &Netns;

    /// Sends `packets` packets, waits until each has been dropped, and returns how many they were.
    ///
    /// # Errors
    /// When they cannot be sent, or what is sent behind them does not arrive.
    fn send(&self, packets: u64) -> Result<u64>;
}
