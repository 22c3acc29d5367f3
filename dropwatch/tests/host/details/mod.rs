//! Whose packets, and on which path: for each cause of drops that [`testbed::drops`] can make, the
//! count is exact and the details name the namespace, the interface, the flow and a caller.
//!
//! Function names differ between kernels with what the compiler inlined, so a place and a caller
//! are each one of a few. A reason is asserted where the kernel has reasons at all; where one was
//! introduced later than others, what came before it is accepted as well.

mod filters;
mod links;
mod routes;
mod sockets;

use std::{net::IpAddr, os::unix::fs::MetadataExt, path::Path};

use dropwatch::report::{
    facts::{Callers, Details, Direction, Fact, Field, Interface, Netns, Pattern},
    flow::Flow,
};
use testbed::{
    drops::{
        Cause, PORT, SOURCE_PORT,
        network::{CLIENT, LINK, SERVER},
    },
    netns,
};

use crate::harness::{Recording, Run, is_at};

/// Packets of one cause: more than are sampled whole.
const N: u64 = 100;

/// What a report has to tell of some drops.
struct Expected<'a> {
    interface: &'a str,
    outgoing: bool,
    protocol: &'static str,
    /// No port: it varies from packet to packet.
    from: (IpAddr, Option<u16>),
    to: (IpAddr, u16),
    /// Packets that have come to the link of their VLAN have no tag any more.
    vlan: Option<u16>,
    kind: Option<&'static str>,
    /// One of these is among the callers.
    path: &'a [&'a str],
}

impl Expected<'_> {
    /// Datagrams from the client to the server, as most causes send them, that came in.
    fn datagrams() -> Self {
        Self {
            interface: LINK,
            outgoing: false,
            protocol: "udp",
            from: (CLIENT.into(), Some(SOURCE_PORT)),
            to: (SERVER.into(), PORT),
            vlan: None,
            kind: None,
            path: &[],
        }
    }
}

/// What dropwatch reports of the cause's namespace while that drops [`N`] packets.
fn recording(cause: &impl Cause) -> Recording {
    let run = Run::within(&[cause.netns()], &[]);
    assert_eq!(cause.send(N).unwrap(), N);
    run.stop()
}

/// All [`N`] packets were dropped at one of `places`, and are reported as expected.
fn expect(cause: &impl Cause, places: &[(&str, &str)], expected: &Expected<'_>) -> Recording {
    let recording = recording(cause);
    expect_part(&recording, N, cause, places, expected);
    recording
}

/// `count` packets were dropped at one of `places`, and are reported as expected.
fn expect_part(
    recording: &Recording,
    count: u64,
    cause: &impl Cause,
    places: &[(&str, &str)],
    expected: &Expected<'_>,
) {
    assert_eq!(recording.count(places), count, "{recording:#?}");
    for details in details(recording, places) {
        expect_details(details, cause.netns(), expected);
    }
}

/// The details of every row at one of `places`, which all have some.
fn details<'a>(
    recording: &'a Recording,
    places: &[(&str, &str)],
) -> impl Iterator<Item = &'a Details> {
    recording.locations().filter(|location| is_at(location, places)).map(|location| {
        let details = location.details.as_ref().expect("a few drops are always sampled");
        // A sample stands for itself and those before it, never for more than there were.
        assert!((1..=location.count).contains(&details.weight), "{location:#?}");
        assert!((1..=details.weight).contains(&details.samples), "{location:#?}");
        details
    })
}

fn expect_details(details: &Details, netns: &netns::Netns, expected: &Expected<'_>) {
    let share = 1.0;
    let inum = Path::new("/run/netns").join(netns.name()).metadata().unwrap().ino();
    let is = Netns::new(Some(netns.name().to_owned()), inum.try_into().unwrap());
    assert_eq!(details.netns, Some(Fact { is, share }));
    let index = index(netns, expected.interface);
    let is = Interface { name: Some(expected.interface.to_owned()), index };
    assert_eq!(details.interface, Some(Fact { is, share }));
    let is = Direction { outgoing: expected.outgoing };
    assert_eq!(details.direction, Some(Fact { is, share }));
    let protocol = details.protocol.as_ref().expect("a known protocol");
    assert_eq!((protocol.is.name.as_str(), protocol.share), (expected.protocol, share));

    let Expected { from, to, vlan, kind, .. } = *expected;
    let found = details.flow.as_ref().expect("a flow");
    let flow = Flow {
        protocol: Some(expected.protocol.into()),
        vlan,
        src: Some(from.0),
        src_port: from.1,
        dst: Some(to.0),
        dst_port: Some(to.1),
        kind: kind.map(Into::into),
        fragment: false,
    };
    let varies = if from.1.is_none() { vec![Field::SrcPort] } else { Vec::new() };
    assert_eq!(*found, Pattern { flow, varies, share });

    let path = details.path.as_ref().expect("a call path");
    assert!(leads_through(&path.is, expected.path), "{path:?}, not {:?}", expected.path);
}

/// Whether one of `functions` is among the callers. Compilers mark their clones with a suffix.
fn leads_through(Callers { callers }: &Callers, functions: &[&str]) -> bool {
    let mut names = callers.iter().flatten().filter_map(|name| name.split('.').next());
    names.any(|name| functions.contains(&name))
}

fn index(netns: &netns::Netns, link: &str) -> u32 {
    let shown = netns.ip(&format!("-o link show dev {link}")).unwrap();
    shown.split(':').next().unwrap().parse().unwrap()
}
