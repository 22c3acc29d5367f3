//! Drops that lose nothing: what the kernel frees by the call for drops, and is folded.

use std::{
    io::Write,
    net::{IpAddr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::AsRawFd,
        unix::net::{UnixDatagram, UnixStream},
    },
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
        self.send_all(&[group]);
    }

    /// Sends to everybody behind each of the addresses.
    fn send_all(&self, to: &[&str]) {
        let send = || {
            for to in to {
                let any = if to.contains(':') { "[::]:0" } else { "198.18.7.1:0" };
                let socket = UdpSocket::bind(any)?;
                socket.set_broadcast(true)?;
                let to: IpAddr = to.parse().unwrap();
                let to = match to {
                    IpAddr::V4(to) => SocketAddr::from((to, 5353)),
                    IpAddr::V6(to) => {
                        let index = nix::net::if_::if_nametoindex("wire")?;
                        SocketAddrV6::new(to, 5353, 0, index).into()
                    }
                };
                socket.send_to(b"who is there?", to)?;
            }
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
fn multicast_of_any_scope_that_nobody_joined_is_harmless_and_a_members_is_not() {
    if !has_reasons() {
        return unproved("without reasons, what is freed there could be anything");
    }
    let link = Link::new();
    link.join();
    let run = link.start();
    link.send_all(&["224.0.0.251", "239.1.2.3", "239.1.2.3", "ff0e::1:2:3"]);
    let recording = run.stop();
    for (at, least) in [("ip_rcv_finish_core", 3), ("ip6_mc_input", 1)] {
        let freed: Vec<_> = rows(&recording).filter(|row| function(row) == at).collect();
        assert!(freed.iter().all(|row| row.benign), "{at} counted as harm: {freed:#?}");
        assert!(freed.iter().map(|row| row.count).sum::<u64>() >= least, "{at}: {recording:#?}");
    }
    // Of its own group, a member misses what has no reader at that port.
    let [_, right] = &link.0;
    let joined = right.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.join_multicast_v4(&[239, 1, 2, 3].into(), &[198, 18, 7, 2].into())?;
        Ok(socket)
    });
    let run = Run::within(&[right], &["-i", "1h", "--proto", "udp"]);
    link.send_all(&["239.1.2.3"; 5]);
    let recording = run.stop();
    drop(joined);
    let harm = rows(&recording).filter(|row| !row.benign);
    assert_eq!(harm.map(|row| row.count).sum::<u64>(), 5, "{recording:#?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_a_host_tells_all_others_is_harmless_where_it_comes_back_to_itself() {
    let link = Link::new();
    link.join();
    let [left, right] = &link.0;
    let runs = [left, right].map(|at| Run::within(&[at], &["-i", "1h", "--proto", "udp"]));
    let to_all = ["255.255.255.255", "198.18.7.255", "224.0.0.1", "ff02::1"];
    for _ in 0..3 {
        link.send_all(&to_all);
    }
    let [own, others] = runs.map(Run::stop);
    let count = |recording: &Recording, benign: bool| {
        rows(recording).filter(|row| row.benign == benign).map(|row| row.count).sum::<u64>()
    };
    assert_eq!((count(&own, true), count(&own, false)), (12, 0), "its own copies: {own:#?}");
    // Whoever should have read it there is not known.
    assert_eq!((count(&others, true), count(&others, false)), (0, 12), "{others:#?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn parts_of_a_datagram_that_is_never_sent_off_are_harmless() {
    use nix::sys::socket::{MsgFlags, send};
    let netns = Netns::new("parts").unwrap();
    netns.ip("link set lo up").unwrap();
    let run = Run::within(&[&netns], &["-i", "1h"]);
    let gather = || {
        for address in ["127.0.0.1:9", "[::1]:9"] {
            let any = if address.starts_with('[') { "[::1]:0" } else { "127.0.0.1:0" };
            for _ in 0..UNREAD {
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                send(socket.as_raw_fd(), b"not yet", MsgFlags::from_bits_retain(libc::MSG_MORE))?;
            }
        }
        Ok(())
    };
    netns.enter(gather).unwrap();
    let recording = run.stop();
    let harm: Vec<_> = rows(&recording).filter(|row| !row.benign).collect();
    assert!(harm.is_empty(), "counted as harm: {harm:#?}");
    let parts = rows(&recording).filter(|row| function(row).contains("flush_pending_frames"));
    assert_eq!(parts.map(|row| row.count).sum::<u64>(), 2 * UNREAD, "{recording:#?}");
}

/// A capture that nobody reads and whose buffer is full.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn copies_for_a_capture_that_cannot_keep_up_are_harmless() {
    use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket};
    let netns = Netns::new("capture").unwrap();
    netns.ip("link set lo up").unwrap();
    let run = Run::within(&[&netns], &["-i", "1h"]);
    let overflow = || {
        let all = SockProtocol::EthAll;
        let kind = SockType::Raw;
        let capture = socket(AddressFamily::Packet, kind, SockFlag::empty(), all)?;
        setsockopt(&capture, nix::sys::socket::sockopt::RcvBuf, &1)?;
        let reader = UdpSocket::bind("127.0.0.1:0")?;
        let sender = UdpSocket::bind("127.0.0.1:0")?;
        for _ in 0..UNREAD {
            sender.send_to(&[0; 900], reader.local_addr()?)?;
            reader.recv(&mut [0; 1000])?;
        }
        Ok(())
    };
    netns.enter(overflow).unwrap();
    let recording = run.stop();
    let harm: Vec<_> = rows(&recording).filter(|row| !row.benign).collect();
    assert!(harm.is_empty(), "counted as harm: {harm:#?}");
    let copies = rows(&recording).filter(|row| function(row) == "packet_rcv");
    // All but the few that its buffer holds.
    assert!(copies.map(|row| row.count).sum::<u64>() > UNREAD - 8, "{recording:#?}");
}
