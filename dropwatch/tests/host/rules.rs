//! Which rule of the packet filter drops: its own counter, read by the test, says the same.

mod kinds;
mod reloads;

use std::{
    net::{Ipv4Addr, UdpSocket},
    process::Command,
    thread::sleep,
    time::Duration,
};

use dropwatch::report::{
    facts::Netns as NetnsFact,
    finding::{Finding, Value},
};
use testbed::{command::output, machine, netns::Netns, unproved::unproved};

use crate::{
    harness::{Recording, Run, wait_until},
    reach::LONG,
};

const DATAGRAMS: u64 = 777;
const PORT: u16 = 6002;
/// Far more than a thread takes to begin.
const BEGINNING: Duration = Duration::from_secs(1);

/// A namespace with these rules, one command a line.
fn with_rules(commands: &str) -> Netns {
    let netns = Netns::new("rules").unwrap();
    for line in commands.lines().map(str::trim).filter(|line| !line.is_empty()) {
        output(netns.command("sh").args(["-c", line])).unwrap();
    }
    netns
}

/// Sends datagrams to itself, none of which its rules let in.
fn send(netns: &Netns, port: u16, datagrams: u64) {
    netns
        .enter(|| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            for sent in 0..datagrams {
                socket.send_to(b"dropped", (Ipv4Addr::LOCALHOST, port))?;
                // The queue of a CPU has room for a thousand.
                if sent % 100 == 99 {
                    sleep(Duration::from_millis(5));
                }
            }
            Ok(())
        })
        .unwrap();
}

/// What the first number in the output of a command in the namespace comes to.
fn counter(netns: &Netns, command: &str) -> u64 {
    let shown = output(netns.command("sh").args(["-c", command])).unwrap();
    let number = shown.split(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty());
    number.unwrap_or_else(|| panic!("{command}: {shown}")).parse().unwrap()
}

/// Waits until dropwatch has read what rules count, which it does once counting has begun, on a thread of
/// that name.
fn wait_for_first_reading(run: &Run) {
    sleep(BEGINNING);
    let threads = format!("/proc/{}/task", run.0.pid());
    let reads = |thread: std::fs::DirEntry| {
        std::fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name == "rules\n")
    };
    wait_until(machine::longer(Duration::from_secs(10)), "rules are read at the start", || {
        !std::fs::read_dir(&threads).unwrap().flatten().any(reads)
    });
}

/// What is found while `cause` has packets dropped in the namespace: the findings of all reports.
fn found(netns: &Netns, cause: impl FnOnce()) -> Vec<Finding> {
    let run = Run::within(&[netns], &["-i", LONG]);
    wait_for_first_reading(&run);
    cause();
    let recording = run.stop();
    let findings = recording.reports.into_iter().flat_map(|report| report.findings);
    let is_here = |it: &NetnsFact| it.name.as_deref() == Some(netns.name());
    findings.filter(|it| it.netns.as_ref().is_some_and(is_here)).collect()
}

/// Sends the datagrams and waits until `counted` says that all were dropped.
fn dropped(netns: &Netns, datagrams: u64, counted: &str) {
    send(netns, PORT, datagrams);
    let all = || counter(netns, counted) >= datagrams;
    wait_until(machine::longer(Duration::from_secs(10)), "all are dropped", all);
    assert_eq!(counter(netns, counted), datagrams);
}

fn evidence<'a>(finding: &'a Finding, name: &str) -> &'a Value {
    let found = finding.evidence.iter().find(|it| it.name == name);
    &found.unwrap_or_else(|| panic!("no {name}: {finding:?}")).value
}

/// Runs the finding's first command as printed; what it shows.
fn shown(finding: &Finding) -> String {
    output(Command::new("sh").args(["-c", &finding.actions[0].command])).unwrap()
}

fn only(findings: &[Finding]) -> &Finding {
    let [finding] = findings else { panic!("{findings:?}") };
    assert_eq!(finding.rule, "netfilter_rule");
    finding
}

/// The finding is about one rule or policy, which has dropped all.
fn assert_names(finding: &Finding, netns: &Netns, whose: &str, place: &str) {
    assert_eq!(finding.title, format!("{whose} drops packets in {}: {place}", netns.name()));
    assert_eq!(finding.explains.unwrap().drops, DATAGRAMS, "{finding:?}");
}

