//! Commands of findings: for a real namespace that lives they run there, and for one that cannot be
//! entered any more there are none.

use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::MetadataExt,
    process::{Child, Command},
    time::Duration,
};

use dropwatch::report::{finding::Finding, model::Report};
use testbed::{
    command,
    machine::{self, longer},
    netns::Netns,
    unproved::unproved,
};

use crate::{
    asked::Named,
    harness::{Recording, Run, wait_until},
};

/// Datagrams that the rule drops.
const PACKETS: u64 = 40;
/// Longer than any of these tests takes: the only report is the last one.
pub(crate) const LONG: &str = "10m";

/// A run that counts what [`drop_there`] sends, and little else: at the places where packet filters
/// drop, others on the host may drop more.
fn watch() -> Run {
    Run::start(&["-i", LONG, "--host", "127.0.0.1"])
}

/// A rule that drops what comes in for UDP port 9, counted by itself.
/// What shows that rule.
const SHOW: &str = "iptables-legacy -t filter -nvL INPUT 1";
const RULE: &str = "-w -A INPUT -p udp --dport 9 -j DROP";

/// A namespace whose packet filter drops what is sent to [`drop_there`].
pub(crate) fn filtered(label: &str) -> Netns {
    let netns = Netns::new(label).unwrap();
    command::output(netns.command("iptables-legacy").args(RULE.split(' '))).unwrap();
    netns
}

pub(crate) fn drop_there(netns: &Netns) {
    let send = || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        for _ in 0..PACKETS {
            socket.send_to(b"x", "127.0.0.1:9")?;
        }
        Ok(())
    };
    netns.enter(send).unwrap();
    let rules = netns.command("iptables-legacy").args(["-w", "-nvxL", "INPUT"]).output().unwrap();
    let rules = String::from_utf8(rules.stdout).unwrap();
    let counted = rules.lines().last().and_then(|line| line.split_whitespace().next());
    assert_eq!(counted, Some(PACKETS.to_string().as_str()), "{rules}");
}

fn inum(path: &str) -> u32 {
    fs::metadata(path).unwrap().ino().try_into().unwrap()
}

pub(crate) fn inum_of(netns: &Netns) -> u32 {
    inum(&format!("/run/netns/{}", netns.name()))
}

/// The finding of the rule that dropped in the namespace `inum`.
pub(crate) fn found(recording: &Recording, inum: u32) -> Finding {
    let mut findings = recording.reports.iter().flat_map(|Report { findings, .. }| findings);
    let here = |finding: &&Finding| {
        finding.rule == "netfilter_rule"
            && finding.netns.as_ref().is_some_and(|netns| netns.inum == inum)
    };
    findings.rfind(here).unwrap_or_else(|| panic!("nothing found: {recording:?}")).clone()
}

