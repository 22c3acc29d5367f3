//! Packets for a program that decides about them (NFQUEUE) are lost: nobody listens, or it is too slow.
//!
//! A rule hands packets to a queue by its number. Where no program listens there they are dropped, unless
//! the rule lets them pass then (`nf_queue`, net/netfilter/nf_queue.c). A queue that is full counts
//! `queue_dropped`, a program whose socket has no room `user_dropped` (`__nfqnl_enqueue_packet`,
//! net/netfilter/nfnetlink_queue.c); both in `/proc/net/netfilter/nfnetlink_queue`, as long as the program
//! listens. What it was to get is a copy, whose loss is none.

use super::{
    Counts, Draft, Facts, Kept, Makes, Rule, Verdict, matters, netfilter::NFT_RULES, quote,
};
use crate::{
    diagnose::{
        facts::{NetnsFacts, Rows},
        knowledge::NOT_SPECIFIED,
    },
    report::{
        evidence::TableFamily,
        filter_rules::is_word,
        finding::{Finding, Severity},
        object::Object,
        question::{Ask, Does, RulePlace, RuleTarget, Sought},
    },
};

pub(super) const RULE: Rule = Rule {
    findings: &[
        Makes {
            name: "queue_without_listener",
            severity: "critical",
            says: "a rule hands packets to a queue (NFQUEUE) at which no program listens",
            rests_on: "drops at `nf_queue`, the rules with such a target, the queues that have a \
                       listener",
        },
        Makes {
            name: "packet_queue_full",
            severity: "critical",
            says: "a program that decides about packets (NFQUEUE) is too slow",
            rests_on: "`queue_dropped` and `user_dropped` of its queue",
        },
    ],
    counts: &[Counts::of(Kept::Queues, &["NETFILTER_DROP"], &["nf_queue"])],
    check_or_ask,
    ..Rule::NONE
};

const QUEUES: &str = "cat /proc/net/netfilter/nfnetlink_queue";

fn check_or_ask(facts: &Facts<'_>) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for namespace in facts.namespaces() {
        let rows = rows(facts).within(namespace);
        let mut lost = 0_u64;
        for full in full_queues(&namespace) {
            lost = lost.saturating_add(full.dropped).saturating_add(full.user_dropped);
            verdicts.extend(too_slow(facts, namespace, &rows, &full).map(Verdict::Found));
        }
        let left = rows.count().saturating_sub(lost);
        verdicts.extend(Verdict::of(unheard(facts, namespace, &rows, left)));
    }
    verdicts
}

/// Packets that a queue did not take. Before reasons, and where none is given, the function tells.
fn rows<'a>(facts: &Facts<'a>) -> Rows<'a> {
    facts.rows(&[NOT_SPECIFIED, "NETFILTER_DROP"], &["nf_queue"])
}

/// A queue that has lost packets in the interval.
struct Full {
    number: u16,
    listener: u32,
    waiting: u64,
    dropped: u64,
    user_dropped: u64,
}

fn full_queues(namespace: &NetnsFacts<'_>) -> Vec<Full> {
    let Some(before) = namespace.queues_before() else { return Vec::new() };
    let now = namespace.now.queues.iter();
    let full = now.map(|(number, now)| {
        // One at which another program listens has begun anew.
        let since = before.get(number).filter(|then| then.listener == now.listener);
        let since = since.copied().unwrap_or_default();
        Full {
            number: *number,
            listener: now.listener,
            waiting: now.waiting,
            dropped: now.dropped.saturating_sub(since.dropped),
            user_dropped: now.user_dropped.saturating_sub(since.user_dropped),
        }
    });
    full.filter(|full| full.dropped > 0 || full.user_dropped > 0).collect()
}

fn too_slow(
    facts: &Facts<'_>,
    namespace: NetnsFacts<'_>,
    rows: &Rows<'_>,
    full: &Full,
) -> Option<Finding> {
    let lost = full.dropped.saturating_add(full.user_dropped);
    if !matters(lost, facts) {
        return None;
    }
    let (name, number, said) = (namespace.name(), full.number, facts.selected(lost, rows));
    let why = match full.dropped >= full.user_dropped {
        true => "as many wait as may",
        false => "its socket has no room",
    };
    let title = format!(
        "the program at queue {number} (NFQUEUE) in {name} is too slow: {said} packets lost, {why}"
    );
    let subject = format!("queue {number}");
    let mut draft = Draft::new(facts, "packet_queue_full", Severity::Critical, subject, title)
        .at(namespace)
        .names(Object::packet_queue(number, number, Some(full.listener)))
        .counted("queue_dropped", full.dropped, "nfnetlink_queue")
        .counted_too("user_dropped", full.user_dropped, "nfnetlink_queue")
        .state("waiting", full.waiting, "nfnetlink_queue")
        .state("listener", u64::from(full.listener), "nfnetlink_queue");
    if !rows.is_empty() {
        draft = draft.explains(lost.min(rows.count()), rows);
    }
    let note = "columns: queue, listener (mostly the number of its process), waiting, -, -, lost \
                since the queue was full, lost since its socket was. More room is the program's own \
                setting (queue length, receive buffer), as is to let packets pass then (fail open)";
    Some(draft.run(QUEUES, note).done())
}

