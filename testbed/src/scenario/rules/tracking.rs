//! Packets that are translated wrongly, left to a program, or to be protected.

use std::{path::Path, process::Command};

use super::{End, RuleScenario, caused, ended};
use crate::{
    command::output,
    drops::{
        queued::Queued,
        secured::Secured,
        translated::{FewPorts, Keeps, Moved, OutOfWindow},
    },
};

pub(super) const ALL: &[RuleScenario] = &[
    RuleScenario {
        name: "nat-ports",
        about: "NAT has fewer ports than there are connections",
        finds: &["conntrack_insert_failed"],
        end: End::Command,
        make: || caused(FewPorts::new(Keeps::IptablesLegacy)?, 40),
    },
    RuleScenario {
        name: "nat-ports-xtables",
        about: "the same by a rule of iptables in nftables",
        finds: &["conntrack_insert_failed"],
        end: End::Command,
        make: || caused(FewPorts::new(Keeps::IptablesNft)?, 40),
    },
    RuleScenario {
        name: "nat-ports-nft",
        about: "the same by a rule of nft",
        finds: &["conntrack_insert_failed"],
        end: End::Command,
        make: || caused(FewPorts::new(Keeps::Nft)?, 40),
    },
    RuleScenario {
        name: "nat-one-port",
        about: "NAT has one port, which its rule matches, too",
        finds: &["conntrack_insert_failed"],
        end: End::Command,
        make: || caused(FewPorts::one(Keeps::IptablesLegacy)?, 40),
    },
    RuleScenario {
        name: "nat-one-port-nft",
        about: "the same by a rule of nft",
        finds: &["conntrack_insert_failed"],
        end: End::Command,
        make: || caused(FewPorts::one(Keeps::Nft)?, 40),
    },
    RuleScenario {
        name: "nat-ports-enough",
        about: "NAT has a port for each connection",
        finds: &[],
        end: End::Healthy,
        make: || caused(FewPorts::enough(Keeps::IptablesLegacy)?, 40),
    },
    RuleScenario {
        name: "nat-ports-enough-nft",
        about: "the same by a rule of nft",
        finds: &[],
        end: End::Healthy,
        make: || caused(FewPorts::enough(Keeps::Nft)?, 40),
    },
    RuleScenario {
        name: "conntrack-stale",
        about: "a connection is older than the place it goes to",
        finds: &["conntrack_stale", "neighbour_failed"],
        end: End::Command,
        make: || caused(Moved::new()?, 50),
    },
    RuleScenario {
        name: "conntrack-invalid",
        about: "answers are invalid to NAT, and pass untranslated",
        finds: &["conntrack_invalid"],
        end: End::Command,
        make: || caused(OutOfWindow::new()?, 20),
    },
    RuleScenario {
        name: "nfqueue-unheard",
        about: "nobody listens at the queue that a rule hands to",
        finds: &["queue_without_listener"],
        end: End::Person,
        make: || ended(Queued::unheard()?, 60, |it| it.bypass()),
    },
    RuleScenario {
        name: "nfqueue-bypassed",
        about: "nobody listens, and the rule lets packets pass",
        finds: &[],
        end: End::Healthy,
        make: || caused(Queued::bypassed()?, 60),
    },
    RuleScenario {
        name: "nfqueue-full",
        about: "a program decides about packets too slowly",
        finds: &["packet_queue_full"],
        end: End::Person,
        make: || ended(Queued::full()?, 60, |it| it.fail_open()),
    },
    RuleScenario {
        name: "ipsec-in",
        about: "a policy asks for protection that packets lack",
        finds: &["ipsec"],
        end: End::Person,
        make: || ended(Secured::demanded()?, 50, |it| it.open()),
    },
    RuleScenario {
        name: "ipsec-optional",
        about: "a policy takes packets with or without protection",
        finds: &[],
        end: End::Healthy,
        make: || caused(Secured::optional()?, 50),
    },
    RuleScenario {
        name: "ipsec-out",
        about: "a policy has no state to protect packets by",
        finds: &["ipsec"],
        end: End::Person,
        make: || ended(Secured::without_state()?, 50, |it| it.open()),
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
        "nat-ports-xtables" if !has_program() => Some("iptables-nft is not installed"),
        _ => None,
    }
}
