//! Packets that find no way on.

use std::{
    os::fd::OwnedFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::{End, RuleScenario, Trouble, caused, ended};
use crate::{
    drops::{
        broken::{Damaged, FirstFragments},
        neighbour::{FullTable, SilentNeighbour},
        routing::{Loop, NarrowLink, NoRoute, NoRouter, OwnAddress, ReversePath},
    },
    flood::Wire,
    machine::longer,
};

pub(super) const ALL: &[RuleScenario] = &[
    RuleScenario {
        name: "forwarding",
        about: "packets go by way of a host that is no router",
        finds: &["forwarding_disabled"],
        end: End::Command,
        make: || ended(NoRouter::new()?, 50, |it| it.add()),
    },
    RuleScenario {
        name: "reverse-path",
        about: "packets come in by another link than the way back",
        finds: &["reverse_path_filter"],
        end: End::Command,
        make: || caused(ReversePath::asymmetric()?, 50),
    },
    RuleScenario {
        name: "no-route",
        about: "a router has no route to where packets are for",
        finds: &["no_route"],
        end: End::Person,
        make: || ended(NoRoute::new()?, 50, |it| it.add()),
    },
    RuleScenario {
        name: "neighbour-failed",
        about: "a next hop does not answer, then it does",
        finds: &["neighbour_failed"],
        end: End::Person,
        make: || ended(SilentNeighbour::new()?, 50, |it| it.appear()),
    },
    RuleScenario {
        name: "neighbour-queue",
        about: "too much waits for a next hop's address",
        finds: &["neighbour_queue_full"],
        end: End::Command,
        make: || ended(SilentNeighbour::with_short_queue()?, 50, |it| it.appear()),
    },
    RuleScenario {
        name: "neighbour-table",
        about: "the table of neighbours has no room for more",
        finds: &["neighbour_table_full"],
        end: End::Command,
        make: || caused(FullTable::new()?, 100),
    },
    RuleScenario {
        name: "unhandled",
        about: "frames of a protocol that nothing handles",
        finds: &["unhandled_protocol"],
        end: End::Person,
        make: || Ok(Box::new(Unhandled { wire: Wire::new()?, handler: None })),
    },
    RuleScenario {
        name: "mtu",
        about: "a link behind a router takes less than the one before",
        finds: &["mtu"],
        end: End::Command,
        make: || caused(NarrowLink::new()?, 50),
    },
    RuleScenario {
        name: "checksum",
        about: "datagrams arrive damaged",
        finds: &["checksum"],
        end: End::Person,
        make: || {
            ended(Damaged::new()?, 50, |it| {
                it.mend();
                Ok(())
            })
        },
    },
    RuleScenario {
        name: "fragments-lost",
        about: "of each datagram, only the first fragment arrives",
        finds: &["fragments_lost"],
        end: End::Person,
        make: || {
            ended(FirstFragments::lost()?, 50, |it| {
                it.mend();
                Ok(())
            })
        },
    },
    RuleScenario {
        name: "fragment-memory",
        about: "fragments find no room to wait for the rest",
        finds: &["fragment_memory_full"],
        end: End::Command,
        make: || caused(FirstFragments::without_room()?, 50),
    },
    RuleScenario {
        name: "routing-loop",
        about: "two routers send packets to each other",
        finds: &["ttl_expired"],
        end: End::Person,
        make: || ended(Loop::new()?, 50, |it| it.end()),
    },
    RuleScenario {
        name: "martian",
        about: "packets come in from the host's own address",
        finds: &["martian"],
        end: End::Command,
        make: || caused(OwnAddress::new()?, 50),
    },
];

/// Frames of an ethertype for experiments.
struct Unhandled {
    wire: Wire,
    /// What takes them, once there is something.
    handler: Option<OwnedFd>,
}

impl Trouble for Unhandled {
    fn happen(&mut self) -> Result<()> {
        let before = self.wire.received()?.packets;
        let sent = self.wire.flood(200, None)?.accepted;
        let deadline = Instant::now() + longer(Duration::from_secs(10));
        while self.wire.received()?.packets < before + sent {
            ensure!(Instant::now() < deadline, "{sent} frames are not received");
            thread::sleep(Duration::from_millis(10));
        }
        // They are counted as received before a handler is looked for.
        thread::sleep(longer(Duration::from_millis(50)));
        Ok(())
    }

    /// A program takes frames of all protocols.
    fn mend(&mut self) -> Result<()> {
        let all = SockProtocol::EthAll;
        let open =
            || Ok(socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, all)?);
        self.handler = Some(self.wire.receiver().enter(open)?);
        Ok(())
    }
}
