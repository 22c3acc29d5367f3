//! The full-screen view: how it looks on two sizes of screen, and what its keys do. Drawn on
//! ratatui's test terminal; `host::top` drives the real one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "tui/namespaces.rs"]
mod namespaces;
#[path = "tui/search.rs"]
mod search;

use dropwatch::{
    diagnose::knowledge,
    render::{
        Medium,
        tui::{
            rows::{HISTORY, TopRow, Whose},
            state::{Key, List, Screen, Sort, TopState},
            view::{Look, draw},
        },
    },
    report::{
        facts::{Callers, Details, Fact, Interface, Netns},
        finding::{Action, Evidence, Explains, Finding, Severity},
        model::{Address, Host, Location, Lost, Other, Report, UndecidedBy},
        namespaces::{NamespaceDrops, SampledFlow},
        place::Place,
    },
};
use jiff::tz::TimeZone;
use ratatui::{Terminal, backend::TestBackend};

fn look() -> Look {
    Look { medium: Medium::default(), time_zone: TimeZone::UTC, interval_s: 1.0 }
}

fn location(symbol: &str, reason: &str, count: u64, netns: &str) -> Location {
    let inum = inum(netns);
    let interface = Interface { name: Some("eth0".to_owned()), index: 2 };
    let path = Callers { callers: vec![Some("ip_rcv".to_owned())] };
    let flow = SampledFlow {
        interface: Some(interface.clone()),
        path: Some(path.clone()),
        share: 1.0,
        samples: 16,
        ..SampledFlow::default()
    };
    let whole = NamespaceDrops { flows: vec![flow], ..part(Some(netns), count) };
    Location {
        place: Place {
            symbol: Some(symbol.to_owned()),
            offset: Some(0x7d),
            module: (symbol == "nft_do_chain").then(|| "nf_tables".to_owned()),
            reason: Some(reason.to_owned()),
            subsystem: Some("CORE".to_owned()),
        },
        address: Address::default(),
        count,
        rate: count as f64,
        share: 0.0,
        total: count,
        benign: reason == "QUEUE_PURGE",
        new: false,
        details: Some(Details {
            samples: 16,
            weight: count,
            netns: Some(Fact { is: Netns::new(Some(netns.to_owned()), inum), share: 1.0 }),
            interface: Some(Fact { is: interface, share: 1.0 }),
            path: Some(Fact { is: path, share: 1.0 }),
            ..Details::default()
        }),
        stacks: Vec::new(),
        namespaces: vec![whole],
        ..Location::default()
    }
}

/// What a namespace has of a row; `None` is what could not be proved.
fn part(netns: Option<&str>, count: u64) -> NamespaceDrops {
    NamespaceDrops {
        name: netns.map(str::to_owned),
        inum: netns.map(inum),
        count,
        rate: count as f64,
        share: 1.0,
        total: count,
        ..NamespaceDrops::default()
    }
}

fn inum(netns: &str) -> u32 {
    if netns == "gw" { 7 } else { 8 }
}

fn report(seq: u64, rows: Vec<Location>) -> Report {
    let drops: u64 = rows.iter().map(|row| row.count).sum();
    let end: jiff::Timestamp = "2026-11-22T07:35:00Z".parse().unwrap();
    let full = rows.iter().any(|row| row.place.symbol.as_deref() == Some("nf_hook_slow"));
    let finding = Finding {
        rule: "conntrack_table_full".to_owned(),
        severity: Severity::Critical,
        netns: Some(Netns::new(Some("gw".to_owned()), 7)),
        subject: String::new(),
        title: "conntrack table full in gw: 1000 of 1000 entries, 900 packets refused".to_owned(),
        object: None,
        explains: Some(Explains::of(drops / 2, drops)),
        evidence: vec![Evidence {
            name: "drop".to_owned(),
            value: 900.into(),
            delta: true,
            source: "ctnetlink".to_owned(),
        }],
        actions: vec![Action {
            command: "sysctl -w net.netfilter.nf_conntrack_max=65536".to_owned(),
            note: "16.5 MiB when full".to_owned(),
        }],
        unreachable: None,
        places: rows
            .iter()
            .filter(|row| row.place.symbol.as_deref() == Some("nf_hook_slow"))
            .map(|row| row.place.clone())
            .collect(),
    };
    Report {
        seq,
        host: host(),
        start: end,
        end: end + std::time::Duration::from_secs(seq),
        interval_s: 1.0,
        intervals: 1,
        baseline: false,
        drops,
        rate: drops as f64,
        locations: rows,
        other: Other::default(),
        lost: Lost::default(),
        filter_undecided: None,
        filter_undecided_by: UndecidedBy::default(),
        groups: None,
        findings: if full { vec![finding] } else { Vec::new() },
        more_findings: Vec::new(),
    }
}

