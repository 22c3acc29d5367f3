//! More packets for one next hop than may wait for its link-layer address.
//!
//! While the kernel asks for it, packets wait; each one over the limit pushes the oldest out
//! (`__neigh_event_send`, net/core/neighbour.c). The neighbour is slow or absent, or a burst met one
//! that was not known yet.

use super::{Counts, Draft, Facts, Kept, Makes, Rule, draft::quote, matters};
use crate::{
    diagnose::facts::Rows,
    report::{
        facts::Netns,
        finding::{Finding, Severity},
    },
};

/// A family's counter, for all namespaces, and its settings.
const TABLES: [(&str, &str); 2] =
    [("arp_cache.unresolved_discards", "ipv4"), ("ndisc_cache.unresolved_discards", "ipv6")];

/// What the kernel allows by default, bytes (`SK_WMEM_MAX` with pages of 4 KiB).
const USUAL_LIMIT: u64 = 212_992;

const DISCARDS: &[&str] = &["arp_cache.unresolved_discards", "ndisc_cache.unresolved_discards"];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "neighbour_queue_full",
        severity: "warning",
        says: "too much waits for a next hop's address",
        rests_on: "`unresolved_discards`",
    }],
    host_losses: DISCARDS,
    device_settings: &[
        "net/ipv4/neigh/DEV/unres_qlen_bytes",
        "net/ipv6/neigh/DEV/unres_qlen_bytes",
    ],
    counts: &[
        Counts::of(Kept::Host(DISCARDS), &["NEIGH_QUEUEFULL"], &[]),
        Counts::of(Kept::Host(DISCARDS), &[], &["__neigh_event_send"]),
    ],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let rows = facts.rows_for("NEIGH_QUEUEFULL", &["__neigh_event_send"]).by_netns();
    let found = rows.iter().flat_map(|(netns, rows)| {
        TABLES.iter().filter_map(|(counter, family)| full(facts, *netns, rows, counter, family))
    });
    found.collect()
}

fn full(
    facts: &Facts<'_>,
    netns: Option<&Netns>,
    rows: &Rows<'_>,
    counter: &str,
    family: &str,
) -> Option<Finding> {
    let counted = facts.delta(counter);
    let drops = counted.min(rows.count());
    if !matters(drops, facts) {
        return None;
    }
    let device = rows.device();
    let name = netns.and_then(|netns| netns.name.as_deref());
    let at = name.map(|name| format!(" in {name}")).unwrap_or_default();
    let on = device.map(|device| format!(" on {device}")).unwrap_or_default();
    let title = format!("{drops} packets too many waited for a neighbour's address{on}{at}");
    let mut draft = Draft::new(
        facts,
        "neighbour_queue_full",
        Severity::Warning,
        format!("{family}{on}"),
        title,
    )
    .somewhere(netns)
    .explains(drops, rows)
    .counted(counter, counted, "all namespaces")
    .counted("NEIGH_QUEUEFULL", rows.count(), "kfree_skb");
    if let Some(device) = device {
        let limit = format!("net/{family}/neigh/{device}/unres_qlen_bytes");
        let now: u64 = draft.value_of(&limit).and_then(|value| value.parse().ok()).unwrap_or(0);
        let more = now.saturating_mul(2).max(USUAL_LIMIT);
        let note = "helps against bursts, not against a neighbour that is absent";
        draft = draft.setting(&limit).set(&limit, more, note);
    }
    let on = device.map(|device| format!(" dev {}", quote(device))).unwrap_or_default();
    let note = "who is being asked for is INCOMPLETE, who did not answer FAILED";
    Some(draft.run(&format!("ip neigh show{on}"), note).done())
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    fn host(drops: u64, counted: u64) -> TestHost {
        TestHost::new()
            .row(drops, "__neigh_event_send", "NEIGH_QUEUEFULL")
            .interface("eth0")
            .host_counted("arp_cache.unresolved_discards", counted)
    }

    fn proposed(limit: &str) -> String {
        let found = host(50, 50).setting("net/ipv4/neigh/eth0/unres_qlen_bytes", limit).run(&RULE);
        found[0].actions[0].command.clone()
    }

    #[test]
    fn the_limit_of_the_device_is_doubled_and_not_below_the_usual_one() {
        let command = "ip netns exec gw sysctl -w net/ipv4/neigh/eth0/unres_qlen_bytes=";
        assert_eq!(proposed("300000"), format!("{command}600000"));
        assert_eq!(proposed("1"), format!("{command}212992"));
    }

    #[test]
    fn each_family_has_what_its_table_counted() {
        let found = host(50, 20).host_counted("ndisc_cache.unresolved_discards", 30).run(&RULE);
        let explained: Vec<_> = found.iter().filter_map(|f| Some(f.explains?.drops)).collect();
        assert_eq!(explained, [20, 30]);
        assert!(found[1].actions[0].command.contains("net/ipv6/neigh/eth0/"));
    }

    #[test]
    fn nothing_counted_is_nothing_found() {
        assert_eq!(host(50, 0).run(&RULE), []);
        assert_eq!(host(2, 50).run(&RULE), []);
        let dead = TestHost::new()
            .row(50, "__neigh_event_send", "NEIGH_DEAD")
            .host_counted("arp_cache.unresolved_discards", 50);
        assert_eq!(dead.run(&RULE), []);
    }
}