/// Which namespace a shell is in after the start of a command that a finding printed.
fn runs_in(command: &str, program: &str) -> u32 {
    let prefix = command.strip_suffix(program).unwrap_or_else(|| panic!("{command}"));
    let script = format!("{prefix}readlink /proc/self/ns/net");
    let link = command::output(Command::new("sh").args(["-c", &script])).unwrap();
    link.trim().trim_start_matches("net:[").trim_end_matches(']').parse().unwrap()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_command_runs_in_the_namespace_that_has_a_name() {
    let netns = filtered("named");
    let run = watch();
    drop_there(&netns);
    let finding = found(&run.stop(), inum_of(&netns));
    assert_eq!(finding.unreachable, None);
    let command = &finding.actions[0].command;
    assert_eq!(command, &format!("ip netns exec {} {SHOW}", netns.name()));
    assert_eq!(runs_in(command, SHOW), inum_of(&netns));
    let shown = command::output(Command::new("sh").args(["-c", command])).unwrap();
    let rule = |line: &&str| {
        let counted = line.split_whitespace().next() == Some(PACKETS.to_string().as_str());
        counted && line.trim_end().ends_with("dpt:9")
    };
    assert_eq!(shown.lines().filter(rule).count(), 1, "the rule with its counter: {shown}");
}

/// Whoever makes a namespace chooses its name; the first one in the alphabet counts.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_name_that_cannot_be_typed_is_in_no_command() {
    let netns = filtered("typed");
    let _first = Named::new("\u{1b}[2J", netns.name());
    let run = watch();
    drop_there(&netns);
    let finding = found(&run.stop(), inum_of(&netns));
    assert_eq!(finding.actions, []);
    let unreachable = finding.unreachable.unwrap();
    assert!(!unreachable.ended, "{unreachable:?}");
    assert!(unreachable.why.contains("a name in it that cannot be typed"), "{unreachable:?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_namespace_that_ended_before_the_report_gets_no_command() {
    let netns = filtered("ended");
    let inum = inum_of(&netns);
    let run = watch();
    drop_there(&netns);
    drop(netns);
    let finding = found(&run.stop(), inum);
    assert_eq!(finding.actions, []);
    let unreachable = finding.unreachable.unwrap();
    assert!(unreachable.ended, "{unreachable:?}");
    assert!(unreachable.why.contains("has ended"), "{unreachable:?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn one_that_began_and_ended_within_a_report_gets_no_command() {
    let run = watch();
    let netns = filtered("short");
    let inum = inum_of(&netns);
    drop_there(&netns);
    drop(netns);
    let finding = found(&run.stop(), inum);
    assert_eq!(finding.actions, []);
    assert!(finding.unreachable.unwrap().ended);
}

/// The kernel gives the lowest free number, so that the new namespace has that of the old one; unless
/// somebody else made one meanwhile, which is why there are several tries.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_number_and_a_name_given_again_are_another_namespace() {
    if !machine::tells_namespaces_apart() {
        return unproved("this kernel has no cookies of network namespaces (SO_NETNS_COOKIE)");
    }
    for _ in 0..5 {
        let netns = filtered("again");
        let (name, number) = (netns.name().to_owned(), inum_of(&netns));
        let run = watch();
        drop_there(&netns);
        if !is_given_again(&name, number) {
            continue;
        }
        let finding = found(&run.stop(), number);
        assert_eq!(finding.actions, []);
        assert!(finding.unreachable.unwrap().ended, "another one has its number");
        return;
    }
    panic!("no namespace has got the number of another one");
}

/// Deletes the namespace `name` and makes others of that name, until one has its number.
fn is_given_again(name: &str, number: u32) -> bool {
    let ip = |arguments: &[&str]| {
        command::output(Command::new("ip").arg("netns").args(arguments)).unwrap();
    };
    // The kernel frees a namespace later, on a thread of its own; only then is its number free.
    for _ in 0..longer(Duration::from_secs(10)).as_millis() / 20 {
        ip(&["delete", name]);
        ip(&["add", name]);
        if inum(&format!("/run/netns/{name}")) == number {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// A process in a namespace of its own.
struct Unnamed(Child);

impl Drop for Unnamed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_command_finds_the_namespace_of_a_process() {
    let script = format!(
        "ip link set lo up && iptables-legacy {RULE} && exec 3>/dev/udp/127.0.0.1/9 && read && \
         for i in {{1..{PACKETS}}}; do echo >&3; done; sleep 100"
    );
    let mut child = Command::new("unshare");
    child.args(["--net", "bash", "-c", &script]).stdin(std::process::Stdio::piped());
    let mut child = Unnamed(child.spawn().unwrap());
    let pid = child.0.id();
    let own = inum("/proc/self/ns/net");
    let path = format!("/proc/{pid}/ns/net");
    let ready = || {
        inum(&path) != own
            && Command::new("nsenter")
                .args(["-t", &pid.to_string(), "-n", "iptables-legacy", "-w", "-S", "INPUT"])
                .output()
                .is_ok_and(|rules| String::from_utf8_lossy(&rules.stdout).contains("DROP"))
    };
    wait_until(Duration::from_secs(20), "the namespace is there", ready);
    let number = inum(&path);
    let run = watch();
    std::io::Write::write_all(child.0.stdin.as_mut().unwrap(), b"\n").unwrap();
    let counted = || {
        let rules = Command::new("nsenter")
            .args(["-t", &pid.to_string(), "-n", "iptables-legacy", "-w", "-nvxL", "INPUT"])
            .output()
            .unwrap();
        let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
        rules.lines().last().and_then(|line| line.split_whitespace().next())
            == Some(PACKETS.to_string().as_str())
    };
    wait_until(Duration::from_secs(20), "the packets are dropped", counted);
    let finding = found(&run.stop(), number);
    let command = &finding.actions[0].command;
    assert_eq!(runs_in(command, SHOW), number);
    assert_eq!(command, &format!("nsenter -t {pid} -n {SHOW}"));
}

/// dropwatch as the first process of a container: own PID namespace and `/proc`, own or shared
/// network namespace.
fn in_a_container(unshare: &[&str], arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--mount-proc", "--fork"]).args(unshare).arg(crate::harness::binary());
    command.args(arguments);
    command
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_container_says_what_it_does_not_see_and_is_not_the_host() {
    for (unshare, own) in [(&["--net"][..], "another than the host's"), (&[], "the host's")] {
        let run = in_a_container(unshare, &["--json", "-i", "200ms", "-c", "1"]).output().unwrap();
        assert!(run.status.success(), "{run:?}");
        let out = String::from_utf8(run.stdout).unwrap();
        let lines = crate::harness::decoded(out.lines());
        let [dropwatch::report::model::Line::Start(start), ..] = &lines[..] else {
            panic!("{lines:?}")
        };
        let notices = start.notices.join("\n");
        assert!(notices.contains("this is a container"), "{notices}");
        assert!(notices.contains("drops of the whole machine are counted"), "{notices}");

        let doctor = in_a_container(unshare, &["doctor"]).output().unwrap();
        let page = String::from_utf8(doctor.stdout).unwrap();
        let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(page.contains("processes those of this container"), "{page}");
        assert!(page.contains(&format!("own network namespace {own}")), "{page}");

        // What is outside has drops, too: its numbers and names cannot be called nobody's.
        for (option, name) in [("--netns", "3"), ("--iface", "dw-nowhere0")] {
            let args = ["--json", option, name, "-d", "100ms"];
            let run = in_a_container(unshare, &args).output().unwrap();
            let out = String::from_utf8(run.stdout).unwrap();
            let unchecked = format!("{option} {name} cannot be checked");
            assert!(run.status.success() && out.contains(&unchecked), "{out}");
        }

        // Of the names that can be asked for, the first is its own.
        let unknown = in_a_container(unshare, &["--netns", "nowhere", "-c", "1"]).output().unwrap();
        let said = String::from_utf8(unknown.stderr).unwrap();
        let first = if unshare.is_empty() { "there are host" } else { "there are this container" };
        assert!(said.contains(first), "{said}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_host_has_nothing_to_say_about_a_container() {
    let run = Run::start(&["-i", "200ms", "-c", "1"]).finish();
    assert_eq!(run.start.notices.iter().filter(|it| it.contains("container")).count(), 0);
}
