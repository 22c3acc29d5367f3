//! A queueing discipline has no room for more, or has decided to drop.
//!
//! More is sent than the link, or the rate that somebody set, takes (`__dev_xmit_skb()`,
//! net/core/dev.c, and `qdisc_drop()`, include/net/sch_generic.h). Disciplines that manage their
//! queue (fq_codel, cake) drop a few packets of each connection that fills the link, on purpose:
//! that is how TCP learns its speed.

use std::cmp::Reverse;

use super::{Counts, Draft, Facts, Kept, Makes, Rule, draft::quote, matters};
use crate::{
    diagnose::facts::{LinkFacts, NetnsFacts, Rows},
    report::{
        evidence::{QDISC_DROPS, Queue, QueueId},
        finding::{Finding, Severity},
        object::Object,
    },
};

/// Packets that a queue is never advised to hold more than, unless it holds half as many.
const MOST_HELD: u64 = 10_000;

/// Most disciplines that are named of one device.
const MOST_NAMED: usize = 3;

/// Disciplines that keep their queue short by dropping.
const MANAGED: [&str; 8] = ["fq_codel", "codel", "fq_pie", "pie", "cake", "fq", "red", "sfb"];

/// Reasons of the core; Linux 7.1 moved some to a subsystem of their own.
const REASONS: &[&str] = &[
    "QDISC_DROP",
    "QDISC_OVERLIMIT",
    "QDISC_CONGESTED",
    "CAKE_FLOOD",
    "FQ_BAND_LIMIT",
    "FQ_HORIZON_LIMIT",
    "FQ_FLOW_LIMIT",
];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "qdisc_drop",
        severity: "warning, notice for managed queues",
        says: "more is sent than the link or its shaper takes",
        rests_on: "drops of the queueing discipline",
    }],
    counts: &[Counts::of(Kept::Devices(QDISC_DROPS), REASONS, &[]).and_of("QDISC")],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let dropped = dropped(facts);
    let links = facts
        .namespaces()
        .flat_map(|namespace| namespace.links().map(move |link| (namespace, link)));
    links.filter_map(|(namespace, link)| full(facts, namespace, link, &dropped)).collect()
}

/// Rows of the report for the reasons of any queueing discipline.
fn dropped<'a>(facts: &Facts<'a>) -> Rows<'a> {
    let by_subsystem = facts.locations().iter().filter(|row| {
        row.place.subsystem.as_deref() == Some("QDISC")
            && !row.place.reason.as_deref().is_some_and(|reason| REASONS.contains(&reason))
    });
    let mut rows = facts.rows(REASONS, &[]);
    rows.0.extend(by_subsystem);
    rows
}

fn full(
    facts: &Facts<'_>,
    namespace: NetnsFacts<'_>,
    link: LinkFacts<'_>,
    dropped: &Rows<'_>,
) -> Option<Finding> {
    let counted = link.delta(QDISC_DROPS);
    let drops = counted.min(dropped.count());
    if !matters(drops, facts) {
        return None;
    }
    let (name, kind) = (link.now.name.as_str(), link.now.qdisc.as_deref()?);
    let device = quote(name);
    let (severity, why) = match MANAGED.contains(&kind) {
        true => (Severity::Notice, "it keeps its queue short"),
        false => (Severity::Warning, "more is sent than it lets through"),
    };
    let title =
        format!("{kind} on {name} in {} dropped {counted} packets: {why}", namespace.name());
    let mut draft = Draft::new(facts, "qdisc_drop", severity, format!("{kind} on {name}"), title)
        .at(namespace)
        .explains(drops, dropped)
        .counted(&format!("drops of {kind}"), counted, "rtnetlink");
    let queues = innermost(link);
    let object = match queues.first() {
        Some((id, queue, dropped)) => Object::qdisc(name, *id, queue, *dropped),
        // Those that a kernel makes by itself.
        None => {
            let queue = Queue { kind: kind.to_owned(), ..Queue::default() };
            Object::qdisc(name, QueueId { handle: 0, parent: QueueId::ROOT }, &queue, counted)
        }
    };
    draft = draft.names(object);
    let remedy = remedy(link, queues.first());
    // `tc` shows what a kernel has made for a class to who asks for it.
    let invisible = queues.first().is_some_and(|(id, ..)| is_default(*id));
    let all = if invisible { " invisible" } else { "" };
    for (id, queue, dropped) in queues.into_iter().take(MOST_NAMED) {
        draft = draft.counted(&format!("{} {id}", queue.kind), dropped, "rtnetlink");
    }
    let draft = draft.state("queue_length", u64::from(link.now.queue_length), "rtnetlink").run(
        &format!("tc -s qdisc show dev {device}{all}"),
        "rate, limit and drops of each of its classes",
    );
    Some(
        match remedy {
            Some((command, note)) => draft.run(&command, &note),
            None => draft,
        }
        .done(),
    )
}

