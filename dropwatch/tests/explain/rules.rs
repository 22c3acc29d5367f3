//! Each rule that makes findings is explained, and what alerts say to type works.

use std::{collections::BTreeSet, fs, path::Path};

use clap::Parser;
use dropwatch::{cli::Cli, command::explain, diagnose::knowledge::Check};

use crate::{explained, host, known, rules_of};

/// Names of rules, as the source of the rules has them.
fn rules() -> BTreeSet<String> {
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/diagnose/rules")];
    let mut names = BTreeSet::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).expect("rules").map(|file| file.expect("entry").path()));
            continue;
        }
        let text = fs::read_to_string(path).expect("a rule");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for call in code.split("Draft::new(").skip(1) {
            let argument = call.split(',').nth(1).unwrap_or_default().trim();
            if let Some(name) = argument.strip_prefix('"') {
                names.insert(name.trim_end_matches('"').to_owned());
            }
        }
    }
    names
}

#[test]
fn every_rule_is_explained_and_no_other() {
    let explained: BTreeSet<String> = known().rules.iter().map(|rule| rule.rule.clone()).collect();
    assert_eq!(explained, rules());
    assert_eq!(explained.len(), known().rules.len(), "a rule is explained twice");
}

#[test]
fn rules_are_whole() {
    for rule in &known().rules {
        let name = &rule.rule;
        assert!((1..=48).contains(&rule.title.chars().count()), "{name}: {}", rule.title);
        assert!(rule.meaning.ends_with('.'), "{name}: a whole sentence");
        assert!(!rule.check.is_empty() && !rule.source.is_empty(), "{name}");
        for setting in &rule.settings {
            assert!(known().knob(setting).is_some(), "{name}: no entry says what {setting} does");
        }
        for drops in &rule.drops {
            assert!(known().drops(drops).is_some(), "{name}: no entry is about {drops}");
        }
        let commands = rule.check.iter().filter(|check| matches!(check, Check::Command(_)));
        let does = commands.count() + rule.settings.len() + rule.knobs.len();
        assert!(does > 0, "{name}: what is to be done?");
    }
}

#[test]
fn what_runbooks_say_to_type_works() {
    let alerts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/prometheus/alerts.yml");
    let alerts = fs::read_to_string(alerts).expect("alerts");
    let runbooks = alerts.lines().filter_map(|line| line.trim().strip_prefix("runbook: "));
    let commands = runbooks.flat_map(|runbook| runbook.split("; ")).map(|it| it.trim_matches('"'));
    let row = "60 packets dropped at __udp4_lib_rcv+0x4bc (NO_SOCKET) 88.2%";
    let (mut ours, mut explains) = (0, 0);
    for command in commands {
        let words: Vec<&str> = command.split_whitespace().skip_while(|it| *it == "sudo").collect();
        if words.first() != Some(&"dropwatch") {
            continue;
        }
        ours += 1;
        let what = words.iter().position(|word| *word == "explain");
        let stands_for: Vec<String> = match what.map(|at| words[at + 1..].join(" ")).as_deref() {
            None => Vec::new(),
            Some("'ROW'") => vec![row.to_owned()],
            Some("{{ $labels.rule }}") => rules().into_iter().collect(),
            Some(other) => panic!("{command}: what is {other}?"),
        };
        let parsed = Cli::try_parse_from(words.iter().take(what.map_or(usize::MAX, |at| at + 1)));
        assert!(parsed.is_ok(), "{command}: {parsed:?}");
        for typed in stands_for {
            explains += 1;
            assert!(explain::page(known(), &[&typed], &host("6.18")).is_ok(), "{typed}");
        }
    }
    assert!(ours >= 10 && explains > 50, "{ours} commands, {explains} explanations");
}

#[test]
fn the_sum_of_a_rules_findings_is_explained_as_the_rule() {
    for line in [
        "warning   294 more by closed_port in 294 namespaces, explain 3.2% of the drops (-n 0 shows them)",
        "notice    7 more by closed_port in 1 namespace, explain 21 drops",
        "critical  1 more by closed_port",
    ] {
        let page = explained(line).unwrap_or_else(|failure| panic!("{line}: {failure}"));
        assert_eq!(rules_of(&page), ["closed_port"], "{line}");
    }
}

/// A namespace without a name is called by a process, whose parentheses are no reason's.
#[test]
fn headlines_about_a_process_are_no_rows() {
    for (headline, rule) in [
        (
            "warning   web (pid 812) does not forward IPv4: 40 packets for other hosts refused",
            "forwarding_disabled",
        ),
        ("web (pid 812) has no route for 12 packets that it should forward", "no_route"),
        (
            "new notice web (pid 812) cannot forward 7 packets: larger than the next link's MTU",
            "mtu",
        ),
        ("web (pid 812) gets damaged packets: 9 with a wrong checksum (IP)", "checksum"),
        ("my (APP) (pid 3) gets damaged packets: 9 with a wrong checksum (IP)", "checksum"),
        ("Web Content (pid 812) does not forward IPv6: 40 packets", "forwarding_disabled"),
        ("eth0 in web (pid 812) lost 5 packets: the card had no room for them", "nic_no_room"),
    ] {
        let page = explained(headline).unwrap_or_else(|failure| panic!("{headline}: {failure}"));
        assert_eq!(rules_of(&page), [rule], "{headline}");
        assert!(page.not_known.is_empty(), "{headline}: {:?}", page.not_known);
    }
    let page = explained("web (pid 812)").expect("a process");
    assert!(page.words.iter().any(|word| word.names.iter().any(|name| name == "pid")), "{page:?}");
}

/// A headline is found by its first words, as a narrow screen or a hasty hand cuts it.
#[test]
fn the_first_words_of_a_headline_are_enough() {
    for (begin, rules) in [
        ("web (pid 812) does not", &["forwarding_disabled"][..]),
        ("web (pid 812) cannot forw", &["mtu"]),
        ("critical  conntrack table", &["conntrack_table_full"]),
        ("an iptables rule", &["netfilter_rule"]),
        ("NAT in web (pid 812) found no free", &["conntrack_insert_failed"]),
        ("UDP receive", &["udp_receive_buffer"]),
        ("nobody listens", &["closed_port", "queue_without_listener"]),
        ("nobody listens at queue", &["queue_without_listener"]),
    ] {
        let page = explained(begin).unwrap_or_else(|failure| panic!("{begin}: {failure}"));
        let brief = page.related_rules.iter().map(|rule| rule.rule.as_str());
        let all: BTreeSet<&str> = rules_of(&page).into_iter().chain(brief).collect();
        assert_eq!(all, rules.iter().copied().collect(), "{begin}");
    }
}

/// Each pattern of a headline, with something in the place of each blank, and each begin of it that has some
/// words of it.
#[test]
fn every_headline_is_explained_down_to_its_first_words() {
    for rule in &known().rules {
        for pattern in rule.headlines() {
            let headline = pattern.replace('*', "web (pid 812)").replace('#', "812");
            let page = explained(&headline).unwrap_or_else(|it| panic!("{headline}: {it}"));
            assert!(rules_of(&page).contains(&&*rule.rule), "{headline}: {page:?}");
        }
    }
}
