//! What exactly refuses a packet: which route, whose socket, which interface.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

use super::{Caused, RuleScenario, Trouble};
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
        rule: Some("route_refuses"),
        mended: true,
        make: || refusing(By::Route("blackhole")),
    },
    RuleScenario {
        name: "prohibit",
        about: "a router has a route that prohibits",
        rule: Some("route_refuses"),
        mended: true,
        make: || refusing(By::Route("prohibit")),
    },
    RuleScenario {
        name: "unreachable",
        about: "a router has a route that calls hosts unreachable",
        rule: Some("route_refuses"),
        mended: true,
        make: || refusing(By::Route("unreachable")),
    },
    RuleScenario {
        name: "throw",
        about: "a route ends the look-up, and no table goes on",
        rule: Some("route_refuses"),
        mended: true,
        make: || refusing(By::Route("throw")),
    },
    RuleScenario {
        name: "routing-rule",
        about: "a routing rule prohibits, where a route leads on",
        rule: Some("route_refuses"),
        mended: true,
        make: || refusing(By::Rule("prohibit")),
    },
    RuleScenario {
        name: "blackhole-marked",
        about: "a routing rule leads marked packets to a table with a blackhole",
        rule: Some("route_refuses"),
        mended: true,
        make: || refusing(By::Mark(true)),
    },
    RuleScenario {
        name: "blackhole-unmarked",
        about: "the same rule and table, and packets without the mark",
        rule: None,
        mended: false,
        make: || Ok(Box::new(Caused(Refusing::new(By::Mark(false))?, PACKETS))),
    },
    RuleScenario {
        name: "blackhole-beside",
        about: "a blackhole route that no packet meets",
        rule: None,
        mended: false,
        make: || Ok(Box::new(Caused(Refusing::new(By::Nothing)?, PACKETS))),
    },
    RuleScenario {
        name: "blackhole6",
        about: "a blackhole route of IPv6",
        rule: Some("route_refuses"),
        mended: true,
        make: || Ok(Box::new(Removed(Router6::new(Some("blackhole"))?))),
    },
    RuleScenario {
        name: "prohibit6",
        about: "a route of IPv6 that prohibits",
        rule: Some("route_refuses"),
        mended: true,
        make: || Ok(Box::new(Removed(Router6::new(Some("prohibit"))?))),
    },
    RuleScenario {
        name: "forwarding6",
        about: "IPv6 packets go by way of a host that is no router",
        rule: Some("forwarding_disabled"),
        mended: true,
        make: || Ok(Box::new(Caused(Router6::new(None)?, PACKETS))),
    },
    RuleScenario {
        name: "moved-address",
        about: "an address has moved, and a sender does not know",
        rule: Some("address_elsewhere"),
        mended: true,
        make: || Ok(Box::new(Stale(Moved::new()?))),
    },
    RuleScenario {
        name: "duplicate-address",
        about: "an IPv6 address that another host has, too",
        rule: Some("address_unusable"),
        mended: true,
        make: || Ok(Box::new(Claimed(Duplicate::new()?))),
    },
    RuleScenario {
        name: "ipv6-off",
        about: "packets for an interface where IPv6 is off",
        rule: Some("ipv6_off"),
        mended: true,
        make: || Ok(Box::new(Caused(Ipv6Off::new()?, PACKETS))),
    },
    RuleScenario {
        name: "udp-loopback",
        about: "a service listens at the loopback address alone",
        rule: Some("closed_port"),
        mended: true,
        make: || Ok(Box::new(Local(Bound::to_loopback()?))),
    },
    RuleScenario {
        name: "udp-multihomed",
        about: "a server answers from another address than was asked",
        rule: Some("closed_port"),
        mended: true,
        make: || Ok(Box::new(Answering { server: Multihomed::new()?, is_mended: false })),
    },
    RuleScenario {
        name: "multicast-elsewhere",
        about: "a group is joined on another interface",
        rule: Some("multicast_elsewhere"),
        mended: true,
        make: || Ok(Box::new(Member { group: JoinedElsewhere::new()?, is_joined: false })),
    },
    RuleScenario {
        name: "multicast-joined",
        about: "the same group, joined on both interfaces",
        rule: None,
        mended: false,
        make: || {
            let group = JoinedElsewhere::new()?;
            group.join()?;
            Ok(Box::new(Member { group, is_joined: true }))
        },
    },
];

fn refusing(by: By) -> Result<Box<dyn Trouble>> {
    Ok(Box::new(Removed(Refusing::new(by)?)))
}

/// The first command shows what refuses; the second takes it away.
struct Removed<C>(C);

impl<C: Cause> Trouble for Removed<C> {
    fn happen(&mut self) -> Result<()> {
        self.0.send(PACKETS).map(drop)
    }

    fn choose(&self, commands: &[String]) -> Option<String> {
        commands.iter().find(|command| command.contains(" del ")).cloned()
    }
}

/// The command shows that the address is on the link; a person has it come back.
struct Stale(Moved);

impl Trouble for Stale {
    fn happen(&mut self) -> Result<()> {
        self.0.send(PACKETS).map(drop)
    }

    fn mend(&mut self) -> Result<()> {
        self.0.come_back()
    }
}

/// The command shows the address; a person settles whose it is.
struct Claimed(Duplicate);

impl Trouble for Claimed {
    fn happen(&mut self) -> Result<()> {
        self.0.send(PACKETS).map(drop)
    }

    fn mend(&mut self) -> Result<()> {
        self.0.settle()
    }
}

/// The command shows the socket; a person binds it to all addresses.
struct Local(Bound);

impl Trouble for Local {
    fn happen(&mut self) -> Result<()> {
        self.0.send(PACKETS).map(drop)
    }

    fn mend(&mut self) -> Result<()> {
        self.0.bind(Ipv4Addr::UNSPECIFIED)
    }
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
