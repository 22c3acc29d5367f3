//! A program that somebody attached drops packets: a tc filter or action, XDP, a cgroup's BPF
//! program.
//!
//! The reason alone tells which kind (`TC_INGRESS`, … in include/net/dropreason-core.h); samples
//! tell where. Only XDP's reason means less: a failed redirection has it, while what a program
//! drops is freed without one (`netif_receive_generic_xdp`, net/core/dev.c, up to 7.2 at least),
//! so the function tells. XDP in a driver (not generic) frees packets before they are any: no
//! event shows it.

use super::{Draft, Facts, draft::quote, matters};
use crate::{
    diagnose::{facts::Rows, knowledge::NOT_SPECIFIED},
    report::{
        finding::{Finding, Severity},
        model::Location,
    },
};

/// A kind of program, by its drop reason.
struct Kind {
    reason: &'static str,
    /// Drops without a reason at these functions are its doing, too.
    functions: &'static [&'static str],
    what: &'static str,
    /// Shows it; `DEV` stands for the device.
    show: &'static str,
}

const KINDS: [Kind; 5] = [
    Kind {
        reason: "TC_INGRESS",
        functions: &[],
        what: "a tc filter at the ingress",
        show: "tc -s filter show dev DEV ingress",
    },
    Kind {
        reason: "TC_EGRESS",
        functions: &[],
        what: "a tc filter at the egress",
        show: "tc -s filter show dev DEV egress",
    },
    Kind {
        reason: "XDP",
        // The first is part of the second where compilers inline it.
        functions: &["netif_receive_generic_xdp", "do_xdp_generic"],
        what: "an XDP program",
        show: "ip -details link show dev DEV",
    },
    Kind {
        reason: "BPF_CGROUP_EGRESS",
        functions: &[],
        what: "a BPF program of a control group",
        show: "bpftool cgroup tree",
    },
    Kind {
        reason: "TAP_FILTER",
        functions: &[],
        what: "the filter of a tap device",
        show: "ip -details tuntap show",
    },
];

pub(super) fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let found = KINDS.iter().flat_map(|kind| {
        let told = facts.rows(&[kind.reason], &[]).0;
        let untold = match kind.functions {
            [] => Vec::new(),
            functions => facts.rows(&[NOT_SPECIFIED], functions).0,
        };
        let rows = told.into_iter().chain(untold).filter(|row| matters(row.count, facts));
        rows.map(|row| dropped(facts, kind, row)).collect::<Vec<_>>()
    });
    found.collect()
}

fn dropped(facts: &Facts<'_>, kind: &Kind, row: &Location) -> Finding {
    let rows = Rows(vec![row]);
    let netns = rows.namespaces().first().copied();
    let device = rows.interfaces().first().map(|(name, _)| *name);
    let mut title = format!("{} dropped {} packets", kind.what, row.count);
    if let Some(device) = device {
        title += &format!(" on {device}");
    }
    if let Some(name) = netns.and_then(|netns| netns.name.as_deref()) {
        title += &format!(" in {name}");
    }
    let quoted = device.map(quote);
    let command = kind.show.replace("DEV", quoted.as_deref().unwrap_or("DEV"));
    let told = row.reason.as_deref() == Some(kind.reason);
    let place = if told { kind.reason } else { row.symbol.as_deref().unwrap_or(kind.reason) };
    Draft::new(facts, "program", Severity::Warning, title)
        .somewhere(netns)
        .explains(row.count)
        .counted(place, row.count, "kfree_skb")
        .run(&command, "the program, and what it has counted; whoever attached it knows why")
        .done()
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn a_filter_is_named_with_its_device() {
        let found = Host::new()
            .row(20, "__netif_receive_skb_core", "TC_INGRESS")
            .interface("eth0")
            .run(check);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.title, "a tc filter at the ingress dropped 20 packets on eth0 in gw");
        assert_eq!(
            finding.actions[0].command,
            "ip netns exec gw tc -s filter show dev eth0 ingress"
        );
    }

    #[test]
    fn where_samples_tell_nothing_the_device_is_to_be_filled_in() {
        let found = Host::new().row(20, "do_xdp_generic", "XDP").unsampled().run(check);
        assert_eq!(found[0].title, "an XDP program dropped 20 packets");
        assert_eq!(found[0].actions[0].command, "ip -details link show dev DEV");
        assert_eq!(found[0].netns, None);
    }

    #[test]
    fn xdp_drops_without_a_reason_are_known_by_the_function() {
        for reason in [NOT_SPECIFIED, ""] {
            let found = Host::new().row(20, "do_xdp_generic", reason).interface("eth0").run(check);
            let [finding] = &found[..] else { panic!("{reason}: {found:?}") };
            assert_eq!(finding.title, "an XDP program dropped 20 packets on eth0 in gw");
            assert_eq!(finding.evidence[0].name, "do_xdp_generic");
        }
        assert_eq!(Host::new().row(20, "tcp_v4_rcv", NOT_SPECIFIED).run(check), []);
    }

    #[test]
    fn few_of_many_are_nothing() {
        let found = Host::new().row(20, "f", "TC_INGRESS").row(10_000, "g", "NO_SOCKET").run(check);
        assert_eq!(found, []);
    }
}
