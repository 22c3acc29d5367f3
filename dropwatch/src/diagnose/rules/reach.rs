//! Every rule, wherever its trouble is: each command can be run as printed, or is not printed.

mod devices;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    process::Command,
};

use super::{
    RULES,
    draft::{HOST_WIDE, quote},
    testing::{GW, TestHost},
};
use crate::{
    diagnose::knowledge::NOT_SPECIFIED,
    report::{
        conntrack::{ConntrackCounter, ConntrackStats, ConntrackTable, StateRow},
        device::{
            Action, BridgePort, Device, Filter, Frame, GroupHook, GroupProgram, Hook, Peer,
            PortState, PortVlans, Program, Target, XdpProgram,
        },
        evidence::{Addresses, Link, Listener, PacketQueue},
        finding::Finding,
        flow::Flow,
        protocol::transport,
        question::{
            Answer, Connection, Does, Packet, Prefix, Question, Refusal, Refused, Refuser,
            RefusingType, Route, RulePlace, RuleTarget, Socket, Sought, Tuple,
        },
    },
};

/// A name that a device can have, and that a shell would take apart.
const DEVICE: &str = "e'0;id$(id)";

/// Words in capitals that programs take as they are.
const NAMES: [&str; 6] = ["FORWARD", "NOTRACK", "PREROUTING", "RST", "SYN", "TCPMSS"];

/// What commands for the namespace start with.
const INSIDE: &str = "ip netns exec gw ";

/// Where the trouble is, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reach {
    Named,
    /// It has no name, but a process.
    Process,
    /// The host's own.
    Own,
    /// It has ended.
    Ended,
    /// Another has its number, and even its name, by now.
    Replaced,
    /// It was not there at the begin, so its number can have been another's.
    New,
    /// It is proved to have begun since, so that it counted from zero.
    Born,
    /// No way leads there.
    Closed,
    /// Only dropwatch keeps it alive.
    Dropwatchs,
    /// No sample says where.
    Unsampled,
    /// In a container: the host's namespace is out of reach.
    Container,
}

const REACHES: [Reach; 11] = [
    Reach::Named,
    Reach::Process,
    Reach::Own,
    Reach::Ended,
    Reach::Replaced,
    Reach::New,
    Reach::Born,
    Reach::Closed,
    Reach::Dropwatchs,
    Reach::Unsampled,
    Reach::Container,
];

impl Reach {
    fn of(self, mut host: TestHost) -> TestHost {
        let prefix = |mut host: TestHost, prefix: Option<&str>| {
            for evidence in [&mut host.before, &mut host.now] {
                evidence.namespaces.get_mut(&GW).unwrap().prefix = prefix.map(str::to_owned);
            }
            host
        };
        match self {
            Self::Named => host,
            Self::Process => prefix(host.named("web (pid 812)"), Some("nsenter -t 812 -n ")),
            Self::Own => prefix(host.named("host"), Some("")),
            Self::Ended | Self::Closed => {
                host.now.namespaces.clear();
                if self == Self::Ended {
                    host.now.ended.insert(GW);
                }
                host
            }
            Self::Replaced => {
                host.now.namespaces.get_mut(&GW).unwrap().cookie = Some(71);
                host
            }
            Self::New => {
                host.before.namespaces.clear();
                host
            }
            Self::Born => {
                let birth = host.now.namespaces[&GW].at_birth();
                host.before.namespaces.insert(GW, birth);
                host
            }
            Self::Dropwatchs => prefix(host, None),
            Self::Unsampled => host.nothing_sampled(),
            Self::Container => {
                host.now.host_prefix = None;
                host
            }
        }
    }

    /// What commands for the namespace start with; `None` where there may be none.
    fn prefix(self) -> Option<&'static str> {
        match self {
            Self::Named | Self::Born | Self::Unsampled | Self::Container => Some(INSIDE),
            Self::Process => Some("nsenter -t 812 -n "),
            Self::Own => Some(""),
            Self::Ended | Self::Replaced | Self::New | Self::Closed | Self::Dropwatchs => None,
        }
    }
}

