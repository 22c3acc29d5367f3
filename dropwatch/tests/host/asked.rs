//! Names in filters: refused where they are nothing's, unless they are to come, and then they do.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use dropwatch::report::model::Line;
use testbed::{
    drops::{
        Cause,
        closed::{Closed, Transport},
        network::LINK,
    },
    host_value::HostValue,
    machine::longer,
    udp::Family,
};

use crate::{
    harness::{Run, UDP4, UDP6, binary, decoded, has_reasons, output, refused, text, wait_until},
    reach::{LONG, drop_there, filtered, found, inum_of},
};

/// Longer than dropwatch takes to notice a namespace that has come or gone.
fn notice() {
    sleep(longer(Duration::from_millis(300)));
}

/// A network namespace of the test under one more name, for as long as this is there.
pub(crate) struct Named {
    name: String,
    path: PathBuf,
}

impl Named {
    fn path(name: &str) -> PathBuf {
        PathBuf::from("/run/netns").join(name)
    }

    pub(crate) fn new(name: &str, of: &str) -> Self {
        let named = Self { name: name.to_owned(), path: Self::path(name) };
        fs::write(&named.path, "").unwrap();
        let mut mount = Command::new("mount");
        mount.arg("--bind").arg(Self::path(of)).arg(&named.path);
        assert!(mount.status().unwrap().success());
        named
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["netns", "del", &self.name]).status();
        let _gone = fs::remove_file(&self.path);
    }
}

