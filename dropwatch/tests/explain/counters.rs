//! Counters lead to what raises them, or to nothing.

use std::{collections::BTreeSet, fs};

use dropwatch::{diagnose::knowledge::Quantity, exit, kernel::counters};

use crate::{explained, host, known, reasons_of, rules_of};

/// Counters of a host, by group and name.
fn of_host() -> BTreeSet<String> {
    counters::read(&host("6.18")).iter().map(|(name, _)| name.to_owned()).collect()
}

/// A counter's name as `nstat`, `/proc/net/snmp` and people write it.
fn spellings(name: &str) -> Vec<String> {
    let (group, last) = name.split_once('.').expect("a group");
    vec![
        name.to_owned(),
        format!("{group}{last}"),
        format!("{group}: {last}"),
        format!("{}_{}", group.to_lowercase(), last.to_lowercase()),
        format!("{group}{last}                 12                 0.0"),
        format!("{group}.{last} +91"),
        format!("{group}.{last}=91"),
    ]
}

#[test]
fn counters_are_whole() {
    let mut names = BTreeSet::new();
    for counter in &known().counters {
        let all = &counter.names;
        assert!(all.iter().all(|name| names.insert(name)), "{all:?}: explained twice");
        assert!(counter.meaning.ends_with('.') && !counter.source.is_empty(), "{all:?}");
        for rule in &counter.rules {
            assert!(known().rules.iter().any(|it| &it.rule == rule), "{all:?}: no rule {rule}");
        }
        for drops in &counter.drops {
            assert!(known().drops(drops).is_some(), "{all:?}: no entry is about {drops}");
        }
    }
}

#[test]
fn every_counter_of_a_check_is_explained_and_leads_back() {
    let quantities = known().rules.iter().flat_map(|rule| {
        rule.quantities().map(move |quantity| (rule.rule.as_str(), quantity)).collect::<Vec<_>>()
    });
    for (rule, quantity) in quantities {
        let Quantity::Counter(name) = quantity else { continue };
        let page = explained(&name).unwrap_or_else(|failure| panic!("{rule}: {failure}"));
        assert!(page.counters.iter().any(|counter| counter.meaning.is_some()), "{name}");
        assert!(rules_of(&page).contains(&rule), "{name} does not lead to {rule}");
    }
    for entry in &known().entries {
        for quantity in entry.quantities() {
            let Quantity::Counter(name) = quantity else { continue };
            let page = explained(&name).unwrap_or_else(|failure| panic!("{name}: {failure}"));
            assert!(page.counters.iter().any(|counter| counter.meaning.is_some()), "{name}");
        }
    }
}

#[test]
fn every_counter_of_a_host_is_known_as_one_and_leads_nowhere_else() {
    let names = of_host();
    assert!(names.len() > 300, "{}", names.len());
    for name in &names {
        for typed in spellings(name) {
            let page = explained(&typed).unwrap_or_else(|failure| panic!("{typed}: {failure}"));
            let counter = match page.counters.as_slice() {
                [counter] => counter,
                other => panic!("{typed}: {other:?}"),
            };
            assert_eq!(counter.names, [name.as_str()], "{typed}");
            assert!(page.values.contains_key(name), "{typed} has no value");
            let mut known = known().counters.iter();
            let known = known.find(|counter| counter.names.contains(name));
            match known {
                Some(known) => {
                    let others = |rule: &&str| !known.rules.iter().any(|it| it == rule);
                    let loose: Vec<_> = rules_of(&page).into_iter().filter(others).collect();
                    assert!(loose.is_empty(), "{typed}: {loose:?}");
                    let drops = page.explained.len() + page.related.len();
                    assert!(drops <= known.drops.len(), "{typed}");
                }
                None => {
                    assert!(rules_of(&page).is_empty() && reasons_of(&page).is_empty(), "{typed}");
                }
            }
        }
    }
}

/// Those of the kernel that the table names are there, or belong to no file of `/proc/net`.
#[test]
fn no_counter_is_invented() {
    let there = of_host();
    let elsewhere = ["link.", "driver.", "conntrack.", "Xfrm.", "arp_cache.", "ndisc_cache."];
    for name in known().counters.iter().flat_map(|counter| &counter.names) {
        let is_told = there.contains(name)
            || known().needs.contains_key(name)
            || elsewhere.iter().any(|group| name.starts_with(group));
        assert!(is_told, "{name} is no counter of Linux 6.18");
    }
}