/// Trouble for every rule, with all that samples can show, or with the namespace alone.
pub(super) fn troubles(sampled: bool) -> Vec<TestHost> {
    let row = |count, function: &str, reason: &str| {
        let host = TestHost::new().row(count, function, reason);
        let flow = Flow {
            src: Some([198, 18, 0, 1].into()),
            dst: Some([203, 0, 113, 9].into()),
            ..Flow::default()
        };
        if sampled { host.interface(DEVICE).flow(flow) } else { host }
    };
    let link = |kind: &str| Link {
        name: DEVICE.into(),
        mtu: 1500,
        up: true,
        queue_length: 1000,
        qdisc: Some(kind.into()),
        ..Link::default()
    };
    let table = |counter: ConntrackCounter, count: u32| {
        let mut stats = ConntrackStats {
            entries: 100_000,
            limit: Some(100_000),
            buckets: Some(65_536),
            object_bytes: Some(256),
            ..ConntrackStats::default()
        };
        stats.counters.add(counter, count);
        stats
    };
    let states = vec![StateRow {
        protocol: "tcp".into(),
        state: "TIME_WAIT",
        count: 65_000,
        share: 0.65,
        timeout_s: Some(120),
        timeout_setting: Some("nf_conntrack_tcp_timeout_time_wait"),
    }];
    let full = row(10, "nf_hook_slow", "NETFILTER_DROP")
        .conntrack(table(ConntrackCounter::Drop, 0), table(ConntrackCounter::Drop, 10))
        .table(ConntrackTable { entries: 100_000, states, ..ConntrackTable::default() });
    let collide = |counter| {
        row(10, "nf_hook_slow", "NETFILTER_DROP").conntrack(table(counter, 0), table(counter, 10))
    };
    // A packet to the place of a connection, or an answer from there.
    let tracked = |host: TestHost, protocol: u8, from: [u8; 4], to: [u8; 4], counted: u32| {
        let (from, to): (SocketAddr, SocketAddr) = ((from, 80).into(), (to, 81).into());
        let flow = Flow {
            protocol: Some(transport(protocol)),
            src: Some(from.ip()),
            src_port: Some(from.port()),
            dst: Some(to.ip()),
            dst_port: Some(to.port()),
            ..Flow::default()
        };
        let packet = Tuple { protocol, from, to };
        let reply = if counted == 0 { packet.turned() } else { packet };
        let original = Tuple { to: ([192, 0, 2, 1], 82).into(), ..reply.turned() };
        let connection = Some(Connection { original, reply });
        let [before, now] = [0, counted].map(|count| table(ConntrackCounter::Invalid, count));
        let host = if sampled { host.flow(flow) } else { host };
        host.conntrack(before, now)
            .answer(Question::Connection(reply), Answer::Connection(connection))
            .answer(Question::Targets(Sought::To(reply.from.ip())), Answer::Targets(Vec::new()))
    };
    let (here, there) = ([198, 18, 0, 1], [203, 0, 113, 9]);
    let stale = tracked(row(50, "ip_rcv_core", "OTHERHOST"), 17, here, there, 0);
    let untranslated = tracked(row(50, "tcp_v4_rcv", "NO_SOCKET"), 6, here, there, 50);
    let (table_name, chain) = (DEVICE.to_owned(), DEVICE.to_owned());
    let rule = RulePlace::Nft { family: "inet", table: table_name, chain, by_iptables: false };
    let does = Does::Queue { first: 5, last: 5, bypass: false };
    let unheard = vec![RuleTarget { does, rule }];
    let mut troubles = vec![
        full,
        collide(ConntrackCounter::InsertFailed),
        row(50, "nft_do_chain", "NETFILTER_DROP"),
        row(50, "nf_hook_slow", "NETFILTER_DROP"),
        row(50, "nf_hook_slow", "NETFILTER_DROP").callers(&["ip_local_deliver"]),
        row(50, "ip_error", "IP_INADDRERRORS")
            .counted("Ip.InAddrErrors", 50)
            .setting("net.ipv4.ip_forward", "0"),
        row(50, "__dev_xmit_skb", "QDISC_DROP").link(&link("pfifo_fast"), "qdisc_drops", 50),
        row(50, "f", "NO_SOCKET").link(&link("mq"), "rx_missed_errors", 7),
        row(50, "f", "NO_SOCKET").link(&link("mq"), "rx_crc_errors", 7),
        row(50, "udp_queue_rcv_one_skb", "SOCKET_RCVBUFF")
            .counted("Udp.RcvbufErrors", 50)
            .host_setting("net.core.rmem_max", "212992")
            .host_setting("net.core.rmem_default", "212992"),
        row(50, "udp_queue_rcv_one_skb", "PROTO_MEM").host_setting("net.ipv4.udp_mem", "1 2 3"),
        row(50, "udp_queue_rcv_one_skb", "PROTO_MEM").counted("Udp.MemErrors", 50),
        TestHost::new()
            .counted("TcpExt.ListenOverflows", 9)
            .setting("net.core.somaxconn", "10")
            .listener(Listener { port: 80, waiting: 11 }),
        row(50, "tcp_v4_syn_recv_sock", "TCP_LISTEN_OVERFLOW")
            .counted("TcpExt.ListenOverflows", 50),
        TestHost::new()
            .counted("TcpExt.TCPReqQFullDrop", 9)
            .setting("net.ipv4.tcp_syncookies", "0")
            .setting("net.ipv4.tcp_max_syn_backlog", "128"),
        row(50, "tcp_data_queue", "PROTO_MEM")
            .counted("TcpExt.TCPRcvQDrop", 50)
            .setting("net.ipv4.tcp_rmem", "1 2 3"),
        row(50, "tcp_add_backlog", "SOCKET_BACKLOG")
            .counted("TcpExt.TCPBacklogDrop", 50)
            .setting("net.ipv4.tcp_rmem", "1 2 3"),
        row(50, "enqueue_to_backlog", "CPU_BACKLOG")
            .host_counted("softnet.dropped", 50)
            .host_counted("softnet.flow_limit", 40)
            .host_setting("net.core.netdev_max_backlog", "1000"),
        row(50, "__udp4_lib_rcv", "NO_SOCKET").counted("Udp.NoPorts", 50),
        row(50, "sk_filter_trim_cap", "SOCKET_FILTER"),
        row(50, "ip_rcv_finish_core", "IP_RPFILTER").counted("TcpExt.IPReversePathFilter", 50),
        row(50, "ip_rcv_finish_core", "IP_RPFILTER")
            .counted("TcpExt.IPReversePathFilter", 50)
            .setting("net.ipv4.conf.all.rp_filter", "2"),
        row(50, "ip_error", "IP_INNOROUTES").counted("IpExt.InNoRoutes", 50),
        row(50, "ip6_pkt_drop", "IP_OUTNOROUTES").counted("Ip6.OutNoRoutes", 50),
        row(50, "arp_error_report", "NEIGH_FAILED"),
        row(50, "__neigh_event_send", "NEIGH_QUEUEFULL")
            .host_counted("arp_cache.unresolved_discards", 50),
        row(50, "ip_finish_output2", "NEIGH_CREATEFAIL").host_counted("arp_cache.table_fulls", 50),
        row(50, "__netif_receive_skb_core", "UNHANDLED_PROTO").link(&link("mq"), "rx_dropped", 50),
        row(50, "ip_forward", "PKT_TOO_BIG").counted("Ip.FragFails", 50).device(3, DEVICE, 1500),
        row(50, "ip_forward", "PKT_TOO_BIG")
            .counted("Ip.FragFails", 50)
            .device(3, DEVICE, 1500)
            .device(4, "a;id", 1280),
        row(50, "ip_rcv_core", "IP_CSUM").counted("IpExt.InCsumErrors", 50),
        row(50, "ip_defrag", "NOMEM")
            .counted("Ip.ReasmFails", 50)
            .gauge("FRAG.memory", 4_000_000)
            .setting("net.ipv4.ipfrag_high_thresh", "4000000"),
        row(50, "ip_expire", "FRAG_REASM_TIMEOUT").counted("Ip.ReasmTimeout", 50),
        row(50, "ip_forward", "IP_INHDR").counted("Ip.InHdrErrors", 50),
        row(50, "nf_queue", "NOT_SPECIFIED").queue(
            5,
            None,
            PacketQueue { dropped: 50, ..PacketQueue::default() },
        ),
        row(50, "nf_queue", "NOT_SPECIFIED")
            .answer(Question::Targets(Sought::Queue), Answer::Targets(unheard)),
        row(50, "udp_queue_rcv_one_skb", "XFRM_POLICY").counted("Xfrm.InTmplMismatch", 50),
        row(50, "xfrm_input", "NOT_SPECIFIED").counted("Xfrm.InNoStates", 50),
        row(50, "dst_discard_out", "NOT_SPECIFIED").counted("Xfrm.OutNoStates", 50),
        stale,
        untranslated,
    ];
    troubles.extend(refusers().map(|by| {
        let question = Question::Route(Packet {
            from: Some([198, 18, 0, 1].into()),
            iif: Some(2),
            ..Packet::to([203, 0, 113, 9].into())
        });
        let refused = Refused { why: Refusal::Blackhole, by: Some(by) };
        row(50, "ip_error", NOT_SPECIFIED).answer(question, Answer::Route(Route::Refused(refused)))
    }));
    troubles.push(not_read(row(50, "tcp_validate_incoming", "TCP_OLD_SEQUENCE"), sampled));
    troubles.push(joined_elsewhere(row(50, "ip_rcv_finish_core", NOT_SPECIFIED), sampled));
    let off = row(50, "ip6_rcv_core", "IPV6DISABLED").device(2, DEVICE, 1500);
    troubles.push(off.setting(&format!("net/ipv6/conf/{DEVICE}/disable_ipv6"), "1"));
    let programs = ["TC_INGRESS", "TC_EGRESS", "XDP", "BPF_CGROUP_EGRESS", "TAP_FILTER"];
    troubles.extend(programs.map(|reason| row(50, "f", reason)));
    let martians = ["IP_LOCAL_SOURCE", "IP_LOCALNET", "IP_INVALID_SOURCE", "IP_INVALID_DEST"];
    troubles.extend(martians.map(|reason| row(50, "ip_rcv_finish_core", reason)));
    troubles.extend(devices::of_devices(row));
    troubles
}