fn host() -> Host {
    Host { host: "gw".to_owned(), boot_id: String::new(), kernel: "6.18.44".to_owned() }
}

/// A load test through a gateway, for so many seconds.
fn story(seconds: u64) -> TopState {
    let mut state = TopState::new(host(), false);
    for second in 1..=seconds {
        let mut rows = vec![
            location("nf_hook_slow", "NETFILTER_DROP", 900 + second % 5 * 40, "gw"),
            location("inet_sock_destruct", "QUEUE_PURGE", 12, "gw"),
        ];
        if second % 3 == 0 {
            rows.push(location("tcp_v4_rcv", "NO_SOCKET", 20 * second, "web\u{1b}[2J"));
        }
        if second == 2 {
            rows.push(location("nft_do_chain", "NETFILTER_DROP", 5_000, "web\u{1b}[2J"));
        }
        state.report(report(second, rows));
    }
    state
}

fn screen(state: &TopState, width: u16, height: u16) -> String {
    screen_on(Medium::default(), state, width, height)
}

fn screen_on(medium: Medium, state: &TopState, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let table = knowledge::table().ok();
    terminal.draw(|frame| draw(state, table, &Look { medium, ..look() }, frame)).unwrap();
    let lines = terminal.backend().to_string();
    lines.lines().map(|line| line.trim_matches('"').trim_end().to_owned() + "\n").collect()
}

fn symbol(row: &TopRow) -> Option<&str> {
    row.location()?.place.symbol.as_deref()
}

/// Symbols of the rows in their order.
fn order(state: &TopState) -> Vec<String> {
    state.rows().iter().map(|row| symbol(row).unwrap().to_owned()).collect()
}

#[test]
fn a_small_and_a_large_screen() {
    let state = story(14);
    let small = screen(&state, 80, 24);
    insta::assert_snapshot!("small", small);
    insta::assert_snapshot!("large", screen(&state, 200, 50));
    assert!(!screen(&state, 80, 24).contains('\u{1b}'), "names are anyone's choice");
}

/// What is cut ends with a sign, behind a word.
#[test]
fn findings_and_help_are_broken_between_words() {
    let mut state = story(14);
    let words: Vec<String> = state.findings[0].title.split(' ').map(str::to_owned).collect();
    for width in 40..=100 {
        let screen = screen(&state, width, 24);
        let line = screen.lines().find(|line| line.starts_with("critical")).unwrap();
        let (shown, cut) = match line.strip_suffix(" …") {
            Some(shown) => (shown, true),
            None => (line, false),
        };
        let shown: Vec<&str> = shown.split_whitespace().skip(1).collect();
        assert_eq!(shown, words[..shown.len()], "{width}: {line}");
        assert_eq!(cut, shown.len() < words.len(), "{width}: {line}");
    }
    state.screen = Screen::Help;
    let text = |width| {
        let screen = screen(&state, width, 50);
        let words: Vec<String> = screen.split_whitespace().map(str::to_owned).collect();
        // The first lines and the last are another matter.
        let at = |first: &str| words.iter().position(|word| word == first).unwrap();
        words[at("q,")..at("any")].to_vec()
    };
    assert_eq!(text(60), text(120));
}

#[test]
fn a_cause_in_hundreds_of_namespaces_leaves_room_for_others() {
    let mut state = story(14);
    let worst = state.findings[0].clone();
    let of = |at: u32, severity, rule: &str| Finding {
        rule: rule.to_owned(),
        severity,
        netns: Some(Netns::new(None, at)),
        title: format!("{rule} in netns {at}"),
        ..worst.clone()
    };
    state.findings.extend((0..300).map(|at| of(at, Severity::Warning, "closed_port")));
    state.findings.push(of(7, Severity::Notice, "mtu"));
    let shown = screen(&state, 100, 30);
    let lines: Vec<&str> = shown
        .lines()
        .skip_while(|line| !line.starts_with("critical"))
        .take_while(|line| !line.trim().is_empty())
        .map(str::trim_end)
        .collect();
    assert_eq!(
        lines[1..6],
        [
            "warning   closed_port in netns 0",
            "warning   closed_port in netns 1",
            "warning   closed_port in netns 2",
            "warning   297 more by closed_port in 297 namespaces",
            "notice    mtu in netns 7",
        ],
        "{shown}"
    );
}

