//! Numbers to drop reasons.

use dropwatch::kernel::{btf::Btf, reasons::Reasons, tracefs::EventFormat};
use dropwatch_common::NO_REASON;
use proptest::prelude::*;

use crate::{VMLINUX, hosts, read};

const FORMAT: &str = "sys/kernel/tracing/events/skb/kfree_skb/format";

fn from_btf(host: &str) -> Option<Reasons> {
    let data = read(host, "sys/kernel/btf/vmlinux");
    Reasons::from_btf(&Btf::parse(&data).unwrap())
}

/// Reasons of a host with those of its modules.
fn with_modules(host: &str, modules: &[&str]) -> Reasons {
    let kernel = read(host, "sys/kernel/btf/vmlinux");
    let kernel = Btf::parse(&kernel).unwrap();
    let mut reasons = Reasons::from_btf(&kernel).unwrap();
    for module in modules {
        let data = read(host, &format!("sys/kernel/btf/{module}"));
        reasons.add_module(&Btf::parse_split(&data, &kernel).unwrap());
    }
    reasons
}

/// `NAME SUBSYSTEM`
fn show(reasons: &Reasons, reason: u32) -> String {
    let reason = reasons.name(reason).unwrap();
    format!("{} {}", reason.name, reason.subsystem.unwrap())
}

#[test]
fn numbers_that_moved_are_named_by_the_running_kernel() {
    let names = |reason| {
        ["6.1", "6.12", "6.18", "7.2"]
            .map(|host| from_btf(host).unwrap().name(reason).unwrap().name)
    };
    assert_eq!(names(1), ["NOT_SPECIFIED", "CONSUMED", "CONSUMED", "CONSUMED"]);
    assert_eq!(names(2), ["NO_SOCKET", "NOT_SPECIFIED", "NOT_SPECIFIED", "NOT_SPECIFIED"]);
    assert_eq!(names(7), ["NETFILTER_DROP", "UNIX_SKIP_OOB", "UNIX_DISCONNECT", "UNIX_DISCONNECT"]);
    assert_eq!(names(11), ["IP_RPFILTER", "NETFILTER_DROP", "UDP_CSUM", "UDP_CSUM"]);
    assert_eq!(names(12)[2..], ["NETFILTER_DROP", "NETFILTER_DROP"]);
}

#[test]
fn a_kernel_without_reasons_has_none() {
    assert_eq!(from_btf("5.10"), None);
    assert_eq!(Reasons::from_tracefs(&EventFormat::parse(&read("5.10", FORMAT))), None);
}

/// The kernel's tracepoint prints the same names as its BTF gives: two sources, one truth.
#[test]
fn btf_and_tracefs_agree_on_every_core_reason() {
    for host in hosts::with(FORMAT) {
        let Some(btf) = from_btf(&host) else { continue };
        let format = EventFormat::parse(&read(&host, FORMAT));
        let tracefs = Reasons::from_tracefs(&format).unwrap();
        assert!(tracefs.core() > 5, "{host}");
        for (number, _) in format.names("reason") {
            assert_eq!(btf.name(number), tracefs.name(number), "{host} {number}");
        }
        assert_eq!(format.field("reason").unwrap().kind, "enum skb_drop_reason", "{host}");
    }
}

#[test]
fn tracefs_tells_that_fields_moved() {
    let offset =
        |host, field| EventFormat::parse(&read(host, FORMAT)).field(field).map(|f| f.offset);
    assert_eq!(
        ["5.10", "6.1", "6.12", "7.2"].map(|host| offset(host, "reason")),
        [None, Some(28), Some(36), Some(36)]
    );
    assert_eq!([offset("6.1", "rx_sk"), offset("6.12", "rx_sk")], [None, Some(24)]);
}

#[test]
fn subsystems_are_named_by_their_module() {
    let plain = from_btf("6.12").unwrap();
    let subsystems: Vec<_> = plain.subsystems().collect();
    assert_eq!(subsystems, ["CORE", "MAC80211_UNUSABLE", "MAC80211_MONITOR", "OPENVSWITCH"]);
    assert_eq!(show(&plain, 0x3_0005), "OPENVSWITCH:0x0005 OPENVSWITCH");
    assert!(plain.declares(0x3_0005) && !plain.is_named(0x3_0005));

    let full = with_modules("6.12", &["openvswitch", "mac80211"]);
    assert_eq!(show(&full, 0x3_0005), "OVS_DROP_METER OPENVSWITCH");
    assert_eq!(show(&full, 0x1_0002), "RX_DROP_U_REPLAY MAC80211_UNUSABLE");
    assert_eq!(show(&full, 0x2_0000), "RX_DROP_MONITOR MAC80211_MONITOR");
    assert_eq!(show(&full, 0x2_0001), "RX_DROP_M_UNEXPECTED_4ADDR_FRAME MAC80211_MONITOR");
    assert_eq!(full.core(), plain.core(), "RX_CONTINUE and RX_QUEUED are no drop reasons");
}

#[test]
fn a_subsystem_that_moved_is_named_by_the_running_kernel() {
    // Open vSwitch is 3 on 6.12 and 2 on 7.2, where 3 are queueing disciplines.
    let full = with_modules("7.2", &["openvswitch"]);
    assert_eq!(show(&full, 0x2_0005), "OVS_DROP_METER OPENVSWITCH");
    assert_eq!(show(&full, 0x3_0002), "QDISC_DROP_OVERLIMIT QDISC");
}

#[test]
fn markers_are_not_reasons() {
    let full = with_modules("7.2", &["openvswitch"]);
    assert_eq!(show(&full, 0x3_0000), "QDISC:0x0000 QDISC", "__QDISC_DROP_REASON");
    assert_eq!(show(&full, 0x3_000a), "QDISC:0x000a QDISC", "QDISC_DROP_MAX");
    assert_eq!(show(&full, 0x2_000c), "OPENVSWITCH:0x000c OPENVSWITCH", "OVS_DROP_MAX");
    for host in hosts::with(VMLINUX) {
        let Some(reasons) = from_btf(&host) else { continue };
        for reason in (0..400).chain([0xffff_0000]) {
            let name = reasons.name(reason).unwrap().name;
            assert!(name != "MAX" && name != "SUBSYS_MASK", "{host} {reason}");
        }
    }
}

#[test]
fn the_unknown_is_shown_by_number() {
    let reasons = from_btf("6.18").unwrap();
    assert_eq!(show(&reasons, 0x0123), "CORE:0x0123 CORE");
    assert_eq!(show(&reasons, 0x9_0001), "subsys9:0x0001 subsys9");
    assert_eq!(reasons.name(NO_REASON), None);
    // Linux 6.1 has no subsystems: the upper half is unknown there, never the core's.
    assert_eq!(show(&from_btf("6.1").unwrap(), 0x1_0002), "subsys1:0x0002 subsys1");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_description_panics(text: Vec<u8>) {
        let format = EventFormat::parse(&text);
        format.names("reason");
        Reasons::from_tracefs(&format);
    }

    #[test]
    fn no_damaged_description_panics(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut text = read("6.1", FORMAT);
        let (at, cut) = (at.index(text.len()), cut.index(text.len()));
        text[at] = byte;
        if let Some(reasons) = Reasons::from_tracefs(&EventFormat::parse(&text[..cut])) {
            reasons.name(7);
        }
    }

    #[test]
    fn every_number_but_one_has_a_name(reason: u32) {
        prop_assume!(reason != NO_REASON);
        let name = from_btf("7.2").unwrap().name(reason).unwrap();
        prop_assert!(!name.name.is_empty());
        prop_assert!(name.subsystem.is_some());
    }
}
