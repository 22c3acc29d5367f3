//! Rules that are changed between two readings, by all that people do to them: no rule is ever said to have
//! counted what it has not.

use std::collections::hash_map::RandomState;

use proptest::{prelude::*, sample::Index};

use super::{
    fuzz::{LISTED, SAVED, iptables, nft_since, shown},
    tally::Tallied,
};
use crate::report::filter_rules::Part;

fn reloaded(text: &str, now: &str) -> Tallied {
    let hasher = RandomState::new();
    let before = iptables(text, None, &hasher).now;
    iptables(now, Some(&before), &hasher)
}

#[test]
fn what_counted_is_the_difference_whatever_moved() {
    let same = reloaded(SAVED, SAVED);
    assert_eq!(shown(&same.counting), []);
    assert!(!same.changed && same.unsure.is_empty());
    // A rule came in front, one counted, a policy counted.
    let later = SAVED
        .replace("[0:0] -A INPUT", "[2:0] -A INPUT -p icmp -j DROP\n[0:0] -A INPUT")
        .replace("[7:196] -A INPUT", "[784:196] -A INPUT")
        .replace("DROP [50:", "DROP [60:");
    let later = reloaded(SAVED, &later);
    let counted = [("INPUT", Part::Rule(3), Some(777)), ("FORWARD", Part::Policy, Some(10))];
    assert_eq!(shown(&later.counting), counted);
    // It may have been put there with its counter; and two have one text, so which of them moved?
    let unsure = [("INPUT", Part::Rule(1), None), ("INPUT", Part::Rule(4), None)];
    assert_eq!(shown(&later.unsure), unsure);
    assert!(later.changed);
}

#[test]
fn one_of_two_equal_rules_is_told_apart_while_nothing_changes() {
    let later = SAVED.replace("[3:84] -A INPUT", "[780:84] -A INPUT");
    let tallied = reloaded(SAVED, &later);
    assert_eq!(shown(&tallied.counting), [("INPUT", Part::Rule(3), Some(777))]);
    assert!(!tallied.changed);
}

#[test]
fn counters_that_were_set_say_nothing_of_their_table() {
    let later = SAVED
        .replace("[7:196] -A INPUT", "[784:196] -A INPUT")
        .replace("[6:300] -A LOST", "[1:300] -A LOST")
        .replace("[4:84]", "[9:84]");
    let tallied = reloaded(SAVED, &later);
    assert_eq!(shown(&tallied.counting), [("PREROUTING", Part::Rule(1), Some(5))]);
    assert!(tallied.changed);
    assert!(shown(&tallied.unsure).contains(&("INPUT", Part::Rule(2), None)), "{tallied:?}");
    let zero = reloaded(SAVED, &SAVED.replace("[4:84]", "[0:0]"));
    assert!(zero.changed && zero.counting.is_empty());
    assert_eq!(shown(&zero.unsure), [("PREROUTING", Part::Rule(1), None)], "it may have counted");
}

/// The program puts a table in with counters of zero, and writes them back then.
#[test]
fn counters_that_are_written_back_are_no_drops_for_sure() {
    let hasher = RandomState::new();
    let before = iptables(SAVED, None, &hasher).now;
    let zero = SAVED.replace("[7:196]", "[0:0]").replace("[6:300]", "[0:0]");
    let between = iptables(&zero, Some(&before), &hasher);
    assert!(between.changed);
    let later = iptables(SAVED, Some(&between.now), &hasher);
    assert!(later.changed, "so that more than was dropped is not believed");
    assert!(!iptables(SAVED, Some(&later.now), &hasher).changed);
}

#[test]
fn what_came_at_zero_counts_from_then_on() {
    let hasher = RandomState::new();
    let before = iptables(SAVED, None, &hasher).now;
    let rule = |packets| format!("[{packets}:0] -A LOST -s 1.2.3.4/32 -j DROP\nCOMMIT\n*mangle");
    let with = |packets| SAVED.replacen("COMMIT\n*filter", &rule(packets), 1);
    let came = iptables(&with(0), Some(&before), &hasher);
    assert!(came.unsure.iter().all(|it| it.ever > 0), "{came:?}");
    let later = iptables(&with(9), Some(&came.now), &hasher);
    assert!(shown(&later.counting).contains(&("LOST", Part::Rule(1), Some(9))), "{later:?}");
}

