//! Network namespaces in the live view: as rows, and one alone, with numbers that are its own.

use super::*;

/// A place where three namespaces drop, one of which is not known, and one where one of them does. All
/// counts are of one second, and double with each.
fn shared(seconds: u32) -> TopState {
    let mut state = TopState::new(host(), false);
    for second in 0..seconds {
        let times = 1 << second;
        let mut hook = location("nf_hook_slow", "NETFILTER_DROP", 100 * times, "gw");
        let of = |netns, count: u64| part(netns, count * times);
        hook.namespaces = vec![of(Some("gw"), 60), of(Some("web"), 39), of(None, 1)];
        let closed = location("tcp_v4_rcv", "NO_SOCKET", 41 * times, "web");
        let purge = location("inet_sock_destruct", "QUEUE_PURGE", 500 * times, "gw");
        let rows = vec![purge, hook, closed];
        let mut report = report(u64::from(second) + 1, rows);
        report.other.unknown_location = 2;
        report.drops += 2;
        report.rate += 2.0;
        state.report(report);
    }
    state
}

/// Names of the rows with their rates and totals.
fn rows(state: &TopState) -> Vec<(String, f64, u64)> {
    let name = |row: &TopRow| match symbol(row) {
        Some(symbol) => symbol.to_owned(),
        None => row.whose().unwrap().to_string(),
    };
    state.rows().iter().map(|row| (name(row), row.rate, row.total)).collect()
}

fn named(rows: &[(&str, f64, u64)]) -> Vec<(String, f64, u64)> {
    rows.iter().map(|(name, rate, total)| ((*name).to_owned(), *rate, *total)).collect()
}

#[test]
fn namespaces_as_rows_have_exact_numbers_that_sum_up() {
    let mut state = shared(3);
    state.key(Key::List);
    let harmful = [("web", 320.0, 560), ("gw", 240.0, 420), ("netns unknown", 6.0, 13)];
    assert_eq!(rows(&state), named(&harmful));
    assert_eq!(state.folded(), 500 * 7);
    state.key(Key::Benign);
    let all = [("gw", 2_240.0, 3_920), ("web", 320.0, 560), ("netns unknown", 6.0, 13)];
    assert_eq!(rows(&state), named(&all));
    assert_eq!(all.iter().map(|(_, _, total)| total).sum::<u64>(), state.total);
    assert_eq!(
        all.iter().map(|(_, rate, _)| rate).sum::<f64>(),
        state.header.clone().unwrap().rate
    );
    state.key(Key::Sort);
    state.key(Key::Sort);
    let names: Vec<String> = rows(&state).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["gw", "netns unknown", "web"]);
    state.key(Key::List);
    assert_eq!(state.list, List::Locations);
}

#[test]
fn one_namespace_alone_has_its_own_rates_totals_and_header() {
    let mut state = shared(3);
    state.key(Key::List);
    // The first one is web, which drops most that is not harmless.
    state.key(Key::Netns);
    assert_eq!((only(&state).as_deref(), state.list), (Some("web"), List::Locations));
    let web = [("tcp_v4_rcv", 164.0, 287), ("nf_hook_slow", 156.0, 273)];
    assert_eq!(rows(&state), named(&web));
    let drawn = screen(&state, 100, 24);
    assert!(drawn.contains("320/s now · 560 drops in all · none lost · only web"), "{drawn}");
    // From among locations, the next one by its name.
    state.key(Key::Netns);
    assert_eq!(only(&state), None);
    state.key(Key::Netns);
    assert_eq!(rows(&state), named(&[("nf_hook_slow", 240.0, 420)]));
    let drawn = screen(&state, 100, 24);
    let header = "2240/s now, 2000/s of them benign · 3920 drops in all · none lost · only gw";
    assert!(drawn.contains(header), "{drawn}");
    assert!(drawn.contains("3500 benign drops not shown"), "{drawn}");
    state.key(Key::Netns);
    assert_eq!(only(&state).as_deref(), Some("netns unknown"));
    assert_eq!(rows(&state), named(&[("nf_hook_slow", 4.0, 7)]));
    // Back among namespaces, it is the selected one.
    state.key(Key::List);
    let listed = state.rows();
    assert_eq!(listed[state.selected(&listed)].whose(), Some(&Whose(None)));
    assert_eq!(only(&state), None);
}

