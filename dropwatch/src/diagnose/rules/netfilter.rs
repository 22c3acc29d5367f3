//! A rule or policy of the packet filter drops packets.
//!
//! Newer kernels name `nft_do_chain` for nftables. Elsewhere iptables, nftables and connection
//! tracking all show `nf_hook_slow`: what connection tracking has not counted as its own is a
//! rule's. The hook is read off the call path: whoever called it.
//!
//! What shows the rules depends on which program has made them ([`RulePrograms`]): the command is
//! printed that shows those which there are.

mod named;

use std::collections::{BTreeMap, BTreeSet};

use self::named::{Named, late, named};
use super::{
    Draft, Facts, Makes, Rule,
    conntrack_full::{self, refused},
    conntrack_insert::lost,
    matters,
};
use crate::{
    diagnose::{
        apart::Apart,
        facts::{Rows, Scope},
        knowledge::{NOT_SPECIFIED, function_name},
    },
    report::{
        evidence::{HostEvidence, RulePrograms, TableFamily},
        facts::{Callers, Netns},
        filter_rules::{Family, Hook},
        finding::{Finding, Severity},
        late::LateDrops,
        model::{Location, Report},
    },
};

/// The hook that each function calls, as iptables names its chains; [`netfilter hooks`] of both
/// families. (`NF_HOOK` and `nf_hook` in net/ipv4, net/ipv6 and net/bridge.)
const HOOKS: [(&str, &str); 27] = [
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
    ("arp_rcv", "ARP input"),
    ("arp_xmit", "ARP output"),
    ("br_handle_frame", "bridge prerouting"),
    ("br_pass_frame_up", "bridge input"),
    ("__br_forward", "bridge forward"),
    ("br_forward_finish", "bridge postrouting"),
    ("__netif_receive_skb_core", "netdev ingress"),
    ("__dev_queue_xmit", "netdev egress"),
    // Of bridged packets, which br_netfilter brings to rules of IP.
    ("br_nf_pre_routing", "PREROUTING"),
    ("br_nf_pre_routing_ipv6", "PREROUTING"),
    ("br_nf_forward", "FORWARD"),
    ("br_nf_forward_ip", "FORWARD"),
    ("br_nf_post_routing", "POSTROUTING"),
];

/// What functions of br_netfilter begin with (net/bridge/br_netfilter_hooks.c).
const BRIDGED: &str = "br_nf_";

/// A hook, and the families whose rules are asked there.
type Place = (Hook, &'static [Family]);

/// Where newer kernels free what a rule of nftables refuses.
const NFT: &str = "nft_do_chain";
pub(super) const NFT_RULES: &str = "nft -a list ruleset";

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "netfilter_rule",
        severity: "warning",
        says: "a rule or policy of the packet filter drops",
        rests_on: "rows with `NETFILTER_DROP`, less what conntrack refused; counters of rules",
    }],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let left = left(facts);
    if left.is_empty() {
        return late(facts);
    }
    let (mut found, mut rest, known) = match named(facts, &left) {
        Some(Named::Settled(found)) => return found,
        Some(Named::Open(found, rest, known)) => (found, rest, known),
        None => (Vec::new(), u64::MAX, Vec::new()),
    };
    for (row, drops) in left {
        let tracked = row.count - drops;
        let drops = drops.min(rest);
        if matters(drops, facts) {
            rest -= drops;
            let mut finding = dropped(facts, row, drops, tracked);
            finding.evidence.extend(known.iter().cloned());
            found.push(finding);
        }
    }
    found
}

