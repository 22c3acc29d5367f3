//! Fragments that never became a packet.
//!
//! Fragments wait for the rest of their packet in memory that each namespace has so much of. When
//! it is used up, what comes next is refused (`inet_frag_find`, net/ipv4/inet_fragment.c; dropped by
//! `ip_defrag`, net/ipv4/ip_fragment.c, and `ipv6_frag_rcv`, net/ipv6/reassembly.c). What waits too
//! long is given up (`ip_expire`, `ip6frag_expire_frag_queue`): the rest was lost on its way. The
//! kernel counts a packet as failed in both cases, and as timed out in the second one only; broken
//! fragments look like the first case, so the memory must be seen full.

use super::{Counts, Draft, Facts, Kept, Makes, Rule, matters};
use crate::{
    diagnose::facts::NetnsFacts,
    report::finding::{Finding, Severity},
};

struct FragmentFamily {
    name: &'static str,
    fails: &'static str,
    timeouts: &'static str,
    source: &'static str,
    memory: &'static str,
    limit: &'static str,
    patience: &'static str,
    /// Drops what finds no room.
    entrance: &'static str,
}

const FAMILIES: [FragmentFamily; 2] = [
    FragmentFamily {
        name: "IPv4",
        fails: "Ip.ReasmFails",
        timeouts: "Ip.ReasmTimeout",
        source: "snmp",
        memory: "FRAG.memory",
        limit: "net.ipv4.ipfrag_high_thresh",
        patience: "net.ipv4.ipfrag_time",
        entrance: "ip_defrag",
    },
    FragmentFamily {
        name: "IPv6",
        fails: "Ip6.ReasmFails",
        timeouts: "Ip6.ReasmTimeout",
        source: "snmp6",
        memory: "FRAG6.memory",
        limit: "net.ipv6.ip6frag_high_thresh",
        patience: "net.ipv6.ip6frag_time",
        entrance: "ipv6_frag_rcv",
    },
];

/// Where fragments of a packet that is given up are freed, on kernels without a reason for it.
const GIVEN_UP: &[&str] = &[
    "ip_expire",
    "ip6frag_expire_frag_queue",
    "ip6_frag_expire",
    "inet_frag_rbtree_purge",
    "inet_frag_queue_flush",
];

/// Memory is full from here on: fragments come and go while the numbers are read.
const FULL: f64 = 0.9;
/// What the kernel allows by default, bytes.
const USUAL_LIMIT: u64 = 4 << 20;

pub(super) const RULE: Rule = Rule {
    findings: &[
        Makes {
            name: "fragment_memory_full",
            severity: "critical",
            says: "fragments find no room to wait",
            rests_on: "`ReasmFails`, memory in use",
        },
        Makes {
            name: "fragments_lost",
            severity: "warning",
            says: "datagrams never become whole",
            rests_on: "`ReasmFails`, `ReasmTimeout`",
        },
    ],
    counters: &["Ip.ReasmFails", "Ip.ReasmTimeout", "Ip6.ReasmFails", "Ip6.ReasmTimeout"],
    settings: &[
        "net.ipv4.ipfrag_high_thresh",
        "net.ipv4.ipfrag_time",
        "net.ipv6.ip6frag_high_thresh",
        "net.ipv6.ip6frag_time",
    ],
    counts: &[
        Counts::of(Kept::Netns(&["Ip.ReasmFails"]), &[], &["ip_defrag"]),
        Counts::of(Kept::Netns(&["Ip6.ReasmFails"]), &[], &["ipv6_frag_rcv"]),
    ],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let full = facts.namespaces().flat_map(|namespace| {
        FAMILIES.iter().filter_map(move |family| no_room(facts, namespace, family))
    });
    full.chain(facts.namespaces().filter_map(|namespace| incomplete(facts, namespace))).collect()
}

fn no_room(
    facts: &Facts<'_>,
    namespace: NetnsFacts<'_>,
    family: &FragmentFamily,
) -> Option<Finding> {
    let failed = namespace.delta(family.fails);
    let refused = failed.saturating_sub(namespace.delta(family.timeouts));
    let rows = facts.rows_or_unspecified(&[], &[family.entrance]);
    let drops = refused.min(rows.count());
    let memory = namespace.gauge(family.memory)?;
    let limit: u64 = namespace.setting(family.limit)?.parse().ok()?;
    if drops == 0 || (memory as f64) < limit as f64 * FULL {
        return None;
    }
    let title = format!(
        "memory for {} fragments full in {}: {memory} of {limit} bytes, {drops} refused",
        family.name,
        namespace.name()
    );
    let more = limit.saturating_mul(2).max(USUAL_LIMIT);
    let finding = Draft::new(facts, "fragment_memory_full", Severity::Critical, family.name, title)
        .at(namespace)
        .explains(drops, &rows)
        .counted(family.fails, failed, family.source)
        .counted(family.timeouts, namespace.delta(family.timeouts), family.source)
        .counted(&format!("drops at {}", family.entrance), rows.count(), "kfree_skb")
        .state(family.memory, memory, "sockstat")
        .setting(family.limit)
        .setting(family.patience)
        .set(family.limit, more, "twice the limit, and not less than the usual one");
    Some(finding.done())
}