#[test]
fn a_table_of_nftables_that_is_made_anew_has_no_rule_of_before() {
    let hasher = RandomState::new();
    let before = nft_since(LISTED, None, &hasher).0.now;
    let same = nft_since(LISTED, Some(&before), &hasher).0;
    assert!(!same.changed && same.counting.is_empty() && same.unsure.is_empty());
    // Its rules are numbered from the begin, so that each has the number of another one of before.
    let anew = LISTED
        .replace("table inet fw { # handle 6", "table inet fw { # handle 9")
        .replace("packets 3 bytes 90", "packets 203 bytes 90");
    let anew = nft_since(&anew, Some(&before), &hasher).0;
    assert_eq!(shown(&anew.counting), []);
    assert!(anew.changed);
    assert!(shown(&anew.unsure).contains(&("in", Part::Rule(7), None)));
    // A rule that stays in its table is the same, whatever comes and goes around it.
    let counted = LISTED
        .replace("packets 3 bytes 90", "packets 203 bytes 90")
        .replace("\t\tudp dport 6002 drop # handle 8\n", "");
    let counted = nft_since(&counted, Some(&before), &hasher).0;
    assert_eq!(shown(&counted.counting), [("in", Part::Rule(7), Some(200))]);
    assert!(counted.changed, "one that does not count went");
    let added = LISTED
        .replace("packets 3 bytes 90 drop", "packets 500 bytes 90 drop")
        .replace("# handle 7\n", "# handle 70\n");
    assert_eq!(shown(&nft_since(&added, Some(&before), &hasher).0.counting), []);
}

#[test]
fn a_chain_that_is_reached_from_elsewhere_is_a_change() {
    let tallied = reloaded(SAVED, &SAVED.replace("-g KUBE", "-j ACCEPT"));
    assert!(tallied.changed && tallied.counting.is_empty());
}

/// As iptables-legacy-save prints a comment with line ends.
#[test]
fn a_comment_of_more_lines_is_one_rule() {
    let forged = "*filter\n:INPUT ACCEPT [0:0]\n\
        [14:9] -A INPUT -p udp -m comment --comment \"a\n[7:0] -A INPUT -p tcp -j DROP\n*raw\nCOMMIT\n\
        # \\\" it\" -j DROP\n[7:196] -A INPUT -p icmp -j DROP\nCOMMIT\n";
    let tallied = iptables(forged, None, &RandomState::new());
    let rules = [("INPUT", Part::Rule(1), Some(14)), ("INPUT", Part::Rule(2), Some(7))];
    assert_eq!(shown(&tallied.counting), rules);
    assert!(!tallied.counting[0].text.contains('\n'), "{tallied:?}");
    // What nft prints the same way.
    let forged = LISTED.replace("block accept list", "a\n\t\tdrop # handle 99\n\t}\n}\nb");
    let (tallied, is_whole) = nft_since(&forged, None, &RandomState::new());
    assert!(is_whole);
    assert!(shown(&tallied.counting).contains(&("in", Part::Rule(7), Some(3))), "{tallied:?}");
    assert!(tallied.silent.iter().all(|it| it.part != Part::Rule(99)));
}

/// A rule as the kernel has it: its text, its counter, and what it dropped since the reading before.
#[derive(Clone, Debug)]
struct Real {
    text: u32,
    packets: u64,
    dropped: u64,
}