#[test]
fn every_statistic_of_a_device_is_known_or_counts_no_loss() {
    let traffic = ["bytes", "packets", "compressed", "multicast"];
    let files = fs::read_dir("/sys/class/net/lo/statistics").expect("sysfs");
    let mut seen = 0;
    for file in files {
        let name = file.expect("entry").file_name().into_string().expect("UTF-8");
        if traffic.iter().any(|kind| name.ends_with(kind)) {
            continue;
        }
        seen += 1;
        for typed in [name.clone(), format!("     {name}: 12"), name.to_uppercase()] {
            let page = explained(&typed).unwrap_or_else(|failure| panic!("{typed}: {failure}"));
            assert_eq!(page.counters.len(), 1, "{typed}");
            assert!(page.words.is_empty() && page.topics.is_empty(), "{typed}");
        }
    }
    assert!(seen > 15, "{seen}");
}

#[test]
fn counters_lead_to_what_raises_them() {
    for (typed, rules, reasons) in [
        ("Ip.InDiscards", &[][..], &["NOMEM"][..]),
        ("Ip6InDiscards", &[], &["IPV6DISABLED", "XFRM_POLICY"]),
        (
            "Udp.InErrors",
            &["udp_receive_buffer", "udp_memory", "checksum"],
            &["SOCKET_RCVBUFF", "PROTO_MEM", "UDP_CSUM", "SOCKET_FILTER", "PKT_TOO_SMALL"],
        ),
        ("UdpRcvbufErrors", &["udp_receive_buffer"], &["SOCKET_RCVBUFF"]),
        ("Ip.InAddrErrors", &["forwarding_disabled", "address_elsewhere"], &["IP_INADDRERRORS"]),
        ("IpExtInNoRoutes", &["no_route", "route_refuses"], &["IP_INNOROUTES"]),
        ("TcpExtListenOverflows", &["accept_queue_full"], &["TCP_LISTEN_OVERFLOW"]),
        ("rx_dropped", &["cpu_backlog", "unhandled_protocol"], &["UNHANDLED_PROTO", "CPU_BACKLOG"]),
        ("rx_errors", &["nic_damaged"], &[]),
        ("rx_missed_errors", &["nic_no_room"], &[]),
        ("tx_dropped", &[], &["FULL_RING"]),
        ("softnet dropped", &["cpu_backlog"], &["CPU_BACKLOG"]),
        ("time_squeeze", &["cpu_backlog", "nic_no_room"], &[]),
        ("squeezed", &["cpu_backlog", "nic_no_room"], &[]),
        (
            "conntrack drop",
            &["conntrack_table_full", "conntrack_insert_failed"],
            &["NETFILTER_DROP"],
        ),
        ("early_drop", &["conntrack_table_full"], &[]),
        ("XfrmInNoPols", &["ipsec"], &["XFRM_POLICY"]),
        ("XfrmInError", &["ipsec"], &[]),
        ("TcpExtTCPTimeouts", &[], &[]),
    ] {
        let page = explained(typed).unwrap_or_else(|failure| panic!("{typed}: {failure}"));
        let (found, expected) = (rules_of(&page), rules.iter().copied());
        assert_eq!(BTreeSet::from_iter(found), BTreeSet::from_iter(expected), "{typed}");
        let found = reasons_of(&page);
        let all = reasons.iter().all(|reason| found.contains(reason));
        assert!(all && (reasons.is_empty() == found.is_empty()), "{typed}: {found:?}");
    }
}

#[test]
fn lines_of_counters_are_those_of_all_that_they_name() {
    let names = |typed: &str| {
        let page = explained(typed).unwrap_or_else(|failure| panic!("{typed}: {failure}"));
        page.counters.into_iter().flat_map(|counter| counter.names).collect::<Vec<_>>()
    };
    let snmp = "Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors";
    assert_eq!(
        names(snmp),
        [
            "Udp.InDatagrams",
            "Udp.OutDatagrams",
            "Udp.NoPorts",
            "Udp.InErrors",
            "Udp.RcvbufErrors",
            "Udp.SndbufErrors"
        ]
    );
    assert_eq!(
        names("explains 81.8% of the drops · drop +4501 · early_drop +0"),
        ["conntrack.drop", "conntrack.early_drop"]
    );
    let all = names("cpu=0 found=0 invalid=12 insert=0 insert_failed=0 drop=0 early_drop=0");
    assert!(all.iter().all(|name| name.starts_with("conntrack.")) && all.len() == 6, "{all:?}");
    assert!(
        names("RX: bytes packets errors dropped missed mcast")
            .contains(&"link.rx_missed_errors".to_owned())
    );
}

#[test]
fn what_only_a_driver_counts_is_said_to_be_that() {
    for typed in ["rx_no_dma_resources", "tx_queue_0_xdp_full", "rx_steer_missed_packets: 12"] {
        let failure = explained(typed).expect_err(typed);
        assert_eq!(failure.code(), exit::USAGE, "{typed}");
        assert!(failure.to_string().contains("may be a counter of a driver"), "{typed}: {failure}");
    }
}
