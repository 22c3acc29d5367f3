//! The conntrack table is full, and packets that would begin a connection are refused.
//!
//! At the limit the kernel looks for an entry to give up (`early_drop`), and if it finds none it
//! counts `drop` and refuses the packet (`__nf_conntrack_alloc`, net/netfilter/nf_conntrack_core.c).
//! The hook that refuses is the same one that runs iptables rules, so no call path distinguishes them:
//! the counter and the table do. `drop` counts collisions, too; so the table must be seen full, or nearly
//! so where none has collided, or entries must have been given up, which happens only when it is full.

use super::{Counts, Draft, Facts, Kept, Makes, Rule};
use crate::{
    diagnose::facts::{NetnsFacts, Rows},
    report::{
        conntrack::{BUCKET_BYTES, ConntrackCounter, ConntrackStats, ConntrackTable, StateRow},
        finding::{Finding, Severity},
        number::share,
    },
};

const MAX: &str = "net.netfilter.nf_conntrack_max";
const BUCKETS: &str = "net.netfilter.nf_conntrack_buckets";

/// A table is full from here on: entries come and go while the numbers are read.
const FULL: f64 = 0.99;
/// What is left at least, as part of the limit, of a table that was full within the interval: most
/// entries live longer than that.
const NEARLY: f64 = 0.8;
/// Entries in one state that are worth a word about how long they are kept.
const MUCH: f64 = 0.3;
/// What is proposed for states that wait for nothing any more, seconds.
const SHORT: u32 = 30;

/// Where netfilter's hooks say no, and why.
pub(super) const DROPPED: &[&str] = &["NETFILTER_DROP"];
pub(super) const AT_HOOKS: &[&str] = &["nf_hook_slow"];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "conntrack_table_full",
        severity: "critical",
        says: "connections are refused because the conntrack table is full",
        rests_on: "`drop` of conntrack, a table seen full or entries given up",
    }],
    host_settings: &["net.netfilter.nf_conntrack_max", "net.netfilter.nf_conntrack_buckets"],
    counts: &[Counts::of(Kept::Tracking(ConntrackCounter::Drop), DROPPED, AT_HOOKS)],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    facts.namespaces().filter_map(|namespace| full(facts, namespace)).collect()
}

/// Packets of `namespace` that a full table refused in the interval; 0 where it is not proved full.
pub(super) fn refused(namespace: &NetnsFacts<'_>) -> u64 {
    let Some((before, now)) = namespace.conntrack() else { return 0 };
    let full = is_full(before)
        || is_full(now)
        || namespace.conntrack_delta(ConntrackCounter::EarlyDrop) > 0
        || was_full(namespace, now);
    if full { namespace.conntrack_delta(ConntrackCounter::Drop) } else { 0 }
}

/// Whether the table was full within the interval, although it is at neither end: the load has ended,
/// and entries have expired since. A packet whose entry collides is counted in `insert_failed`, too
/// (`nf_ct_resolve_clash()`, net/netfilter/nf_conntrack_core.c), one that found the table full is not.
fn was_full(namespace: &NetnsFacts<'_>, now: &ConntrackStats) -> bool {
    let collided = [ConntrackCounter::InsertFailed, ConntrackCounter::ClashResolve];
    now.limit.is_some_and(|limit| limit > 0 && now.entries as f64 >= limit as f64 * NEARLY)
        && collided.iter().all(|counter| namespace.conntrack_delta(*counter) == 0)
}

/// Rows of the report at the place where netfilter's hooks say no.
pub(super) fn hook_rows<'a>(facts: &Facts<'a>) -> Rows<'a> {
    facts.rows_or_unspecified(DROPPED, AT_HOOKS)
}

/// Drops of these rows.
pub(super) fn hook_drops(facts: &Facts<'_>) -> u64 {
    hook_rows(facts).count()
}

fn is_full(stats: &ConntrackStats) -> bool {
    stats.limit.is_some_and(|limit| limit > 0 && stats.entries as f64 >= limit as f64 * FULL)
}

