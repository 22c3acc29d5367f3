//! Every kind of rule and policy that a packet filter can have; two causes at once, and one that ends.

use std::{thread, time::Duration};

use anyhow::{Context, Result};

use super::{End, RuleScenario, Trouble, ended};
use crate::{
    drops::{
        Cause,
        filter::{Filtered, bridges_filter},
        ruled::{
            NO_RULES,
            Place::{self, BridgeOfIp, Router, Server},
            Ruled,
        },
        translated::{FewPorts, Keeps},
    },
    machine::longer,
    udp::Family::{V4, V6},
};

/// Packets of each trouble.
const PACKETS: u64 = 50;
const FLUSH: &str = "iptables-legacy -w -F";

pub(super) const ALL: &[RuleScenario] = &[
    RuleScenario {
        name: "iptables-policy",
        about: "the policy of a chain of iptables drops what no rule takes",
        finds: &["netfilter_rule"],
        end: End::Person,
        // Datagrams to port 7000 tell when all has arrived.
        make: || {
            let rules = "iptables-legacy -w -A INPUT -p udp --dport 7000 -j ACCEPT
                iptables-legacy -w -P INPUT DROP";
            ruled(Server(V4), rules, "iptables-legacy -w -P INPUT ACCEPT")
        },
    },
    RuleScenario {
        name: "iptables-reject",
        about: "a rule of iptables refuses, and says so to the sender",
        finds: &["netfilter_rule"],
        end: End::Person,
        make: || {
            let rule = "iptables-legacy -w -A INPUT -p udp --dport 9 -j REJECT";
            ruled(Server(V4), rule, FLUSH)
        },
    },
    RuleScenario {
        name: "iptables-raw",
        about: "a rule of iptables drops before anything else is asked",
        finds: &["netfilter_rule"],
        end: End::Person,
        make: || {
            let rule = "iptables-legacy -w -t raw -A PREROUTING -p udp --dport 9 -j DROP";
            ruled(Server(V4), rule, "iptables-legacy -w -t raw -F")
        },
    },
    RuleScenario {
        name: "iptables-chain",
        about: "a rule drops in a chain of its own, beside many others",
        finds: &["netfilter_rule"],
        end: End::Person,
        make: || {
            let rules = "iptables-legacy -w -N services
                for port in $(seq 1001 1040); do
                    iptables-legacy -w -A services -p udp --dport $port -j DROP
                done
                iptables-legacy -w -A services -p udp --dport 9 -m comment \
                    --comment 'default/web has no endpoints' -j DROP
                iptables-legacy -w -A FORWARD -j services";
            ruled(Router, rules, FLUSH)
        },
    },
    RuleScenario {
        name: "ip6tables-rule",
        about: "a rule of ip6tables drops what comes in",
        finds: &["netfilter_rule"],
        end: End::Person,
        make: || {
            let rule = "ip6tables-legacy -w -A INPUT -p udp --dport 9 -j DROP";
            ruled(Server(V6), rule, "ip6tables-legacy -w -F")
        },
    },
    RuleScenario {
        name: "iptables-bridge",
        about: "bridged packets meet a policy of iptables",
        finds: &["netfilter_rule"],
        end: End::Command,
        make: || {
            let rules = "iptables-legacy -w -A FORWARD -p udp --dport 7000 -j ACCEPT
                iptables-legacy -w -P FORWARD DROP";
            ruled(BridgeOfIp, rules, "true")
        },
    },
    RuleScenario {
        name: "nft-counter",
        about: "a rule of nftables drops, and counts what it drops",
        finds: &["netfilter_rule"],
        end: End::Person,
        make: || {
            let rules = "nft add table ip t
                nft 'add chain ip t c { type filter hook input priority 0; }'
                nft add rule ip t c udp dport 11 counter drop
                nft add rule ip t c udp dport 9 counter drop";
            ruled(Server(V4), rules, NO_RULES)
        },
    },
    RuleScenario {
        name: "nft-set",
        about: "a rule of nftables drops by a set of ports",
        finds: &["netfilter_rule"],
        end: End::Person,
        make: || {
            let rules = "nft add table inet t
                nft 'add set inet t ports { type inet_service; elements = { 9, 11 }; }'
                nft 'add chain inet t c { type filter hook input priority 0; }'
                nft add rule inet t c udp dport @ports counter drop";
            ruled(Server(V4), rules, NO_RULES)
        },
    },
    RuleScenario {
        name: "nft-map",
        about: "a verdict map of nftables drops",
        finds: &["netfilter_rule"],
        end: End::Person,
        make: || {
            let rules = "nft add table ip t
                nft 'add chain ip t c { type filter hook input priority 0; }'
                nft 'add rule ip t c udp dport vmap { 9 : drop, 11 : accept }'";
            ruled(Server(V4), rules, NO_RULES)
        },
    },
    RuleScenario {
        name: "nft-policy",
        about: "the policy of a chain of nftables drops",
        finds: &["netfilter_rule"],
        end: End::Person,
        make: || {
            let rules = "nft add table ip t
                nft 'add chain ip t c { type filter hook forward priority 0; policy drop; }'
                nft add rule ip t c udp dport 7000 accept";
            ruled(Router, rules, NO_RULES)
        },
    },
    RuleScenario {
        name: "nft-inet6",
        about: "a rule of nftables for both families drops IPv6",
        finds: &["netfilter_rule"],
        end: End::Person,
        make: || {
            let rules = "nft add table inet t
                nft 'add chain inet t c { type filter hook input priority 0; }'
                nft add rule inet t c udp dport 9 counter drop";
            ruled(Server(V6), rules, NO_RULES)
        },
    },
    RuleScenario {
        name: "nft-bridge",
        about: "a rule of nftables drops what a bridge forwards",
        finds: &["netfilter_rule"],
        end: End::Person,
        make: || ended(Ruled::bridge_by_nft()?, PACKETS, |it| it.open()),
    },
    RuleScenario {
        name: "nft-netdev",
        about: "a rule of nftables drops at a device, before IP",
        finds: &["netfilter_rule"],
        end: End::Person,
        make: || ended(Ruled::ingress_by_nft()?, PACKETS, |it| it.open()),
    },
    RuleScenario {
        name: "two-tenants",
        about: "rules of two tenants drop at the same place",
        finds: &["netfilter_rule", "netfilter_rule"],
        end: End::Person,
        make: || {
            Ok(Box::new(Tenants(Filtered::input_by_iptables()?, Filtered::input_by_iptables()?)))
        },
    },
    RuleScenario {
        name: "conntrack-and-rule",
        about: "NAT has no free port, and elsewhere a rule drops",
        finds: &["conntrack_insert_failed", "netfilter_rule"],
        end: End::Never("its parts end in nat-ports and iptables-rule"),
        make: || {
            Ok(Box::new(Both(
                FewPorts::new(Keeps::IptablesLegacy)?,
                Filtered::input_by_iptables()?,
            )))
        },
    },
    RuleScenario {
        name: "ended-namespace",
        about: "a namespace ends just after a rule has dropped in it",
        finds: &["netfilter_rule"],
        end: End::Never("it has ended"),
        make: || Ok(Box::new(Ending(Some(Filtered::input_by_iptables()?)))),
    },
];

