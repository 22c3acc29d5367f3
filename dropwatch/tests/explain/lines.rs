//! Lines of other programs and of dropwatch's own JSON: all that they name is explained, or it is said
//! what is not.

use dropwatch::{command::explain, exit, render::explain::ExplainPage};

use crate::{explained, host, known, rules_of};

fn page(text: &str) -> ExplainPage<'static> {
    explained(text).unwrap_or_else(|failure| panic!("{text}: {failure}"))
}

fn counters(text: &str) -> Vec<String> {
    page(text).counters.into_iter().flat_map(|counter| counter.names).collect()
}

/// As reports print what nothing on the host gives a name.
#[test]
fn a_reason_without_a_name_is_understood_by_itself_and_in_a_row() {
    let words = |text: &str| -> Vec<String> {
        page(text).words.iter().flat_map(|word| word.names.clone()).collect()
    };
    for text in [
        "CORE:0x0099",
        "MAC80211_UNUSABLE:0x0005",
        "(OPENVSWITCH:0x0003)",
        " 9 packets dropped at ovs_vport_receive+0x1f [openvswitch] (OPENVSWITCH:0x0003) 9.1%",
    ] {
        assert_eq!(words(text), ["reason without a name"], "{text}");
    }
    let known = page("9 packets dropped at ip6_mc_input+0x7d (CORE:0x0099) 9.1%");
    assert_eq!(titles(&known), ["IPv6 multicast that nobody here joined"]);
    assert_eq!(known.words.len(), 1);
    assert!(explained("CORE:0x").is_err() && explained("CORE:0xzz").is_err());
}

