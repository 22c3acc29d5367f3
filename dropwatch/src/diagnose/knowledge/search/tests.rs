use crate::diagnose::knowledge::table;

fn titles(name: &str) -> Vec<&str> {
    let answer = table().expect("table").find(name).expect("known");
    answer.full.iter().map(|entry| entry.title.as_str()).collect()
}

#[test]
fn a_reason_is_found_however_it_is_written() {
    for name in ["QUEUE_PURGE", "queue_purge", "SKB_DROP_REASON_QUEUE_PURGE", "CORE:Queue_Purge"] {
        assert_eq!(titles(name), ["a queue was discarded"], "{name}");
    }
}

#[test]
fn a_function_is_found_however_it_is_written() {
    for name in [
        "net_tx_action",
        "net_tx_action+0x7d",
        "net_tx_action.constprop.0+0x7d/0x120",
        "net_tx_action [sch_fq]",
    ] {
        assert_eq!(titles(name), ["the driver freed it, in an interrupt"], "{name}");
    }
}

#[test]
fn a_row_of_a_report_finds_the_one_entry_about_it() {
    let of = |row| titles(row);
    assert_eq!(of("tcp_v4_rcv+0x91 (NO_SOCKET)"), ["no TCP socket for this segment"]);
    assert_eq!(
        of("tcp_v4_rcv+0x91 (NOT_SPECIFIED)"),
        ["end of a connection, or of a half-open one"]
    );
    assert_eq!(of("some_driver+0x1 [some] (NO_SOCKET)"), ["no socket is waiting for this packet"]);
}

#[test]
fn what_was_cut_is_completed_where_it_can_be_one_thing_only() {
    assert_eq!(
        titles("nft_do_chain+0x7d [nf_tables] (NETFILTER_DR"),
        ["an nftables rule or policy dropped it"]
    );
    assert_eq!(titles("12 at tcp_v4_rcv+0x91 (NO_SO…"), ["no TCP socket for this segment"]);
    assert_eq!(
        titles("3 packets dropped at __udp4_lib_r…").first(),
        Some(&"no UDP socket for this address and port")
    );
    // Of these there are many, and what is known about the function stays.
    assert!(titles("12 at tcp_v4_rcv+0x91 (TCP_RFC…").contains(&"no TCP socket for this segment"));
}

fn rules(name: &str) -> Vec<&str> {
    let answer = table().expect("table").find(name).expect("known");
    answer.rules.iter().map(|rule| rule.rule.as_str()).collect()
}

#[test]
fn a_finding_is_found_by_its_rule_its_headline_and_its_labels() {
    for name in [
        "conntrack_table_full",
        "Conntrack-Table-Full",
        "conntrack table full",
        "critical  conntrack table full in gw: 1000 of 1000 entries, 10001 packets refused",
        "\x1b[1;31mcritical  conntrack table full in gw: 1000 of\n          1000 entries\x1b[0m",
        "gone   critical  conntrack table full in gw: 1000 of 1000…",
        "rule=\"conntrack_table_full\"",
        "dropwatch_findings{rule=\"conntrack_table_full\",severity=\"critical\"} 1",
        "gw:9100 is at a limit: conntrack_table_full",
    ] {
        assert_eq!(rules(name), ["conntrack_table_full"], "{name}");
    }
}

#[test]
fn a_rule_that_is_called_as_a_reason_is_shares_its_page() {
    let answer = table().expect("table").find("cpu_backlog").expect("known");
    assert_eq!((answer.rules.len(), answer.full.len()), (1, 1));
    assert_eq!(rules("SOCKET_FILTER"), ["socket_filter"]);
}

