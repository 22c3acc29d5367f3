//! Rules of iptables that drop packets by what they look like, each with a counter of its own.

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd as _,
};

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};

use super::{
    PORT,
    link_layer::datagram,
    network::{CLIENT, Network, SERVER},
};
use crate::{command::output, netns::Netns};

/// Where the rules are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// What comes in to the server.
    Input,
    /// What the client sends.
    Output,
    /// What a router forwards from the one to the other.
    Forward,
}

/// Two rules for packets to [`PORT`]: the first drops those that match, the second all others.
#[derive(Debug)]
pub struct Matched {
    network: Network,
    hook: Hook,
}

/// Packets that the two rules have dropped, by their own counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    pub matching: u64,
    pub others: u64,
}

impl Matched {
    /// `matches` is what iptables takes: `-m length --length 100:200`, of packets of `protocol`.
    ///
    /// # Errors
    /// As [`Network::direct`], and without iptables or a match in the kernel.
    pub fn new(hook: Hook, protocol: &str, matches: &str) -> Result<Self> {
        let network = match hook {
            Hook::Input | Hook::Output => Network::direct()?,
            Hook::Forward => Network::routed()?,
        };
        let matched = Self { network, hook };
        for matches in [matches, ""] {
            let chain = matched.chain();
            let rule = format!("-w -A {chain} -p {protocol} --dport {PORT} {matches} -j DROP");
            let mut iptables = matched.netns().command("iptables-legacy");
            output(iptables.args(rule.split_ascii_whitespace()))?;
        }
        Ok(matched)
    }

    fn chain(&self) -> &'static str {
        match self.hook {
            Hook::Input => "INPUT",
            Hook::Output => "OUTPUT",
            Hook::Forward => "FORWARD",
        }
    }

    /// The namespace of the rules.
    pub fn netns(&self) -> &Netns {
        match self.hook {
            Hook::Input => self.network.server(),
            Hook::Output => self.network.client(),
            Hook::Forward => self.network.between(),
        }
    }

    /// Reads the counters.
    ///
    /// # Errors
    /// Without iptables.
    pub fn counted(&self) -> Result<Counted> {
        let list = ["-w", "-n", "-v", "-x", "-L", self.chain()];
        let listed = output(self.netns().command("iptables-legacy").args(list))?;
        // Two lines of heading, and no other rules.
        let packets = |line: &str| line.split_whitespace().next()?.parse().ok();
        let mut rules = listed.lines().skip(2).map(packets);
        let mut next = || rules.next().flatten().context("no rule of iptables");
        Ok(Counted { matching: next()?, others: next()? })
    }

    /// Sends a datagram with so many bytes of data for each of `lengths`, which IP and UDP make 28
    /// longer.
    ///
    /// # Errors
    /// When they cannot be sent; that a rule refuses them is none.
    pub fn send_lengths(&self, lengths: &[usize]) -> Result<()> {
        let source = self.network.source(CLIENT)?;
        lengths.iter().try_for_each(|length| self.send(&source, &vec![0; *length], 1))
    }

    /// Sends a datagram with each of `marks`. They are the client's own: none leaves its namespace.
    ///
    /// # Errors
    /// As [`send_lengths`](Self::send_lengths).
    pub fn send_marks(&self, marks: &[u32]) -> Result<()> {
        let source = self.network.source(CLIENT)?;
        marks.iter().try_for_each(|mark| {
            setsockopt(&source.as_fd(), sockopt::Mark, mark).context("cannot set a mark")?;
            self.send(&source, b"marked", 1)
        })
    }

    fn send(&self, source: &UdpSocket, data: &[u8], packets: u64) -> Result<()> {
        let to: SocketAddr = (SERVER, PORT).into();
        if self.hook != Hook::Output {
            return self.network.datagrams_of(data, source, to, packets).map(drop);
        }
        for _ in 0..packets {
            // A rule of OUTPUT refuses them to the sender.
            let _refused = source.send_to(data, to);
        }
        Ok(())
    }

    /// Sends a segment of TCP with each of these bytes of flags, of no connection.
    ///
    /// # Errors
    /// When they cannot be sent.
    pub fn send_segments(&self, flags: &[u8]) -> Result<()> {
        flags.iter().try_for_each(|flags| {
            self.network.frames(datagram().segment(1, 1, *flags, &[]), 1).map(drop)
        })
    }
}
