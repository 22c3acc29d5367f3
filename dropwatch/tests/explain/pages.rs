//! What the pages look like. `cargo xtask bless` accepts changes.

use dropwatch::{exit, explain, render::explain as render};

use crate::{host, known};

fn page(name: &str, color: bool) -> String {
    let page = explain::page(known(), name, &host("6.18")).expect("known");
    let mut out = Vec::new();
    render::page(&page, color, &mut out).expect("writes");
    String::from_utf8(out).expect("UTF-8")
}

fn list() -> String {
    let mut out = Vec::new();
    render::list(known(), false, &mut out).expect("writes");
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn a_reason() {
    insta::assert_snapshot!(page("netfilter_drop", false));
}

#[test]
fn a_function_that_drops_for_many_reasons() {
    insta::assert_snapshot!(page("tcp_v4_rcv", false));
}

#[test]
fn a_row_of_a_report() {
    insta::assert_snapshot!(page("enqueue_to_backlog+0x1f4 (CPU_BACKLOG)", false));
}

#[test]
fn no_reason_at_all() {
    insta::assert_snapshot!(page("NOT_SPECIFIED", false));
}

#[test]
fn the_list() {
    insta::assert_snapshot!(list());
}

#[test]
fn json() {
    let page = explain::page(known(), "QDISC_BURST_DROP", &host("6.18")).expect("known");
    let mut out = Vec::new();
    render::json(&page, &mut out).expect("writes");
    insta::assert_snapshot!(String::from_utf8(out).expect("UTF-8"));
}

#[test]
fn colours_are_asked_for() {
    assert!(page("XDP", true).contains("\u{1b}[1mXDP\u{1b}[0m\n"));
    assert!(!page("XDP", false).contains('\u{1b}'));
}

#[test]
fn every_page_fits_eighty_columns() {
    let names = known().entries.iter().flat_map(|entry| &entry.reasons).map(String::as_str);
    for name in names.chain(known().functions()) {
        for line in page(name, false).lines() {
            assert!(line.chars().count() <= 80, "{name}: {line}");
        }
    }
    for line in list().lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn every_name_is_found_and_listed() {
    let list = list();
    for entry in &known().entries {
        for name in entry.reasons.iter().chain(&entry.at).chain(&entry.seen_at) {
            assert!(known().find(name).is_ok(), "{name}");
        }
        assert!(list.contains(&entry.title), "{}", entry.title);
    }
}

#[test]
fn a_host_without_the_numbers_says_so() {
    let page = explain::page(known(), "NETFILTER_DROP", &host("5.10")).expect("known");
    let mut out = Vec::new();
    render::page(&page, false, &mut out).expect("writes");
    let text = String::from_utf8(out).expect("UTF-8");
    assert!(text.contains("absent (needs nf_conntrack)"), "{text}");
}

#[test]
fn an_unknown_name_is_a_wrong_command_line() {
    let failure = explain::page(known(), "nonsense", &host("6.18")).expect_err("unknown");
    assert_eq!(failure.code(), exit::USAGE);
    assert_eq!(
        failure.to_string(),
        "nothing is known about `nonsense` (`dropwatch explain` lists all names)"
    );
}
