//! Filter expressions, on drops of which the number is known: with and without a link-layer header,
//! with tags, in fragments, too long to be read whole, and in code as long as can be.

use std::{net::UdpSocket, time::Duration};

use testbed::{
    drops::{
        Cause, SOURCE_PORT,
        closed::{Closed, Transport},
        filter::Fragments,
        ingress::Ingress,
        link_layer::Tagged,
        network::{CLIENT, Network, SERVER},
        other_station,
    },
    flood::Wire,
    machine::{fewer, longer},
    netns::Netns,
    udp::Family,
};

use crate::harness::{Run, output, text};

/// Counts what is dropped in the namespace and matches, and what cannot be decided.
struct Asked(&'static str, Run);

impl Asked {
    fn all(netns: &Netns, expressions: &[&'static str]) -> Vec<Self> {
        let start = |expression: &&'static str| {
            Self(expression, Run::within(&[netns], &["--no-samples", "--filter", expression]))
        };
        expressions.iter().map(start).collect()
    }

    /// Compares what each has counted, and could not decide.
    fn expect(all: Vec<Self>, expected: &[(u64, u64)]) {
        assert_eq!(all.len(), expected.len());
        for (Self(expression, run), expected) in all.into_iter().zip(expected) {
            let recording = run.stop();
            let counted = (recording.end.drops, recording.undecided());
            assert_eq!(counted, *expected, "{expression}: {recording:#?}");
            // An expression does not cost them their namespace.
            let namespaces = recording.locations().flat_map(|row| &row.namespaces);
            assert_eq!(
                namespaces.map(|netns| netns.count).sum::<u64>(),
                expected.0,
                "{expression}"
            );
            assert!(recording.start.filters.contains(&format!("--filter '{expression}'")));
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn datagrams_and_attempts_of_both_families() {
    for (transport, family, expressions) in [
        (
            Transport::Udp,
            Family::V4,
            [
                "udp dst port 9 and net 198.18.0.0/15",
                "ip and src port 40000 and ether src 02:00:00:00:00:02",
                "udp dst port 10 or ip6 or tcp",
            ],
        ),
        (
            Transport::Udp,
            Family::V6,
            [
                "ip6 and udp dst port 9",
                "dst port 9 and ip6 host 2001:2::2",
                "ip6 host 2001:2::3 or udp src port 9",
            ],
        ),
        (
            Transport::Tcp,
            Family::V4,
            [
                "tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn and dst port 9",
                "ip proto 6 and not udp",
                "tcp[tcpflags] & tcp-fin != 0",
            ],
        ),
    ] {
        let cause = Closed::new(transport, family).unwrap();
        let asked = Asked::all(cause.netns(), &expressions);
        let sent = cause.send(20).unwrap();
        Asked::expect(asked, &[(sent, 0), (sent, 0), (0, 0)]);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn frames_of_no_known_protocol_in_a_flood() {
    let wire = Wire::new().unwrap();
    let frames = fewer(200_000);
    let expressions = [
        "ether proto 0x88b5",
        "not ip and ether broadcast and len = 60",
        // Behind the end of the frame.
        "ether proto 0x88b5 and ether[60] >= 0",
    ];
    let asked = Asked::all(wire.receiver(), &expressions);
    let sent = wire.flood(frames, None).unwrap();
    assert_eq!((sent.accepted, sent.refused), (frames, 0));
    Asked::expect(asked, &[(frames, 0), (frames, 0), (0, 0)]);
}

/// The kernel has taken the tag off, and keeps it beside the packet.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_tag_is_where_it_was() {
    let cause = Ingress::of_vlan().unwrap();
    let expressions = [
        "vlan 7 and udp dst port 9",
        "vlan and len = 60 and ether[2:4] = 1",
        "udp dst port 9",
        "vlan 8 or vlan 6",
    ];
    let asked = Asked::all(cause.netns(), &expressions);
    let sent = cause.send(20).unwrap();
    Asked::expect(asked, &[(sent, 0), (sent, 0), (0, 0), (0, 0)]);
}

/// The kernel forgets the tag of a VLAN that no interface has, and calls the packet another station's.
/// What really is another station's had none.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_tag_that_the_kernel_has_forgotten_leaves_all_undecided() {
    let strange = Tagged::of_strange_vlan().unwrap();
    let asked = Asked::all(
        strange.netns(),
        &["udp dst port 9", "vlan 7", "ip and not udp and src net 198.18.0.0/15"],
    );
    let sent = strange.send(20).unwrap();
    Asked::expect(asked, &[(0, sent), (0, sent), (0, sent)]);

    let wire = Wire::new().unwrap();
    let asked = Asked::all(
        wire.receiver(),
        &["udp dst port 9", "vlan and udp", "ip and not udp and src net 198.18.0.0/15"],
    );
    let sent = other_station::flood(&wire, 1_000, None).unwrap();
    Asked::expect(asked, &[(sent.accepted, 0), (0, 0), (0, 0)]);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn later_fragments_have_no_ports() {
    let cause = Fragments::new().unwrap();
    let expressions = ["udp dst port 9", "ip[6:2] & 0x1fff != 0", "udp and ip[6:2] & 0x3fff != 0"];
    let asked = Asked::all(cause.netns(), &expressions);
    let sent = cause.send(10 * Fragments::EACH).unwrap();
    Asked::expect(asked, &[(10, 0), (sent - 10, 0), (sent, 0)]);
}

/// What lies beyond what can be read is undecided, what lies beyond the end of a packet is not there.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn long_packets_are_read_in_part() {
    const N: u64 = 10;
    let network = Network::direct().unwrap();
    let server = network.server();
    let expressions = [
        // Headers of 42 bytes, then 1,000.
        "udp dst port 9 and len = 1042",
        "udp dst port 9 and udp[200] = 0",
        "udp dst port 9 and udp[300] = 0",
        // Behind the shortest of headers alone there is room for it, so the verifier may know the place.
        "udp dst port 9 and udp[258:2] = 0",
        "udp dst port 9 and udp[260] = 0",
        "udp dst port 9 and ether[300] = 0",
        "udp dst port 9 and udp[1008] = 0",
        "udp dst port 9 and (udp[200] = 0 or udp[300] = 0)",
    ];
    let asked = Asked::all(server, &expressions);
    let sender = network.client().enter(|| Ok(UdpSocket::bind((CLIENT, SOURCE_PORT))?)).unwrap();
    for _ in 0..N {
        sender.send_to(&[0; 1_000], (SERVER, 9)).unwrap();
    }
    std::thread::sleep(longer(Duration::from_millis(200)));
    Asked::expect(asked, &[(N, 0), (N, 0), (0, N), (0, N), (0, N), (0, N), (0, 0), (N, 0)]);
}

/// What lies in the queue of a UDP socket has no device any more, so nobody knows what its link-layer
/// header is. It is kept apart from others of the host by its addresses and ports.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn packets_without_a_link_header_have_all_but_addresses() {
    const N: u64 = 10;
    const OWN: &str = "udp src port 40000 and dst port 9 and src host 198.18.1.2";
    let network = Network::direct().unwrap();
    let reader = network.server().enter(|| Ok(UdpSocket::bind((SERVER, 9))?)).unwrap();
    let sender = network.client().enter(|| Ok(UdpSocket::bind((CLIENT, SOURCE_PORT))?)).unwrap();
    for _ in 0..N {
        sender.send_to(b"unread", (SERVER, 9)).unwrap();
    }
    std::thread::sleep(longer(Duration::from_millis(100)));
    let ask = |more: &str| Run::start(&["--no-samples", &format!("{OWN}{more}")]);
    let [own, by_length, by_payload, by_station] =
        [" and ip", " and len = 48", " and udp[8:4] = 0x756e7265", " and ether host 2:0:0:0:0:2"]
            .map(ask);
    drop(reader);
    // The socket goes, and its queue with it, after an RCU grace period (SOCK_RCU_FREE).
    std::thread::sleep(longer(Duration::from_secs(2)));
    for run in [own, by_length, by_payload] {
        let recording = run.stop();
        assert_eq!(recording.end.drops, N, "{recording:#?}");
    }
    let by_station = by_station.stop();
    assert_eq!(by_station.end.drops, 0, "{by_station:#?}");
    // Others of which nothing can be read may be among them.
    assert!(by_station.undecided() >= N, "{by_station:#?}");
}

/// As many alternatives, each of them an expression of its own.
fn any_of(number: usize, of: impl Fn(usize) -> String) -> String {
    (0..number).map(of).collect::<Vec<_>>().join(" or ")
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_longest_expressions_are_taken_by_the_verifier() {
    let cause = Closed::new(Transport::Udp, Family::V4).unwrap();
    let hosts = |number| {
        let host = |n: usize| format!("dst host 10.0.{}.{}", n / 250, n % 250 + 1);
        format!("ip and ({} or dst host {SERVER})", any_of(number, host))
    };
    let long = [
        hosts(630),
        // Loads from wherever the last one said. What asks for more than a packet has refuses it, so what
        // is to match stands first.
        format!("udp dst port 9 or {}", any_of(175, |n| format!("ip[ip[{n}] & 0x1f] = 257"))),
        format!("udp dst port 9 or {}", any_of(270, |n| format!("tcp[{n}:2] * {n} > 70000000"))),
    ];
    let runs = long.map(|expression| {
        Run::within(&[cause.netns()], &["--no-samples", "--filter", &expression])
    });
    let sent = cause.send(20).unwrap();
    for run in runs {
        let recording = run.stop();
        assert_eq!((recording.end.drops, recording.undecided()), (sent, 0), "{recording:#?}");
    }
    let refused = output(&["-d", "1s", &hosts(700)]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let stderr = text(&refused.stderr);
    assert!(stderr.contains("more than 1024 instructions"), "{stderr}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_tcpdump_refuses_is_said_in_its_words() {
    for (args, why) in [
        (&["tcp", "and", "and"][..], "tcpdump: "),
        (&["--filter", "tcp and and"], "tcpdump: "),
        (&["tpo"], "which is no command: tcpdump: "),
        (&["run", "--filter", "tpo", "--", "true"], "tcpdump: "),
        (&["--filter", ""], "it is empty"),
        (&["--filter", "ip6 protochain 6"], "protochain"),
        (&["--filter", "tcp", "udp"], "join them by `and` or `or`"),
    ] {
        let refused = output(&[args, &[]].concat());
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        let stderr = text(&refused.stderr);
        assert!(stderr.contains(why) && stderr.lines().count() == 1, "{args:?}: {stderr}");
    }
}
