//! Drops that lose nothing: what the kernel frees by the call for drops, and is folded.

use std::{
    io::Write,
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::net::{UnixDatagram, UnixStream},
    thread,
    time::Duration,
};

use dropwatch::report::model::Location;
use testbed::{link::veth, machine::longer, netns::Netns, unproved::unproved};

use crate::harness::{Recording, Run, function, has_reasons};

/// Messages that nobody reads, in each socket: less than any receive buffer holds, and more than
/// Unix sockets of the host's own programs leave behind.
const UNREAD: u64 = 120;
/// Where a UDP socket ends; which one is a matter of inlining.
const UDP: [&str; 3] = ["udp_destruct_common", "udp_destruct_sock", "udpv6_destruct_sock"];
/// Parts of the names of functions that end sockets and queues, on any kernel.
const ENDS: [&str; 6] =
    ["destruct", "purge", "release_sock", "kill_queues", "disconnect", "unix_gc"];

fn rows(recording: &Recording) -> impl Iterator<Item = &Location> {
    recording.reports.iter().flat_map(|report| &report.locations)
}

fn leave_unread(receiver: &UdpSocket) {
    let address = receiver.local_addr().unwrap();
    let sender = UdpSocket::bind((address.ip(), 0)).unwrap();
    for _ in 0..UNREAD {
        sender.send_to(b"unread", address).unwrap();
    }
}

fn close_unix() {
    let (mut one, other) = UnixStream::pair().unwrap();
    let (datagrams, unread) = UnixDatagram::pair().unwrap();
    one.set_nonblocking(true).unwrap();
    datagrams.set_nonblocking(true).unwrap();
    for _ in 0..UNREAD {
        // A datagram socket takes as many as `max_dgram_qlen`; then it is full enough.
        let _full = datagrams.send(b"unread");
        one.write_all(b"unread").unwrap();
    }
    drop((other, unread));
}

/// Calls that fail and say so.
fn fail_unix() {
    let nowhere = "/nowhere/dropwatch-looks-for-this";
    let socket = UnixDatagram::unbound().unwrap();
    let (mut one, other) = UnixStream::pair().unwrap();
    drop(other);
    for _ in 0..UNREAD {
        assert!(UnixStream::connect(nowhere).is_err());
        assert!(socket.send_to(b"nobody", nowhere).is_err());
        assert!(one.write_all(b"nobody").is_err());
    }
}

/// A connection that nobody accepts, with data in it.
fn close_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_nodelay(true).unwrap();
    for _ in 0..UNREAD {
        client.write_all(b"unread").unwrap();
    }
    drop(listener);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn sockets_closed_with_unread_data_and_calls_that_fail_are_harmless() {
    let receivers = ["127.0.0.1:0", "[::1]:0"].map(|address| UdpSocket::bind(address).unwrap());
    let ports = receivers.each_ref().map(|it| it.local_addr().unwrap().port().to_string());
    // Others close sockets, too: theirs have other ports.
    let [one, other] = &ports;
    let own = Run::start(&["-i", "200ms", "--proto", "udp", "--port", one, "--port", other]);
    let run = Run::start(&["-i", "200ms"]);
    receivers.iter().for_each(leave_unread);
    drop(receivers);
    // A socket may end a grace period after its last user, and all that it held is then freed at once:
    // amid another drop of this CPU, its kernel would skip the program for all of it.
    let grace_period = longer(Duration::from_millis(500));
    thread::sleep(grace_period);
    close_unix();
    fail_unix();
    close_listener();
    thread::sleep(grace_period);
    let (own, recording) = (own.stop(), run.stop());

    let udp = rows(&own).filter(|row| row.benign && UDP.contains(&function(row)));
    assert_eq!(udp.map(|row| row.count).sum::<u64>(), 2 * UNREAD, "both UDP sockets: {own:#?}");
    let unix = rows(&recording).filter(|row| row.benign && function(row).starts_with("unix_"));
    assert!(unix.map(|row| row.count).sum::<u64>() >= UNREAD, "the Unix sockets");
    let ends = |row: &&Location| {
        function(row).starts_with("unix_") || ENDS.iter().any(|part| function(row).contains(part))
    };
    let harm: Vec<_> = rows(&recording).filter(ends).filter(|row| !row.benign).collect();
    assert!(harm.is_empty(), "counted as harm: {harm:#?}");
}

/// Refused look-ups of routes, as dropwatch itself makes them to find a cause.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn requests_over_netlink_that_fail_are_harmless() {
    const ASKED: usize = 20;
    let nowhere = Netns::new("nowhere").unwrap();
    nowhere.ip("link set lo up").unwrap();
    let run = Run::start(&["-i", "200ms", "--symbol", "inet_rtm_getroute"]);
    for _ in 0..ASKED {
        assert!(nowhere.ip("route get 203.0.113.9").is_err(), "there is no route");
    }
    let recording = run.stop();
    let freed: Vec<_> =
        rows(&recording).filter(|row| function(row) == "inet_rtm_getroute").collect();
    assert!(freed.iter().map(|row| row.count).sum::<u64>() >= ASKED as u64, "{recording:#?}");
    assert!(freed.iter().all(|row| row.benign), "counted as harm: {freed:#?}");
}

/// Two stations of one link, in namespaces of their own, with IPv6.
struct Link([Netns; 2]);

impl Link {
    fn new() -> Self {
        let stations = ["left", "right"].map(|label| Netns::new(label).unwrap());
        for station in &stations {
            station.sysctl("net/ipv6/conf/default/disable_ipv6", "0").unwrap();
        }
        Self(stations)
    }

    /// Joins them, whereupon each tells the other of its groups and of its addresses.
    fn join(&self) {
        let [left, right] = &self.0;
        veth(left, "wire", right, "wire").unwrap();
        for (station, address) in [(left, "198.18.7.1/24"), (right, "198.18.7.2/24")] {
            station.ip(&format!("address add {address} dev wire")).unwrap();
            station.ip("link set wire up").unwrap();
        }
        left.ip("route add 224.0.0.0/4 dev wire").unwrap();
        thread::sleep(longer(Duration::from_secs(3)));
    }

    /// Sends to a group that nobody has joined.
    fn send(&self, group: &str) {
        let send = || {
            let socket = UdpSocket::bind("198.18.7.1:0")?;
            socket.send_to(b"who is there?", (group, 5353))?;
            Ok(())
        };
        self.0[0].enter(send).unwrap();
    }

    fn start(&self) -> Run {
        let [left, right] = &self.0;
        Run::within(&[left, right], &["-i", "1h"])
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_stations_of_a_link_tell_all_others_is_harmless() {
    if !has_reasons() {
        return unproved("without reasons, what is freed there could be anything");
    }
    let link = Link::new();
    let run = link.start();
    link.join();
    link.send("224.0.0.251");
    let recording = run.stop();
    let harm: Vec<_> = rows(&recording).filter(|row| !row.benign).collect();
    assert!(harm.is_empty(), "counted as harm: {harm:#?}");
    let freed = |at: &str| rows(&recording).any(|row| row.benign && function(row) == at);
    assert!(freed("ip6_mc_input") && freed("ip_rcv_finish_core"), "{recording:#?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn multicast_from_beyond_the_link_is_none_of_it() {
    let link = Link::new();
    link.join();
    let run = link.start();
    link.send("224.0.0.251");
    link.send("239.1.2.3");
    let recording = run.stop();
    let row = rows(&recording).find(|row| function(row) == "ip_rcv_finish_core");
    let row = row.unwrap_or_else(|| panic!("not freed: {recording:#?}"));
    assert!(!row.benign && row.count >= 2, "{row:#?}");
}
