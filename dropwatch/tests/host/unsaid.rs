//! What reports and `dropwatch explain` say of drops whose reason says little, on real ones.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use dropwatch::{
    diagnose::knowledge::{self, CORE, DropEntry, NOT_SPECIFIED},
    report::model::Location,
};
use testbed::{
    command::output,
    link::{stats, veth},
    machine::longer,
    netns::Netns,
    tracepoint::Tracepoint,
    unproved::unproved,
};

use crate::harness::{Recording, Run, function, has_reasons};

const SENT: u64 = 40;
/// A station that is nowhere.
const NOBODY: &str = "02:00:00:00:77:77";

/// What is known of a row.
fn entry(row: &Location) -> &'static DropEntry {
    let reason = row.place.reason.as_deref().unwrap_or(NOT_SPECIFIED);
    let known = knowledge::table().unwrap();
    known.lookup(Some(function(row)), CORE, reason).expect("every reason is known")
}

/// Drops of rows that one of `titles` is about.
fn known_as(recording: &Recording, titles: &[&str]) -> u64 {
    let rows = recording.locations().filter(|row| titles.contains(&entry(row).title.as_str()));
    rows.map(|row| row.count).sum()
}

/// A bridge with two stations behind it; none of them has IPv6, or has anything to say by itself.
struct Bridged {
    bridge: Netns,
    stations: [Netns; 2],
}

impl Bridged {
    fn new(label: &str) -> Self {
        let bridge = Netns::new(label).unwrap();
        bridge.ip("link add br0 type bridge forward_delay 0 mcast_snooping 0").unwrap();
        let stations = [1, 2].map(|n| {
            let station = Netns::new(&format!("{label}{n}")).unwrap();
            veth(&bridge, &format!("p{n}"), &station, "eth0").unwrap();
            silence(&station);
            bridge.ip(&format!("link set p{n} master br0 up")).unwrap();
            station.ip("link set eth0 up").unwrap();
            station.ip(&format!("addr add 198.18.7.{n}/24 dev eth0")).unwrap();
            station
        });
        silence(&bridge);
        bridge.ip("link set br0 up").unwrap();
        Self { bridge, stations }
    }

    /// Sends datagrams of `bytes` from the first station to `mac`, under an address that nobody has.
    fn send_to(&self, mac: &str, bytes: usize) {
        let station = &self.stations[0];
        station
            .ip(&format!("neigh replace 198.18.7.9 lladdr {mac} dev eth0 nud permanent"))
            .unwrap();
        station
            .enter(|| {
                let socket = UdpSocket::bind("198.18.7.1:0")?;
                for _ in 0..SENT {
                    socket.send_to(&vec![0; bytes], "198.18.7.9:9")?;
                }
                Ok(())
            })
            .unwrap();
        thread::sleep(longer(Duration::from_millis(300)));
    }
}

fn silence(netns: &Netns) {
    // A kernel without IPv6 has nothing to switch off.
    let _absent = netns.sysctl("net.ipv6.conf.all.disable_ipv6", "1");
    let _absent = netns.sysctl("net.ipv6.conf.default.disable_ipv6", "1");
}

/// A frame whose address a bridge has not learnt goes to every port. The interface that it comes to is
/// not promiscuous for that, and nothing is found to be wrong.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_flooded_frame_needs_no_promiscuous_mode() {
    let bridged = Bridged::new("flooded");
    let other = &bridged.stations[1];
    let link = other.ip("-d link show dev eth0").unwrap();
    assert!(link.contains("promiscuity 0"), "{link}");
    let run = Run::within(&[other], &["-i", "200ms"]);
    bridged.send_to(NOBODY, 20);
    let recording = run.stop();
    let titles =
        ["another station's frame, or a missing VLAN", "IPv4 refused the packet as it came in"];
    assert_eq!(known_as(&recording, &titles), SENT, "{recording:#?}");
    assert!(recording.reports.iter().all(|report| report.findings.is_empty()), "{recording:#?}");
    let meaning = &recording.locations().map(entry).next().unwrap().meaning;
    assert!(!has_reasons() || meaning.contains("floods a frame whose address"), "{meaning}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_bridge_does_not_send_back_where_it_came_in() {
    let bridged = Bridged::new("hairpin");
    // A frame that was flooded once shows that the port forwards.
    bridged.send_to(NOBODY, 20);
    output(
        bridged
            .bridge
            .command("bridge")
            .args(["fdb", "replace", NOBODY, "dev", "p1", "master", "static"]),
    )
    .unwrap();
    let run = Run::within(&[&bridged.bridge], &["-i", "200ms"]);
    bridged.send_to(NOBODY, 20);
    let recording = run.stop();
    let title = "the bridge has no port that takes it";
    assert_eq!(known_as(&recording, &[title]), SENT, "{recording:#?}");
    let entry = recording.locations().map(entry).find(|entry| entry.title == title).unwrap();
    let [change] = entry.knobs.as_slice() else { panic!("one command: {entry:#?}") };
    let knowledge::KnobAction::Run(command) = &change.action else { panic!("{change:#?}") };
    output(bridged.bridge.command("sh").args(["-c", &command.replace("DEV", "p1")])).unwrap();
    let run = Run::within(&[&bridged.bridge], &["-i", "200ms"]);
    bridged.send_to(NOBODY, 20);
    assert_eq!(known_as(&run.stop(), &[title]), 0, "gone after `{command}`");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_bridge_port_with_a_smaller_mtu() {
    let bridged = Bridged::new("portmtu");
    bridged.send_to(NOBODY, 20);
    bridged.bridge.ip("link set dev p2 mtu 1000").unwrap();
    let run = Run::within(&[&bridged.bridge], &["-i", "200ms"]);
    bridged.send_to(NOBODY, 1400);
    let recording = run.stop();
    // With br_netfilter, the IP firewall is what sends it on.
    let titles = [
        "too large for the port, or the port is down",
        "bridged IP that is too large for the port",
    ];
    assert_eq!(known_as(&recording, &titles), SENT, "{recording:#?}");
}

/// The receiving end of a veth counts what is too large for it.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_other_end_with_a_smaller_mtu() {
    let [from, to] = ["mtu-from", "mtu-to"].map(|label| Netns::new(label).unwrap());
    veth(&from, "eth0", &to, "eth0").unwrap();
    for (netns, address) in [(&from, "198.18.7.1/24"), (&to, "198.18.7.2/24")] {
        silence(netns);
        netns.ip("link set eth0 up").unwrap();
        netns.ip(&format!("addr add {address} dev eth0")).unwrap();
    }
    to.ip("link set dev eth0 mtu 1000").unwrap();
    from.ip(&format!("neigh replace 198.18.7.9 lladdr {NOBODY} dev eth0 nud permanent")).unwrap();
    let before = stats(&to, "eth0").unwrap().rx_dropped;
    let run = Run::within(&[&from, &to], &["-i", "200ms"]);
    from.enter(|| {
        let socket = UdpSocket::bind("198.18.7.1:0")?;
        for _ in 0..SENT {
            socket.send_to(&[0; 1400], "198.18.7.9:9")?;
        }
        Ok(())
    })
    .unwrap();
    thread::sleep(longer(Duration::from_millis(300)));
    let recording = run.stop();
    let dropped = stats(&to, "eth0").unwrap().rx_dropped - before;
    assert_eq!(dropped, SENT, "the other end's own count");
    let title = "too large for the other end, or that is down";
    assert_eq!(known_as(&recording, &[title]), dropped, "{recording:#?}");
}

