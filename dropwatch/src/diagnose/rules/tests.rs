use std::iter;

use super::*;
use crate::{
    diagnose::knowledge,
    report::question::{Answer, Leads, Packet, Route, Unanswered},
};

#[test]
fn what_rules_rest_on_can_be_asked_for() {
    let table = knowledge::table().expect("table");
    let asked = RULES.iter().flat_map(|rule| {
        [rule.counters, rule.settings, rule.device_settings, rule.host_losses, rule.host_settings]
            .concat()
    });
    for name in asked {
        let answer = table.find(name);
        assert!(answer.is_ok(), "{answer:?}");
    }
}

#[test]
fn drops_stand_in_for_counters_of_their_own_rule() {
    for (rule, proof) in RULES.iter().flat_map(|rule| rule.proofs.iter().map(move |it| (rule, it)))
    {
        assert!(proof.counters.iter().all(|counter| rule.asks_for(counter)), "{proof:?}");
        assert!(!proof.counters.is_empty() && !proof.reason.is_empty(), "{proof:?}");
    }
}

/// What counts no drop: it says how often, or drops show it at no place of their own.
const NO_DROPS: &[&str] = &[
    "Ip.ReasmTimeout",
    "Ip6.ReasmTimeout",
    "TcpExt.ListenDrops",
    "TcpExt.OfoPruned",
    "TcpExt.RcvPruned",
    "TcpExt.TCPFromZeroWindowAdv",
    "TcpExt.TCPMemoryPressures",
    "TcpExt.TCPReqQFullDrop",
    "TcpExt.TCPToZeroWindowAdv",
];

#[test]
fn it_is_known_which_drops_each_counter_counts() {
    let counted: BTreeSet<&str> = counts().flat_map(|it| it.names()).copied().collect();
    let asked: BTreeSet<&str> =
        RULES.iter().flat_map(|rule| [rule.counters, rule.host_losses].concat()).collect();
    let open: Vec<&&str> = asked.difference(&counted).filter(|it| !NO_DROPS.contains(it)).collect();
    assert_eq!(open, Vec::<&&str>::new(), "these are read a moment behind the drops");
    let listed = NO_DROPS.iter().filter(|it| counted.contains(*it) || !asked.contains(*it));
    assert_eq!(listed.collect::<Vec<_>>(), Vec::<&&str>::new());
    assert!(counted.is_subset(&asked));
}

/// What a command changes, it changes for the namespace or for the host, never for the wrong one.
#[test]
fn settings_are_of_a_namespace_or_of_the_host() {
    for rule in RULES {
        assert!(rule.host_settings.iter().all(|name| draft::is_host_wide(name)));
        assert!(!rule.settings.iter().any(|name| draft::is_host_wide(name)));
    }
}

/// Asks whether it is `there`, then by which way, and says what it learned.
const CURIOUS: Rule = Rule {
    findings: &[Makes { name: "no_route", severity: "", says: "", rests_on: "" }],
    check_or_ask: |facts| {
        let decided = || {
            let to = |last| Packet::to([203, 0, 113, last].into());
            let Ok(Route::Leads(_)) = facts.route(testing::GW, to(1))? else { return Ok(None) };
            let second = facts.route(testing::GW, to(2))?;
            let title = format!("{second:?}");
            Ok(Some(Draft::new(facts, "no_route", Severity::Notice, "", title).done()))
        };
        Verdict::of(decided()).into_iter().collect()
    },
    ..Rule::NONE
};

fn asked(rules: &[&'static Rule], answer: Answerer<'_>) -> Vec<String> {
    let report = testing::TestHost::new().report();
    let (before, now) = (HostEvidence::default(), HostEvidence::default());
    let facts = Facts::new(&report, &before, &now);
    let apart = Apart::new(facts.report, iter::empty());
    decide(rules, &facts, &apart, answer).into_iter().map(|finding| finding.title).collect()
}

#[test]
fn a_rule_decides_when_all_that_it_asks_is_answered() {
    let leads = Ok(Answer::Route(Route::Leads(Leads::default())));
    let mut calls = Vec::new();
    let found = asked(&[&CURIOUS, &CURIOUS], &mut |asks, answers| {
        calls.push(asks.len());
        asks.iter().for_each(|ask| answers.insert(*ask, leads.clone()));
    });
    assert_eq!(calls, [1, 1], "once for both, and once more for what follows from it");
    assert_eq!(found.len(), 2);
    assert!(found[0].starts_with("Ok(Leads"), "{found:?}");
}

#[test]
fn what_is_not_answered_is_not_found() {
    for why in [Unanswered::TooMany, Unanswered::Gone, Unanswered::NotPermitted] {
        let found = asked(&[&CURIOUS], &mut |asks, answers| {
            asks.iter().for_each(|ask| answers.insert(*ask, Err(why)));
        });
        assert_eq!(found, NOTHING);
    }
    let mut calls = 0;
    assert_eq!(asked(&[&CURIOUS], &mut |_, _| calls += 1), NOTHING);
    assert_eq!(calls, ROUNDS, "no answer at all does not keep a rule asking for ever");
}

#[test]
fn where_nothing_is_asked_nothing_is_read() {
    let report = testing::TestHost::new().row(900, "nf_hook_slow", "NETFILTER_DROP").report();
    let (before, now) = (HostEvidence::default(), HostEvidence::default());
    let found = findings(&report, &before, &now, &mut |asks, _| panic!("{asks:?}"));
    assert!(!found.is_empty());
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_kind_of_finding_is_one_rule_s() {
    let names: Vec<_> = kinds().map(|kind| kind.name).collect();
    let once: BTreeSet<_> = names.iter().collect();
    assert_eq!(once.len(), names.len(), "{names:?}");
}

#[test]
fn every_file_with_a_rule_is_in_the_list() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/diagnose/rules");
    let files = std::fs::read_dir(folder).expect("folder");
    let rule = concat!("const RULE: ", "Rule = Rule {");
    let files = files.map(|file| file.expect("file").path()).filter(|path| path.is_file());
    let texts = files.map(|path| std::fs::read_to_string(path).expect("text"));
    assert_eq!(texts.filter(|text| text.contains(rule)).count(), RULES.len());
}

#[test]
fn the_documentation_lists_every_kind() {
    let page = include_str!("../../../../docs/json.md");
    let row = |kind: &Makes| {
        let Makes { name, severity, says, rests_on } = kind;
        format!("| `{name}` | {severity} | {says} | {rests_on} |")
    };
    let listed: BTreeSet<_> = page
        .lines()
        .skip_while(|line| !line.starts_with("| rule |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(str::to_owned)
        .collect();
    assert_eq!(listed, kinds().map(row).collect());
}

#[test]
#[should_panic(expected = "does not list Udp.NoPorts")]
fn a_rule_that_asks_for_what_it_does_not_list_fails_its_tests() {
    const FORGETFUL: Rule = Rule {
        check: |facts| {
            facts.namespaces().for_each(|namespace| assert_eq!(namespace.delta("Udp.NoPorts"), 0));
            Vec::new()
        },
        ..Rule::NONE
    };
    testing::TestHost::new().run(&FORGETFUL);
}