/// Drops that rules of the packet filter have to answer for, by namespace, by number in the run: those at
/// its hooks that connection tracking does not account for.
pub fn filtered(report: &Report, before: &HostEvidence, now: &HostEvidence) -> BTreeMap<u32, u64> {
    let apart = Apart::new(report, now.namespaces.keys().copied());
    let facts = Facts::new(report, before, now).of(&RULE);
    let scopes = apart.scopes(false).filter_map(|(scope, rows)| match scope {
        Scope::Netns(number) => Some((number, left(&facts.within(scope, rows)))),
        Scope::Host | Scope::Unknown => None,
    });
    let sums = scopes.map(|(number, left)| {
        (number, left.iter().fold(0, |sum: u64, (_, drops)| sum.saturating_add(*drops)))
    });
    sums.filter(|(_, drops)| *drops > 0).collect()
}

/// Of drops that came late, those at the packet filter's hooks, by namespace, by number in the run.
pub fn at_hooks(late: &[LateDrops]) -> BTreeMap<u32, u64> {
    let mut sums: BTreeMap<u32, u64> = BTreeMap::new();
    for LateDrops { place, netns, count } in late {
        let function = place.symbol.as_deref().map(function_name);
        let at_hook = match place.reason.as_deref() {
            Some("NETFILTER_DROP") => true,
            None | Some(NOT_SPECIFIED) => matches!(function, Some("nf_hook_slow" | NFT)),
            Some(_) => false,
        };
        if let (true, Some(netns)) = (at_hook, netns) {
            let sum = sums.entry(*netns).or_default();
            *sum = sum.saturating_add(*count);
        }
    }
    sums
}

/// The rows of drops at hooks, each with what of it connection tracking does not account for.
fn left<'a>(facts: &Facts<'a>) -> Vec<(&'a Location, u64)> {
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
    let nft = facts.rows_or_unspecified(&["NETFILTER_DROP"], &[NFT]);
    let elsewhere = facts.rows(&["NETFILTER_DROP"], &[]);
    let elsewhere = elsewhere.0.into_iter().filter(|row| {
        let function = row.place.symbol.as_deref().map(function_name);
        !matches!(function, Some("nf_hook_slow" | "nft_do_chain"))
    });
    left.extend(nft.0.iter().copied().chain(elsewhere).map(|row| (row, row.count)));
    // What was counted before the packet was freed, and read after, or the other way round.
    let slack = conntrack_full::hook_drops(facts) / 100;
    left.retain(|(row, drops)| *drops == row.count || *drops > slack);
    left
}

/// The finding about `drops` of a row, of which connection tracking accounts for `tracked`.
fn dropped(facts: &Facts<'_>, row: &Location, drops: u64, tracked: u64) -> Finding {
    let rows = Rows(vec![row]);
    let netns: Option<&Netns> = rows.namespaces().first().copied();
    let function = row.place.symbol.as_deref().map_or("unknown", function_name);
    let is_nft = function == NFT;
    let hooks = rows.on_paths(hook);
    let hook = match &hooks[..] {
        [only] => Some((*only).to_owned()),
        [] => None,
        several => Some(several.join(" and ")),
    };
    let hook = hook.as_deref();
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
    if tracked > 0 {
        draft = draft.counted("of them conntrack's", tracked, "ctnetlink");
    }
    if let Some(hook) = hook {
        draft = draft.state("hook", hook, "sampled call paths");
    }
    if is_nft {
        return draft
            .run(NFT_RULES, "the rules with their handles; look at those of this hook")
            .done();
    }
    let at = hook.map(|hook| format!("; look at {hook}")).unwrap_or_default();
    let note = format!("rules of all tables with their packet counters{at}");
    show_rules(draft, facts, netns, &families(&rows), &note).done()
}

