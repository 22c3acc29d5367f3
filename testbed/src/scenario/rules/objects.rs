//! What exactly refuses a packet: which route, whose socket, which interface.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

use super::{End, RuleScenario, Trouble, caused, ended};
use crate::drops::{
    Cause,
    bound::{Bound, JoinedElsewhere, Multihomed},
    refusing::{By, Duplicate, Ipv6Off, Moved, Refusing, Router6},
};

/// Packets of each trouble.
const PACKETS: u64 = 50;

pub(super) const ALL: &[RuleScenario] = &[
    RuleScenario {
        name: "blackhole",
        about: "a router has a blackhole route over a network in use",
        finds: &["route_refuses"],
        end: End::Command,
        make: || refusing(By::Route("blackhole")),
    },
    RuleScenario {
        name: "prohibit",
        about: "a router has a route that prohibits",
        finds: &["route_refuses"],
        end: End::Command,
        make: || refusing(By::Route("prohibit")),
    },
    RuleScenario {
        name: "unreachable",
        about: "a router has a route that calls hosts unreachable",
        finds: &["route_refuses"],
        end: End::Command,
        make: || refusing(By::Route("unreachable")),
    },
    RuleScenario {
        name: "throw",
        about: "a route ends the look-up, and no table goes on",
        finds: &["route_refuses"],
        end: End::Command,
        make: || refusing(By::Route("throw")),
    },
    RuleScenario {
        name: "routing-rule",
        about: "a routing rule prohibits, where a route leads on",
        finds: &["route_refuses"],
        end: End::Command,
        make: || refusing(By::Rule("prohibit")),
    },
    RuleScenario {
        name: "blackhole-marked",
        about: "a rule leads marked packets to a table with a blackhole",
        finds: &["route_refuses"],
        end: End::Command,
        make: || refusing(By::Mark(true)),
    },
    RuleScenario {
        name: "blackhole-unmarked",
        about: "the same rule and table, and packets without the mark",
        finds: &[],
        end: End::Healthy,
        make: || caused(Refusing::new(By::Mark(false))?, PACKETS),
    },
    RuleScenario {
        name: "blackhole-beside",
        about: "a blackhole route that no packet meets",
        finds: &[],
        end: End::Healthy,
        make: || caused(Refusing::new(By::Nothing)?, PACKETS),
    },
    RuleScenario {
        name: "blackhole6",
        about: "a blackhole route of IPv6",
        finds: &["route_refuses"],
        end: End::Command,
        make: || caused(Router6::new(Some("blackhole"))?, PACKETS),
    },
    RuleScenario {
        name: "prohibit6",
        about: "a route of IPv6 that prohibits",
        finds: &["route_refuses"],
        end: End::Command,
        make: || caused(Router6::new(Some("prohibit"))?, PACKETS),
    },
    RuleScenario {
        name: "forwarding6",
        about: "IPv6 packets go by way of a host that is no router",
        finds: &["forwarding_disabled"],
        end: End::Command,
        make: || caused(Router6::new(None)?, PACKETS),
    },
    RuleScenario {
        name: "moved-address",
        about: "an address has moved, and a sender does not know",
        finds: &["address_elsewhere"],
        end: End::Person,
        make: || ended(Moved::new()?, PACKETS, |it| it.come_back()),
    },
    RuleScenario {
        name: "duplicate-address",
        about: "an IPv6 address that another host has, too",
        finds: &["address_unusable"],
        end: End::Person,
        make: || ended(Duplicate::new()?, PACKETS, |it| it.settle()),
    },
    RuleScenario {
        name: "ipv6-off",
        about: "packets for an interface where IPv6 is off",
        finds: &["ipv6_off"],
        end: End::Command,
        make: || ended(Ipv6Off::new()?, PACKETS, |it| it.add()),
    },
    RuleScenario {
        name: "udp-loopback",
        about: "a service listens at the loopback address alone",
        finds: &["closed_port"],
        end: End::Person,
        make: || ended(Bound::to_loopback()?, PACKETS, |it| it.bind(Ipv4Addr::UNSPECIFIED)),
    },
    RuleScenario {
        name: "udp-multihomed",
        about: "a server answers from another address than was asked",
        finds: &["closed_port"],
        end: End::Person,
        make: || Ok(Box::new(Answering { server: Multihomed::new()?, is_mended: false })),
    },
    RuleScenario {
        name: "multicast-elsewhere",
        about: "a group is joined on another interface",
        finds: &["multicast_elsewhere"],
        end: End::Person,
        make: || Ok(Box::new(Member { group: JoinedElsewhere::new()?, is_joined: false })),
    },
    RuleScenario {
        name: "multicast-joined",
        about: "the same group, joined on both interfaces",
        finds: &[],
        end: End::Healthy,
        make: || {
            let group = JoinedElsewhere::new()?;
            group.join()?;
            Ok(Box::new(Member { group, is_joined: true }))
        },
    },
];

fn refusing(by: By) -> Result<Box<dyn Trouble>> {
    caused(Refusing::new(by)?, PACKETS)
}

struct Answering {
    server: Multihomed,
    is_mended: bool,
}

impl Trouble for Answering {
    fn happen(&mut self) -> Result<()> {
        let answers = self.server.ask(2 * PACKETS)?;
        let expected = if self.is_mended { 2 * PACKETS } else { 0 };
        ensure!(answers == expected, "{answers} answers");
        Ok(())
    }

    fn mend(&mut self) -> Result<()> {
        self.is_mended = true;
        self.server.mend()
    }
}

struct Member {
    group: JoinedElsewhere,
    is_joined: bool,
}

impl Trouble for Member {
    fn happen(&mut self) -> Result<()> {
        self.group.send(PACKETS)?;
        let received = self.group.received()?;
        let expected = if self.is_joined { PACKETS } else { 0 };
        ensure!(received == expected, "{received} datagrams reach the member");
        Ok(())
    }

    fn mend(&mut self) -> Result<()> {
        self.is_joined = true;
        self.group.join()
    }
}
