//! Packets that a filter, a program or connection tracking refuses.

use super::{End, RuleScenario, caused, ended};
use crate::drops::{
    filter::Filtered,
    ingress::Ingress,
    queue::Shaped,
    socket_filter::Refusing,
    tracking::{Collisions, NearlyFull, Table},
    xdp::Xdp,
};

pub(super) const ALL: &[RuleScenario] = &[
    RuleScenario {
        name: "conntrack-full",
        about: "the conntrack table is full and refuses connections",
        finds: &["conntrack_table_full"],
        end: End::Command,
        make: || caused(Table::of(Table::LIMIT + 1)?, 200),
    },
    RuleScenario {
        name: "conntrack-quiet",
        about: "a conntrack table that is full and refuses nothing",
        finds: &[],
        end: End::Healthy,
        make: || caused(Table::of(Table::LIMIT)?, 0),
    },
    RuleScenario {
        name: "conntrack-collisions",
        about: "packets race for an entry; the table has room",
        // Nobody listens where the packets go that have an entry.
        finds: &["closed_port", "conntrack_insert_failed"],
        end: End::Never("packets that race are the test itself"),
        make: || caused(Collisions::new()?, 5),
    },
    RuleScenario {
        name: "iptables-nearly-full",
        about: "a rule of iptables drops while the table is 95 % full",
        finds: &["netfilter_rule"],
        end: End::Person,
        make: || ended(NearlyFull::new()?, 40, |it| it.open()),
    },
    RuleScenario {
        name: "iptables-rule",
        about: "a rule of iptables drops what comes in",
        finds: &["netfilter_rule"],
        end: End::Person,
        make: || ended(Filtered::input_by_iptables()?, 50, |it| it.open()),
    },
    RuleScenario {
        name: "iptables-forward",
        about: "a rule of iptables drops what a router forwards",
        finds: &["netfilter_rule"],
        end: End::Person,
        make: || ended(Filtered::forward_by_iptables()?, 50, |it| it.open()),
    },
    RuleScenario {
        name: "nft-rule",
        about: "a rule of nftables drops what comes in",
        finds: &["netfilter_rule"],
        end: End::Person,
        make: || ended(Filtered::input_by_nft()?, 50, |it| it.open()),
    },
    RuleScenario {
        name: "socket-filter",
        about: "a program's own filter refuses what comes to its socket",
        finds: &["socket_filter"],
        end: End::Person,
        make: || ended(Refusing::new()?, 50, |it| it.open()),
    },
    RuleScenario {
        name: "slow-link",
        about: "more is sent than a shaped link lets through",
        finds: &["qdisc_drop"],
        end: End::Command,
        make: || caused(Shaped::new()?, 500),
    },
    RuleScenario {
        name: "tc-ingress",
        about: "a filter of traffic control drops what comes in",
        finds: &["program"],
        end: End::Person,
        make: || ended(Ingress::new()?, 50, |it| it.open()),
    },
    RuleScenario {
        name: "xdp",
        about: "an XDP program drops what comes in",
        finds: &["program"],
        end: End::Person,
        make: || {
            ended(Xdp::new()?, 50, |it| {
                it.open();
                Ok(())
            })
        },
    },
];