/// Names that are nothing's, by option, each with what is to be suggested.
const MISTYPED: &[(&str, &str, &str)] = &[
    ("--symbol", "nf_hok_slow", "nf_hook_slow"),
    ("--symbol", "!nf_hok_slow", "nf_hook_slow"),
    ("--symbol", "tcp_v4_recv*", "tcp_v4_rcv"),
    ("--symbol", "tcp_v4_rcb+0x91", "tcp_v4_rcv"),
    ("--symbol", "tcp_v4_rcv [nf_tables]", "the kernel itself"),
    ("--symbol", "nonsense_of_ours", "no function"),
    ("--symbol", "tcp_v4_rcv+0x99999", "ends before +0x99999"),
    ("--netns", "dw-nowhere*", "a star stands for itself here"),
    ("--iface", "dw-nowhere*", "a star stands for itself here"),
    ("--iface", "ol", "lo"),
    ("--iface", "!ol", "lo"),
    ("--iface", "dw-nowhere0", "no interface"),
    ("--iface", "dw-nowhere0", "there are "),
    ("--netns", "hots", "host"),
    ("--netns", "/proc/self/ns/uts", "is no network namespace"),
    ("--netns", "/proc/self/stat", "is no namespace"),
    ("--netns", "3", "no network namespace has that number"),
    ("--proto", "tpc", "tcp"),
    ("--proto", "!icmpv7", "icmpv6"),
];
const MISTYPED_REASONS: &[(&str, &str, &str)] = &[
    ("--reason", "NO_SOKET", "NO_SOCKET"),
    ("--reason", "!NO_SOKET", "NO_SOCKET"),
    ("--reason", "no_scoket", "NO_SOCKET"),
    ("--reason", "NOSOCKET*", "NO_SOCKET"),
    ("--reason", "CORE:no_socket", "no drop reason"),
    ("--reason", "CONSUMED", "is no drop"),
];

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_name_that_is_nothings_is_refused_with_those_like_it() {
    let reasons = if has_reasons() { MISTYPED_REASONS } else { &[] };
    for (option, typed, suggested) in MISTYPED.iter().chain(reasons) {
        for before in [&["-d", "100ms"][..], &["-d", "100ms", "--iface", "lo"]] {
            let refused = output(&[before, &[option, typed]].concat());
            let printed = text(&refused.stderr);
            assert_eq!(refused.status.code(), Some(2), "{option} {typed}: {printed}");
            assert_eq!(printed.lines().count(), 1, "{printed}");
            assert!(printed.contains(suggested) && printed.contains(option), "{printed}");
            let name = typed.split(['+', ' ']).next().unwrap();
            assert!(printed.contains(name), "{printed}");
        }
        // A command is not even started.
        let refused = output(&["run", option, typed, "--", "echo", "started"]);
        assert_ne!(refused.status.code(), Some(0), "{option} {typed}");
        assert!(refused.stdout.is_empty(), "{option} {typed}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_network_of_one_family_takes_no_packet_of_the_other() {
    for (family, expected) in [(Family::V4, [0, 0, 20, 20]), (Family::V6, [20, 20, 0, 0])] {
        let closed = Closed::new(Transport::Udp, family).unwrap();
        let run = |options: &[&str]| Run::within(&[closed.netns()], options);
        let runs =
            ["::/0", "!0.0.0.0/0", "0.0.0.0/0", "!::/0"].map(|network| run(&["--host", network]));
        closed.send(20).unwrap();
        let counted = runs.map(|run| {
            let recording = run.stop();
            recording.count(UDP4) + recording.count(UDP6)
        });
        assert_eq!(counted, expected, "{family:?}");
    }
}

/// Two names of one namespace, and what packets cannot be at once.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn filters_that_no_drop_can_pass_are_refused() {
    let netns = filtered("contradicted");
    let (name, path) = (netns.name(), format!("!/run/netns/{}", netns.name()));
    for line in [
        ["--netns", name, "--netns", &path],
        ["--port", "80", "--proto", "icmp"],
        ["--host", "fd00::1", "--proto", "arp"],
        ["--iface", "lo", "--iface", "!lo"],
        ["--symbol", "tcp_v4_rcv", "--symbol", "!tcp_*"],
    ] {
        let refused = output(&[&["-d", "100ms"][..], &line].concat());
        let printed = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{line:?}: {printed}");
        assert_eq!(printed.lines().count(), 1, "{printed}");
        assert!(line.iter().all(|word| printed.contains(word)), "{printed}");
        let refused = output(&[&["run"][..], &line, &["--", "echo", "started"]].concat());
        assert_eq!(refused.status.code(), Some(2), "{line:?}: {}", text(&refused.stderr));
        assert!(refused.stdout.is_empty(), "{line:?}");
    }
    // Nor is there anything to wait for.
    let long = "x".repeat(256);
    for [option, typed] in [
        ["--netns", "/proc/self/ns/mnt"],
        ["--netns", "/etc/passwd"],
        ["--netns", "../../no/such/folder"],
        ["--netns", ".."],
        ["--netns", &long],
        ["--iface", "sixteen_letters0"],
        ["--iface", ".."],
        ["--iface", "a b"],
        ["--symbol", "tcp_v4_rcv+0x99999"],
    ] {
        let refused = output(&["-d", "100ms", option, typed, "--later"]);
        assert_eq!(refused.status.code(), Some(2), "{typed}: {}", text(&refused.stderr));
    }
    let run = Run::start(&["--proto", "udp", "--proto", "icmp", "--port", "80"]);
    let notices = run.stop().start.notices;
    let expected = "--proto icmp counts nothing beside --port 80";
    assert!(notices.iter().any(|notice| notice == expected), "{notices:?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_is_there_is_taken_as_reports_print_it() {
    let closed = Closed::new(Transport::Udp, Family::V4).unwrap();
    let network = closed.netns();
    network.ip(&format!("link property add dev {LINK} altname an-alias-of-it")).unwrap();
    let refused = text(&output(&["-d", "100ms", "--iface", "an-alias-of-it"]).stderr);
    assert!(refused.contains(&format!("did you mean {LINK}?")), "{refused}");

    let all = Run::start(&["--netns", network.name()]);
    closed.send(10).unwrap();
    let all = all.stop();
    assert_eq!(all.count(UDP4), 10, "{all:#?}");
    let row = all.locations().find(|row| row.count == 10).unwrap();
    let (symbol, offset) = (row.place.symbol.as_deref().unwrap(), row.place.offset.unwrap());
    let module = row.place.module.as_ref().map(|module| format!(" [{module}]")).unwrap_or_default();
    let here = format!("{symbol}+{offset:#x}{module}");
    let beside = format!("{symbol}+{:#x}{module}", offset + 1);
    let run = |typed: &str| Run::start(&["--netns", network.name(), "--symbol", typed]);
    let runs = [run(&here), run(&beside), run(&format!("!{here}")), run(symbol)];
    closed.send(20).unwrap();
    let counted = runs.map(|run| run.stop().count(UDP4));
    assert_eq!(counted, [20, 0, 0, 20], "{here}");

    // That it is no place where a call returns is shown by what was dropped beside it.
    let beside_it = run(&beside);
    closed.send(30).unwrap();
    let printed = beside_it.0.stop().unwrap().stderr;
    let says = format!("--symbol {beside}: nothing was dropped at that offset so far");
    assert!(
        printed.contains(&says) && printed.contains(&format!("30 at +{offset:#x}")),
        "{printed}"
    );
}

/// Where the kernel hides its symbols no name can be checked: that is said, and nothing refused.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn hidden_symbols_are_said_and_refuse_nothing() {
    let _hidden = HostValue::set("kernel/kptr_restrict", "2").unwrap();
    let output = output(&["-d", "100ms", "--symbol", "udp4_lib_rcv", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = decoded(text(&output.stdout).lines());
    let Some(Line::Start(start)) = lines.first() else { panic!("no start line") };
    let says = |notice: &String| {
        notice.starts_with("--symbol udp4_lib_rcv cannot be checked: the kernel hides its symbols")
    };
    assert!(start.notices.iter().any(says), "{:?}", start.notices);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_namespace_that_comes_later_is_counted_while_it_is_there() {
    let closed = Closed::new(Transport::Udp, Family::V4).unwrap();
    let server = closed.netns().name();
    let late = format!("dw-late-{}", std::process::id());
    let refused = output(&["--netns", &late, "-d", "100ms"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));

    let excluded = format!("!{late}");
    let runs = [
        Run::start(&["--netns", &late, "--later"]),
        // All options but the one for namespaces are the others'.
        Run::start(&["--later", "--netns", &late, "--iface", LINK, "--proto", "udp"]),
        Run::start(&["--later", "--netns", &late, "--no-samples", "--no-findings"]),
        Run::start(&["--netns", server, "--netns", &excluded, "--later"]),
        Run::start(&["--netns", server, "--netns", &late, "--later", "--by", "netns"]),
    ];
    closed.send(30).unwrap();
    let named = Named::new(&late, server);
    notice();
    closed.send(100).unwrap();
    drop(named);
    notice();
    closed.send(7).unwrap();
    // Another namespace may have the name then.
    let _again = Named::new(&late, server);
    notice();
    closed.send(1000).unwrap();
    let recordings = runs.map(Run::stop);
    let counted = recordings.each_ref().map(|recording| recording.count(UDP4));
    assert_eq!(counted, [1100, 1100, 1100, 37, 1137], "{recordings:#?}");
    let says = |notice: &String| notice.contains(&late);
    assert!(recordings.iter().all(|recording| recording.start.notices.iter().any(says)));
    let left_out = format!("--netns {excluded}: not there yet; left out once it is");
    assert!(recordings[3].start.notices.contains(&left_out), "{:?}", recordings[3].start.notices);
}

/// It means whichever has the name, from the beginning of the run on; without `--later` the one that had
/// it then.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn with_later_a_name_that_is_there_can_become_anothers() {
    let [first, second] = [(); 2].map(|()| Closed::new(Transport::Udp, Family::V4).unwrap());
    let name = format!("dw-passed-on-{}", std::process::id());
    let named = Named::new(&name, first.netns().name());
    let runs = [
        Run::start(&["--netns", &name, "--later"]),
        Run::start(&["--netns", &name]),
        Run::start(&["--netns", &name, "--later", "--by", "netns", "--proto", "udp"]),
    ];
    first.send(30).unwrap();
    second.send(5).unwrap();
    drop(named);
    let _again = Named::new(&name, second.netns().name());
    notice();
    first.send(7).unwrap();
    second.send(100).unwrap();
    let counted = runs.map(|run| run.stop().count(UDP4));
    assert_eq!(counted, [130, 37, 130]);
}

/// The name stands for none by then, but the drops of the report are those of the one that had it.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn findings_are_told_of_a_namespace_that_has_lost_its_name() {
    let netns = filtered("late");
    let late = format!("dw-late-found-{}", std::process::id());
    let run = Run::start(&["-i", LONG, "--netns", &late, "--later"]);
    let named = Named::new(&late, netns.name());
    notice();
    drop_there(&netns);
    drop(named);
    notice();
    let recording = run.stop();
    assert!(recording.end.drops > 0, "{recording:#?}");
    found(&recording, inum_of(&netns));
}

/// As a test script makes it: before the command there is no such namespace.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_namespace_that_the_command_makes_is_counted() {
    let late = format!("dw-made-{}", std::process::id());
    let file = std::env::temp_dir().join(format!("{late}.ndjson"));
    let _absent = fs::remove_file(&file);
    let script = "ip netns add $0; ip -n $0 link set lo up; sleep 0.5; \
        ip netns exec $0 bash -c 'for i in {1..10}; do echo > /dev/udp/127.0.0.1/9; done'; \
        ip netns del $0";
    let mut run = Command::new(binary());
    run.args(["run", "--user", "root", "--no-baseline", "--netns", &late, "--later"]);
    run.args(["--fail-over", "9", "-o"]).arg(&file).args(["--", "bash", "-c", script, &late]);
    let ended = run.stdin(Stdio::null()).output().unwrap();
    let printed = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(5), "{printed}");
    let lines = decoded(fs::read_to_string(&file).unwrap().lines());
    fs::remove_file(&file).unwrap();
    let ended = lines.iter().find_map(|line| match line {
        Line::End(end) => end.run.as_ref(),
        _ => None,
    });
    assert_eq!(refused(ended.unwrap()), 10, "{printed}");
}

