//! `dropwatch conntrack`, against what `conntrack` lists and counts.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use serde_json::Value;
use testbed::{
    command, conntrack, conntrack::Connection, counters, host_value::HostValue, link, machine,
    netns::Netns, watch::Watch,
};

use crate::{
    harness::{dropwatch, output},
    privileges::Copy,
};

const LIMIT: &str = "net/netfilter/nf_conntrack_max";

/// A namespace on a host that tracks connections: where that is a module, asking loads it.
fn tracked(label: &str) -> Netns {
    let netns = Netns::new(label).unwrap();
    assert_eq!(conntrack::list(&netns).unwrap(), []);
    netns
}

/// The only line that `dropwatch conntrack` prints of `netns`.
fn shown(netns: &Netns) -> Value {
    let output = output(&["conntrack", "--json", "-n", "0", "--netns", netns.name()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*stderr), (Some(0), ""));
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["netns"]["name"], netns.name());
    line
}

type Sums = BTreeMap<String, u64>;

fn sums(keys: impl Iterator<Item = String>) -> Sums {
    keys.fold(Sums::new(), |mut sums, key| {
        *sums.entry(key).or_default() += 1;
        sums
    })
}

/// Rows of JSON as sums by what `key` makes of each.
fn rows(rows: &Value, key: impl Fn(&Value) -> String) -> Sums {
    let rows = rows.as_array().unwrap();
    rows.iter().map(|row| (key(row), row["count"].as_u64().unwrap())).collect()
}

fn service(row: &Value) -> String {
    let text = |field: &str| row[field].as_str().unwrap().to_owned();
    format!("{} {} {:?}", text("protocol"), text("address"), row["port"].as_u64())
}

/// The three statistics of the story, and the others, equal those of the listing.
fn expect_the_listing(line: &Value, listed: &[Connection]) {
    let table = &line["table"];
    assert_eq!(table["entries"], listed.len(), "{line}");
    assert_eq!(table["unread"], 0);
    let state = |row: &Value| {
        format!("{} {}", row["protocol"].as_str().unwrap(), row["state"].as_str().unwrap())
    };
    let of_listing = |key: fn(&Connection) -> String| sums(listed.iter().map(key));
    assert_eq!(
        rows(&table["states"], state),
        of_listing(|connection| format!("{} {}", connection.protocol, connection.state))
    );
    assert_eq!(
        rows(&table["sources"]["rows"], |row| row["address"].as_str().unwrap().to_owned()),
        of_listing(|connection| connection.source.clone())
    );
    let endpoint = |connection: &Connection, (address, port): &(String, Option<u16>)| {
        format!("{} {address} {:?}", connection.protocol, port.map(u64::from))
    };
    assert_eq!(
        rows(&table["destinations"]["rows"], service),
        sums(listed.iter().map(|connection| endpoint(connection, &connection.destination)))
    );
    let translated = || listed.iter().filter(|entry| entry.replier != entry.destination);
    assert_eq!(table["dnat_entries"], translated().count());
    assert_eq!(
        rows(&table["dnat_targets"]["rows"], service),
        sums(translated().map(|connection| endpoint(connection, &connection.replier)))
    );
}

/// Every counter equals that of `conntrack -S`.
fn expect_the_counters(line: &Value, netns: &Netns) {
    let shown = line["counters"].as_object().unwrap();
    assert_eq!(shown.len(), 10);
    for (name, value) in shown {
        // A counter that this kernel lacks is null, and `conntrack` has none or shows zero.
        let counted = counters::conntrack(netns, name).unwrap_or(0);
        assert_eq!(value.as_u64().unwrap_or(0), counted, "{name}");
    }
}

