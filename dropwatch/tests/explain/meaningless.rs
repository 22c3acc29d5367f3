//! What is no name of anything gets no answer, whatever texts it stands in.

use std::collections::BTreeSet;

use dropwatch::exit;

use crate::{explained, known, rules_of};

#[test]
fn words_that_mean_nothing_are_not_known() {
    for text in [
        "id",
        "ethernet",
        "--help",
        "--json",
        "-v",
        "json",
        "help",
        "hello world",
        "the",
        "of the",
        "kubernetes",
        "skb",
        "eth0",
        "gw",
        "0",
        "12",
        "12.5%",
        "",
        " ",
        "…",
        "(",
        "()",
        "+0x7d",
        "*",
        "nothing is known",
        "packets are lost",
        "my packets came in late",
        "07:35:10",
        "12 at the gate",
        "drops in the bucket",
        "a | b",
        "5 < 7",
        "it was not run",
    ] {
        let failure = explained(text).map(|page| panic!("{text:?}: {page:?}")).unwrap_err();
        assert_eq!(failure.code(), exit::USAGE, "{text:?}");
        assert!(failure.to_string().contains("known"), "{text:?}: {failure}");
    }
}

/// An answer to a word is about that word: what only stands somewhere in its explanation is none.
#[test]
fn a_word_out_of_an_explanation_is_no_answer_by_itself() {
    let meanings = known().entries.iter().map(|entry| &entry.meaning);
    let titles = known().entries.iter().map(|entry| &entry.title);
    let rules = known().rules.iter().flat_map(|rule| [&rule.meaning, &rule.title]);
    let texts = meanings.chain(titles).chain(rules);
    let split = texts.flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let words: BTreeSet<&str> = split.filter(|word| !word.is_empty()).collect();
    assert!(words.len() > 1000, "{}", words.len());
    let (mut unknown, mut loose) = (0, Vec::new());
    for word in words {
        let Ok(page) = explained(word) else {
            unknown += 1;
            continue;
        };
        let lower = word.to_lowercase();
        let is = |name: &str| name.to_lowercase() == lower;
        let is_said =
            !page.words.is_empty() || !page.counters.is_empty() || !page.topics.is_empty();
        let is_rule = rules_of(&page).into_iter().any(is);
        let entries = || page.explained.iter().chain(&page.related);
        let is_entry = entries().any(|entry| {
            let names = entry.reasons.iter().chain(&entry.at).chain(&entry.seen_at);
            names.into_iter().any(|name| is(name))
        });
        // A setting, by the last part of its name.
        let is_setting = page.values.keys().any(|name| name.rsplit('.').next().is_some_and(is));
        // Settings that only stand in a command, and words of rules that are names.
        let is_name = word.contains('_');
        if !(is_said || is_rule || is_entry || is_setting || is_name) {
            loose.push(word);
        }
    }
    assert!(loose.is_empty(), "{loose:?}");
    assert!(unknown > 700, "{unknown}");
}

#[test]
fn every_topic_has_something_to_say_and_says_that_it_is_one() {
    for topic in known().topics() {
        let page = explained(topic).unwrap_or_else(|failure| panic!("{topic}: {failure}"));
        let answers = page.rules.len()
            + page.explained.len()
            + page.related.len()
            + page.related_rules.len()
            + page.words.len();
        assert!(answers > 0, "{topic}");
    }
    assert_eq!(explained("accept queue").expect("a topic").topics, ["accept queue"]);
    assert_eq!(explained("mtu").expect("a rule").topics, [""; 0]);
}

#[test]
fn what_its_words_stand_under_is_offered_and_not_shown() {
    let failure = explained("ethernet").expect_err("no name").to_string();
    assert!(failure.contains("it is spoken of under veth_xmit"), "{failure}");
    let failure = explained("TCP_CSM").expect_err("no name").to_string();
    assert!(failure.contains("did you mean TCP_CSUM"), "{failure}");
}