fn ruled(place: Place, rules: &str, undo: &'static str) -> Result<Box<dyn Trouble>> {
    ended(Ruled::new(place, rules, undo)?, PACKETS, |it| it.open())
}

/// What this kernel lacks for a scenario.
pub(super) fn lacking(name: &str) -> Option<&'static str> {
    (["iptables-bridge", "own-service"].contains(&name) && !bridges_filter())
        .then_some("this kernel has no br_netfilter")
}

/// Two that know nothing of each other.
struct Tenants(Filtered, Filtered);

impl Trouble for Tenants {
    fn happen(&mut self) -> Result<()> {
        self.0.send(60)?;
        self.1.send(40).map(drop)
    }

    fn mend(&mut self) -> Result<()> {
        self.0.open()?;
        self.1.open()
    }
}

/// Both show the same function and the same reason.
struct Both(FewPorts, Filtered);

impl Trouble for Both {
    fn happen(&mut self) -> Result<()> {
        self.1.send(40)?;
        self.0.send(40).map(drop)
    }
}

/// It lives for some reports, and ends within the one in which it drops.
struct Ending(Option<Filtered>);

impl Trouble for Ending {
    fn happen(&mut self) -> Result<()> {
        thread::sleep(longer(Duration::from_millis(2_300)));
        self.0.take().context("it has ended")?.send(PACKETS).map(drop)
    }
}
