//! A rule or policy of the packet filter drops packets.
//!
//! Newer kernels name `nft_do_chain` for nftables. Elsewhere iptables, nftables and connection
//! tracking all show `nf_hook_slow`: what connection tracking has not counted as its own is a
//! rule's. The hook is read off the call path: whoever called it.

use super::{
    Draft, Facts, Makes, Rule,
    conntrack_full::{self, refused},
    conntrack_insert::lost,
    matters,
};
use crate::{
    diagnose::{facts::Rows, knowledge::function_name},
    report::{
        facts::Netns,
        finding::{Finding, Severity},
        model::Location,
    },
};

/// The hook that each function calls, as iptables names its chains; [`netfilter hooks`] of both
/// families. (`NF_HOOK` and `nf_hook` in net/ipv4, net/ipv6 and net/bridge.)
const HOOKS: [(&str, &str); 19] = [
    ("ip_rcv", "PREROUTING"),
    ("ip_list_rcv", "PREROUTING"),
    ("ip_sublist_rcv", "PREROUTING"),
    ("ipv6_rcv", "PREROUTING"),
    ("ipv6_list_rcv", "PREROUTING"),
    ("ip_local_deliver", "INPUT"),
    ("ip6_input", "INPUT"),
    ("ip_forward", "FORWARD"),
    ("ip6_forward", "FORWARD"),
    ("__ip_local_out", "OUTPUT"),
    ("__ip6_local_out", "OUTPUT"),
    ("ip_output", "POSTROUTING"),
    ("ip_mc_output", "POSTROUTING"),
    ("ip6_output", "POSTROUTING"),
    ("br_handle_frame", "bridge prerouting"),
    ("br_pass_frame_up", "bridge input"),
    ("__br_forward", "bridge forward"),
    ("br_forward_finish", "bridge postrouting"),
    ("__netif_receive_skb_core", "netdev ingress"),
];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "netfilter_rule",
        severity: "warning",
        says: "a rule or policy of the packet filter drops",
        rests_on: "rows with `NETFILTER_DROP`, less what conntrack refused",
    }],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let tracked: u64 =
        facts.namespaces().map(|namespace| refused(&namespace) + lost(&namespace)).sum();
    let hooks = facts.rows_or_unspecified(&["NETFILTER_DROP"], &["nf_hook_slow"]);
    // What connection tracking refused is subtracted from the largest rows first, since no rule of
    // the packet filter did that.
    let mut claimed = tracked;
    let mut left: Vec<(&Location, u64)> = Vec::new();
    for row in &hooks.0 {
        let taken = claimed.min(row.count);
        claimed -= taken;
        left.push((row, row.count - taken));
    }
    let nft = facts.rows_or_unspecified(&["NETFILTER_DROP"], &["nft_do_chain"]);
    let elsewhere = facts.rows(&["NETFILTER_DROP"], &[]);
    let elsewhere = elsewhere.0.into_iter().filter(|row| {
        let function = row.place.symbol.as_deref().map(function_name);
        !matches!(function, Some("nf_hook_slow" | "nft_do_chain"))
    });
    left.extend(nft.0.iter().copied().chain(elsewhere).map(|row| (row, row.count)));
    // What was counted before the packet was freed, and read after, or the other way round.
    let slack = conntrack_full::hook_drops(facts) / 100;
    left.into_iter()
        .filter(|(row, drops)| matters(*drops, facts) && (*drops == row.count || *drops > slack))
        .map(|(row, drops)| dropped(facts, row, drops))
        .collect()
}

