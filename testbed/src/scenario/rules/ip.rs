//! Packets that find no way on.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{Caused, RuleScenario, Trouble};
use crate::{
    drops::{
        Cause,
        broken::{Damaged, FirstFragments},
        neighbour::{FullTable, SilentNeighbour},
        network::SERVER,
        routing::{BEYOND, Loop, NarrowLink, NoRoute, NoRouter, OwnAddress, ReversePath},
    },
    flood::Wire,
    machine::longer,
};

pub(super) const ALL: &[RuleScenario] = &[
    RuleScenario {
        name: "forwarding",
        about: "packets go by way of a host that is no router",
        rule: Some("forwarding_disabled"),
        mended: true,
        make: || Ok(Box::new(Caused(NoRouter::new()?, 50))),
    },
    RuleScenario {
        name: "reverse-path",
        about: "packets come in by another link than the way back",
        rule: Some("reverse_path_filter"),
        mended: true,
        make: || Ok(Box::new(Caused(ReversePath::asymmetric()?, 50))),
    },
    RuleScenario {
        name: "no-route",
        about: "a router has no route to where packets are for",
        rule: Some("no_route"),
        mended: true,
        make: || Ok(Box::new(Unrouted(NoRoute::new()?))),
    },
    RuleScenario {
        name: "neighbour-failed",
        about: "a next hop does not answer, then it does",
        rule: Some("neighbour_failed"),
        mended: true,
        make: || Ok(Box::new(Silent(SilentNeighbour::new()?))),
    },
    RuleScenario {
        name: "neighbour-queue",
        about: "too much waits for a next hop's address",
        rule: Some("neighbour_queue_full"),
        mended: true,
        make: || Ok(Box::new(Caused(SilentNeighbour::with_short_queue()?, 50))),
    },
    RuleScenario {
        name: "neighbour-table",
        about: "the table of neighbours has no room for more",
        rule: Some("neighbour_table_full"),
        mended: true,
        make: || Ok(Box::new(Caused(FullTable::new()?, 100))),
    },
    RuleScenario {
        name: "unhandled",
        about: "frames of a protocol that nothing handles",
        rule: Some("unhandled_protocol"),
        mended: false,
        make: || Ok(Box::new(Unhandled(Wire::new()?))),
    },
    RuleScenario {
        name: "mtu",
        about: "a link behind a router takes less than the one before",
        rule: Some("mtu"),
        mended: true,
        make: || Ok(Box::new(Caused(NarrowLink::new()?, 50))),
    },
    RuleScenario {
        name: "checksum",
        about: "datagrams arrive damaged",
        rule: Some("checksum"),
        mended: false,
        make: || Ok(Box::new(Caused(Damaged::new()?, 50))),
    },
    RuleScenario {
        name: "fragments-lost",
        about: "of each datagram, only the first fragment arrives",
        rule: Some("fragments_lost"),
        mended: false,
        make: || Ok(Box::new(Caused(FirstFragments::lost()?, 50))),
    },
    RuleScenario {
        name: "fragment-memory",
        about: "fragments find no room to wait for the rest",
        rule: Some("fragment_memory_full"),
        mended: true,
        make: || Ok(Box::new(Caused(FirstFragments::without_room()?, 50))),
    },
    RuleScenario {
        name: "routing-loop",
        about: "two routers send packets to each other",
        rule: Some("ttl_expired"),
        mended: true,
        make: || Ok(Box::new(Circling(Loop::new()?))),
    },
    RuleScenario {
        name: "martian",
        about: "packets come in from the host's own address",
        rule: Some("martian"),
        mended: true,
        make: || Ok(Box::new(Martian(OwnAddress::new()?))),
    },
];

/// The command asks for the route that is missing; a person adds it in the same namespace.
struct Unrouted(NoRoute);

impl Trouble for Unrouted {
    fn happen(&mut self) -> Result<()> {
        self.0.send(50).map(drop)
    }

    fn choose(&self, commands: &[String]) -> Option<String> {
        let (namespace, _) = commands.first()?.split_once("ip route show ")?;
        Some(format!("{namespace}ip route add {BEYOND}/32 via {SERVER}"))
    }
}

/// The commands tell where to look; a person has the host started.
struct Silent(SilentNeighbour);

impl Trouble for Silent {
    fn happen(&mut self) -> Result<()> {
        self.0.send(50).map(drop)
    }

    fn mend(&mut self) -> Result<()> {
        self.0.appear()
    }
}

/// The command shows the next router; a person corrects that one.
struct Circling(Loop);

impl Trouble for Circling {
    fn happen(&mut self) -> Result<()> {
        self.0.send(50).map(drop)
    }

    fn mend(&mut self) -> Result<()> {
        self.0.end()
    }
}

/// The first command shows the sender; this host is to accept what it sends.
struct Martian(OwnAddress);

impl Trouble for Martian {
    fn happen(&mut self) -> Result<()> {
        self.0.send(50).map(drop)
    }

    fn choose(&self, commands: &[String]) -> Option<String> {
        commands.iter().find(|command| command.contains("accept_local")).cloned()
    }
}

/// Frames of an ethertype for experiments.
struct Unhandled(Wire);

impl Trouble for Unhandled {
    fn happen(&mut self) -> Result<()> {
        let before = self.0.received()?.rx_dropped;
        let sent = self.0.flood(200, None)?.accepted;
        let deadline = Instant::now() + longer(Duration::from_secs(10));
        while self.0.received()?.rx_dropped < before + sent {
            ensure!(Instant::now() < deadline, "{sent} frames are not received");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}
