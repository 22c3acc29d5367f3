//! The story that `cargo xtask scenario nat` tells, with its numbers held to account.

use testbed::scenario::nat::Story;

use crate::harness::binary;

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_full_conntrack_table_is_counted_to_the_packet_and_room_ends_it() {
    let limit = || std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").unwrap();
    let before = limit();
    let story = Story::new(&binary()).unwrap();

    let full = story.full_table().unwrap();
    assert!(full.conntrack_drops > 0, "the table never filled: {full:#?}");
    assert!(full.answered < full.requests, "the load did not suffer: {full:#?}");
    assert!(full.agrees(), "{full:#?}");

    let room = story.room_for_all().unwrap();
    assert_eq!((room.conntrack_drops, room.reported), (0, 0), "{room:#?}");
    assert_eq!((room.answered, room.failed), (room.requests, 0), "{room:#?}");

    drop(story);
    assert_eq!(limit(), before, "the host's limit is back");
}

/// Ctrl-C in the middle of the scenario: the limit is one value for the whole host.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_unknown_scenario_is_refused_before_anything_is_changed() {
    let error = testbed::scenario::run("nat ", &binary(), &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "no scenario nat ; there is: nat");
}