/// What somebody does to the rules of a chain.
#[derive(Clone, Debug)]
enum Edit {
    Drop(Index, u64),
    Insert(Index, bool),
    Delete(Index),
    /// By `iptables-save -c | sed | iptables-restore -c`: the counter stays.
    Rewrite(Index),
    /// Two rules change places, and keep their counters.
    Swap(Index, Index),
    /// Two texts change places, and the counters stay.
    SwapTexts(Index, Index),
    /// Each text becomes the next one's.
    Shift,
    /// What was saved at the reading before is restored, with its counters.
    Restore,
    Zero,
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let at = any::<Index>;
    let edit = prop_oneof![
        6 => (at(), 0..300_u64).prop_map(|(at, packets)| Edit::Drop(at, packets)),
        2 => (at(), any::<bool>()).prop_map(|(at, twice)| Edit::Insert(at, twice)),
        1 => at().prop_map(Edit::Delete),
        2 => at().prop_map(Edit::Rewrite),
        1 => (at(), at()).prop_map(|(one, other)| Edit::Swap(one, other)),
        1 => (at(), at()).prop_map(|(one, other)| Edit::SwapTexts(one, other)),
        1 => Just(Edit::Shift),
        1 => Just(Edit::Restore),
        1 => Just(Edit::Zero),
    ];
    proptest::collection::vec(edit, 0..6)
}

/// What the kernel has after an edit. `fresh` is a text that no rule has ever had.
fn apply(edit: &Edit, rules: &mut Vec<Real>, saved: &[Real], fresh: u32) {
    let all = rules.len();
    let new = |text| Real { text, packets: 0, dropped: 0 };
    match edit {
        Edit::Insert(at, _) => rules.insert(at.index(all + 1), new(fresh)),
        Edit::Restore => {
            // What it dropped, it dropped, whatever its counter says.
            let dropped = |text| rules.iter().find(|it| it.text == text).map_or(0, |it| it.dropped);
            *rules = saved.iter().map(|it| Real { dropped: dropped(it.text), ..*it }).collect();
        }
        Edit::Zero => rules.iter_mut().for_each(|rule| rule.packets = 0),
        _ if all == 0 => {}
        Edit::Drop(at, packets) => {
            let rule = &mut rules[at.index(all)];
            rule.packets += packets;
            rule.dropped += packets;
        }
        Edit::Delete(at) => _ = rules.remove(at.index(all)),
        Edit::Rewrite(at) => {
            let rule = &mut rules[at.index(all)];
            (rule.text, rule.dropped) = (fresh, 0);
        }
        Edit::Swap(one, other) => rules.swap(one.index(all), other.index(all)),
        Edit::SwapTexts(one, other) => {
            let (one, other) = (one.index(all), other.index(all));
            rules.swap(one, other);
            let packets = rules[one].packets;
            rules[one].packets = rules[other].packets;
            rules[other].packets = packets;
        }
        Edit::Shift => {
            let texts: Vec<(u32, u64)> = rules.iter().map(|it| (it.text, it.dropped)).collect();
            let next = texts.into_iter().skip(1).chain([(fresh, 0)]);
            rules.iter_mut().zip(next).for_each(|(rule, it)| (rule.text, rule.dropped) = it);
        }
    }
}

fn saved(rules: &[Real]) -> String {
    let mut text = "*filter\n:INPUT ACCEPT [0:0]\n".to_owned();
    for Real { text: rule, packets, .. } in rules {
        text += &format!("[{packets}:0] -A INPUT -m mark --mark {rule} -j DROP\n");
    }
    text + "COMMIT\n"
}

