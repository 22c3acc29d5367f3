//! The testbed alone: every load drops what it says, by the kernel's own counters.

use testbed::{
    flood::Wire,
    nested::NestedFlood,
    pid1::Pid1Drops,
    udp::{ClosedPort, Family},
};

#[test]
#[ignore = "needs root: cargo xtask test"]
fn every_frame_of_a_flood_is_counted_by_the_receiving_link() {
    let wire = Wire::new().unwrap();
    let pid1 = Pid1Drops::start().unwrap();
    let before = wire.received().unwrap().rx_dropped;
    let sent = wire.flood(200_000, None).unwrap();
    assert_eq!((sent.accepted, sent.refused), (200_000, 0));
    assert_eq!(wire.received().unwrap().rx_dropped - before, 200_000);
    println!("in PID 1: {}", pid1.stop().unwrap());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_nested_flood_drops_on_both_links() {
    let flood = NestedFlood::new().unwrap();
    let nested = flood.run(2_000_000).unwrap();
    assert_eq!((nested.process, nested.softirq), (2_000_000, 2_000_000));
    println!("{nested:?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn datagrams_to_a_closed_port_are_counted() {
    let closed = ClosedPort::new().unwrap();
    for family in [Family::V4, Family::V6] {
        let before = closed.counted(family).unwrap();
        closed.send(family, 1_000).unwrap();
        assert_eq!(closed.counted(family).unwrap() - before, 1_000, "{family:?}");
    }
}
