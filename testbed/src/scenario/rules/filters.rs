//! Packets that a filter, a program or connection tracking refuses.

use super::{Caused, RuleScenario};
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
        rule: Some("conntrack_table_full"),
        mended: true,
        make: || Ok(Box::new(Caused(Table::of(Table::LIMIT + 1)?, 200))),
    },
    RuleScenario {
        name: "conntrack-quiet",
        about: "a conntrack table that is full and refuses nothing",
        rule: None,
        mended: false,
        make: || Ok(Box::new(Caused(Table::of(Table::LIMIT)?, 0))),
    },
    RuleScenario {
        name: "conntrack-collisions",
        about: "packets race for an entry; the table has room",
        rule: Some("conntrack_insert_failed"),
        mended: false,
        make: || Ok(Box::new(Caused(Collisions::new()?, 5))),
    },
    RuleScenario {
        name: "iptables-nearly-full",
        about: "a rule of iptables drops while the table is 95 % full",
        rule: Some("netfilter_rule"),
        mended: false,
        make: || Ok(Box::new(Caused(NearlyFull::new()?, 200))),
    },
    RuleScenario {
        name: "iptables-rule",
        about: "a rule of iptables drops what comes in",
        rule: Some("netfilter_rule"),
        mended: false,
        make: || Ok(Box::new(Caused(Filtered::input_by_iptables()?, 50))),
    },
    RuleScenario {
        name: "iptables-forward",
        about: "a rule of iptables drops what a router forwards",
        rule: Some("netfilter_rule"),
        mended: false,
        make: || Ok(Box::new(Caused(Filtered::forward_by_iptables()?, 50))),
    },
    RuleScenario {
        name: "nft-rule",
        about: "a rule of nftables drops what comes in",
        rule: Some("netfilter_rule"),
        mended: false,
        make: || Ok(Box::new(Caused(Filtered::input_by_nft()?, 50))),
    },
    RuleScenario {
        name: "socket-filter",
        about: "a program's own filter refuses what comes to its socket",
        rule: Some("socket_filter"),
        mended: false,
        make: || Ok(Box::new(Caused(Refusing::new()?, 50))),
    },
    RuleScenario {
        name: "slow-link",
        about: "more is sent than a shaped link lets through",
        rule: Some("qdisc_drop"),
        mended: false,
        make: || Ok(Box::new(Caused(Shaped::new()?, 500))),
    },
    RuleScenario {
        name: "tc-ingress",
        about: "a filter of traffic control drops what comes in",
        rule: Some("program"),
        mended: false,
        make: || Ok(Box::new(Caused(Ingress::new()?, 50))),
    },
    RuleScenario {
        name: "xdp",
        about: "an XDP program drops what comes in",
        rule: Some("program"),
        mended: false,
        make: || Ok(Box::new(Caused(Xdp::new()?, 50))),
    },
];
