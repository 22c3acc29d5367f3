//! Packets that are translated wrongly, left to a program, or to be protected.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::{Caused, RuleScenario, Trouble};
use crate::{
    command::output,
    drops::{
        Cause,
        queued::Queued,
        secured::Secured,
        translated::{FewPorts, Keeps, Moved, OutOfWindow},
    },
};

pub(super) const ALL: &[RuleScenario] = &[
    RuleScenario {
        name: "nat-ports",
        about: "NAT has fewer ports than there are connections",
        rule: Some("conntrack_insert_failed"),
        mended: true,
        make: || Ok(Box::new(Caused(FewPorts::new(Keeps::IptablesLegacy)?, 40))),
    },
    RuleScenario {
        name: "nat-ports-iptables-nft",
        about: "the same by a rule of iptables in nftables",
        rule: Some("conntrack_insert_failed"),
        mended: true,
        make: || Ok(Box::new(Caused(FewPorts::new(Keeps::IptablesNft)?, 40))),
    },
    RuleScenario {
        name: "nat-ports-nft",
        about: "the same by a rule of nft",
        rule: Some("conntrack_insert_failed"),
        mended: true,
        make: || Ok(Box::new(Caused(FewPorts::new(Keeps::Nft)?, 40))),
    },
    RuleScenario {
        name: "nat-one-port",
        about: "NAT has one port, which its rule matches, too",
        rule: Some("conntrack_insert_failed"),
        mended: true,
        make: || Ok(Box::new(Caused(FewPorts::one(Keeps::IptablesLegacy)?, 40))),
    },
    RuleScenario {
        name: "nat-one-port-nft",
        about: "the same by a rule of nft",
        rule: Some("conntrack_insert_failed"),
        mended: true,
        make: || Ok(Box::new(Caused(FewPorts::one(Keeps::Nft)?, 40))),
    },
    RuleScenario {
        name: "nat-ports-enough",
        about: "NAT has a port for each connection",
        rule: None,
        mended: false,
        make: || Ok(Box::new(Caused(FewPorts::enough(Keeps::IptablesLegacy)?, 40))),
    },
    RuleScenario {
        name: "nat-ports-enough-nft",
        about: "the same by a rule of nft",
        rule: None,
        mended: false,
        make: || Ok(Box::new(Caused(FewPorts::enough(Keeps::Nft)?, 40))),
    },
    RuleScenario {
        name: "conntrack-stale",
        about: "a connection is older than the place it goes to",
        rule: Some("conntrack_stale"),
        mended: true,
        make: || Ok(Box::new(Caused(Moved::new()?, 50))),
    },
    RuleScenario {
        name: "conntrack-invalid",
        about: "answers are invalid to NAT, and pass untranslated",
        rule: Some("conntrack_invalid"),
        mended: true,
        make: || Ok(Box::new(Caused(OutOfWindow::new()?, 20))),
    },
    RuleScenario {
        name: "nfqueue-unheard",
        about: "nobody listens at the queue that a rule hands to",
        rule: Some("queue_without_listener"),
        mended: true,
        make: || Ok(Box::new(Unheard(Queued::unheard()?))),
    },
    RuleScenario {
        name: "nfqueue-bypassed",
        about: "nobody listens, and the rule lets packets pass",
        rule: None,
        mended: false,
        make: || Ok(Box::new(Caused(Queued::bypassed()?, 60))),
    },
    RuleScenario {
        name: "nfqueue-full",
        about: "a program decides about packets too slowly",
        rule: Some("packet_queue_full"),
        mended: true,
        make: || Ok(Box::new(Slow(Queued::full()?))),
    },
    RuleScenario {
        name: "ipsec-in",
        about: "a policy asks for protection that packets lack",
        rule: Some("ipsec"),
        mended: true,
        make: || Ok(Box::new(Refused(Secured::demanded()?))),
    },
    RuleScenario {
        name: "ipsec-optional",
        about: "a policy takes packets with or without protection",
        rule: None,
        mended: false,
        make: || Ok(Box::new(Caused(Secured::optional()?, 50))),
    },
    RuleScenario {
        name: "ipsec-out",
        about: "a policy has no state to protect packets by",
        rule: Some("ipsec"),
        mended: true,
        make: || Ok(Box::new(Refused(Secured::without_state()?))),
    },
];

/// What this host lacks for a scenario.
pub(super) fn lacking(name: &str) -> Option<&'static str> {
    let counts = || Path::new("/proc/thread-self/net/xfrm_stat").exists();
    let has_program = || output(Command::new("iptables-nft").arg("--version")).is_ok();
    match name {
        _ if name.starts_with("ipsec-") && !counts() => {
            Some("this kernel does not count for IPsec")
        }
        "nat-ports-iptables-nft" if !has_program() => Some("iptables-nft is not installed"),
        _ => None,
    }
}

/// The first command shows the rule; a person has it let packets pass.
struct Unheard(Queued);

impl Trouble for Unheard {
    fn happen(&mut self) -> Result<()> {
        self.0.send(60).map(drop)
    }

    fn mend(&mut self) -> Result<()> {
        self.0.bypass()
    }
}

/// The command shows the queue; a person has its program let packets pass.
struct Slow(Queued);

impl Trouble for Slow {
    fn happen(&mut self) -> Result<()> {
        self.0.send(60).map(drop)
    }

    fn mend(&mut self) -> Result<()> {
        self.0.fail_open()
    }
}

/// The first command shows the policy; a person removes it.
struct Refused(Secured);

impl Trouble for Refused {
    fn happen(&mut self) -> Result<()> {
        self.0.send(50).map(drop)
    }

    fn mend(&mut self) -> Result<()> {
        self.0.open()
    }
}
