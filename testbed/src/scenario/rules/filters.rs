//! Packets that a filter or connection tracking refuses.

use super::{Caused, RuleScenario};
use crate::drops::filter::Filtered;

pub(super) const ALL: &[RuleScenario] = &[
    RuleScenario {
        name: "iptables-rule",
        about: "a rule of iptables drops what comes in",
        rule: Some("netfilter_rule"),
        mended: false,
        make: || Ok(Box::new(Caused(Filtered::input_by_iptables()?, 50))),
    },
    RuleScenario {
        name: "nft-rule",
        about: "a rule of nftables drops what comes in",
        rule: Some("netfilter_rule"),
        mended: false,
        make: || Ok(Box::new(Caused(Filtered::input_by_nft()?, 50))),
    },
];