/// A gate on what never was there is no proof of anything.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_gate_on_a_namespace_that_never_comes_is_not_passed() {
    let late = format!("dw-never-{}", std::process::id());
    let run = |gate: &[&str]| {
        let mut run = Command::new(binary());
        run.args(["run", "--user", "root", "--no-baseline", "--netns", &late, "--later"]);
        run.args(gate).args(["--", "true"]).stdin(Stdio::null()).output().unwrap()
    };
    let never = format!("the network namespace {late} never came, so nothing was counted there");
    let gated = run(&["--fail-over", "0"]);
    let printed = text(&gated.stderr);
    assert_eq!(gated.status.code(), Some(125), "{printed}");
    assert!(printed.contains(&format!("{never}: the limits cannot be decided")), "{printed}");
    let free = run(&[]);
    let printed = text(&free.stderr);
    assert_eq!(free.status.code(), Some(0), "{printed}");
    assert!(printed.contains(&never), "{printed}");
}

/// `--later` takes what something may bring, and no typing mistake beside it.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_nothing_can_bring_is_refused_also_where_other_names_come_later() {
    for (option, typed, hint) in [
        ("--reason", "NO_SOKET", "did you mean NO_SOCKET"),
        ("--symbol", "tcp_v4_rvc", "did you mean tcp_v4_rcv"),
        ("--symbol", "dw_in_no_kernel", "--symbol 'FUNCTION [MODULE]'"),
    ] {
        if option == "--reason" && !has_reasons() {
            continue;
        }
        let refused = output(&["-d", "100ms", "--netns", "dw-never", "--later", option, typed]);
        let printed = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{typed}: {printed}");
        assert!(printed.contains(hint), "{printed}");
    }
    let module = "dw_in_no_kernel [dw_no_module]";
    let taken = output(&["-d", "100ms", "--later", "--symbol", module]);
    assert_eq!(taken.status.code(), Some(0), "{}", text(&taken.stderr));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_interface_that_comes_later_is_counted() {
    let closed = Closed::new(Transport::Udp, Family::V4).unwrap();
    let server = closed.netns();
    let late = "dw-late0";
    let run = Run::start(&["--iface", late, "--later", "--netns", server.name()]);
    closed.send(30).unwrap();
    server.ip(&format!("link set {LINK} down")).unwrap();
    server.ip(&format!("link set {LINK} name {late} up")).unwrap();
    wait_until(longer(Duration::from_secs(5)), "the link is up", || {
        server.ip(&format!("link show {late}")).unwrap().contains("state UP")
    });
    closed.send(50).unwrap();
    let recording = run.stop();
    assert_eq!(recording.count(UDP4), 50, "{recording:#?}");
}