fn titles(page: &ExplainPage<'static>) -> Vec<&'static str> {
    page.explained.iter().map(|entry| entry.title.as_str()).collect()
}

/// A report of many rows and two findings, longer than any row.
fn report(rows: &[(&str, Option<&str>)]) -> String {
    let row = |(symbol, reason): &(&str, Option<&str>)| {
        let reason = reason.map_or(String::new(), |reason| format!(r#""reason":"{reason}","#));
        format!(
            r#"{{"symbol":"{symbol}","offset":125,"module":null,{reason}"subsystem":"CORE","count":9,"rate":1.0,"share":0.5,"total":9,"benign":false,"new":true,"details":{{"netns":{{"name":"gw","inum":4026532000}},"interface":{{"name":"eth0","index":2}},"path":["ip_rcv"]}},"stacks":[{{"weight":9,"frames":[{{"symbol":"kfree_skb","offset":1,"module":null}},{{"symbol":"ip_forward","offset":2,"module":null}}]}}]}}"#
        )
    };
    let rows: Vec<String> = rows.iter().map(row).collect();
    format!(
        r#"{{"v":1,"type":"report","seq":1,"host":"gw","interval_s":5.0,"drops":99,"locations":[{}],"other":{{"locations":0,"count":0}},"findings":[{{"rule":"mtu","severity":"notice","title":"a","evidence":[{{"name":"Ip.FragFails","value":3}}]}},{{"rule":"closed_port","severity":"notice"}}]}}"#,
        rows.join(",")
    )
}

const ROWS: [(&str, Option<&str>); 4] = [
    ("__udp4_lib_rcv", Some("NO_SOCKET")),
    ("nf_hook_slow", Some("NETFILTER_DROP")),
    ("no_such_function", Some("NO_SUCH_REASON")),
    ("veth_xmit", None),
];

#[test]
fn every_row_and_finding_of_a_json_line_is_explained() {
    let line = report(&ROWS);
    let whole = page(&line);
    for title in [
        "no UDP socket for this address and port",
        "a netfilter hook said no: iptables or conntrack",
        "the other end of a veth pair is gone",
    ] {
        assert!(titles(&whole).contains(&title), "{title}: {:?}", titles(&whole));
    }
    assert_eq!(whole.explained.len(), 3, "{:?}", titles(&whole));
    assert_eq!(rules_of(&whole), ["mtu", "closed_port"]);
    assert_eq!(whole.not_known, ["no_such_function (NO_SUCH_REASON)"]);
    // A line that was cut has what is whole in it.
    let cut = page(&line[..line.len() / 2]);
    assert!(
        titles(&cut).contains(&"no UDP socket for this address and port") && titles(&cut).len() > 1,
        "{cut:?}"
    );
    // Longer than any text may be that is no JSON.
    let many: Vec<_> = ROWS.iter().copied().cycle().take(200).collect();
    let long = report(&many);
    assert!(long.len() > 64 * 1024, "{}", long.len());
    assert_eq!(titles(&page(&long)), titles(&whole));
}

#[test]
fn each_of_several_series_is_explained() {
    let series = "dropwatch_drops_total{symbol=\"tcp_v4_rcv\",reason=\"NO_SOCKET\"} 9\n\
                  dropwatch_drops_total{symbol=\"nf_hook_slow\",reason=\"NETFILTER_DROP\"} 8\n\
                  dropwatch_findings{rule=\"mtu\",severity=\"notice\"} 1\n";
    let page = page(series);
    assert_eq!(page.explained.len(), 2, "{:?}", titles(&page));
    assert_eq!(rules_of(&page), ["mtu"]);
}

#[test]
fn a_text_is_explained_to_its_end_or_refused() {
    let last = "9 packets dropped at nf_hook_slow+0x7d (NETFILTER_DROP) 1.2%";
    let row = "60 packets dropped at __udp4_lib_rcv+0x4bc (NO_SOCKET) 88.2%\n";
    let text = row.repeat(100) + last;
    assert!(text.len() > 4096);
    assert_eq!(page(&text).explained.len(), 2);
    let text = row.repeat(1000) + last;
    let failure = explained(&text).expect_err("too long");
    assert_eq!(failure.code(), exit::USAGE);
    let said = failure.to_string();
    assert!(said.contains("too much to explain") && said.len() < 200, "{said}");
}

/// Nothing more is known of some counters: alone and in company.
#[test]
fn a_counter_is_one_in_company_too() {
    let sole = "TcpExt.TCPAbortOnMemory";
    assert!(page(sole).counters[0].meaning.is_none(), "take another one");
    for typed in [
        "TcpExt.TCPAbortOnMemory NO_SOCKET",
        "NO_SOCKET, TCPAbortOnMemory",
        "TcpExtTCPAbortOnMemory=3 TcpExtListenOverflows=4",
        "Udp.InErrors TcpExtTCPAbortOnMemory Tcp.ActiveOpens",
        "TcpExt: TCPAbortOnMemory ListenOverflows",
        "see TCPAbortOnMemory and NO_SOCKET in the graph",
    ] {
        let names = counters(typed);
        assert!(names.iter().any(|name| name == sole), "{typed}: {names:?}");
        let page = page(typed);
        assert!(!page.not_known.iter().any(|name| name.contains("Abort")), "{:?}", page.not_known);
    }
    let words = ["TcpExt.TCPAbortOnMemory", "NO_SOCKET"];
    let page = explain::page(known(), &words, &host("6.18")).expect("both are known");
    assert_eq!(page.counters.len(), 1);
}

#[test]
fn statistics_are_known_as_programs_show_them() {
    for (typed, expected) in [
        ("/sys/class/net/eth0/statistics/rx_missed_errors", &["link.rx_missed_errors"][..]),
        ("/sys/class/net/br-lan.7/statistics/tx_dropped:12", &["link.tx_dropped"]),
        ("cat /sys/class/net/eth0/statistics/rx_dropped", &["link.rx_dropped"]),
        ("rx_otherhost_dropped", &["link.rx_otherhost_dropped"]),
        ("otherhost", &["link.rx_otherhost_dropped"]),
        ("tx_fifo", &["link.tx_fifo_errors"]),
        ("tx_carrier", &["link.tx_carrier_errors"]),
        ("overruns", &["link.rx_fifo_errors", "link.tx_fifo_errors"]),
        ("conntrack -S drop", &["conntrack.drop"]),
        ("conntrack -S early_drop", &["conntrack.early_drop"]),
        ("ethtool -S eth0 rx_out_of_buffer", &["driver.rx_out_of_buffer"]),
        (
            "RX errors 0  dropped 5  overruns 0  frame 0",
            &["link.rx_errors", "link.rx_dropped", "link.rx_fifo_errors", "link.rx_frame_errors"],
        ),
        (
            "TX errors 0  dropped 0 overruns 0  carrier 0  collisions 0",
            &[
                "link.tx_errors",
                "link.tx_dropped",
                "link.tx_fifo_errors",
                "link.tx_carrier_errors",
                "link.collisions",
            ],
        ),
        (
            "RX errors:  length    crc   frame    fifo overrun otherhost",
            &[
                "link.rx_errors",
                "link.rx_length_errors",
                "link.rx_crc_errors",
                "link.rx_frame_errors",
                "link.rx_fifo_errors",
                "link.rx_over_errors",
                "link.rx_otherhost_dropped",
            ],
        ),
    ] {
        assert_eq!(counters(typed), expected, "{typed}");
    }
    assert!(counters("frame").contains(&"link.rx_crc_errors".to_owned()));
}

/// The kernel's meaning comes first, and words of dropwatch's own that only stand beside it do not.
#[test]
fn a_line_of_conntrack_is_about_its_counters() {
    let line = "cpu=0   \tfound=0 invalid=12 insert=0 insert_failed=0 drop=4501 early_drop=0 \
                error=0 search_restart=0 clash_resolve=0 chaintoolong=0";
    let page = page(line);
    assert_eq!(page.counters.iter().flat_map(|counter| &counter.names).count(), 10);
    let words: Vec<_> = page.words.iter().map(|word| &word.names).collect();
    assert!(words.is_empty(), "{words:?}");
    let mut out = Vec::new();
    let found = self::page("found");
    dropwatch::render::explain::page(&found, dropwatch::render::Medium::default(), &mut out)
        .expect("writes");
    let text = String::from_utf8(out).expect("UTF-8");
    assert!(text.starts_with("conntrack.found\n"), "{text}");
}

#[test]
fn options_are_explained_by_the_help() {
    for option in ["--help", "--fail-over", "--by", "-v", "--top 0"] {
        let failure = explained(option).expect_err(option);
        assert_eq!(failure.code(), exit::USAGE, "{option}");
        let said = failure.to_string();
        assert!(said.contains("`dropwatch --help`") && !said.contains("stand"), "{said}");
    }
}
