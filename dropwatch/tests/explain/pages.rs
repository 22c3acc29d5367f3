//! What the pages look like. `cargo xtask bless` accepts changes.

use std::{collections::BTreeSet, sync::LazyLock};

use dropwatch::{
    command::explain,
    exit,
    render::{
        Medium,
        explain::{self as render, ExplainPage},
    },
};

use crate::{host, known};

fn page(name: &str, color: bool) -> String {
    page_on(Medium { color, ..Medium::default() }, name)
}

fn page_on(medium: Medium, name: &str) -> String {
    rendered(&explain::page(known(), &[name], &host("6.18")).expect("known"), medium)
}

fn rendered(page: &ExplainPage<'_>, medium: Medium) -> String {
    let mut out = Vec::new();
    render::page(page, medium, &mut out).expect("writes");
    String::from_utf8(out).expect("UTF-8")
}

fn list() -> String {
    list_on(Medium::default())
}

fn list_on(medium: Medium) -> String {
    let mut out = Vec::new();
    render::list(known(), medium, &mut out).expect("writes");
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
fn a_finding() {
    insta::assert_snapshot!(page("critical  conntrack table full in gw: 1000 of 1000", false));
}

#[test]
fn a_topic() {
    insta::assert_snapshot!(page("arp", false));
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
    let page = explain::page(known(), &["QDISC_BURST_DROP"], &host("6.18")).expect("known");
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
    for (name, text) in all_on(Medium::default()) {
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{name}: {line}");
        }
    }
}

/// Every page and the list, by name. Functions of one entry lead to the same page, so one is enough.
fn all_on(medium: Medium) -> Vec<(String, String)> {
    static PAGES: LazyLock<Vec<(String, ExplainPage<'static>)>> = LazyLock::new(|| {
        let page = |name: &String| explain::page(known(), &[name], &host("6.18")).expect("known");
        let more: BTreeSet<&str> = known()
            .entries
            .iter()
            .flat_map(|it| it.at.iter().skip(1))
            .map(String::as_str)
            .collect();
        let names = known().names().into_iter().filter(|name| !more.contains(name.as_str()));
        names.map(|name| (name.clone(), page(&name))).collect()
    });
    let pages = PAGES.iter().map(|(name, page)| (name.clone(), rendered(page, medium)));
    pages.chain([("the list".to_owned(), list_on(medium))]).collect()
}

#[test]
fn pages_use_the_screen_and_break_no_word() {
    for columns in [40, 60, 100, 120] {
        let pages = all_on(Medium { columns: Some(columns), ..Medium::default() });
        for (name, text) in &pages {
            for line in text.lines() {
                // A number with its name, or a command's word with the sign that it goes on.
                let labels = ["  Benign", "  Check ", "  Change", "  Source"];
                let word = labels.iter().find_map(|label| line.strip_prefix(label)).unwrap_or(line);
                let word = word.trim_start_matches(['$', '#', ' ']).trim_end_matches(" \\");
                let whole = !word.contains(' ') || word.contains('\'') || word.contains('`');
                assert!(line.chars().count() <= columns || whole, "{name}, {columns}: {line}");
            }
        }
        let widest =
            pages.iter().flat_map(|(_, text)| text.lines()).map(|line| line.chars().count());
        assert!(widest.max() >= Some(columns - 2), "{columns}");
    }
}

#[test]
fn pages_are_ascii_where_the_locale_is() {
    let unicode = all_on(Medium::default());
    assert!(unicode.iter().any(|(_, text)| !text.is_ascii()), "nothing here needs it");
    for (name, text) in all_on(Medium { ascii: true, ..Medium::default() }) {
        assert!(text.is_ascii(), "{name}: {text}");
    }
}

/// Commands are copied: on any screen, a shell reads the same words.
#[test]
fn commands_are_one_command_on_every_screen() {
    let commands = |columns| {
        let pages = all_on(Medium { columns: Some(columns), ..Medium::default() });
        let mut commands = Vec::new();
        for (_, text) in pages {
            let joined = text.replace(" \\\n", " ");
            let lines = joined.lines().filter_map(|line| line.trim_start().strip_prefix("$ "));
            let command = |line: &str| line.split("  # ").next().unwrap_or_default().to_owned();
            commands.extend(lines.map(command));
        }
        let one_space = |command: String| command.split_whitespace().collect::<Vec<_>>().join(" ");
        commands.into_iter().map(one_space).collect::<Vec<_>>()
    };
    let whole = commands(120);
    assert!(whole.len() > 100);
    for columns in [40, 60, 80] {
        assert_eq!(commands(columns), whole, "{columns} columns");
    }
}

#[test]
fn every_name_is_found_and_listed() {
    let list = list();
    for name in known().names() {
        assert!(known().find(&name).is_ok(), "{name}");
    }
    for rule in &known().rules {
        assert!(list.contains(&rule.rule), "{}", rule.rule);
    }
    for entry in &known().entries {
        assert!(list.contains(&entry.title), "{}", entry.title);
    }
}

#[test]
fn a_host_without_the_numbers_says_so() {
    let page = explain::page(known(), &["NETFILTER_DROP"], &host("5.10")).expect("known");
    let mut out = Vec::new();
    render::page(&page, Medium::default(), &mut out).expect("writes");
    let text = String::from_utf8(out).expect("UTF-8");
    assert!(text.contains("absent (needs nf_conntrack)"), "{text}");
}

#[test]
fn an_unknown_name_is_a_wrong_command_line() {
    let failure = explain::page(known(), &["nonsense"], &host("6.18")).expect_err("unknown");
    assert_eq!(failure.code(), exit::USAGE);
    assert_eq!(
        failure.to_string(),
        "nothing is known about `nonsense` (`dropwatch explain` lists all names)"
    );
}