fn incomplete(facts: &Facts<'_>, namespace: NetnsFacts<'_>) -> Option<Finding> {
    let packets = given_up(namespace);
    if !matters(packets, facts) {
        return None;
    }
    let rows = facts.rows_for("FRAG_REASM_TIMEOUT", GIVEN_UP);
    // The counter counts packets, the rows count fragments. So the rows say which fragments belong to
    // this namespace only where no other one has lost any.
    let alone = facts.namespaces().filter(|namespace| given_up(*namespace) > 0).count() == 1;
    let drops = if alone { rows.count() } else { rows.count().min(packets) };
    let title = format!(
        "{packets} packets never became whole in {}: fragments were lost on their way",
        namespace.name()
    );
    let mut draft = Draft::new(facts, "fragments_lost", Severity::Warning, "", title).at(namespace);
    if drops > 0 {
        draft = draft.explains(drops, &rows);
    }
    for family in FAMILIES.iter().filter(|family| namespace.delta(family.timeouts) > 0) {
        draft = draft
            .counted(family.timeouts, namespace.delta(family.timeouts), family.source)
            .setting(family.patience);
    }
    let finding = draft.counted("FRAG_REASM_TIMEOUT", rows.count(), "kfree_skb").run(
        "timeout 30 tcpdump -n -c 20 'ip[6:2] & 0x3fff != 0 or ip6[6] = 44'",
        "who sends in fragments: best to make that sender send less at once, or widen the path",
    );
    Some(finding.done())
}

/// Packets that waited in vain for the rest of their fragments.
fn given_up(namespace: NetnsFacts<'_>) -> u64 {
    FAMILIES.iter().map(|family| namespace.delta(family.timeouts)).sum()
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    fn refusing(failed: u64, timed_out: u64, memory: u64) -> TestHost {
        TestHost::new()
            .row(40, "ip_defrag", "NOT_SPECIFIED")
            .counted("Ip.ReasmFails", failed)
            .counted("Ip.ReasmTimeout", timed_out)
            .gauge("FRAG.memory", memory)
            .setting("net.ipv4.ipfrag_high_thresh", "10000")
    }

    #[test]
    fn full_memory_refuses_fragments() {
        let found = refusing(40, 0, 10_100).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.title,
            "memory for IPv4 fragments full in gw: 10100 of 10000 bytes, 40 refused"
        );
        assert_eq!(finding.severity, Severity::Critical);
        assert_eq!(
            finding.actions[0].command,
            "ip netns exec gw sysctl -w net.ipv4.ipfrag_high_thresh=4194304"
        );
    }

    #[test]
    fn broken_fragments_are_not_for_want_of_room() {
        assert_eq!(refusing(40, 0, 8_000).run(&RULE), []);
        assert_eq!(refusing(0, 0, 10_100).run(&RULE), []);
    }

    #[test]
    fn what_timed_out_was_not_refused() {
        let found = refusing(40, 40, 10_100).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.rule, "fragments_lost");
    }

    #[test]
    fn packets_that_never_became_whole_explain_all_their_fragments() {
        let found = TestHost::new()
            .row(80, "ip_expire", "FRAG_REASM_TIMEOUT")
            .row(20, "inet_frag_rbtree_purge", "FRAG_REASM_TIMEOUT")
            .counted("Ip.ReasmTimeout", 50)
            .setting("net.ipv4.ipfrag_time", "30")
            .run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.title,
            "50 packets never became whole in gw: fragments were lost on their way"
        );
        assert_eq!(finding.explains.map(|e| e.drops), Some(100));
    }

    #[test]
    fn a_packet_or_two_are_usual() {
        assert_eq!(TestHost::new().counted("Ip6.ReasmTimeout", 2).run(&RULE), []);
        let row = TestHost::new().row(50, "ip_expire", "FRAG_REASM_TIMEOUT");
        assert_eq!(row.run(&RULE), [], "counted nowhere");
    }
}