#[test]
fn settings_and_counters_are_found_in_any_spelling() {
    for name in ["rp_filter", "net/ipv4/conf/eth0.7/rp_filter", "net.ipv4.conf.all.rp_filter"] {
        assert_eq!(rules(name), ["reverse_path_filter"], "{name}");
    }
    let command = "ip netns exec gw sysctl -w net/ipv4/conf/eth0/rp_filter=2";
    assert_eq!(rules(command), ["reverse_path_filter"]);
    for name in ["ListenOverflows", "TcpExtListenOverflows", "TcpExt.ListenOverflows"] {
        assert!(rules(name).contains(&"accept_queue_full"), "{name}");
    }
    let line = "TcpExtListenOverflows           10                 0.0";
    assert!(rules(line).contains(&"accept_queue_full"));
    assert!(rules("Udp.RcvbufErrors +91").contains(&"udp_receive_buffer"));
    assert_eq!(rules("rx_missed_errors"), ["nic_no_room"]);
    assert_eq!(rules("insert_failed +12"), ["conntrack_insert_failed"]);
    assert_eq!(titles("suppress_frag_ndisc"), ["fragmented IPv6 neighbour discovery"]);
}

#[test]
fn topics_list_what_is_called_so_or_speaks_of_it() {
    assert_eq!(rules("mtu"), ["mtu"]);
    assert_eq!(rules("accept queue"), ["accept_queue_full"]);
    let answer = table().expect("table").find("ARP").expect("known");
    assert!(answer.brief_rules.len() > 1 && answer.brief.len() > 1);
    assert_eq!(rules("dns"), ["conntrack_insert_failed"]);
    for nothing in ["the", "of the", "a", "kubernetes", "mtu kubernetes"] {
        assert!(table().expect("table").find(nothing).is_err(), "{nothing}");
    }
}

#[test]
fn series_and_json_lines_are_rows() {
    let series = r#"dropwatch_drops_total{symbol="tcp_v4_rcv",module="",reason="NO_SOCKET"} 9"#;
    assert_eq!(titles(series), ["no TCP socket for this segment"]);
    let json = r#"{"symbol":"tcp_v4_rcv","offset":145,"module":null,"reason":"NO_SOCKET"}"#;
    assert_eq!(titles(json), ["no TCP socket for this segment"]);
}

#[test]
fn all_names_are_listed_once_and_found() {
    let table = table().expect("table");
    let names = table.names();
    assert!(names.is_sorted() && names.len() > 300, "{}", names.len());
    for name in &names {
        assert!(table.find(name).is_ok(), "{name}");
    }
    for name in ["conntrack_table_full", "NO_SOCKET", "tcp_v4_rcv", "net.core.somaxconn"] {
        assert!(names.iter().any(|known| known == name), "{name}");
    }
}

#[test]
fn entries_of_one_place_alone_stay_brief_where_there_are_many() {
    let answer = table().expect("table").find("NOT_SPECIFIED").expect("known");
    assert_eq!(answer.full.len(), 1);
    assert!(answer.brief.len() > 3, "{}", answer.brief.len());
}

#[test]
fn unknown_names_get_suggestions_and_nonsense_none() {
    let unknown = |name: &str| table().expect("table").find(name).unwrap_err().to_string();
    assert_eq!(
        unknown("nf_hook_slo"),
        "nothing is known about `nf_hook_slo`: did you mean nf_hook_slow? (`dropwatch explain` \
         lists all names)"
    );
    assert!(unknown("NETFILTR_DROP").contains("NETFILTER_DROP"));
    assert!(unknown("RFC7323_PAWS").contains("TCP_RFC7323_PAWS"));
    assert!(unknown("somaxcon").contains("net.core.somaxconn"));
    assert!(unknown("net.core.somaxcon").contains("net.core.somaxconn"));
    assert!(unknown("Udp.RcvbfErrors").contains("Udp.RcvbufErrors"));
    assert!(unknown("conntrack_tabel_full").contains("conntrack_table_full"));
    let row = "7 packets dropped at nf_hoo_slow+0x1 (NETFILTR_DROP) 1%";
    assert!(unknown(row).contains("did you mean NETFILTER_DROP or nf_hook_slow?"));
    assert_eq!(
        unknown("nonsense"),
        "nothing is known about `nonsense` (`dropwatch explain` lists all names)"
    );
    assert!(unknown("").starts_with("nothing is known about `` ("));
    assert!(unknown(&"x ".repeat(4_000)).len() < 300);
    assert_eq!(
        unknown(&"x ".repeat(50_000)),
        "99999 bytes are too much to explain at once: at most 16384"
    );
}
