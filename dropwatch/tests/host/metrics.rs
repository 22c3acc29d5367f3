//! The exporter: what it serves is what the reports say, whoever else asks for it.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use dropwatch::report::model::Report;
use testbed::{
    drops::{
        Cause,
        closed::{Closed, Transport},
        filter::Filtered,
        unread::Unread,
    },
    machine::longer,
    udp::Family,
};

use crate::harness::{Run, binary, output, wait_until};

/// A port that nobody has at the moment.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Status line and body of an answer.
fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(longer(Duration::from_secs(10)))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// Whether a row is about the datagrams; the scrapers' own connections drop things, too.
fn is_ours(symbol: &str) -> bool {
    symbol.contains("udp")
}

/// Our drops by symbol and reason.
fn drops(page: &str) -> BTreeMap<(String, String), u64> {
    let label = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("{name}=\"")).unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    let samples = page.lines().filter(|line| line.starts_with("dropwatch_drops_total{"));
    let counted = samples.map(|line| {
        let count: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        ((label(line, "symbol"), label(line, "reason")), count)
    });
    counted.filter(|((symbol, _), _)| is_ours(symbol)).collect()
}

/// Far more than anything here takes.
fn patience() -> Duration {
    longer(Duration::from_secs(10))
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn totals_are_those_of_the_reports() {
    let address = free_address();
    let closed = Closed::new(Transport::Udp, Family::V4).unwrap();
    let metrics = ["-i", "200ms", "--metrics", &address.to_string()];
    let run = Run::within(&[closed.netns()], &metrics);
    closed.send(300).unwrap();
    let refused = |page: &str| drops(page).values().sum::<u64>() >= 300;
    wait_until(patience(), "no metrics of it", || refused(&get(address, "/metrics").1));
    // No client may hold up another: these say nothing, or never end.
    let silent: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut endless = TcpStream::connect(address).unwrap();
    endless.write_all(b"GET /metrics HTTP/1.1\r\nX: ").unwrap();
    let mut nonsense = TcpStream::connect(address).unwrap();
    nonsense.write_all(&[0xff; 64]).unwrap();
    assert_eq!(get(address, "/healthz"), ("HTTP/1.1 200 OK".into(), "ok\n".into()));
    assert_eq!(get(address, "/nothing").0, "HTTP/1.1 404 Not Found");
    drop(silent);
    closed.send(40).unwrap();
    let (_, page) = get(address, "/metrics");
    assert!(refused(&page), "counters never fall: {page}");
    // The last drops are in a report, and nothing else drops meanwhile.
    wait_until(patience(), "no metrics of the last", || {
        drops(&get(address, "/metrics").1).values().sum::<u64>() >= 340
    });
    std::thread::sleep(longer(Duration::from_millis(300)));
    let served = drops(&get(address, "/metrics").1);

    let recording = run.stop();
    let mut reported: BTreeMap<(String, String), u64> = BTreeMap::new();
    for row in recording.reports.iter().flat_map(|report| &report.locations) {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        if row.place.symbol.as_deref().is_some_and(is_ours) {
            *reported.entry((text(&row.place.symbol), text(&row.place.reason))).or_default() +=
                row.count;
        }
    }
    assert_eq!(served, reported, "metrics and JSON are one truth");
    assert!(TcpStream::connect(address).is_err(), "it ends with the run");
}

/// A socket that was closed with unread packets is no trouble: what alerts count does not rise.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn harmless_drops_are_labelled() {
    const N: u64 = 60;
    let address = free_address();
    let (closed, unread) =
        (Closed::new(Transport::Udp, Family::V4).unwrap(), Unread::new().unwrap());
    let run = Run::start(&["-i", "200ms", "--metrics", &address.to_string()]);
    let sum = |page: &str, symbol: &str, benign: bool| -> u64 {
        let (symbol, benign) = (format!("symbol=\"{symbol}"), format!("benign=\"{benign}\""));
        page.lines()
            .filter(|line| line.contains(&symbol) && line.contains(&benign))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    };
    let harm = |page: &str| sum(page, "__udp4_lib_rcv", false) + sum(page, "udp_rcv", false);
    unread.send(N).unwrap();
    closed.send(N).unwrap();
    wait_until(patience(), "no metrics of it", || {
        let (_, page) = get(address, "/metrics");
        sum(&page, "inet_sock_destruct", true) >= N && harm(&page) >= N
    });
    let (_, page) = get(address, "/metrics");
    assert_eq!(sum(&page, "inet_sock_destruct", false), 0, "{page}");
    assert_eq!(sum(&page, "udp_rcv", true) + sum(&page, "__udp4_lib_rcv", true), 0, "{page}");
    // To the drop: the page is the sum of as many reports as it says, whatever else this host drops.
    let reports = page.lines().find_map(|line| line.strip_prefix("dropwatch_reports_total "));
    let reports: usize = reports.unwrap().parse().unwrap();
    let recording = run.stop();
    let reported = &recording.reports[..reports];
    let reported = |drops: fn(&Report) -> u64| reported.iter().map(drops).sum::<u64>();
    let drops = |benign| {
        let samples = page.lines().filter(|line| line.starts_with("dropwatch_drops_total{"));
        sum(&samples.collect::<Vec<_>>().join("\n"), "", benign)
    };
    assert_eq!((drops(true), drops(false)), (reported(Report::benign), reported(Report::harmful)));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn more_clients_than_there_is_room_for_are_served_in_turn() {
    let address = free_address();
    let run = Run::start(&["-i", "200ms", "--metrics", &address.to_string()]);
    // They hold all places until their time to ask is over.
    let crowd: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
    let (status, page) = get(address, "/metrics");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(page.contains("dropwatch_reports_total"), "{page}");
    drop(crowd);
    let recording = run.stop();
    let late = recording.reports.iter().map(|report| report.intervals).max();
    // Waiting for those who say nothing would take ten.
    assert!(late < Some(8), "reports did not go on: {late:?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_address_that_is_taken_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = output(&["-d", "1s", "--metrics", &address]);
    assert_eq!(ended.status.code(), Some(1));
    let reported = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(reported.contains(&format!("cannot serve metrics at {address}: ")), "{reported}");
}

/// The sum of all series of a metric that have these labels.
fn series(page: &str, metric: &str, labels: &[(&str, &str)]) -> u64 {
    page.lines()
        .filter(|line| line.starts_with(&format!("{metric}{{")))
        .filter(|line| labels.iter().all(|(name, it)| line.contains(&format!("{name}=\"{it}\""))))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// Two rules of iptables, each of which counts by itself what it drops in its own namespace.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn each_namespace_has_the_drops_that_its_rule_has_counted() {
    const NAMESPACES: &str = "dropwatch_namespace_drops_total";
    let filters = [
        (Filtered::input_by_iptables().unwrap(), 70),
        (Filtered::input_by_iptables().unwrap(), 30),
    ];
    let address = free_address();
    let options = ["-i", "200ms", "--by", "netns,protocol", "--metrics", &address.to_string()];
    let run = Run::within(&[filters[0].0.netns(), filters[1].0.netns()], &options);
    let of = |page: &str, filter: &Filtered| {
        series(page, NAMESPACES, &[("netns", filter.netns().name())])
    };
    let mut page = String::new();
    // Twice, since counters go on from report to report.
    for round in 1..=2 {
        for (filter, packets) in &filters {
            assert_eq!(filter.send(*packets).unwrap(), *packets);
        }
        wait_until(patience(), "no metrics of it", || {
            page = get(address, "/metrics").1;
            filters.iter().all(|(filter, _)| of(&page, filter) >= filter.dropped().unwrap())
        });
        for (filter, packets) in &filters {
            let counted = filter.dropped().unwrap();
            assert_eq!((of(&page, filter), counted), (counted, round * packets), "{page}");
        }
    }
    for (filter, _) in &filters {
        let labels = [("netns", filter.netns().name()), ("protocol", "udp")];
        let group = series(&page, "dropwatch_group_drops_total", &labels);
        assert_eq!(group, filter.dropped().unwrap(), "{page}");
    }
    for benign in ["true", "false"] {
        let labels = [("benign", benign)];
        let places = series(&page, "dropwatch_drops_total", &labels);
        assert_eq!(series(&page, NAMESPACES, &labels), places, "{page}");
    }
    run.stop();
}

/// The first namespace has the only series that is allowed; the second is in the rest from then on,
/// also once it drops more.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_namespace_without_a_series_is_in_the_rest() {
    const NAMESPACES: &str = "dropwatch_namespace_drops_total";
    let (first, second) =
        (Filtered::input_by_iptables().unwrap(), Filtered::input_by_iptables().unwrap());
    let address = free_address();
    let served = address.to_string();
    let options = ["-i", "200ms", "--metrics", &served, "--metrics-namespaces", "1"];
    let run = Run::within(&[first.netns(), second.netns()], &options);
    let of = |netns: &str| series(&get(address, "/metrics").1, NAMESPACES, &[("netns", netns)]);
    for round in 1..=2 {
        first.send(10).unwrap();
        wait_until(patience(), "none of the first", || of(first.netns().name()) >= 10 * round);
        second.send(500).unwrap();
        wait_until(patience(), "none of the second", || of("other") >= 500 * round);
        let counted = (first.dropped().unwrap(), second.dropped().unwrap());
        assert_eq!((of(first.netns().name()), of("other")), counted);
        assert_eq!(of(second.netns().name()), 0);
    }
    run.stop();
}

/// A recording is served as it was made, without root; not here, where all tests of runs are.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_recording_is_served_in_its_own_time() {
    let file = std::env::temp_dir().join(format!("dropwatch-served-{}.ndjson", std::process::id()));
    let closed = Closed::new(Transport::Udp, Family::V4).unwrap();
    let run = Run::within(&[closed.netns()], &["-i", "200ms", "-o", file.to_str().unwrap()]);
    closed.send(30).unwrap();
    let lines = run.0.stop().unwrap();
    assert!(lines.status.success(), "{}", lines.stderr);
    let address = free_address();
    let mut replay = std::process::Command::new(binary())
        .args(["replay", file.to_str().unwrap(), "--metrics", &address.to_string()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_until(patience(), "it does not serve", || TcpStream::connect(address).is_ok());
    wait_until(patience(), "not all of it", || {
        drops(&get(address, "/metrics").1).values().sum::<u64>() >= 30
    });
    replay.kill().unwrap();
    replay.wait().unwrap();
    std::fs::remove_file(file).unwrap();
}
