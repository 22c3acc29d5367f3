//! The search of the live view: as it is typed, from match to match.

use super::*;

fn selected(state: &TopState) -> String {
    let rows = state.rows();
    symbol(rows[state.selected(&rows)]).unwrap().to_owned()
}

#[test]
fn a_search_finds_rows_as_it_is_typed() {
    let mut state = story(14);
    type_text(&mut state, "/NFT");
    assert_eq!(selected(&state), "nft_do_chain");
    insta::assert_snapshot!("search_small", screen(&state, 80, 24));
    insta::assert_snapshot!("search_large", screen(&state, 200, 50));
    type_text(&mut state, "q s");
    assert!(!state.over, "letters are text");
    assert_eq!(selected(&state), "nf_hook_slow", "where it began: nothing has it");
    assert!(screen(&state, 80, 24).contains("/NFTq s▏  no row has it"));
    for _ in 0..3 {
        state.key(Key::Backspace);
    }
    assert_eq!(selected(&state), "nft_do_chain");
    state.key(Key::Escape);
    assert!(state.search.is_none() && !state.over);
    state.key(Key::Escape);
    assert!(state.over);
}

#[test]
fn n_goes_from_match_to_match_and_back_to_its_own_meaning() {
    let mut state = story(14);
    type_text(&mut state, "/netfilter_drop");
    state.key(Key::Enter);
    assert!(screen(&state, 80, 24).contains("/netfilter_drop  1 of 2  n next"));
    let mut seen = vec![selected(&state)];
    for letter in ['n', 'n', 'N', 'N'] {
        state.key(Key::Letter(letter));
        seen.push(selected(&state));
    }
    let [hook, nft] = ["nf_hook_slow", "nft_do_chain"];
    assert_eq!(seen, [hook, nft, hook, nft, hook]);
    assert_eq!(state.netns, None);
    state.key(Key::Enter);
    assert_eq!(state.screen, Screen::Detail);
    state.key(Key::Escape);
    assert!(state.search.is_some(), "back to the table first");
    state.key(Key::Escape);
    state.key(Key::Letter('n'));
    assert_eq!(only(&state).as_deref(), Some("gw"));
}

#[test]
fn a_search_looks_at_namespaces_and_interfaces_and_survives_a_frozen_picture() {
    let mut state = story(14);
    state.key(Key::Letter(' '));
    type_text(&mut state, "/web");
    let found = |state: &TopState| selected(state.shown());
    assert_eq!(found(&state), "nft_do_chain");
    state.key(Key::Enter);
    state.key(Key::Letter('n'));
    assert_eq!(found(&state), "tcp_v4_rcv");
    state.key(Key::Letter(' '));
    assert_eq!((selected(&state).as_str(), state.search.is_some()), ("tcp_v4_rcv", true));
    let mut state = story(14);
    type_text(&mut state, "/");
    state.key(Key::Enter);
    assert!(state.search.is_none(), "nothing to search for");
    type_text(&mut state, &format!("/{}", "x\u{1b}".repeat(500)));
    assert_eq!(state.search.as_ref().map(|it| it.text().len()), Some(64));
    assert!(!screen(&state, 80, 24).contains('\u{1b}'));
    let mut empty = TopState::new(host(), false);
    type_text(&mut empty, "/x");
    empty.key(Key::Enter);
    type_text(&mut empty, "nN");
}
