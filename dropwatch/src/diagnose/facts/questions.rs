//! What a rule asks about routes, sockets, connections and rules of the packet filter.

use super::{Answered, Facts};
use crate::report::question::{
    Answer, Connection, NatPorts, Neighbour, NextHop, Packet, Policy, PortsInUse, Question, Route,
    RuleTarget, Secured, Socket, SocketPort, Sought, Tuple,
};

impl Facts<'_> {
    /// Which route a packet would take in the namespace `netns`, at the end of the report.
    ///
    /// # Errors
    /// See [`Answered`].
    pub fn route(&self, netns: u32, packet: Packet) -> Answered<Route> {
        self.answer(netns, Question::Route(packet), |answer| match answer {
            Answer::Route(route) => Some(route),
            _ => None,
        })
    }

    /// What is known in the namespace `netns` of a next hop, at the end of the report.
    ///
    /// # Errors
    /// See [`Answered`].
    pub fn neighbour(&self, netns: u32, hop: NextHop) -> Answered<Neighbour> {
        self.answer(netns, Question::Neighbour(hop), |answer| match answer {
            Answer::Neighbour(neighbour) => Some(neighbour),
            _ => None,
        })
    }

    /// Which sockets with this port there are in the namespace `netns`, at the end of the report.
    ///
    /// # Errors
    /// See [`Answered`].
    pub fn sockets(&self, netns: u32, port: SocketPort) -> Answered<Vec<Socket>> {
        self.answer(netns, Question::Sockets(port), |answer| match answer {
            Answer::Sockets(sockets) => Some(sockets),
            _ => None,
        })
    }

    /// The connections of TCP with the most unread in the namespace `netns`, at the end of the report.
    ///
    /// # Errors
    /// See [`Answered`].
    pub fn unread_connections(&self, netns: u32) -> Answered<Vec<Socket>> {
        self.answer(netns, Question::Unread, |answer| match answer {
            Answer::Sockets(sockets) => Some(sockets),
            _ => None,
        })
    }

    /// Which connection that `netns` tracks has answers like `reply`, at the end of the report.
    ///
    /// # Errors
    /// See [`Answered`].
    pub fn connection(&self, netns: u32, reply: Tuple) -> Answered<Option<Connection>> {
        self.answer(netns, Question::Connection(reply), |answer| match answer {
            Answer::Connection(connection) => Some(connection),
            _ => None,
        })
    }

    /// How many of the ports that NAT may give are taken in `netns`, at the end of the report.
    ///
    /// # Errors
    /// See [`Answered`].
    pub fn ports_in_use(&self, netns: u32, ports: NatPorts) -> Answered<PortsInUse> {
        self.answer(netns, Question::PortsInUse(ports), |answer| match answer {
            Answer::PortsInUse(in_use) => Some(in_use),
            _ => None,
        })
    }

    /// Which rules of `netns` do what is sought, at the end of the report.
    ///
    /// # Errors
    /// See [`Answered`].
    pub fn targets(&self, netns: u32, sought: Sought) -> Answered<Vec<RuleTarget>> {
        self.answer(netns, Question::Targets(sought), |answer| match answer {
            Answer::Targets(targets) => Some(targets),
            _ => None,
        })
    }

    /// Which IPsec policy of `netns` such a packet is for, at the end of the report.
    ///
    /// # Errors
    /// See [`Answered`].
    pub fn policy(&self, netns: u32, packet: Secured) -> Answered<Option<Policy>> {
        self.answer(netns, Question::Policy(packet), |answer| match answer {
            Answer::Policy(policy) => Some(policy),
            _ => None,
        })
    }
}