/// Adds the commands, each with this note, that show the rules of these families in a namespace, as far as there are tables
/// and programs.
pub(super) fn show_rules<'a>(
    mut draft: Draft<'a>,
    facts: &Facts<'_>,
    netns: Option<&Netns>,
    families: &[TableFamily],
    note: &str,
) -> Draft<'a> {
    let tables = netns
        .and_then(|netns| facts.namespace(netns.number()))
        .and_then(|namespace| namespace.now.legacy_tables.as_ref());
    let programs = facts.rule_programs();
    let legacy: Vec<&TableFamily> = families
        .iter()
        .filter(|family| tables.is_some_and(|tables| tables.contains(family)))
        .collect();
    for command in legacy.iter().filter_map(|family| programs.legacy.get(family)) {
        draft = draft.run(command, note);
    }
    // Where this kernel frees in nft_do_chain what a rule of nftables refuses, that rule is no cause here.
    let has_own_place = facts
        .report
        .locations
        .iter()
        .any(|row| row.place.symbol.as_deref().map(function_name) == Some(NFT));
    if !legacy.is_empty() && has_own_place {
        return draft;
    }
    if *programs == RulePrograms::default() {
        // None is known here, so the command has the name that most hosts have.
        return match (legacy.first(), families) {
            (Some(TableFamily::Ipv4), _) => draft.run("iptables-legacy-save -c", note),
            (Some(TableFamily::Ipv6), _) => draft.run("ip6tables-legacy-save -c", note),
            (None, [TableFamily::Ipv4, ..]) => draft.run("iptables-save -c", note),
            (None, [TableFamily::Ipv6, ..]) => draft.run("ip6tables-save -c", note),
            _ => draft.run(NFT_RULES, note),
        };
    }
    // Where there are legacy tables, that one would say so, and rules of nftables are in the other.
    let nft = families.iter().filter(|_| legacy.is_empty());
    for command in nft.filter_map(|family| programs.nft.get(family)) {
        draft = draft.run(command, note);
    }
    match programs.native {
        true => draft.run(NFT_RULES, &format!("{note}; shows nothing where there are none")),
        false => draft,
    }
}