fn full(facts: &Facts<'_>, namespace: NetnsFacts<'_>) -> Option<Finding> {
    let refused = refused(&namespace);
    let (_, now) = namespace.conntrack().filter(|_| refused > 0)?;
    let limit = now.limit?;
    let title = format!(
        "conntrack table full in {}: {} of {limit} entries, {} packets refused",
        namespace.name(),
        now.entries,
        facts.selected(refused, &hook_rows(facts))
    );
    let drops = hook_drops(facts);
    let mut draft = Draft::new(facts, "conntrack_table_full", Severity::Critical, "", title)
        .at(namespace)
        .explains(refused.min(drops), &hook_rows(facts))
        .counted("drop", refused, "ctnetlink")
        .counted("early_drop", namespace.conntrack_delta(ConntrackCounter::EarlyDrop), "ctnetlink")
        .state("entries", now.entries, "ctnetlink")
        .state("nf_conntrack_max", limit, "ctnetlink")
        .counted("NETFILTER_DROP at nf_hook_slow", drops, "kfree_skb");
    if let Some(buckets) = now.buckets {
        draft = draft.state("nf_conntrack_buckets", buckets, "sysctl");
    }
    if let Some(bytes) = now.memory_now() {
        draft = draft.state("memory_bytes", bytes, "entries × object size + buckets × 8 B");
    }
    let proposed = proposal(limit, now, refused);
    draft = draft.set(MAX, proposed, &ground(proposed, now));
    // As many buckets as entries is what the kernel itself chooses since 5.15.
    if let Some(buckets) = now.buckets.filter(|buckets| proposed > *buckets) {
        let more = proposed.saturating_sub(buckets).saturating_mul(BUCKET_BYTES);
        let why = format!("as many as entries, now {buckets}: {} more", size(more));
        draft = draft.set(BUCKETS, proposed, &why);
    }
    if let Some(table) = &namespace.now.table {
        draft = contents(draft, namespace, table);
    }
    Some(draft.done())
}

/// The limit to propose: twice the demand of the interval, and not less than one entry for each
/// bucket, which the hash table has room for at no cost; a power of two.
fn proposal(limit: u64, now: &ConntrackStats, refused: u64) -> u64 {
    let demand = limit.max(now.entries).saturating_add(refused);
    let proposed = demand.saturating_mul(2).max(now.buckets.unwrap_or(0));
    // Beyond any table that fits a machine; the setting is an int.
    proposed.min(1 << 30).next_power_of_two()
}

/// What the proposed limit rests on, and what it takes.
fn ground(proposed: u64, now: &ConntrackStats) -> String {
    let (Some(object), Some(buckets)) = (now.object_bytes, now.buckets) else {
        return "twice what was asked for".to_owned();
    };
    let buckets = buckets.max(proposed);
    match ConntrackStats::memory(proposed, buckets, object) {
        Some(bytes) => format!(
            "{} when full ({proposed} × {object} B + {buckets} × {BUCKET_BYTES} B)",
            size(bytes)
        ),
        None => "twice what was asked for".to_owned(),
    }
}

/// What the table is full of.
fn contents<'a>(
    mut draft: Draft<'a>,
    namespace: NetnsFacts<'a>,
    table: &ConntrackTable,
) -> Draft<'a> {
    if let Some(row) = table.states.first() {
        let text = format!("{} {} of {} entries", row.count, row.state, table.entries);
        draft = draft.state("largest state", text, "ctnetlink");
        draft = shorten(draft, namespace, row);
    }
    if let Some(row) = table.sources.rows.first() {
        let text = format!("{}: {} of {} entries", row.is.address, row.count, table.entries);
        draft = draft.state("largest source", text, "ctnetlink");
    }
    draft
}

/// Entries that are kept although their connection is over can be let go sooner.
fn shorten<'a>(draft: Draft<'a>, namespace: NetnsFacts<'a>, row: &StateRow) -> Draft<'a> {
    let over = matches!(row.state, "TIME_WAIT" | "CLOSE_WAIT" | "FIN_WAIT" | "LAST_ACK" | "CLOSE");
    let (Some(setting), Some(timeout)) = (row.timeout_setting, row.timeout_s) else {
        return draft;
    };
    if !over || row.share < MUCH || timeout <= SHORT {
        return draft;
    }
    let freed = row.count.saturating_mul(u64::from(timeout - SHORT)) / u64::from(timeout);
    let name = format!("net.netfilter.{setting}");
    let part = share(freed, namespace.now.conntrack.map_or(0, |stats| stats.entries));
    let why = format!("now {timeout}: frees some {freed} entries ({:.0}%)", part * 100.0);
    draft.set(&name, SHORT, &why)
}