fn assert_counted(finding: &Finding) {
    assert_eq!(*evidence(finding, "by its own counter"), DATAGRAMS.into(), "{finding:?}");
    let all = format!("all {DATAGRAMS} drops at INPUT in ");
    let Value::Text(explains) = evidence(finding, "explains") else { panic!("{finding:?}") };
    assert!(explains.starts_with(&all), "{explains}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_rule_of_iptables_is_named_among_others() {
    let rules: String = (0..40)
        .map(|rule| {
            let port = PORT - 11 + rule;
            format!("iptables-legacy -w -A INPUT -p udp --dport {port} -j DROP\n")
        })
        .collect();
    let netns = with_rules(&rules);
    let counted = "iptables-legacy -w -nvxL INPUT 12";
    let findings = found(&netns, || dropped(&netns, DATAGRAMS, counted));
    let finding = only(&findings);
    assert_names(finding, &netns, "an iptables rule", "filter INPUT, rule 12");
    assert_counted(finding);
    assert_eq!(*evidence(finding, "rule"), "-p udp -m udp --dport 6002 -j DROP".into());
    let shown = shown(finding);
    assert!(shown.contains("777") && shown.contains("6002"), "{shown}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_policy_of_iptables_is_named() {
    let netns = with_rules("iptables-legacy -w -P INPUT DROP");
    let counted = "iptables-legacy -w -nvxL INPUT | head -n 1";
    let findings = found(&netns, || dropped(&netns, DATAGRAMS, counted));
    let finding = only(&findings);
    assert_names(finding, &netns, "an iptables policy", "filter INPUT");
    assert_counted(finding);
    assert!(shown(finding).contains("policy DROP 777 packets"), "{finding:?}");
}

const NFT: &str = "nft 'add table inet fw; \
                   add chain inet fw in { type filter hook input priority 0; }; \
                   add chain inet fw out { type filter hook output priority 0; policy drop; }; \
                   add rule inet fw out accept; add rule inet fw in udp dport 53 counter drop; ";

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_rule_of_nftables_is_named_with_its_handle() {
    let rule = "add rule inet fw in udp dport 6002 counter drop comment \"the one\"'";
    let netns = with_rules(&format!("{NFT}{rule}"));
    let counted = "nft list chain inet fw in | grep 6002 | grep -o 'packets.*'";
    let findings = found(&netns, || dropped(&netns, DATAGRAMS, counted));
    let finding = only(&findings);
    let shown = shown(finding);
    let handle = shown.rsplit(' ').next().unwrap().trim();
    let place = format!("inet fw in, handle {handle}");
    assert_names(finding, &netns, "an nftables rule", &place);
    assert_counted(finding);
    assert!(shown.lines().count() == 1 && shown.contains("6002") && shown.contains("packets 777"));
}

/// Another rule has counted nothing, a third one cannot match.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_rule_of_nftables_that_does_not_count_is_named_where_it_is_the_only_one() {
    let rules = "add rule inet fw in udp dport 6002 drop; add rule inet fw in tcp dport 80 drop'";
    let netns = with_rules(&format!("{NFT}{rules}"));
    let findings = found(&netns, || send(&netns, PORT, DATAGRAMS));
    let finding = only(&findings);
    assert!(shown(finding).trim().starts_with("udp dport 6002 drop"), "{finding:?}");
    evidence(finding, "by elimination");
    assert_eq!(finding.explains.unwrap().drops, DATAGRAMS);

    output(netns.command("nft").arg("add rule inet fw in udp dport 6000-6010 drop")).unwrap();
    let findings = found(&netns, || send(&netns, PORT, DATAGRAMS));
    let finding = only(&findings);
    assert!(finding.title.contains("rule or policy drops packets"), "{finding:?}");
    let Value::Text(candidates) = evidence(finding, "candidates") else { panic!("{finding:?}") };
    assert!(candidates.contains("udp dport 6002 drop"), "{candidates}");
    assert!(candidates.contains("6000-6010") && !candidates.contains("tcp"), "{candidates}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_policy_of_nftables_is_named_by_elimination() {
    let netns = with_rules(&format!("{NFT}add chain inet fw in {{ policy drop; }}'"));
    let findings = found(&netns, || send(&netns, PORT, DATAGRAMS));
    let finding = only(&findings);
    assert_names(finding, &netns, "an nftables policy", "inet fw in");
    evidence(finding, "by elimination");
    assert!(shown(finding).contains("policy drop"));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn rules_of_iptables_in_nftables_are_shown_by_iptables() {
    if output(Command::new("iptables-nft").arg("--version")).is_err() {
        return unproved("iptables-nft is not installed");
    }
    let rule = "-p udp --dport 6002 -m comment --comment 'my service' -j DROP";
    let netns = with_rules(&format!("iptables-nft -w -A INPUT {rule}"));
    let counted = "iptables-nft -w -nvxL INPUT 1";
    let findings = found(&netns, || dropped(&netns, DATAGRAMS, counted));
    let finding = only(&findings);
    assert_names(finding, &netns, "an iptables rule", "filter INPUT, rule 1");
    assert_counted(finding);
    let Value::Text(text) = evidence(finding, "rule") else { panic!("{finding:?}") };
    assert!(text.contains("--comment \"my service\""), "{text}");
    assert!(shown(finding).contains("777"));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn each_rule_has_its_part_and_what_is_left_is_a_policys() {
    let netns = with_rules(
        "iptables-legacy -w -A INPUT -p udp --dport 6001 -j DROP
         iptables-legacy -w -A INPUT -p udp --dport 6002 -j REJECT
         nft 'add table inet fw; add chain inet fw in { type filter hook input priority 10; policy drop; }'",
    );
    let findings = found(&netns, || {
        send(&netns, 6001, 300);
        send(&netns, 6003, 200);
        dropped(&netns, 100, "iptables-legacy -w -nvxL INPUT 2");
    });
    let mut parts: Vec<(&str, u64)> = findings
        .iter()
        .filter(|it| it.rule == "netfilter_rule")
        .map(|it| (it.title.rsplit(": ").next().unwrap(), it.explains.unwrap().drops))
        .collect();
    parts.sort_unstable();
    let expected = [("filter INPUT, rule 1", 300), ("filter INPUT, rule 2", 100)];
    let Some((policy, rules)) = parts.split_last().filter(|(last, _)| last.0 == "inet fw in")
    else {
        panic!("{findings:?}")
    };
    assert_eq!(rules, expected);
    // What answers a rejected datagram may be dropped there, too.
    assert!(policy.1 >= 200, "{findings:?}");
}

/// As long as kube-proxy's for thousands of services.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn twenty_thousand_rules_hold_no_report_back() {
    if output(Command::new("iptables-legacy-restore").arg("--version")).is_err() {
        return unproved("iptables-legacy-restore is not installed");
    }
    let rules = machine::fewer(20_000);
    let mut restore = "*filter\n:INPUT ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n".to_owned();
    restore += "-A INPUT -p udp -j KUBE-SERVICES\n";
    for rule in 0..rules {
        let port = if rule + 1 == rules { PORT } else { 7_000 };
        let address = Ipv4Addr::from(0x7f01_0000 + u32::try_from(rule).unwrap());
        let address = if port == PORT { Ipv4Addr::LOCALHOST } else { address };
        restore += &format!(
            "-A KUBE-SERVICES -d {address}/32 -p udp -m comment --comment \"ns/svc-{rule} has no \
             endpoints\" -m udp --dport {port} -j REJECT\n"
        );
    }
    restore += "COMMIT\n";
    let path = std::env::temp_dir().join(format!("dropwatch-rules-{}", std::process::id()));
    std::fs::write(&path, restore).unwrap();
    let netns = with_rules(&format!("iptables-legacy-restore -w < {}", path.display()));
    std::fs::remove_file(&path).unwrap();
    let datagrams = machine::fewer(DATAGRAMS);
    let command = format!("iptables-legacy -w -nvxL KUBE-SERVICES {rules}");
    // Each datagram passes all of them, which takes some seconds on a busy machine.
    let interval = machine::longer(Duration::from_secs(8));
    let interval_text = format!("{}s", interval.as_secs());
    let run = Run::within(&[&netns], &["-i", &interval_text, "-c", "1"]);
    wait_for_first_reading(&run);
    dropped(&netns, datagrams, &command);
    let most = interval + machine::longer(Duration::from_secs(3));
    let recording = Recording::of(&run.0.finish_within(most).expect("the report is in time"));
    let [report] = &recording.reports[..] else { panic!("{recording:?}") };
    let place = format!("filter KUBE-SERVICES, rule {rules}");
    let named = report.findings.iter().find(|it| it.title.ends_with(&place));
    let finding = named.unwrap_or_else(|| panic!("{report:?}"));
    assert_eq!(*evidence(finding, "by its own counter"), datagrams.into(), "{finding:?}");
}

/// Packets that no rule refuses.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn rules_that_dropped_nothing_are_not_blamed() {
    let netns = with_rules("iptables-legacy -w -A INPUT -p udp --dport 53 -j DROP");
    let findings = found(&netns, || send(&netns, PORT, DATAGRAMS));
    assert!(!findings.iter().any(|it| it.rule == "netfilter_rule"), "{findings:?}");
    assert!(findings.iter().any(|it| it.rule == "closed_port"), "{findings:?}");
}