/// The families of tables that may have refused the packets of these rows. For bridged packets, tables
/// of IP may be asked, too (br_netfilter).
pub(super) fn families(rows: &Rows<'_>) -> Vec<TableFamily> {
    use TableFamily::{Arp, Bridge, Ipv4, Ipv6};
    let mut found: Vec<TableFamily> = rows
        .on_paths(caller)
        .into_iter()
        .flat_map(|caller| {
            let families: &[TableFamily] = match caller {
                (_, hook) if hook.starts_with("bridge") => &[Bridge, Ipv4, Ipv6],
                ("arp_rcv" | "arp_xmit", _) => &[Arp],
                ("__netif_receive_skb_core" | "__dev_queue_xmit", _) => &[],
                (function, _) if function.starts_with(BRIDGED) => &[Ipv4, Ipv6],
                (function, _) if function.contains("ip6") || function.contains("ipv6") => &[Ipv6],
                _ => &[Ipv4],
            };
            families.iter().copied()
        })
        .collect();
    if found.is_empty() && rows.on_paths(caller).is_empty() {
        found = vec![Ipv4, Ipv6];
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The hook at which a packet was refused that came this way.
pub(super) fn hook(path: &Callers) -> Option<&'static str> {
    caller(path).map(|(_, hook)| hook)
}

/// Where the packets of these rows were dropped; `None` where samples do not tell of all.
fn places(rows: &Rows<'_>) -> Option<BTreeSet<Place>> {
    let mut places = BTreeSet::new();
    for row in &rows.0 {
        // Of many hooks, each has its own rules, and the rarest one's count exactly, too.
        let found = Rows(vec![*row]).on_all_paths(|path| caller(path).and_then(place));
        if found.is_empty() {
            return None;
        }
        places.extend(found);
    }
    Some(places)
}

/// Whether these were bridged packets that br_netfilter brought to rules of IP.
fn bridged(rows: &Rows<'_>) -> bool {
    let found = rows.on_paths(|path| caller(path).map(|(function, _)| function));
    !found.is_empty() && found.iter().all(|function| function.starts_with(BRIDGED))
}

fn place((function, hook): (&'static str, &'static str)) -> Option<Place> {
    use Family::{Arp, Bridge, Inet, Ip, Ip6, Netdev};
    let families: &[Family] = match hook.split_once(' ') {
        Some(("bridge", _)) => &[Bridge],
        Some(("ARP", _)) => &[Arp],
        Some(("netdev", _)) => &[Netdev, Inet],
        _ if function.starts_with(BRIDGED) => &[Ip, Ip6, Inet],
        _ if function.contains("ip6") || function.contains("ipv6") => &[Ip6, Inet],
        _ => &[Ip, Inet],
    };
    let name = hook.rsplit(' ').next()?;
    Some((Hook::of(name)?, families))
}

/// The function that called the hook, and the hook.
fn caller(path: &Callers) -> Option<(&'static str, &'static str)> {
    path.callers.iter().find_map(|caller| {
        let function = function_name(caller.as_deref()?);
        HOOKS.iter().find(|(name, _)| *name == function).copied()
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

    fn with_programs(mut host: TestHost, tables: &[TableFamily]) -> Vec<String> {
        host.now.namespaces.get_mut(&GW).unwrap().legacy_tables =
            Some(tables.iter().copied().collect());
        let save = |legacy: &str| {
            let name = |v6: &str| format!("ip{v6}tables{legacy}-save -c");
            [(TableFamily::Ipv4, name("")), (TableFamily::Ipv6, name("6"))].into()
        };
        host.now.rule_programs =
            RulePrograms { legacy: save("-legacy"), nft: save(""), native: true };
        let found = host.run(&RULE);
        let commands = found[0].actions.iter().map(|action| &action.command);
        commands.map(|it| it.strip_prefix("ip netns exec gw ").unwrap().to_owned()).collect()
    }

    #[test]
    fn the_command_shows_the_tables_that_are_there() {
        let at =
            |caller| TestHost::new().row(100, "nf_hook_slow", "NETFILTER_DROP").callers(&[caller]);
        let (v4, v6) = (TableFamily::Ipv4, TableFamily::Ipv6);
        assert_eq!(with_programs(at("ip_local_deliver"), &[v4, v6])[0], "iptables-legacy-save -c");
        assert_eq!(with_programs(at("ip6_input"), &[v4, v6])[0], "ip6tables-legacy-save -c");
        assert_eq!(
            with_programs(at("ip_local_deliver"), &[v6]),
            ["iptables-save -c", "nft -a list ruleset"]
        );
        let named = at("ip_local_deliver").row(9, "nft_do_chain", "NETFILTER_DROP");
        assert_eq!(with_programs(named, &[v4]), ["iptables-legacy-save -c"]);
        assert_eq!(
            with_programs(at("__br_forward"), &[v4]),
            ["iptables-legacy-save -c", "nft -a list ruleset"]
        );
    }

    #[test]
    fn two_hooks_of_one_row_are_both_named() {
        let path = |caller: &str| Callers { callers: vec![Some(caller.to_owned())] };
        let found = TestHost::new()
            .row(100, "nf_hook_slow", "NETFILTER_DROP")
            .paths(&[path("ip_local_deliver"), path("ip_forward")])
            .run(&RULE);
        assert_eq!(
            found[0].title,
            "a packet filter rule or policy drops packets at FORWARD and INPUT in gw"
        );
        let unknown = TestHost::new()
            .row(100, "nf_hook_slow", "NETFILTER_DROP")
            .paths(&[path("ip_local_deliver"), path("elsewhere")])
            .run(&RULE);
        assert_eq!(unknown[0].title, "a packet filter rule or policy drops packets in gw");
    }

    #[test]
    fn a_packet_or_two_are_not_worth_a_word() {
        assert_eq!(TestHost::new().row(2, "nft_do_chain", "NETFILTER_DROP").run(&RULE), []);
        let busy =
            TestHost::new().row(5, "nft_do_chain", "NETFILTER_DROP").row(10_000, "f", "QDISC_DROP");
        assert_eq!(busy.run(&RULE), []);
    }
}