/// Whether the kernel has made a discipline by itself, for a class without one.
fn is_default(id: QueueId) -> bool {
    id.handle == 0 && id.parent >> 16 != 0 && id.parent != QueueId::ROOT
}

/// The command that has the discipline hold more, with what that costs; `None` where its limit is not to be
/// changed alone, or it is to be short.
fn remedy(
    link: LinkFacts<'_>,
    dropped: Option<&(QueueId, Queue, u64)>,
) -> Option<(String, String)> {
    let device = quote(&link.now.name);
    let root = link.now.qdisc.as_deref()?;
    let cost = "a longer queue takes longer bursts; every packet may wait longer";
    let by_device = || {
        let longer = link.now.queue_length.saturating_mul(2);
        let command = format!("ip link set dev {device} txqueuelen {longer}");
        (longer > 0).then(|| (command, cost.to_owned()))
    };
    let Some((id, Queue { kind, limit, .. }, drops)) = dropped else {
        return (root == "pfifo_fast").then(by_device).flatten();
    };
    if kind == "pfifo_fast" {
        // Those of the device's own queues alone follow it (`dev_qdisc_change_tx_queue_len`,
        // net/sched/sch_generic.c).
        return matches!(root, "pfifo_fast" | "mq" | "mqprio").then(by_device).flatten();
    }
    let limit = u64::from((*limit)?);
    let each = if kind == "bfifo" { u64::from(link.now.mtu.max(1)) } else { 1 };
    // Such a burst as there was, within reason.
    let burst = limit.saturating_add(drops.saturating_mul(each)).min(MOST_HELD * each);
    let more = burst.max(limit.saturating_mul(2));
    let at = id.parent().map_or_else(|| "root".to_owned(), |class| format!("parent {class}"));
    let (verb, handle, note) = match id.handle {
        // What has no handle cannot be changed.
        0 => (
            "replace",
            String::new(),
            "in the place of the queue that the kernel made for the class: what waits there is lost once",
        ),
        _ => ("change", format!(" handle {}", id.handle()), "its own limit, which no device sets"),
    };
    let command = format!("tc qdisc {verb} dev {device} {at}{handle} {kind} limit {more}");
    Some((command, format!("{note}; {cost}")))
}

