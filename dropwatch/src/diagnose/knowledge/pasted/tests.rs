use super::*;

fn parts(text: &str) -> Option<(String, Option<String>)> {
    let text = plain(text);
    let name =
        |name: PastedName<'_>| format!("{}{}", name.text, if name.is_cut { "*" } else { "" });
    row(&text).map(|row| (name(row.function), row.reason.map(name)))
}

#[test]
fn a_row_of_every_output_is_its_place_and_reason() {
    let udp = Some(("__udp4_lib_rcv+0x4bc".to_owned(), Some("NO_SOCKET".to_owned())));
    for text in [
        "60 packets dropped at __udp4_lib_rcv+0x4bc (NO_SOCKET) 88.2%",
        "   60 packets dropped at __udp4_lib_rcv+0x4bc (NO_SOCKET) <0.1%\n",
        "60  packets\tdropped at  __udp4_lib_rcv+0x4bc [udp] (NO_SOCKET) 88.2% 0xffffffff81",
        "\x1b[2m60 packets dropped at __udp4_lib_rcv+0x4bc (NO_SOCKET) 88.2%\x1b[0m",
        "ESC[2m60 packets dropped at __udp4_lib_rcv+0x4bc (NO_SOCKET) 88.2%ESC[0m",
        "^[[2m60 packets dropped at __udp4_lib_rcv+0x4bc (NO_SOCKET) 88.2%^[[0m",
        "'60\u{a0}packets dropped at __udp4_lib_rcv+0x4bc (NO_SOCKET) 88.2%'",
        "  1060/s       13800  ██▇▇▇██▇▇▇██  __udp4_lib_rcv+0x4bc (NO_SOCKET)",
        "       –        5000                __udp4_lib_rcv+0x4bc [udp] (NO_SOCKET)",
        "  9900 at __udp4_lib_rcv+0x4bc (NO_SOCKET) 97.8%, new",
        "   200 at __udp4_lib_rcv+0x4bc (NO_SOCKET) 2.0%, 20/s; 4.0/s before",
        "   2006/s       0/s  __udp4_lib_rcv+0x4bc (NO_SOCKET): gone",
        "dropped at __udp4_lib_rcv+0x4bc (NO_SOCKET), netns gw, stands for 12 drops",
        "gw/eth0   33872 → 9 Len=14   dropped at __udp4_lib_rcv+0x4bc (NO_SOCKET), netns gw",
        "__udp4_lib_rcv+0x4bc (NO_SOCKET)",
    ] {
        assert_eq!(parts(text), udp, "{text:?}");
    }
}

#[test]
fn what_was_cut_says_so() {
    let cut = |text| parts(text).expect("a row");
    let (function, reason) = cut("  – 5000   nft_do_chain+0x7d [nf_tables] (NETFILTER_DR");
    assert_eq!(
        (function.as_str(), reason.as_deref()),
        ("nft_do_chain+0x7d", Some("NETFILTER_DR*"))
    );
    let (function, reason) = cut("7 packets dropped at nft_do_chain+0x7d (NETFILTER_DR…");
    assert_eq!(
        (function.as_str(), reason.as_deref()),
        ("nft_do_chain+0x7d", Some("NETFILTER_DR*"))
    );
    let (function, reason) = cut("7 packets dropped at nft_do_ch…");
    assert_eq!((function.as_str(), reason), ("nft_do_ch*", None));
}

#[test]
fn rows_without_a_reason_or_a_name_are_rows_too() {
    let bare = |name: &str| Some((name.to_owned(), None));
    assert_eq!(parts("676 packets dropped at tcp_v4_rcv"), bare("tcp_v4_rcv"));
    assert_eq!(parts("   135/s     2.4/s  tcp_v4_rcv: gone"), bare("tcp_v4_rcv"));
    assert_eq!(parts("   135/s     2.4/s  tcp_v4_rcv"), bare("tcp_v4_rcv"));
    let unnamed = parts("3 packets dropped at 0xffffffff81234567 (NOT_SPECIFIED) 1.0%");
    assert_eq!(unnamed, Some(("0xffffffff81234567".to_owned(), Some("NOT_SPECIFIED".to_owned()))));
}