/// Connections of every kind: both families, with states and without, translated and not.
fn entries() -> Vec<String> {
    let mut entries = Vec::new();
    let mut tcp = |n: u16, state: &str, client: &str, from: u16, translated: bool| {
        for port in from..from + n {
            let (server, to) = if translated { ("198.18.2.2", 80) } else { ("198.18.1.1", 8080) };
            entries.push(format!(
                "-p tcp -s {client} -d 198.18.1.1 --sport {port} --dport 8080 -r {server} \
                 -q {client} --reply-port-src {to} --reply-port-dst {port} -t 3000 \
                 --state {state} -u SEEN_REPLY,ASSURED"
            ));
        }
    };
    tcp(65, "TIME_WAIT", "198.18.1.2", 1000, true);
    tcp(20, "ESTABLISHED", "198.18.1.2", 2000, true);
    tcp(15, "SYN_SENT", "198.18.1.3", 3000, false);
    for port in 4000..4007 {
        entries.push(format!(
            "-p udp -s fd00::2 -d fd00::53 --sport {port} --dport 53 -t 3000 -u SEEN_REPLY"
        ));
        entries.push(format!(
            "-p tcp -s fd00::2 -d fd00::1 --sport {port} --dport 443 -t 3000 --state CLOSE_WAIT \
             -r fd00::80 -q fd00::2 --reply-port-src 8443 --reply-port-dst {port}"
        ));
    }
    entries.push("-p udp -s 198.18.1.2 -d 198.18.1.1 --sport 5 --dport 53 -t 3000".to_owned());
    entries.push(
        "-p udp -s 198.18.1.2 -d 198.18.1.1 --sport 6 --dport 53 -t 3000 -u SEEN_REPLY,ASSURED"
            .to_owned(),
    );
    entries.push(
        "-p icmp -s 198.18.1.2 -d 198.18.1.1 --icmp-type 8 --icmp-code 0 --icmp-id 7 -t 3000"
            .to_owned(),
    );
    entries
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_table_of_every_kind_equals_the_listing() {
    let netns = tracked("table");
    let entries = entries();
    let number = entries.len();
    conntrack::fill(&netns, entries).unwrap();
    let listed = conntrack::list(&netns).unwrap();
    assert_eq!(listed.len(), number);

    let line = shown(&netns);
    expect_the_listing(&line, &listed);
    expect_the_counters(&line, &netns);
    assert_eq!(line["entries"], number);
    let limit = fs::read_to_string(format!("/proc/sys/{LIMIT}")).unwrap();
    assert_eq!(line["limit"], limit.trim().parse::<u64>().unwrap());
    let size = line["object_bytes"].as_u64().unwrap();
    let buckets = line["buckets"].as_u64().unwrap();
    assert!((128..2048).contains(&size), "{size}");
    assert_eq!(line["memory_bytes"], number as u64 * size + buckets * 8);

    let time_wait = &line["table"]["states"][0];
    assert_eq!((&time_wait["state"], &time_wait["count"]), (&"TIME_WAIT".into(), &65.into()));
    netns.sysctl("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "77").unwrap();
    let live = shown(&netns);
    assert_eq!(live["table"]["states"][0]["timeout_s"], 77, "the namespace's own value");
}

/// Traffic of the kernel's own making, translated by its own rules.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn translated_traffic_of_both_families_equals_the_listing() {
    let netns = tracked("nat");
    for (iptables, loopback, to) in [
        ("iptables-legacy", "127.0.0.1", "127.0.0.1:7001"),
        ("ip6tables-legacy", "::1", "[::1]:7001"),
    ] {
        for protocol in ["tcp", "udp"] {
            let rule = format!(
                "-w -t nat -A OUTPUT -d {loopback} -p {protocol} --dport 7000 -j DNAT \
                 --to-destination {to}"
            );
            command::output(netns.command(iptables).args(rule.split_whitespace())).unwrap();
        }
    }
    let open = netns
        .enter(|| {
            let (mut servers, mut clients) = (Vec::new(), Vec::new());
            // All open at once, so that each has a port of its own.
            let mut sockets = Vec::new();
            for loopback in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
                let server = TcpListener::bind(SocketAddr::new(loopback, 7001))?;
                for _ in 0..20 {
                    clients.push(TcpStream::connect(SocketAddr::new(loopback, 7000))?);
                }
                servers.push(server);
                for _ in 0..30 {
                    let socket = UdpSocket::bind(SocketAddr::new(loopback, 0))?;
                    socket.send_to(b"nobody answers", SocketAddr::new(loopback, 7000))?;
                    sockets.push(socket);
                }
            }
            Ok((servers, clients, sockets))
        })
        .unwrap();
    let listed = conntrack::list(&netns).unwrap();
    let line = shown(&netns);
    assert!(listed.len() >= 100, "{listed:?}");
    expect_the_listing(&line, &listed);
    expect_the_counters(&line, &netns);
    assert!(line["table"]["dnat_entries"].as_u64().unwrap() >= 100, "{line}");
    drop(open);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn packets_refused_by_a_full_table_are_counted_and_have_a_rate() {
    const ROOM: u16 = 50;
    const REFUSED: u64 = 40;
    let netns = tracked("full");
    // Assured entries do not make room for others.
    let entries = (1..=ROOM).map(|port| {
        format!("-p udp -s 198.18.1.2 -d 198.18.1.1 --sport {port} --dport 9 -t 3000 -u SEEN_REPLY,ASSURED")
    });
    conntrack::fill(&netns, entries).unwrap();
    let rule = "-w -A OUTPUT -m conntrack --ctstate INVALID -j ACCEPT";
    command::output(netns.command("iptables-legacy").args(rule.split_whitespace())).unwrap();

    let mut watch = Watch::start(
        dropwatch(&["conntrack", "--json", "--watch=300ms", "--netns"]).arg(netns.name()),
    )
    .unwrap();
    let limit = HostValue::set(LIMIT, &(ROOM - 1).to_string()).unwrap();
    netns
        .enter(|| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            for port in 1..=REFUSED as u16 {
                // The kernel may tell the sender; the packet is lost either way.
                let _refused = socket.send_to(b"no room", (Ipv4Addr::LOCALHOST, 10_000 + port));
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(counters::conntrack(&netns, "drop").unwrap(), REFUSED);
    let text = output(&["conntrack", "--netns", netns.name()]).stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("50 of 49 entries (100.0%), full\n"), "{text}");
    assert!(text.contains("40  drop"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours in a pipe: {text}");
    drop(limit);

    let deadline = Instant::now() + machine::longer(Duration::from_secs(10));
    let mut counted = 0;
    while counted < REFUSED {
        let line = watch.next_line(machine::longer(Duration::from_secs(10))).unwrap().unwrap();
        let line: Value = serde_json::from_str(line).unwrap();
        let interval = &line["interval"];
        // After a stall the next one is shorter.
        assert!(interval["interval_s"].as_f64().unwrap() > 0.0, "{line}");
        counted += interval["counters"]["drop"].as_u64().unwrap();
        assert!(Instant::now() < deadline, "{counted} of {REFUSED}");
    }
    assert_eq!(counted, REFUSED, "each once, in one interval or another");
    let ended = watch.stop().unwrap();
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""));
}

/// Nothing of a namespace is held between two pages: it ends while it is watched, and with it the
/// link that leads out of it.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_namespace_that_ends_is_let_go_and_no_error() {
    let (stays, goes) = (tracked("stays"), tracked("goes"));
    link::veth(&stays, "eth0", &goes, "eth0").unwrap();
    let name = goes.name().to_owned();
    let mut watch = Watch::start(&mut dropwatch(&[
        "conntrack",
        "--json",
        "--watch=100ms",
        "--netns",
        stays.name(),
        "--netns",
        &name,
    ]))
    .unwrap();
    drop(goes);
    let deadline = Instant::now() + machine::longer(Duration::from_secs(10));
    while stays.ip("link show dev eth0").is_ok() {
        assert!(Instant::now() < deadline, "the namespace is still there");
        watch.next_line(Duration::from_secs(10)).unwrap().unwrap();
    }
    let alone = |watch: &mut Watch| {
        let line = watch.next_line(Duration::from_secs(10)).unwrap().unwrap();
        line.contains(stays.name())
    };
    // What was under way when it ended may still come.
    while !(0..4).all(|_| alone(&mut watch)) {
        assert!(Instant::now() < deadline, "pages of a namespace that has ended");
    }
    assert_eq!(watch.stop().unwrap().status.code(), Some(0));

    let gone = output(&["conntrack", "--netns", &name]);
    assert_eq!(gone.status.code(), Some(2), "{gone:?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn every_namespace_is_shown_and_an_empty_one_is_a_line() {
    let netns = tracked("empty");
    let output = output(&["conntrack"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let line = format!("{}: no entries, room for ", netns.name());
    assert!(text.lines().any(|found| found.starts_with(&line)), "{text}");
    assert!(text.lines().any(|found| found.starts_with("host: ")), "{text}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn missing_capabilities_are_named() {
    let copy = Copy::new();
    let netns = tracked("closed");
    let run = |capabilities: &[&str], netns: &str| {
        let mut command = copy.command(capabilities);
        let output = command.args(["conntrack", "--netns", netns]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), stderr)
    };
    let (code, stderr) = run(&["sys_admin"], "host");
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("missing CAP_NET_ADMIN") && stderr.lines().count() == 1, "{stderr}");
    let (code, stderr) = run(&["net_admin"], netns.name());
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("missing CAP_SYS_ADMIN"), "{stderr}");
    let (code, stderr) = run(&["net_admin", "sys_admin"], netns.name());
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

/// Prints what it measures. Memory has a bound, whatever the table holds.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_large_table_is_summed_up_in_little_memory() {
    let number = machine::fewer(200_000);
    let _limit = HostValue::set(LIMIT, "262144").unwrap();
    let netns = tracked("large");
    let has_ended = |n: &u64| n % 100 < 65;
    let entry = |n: u64| {
        let (client, port) = (format!("10.0.0.{}", 1 + n % 40), 1024 + n / 40);
        let state = if has_ended(&n) { "TIME_WAIT" } else { "ESTABLISHED" };
        format!(
            "-p tcp -s {client} -d 198.18.1.1 --sport {port} --dport 8080 -r 198.18.2.2 \
             -q {client} --reply-port-src 80 --reply-port-dst {port} -t 3000 --state {state} \
             -u SEEN_REPLY,ASSURED"
        )
    };
    conntrack::fill(&netns, (0..number).map(entry)).unwrap();

    let begin = Instant::now();
    let line = shown(&netns);
    let took = begin.elapsed();
    let table = &line["table"];
    assert_eq!((&line["entries"], &table["entries"]), (&number.into(), &number.into()));
    assert_eq!(table["states"][0]["count"], (0..number).filter(has_ended).count());
    assert_eq!(table["sources"]["distinct"], 40);
    assert_eq!(table["dnat_targets"]["rows"][0]["count"], number);

    let mut command = dropwatch(&["conntrack", "--json", "--watch=1h", "--netns"]);
    let watch = Watch::start(command.arg(netns.name())).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", watch.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert_eq!(watch.stop().unwrap().status.code(), Some(0));
    eprintln!("{number} entries: {took:?}, {:.1} MiB resident at most", peak as f64 / 1024.0);
    assert!(peak < 30 << 10, "{peak} KiB");
    assert!(took < machine::longer(Duration::from_secs(10)), "{took:?}");
}
