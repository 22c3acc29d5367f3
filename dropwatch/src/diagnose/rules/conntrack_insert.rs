//! Connection tracking loses packets although its table has room.
//!
//! Two packets of one connection that has no entry yet (DNS asks for A and AAAA at once) race for
//! it, and where NAT keeps the kernel from merging them the later one is dropped; or a chain of the
//! hash table is too long. Counted as `insert_failed`, and as `drop` where the collision was looked
//! into (`nf_ct_resolve_clash`, `__nf_conntrack_confirm`, net/netfilter/nf_conntrack_core.c).

use super::{Draft, Facts, Makes, Rule, conntrack_full};
use crate::{
    diagnose::facts::NetnsFacts,
    report::{
        conntrack::ConntrackCounter,
        finding::{Finding, Severity},
    },
};

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "conntrack_insert_failed",
        severity: "warning, critical for chains that are too long",
        says: "entries collide",
        rests_on: "`insert_failed`, `drop`, `chaintoolong`",
    }],
    host_settings: &["net.netfilter.nf_conntrack_buckets"],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    facts.namespaces().filter_map(|namespace| failed(facts, namespace)).collect()
}

/// Packets of `namespace` that were lost this way.
pub(super) fn lost(namespace: &NetnsFacts<'_>) -> u64 {
    let drop =
        namespace.conntrack_delta(ConntrackCounter::Drop) - conntrack_full::refused(namespace);
    // The larger of the two, not the sum: some kernels count one packet in both counters, others in
    // one of them.
    drop.max(namespace.conntrack_delta(ConntrackCounter::InsertFailed))
}

fn failed(facts: &Facts<'_>, namespace: NetnsFacts<'_>) -> Option<Finding> {
    let lost = lost(&namespace);
    let (_, now) = namespace.conntrack().filter(|_| lost > 0)?;
    let long = namespace.conntrack_delta(ConntrackCounter::ChainTooLong);
    let (cause, severity) = match long {
        0 => ("its entry collided with another's", Severity::Warning),
        _ => ("a chain of its hash table is too long", Severity::Critical),
    };
    let title = format!("conntrack in {} lost {lost} packets: {cause}", namespace.name());
    let mut draft = Draft::new(facts, "conntrack_insert_failed", severity, cause, title)
        .at(namespace)
        .explains(lost.min(conntrack_full::hook_drops(facts)), &conntrack_full::hook_rows(facts))
        .counted(
            "insert_failed",
            namespace.conntrack_delta(ConntrackCounter::InsertFailed),
            "ctnetlink",
        )
        .counted("drop", namespace.conntrack_delta(ConntrackCounter::Drop), "ctnetlink")
        .counted(
            "clash_resolve",
            namespace.conntrack_delta(ConntrackCounter::ClashResolve),
            "ctnetlink",
        )
        .state("entries", now.entries, "ctnetlink");
    if let Some(limit) = now.limit {
        draft = draft.state("nf_conntrack_max", limit, "ctnetlink");
    }
    if long > 0 {
        let buckets = now.buckets.unwrap_or(now.entries).max(now.entries);
        draft = draft.counted("chaintoolong", long, "ctnetlink").set(
            "net.netfilter.nf_conntrack_buckets",
            buckets.saturating_mul(2).min(1 << 30).next_power_of_two(),
            "",
        );
    } else {
        draft = draft.run(
            "iptables -t raw -A PREROUTING -p udp --dport 53 -j NOTRACK",
            "for DNS that needs no NAT: untracked packets cannot collide; with NAT, have the \
             resolver ask one question at a time (options single-request in resolv.conf)",
        );
    }
    Some(draft.done())
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::conntrack::ConntrackStats;

    fn table(entries: u64, counted: &[(ConntrackCounter, u32)]) -> ConntrackStats {
        let mut stats = ConntrackStats { entries, limit: Some(1000), ..ConntrackStats::default() };
        for counter in
            [ConntrackCounter::Drop, ConntrackCounter::InsertFailed, ConntrackCounter::ChainTooLong]
        {
            stats.counters.add(counter, 0);
        }
        counted.iter().for_each(|(counter, count)| stats.counters.add(*counter, *count));
        stats
    }

    fn found(entries: u64, counted: &[(ConntrackCounter, u32)]) -> Vec<Finding> {
        let (before, now) = (table(entries, &[]), table(entries, counted));
        TestHost::new().row(9, "nf_hook_slow", "NETFILTER_DROP").conntrack(before, now).run(&RULE)
    }

    #[test]
    fn collisions_in_a_table_with_room() {
        let found = found(10, &[(ConntrackCounter::InsertFailed, 5), (ConntrackCounter::Drop, 5)]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].severity, Severity::Warning);
        assert_eq!(found[0].explains.map(|e| e.drops), Some(5), "one packet, counted twice");
    }

    #[test]
    fn a_full_table_has_a_finding_of_its_own() {
        assert_eq!(found(1000, &[(ConntrackCounter::Drop, 5)]), []);
    }

    #[test]
    fn chains_that_are_too_long_need_buckets() {
        let found =
            found(900, &[(ConntrackCounter::InsertFailed, 5), (ConntrackCounter::ChainTooLong, 5)]);
        assert_eq!(found[0].severity, Severity::Critical);
        assert_eq!(
            found[0].actions[0].command,
            "sysctl -w net.netfilter.nf_conntrack_buckets=2048"
        );
    }

    #[test]
    fn resolved_collisions_lose_nothing() {
        assert_eq!(found(10, &[(ConntrackCounter::ClashResolve, 100)]), []);
    }
}