#[test]
fn the_trend_of_a_namespace_is_its_own() {
    let mut state = shared(2);
    state.report(report(3, vec![location("tcp_v4_rcv", "NO_SOCKET", 10, "web")]));
    let history = |state: &TopState, name: &str| {
        let rows = state.rows();
        let row = rows.iter().find(|row| row.whose().is_some_and(|it| it.to_string() == name));
        row.unwrap().history.iter().copied().collect::<Vec<f64>>()
    };
    state.key(Key::List);
    assert_eq!(history(&state, "web"), [80.0, 160.0, 10.0]);
    assert_eq!(history(&state, "gw"), [60.0, 120.0, 0.0]);
}

#[test]
fn the_page_about_a_namespace_says_where_it_drops() {
    let mut state = shared(3);
    state.key(Key::List);
    state.key(Key::Down);
    insta::assert_snapshot!("listed", screen(&state, 80, 24));
    state.key(Key::Enter);
    insta::assert_snapshot!("page", screen(&state, 80, 24));
    // Unknown, and not located: what is left is said.
    state.key(Key::Down);
    let page = screen(&state, 80, 24);
    let has = |text: &str| {
        page.lines().any(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") == text)
    };
    assert!(has("4.0/s 7 nf_hook_slow+0x7d (NETFILTER_DROP)") && has("6 elsewhere"), "{page}");
    assert!(!page.contains("conntrack table full"), "{page}");
}

/// The samples of one namespace, and no other's, are what is said of its part of a row.
#[test]
fn a_row_of_one_namespace_has_its_own_samples() {
    let mut state = TopState::new(host(), false);
    let mut hook = location("nf_hook_slow", "NETFILTER_DROP", 100, "gw");
    let flow = hook.namespaces[0].flows.clone();
    let gw = NamespaceDrops { flows: flow, ..part(Some("gw"), 60) };
    hook.namespaces = vec![gw, part(Some("web"), 40)];
    state.report(report(1, vec![hook]));
    state.key(Key::Netns);
    state.key(Key::Enter);
    let page = screen(&state, 80, 24);
    assert!(page.contains("60  gw · eth0") && !page.contains("web"), "{page}");
    state.key(Key::Netns);
    let page = screen(&state, 80, 24);
    assert!(page.contains("40  web") && !page.contains("eth0"), "{page}");
}

#[test]
fn names_of_namespaces_are_cleaned_cut_and_searched() {
    let mut state = TopState::new(host(), false);
    let evil = format!("web\u{1b}[2J{}", "x".repeat(300));
    state.report(report(1, vec![location("f", "R", 7, &evil), location("g", "R", 9, "gw")]));
    state.key(Key::List);
    for key in [Key::Sort, Key::Enter, Key::Escape, Key::Netns] {
        let drawn = screen(&state, 80, 24);
        assert!(!drawn.contains('\u{1b}') && drawn.lines().all(|it| it.chars().count() <= 80));
        state.key(key);
    }
    state.key(Key::List);
    type_text(&mut state, "/WEB");
    let rows = state.rows();
    assert!(rows[state.selected(&rows)].whose().unwrap().to_string().starts_with("web"));
}

/// Thousands of namespaces come and go: what is forgotten of their rows is still in their sum.
#[test]
fn what_is_forgotten_stays_in_the_sums() {
    let mut state = TopState::new(host(), false);
    for second in 0..3 {
        let row = |n: u32| location(&format!("f{second}_{n}"), "R", 1 + u64::from(n), "gw");
        state.report(report(second + 1, (0..2_000).map(row).collect()));
    }
    state.key(Key::Netns);
    let (total, rows) = (state.total, state.rows());
    let shown: u64 = rows.iter().map(|row| row.total).sum();
    assert!(rows.len() == 4_000 && shown < total, "{} rows", rows.len());
    assert!(screen(&state, 100, 24).contains(&format!("· {total} drops in all")));
    state.key(Key::List);
    state.key(Key::Enter);
    let page = screen(&state, 100, 40);
    assert!(page.contains(&format!("{total} since the view began")), "{page}");
}