/// One of each kind that has commands of its own.
fn refusers() -> [Refuser; 2] {
    let to = Prefix { address: [203, 0, 113, 0].into(), length: 24 };
    let kind = RefusingType::Blackhole;
    [
        Refuser::Route { kind, to, table: 254, metric: 0, rule: 32_766 },
        Refuser::Rule { kind, preference: 100 },
    ]
}

/// Probes for a connection that nobody reads.
fn not_read(host: TestHost, sampled: bool) -> TestHost {
    let (peer, local): (SocketAddr, SocketAddr) =
        (([198, 18, 1, 2], 9).into(), ([198, 18, 1, 1], 80).into());
    let flow = Flow {
        protocol: Some("tcp".into()),
        src: Some(peer.ip()),
        src_port: Some(peer.port()),
        dst: Some(local.ip()),
        dst_port: Some(local.port()),
        ..Flow::default()
    };
    let socket = Socket { local, peer: Some(peer), queued: 65_000, owner: None, buffer: None };
    let host = if sampled { host.flow(flow) } else { host };
    host.counted("TcpExt.TCPToZeroWindowAdv", 1)
        .answer(Question::Unread, Answer::Sockets(vec![socket]))
}

/// Packets to a group that is joined on another device than the one they came in by.
fn joined_elsewhere(host: TestHost, sampled: bool) -> TestHost {
    let group: IpAddr = [239, 9, 9, 9].into();
    let flow = Flow { dst: Some(group), ..Flow::default() };
    let mut host = if sampled { host.flow(flow) } else { host };
    host = host.device(2, DEVICE, 1500).device(3, "a;id", 1500);
    let (groups, joined) = (Some([group].into()), [(3, [group].into())].into());
    let addresses = Addresses { groups, joined, ..Addresses::default() };
    host.now.namespaces.get_mut(&GW).unwrap().addresses = Some(addresses);
    host
}

