//! The neighbour table is full, and packets to neighbours that are not in it are lost.
//!
//! All namespaces share one table for each family. At `gc_thresh3` entries the kernel looks for some
//! to give up, and where all are in use it makes none (`neigh_alloc`, net/core/neighbour.c): the
//! packet is dropped (`ip_finish_output2`, net/ipv4/ip_output.c; `ip6_finish_output2`,
//! net/ipv6/ip6_output.c), and an ARP request from a new neighbour gets no answer. Networks with
//! many hosts on one link, or something that looks for hosts, fill it.

use super::{Counts, Draft, Facts, Kept, Makes, Rule};
use crate::report::finding::{Finding, Severity};

struct NeighbourTable {
    family: &'static str,
    entries: &'static str,
    fulls: &'static str,
    /// Above it entries are given up early, and above the other none are made.
    soft: &'static str,
    hard: &'static str,
    functions: &'static [&'static str],
}

const TABLES: [NeighbourTable; 2] = [
    NeighbourTable {
        family: "IPv4",
        entries: "arp_cache.entries",
        fulls: "arp_cache.table_fulls",
        soft: "net.ipv4.neigh.default.gc_thresh2",
        hard: "net.ipv4.neigh.default.gc_thresh3",
        functions: &["ip_finish_output2"],
    },
    NeighbourTable {
        family: "IPv6",
        entries: "ndisc_cache.entries",
        fulls: "ndisc_cache.table_fulls",
        soft: "net.ipv6.neigh.default.gc_thresh2",
        hard: "net.ipv6.neigh.default.gc_thresh3",
        functions: &["ip6_finish_output2"],
    },
];

const REASONS: &[&str] = &["NEIGH_CREATEFAIL"];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "neighbour_table_full",
        severity: "critical",
        says: "no room for more neighbours",
        rests_on: "`table_fulls`",
    }],
    host_losses: &["arp_cache.table_fulls", "ndisc_cache.table_fulls"],
    host_settings: &[
        "net.ipv4.neigh.default.gc_thresh2",
        "net.ipv4.neigh.default.gc_thresh3",
        "net.ipv6.neigh.default.gc_thresh2",
        "net.ipv6.neigh.default.gc_thresh3",
    ],
    counts: &[
        Counts::of(Kept::Host(&["arp_cache.table_fulls"]), REASONS, &["ip_finish_output2"]),
        Counts::of(Kept::Host(&["ndisc_cache.table_fulls"]), REASONS, &["ip6_finish_output2"]),
    ],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    TABLES.iter().filter_map(|table| full(facts, table)).collect()
}

fn full(facts: &Facts<'_>, table: &NeighbourTable) -> Option<Finding> {
    let refused = facts.delta(table.fulls);
    if refused == 0 {
        return None;
    }
    let rows = facts.rows_for("NEIGH_CREATEFAIL", table.functions);
    let entries = facts.gauge(table.entries).unwrap_or(0);
    let limit: Option<u64> = facts.setting(table.hard).and_then(|value| value.parse().ok());
    let of = limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
    let title = format!(
        "{} neighbour table full: {entries}{of} entries, {refused} times no room",
        table.family
    );
    let mut draft =
        Draft::new(facts, "neighbour_table_full", Severity::Critical, table.family, title)
            .counted(table.fulls, refused, "all namespaces")
            .state(table.entries, entries, "all namespaces")
            .setting(table.soft)
            .setting(table.hard);
    if !rows.is_empty() {
        draft = draft.explains(refused.min(rows.count()), &rows).counted(
            "NEIGH_CREATEFAIL",
            rows.count(),
            "kfree_skb",
        );
    }
    let more = proposal(limit.unwrap_or(0).max(entries), refused);
    let finding = draft
        .set(table.hard, more, "twice what was asked for")
        .set(table.soft, more / 2, "half of that: from here on, entries are given up early")
        .run("ip -s neigh show", "who they are: too large a network, or a search for hosts");
    Some(finding.done())
}

/// Twice what was asked for; a power of two. More than 2^20 neighbours are no network.
fn proposal(held: u64, refused: u64) -> u64 {
    held.saturating_add(refused).saturating_mul(2).min(1 << 20).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    fn host(fulls: u64) -> TestHost {
        TestHost::new()
            .host_counted("arp_cache.table_fulls", fulls)
            .host_counted("arp_cache.entries", 1019)
            .host_setting("net.ipv4.neigh.default.gc_thresh3", "1024")
    }

    #[test]
    fn one_refusal_proves_it_and_the_limits_are_the_hosts() {
        let found = host(500).row(480, "ip_finish_output2", "NEIGH_CREATEFAIL").run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.title,
            "IPv4 neighbour table full: 1024 of 1024 entries, 500 times no room"
        );
        assert_eq!(finding.severity, Severity::Critical);
        assert_eq!(finding.explains.map(|e| e.drops), Some(480));
        let commands: Vec<_> = finding.actions.iter().map(|a| a.command.as_str()).collect();
        assert_eq!(
            commands[..2],
            [
                "sysctl -w net.ipv4.neigh.default.gc_thresh3=4096",
                "sysctl -w net.ipv4.neigh.default.gc_thresh2=2048"
            ]
        );
        assert_eq!(host(1).run(&RULE).len(), 1);
    }

    #[test]
    fn a_refusal_without_a_packet_explains_none() {
        assert_eq!(host(5).run(&RULE)[0].explains, None);
    }

    #[test]
    fn a_table_that_looks_full_and_refuses_nothing_is_not() {
        let host = host(0).row(50, "ip_finish_output2", "NEIGH_CREATEFAIL");
        assert_eq!(host.run(&RULE), []);
    }

    #[test]
    fn no_proposal_is_beyond_a_network() {
        assert_eq!(proposal(1024, 0), 2048);
        assert_eq!(proposal(u64::MAX, 1), 1 << 20);
    }
}
