//! Every function that can free a packet without a reason is explained, or listed as open.

use std::{collections::BTreeMap, fs};

use dropwatch::diagnose::knowledge::{CORE, NOT_SPECIFIED};

use crate::{explained, fixtures, known};

/// Functions that no entry explains yet. It may only fall: lower it with `open`.
const OPEN: usize = 107;

/// Functions that can free without a reason, each with the files that have it, of `list.py`.
pub fn functions() -> BTreeMap<String, Vec<String>> {
    let text = read("functions");
    let mut functions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let [file, function, first, last] =
            line.split(' ').collect::<Vec<_>>().try_into().expect("four words");
        assert!(file.ends_with(".c") && first.contains('.') && last.contains('.'), "{line}");
        functions.entry(function.to_owned()).or_default().push(file.to_owned());
    }
    functions
}

fn read(name: &str) -> String {
    fs::read_to_string(fixtures().join("without_reason").join(name)).expect("fixture")
}

/// Whether an entry speaks of drops without a reason at `function` by name.
fn is_explained(function: &str) -> bool {
    let entry = known().lookup(Some(function), CORE, NOT_SPECIFIED).expect("the one of all others");
    entry.at.iter().any(|at| at == function)
}

#[test]
fn every_function_without_a_reason_is_explained_or_open() {
    let functions = functions();
    assert!(functions.len() > 900, "{} functions", functions.len());
    let open = read("open");
    let open: Vec<&str> = open.lines().collect();
    assert!(open.is_sorted(), "in the alphabet's order");
    for function in functions.keys() {
        assert!(
            is_explained(function) != open.contains(&function.as_str()),
            "{function} of {:?} is to be explained or to stand in `open`, one of both",
            functions[function]
        );
    }
    for function in &open {
        assert!(functions.contains_key(*function), "{function} stands in `open` alone");
    }
    println!("{} functions free without a reason, {} of them open", functions.len(), open.len());
    assert_eq!(open.len(), OPEN, "lower OPEN to what is open now");
}

/// What cannot be certain says what it can be, and how to look.
#[test]
fn an_entry_without_a_reason_says_how_to_look() {
    for entry in known().entries.iter().filter(|entry| !entry.at.is_empty()) {
        let is_unsaid = entry.reasons.iter().all(|reason| reason == NOT_SPECIFIED);
        let is_harmless = matches!(entry.benign, dropwatch::diagnose::knowledge::Benign::Always(_));
        if is_unsaid && !entry.unseen && !is_harmless {
            assert!(!entry.check.is_empty(), "{}", entry.title);
        }
    }
}

/// What people meet most, each by its row as a report has it.
#[test]
fn rows_without_a_reason_lead_to_their_function() {
    for (function, title) in [
        ("nf_queue", "NFQUEUE: nobody listens, or the queue is full"),
        ("__nfqnl_enqueue_packet", "the copy of a packet for a program (NFQUEUE)"),
        ("dst_discard_out", "a route that discards, or whose device is gone"),
        ("__dev_forward_skb2", "too large for the other end, or that is down"),
        ("stp_pdu_rcv", "spanning tree and such, used or not"),
        ("br_handle_frame_finish", "the bridge has no port that takes it"),
        ("br_forward", "the bridge has no port that takes it"),
        ("__udp6_lib_rcv", "broadcast or multicast that no socket wants"),
        ("ip_error", "a route of a type that refuses"),
        ("xfrm_input", "IPsec refused what came in"),
    ] {
        let row = format!("7 packets dropped at {function}+0x7d (NOT_SPECIFIED) 81.8%");
        let page = explained(&row).expect("known");
        let titles: Vec<&str> = page.explained.iter().map(|entry| entry.title.as_str()).collect();
        assert_eq!(titles, [title], "{function}");
    }
}