/// Bytes, in the unit that people read.
fn size(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    fn table(entries: u64, limit: u64, drop: u32, early_drop: u32) -> ConntrackStats {
        let mut stats = ConntrackStats {
            entries,
            limit: Some(limit),
            buckets: Some(65_536),
            object_bytes: Some(256),
            ..ConntrackStats::default()
        };
        stats.counters.add(ConntrackCounter::Drop, drop);
        stats.counters.add(ConntrackCounter::EarlyDrop, early_drop);
        stats
    }

    fn between(before: ConntrackStats, now: ConntrackStats, drops: u64) -> Vec<Finding> {
        TestHost::new()
            .row(drops, "nf_hook_slow", "NETFILTER_DROP")
            .conntrack(before, now)
            .run(&RULE)
    }

    #[test]
    fn a_table_that_was_full_between_two_readings_refused_packets() {
        let stats = |entries, drop, collided| {
            let mut stats =
                ConntrackStats { entries, limit: Some(1000), ..ConntrackStats::default() };
            stats.counters.add(ConntrackCounter::Drop, drop);
            stats.counters.add(ConntrackCounter::InsertFailed, collided);
            stats
        };
        let found = |entries, collided| {
            let host = TestHost::new()
                .row(450, "nf_hook_slow", "NETFILTER_DROP")
                .conntrack(stats(0, 0, 0), stats(entries, 450, collided));
            let rules = [&RULE, &super::super::conntrack_insert::RULE];
            let found = rules.into_iter().flat_map(|rule| host.clone().run(rule));
            found.map(|finding| finding.rule).collect::<Vec<_>>()
        };
        assert_eq!(found(949, 0), ["conntrack_table_full"]);
        assert_eq!(found(949, 450), ["conntrack_insert_failed"]);
        assert_eq!(found(20, 0), ["conntrack_insert_failed"]);
    }

    #[test]
    fn refused_packets_of_a_full_table_are_its_doing() {
        let found = between(table(180, 1000, 7, 0), table(1000, 1000, 10_008, 3), 10_001);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.severity, Severity::Critical);
        assert_eq!(
            finding.title,
            "conntrack table full in gw: 1000 of 1000 entries, 10001 packets refused"
        );
        assert_eq!(finding.explains.map(|e| (e.drops, e.share)), Some((10_001, 1.0)));
        assert_eq!(
            finding.actions[0].command, "sysctl -w net.netfilter.nf_conntrack_max=65536",
            "one value for the host, whatever the namespace"
        );
        assert!(
            finding.actions[0].note.starts_with("16.5 MiB when full (65536 × 256 B + 65536 × 8 B)")
        );
        assert_eq!(finding.actions.len(), 1, "there are buckets for that many");
    }

    #[test]
    fn it_explains_no_more_than_was_dropped() {
        let found = between(table(1000, 1000, 0, 0), table(1000, 1000, 50, 0), 40);
        assert_eq!(found[0].explains.map(|e| e.drops), Some(40));
    }

    #[test]
    fn a_table_that_was_full_within_the_interval_gave_entries_up() {
        let found = between(table(10, 1000, 0, 0), table(500, 1000, 50, 0), 50);
        assert_eq!(found, [], "never seen full");
        let found = between(table(10, 1000, 0, 0), table(500, 1000, 50, 1), 50);
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn a_full_table_that_refuses_nothing_is_none_of_our_business() {
        assert_eq!(between(table(1000, 1000, 9, 0), table(1000, 1000, 9, 0), 100), []);
    }

    #[test]
    fn a_namespace_that_was_not_looked_into_before_proves_nothing() {
        let host = TestHost::new().row(50, "nf_hook_slow", "NETFILTER_DROP");
        assert_eq!(host.conntrack_now(table(1000, 1000, 50, 0)).run(&RULE), []);
    }

    #[test]
    fn more_entries_than_buckets_get_more_buckets() {
        let found = between(table(70_000, 70_000, 0, 0), table(70_000, 70_000, 10, 0), 10);
        let commands: Vec<_> = found[0].actions.iter().map(|a| a.command.as_str()).collect();
        assert_eq!(
            commands,
            [
                "sysctl -w net.netfilter.nf_conntrack_max=262144",
                "sysctl -w net.netfilter.nf_conntrack_buckets=262144"
            ]
        );
    }

    #[test]
    fn what_fills_the_table_is_said_and_can_be_shortened() {
        let contents = ConntrackTable {
            entries: 1000,
            unread: 0,
            states: vec![StateRow {
                protocol: "tcp".into(),
                state: "TIME_WAIT",
                count: 650,
                share: 0.65,
                timeout_s: Some(120),
                timeout_setting: Some("nf_conntrack_tcp_timeout_time_wait"),
            }],
            ..ConntrackTable::default()
        };
        let found = TestHost::new()
            .row(10, "nf_hook_slow", "NETFILTER_DROP")
            .conntrack(table(1000, 1000, 0, 0), table(1000, 1000, 10, 0))
            .table(contents)
            .run(&RULE);
        let last = found[0].actions.last().unwrap();
        assert_eq!(
            last.command,
            "ip netns exec gw sysctl -w net.netfilter.nf_conntrack_tcp_timeout_time_wait=30"
        );
        assert!(last.note.starts_with("now 120: frees some 487 entries (49%)"), "{}", last.note);
    }
}