fn dropped(facts: &Facts<'_>, row: &Location, drops: u64) -> Finding {
    let rows = Rows(vec![row]);
    let netns: Option<&Netns> = rows.namespaces().first().copied();
    let function = row.place.symbol.as_deref().map_or("unknown", function_name);
    let is_nft = function == "nft_do_chain";
    let hook = hook(row);
    let whose =
        if is_nft { "an nftables rule or policy" } else { "a packet filter rule or policy" };
    let name = netns.and_then(|netns| netns.name.as_deref());
    let at = hook.map(|hook| format!(" at {hook}")).unwrap_or_default();
    let within = name.map(|name| format!(" in {name}")).unwrap_or_default();
    let title = format!("{whose} drops packets{at}{within}");
    let mut draft =
        Draft::new(facts, "netfilter_rule", Severity::Warning, format!("{whose}{at}"), title)
            .somewhere(netns)
            .explains(drops, &rows)
            .counted(&format!("NETFILTER_DROP at {function}"), row.count, "kfree_skb");
    if row.count > drops {
        draft = draft.counted("of them conntrack's", row.count - drops, "ctnetlink");
    }
    if let Some(hook) = hook {
        draft = draft.state("hook", hook, "sampled call paths");
    }
    if is_nft {
        return draft
            .run("nft -a list ruleset", "the rules with their handles; look at those of this hook")
            .done();
    }
    match hook {
        Some(hook) if !hook.contains(' ') => draft.run(
            "iptables-save -c",
            &format!("rules of all tables with their packet counters; look at {hook}"),
        ),
        _ => draft.run("nft -a list ruleset", "rules of bridges and of nftables"),
    }
    .done()
}

/// The hook at which most of a row's sampled drops were refused.
fn hook(row: &Location) -> Option<&'static str> {
    let path = row.details.as_ref()?.path.as_ref()?;
    path.is.callers.iter().find_map(|caller| {
        let function = function_name(caller.as_deref()?);
        HOOKS.iter().find(|(name, _)| *name == function).map(|(_, hook)| *hook)
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::conntrack::{ConntrackCounter, ConntrackStats};

    fn table(entries: u64, drop: u32) -> ConntrackStats {
        let mut stats = ConntrackStats { entries, limit: Some(1000), ..ConntrackStats::default() };
        stats.counters.add(ConntrackCounter::Drop, drop);
        stats
    }

    #[test]
    fn an_nft_rule_is_named_with_its_hook() {
        let found = TestHost::new()
            .row(10, "nft_do_chain", "NETFILTER_DROP")
            .callers(&["ip_local_deliver", "ip_rcv"])
            .run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.title, "an nftables rule or policy drops packets at INPUT in gw");
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(finding.actions[0].command, "ip netns exec gw nft -a list ruleset");
    }

    #[test]
    fn what_conntrack_refused_is_no_rules_doing() {
        let host = |drops| {
            TestHost::new()
                .row(drops, "nf_hook_slow", "NETFILTER_DROP")
                .conntrack(table(1000, 0), table(1000, 1000))
        };
        assert_eq!(host(1000).run(&RULE), []);
        assert_eq!(host(1005).run(&RULE), [], "counted a moment apart");
        let found = host(1500).run(&RULE);
        assert_eq!(found[0].explains.map(|e| e.drops), Some(500));
    }

    #[test]
    fn a_table_that_is_nearly_full_refuses_nothing() {
        let found = TestHost::new()
            .row(100, "nf_hook_slow", "NETFILTER_DROP")
            .callers(&["ip_local_deliver"])
            .conntrack(table(950, 0), table(950, 0))
            .run(&RULE);
        assert_eq!(found[0].explains.map(|e| e.drops), Some(100));
        assert_eq!(found[0].actions[0].command, "ip netns exec gw iptables-save -c");
    }

    #[test]
    fn a_packet_or_two_are_not_worth_a_word() {
        assert_eq!(TestHost::new().row(2, "nft_do_chain", "NETFILTER_DROP").run(&RULE), []);
        let busy =
            TestHost::new().row(5, "nft_do_chain", "NETFILTER_DROP").row(10_000, "f", "QDISC_DROP");
        assert_eq!(busy.run(&RULE), []);
    }
}