#[test]
fn sentences_are_no_rows() {
    for text in ["tcp_v4_rcv", "accept queue full", "3 packets had no hops left", "", "12", "–"] {
        assert!(parts(text).is_none_or(|(_, reason)| reason.is_none()), "{text}");
    }
    assert_eq!(parts("accept queue full in gw (much)"), None);
}

#[test]
fn callers_are_a_path_however_they_are_drawn() {
    let path = |text| path(&plain(text)).map(|functions| functions.join(" "));
    for (text, functions) in [
        ("ip_rcv ← __netif_receive_skb_one_core", "ip_rcv __netif_receive_skb_one_core"),
        ("ip_rcv < process_backlog  (70%)", "ip_rcv process_backlog"),
        ("|--70.0%--ip_rcv", "ip_rcv"),
        (" --30.0%--nft_do_chain [nf_tables]", "nft_do_chain"),
        ("|         __napi_poll", "__napi_poll"),
        ("---do_softirq.part.0", "do_softirq.part.0"),
        ("|", ""),
    ] {
        assert_eq!(path(text).as_deref(), Some(functions), "{text}");
    }
    for text in ["ip_rcv", "a b", "5 < 7", "--fail-over", "-v", "gw → b", "<", "", "← a"] {
        assert_eq!(path(text), None, "{text}");
    }
}

#[test]
fn headlines_lose_what_stands_before_them() {
    assert_eq!(headline("critical conntrack table full in gw: 9"), "conntrack table full in gw: 9");
    assert_eq!(headline("gone warning gw has no route…"), "gw has no route");
    assert_eq!(headline("notice"), "notice");
}

#[test]
fn labels_are_found_in_series_and_json() {
    let series = r#"dropwatch_findings{instance="gw",rule="mtu",severity="notice"} 1"#;
    assert_eq!(label(series, "rule"), Some("mtu"));
    assert_eq!(label(r#"{"rule": "no_route","netns":null}"#, "rule"), Some("no_route"));
    assert_eq!(label(r#"{"netns":null}"#, "netns"), None);
    assert_eq!(label("the rule is", "rule"), None);
    assert_eq!(label(r#"my_rule="x""#, "rule"), None);
}

#[test]
fn every_drop_and_finding_of_a_line_is_found() {
    let drops = |function, reason| Labelled::Drops { function, reason };
    let line = r#"{"type":"report","locations":[{"symbol":"f","offset":1,"reason":"R","count":9,
        "details":{"netns":{"name":"gw"}},"stacks":[{"frames":[{"symbol":"g","offset":2}]}]},
        {"symbol":"h","offset":3,"module":null,"count":1}],"findings":[{"rule":"mtu"}]}"#;
    let found: Vec<Labelled<'_>> = labelled(line).collect();
    assert_eq!(found, [drops(Some("f"), Some("R")), drops(Some("h"), None), Labelled::Rule("mtu")]);
    let series = r#"x_total{symbol="f",reason="R"} 1 y{reason="Q",netns="gw"} 2"#;
    let found: Vec<Labelled<'_>> = labelled(series).collect();
    assert_eq!(found, [drops(Some("f"), Some("R")), drops(None, Some("Q"))]);
    assert_eq!(labelled("a {} rule=x } reason=y").count(), 0);
}

#[test]
fn patterns_match_from_the_beginning() {
    assert!(matches("accept queue* full in *", "Accept queue of port 80 full in gw: 3 times"));
    assert!(!matches("accept queue* full in *", "the accept queue full in gw"));
    assert!(matches("* has no route*", "gw has no route to 10.0.0.1 for 3 packets"));
    assert!(matches("# packets came in*", "12 packets came in by eth0"));
    assert!(matches("* lost # packets: the card", "eth0 lost in gw lost 7 packets: the card"));
    for text in ["my packets came in late", "packets came in", " packets came in"] {
        assert!(!matches("# packets came in*", text), "{text}");
    }
}

#[test]
fn nothing_is_too_strange() {
    for text in ["\x1b", "\x1b[", "(", ")", "dropped at ", "at ", "rule=", "\u{202e}", "[", "0x"] {
        let text = plain(text);
        let _row = row(&text);
        let _label = label(&text, "rule");
        assert!(tokens(&text).all(|token| !is_name(token)), "{text}");
        let _counter = without_values(&text);
    }
}
