//! Several names: each is explained, or the whole is refused.

use dropwatch::{command::explain, exit, render::explain::ExplainPage};

use crate::{explained, host, known, reasons_of, rules_of};

/// What a page is about, in full or listed.
fn titles(page: &ExplainPage<'static>) -> Vec<String> {
    let rules = rules_of(page).into_iter().map(str::to_owned);
    let entries = page.explained.iter().chain(&page.related).map(|entry| entry.title.clone());
    let counters = page.counters.iter().flat_map(|counter| counter.names.clone());
    let words = page.words.iter().map(|word| word.meaning.clone());
    rules.chain(entries).chain(counters).chain(words).collect()
}

fn page(words: &[&str]) -> ExplainPage<'static> {
    let page = explain::page(known(), words, &host("6.18"));
    page.unwrap_or_else(|failure| panic!("{words:?}: {failure}"))
}

#[test]
fn each_of_two_names_is_explained() {
    let names = known().names();
    // Each with one from elsewhere in the alphabet.
    let shifted = names.iter().cycle().skip(names.len() / 3);
    for (one, other) in names.iter().zip(shifted).step_by(5) {
        if one.contains([' ', '[']) || other.contains([' ', '[']) {
            continue;
        }
        // Beside a topic, this name of JSON is a word of the question.
        if [one, other].iter().any(|name| name.as_str() == "what") {
            continue;
        }
        let both = page(&[one, other]);
        let (alone, second) = (page(&[one]), page(&[other]));
        for title in titles(&alone).into_iter().chain(titles(&second)) {
            assert!(titles(&both).contains(&title), "{one} {other}: {title} is missing");
        }
        assert!(both.not_known.is_empty(), "{one} {other}: {:?}", both.not_known);
    }
}

#[test]
fn separators_do_not_matter() {
    for typed in [
        "NO_SOCKET TCP_CSUM",
        "NO_SOCKET,TCP_CSUM",
        "NO_SOCKET, TCP_CSUM",
        "NO_SOCKET; TCP_CSUM",
        "NO_SOCKET and TCP_CSUM",
        "NO_SOCKET\nTCP_CSUM",
        "NO_SOCKET | TCP_CSUM",
    ] {
        let page = explained(typed).unwrap_or_else(|failure| panic!("{typed}: {failure}"));
        let reasons = reasons_of(&page);
        assert!(reasons.contains(&"NO_SOCKET") && reasons.contains(&"TCP_CSUM"), "{typed}");
    }
}

#[test]
fn two_rows_are_two_answers() {
    let udp = "60 packets dropped at __udp4_lib_rcv+0x4bc (NO_SOCKET) 88.2%";
    let tcp = " 9 packets dropped at nf_hook_slow+0x7d [x] (NETFILTER_DROP) 1.2%";
    for words in [&[udp, tcp][..], &[&format!("{udp}\n{tcp}")], &[&format!("{tcp} {udp}")]] {
        let page = page(words);
        let full: Vec<_> = page.explained.iter().map(|entry| entry.title.as_str()).collect();
        assert!(
            full.contains(&"no UDP socket for this address and port") && full.len() == 2,
            "{words:?}: {full:?}"
        );
    }
    for typed in ["nf_hook_slow+0x7d tcp_v4_rcv+0x91", "rp_filter=1 ip_forward=0"] {
        let each: Vec<ExplainPage<'static>> =
            typed.split(' ').map(|typed| page(&[typed])).collect();
        for title in each.iter().flat_map(titles) {
            assert!(titles(&page(&[typed])).contains(&title), "{typed}: {title} is missing");
        }
    }
    let beside = page(&[udp, "TCP_CSUM"]);
    assert_eq!(beside.explained.len(), 2, "{:?}", titles(&beside));
}

#[test]
fn a_row_that_the_shell_took_apart_is_one() {
    let row = "60 packets dropped at __udp4_lib_rcv+0x4bc [udp] (NO_SOCKET) 88.2%";
    let words: Vec<&str> = row.split(' ').collect();
    let page = page(&words);
    assert_eq!(page.explained.len(), 1);
    assert_eq!(page.explained[0].title, "no UDP socket for this address and port");
    assert!(page.related.is_empty() && page.not_known.is_empty());
}

#[test]
fn a_name_that_is_not_known_is_never_left_out_silently() {
    for typed in ["NO_SOCKET TCP_CSM", "NO_SOCKET,FOO_BAR", "conntrack_table_full no_such_rule"] {
        let page = explained(typed).unwrap_or_else(|failure| panic!("{typed}: {failure}"));
        let last = typed.rsplit([' ', ',']).next().expect("a name");
        assert_eq!(page.not_known, [last], "{typed}");
    }
    // Of these nothing is known.
    let failure = explained("FOO_BAR, no_such_rule").expect_err("no names");
    assert_eq!(failure.code(), exit::USAGE);
    assert!(failure.to_string().contains("`FOO_BAR`"), "{failure}");
    for (typed, not_known) in [
        ("NO_SOCKET foo", "foo"),
        ("tcp_v4_rcv+0x91 (FOO_BAR)", "FOO_BAR"),
        ("gw.example.com:9100 is at a limit: conntrack_table_full", "gw.example.com"),
        ("sysctl net.core.somaxconn", "sysctl"),
        ("nf_hook_slow+0x7d no_such_function+0x91", "no_such_function+0x91"),
    ] {
        let page = explained(typed).unwrap_or_else(|failure| panic!("{typed}: {failure}"));
        assert_eq!(page.not_known, [not_known], "{typed}");
    }
    // Another subsystem may call something else so.
    assert_eq!(page(&["OPENVSWITCH:NO_SUCH_REASON"]).not_known, ["NO_SUCH_REASON"]);
}