/// What every rule finds on `host`.
pub(super) fn all(host: &TestHost) -> Vec<Finding> {
    RULES.iter().flat_map(|rule| host.clone().run(rule)).collect()
}

/// The words that a shell makes of a command; nothing of it is run but `printf`.
fn words(command: &str) -> Vec<String> {
    let script = format!("printf '%s\\n' {command}");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Whether a command is about the machine, so that it is the same for every namespace.
fn is_of_machine(command: &str) -> bool {
    HOST_WIDE.iter().any(|name| command.starts_with(&format!("sysctl -w {name}=")))
        || ["bpftool cgroup ", "bpftool prog show ", "ip -s neigh show"]
            .iter()
            .any(|start| command.starts_with(start))
}

fn has_placeholder(command: &str) -> bool {
    let others = command.replace(&*quote(DEVICE), "");
    let mut words = others.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.any(|word| {
        word.len() > 1
            && word.chars().any(|c| c.is_ascii_uppercase())
            && !word.chars().any(|c| c.is_ascii_lowercase())
            && !NAMES.contains(&word)
    })
}

#[test]
fn every_rule_has_its_trouble_here() {
    let troubles = [troubles(true), troubles(false)].concat();
    for (index, rule) in RULES.iter().enumerate() {
        let found = troubles.iter().any(|host| !host.clone().run(rule).is_empty());
        assert!(found, "rule {index} finds nothing: add its trouble");
    }
}

/// Whether a command ends by itself: a capture waits for packets that may never come, and programs that trace
/// a path are on few hosts.
fn ends(command: &str) -> bool {
    let waits = ["tcpdump ", "tracepath ", "traceroute ", "ip monitor", "conntrack -E", "watch "];
    command.contains("timeout 30 ") || !waits.iter().any(|it| command.contains(it))
}

#[test]
fn each_command_can_be_run_as_printed_or_is_not_there() {
    let mut printed = BTreeSet::new();
    for sampled in [true, false] {
        for host in troubles(sampled) {
            for reach in REACHES {
                for finding in all(&reach.of(host.clone())) {
                    let commands: Vec<&str> =
                        finding.actions.iter().map(|action| action.command.as_str()).collect();
                    let context = format!("{reach:?}: {} {commands:?}", finding.rule);
                    for command in &commands {
                        assert!(!has_placeholder(command), "{context}");
                        assert!(ends(command), "{context}");
                        let inside = reach.prefix().is_some_and(|it| command.starts_with(it));
                        let machine = is_of_machine(command) && reach != Reach::Container;
                        assert!(inside || machine, "{context}");
                        printed.insert((*command).to_owned());
                    }
                    let is_about_it = finding.netns.is_some() && reach.prefix().is_none();
                    let said = finding.unreachable.as_ref().map(|it| it.ended);
                    assert!(!is_about_it || said.is_some(), "nothing said: {context}");
                    assert!(said != Some(true) || reach == Reach::Ended, "{context}");
                    assert!(said != Some(true) || commands.is_empty(), "{context}");
                    assert!(said != Some(false) || reach != Reach::Ended, "{context}");
                }
            }
        }
    }
    assert!(printed.len() > 100, "{} commands were looked at", printed.len());
    for command in printed {
        // `id` is a word of its own there.
        let words = words(command.trim_start_matches("bpftool prog show id "));
        assert!(!words.iter().any(|word| word.starts_with("id")), "{words:?}");
        let is_whole = words.iter().any(|word| word.contains(DEVICE));
        assert!(is_whole || !command.contains("e'"), "{words:?}");
    }
}

/// What its own counters show is there, with commands; what samples alone show is of a number that
/// another that began meanwhile may have had.
#[test]
fn a_namespace_that_began_meanwhile_has_all_that_it_counted() {
    let kinds = |findings: &[Finding]| -> BTreeSet<String> {
        findings.iter().map(|finding| finding.rule.clone()).collect()
    };
    let mut with_commands = 0;
    for host in troubles(true) {
        let born = all(&Reach::Born.of(host.clone()));
        let mut known = kinds(&all(&Reach::Named.of(host)));
        // A device may have come from elsewhere, where it counted.
        known.retain(|rule| {
            !rule.starts_with("nic_") && rule != "unhandled_protocol" && rule != "tap_full"
        });
        assert!(known.is_subset(&kinds(&born)), "{known:?}, {born:?}");
        for finding in &born {
            let inside = finding.actions.iter().any(|action| action.command.starts_with(INSIDE));
            assert!(!inside || finding.unreachable.is_none(), "{finding:?}");
            with_commands += usize::from(inside);
        }
    }
    assert!(with_commands > 15, "{with_commands}");
}

/// Where its counters are gone, drops whose reason alone is the proof stand in for them.
#[test]
fn what_drops_prove_is_found_without_counters() {
    for rule in RULES.iter().filter(|rule| !rule.proofs.is_empty()) {
        for reach in [Reach::Ended, Reach::Closed, Reach::New] {
            let hosts = troubles(true).into_iter().map(|host| reach.of(host));
            let found: Vec<Finding> = hosts.flat_map(|host| host.run(rule)).collect();
            assert!(!found.is_empty(), "{reach:?}: {:?}", rule.proofs);
            for finding in found {
                assert_eq!(
                    finding.explains.map(|explains| explains.drops),
                    Some(50),
                    "{finding:?}"
                );
                let mut counted = finding.evidence.iter().filter(|evidence| evidence.delta);
                assert!(counted.all(|evidence| evidence.source == "kfree_skb"), "{finding:?}");
                assert!(finding.unreachable.is_some(), "{finding:?}");
            }
        }
    }
}

#[test]
fn a_namespace_that_ended_is_said_to_have() {
    let mut ended = 0;
    for host in troubles(true) {
        for finding in all(&Reach::Ended.of(host)).iter().filter(|it| it.netns.is_some()) {
            if let Some(unreachable) = &finding.unreachable {
                assert_eq!(unreachable.why, "gw has ended: no command can be run there");
                ended += 1;
            }
        }
    }
    assert!(ended >= 10, "{ended}");
}