#[test]
fn nothing_but_ascii_where_the_locale_has_no_more() {
    let ascii = Medium { ascii: true, ..Medium::default() };
    let mut state = story(14);
    for _ in 0..3 {
        for (width, height) in [(80, 24), (200, 50), (40, 8)] {
            let screen = screen_on(ascii, &state, width, height);
            assert!(screen.is_ascii(), "{screen}");
            let columns =
                |text: String| text.lines().map(|line| line.chars().count()).collect::<Vec<_>>();
            let unicode = screen_on(Medium::default(), &state, width, height);
            assert_eq!(columns(screen), columns(unicode), "the same columns");
        }
        state.screen = if state.screen == Screen::Table { Screen::Detail } else { Screen::Help };
    }
    state.screen = Screen::Table;
    let screen = screen_on(ascii, &state, 80, 24);
    assert!(screen.contains("RATEv") && screen.contains("@##"), "{screen}");
    type_text(&mut state, "/nft");
    let screen = screen_on(ascii, &state, 80, 24);
    assert!(screen.contains("/nft|  1 of 1"), "{screen}");
}

/// Warnings among them: only the hues that are legible on black and on white.
#[test]
fn colours_are_those_of_the_printed_lines() {
    let hues = |color| {
        let mut state = story(14);
        let mut findings = state.findings.clone();
        findings.push(Finding { severity: Severity::Warning, ..findings[0].clone() });
        findings.push(Finding { severity: Severity::Notice, ..findings[0].clone() });
        state.findings = findings;
        state.key(Key::Netns);
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let medium = Medium { color, ..Medium::default() };
        terminal.draw(|frame| draw(&state, None, &Look { medium, ..look() }, frame)).unwrap();
        let cells = terminal.backend().buffer().content.clone();
        cells.iter().map(|cell| cell.fg.to_string()).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(hues(true), ["Magenta", "Red", "Reset"].map(str::to_owned).into());
    assert_eq!(hues(false), ["Reset"].map(str::to_owned).into());
}

#[test]
fn all_that_is_known_about_a_row() {
    let mut state = story(14);
    state.key(Key::Enter);
    insta::assert_snapshot!("detail", screen(&state, 80, 24));
    state.key(Key::Help);
    insta::assert_snapshot!("help", screen(&state, 80, 24));
    state.key(Key::Down);
    assert_eq!(state.screen, Screen::Table);
}

#[test]
fn every_size_of_screen_is_drawn() {
    let mut state = story(3);
    for screen_of in [Screen::Table, Screen::Detail, Screen::Help] {
        state.screen = screen_of;
        for (width, height) in [(1, 1), (39, 24), (40, 8), (41, 9), (300, 5), (300, 100)] {
            let drawn = screen(&state, width, height);
            assert_eq!(drawn.lines().count(), usize::from(height));
        }
    }
    let empty = TopState::new(host(), false);
    assert!(screen(&empty, 80, 24).contains("the first report is under way"));
}

#[test]
fn rows_are_sorted_as_asked() {
    let mut state = story(14);
    assert_eq!(state.sort, Sort::Rate);
    assert_eq!(order(&state), ["nf_hook_slow", "nft_do_chain", "tcp_v4_rcv"]);
    state.key(Key::Sort);
    assert_eq!(order(&state), ["nf_hook_slow", "nft_do_chain", "tcp_v4_rcv"]);
    state.key(Key::Sort);
    assert_eq!(order(&state), ["nf_hook_slow", "nft_do_chain", "tcp_v4_rcv"]);
    state.report(report(15, vec![location("tcp_v4_rcv", "NO_SOCKET", 9_999_999, "web")]));
    state.key(Key::Sort);
    assert_eq!(order(&state)[0], "tcp_v4_rcv");
}

#[test]
fn a_selection_stays_with_its_row() {
    let mut state = story(14);
    state.key(Key::Down);
    let rows = state.rows();
    assert_eq!(symbol(rows[state.selected(&rows)]), Some("nft_do_chain"));
    state.report(report(15, vec![location("nft_do_chain", "NETFILTER_DROP", 9_999, "web")]));
    let rows = state.rows();
    assert_eq!(state.selected(&rows), 0, "the row has moved to the top");
    state.key(Key::End);
    state.key(Key::PageDown);
    let rows = state.rows();
    assert_eq!(state.selected(&rows), rows.len() - 1);
}

#[test]
fn a_frozen_picture_stays_while_counting_goes_on() {
    let mut state = story(2);
    state.key(Key::Freeze);
    let before = screen(&state, 80, 24);
    assert!(before.contains("FROZEN at 07:35:02"), "{before}");
    state.report(report(3, vec![location("ip_forward", "IP_INADDRERRORS", 77, "gw")]));
    assert_eq!(screen(&state, 80, 24), before);
    state.key(Key::Sort);
    assert!(screen(&state, 80, 24).contains("TOTAL▼"));
    state.key(Key::Freeze);
    let after = screen(&state, 80, 24);
    assert!(after.contains("ip_forward") && after.contains("TOTAL▼"), "{after}");
    state.key(Key::Freeze);
    state.key(Key::Quit);
    assert!(state.over);
}

#[test]
fn one_namespace_after_the_other() {
    let mut state = story(14);
    state.key(Key::Netns);
    assert_eq!(only(&state).as_deref(), Some("gw"));
    assert_eq!(order(&state), ["nf_hook_slow"]);
    state.key(Key::Benign);
    assert_eq!(order(&state), ["nf_hook_slow", "inet_sock_destruct"]);
    state.key(Key::Netns);
    assert_eq!(order(&state), ["nft_do_chain", "tcp_v4_rcv"]);
    assert!(screen(&state, 80, 24).contains("only web"));
    state.key(Key::Netns);
    assert_eq!(state.netns, None);
}

fn only(state: &TopState) -> Option<String> {
    state.netns.as_ref().map(Whose::to_string)
}

#[test]
fn a_row_that_is_no_more_keeps_its_total_and_history_has_a_bound() {
    let mut state = story(2);
    for second in 3..100 {
        state.report(report(second, Vec::new()));
    }
    let rows = state.rows();
    let row = rows.iter().find(|row| symbol(row) == Some("nft_do_chain")).unwrap();
    assert_eq!((row.total, row.rate, row.history.len()), (5_000, 0.0, HISTORY));
}

fn type_text(state: &mut TopState, text: &str) {
    text.chars().for_each(|letter| state.key(Key::Letter(letter)));
}

#[test]
fn a_row_has_the_findings_of_its_own_location_alone() {
    let mut state = story(14);
    state.key(Key::Enter);
    assert!(screen(&state, 80, 40).contains("conntrack table full"));
    state.key(Key::Escape);
    type_text(&mut state, "/nft");
    state.key(Key::Enter);
    state.key(Key::Enter);
    let page = screen(&state, 80, 40);
    assert!(page.contains("nft_do_chain+0x7d") && !page.contains("conntrack table full"), "{page}");
}

#[test]
fn names_that_do_not_fit_are_seen_to_be_cut() {
    let mut state = TopState::new(host(), false);
    let wide = "東京".repeat(30);
    state.report(report(1, vec![location(&wide, "R", 7, "gw"), location("short", "R", 5, "gw")]));
    for width in 41..90 {
        let drawn = screen(&state, width, 24);
        // What the test terminal says of wide characters comes behind the line.
        let row = drawn.lines().find(|line| line.contains('東')).unwrap();
        let row = row.split('"').next().unwrap();
        assert!(row.trim_end().ends_with('…'), "{width}: {row}");
        let columns: usize =
            row.chars().map(|c| if ('一'..='龥').contains(&c) { 2 } else { 1 }).sum();
        assert!(columns <= usize::from(width), "{width}: {row}");
        let whole = drawn.lines().find(|line| line.contains("sho")).unwrap();
        assert!(whole.contains("short+0x7d (R)") || whole.ends_with('…'), "{width}: {whole}");
    }
}
