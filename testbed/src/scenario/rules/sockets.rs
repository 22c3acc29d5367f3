//! Packets that reach a host and no reader.

mod busy;

use anyhow::Result;

use self::busy::Busy;
use super::{End, RuleScenario, Trouble, ended};
use crate::{
    drops::{
        backlog::Stuck,
        closed::{Closed, Transport},
        cpu_backlog::ShortQueue,
        listen::Listening,
        receive_buffer::LateReader,
        receive_memory::Shrunk,
        socket_memory::Hungry,
        stalled::Stalled,
    },
    udp::Family,
};

pub(super) const ALL: &[RuleScenario] = &[
    RuleScenario {
        name: "udp-buffer",
        about: "a program reads its UDP socket too late",
        finds: &["udp_receive_buffer"],
        end: End::Command,
        make: || Ok(Box::new(Late(LateReader::new()?))),
    },
    RuleScenario {
        name: "udp-memory",
        about: "the sockets of UDP hold all memory that they may have",
        finds: &["udp_memory"],
        end: End::Command,
        make: || Ok(Box::new(Hungering(Hungry::new()?))),
    },
    RuleScenario {
        name: "accept-queue",
        about: "a server accepts connections too slowly",
        finds: &["accept_queue_full"],
        end: End::Command,
        make: || Ok(Box::new(Crowd(Listening::with_short_accept_queue()?))),
    },
    RuleScenario {
        name: "syn-queue",
        about: "handshakes are left half done, without SYN cookies",
        finds: &["syn_queue_full"],
        end: End::Command,
        make: || Ok(Box::new(HalfDone(Listening::with_short_syn_queue()?))),
    },
    RuleScenario {
        name: "tcp-memory",
        about: "a program makes its receive buffer small too late",
        finds: &["tcp_receive_memory"],
        end: End::Person,
        make: || Ok(Box::new(Shrinking(Shrunk::new()?))),
    },
    RuleScenario {
        name: "tcp-unread",
        about: "a program does not read its connection",
        finds: &["unread_connection"],
        end: End::Person,
        make: || Ok(Box::new(Standing(Stalled::new()?))),
    },
    RuleScenario {
        name: "tcp-read",
        about: "a program reads its connection while it is filled",
        finds: &[],
        end: End::Healthy,
        make: || Ok(Box::new(Standing(Stalled::read()?))),
    },
    RuleScenario {
        name: "tcp-backlog",
        about: "a program works inside its socket for too long",
        finds: &["tcp_backlog"],
        end: End::Person,
        make: || Ok(Box::new(Backlogged(Stuck::new()?))),
    },
    RuleScenario {
        name: "cpu-backlog",
        about: "bursts are longer than the input queue of a CPU",
        finds: &["cpu_backlog"],
        end: End::Command,
        make: || Ok(Box::new(Bursts(ShortQueue::new()?))),
    },
    RuleScenario {
        name: "closed-udp-port",
        about: "datagrams are sent to a service that is not there",
        finds: &["closed_port"],
        end: End::Person,
        make: || ended(Closed::new(Transport::Udp, Family::V4)?, 50, |it| it.open()),
    },
    RuleScenario {
        name: "closed-tcp-port",
        about: "clients connect to a service that is not there",
        finds: &["closed_port"],
        end: End::Person,
        make: || ended(Closed::new(Transport::Tcp, Family::V4)?, 50, |it| it.open()),
    },
    RuleScenario {
        name: "closed-udp6-port",
        about: "datagrams of IPv6 are sent to a service that is not there",
        finds: &["closed_port"],
        end: End::Person,
        make: || ended(Closed::new(Transport::Udp, Family::V6)?, 50, |it| it.open()),
    },
    RuleScenario {
        name: "closed-tcp6-port",
        about: "clients connect by IPv6 to a service that is not there",
        finds: &["closed_port"],
        end: End::Person,
        make: || ended(Closed::new(Transport::Tcp, Family::V6)?, 50, |it| it.open()),
    },
    RuleScenario {
        name: "healthy-load",
        about: "heavy TCP and UDP traffic, and nothing is wrong",
        finds: &[],
        end: End::Healthy,
        make: || Ok(Box::new(Healthy(Busy::new()?))),
    },
];

/// A reader that is late; started again, it takes what the host gives to sockets.
struct Late(LateReader);

impl Trouble for Late {
    fn happen(&mut self) -> Result<()> {
        self.0.burst(100)
    }

    fn mend(&mut self) -> Result<()> {
        self.0.restart()
    }
}

/// More clients at once than may wait.
struct Crowd(Listening);

impl Trouble for Crowd {
    fn happen(&mut self) -> Result<()> {
        self.0.knock(30)
    }

    fn mend(&mut self) -> Result<()> {
        self.0.listen_again()
    }
}

/// Clients that connect and say nothing.
struct HalfDone(Listening);

impl Trouble for HalfDone {
    fn happen(&mut self) -> Result<()> {
        self.0.welcome(30)
    }
}

struct Shrinking(Shrunk);

impl Trouble for Shrinking {
    fn happen(&mut self) -> Result<()> {
        self.0.send(10)
    }

    fn mend(&mut self) -> Result<()> {
        self.0.mend();
        Ok(())
    }
}

/// A server that does not read while others send.
struct Hungering(Hungry);

impl Trouble for Hungering {
    fn happen(&mut self) -> Result<()> {
        self.0.burst()
    }
}

struct Backlogged(Stuck);

impl Trouble for Backlogged {
    fn happen(&mut self) -> Result<()> {
        self.0.send()
    }

    fn mend(&mut self) -> Result<()> {
        self.0.mend();
        Ok(())
    }
}

struct Bursts(ShortQueue);

impl Trouble for Bursts {
    fn happen(&mut self) -> Result<()> {
        self.0.ping(50).map(drop)
    }
}

/// Everybody gets an answer.
struct Healthy(Busy);

impl Trouble for Healthy {
    fn happen(&mut self) -> Result<()> {
        self.0.work()
    }
}

/// The command shows the connection; a person has its program read.
struct Standing(Stalled);

impl Trouble for Standing {
    fn happen(&mut self) -> Result<()> {
        self.0.send()
    }

    fn mend(&mut self) -> Result<()> {
        self.0.start_reading()
    }
}
