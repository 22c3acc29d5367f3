//! Only some drops are counted, and drops are counted by what they have in common: exactly, also
//! in the middle of a flood.

use std::{collections::BTreeMap, net::UdpSocket, time::Duration};

use dropwatch::report::{decode::decode, model::Line, model::groups::GroupRow};
use testbed::{
    drops::{
        Cause, PORT, SOURCE_PORT,
        closed::{Closed, Transport},
        filter::Fragments,
        network::{CLIENT, CLIENT6, LINK, Network, SERVER},
    },
    flood::Wire,
    machine::{fewer, longer},
    netns::Netns,
    udp::Family,
};

use crate::harness::{ETHERTYPE, RECEIVE_PATH, Recording, Run, UDP4, UDP6, has_reasons, output};

const TCP4: &[(&str, &str)] = &[("tcp_v4_rcv", "NO_SOCKET")];

/// Datagrams of both families, connection attempts, and a flood of frames of another protocol.
struct Mix {
    udp4: Closed,
    udp6: Closed,
    tcp4: Closed,
    wire: Wire,
}

/// How many of each.
const SENT: (u64, u64, u64) = (100, 50, 20);

impl Mix {
    fn new() -> Self {
        let closed = |transport, family| Closed::new(transport, family).unwrap();
        Self {
            udp4: closed(Transport::Udp, Family::V4),
            udp6: closed(Transport::Udp, Family::V6),
            tcp4: closed(Transport::Tcp, Family::V4),
            wire: Wire::new().unwrap(),
        }
    }

    /// Where they die.
    fn netns(&self) -> [&Netns; 4] {
        [self.udp4.netns(), self.udp6.netns(), self.tcp4.netns(), self.wire.receiver()]
    }

    /// Sends all, the flood first and beside the rest; returns its frames.
    fn send(&self) -> u64 {
        let frames = fewer(200_000);
        std::thread::scope(|scope| {
            let flood = scope.spawn(|| self.wire.flood(frames, None).unwrap());
            assert_eq!(self.udp4.send(SENT.0).unwrap(), SENT.0);
            assert_eq!(self.udp6.send(SENT.1).unwrap(), SENT.1);
            assert_eq!(self.tcp4.send(SENT.2).unwrap(), SENT.2);
            let sent = flood.join().unwrap();
            assert_eq!((sent.accepted, sent.refused), (frames, 0));
        });
        frames
    }
}

/// Counted drops of the mix: datagrams by family, connection attempts, frames.
fn counted(recording: &Recording) -> [u64; 4] {
    [UDP4, UDP6, TCP4, RECEIVE_PATH].map(|places| recording.count(places))
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn every_filter_counts_its_packets_and_no_other() {
    let mix = Mix::new();
    let (udp4, udp6, tcp4) = SENT;
    let (all, server) = (mix.netns(), [mix.udp4.netns()]);
    let client6 = CLIENT6.to_string();
    // Datagrams, attempts and frames that each is to count.
    let expected = |frames| {
        [
            (&all[..], vec!["--proto", "udp"], [udp4, udp6, 0, 0]),
            (&all, vec!["--proto", "tcp", "--proto", ETHERTYPE], [0, 0, tcp4, frames]),
            (&all, vec!["--proto", "!0x88b5", "--proto", "!udp"], [0, 0, tcp4, 0]),
            (&all, vec!["--host", "198.18.0.0/15", "--port", "1-9"], [udp4, 0, tcp4, 0]),
            (&server, vec!["--iface", LINK], [udp4, 0, 0, 0]),
            (&[], vec!["--host", &client6, "--no-samples"], [0, udp6, 0, 0]),
        ]
    };
    let runs = expected(0).map(|(netns, args, _)| Run::within(netns, &args));
    let frames = mix.send();
    for (run, (_, args, expected)) in runs.into_iter().zip(expected(frames)) {
        let recording = run.stop();
        assert_eq!(counted(&recording), expected, "{args:?}: {recording:#?}");
        assert!(!recording.start.filters.is_empty());
    }
}

/// Filters on the rows leave out the others, and count all of their own.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn rows_are_chosen_by_function_and_reason() {
    let mix = Mix::new();
    let netns = mix.netns();
    let functions = ["--symbol", "tcp_*", "--symbol", "*udp6*", "--symbol", "udpv6*"];
    let symbols = Run::within(&netns, &functions);
    let reasons = has_reasons().then(|| Run::within(&netns, &["--reason", "no_socket"]));
    mix.send();
    let symbols = symbols.stop();
    assert_eq!(counted(&symbols), [0, SENT.1, SENT.2, 0], "{symbols:#?}");
    match reasons {
        Some(reasons) => {
            let reasons = reasons.stop();
            assert_eq!(counted(&reasons), [SENT.0, SENT.1, SENT.2, 0], "{reasons:#?}");
        }
        None => {
            let refused = output(&["--reason", "NO_SOCKET", "-d", "1s"]);
            assert_eq!(refused.status.code(), Some(4), "{refused:?}");
        }
    }
}

