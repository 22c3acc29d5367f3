//! Counters, and the drops that the kernel counts in them: measured on Linux 6.18 with frames made for
//! each case.

use dropwatch::diagnose::knowledge::Benign;

use crate::{explained, known, reasons_of};

/// The row that a case gives, and the counters that it raises.
const MEASURED: [(&str, &str, &[&str]); 7] = [
    ("ip_rcv_core", "OTHERHOST", &["link.rx_otherhost_dropped"]),
    ("__udp4_lib_rcv", "NOT_SPECIFIED", &["Udp.IgnoredMulti"]),
    ("ip_defrag", "NOT_SPECIFIED", &["Ip.ReasmFails", "IpExt.ReasmOverlaps"]),
    ("ipv6_frag_rcv", "NOT_SPECIFIED", &["Ip6.ReasmFails"]),
    ("tcp_v4_rcv", "NOT_SPECIFIED", &["TcpExt.EmbryonicRsts"]),
    ("tcp_v4_do_rcv", "TCP_FLAGS", &["TcpExt.SyncookiesFailed"]),
    ("ip6_input_finish", "IP_INADDRERRORS", &["Ip6.InDiscards"]),
];

/// What a case does not raise, although it looks like it.
const NOT_RAISED: [(&str, &[&str]); 3] = [
    ("DUP_FRAG", &["Ip.ReasmFails", "Ip6.ReasmFails", "IpExt.ReasmOverlaps"]),
    ("UNHANDLED_PROTO", &["link.rx_otherhost_dropped"]),
    ("NO_SOCKET", &["TcpExt.EmbryonicRsts"]),
];

#[test]
fn a_drop_and_its_counter_lead_to_each_other() {
    for (function, reason, counters) in MEASURED {
        let row = format!("9 packets dropped at {function}+0x7d ({reason}) 1%");
        let page = explained(&row).unwrap_or_else(|failure| panic!("{row}: {failure}"));
        let [entry] = page.explained.as_slice() else { panic!("{row}: {page:?}") };
        for name in counters {
            let page = explained(name).unwrap_or_else(|failure| panic!("{name}: {failure}"));
            let mut entries = page.explained.iter().chain(&page.related);
            assert!(entries.any(|other| other == entry), "{name} does not lead to {row}");
            let link = name.strip_prefix("link.");
            let is_named = match link {
                Some(name) => entry.commands().any(|command| command.contains(name)),
                None => entry.quantities().any(|quantity| quantity.name() == *name),
            };
            assert!(is_named, "{row} does not name {name}");
        }
    }
    for (reason, counters) in NOT_RAISED {
        for name in counters {
            let page = explained(name).unwrap_or_else(|failure| panic!("{name}: {failure}"));
            assert!(!reasons_of(&page).contains(&reason), "{name} leads to {reason}");
        }
    }
}

/// A VLAN without an interface loses packets as OTHERHOST, so none of them is folded away.
#[test]
fn what_may_be_a_missing_vlan_is_not_always_harmless() {
    let entry = known().drops("OTHERHOST").expect("an entry");
    assert!(matches!(entry.benign, Benign::When(_)), "{:?}", entry.benign);
    assert!(entry.meaning.contains("VLAN") && entry.meaning.contains("promiscuous"));
    for command in ["ip -d link", "ip -s -s link", "tcpdump -e"] {
        assert!(entry.commands().any(|it| it.starts_with(command)), "{command}");
    }
    let unhandled = known().drops("__netif_receive_skb_core (UNHANDLED_PROTO)").expect("an entry");
    assert!(unhandled.meaning.contains("OTHERHOST"), "{}", unhandled.meaning);
}

#[test]
fn counters_say_what_they_leave_out() {
    for (name, said) in [
        ("Ip.OutDiscards", "TCP does not count here"),
        ("conntrack.early_drop", "not assured"),
        ("TcpExt.TCPReqQFullDoCookies", "tcp_syncookies is 2"),
        ("TcpExt.PAWSActive", "echo"),
        ("TcpExt.TCPACKSkippedPAWS", "withheld"),
        ("TcpExt.TCPFastRetrans", "while the peer answered"),
        ("Udp.InErrors", "IPsec policy"),
        ("Ip6.InDiscards", "multicast"),
        ("link.rx_dropped", "rx_missed_errors together"),
    ] {
        let page = explained(name).unwrap_or_else(|failure| panic!("{name}: {failure}"));
        let meaning = page.counters[0].meaning.expect(name);
        assert!(meaning.contains(said), "{name}: {meaning}");
    }
}