proptest! {
    /// One change of rules to each reading, with drops before and after it.
    #[test]
    fn no_rule_of_iptables_is_named_with_what_it_did_not_count(
        first in proptest::collection::vec(0..500_u64, 0..6),
        turns in proptest::collection::vec((edits(), edits()), 1..5),
    ) {
        let hasher = RandomState::new();
        let mut fresh = 0;
        let mut next = || { fresh += 1; fresh };
        let mut rules: Vec<Real> =
            first.iter().map(|&packets| Real { text: next(), packets, dropped: 0 }).collect();
        let mut before = iptables(&saved(&rules), None, &hasher).now;
        for (one, two) in turns {
            let then = rules.clone();
            let is_drop = |it: &&Edit| matches!(it, Edit::Drop(..));
            let edit = one.iter().find(|it| !is_drop(it));
            let edits = one.iter().filter(is_drop).chain(edit).chain(two.iter().filter(is_drop));
            edits.for_each(|edit| apply(edit, &mut rules, &then, next()));
            let tallied = iptables(&saved(&rules), Some(&before), &hasher);
            for (_, part, counted) in shown(&tallied.counting) {
                let Part::Rule(position) = part else { panic!("{part:?}") };
                let rule = &rules[usize::try_from(position).unwrap() - 1];
                prop_assert!(counted.unwrap() <= rule.dropped, "{counted:?} {rule:?} {tallied:?}");
            }
            // All is explained, or it is said that rules were changed.
            let sum: u64 = tallied.counting.iter().filter_map(|it| it.counted).sum();
            let dropped: u64 = rules.iter().map(|it| it.dropped).sum();
            prop_assert!(tallied.changed || edit.is_some() || sum == dropped);
            before = tallied.now;
            rules.iter_mut().for_each(|rule| rule.dropped = 0);
        }
    }

    /// Rules of nftables, each with a number that is never another one's.
    #[test]
    fn no_rule_of_nftables_is_named_with_what_it_did_not_count(
        first in proptest::collection::vec(0..500_u64, 0..6),
        turns in proptest::collection::vec(edits(), 1..5),
        reload in any::<Index>(),
    ) {
        let hasher = RandomState::new();
        let (mut table, mut number) = (1, first.len() as u32);
        let mut rules: Vec<(u32, Real)> = (1..).zip(&first)
            .map(|(handle, &packets)| (handle, Real { text: handle % 3, packets, dropped: 0 }))
            .collect();
        let list = |table: u32, rules: &[(u32, Real)]| {
            let mut text = format!("table ip f {{ # handle {table}\n\tchain in {{ # handle 1\n\t\ttype \
                filter hook input priority filter; policy accept;\n");
            for (handle, Real { text: rule, packets, .. }) in rules {
                text += &format!("\t\tudp dport {rule} counter packets {packets} bytes 0 drop # handle {handle}\n");
            }
            text + "\t}\n}\n"
        };
        let mut before = nft_since(&list(table, &rules), None, &hasher).0.now;
        let last = reload.index(turns.len());
        for (turn, edits) in turns.iter().enumerate() {
            let mut changed = false;
            for edit in edits {
                let all = rules.len();
                match edit {
                    Edit::Drop(at, packets) if all > 0 => {
                        let rule = &mut rules[at.index(all)].1;
                        (rule.packets, rule.dropped) = (rule.packets + packets, rule.dropped + packets);
                    }
                    Edit::Delete(at) if all > 0 => {
                        changed |= rules.remove(at.index(all)).1.dropped > 0;
                    }
                    Edit::Insert(at, counts) => {
                        number += 1;
                        let packets = if *counts { 500 } else { 0 };
                        rules.insert(at.index(all + 1), (number, Real { text: 1, packets, dropped: 0 }));
                    }
                    Edit::Zero => {
                        changed |= rules.iter().any(|(_, it)| it.packets > 0);
                        rules.iter_mut().for_each(|(_, rule)| rule.packets = 0);
                    }
                    _ => {}
                }
            }
            if turn == last {
                // `nft list ruleset > f; edit; nft -f f`, with a rule more: each number is another rule's.
                table += 1;
                number = 1;
                rules.insert(0, (0, Real { text: 9, packets: 0, dropped: 0 }));
                for (rule, _) in &mut rules {
                    number += 1;
                    *rule = number;
                }
                changed = true;
            }
            let tallied = nft_since(&list(table, &rules), Some(&before), &hasher).0;
            let mut sum = 0;
            for (_, part, counted) in shown(&tallied.counting) {
                let (_, rule) = rules.iter().find(|it| part == Part::Rule(it.0.into())).unwrap();
                prop_assert!(counted.unwrap() <= rule.dropped, "{counted:?} {rule:?} {tallied:?}");
                sum += counted.unwrap();
            }
            let dropped: u64 = rules.iter().map(|it| it.1.dropped).sum();
            prop_assert!(tallied.changed || changed || sum == dropped, "{tallied:?} {rules:?}");
            before = tallied.now;
            rules.iter_mut().for_each(|(_, rule)| rule.dropped = 0);
        }
    }
}