/// The disciplines that dropped, the most first, without those that count what one below them dropped.
fn innermost(link: LinkFacts<'_>) -> Vec<(QueueId, Queue, u64)> {
    let queues = link.queues();
    let counts_others = |id: &QueueId| {
        let below = |(other, ..): &(QueueId, _, _)| other != id && other.is_below(id.handle);
        queues.iter().any(below)
            || (id.parent == QueueId::ROOT && id.handle == 0 && queues.len() > 1)
    };
    let mut found: Vec<_> = queues
        .iter()
        .filter(|(id, ..)| !counts_others(id))
        .map(|(id, queue, drops)| (*id, (*queue).clone(), *drops))
        .collect();
    found.sort_by_key(|(id, _, drops)| (Reverse(*drops), *id));
    found
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::evidence::Link;

    fn link(kind: &str) -> Link {
        Link {
            name: "eth0".into(),
            queue_length: 1000,
            qdisc: Some(kind.into()),
            ..Link::default()
        }
    }

    fn found(kind: &str, counted: u64, dropped: u64) -> Vec<Finding> {
        TestHost::new()
            .row(dropped, "__dev_xmit_skb", "QDISC_DROP")
            .link(&link(kind), "qdisc_drops", counted)
            .run(&RULE)
    }

    #[test]
    fn a_full_queue_is_named_with_its_device() {
        let found = found("pfifo_fast", 20, 20);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.title,
            "pfifo_fast on eth0 in gw dropped 20 packets: more is sent than it lets through"
        );
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(
            finding.actions[1].command,
            "ip netns exec gw ip link set dev eth0 txqueuelen 2000"
        );
    }

    /// A shaper counts what the queue in its class drops, too.
    #[test]
    fn the_discipline_that_dropped_is_named_with_its_handle() {
        let queue = |kind: &str| Queue { kind: kind.into(), drops: 20, ..Queue::default() };
        let root = QueueId { handle: 0x0001_0000, parent: QueueId::ROOT };
        let leaf = QueueId { handle: 0x0010_0000, parent: 0x0001_0010 };
        let host = TestHost::new().row(20, "__dev_xmit_skb", "QDISC_DROP");
        let mut host = host.link(&link("htb"), "qdisc_drops", 20);
        let links = &mut host.now.namespaces.get_mut(&GW).expect("gw").links;
        let queues = [(root, queue("htb")), (leaf, queue("pfifo"))].into();
        links.get_mut(&2).expect("eth0").queues = queues;
        let found = host.run(&RULE);
        let names: Vec<_> = found[0].evidence.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["drops of htb", "pfifo 10: in 1:10", "queue_length"]);
    }

    /// The last command where a discipline of this kind and limit dropped 20 packets.
    fn advised(root: &str, id: QueueId, kind: &str, limit: Option<u32>) -> String {
        let host = TestHost::new().row(20, "__dev_xmit_skb", "QDISC_DROP");
        let mut host = host.link(&Link { mtu: 1500, ..link(root) }, "qdisc_drops", 20);
        let links = &mut host.now.namespaces.get_mut(&GW).expect("gw").links;
        let queue = Queue { kind: kind.into(), drops: 20, limit };
        links.get_mut(&2).expect("eth0").queues = [(id, queue)].into();
        let found = host.run(&RULE);
        let command = &found[0].actions.last().expect("a command").command;
        command.trim_start_matches("ip netns exec gw ").to_owned()
    }

    #[test]
    fn each_queue_has_a_limit_of_its_own() {
        let leaf = QueueId { handle: 0x0020_0000, parent: 0x0001_0020 };
        assert_eq!(
            advised("htb", leaf, "pfifo", Some(5)),
            "tc qdisc change dev eth0 parent 1:20 handle 20: pfifo limit 25"
        );
        assert_eq!(
            advised("htb", leaf, "pfifo", Some(1000)),
            "tc qdisc change dev eth0 parent 1:20 handle 20: pfifo limit 2000"
        );
        assert_eq!(
            advised("htb", leaf, "bfifo", Some(3000)),
            "tc qdisc change dev eth0 parent 1:20 handle 20: bfifo limit 33000"
        );
        let root = QueueId { handle: 0x0001_0000, parent: QueueId::ROOT };
        assert_eq!(
            advised("pfifo", root, "pfifo", Some(5)),
            "tc qdisc change dev eth0 root handle 1: pfifo limit 25"
        );
    }

    #[test]
    fn the_queue_that_a_class_begins_with_is_replaced() {
        let made = QueueId { handle: 0, parent: 0x0001_0020 };
        assert_eq!(
            advised("htb", made, "pfifo", Some(5)),
            "tc qdisc replace dev eth0 parent 1:20 pfifo limit 25"
        );
    }

    #[test]
    fn a_device_decides_about_its_own_queues_alone() {
        let longer = "ip link set dev eth0 txqueuelen 2000";
        let own = QueueId { handle: 0, parent: QueueId::ROOT };
        let of_mq = QueueId { handle: 0, parent: 1 };
        let leaf = QueueId { handle: 0x0020_0000, parent: 0x0001_0020 };
        assert_eq!(advised("pfifo_fast", own, "pfifo_fast", None), longer);
        assert_eq!(advised("mq", of_mq, "pfifo_fast", None), longer);
        let show = "tc -s qdisc show dev eth0";
        assert_eq!(advised("htb", leaf, "pfifo_fast", None), show);
        assert_eq!(advised("tbf", QueueId { handle: 0x8001_0000, ..own }, "tbf", None), show);
        assert_eq!(advised("mq", of_mq, "fq_codel", None), show);
    }

    #[test]
    fn a_managed_queue_does_its_work() {
        let found = found("fq_codel", 20, 20);
        assert_eq!(found[0].severity, Severity::Notice);
        assert_eq!(found[0].actions.len(), 1, "a longer queue would not help");
    }

    #[test]
    fn drops_of_another_queue_are_not_this_ones() {
        assert_eq!(found("pfifo_fast", 0, 20), []);
        assert_eq!(found("pfifo_fast", 2, 200), []);
    }
}