/// A connection whose receiver does not read, and the drops that its socket counts.
struct Stalled {
    receiver: Netns,
    _sender: Netns,
    _ends: (TcpStream, TcpStream),
}

impl Stalled {
    /// Fills the receive buffer, until the window is closed and has been probed some times.
    fn new(run: impl FnOnce(&Netns) -> Run) -> (Self, Run) {
        let [sender, receiver] = ["stall-from", "stall-to"].map(|label| Netns::new(label).unwrap());
        veth(&sender, "eth0", &receiver, "eth0").unwrap();
        for (netns, address) in [(&sender, "198.18.7.1/24"), (&receiver, "198.18.7.2/24")] {
            silence(netns);
            netns.ip("link set eth0 up").unwrap();
            netns.ip(&format!("addr add {address} dev eth0")).unwrap();
        }
        let address: SocketAddr = "198.18.7.2:7700".parse().unwrap();
        let listener = receiver.enter(|| Ok(TcpListener::bind(address)?)).unwrap();
        let run = run(&receiver);
        let mut client = sender.enter(|| Ok(TcpStream::connect(address)?)).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.set_nonblocking(true).unwrap();
        let end = Instant::now() + longer(Duration::from_secs(4));
        while Instant::now() < end {
            if client.write_all(&[0; 65_536]).is_err() {
                thread::sleep(Duration::from_millis(20));
            }
        }
        // No other probe comes between the last report and what the socket says.
        sender.ip("link set eth0 down").unwrap();
        (Self { receiver, _sender: sender, _ends: (client, server) }, run)
    }

    /// What the socket itself has counted: `d<N>` of its memory.
    fn dropped(&self) -> u64 {
        let mut command: Command = self.receiver.command("ss");
        let text = output(command.args(["-tmnH", "state", "established"])).unwrap();
        let memory = text.split("skmem:(").nth(1).expect("memory of the socket");
        let drops = memory.split(['(', ')', ',']).find_map(|field| field.strip_prefix('d'));
        drops.expect("d<N>").parse().unwrap()
    }
}

/// Window probes are no loss: each row says that a program does not read, and no finding calls a queue or
/// a buffer too small.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn window_probes_are_no_loss_of_a_queue() {
    if !has_reasons() {
        return unproved("TCP's drops are no events on this kernel");
    }
    let (stalled, run) = Stalled::new(|netns| Run::within(&[netns], &["-i", "200ms"]));
    let recording = run.stop();
    let dropped = stalled.dropped();
    assert!(dropped > 0, "the window was probed");
    // TCP has taken device and route off a segment before it refuses it (`tcp_data_queue`,
    // net/ipv4/tcp_input.c): then the socket alone tells its namespace, which older tracepoints lack.
    if !Tracepoint::read().unwrap().has_receiver() {
        assert_eq!(recording.end.drops + recording.end.filter_undecided.unwrap(), dropped);
        return unproved("the tracepoint has no socket (Linux 6.11): TCP's namespace is undecided");
    }
    let titles = [
        "a probe, or a segment that came twice",
        "data that had already arrived",
        "data beyond the window",
        "a program here does not read: window closed",
    ];
    assert_eq!(known_as(&recording, &titles), dropped, "{recording:#?}");
    for row in recording.locations() {
        assert!(entry(row).meaning.contains("program here does not read"), "{row:#?}");
        assert!(!row.benign, "a program that does not read is nothing to fold away");
    }
    let mut findings = recording.reports.iter().flat_map(|report| &report.findings);
    assert!(findings.all(|it| it.rule == "unread_connection"), "{recording:#?}");
}