/// Only the first fragment of a datagram has ports.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn later_fragments_cannot_be_decided_by_port() {
    const DROPS: &[(&str, &str)] =
        &[("nft_do_chain", "NETFILTER_DROP"), ("nf_hook_slow", "NETFILTER_DROP")];
    let cause = Fragments::new().unwrap();
    let server = cause.netns().name();
    let port = PORT.to_string();
    let by_port = Run::start(&["--port", &port, "--netns", server]);
    let by_other_port = Run::start(&["--port", "10", "--netns", server]);
    // With the address, or other tenants' datagrams without a device would be undecided, too.
    let client = CLIENT.to_string();
    let by_protocol = Run::start(&["--proto", "udp", "--netns", server, "--host", &client]);
    let sent = cause.send(10 * Fragments::EACH).unwrap();
    let (by_port, by_other_port) = (by_port.stop(), by_other_port.stop());
    assert_eq!((by_port.count(DROPS), by_port.undecided()), (10, sent - 10), "{by_port:#?}");
    assert_eq!((by_other_port.count(DROPS), by_other_port.undecided()), (0, sent - 10));
    let by_protocol = by_protocol.stop();
    assert_eq!((by_protocol.count(DROPS), by_protocol.undecided()), (sent, 0));
}

/// What lies in the queue of a UDP socket has no device any more, nor does it say whose it is. So
/// these are kept apart from others of the host by their addresses and ports.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn packets_without_a_device_cannot_be_decided_by_place() {
    const N: u64 = 10;
    let network = Network::direct().unwrap();
    let address = (SERVER, PORT);
    let reader = network.server().enter(|| Ok(UdpSocket::bind(address)?)).unwrap();
    let sender = network.client().enter(|| Ok(UdpSocket::bind((CLIENT, SOURCE_PORT))?)).unwrap();
    for _ in 0..N {
        sender.send_to(b"unread", address).unwrap();
    }
    std::thread::sleep(longer(Duration::from_millis(100)));
    let (client, server) = (CLIENT.to_string(), network.server().name());
    let own = ["--proto", "udp", "--port", "9", "--host", &client];
    let by_place = Run::start(&[&own[..], &["--iface", LINK, "--netns", server]].concat());
    let by_port = Run::start(&own);
    let mut groups = Run::start(&[&own[..], &["--by", "netns,iface", "-i", "100ms"]].concat());
    drop(reader);
    // The socket goes, and its queue with it, after an RCU grace period (SOCK_RCU_FREE).
    let mut unknown = 0;
    while unknown < N {
        let line = groups.0.next_line(longer(Duration::from_secs(20))).unwrap().unwrap();
        let Line::Report(report) = decode(line).unwrap() else { panic!("{line}") };
        unknown += report.groups.expect("asked for").unknown;
    }
    let groups = groups.stop();
    let (by_place, by_port) = (by_place.stop(), by_port.stop());
    assert_eq!((by_place.end.drops, by_place.undecided()), (0, N), "{by_place:#?}");
    // What is counted was decided. Others cannot be (a message between local processes is no packet
    // of any protocol), so the sum of those says nothing here.
    assert_eq!(by_port.end.drops, N, "{by_port:#?}");
    assert_eq!((groups.end.drops, unknown), (N, N), "{groups:#?}");
}

/// What a row is about, as far as the test needs it.
fn place(row: &GroupRow) -> (String, String, String) {
    let netns = row.netns.as_ref().and_then(|netns| netns.name.clone());
    let interface = row.interface.as_ref().and_then(|interface| interface.name.clone());
    let protocol = row.protocol.as_deref().map(str::to_owned);
    (netns.unwrap_or_default(), interface.unwrap_or_default(), protocol.unwrap_or_default())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn groups_are_exact_and_add_up() {
    let mix = Mix::new();
    let places = Run::start(&["--by", "netns,iface,protocol", "-i", "500ms"]);
    let cpus = Run::start(&["--by", "cpu"]);
    let both = Run::within(&mix.netns(), &["--by", "protocol,cpu", "--proto", "udp"]);
    let frames = mix.send();

    let places = places.stop();
    let mut sums: BTreeMap<_, u64> = BTreeMap::new();
    for row in places.groups().flat_map(|groups| &groups.rows) {
        *sums.entry(place(row)).or_default() += row.count;
    }
    let at = |netns: &Netns, interface: &str, protocol: &str| {
        sums.get(&(netns.name().to_owned(), interface.to_owned(), protocol.to_owned())).copied()
    };
    assert_eq!(at(mix.udp4.netns(), LINK, "udp"), Some(SENT.0), "{sums:#?}");
    assert_eq!(at(mix.udp6.netns(), LINK, "udp"), Some(SENT.1), "{sums:#?}");
    assert_eq!(at(mix.tcp4.netns(), LINK, "tcp"), Some(SENT.2), "{sums:#?}");
    let receiver = mix.wire.receiver();
    assert_eq!(at(receiver, Wire::RECEIVER_LINK, ETHERTYPE), Some(frames), "{sums:#?}");

    let cpus = cpus.stop();
    for recording in [&places, &cpus] {
        let grouped: u64 = recording.groups().map(|groups| groups.drops).sum();
        assert_eq!(grouped, recording.end.drops);
    }
    assert!(cpus.groups().all(|groups| groups.unknown == 0 || skipped(&cpus)), "{cpus:#?}");
    let udp = both.stop();
    let rows: Vec<_> = udp.groups().flat_map(|groups| &groups.rows).collect();
    assert!(rows.iter().all(|row| row.protocol.as_deref() == Some("udp") && row.cpu.is_some()));
    assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), udp.end.drops);
    assert_eq!(udp.end.drops, SENT.0 + SENT.1);
}

/// Whether drops were lost that no CPU has counted.
fn skipped(recording: &Recording) -> bool {
    recording.lost().unknown_location() > 0
}

/// A namespace that is not there is a wrong command line, and said with those there are.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_namespace_that_is_not_there_is_named() {
    let netns = Netns::new("here").unwrap();
    let refused = output(&["--netns", "nowhere", "-d", "1s"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert!(stderr.contains("there is no network namespace nowhere"), "{stderr}");
    assert!(stderr.contains(netns.name()), "{stderr}");
}