/// The rule whose queue nobody hears, if that is what refused `drops` packets.
fn unheard(
    facts: &Facts<'_>,
    namespace: NetnsFacts<'_>,
    rows: &Rows<'_>,
    drops: u64,
) -> Result<Option<Finding>, Ask> {
    let Some(netns) = namespace.netns().filter(|_| matters(drops, facts)) else { return Ok(None) };
    let Ok(targets) = facts.targets(netns.number(), Sought::Queue)? else { return Ok(None) };
    let heard = |number: u16| namespace.now.queues.contains_key(&number);
    let dead = |target: &&RuleTarget| match target.does {
        // A number that is looked up may be any.
        Does::Queue { first: 0, last: u16::MAX, .. } => false,
        Does::Queue { first, last, bypass: false } => (first..=last).any(|number| !heard(number)),
        _ => false,
    };
    let targets: Vec<&RuleTarget> = targets.iter().filter(dead).collect();
    if targets.is_empty() {
        return Ok(None);
    }
    let mut numbers: Vec<String> = targets.iter().filter_map(|it| numbers(it)).collect();
    numbers.dedup();
    let (name, said) = (namespace.name(), numbers.join(", "));
    let object = match &targets[..] {
        [RuleTarget { does: Does::Queue { first, last, .. }, .. }] => {
            Some(Object::packet_queue(*first, *last, None))
        }
        _ => None,
    };
    let title = format!(
        "nobody listens at queue {said} (NFQUEUE) in {name}: {drops} packets dropped that a rule \
         hands to it"
    );
    let mut draft = Draft::new(facts, "queue_without_listener", Severity::Critical, said, title)
        .at(namespace)
        .explains(drops, rows)
        .names_any(object)
        .counted("drops at nf_queue", rows.count(), "kfree_skb")
        .state("queues with a listener", namespace.now.queues.len() as u64, "nfnetlink_queue");
    let note = "the rule: start the program that is to listen at its queue, or make the rule anew \
                with `--queue-bypass` (nft: `queue flags bypass`), which lets packets pass where \
                nobody does";
    for target in targets.iter().take(3) {
        draft = match show(facts, &target.rule) {
            Some(command) => draft.run(&command, note),
            None => draft,
        };
    }
    Ok(Some(
        draft
            .run(
                QUEUES,
                "the queues that have a listener: the first column; shows nothing where none has",
            )
            .done(),
    ))
}

/// The numbers of a rule's queues: `5`, `5-8`.
fn numbers(target: &RuleTarget) -> Option<String> {
    match target.does {
        Does::Queue { first, last, .. } if first == last => Some(first.to_string()),
        Does::Queue { first, last, .. } => Some(format!("{first}-{last}")),
        _ => None,
    }
}

/// The command that shows a rule with its counter; `None` where this host has no program for it.
pub(super) fn show(facts: &Facts<'_>, rule: &RulePlace) -> Option<String> {
    match rule {
        RulePlace::Legacy { family, table, chain, position } => {
            let program = legacy_program(facts, *family)?;
            Some(format!("{program} -t {table} -nvxL {} {position}", quote(chain)))
        }
        RulePlace::Nft { family, table, chain, by_iptables: false }
            if facts.rule_programs().native =>
        {
            if !(is_word(table) && is_word(chain)) {
                return Some(NFT_RULES.to_owned());
            }
            Some(format!("nft -a list chain {family} {} {}", quote(table), quote(chain)))
        }
        RulePlace::Nft { family, table, chain, .. } => {
            let program = nft_program(facts, family)?;
            Some(format!("{program} -t {} -nvxL {}", quote(table), quote(chain)))
        }
    }
}

/// The program that has legacy tables of a family: `iptables-legacy`.
pub(super) fn legacy_program<'a>(facts: &Facts<'a>, family: TableFamily) -> Option<&'a str> {
    program(facts.rule_programs().legacy.get(&family)?)
}

/// The program of iptables that writes to nftables.
pub(super) fn nft_program<'a>(facts: &Facts<'a>, family: &str) -> Option<&'a str> {
    let family = match family {
        "ip" => TableFamily::Ipv4,
        "ip6" => TableFamily::Ipv6,
        _ => return None,
    };
    program(facts.rule_programs().nft.get(&family)?)
}

