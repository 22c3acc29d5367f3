//! Drops inside kernel modules, also after some have gone and others have come.

use std::time::Duration;

use dropwatch::report::{decode::decode, model::Line};
use testbed::{flood::Wire, machine::longer};

use super::{need_guest, run};
use crate::harness::{Recording, Run, function};

const N: u64 = 200;
const BRIDGE: &str = "in-bridge";

/// The module's drops, whatever its offset: a module may be loaded elsewhere the next time.
fn at(recording: &Recording, symbol: &str, module: &str) -> u64 {
    recording
        .locations()
        .filter(|row| function(row) == symbol && row.place.module.as_deref() == Some(module))
        .map(|row| row.count)
        .sum()
}

/// A bridge refuses frames whose source address is a multicast one, in `br_handle_frame`.
fn drop_in_bridge(wire: &Wire) {
    wire.receiver().ip(&format!("link add {BRIDGE} type bridge")).unwrap();
    wire.enslave(BRIDGE).unwrap();
    wire.receiver().ip(&format!("link set {BRIDGE} up")).unwrap();
    let sent = wire.flood_from([0x03, 0, 0, 0, 0, 1], N).unwrap();
    assert_eq!((sent.accepted, sent.refused), (N, 0));
    wire.receiver().ip(&format!("link del {BRIDGE}")).unwrap();
}

#[test]
#[ignore = "needs a guest: cargo xtask vm"]
fn a_modules_function_is_named_with_its_module() {
    need_guest();
    let wire = Wire::new().unwrap();
    let run = Run::start(&[]);
    drop_in_bridge(&wire);
    let recording = run.stop();
    assert_eq!(at(&recording, "br_handle_frame", "bridge"), N, "{recording:#?}");
}

/// While dropwatch runs, the module goes, others take its place, and it comes back elsewhere.
#[test]
#[ignore = "needs a guest: cargo xtask vm"]
fn names_stay_right_while_modules_come_and_go() {
    need_guest();
    let wire = Wire::new().unwrap();
    // Other tests may have loaded what holds on to it.
    if is_loaded("br_netfilter") {
        run("rmmod", "br_netfilter");
    }
    run("modprobe", "bridge");
    let mut watch = Run::start(&["-i", "1s"]);
    drop_in_bridge(&wire);
    // Not what it depends on, which other modules may need.
    run("rmmod", "bridge");
    assert!(!is_loaded("bridge"));
    // Reports come in between: when another module lies where the drop was before anybody has
    // looked, whose it was is not known. The first of two may have been under way.
    for _ in 0..2 {
        let line = watch.0.next_line(longer(Duration::from_secs(10))).unwrap().unwrap();
        assert!(matches!(decode(line).unwrap(), Line::Report(_)), "{line}");
    }
    for module in ["tun", "vxlan", "dummy", "nf_tables", "openvswitch"] {
        run("modprobe", module);
    }
    drop_by_nft_rule(&wire);
    run("modprobe", "bridge");
    drop_in_bridge(&wire);
    let recording = watch.stop();
    assert_eq!(at(&recording, "br_handle_frame", "bridge"), 2 * N, "{recording:#?}");
    assert!(
        recording.locations().all(|row| row.place.symbol.is_some()),
        "an address without a name: {recording:#?}"
    );
    // Open vSwitch turns connection tracking on in every namespace that comes later.
    for module in ["openvswitch", "dummy", "tun"] {
        run("rmmod", module);
    }
}

fn is_loaded(module: &str) -> bool {
    let modules = std::fs::read_to_string("/proc/modules").unwrap();
    modules.lines().any(|line| line.split(' ').next() == Some(module))
}

/// A few drops while other modules are loaded; the rule's place depends on the kernel.
fn drop_by_nft_rule(wire: &Wire) {
    super::reasons::nft_drops(wire, 10);
}