/// `iptables-legacy` of `iptables-legacy-save -c`.
fn program(save: &str) -> Option<&str> {
    save.split(' ').next()?.strip_suffix("-save")
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::{
        evidence::{PacketQueue, RulePrograms},
        question::{Answer, Question},
    };

    fn lost(drops: u64) -> TestHost {
        let mut host = TestHost::new().row(drops, "nf_queue", "NOT_SPECIFIED");
        host.now.rule_programs = RulePrograms {
            legacy: [(TableFamily::Ipv4, "iptables-legacy-save -c".to_owned())].into(),
            nft: [(TableFamily::Ipv4, "iptables-save -c".to_owned())].into(),
            native: true,
        };
        host
    }

    fn rule(first: u16, last: u16, bypass: bool) -> RuleTarget {
        let rule = RulePlace::Legacy {
            family: TableFamily::Ipv4,
            table: "filter".into(),
            chain: "INPUT".into(),
            position: 2,
        };
        RuleTarget { does: Does::Queue { first, last, bypass }, rule }
    }

    fn asked(host: TestHost, targets: Vec<RuleTarget>) -> Vec<Finding> {
        host.answer(Question::Targets(Sought::Queue), Answer::Targets(targets)).run(&RULE)
    }

    const SLOW: PacketQueue =
        PacketQueue { listener: 7384, waiting: 10, dropped: 7, user_dropped: 0 };

    #[test]
    fn a_queue_that_nobody_hears_is_named_with_its_rule() {
        let found = asked(lost(60), vec![rule(5, 5, false)]);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.title,
            "nobody listens at queue 5 (NFQUEUE) in gw: 60 packets dropped that a rule hands to it"
        );
        assert_eq!(finding.explains.map(|it| it.drops), Some(60));
        let commands: Vec<_> = finding.actions.iter().map(|it| it.command.as_str()).collect();
        assert_eq!(
            commands,
            [
                "ip netns exec gw iptables-legacy -t filter -nvxL INPUT 2",
                "ip netns exec gw cat /proc/net/netfilter/nfnetlink_queue"
            ]
        );
    }

    #[test]
    fn a_rule_of_nftables_is_shown_by_whoever_wrote_it() {
        let of = |by_iptables| {
            let (family, table, chain) = ("ip", "t".to_owned(), "my chain".to_owned());
            let rule = RulePlace::Nft { family, table, chain, by_iptables };
            let does = Does::Queue { first: 5, last: 8, bypass: false };
            let found = asked(lost(60), vec![RuleTarget { does, rule }]);
            assert!(found[0].title.contains("queue 5-8 "), "{found:?}");
            found[0].actions[0].command.clone()
        };
        assert_eq!(
            of(false),
            "ip netns exec gw nft -a list ruleset",
            "nft would take it for two words"
        );
        assert_eq!(of(true), "ip netns exec gw iptables -t t -nvxL 'my chain'");
    }

    #[test]
    fn a_queue_with_a_listener_or_a_bypass_is_not_unheard() {
        assert_eq!(asked(lost(60), vec![rule(5, 5, true)]), []);
        let heard = lost(60).queue(5, Some(SLOW), SLOW);
        assert_eq!(asked(heard.clone(), vec![rule(5, 5, false)]), []);
        assert_eq!(asked(heard, vec![rule(5, 6, false)]).len(), 1, "one of two has none");
        assert_eq!(asked(lost(60), vec![rule(0, u16::MAX, false)]), [], "whichever it is");
        assert_eq!(asked(lost(60), Vec::new()), []);
        assert_eq!(lost(60).run(&RULE), [], "not answered, not guessed");
        assert_eq!(asked(lost(2), vec![rule(5, 5, false)]), [], "a service that started anew");
    }

    #[test]
    fn a_queue_that_is_full_counts_what_it_did_not_take() {
        let full = PacketQueue { dropped: 57, ..SLOW };
        let found = asked(lost(50).queue(5, Some(SLOW), full), vec![rule(5, 5, false)]);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.title,
            "the program at queue 5 (NFQUEUE) in gw is too slow: 50 packets lost, as many wait as may"
        );
        assert_eq!(finding.explains.map(|it| it.drops), Some(50));
        let new = lost(50).queue(5, Some(PacketQueue { listener: 1, ..full }), full).run(&RULE);
        assert!(new[0].title.contains("57 packets lost"), "it has counted from zero: {new:?}");
        assert_eq!(lost(50).queue(5, Some(full), full).run(&RULE), []);
    }

    #[test]
    fn a_socket_without_room_is_the_programs_too() {
        let full = PacketQueue { user_dropped: 9, ..SLOW };
        let found = lost(9).queue(5, Some(SLOW), full).run(&RULE);
        assert!(found[0].title.ends_with("its socket has no room"), "{found:?}");
    }

    #[test]
    fn what_a_full_queue_explains_is_not_another_ones() {
        let full = PacketQueue { dropped: 57, ..SLOW };
        let found = asked(lost(110).queue(5, Some(SLOW), full), vec![rule(6, 6, false)]);
        let explained: Vec<_> = found.iter().filter_map(|it| Some(it.explains?.drops)).collect();
        assert_eq!(explained, [50, 60]);
    }
}
