//! What `dropwatch run` starts, and how much may be dropped.

use std::{collections::BTreeSet, ffi::OsString, time::Duration};

use crate::{
    exit::Failure,
    report::{finding::Severity, number::exact_per_second, summary::Summing},
};

/// Of a command, what recordings hold.
const MOST_WORDS: usize = 64;
const MOST_LETTERS: usize = 512;

/// A command to run, and to watch meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedCommand {
    pub program: OsString,
    pub arguments: Vec<OsString>,
    /// Whose it is to be; `None` for whoever called.
    pub user: Option<String>,
    /// How long to count before it starts.
    pub baseline: Option<Duration>,
}

/// Words that a filter expression begins with (pcap-filter(7)).
const PRIMITIVES: [&str; 35] = [
    "ip",
    "ip6",
    "arp",
    "rarp",
    "tcp",
    "udp",
    "sctp",
    "icmp",
    "icmp6",
    "igmp",
    "ah",
    "esp",
    "vrrp",
    "carp",
    "ether",
    "link",
    "broadcast",
    "multicast",
    "less",
    "greater",
    "len",
    "vlan",
    "mpls",
    "pppoed",
    "pppoes",
    "geneve",
    "stp",
    "llc",
    "not",
    "and",
    "or",
    "inbound",
    "outbound",
    "ifindex",
    "iso",
];
/// And those that a name stands behind.
const QUALIFIERS: [&str; 11] = [
    "host",
    "net",
    "port",
    "portrange",
    "src",
    "dst",
    "gateway",
    "proto",
    "protochain",
    "ifname",
    "mask",
];

/// Whether words read as a filter expression, and not as a command of that name with its arguments.
fn is_expression(text: &str) -> bool {
    let bare = |word: &str| -> String {
        let word = word.trim_matches(['(', ')', '!', '&', '|']);
        word.split('[').next().unwrap_or_default().to_lowercase()
    };
    let words: Vec<String> =
        text.split_whitespace().map(bare).filter(|it| !it.is_empty()).collect();
    let is_primitive = |word: &str| PRIMITIVES.contains(&word) || QUALIFIERS.contains(&word);
    let is_value =
        |word: &str| word.starts_with(|c: char| c.is_ascii_digit() || "=<>&:".contains(c));
    let fits = |pair: &[String]| {
        is_primitive(&pair[1]) || is_value(&pair[1]) || QUALIFIERS.contains(&pair[0].as_str())
    };
    words.first().is_some_and(|first| is_primitive(first)) && words.windows(2).all(fits)
}

impl WatchedCommand {
    /// The words before the first `--` in it, where they read as a filter expression: another command
    /// follows them.
    pub fn expression(&self) -> Option<String> {
        let end = self.arguments.iter().position(|word| word == "--")?;
        let words = std::iter::once(&self.program).chain(&self.arguments[..end]);
        let text = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        is_expression(&text).then_some(text)
    }

    /// What to say where there is no such program: that a filter expression is no command.
    pub fn hint(&self) -> Option<&'static str> {
        let program = self.program.to_string_lossy();
        let is_followed = self.arguments.iter().any(|word| word == "--");
        let hint = "a filter expression is given by --filter under `run`, before the command";
        (is_followed || is_expression(&program)).then_some(hint)
    }

    /// As typed; of long ones, the beginning.
    pub fn words(&self) -> Vec<String> {
        let words = std::iter::once(&self.program).chain(&self.arguments);
        let cut = |word: &OsString| word.to_string_lossy().chars().take(MOST_LETTERS).collect();
        words.take(MOST_WORDS).map(cut).collect()
    }
}

/// How much may be dropped, of what is not known to be harmless, and what may be found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// In the whole run.
    pub drops: Option<u64>,
    /// A second, in any full interval and in the whole run.
    pub rate: Option<f64>,
    /// The least severe finding that is one too many, in the whole run.
    pub finding: Option<Severity>,
}

impl Limits {
    /// Whether there are any.
    pub fn are_set(self) -> bool {
        self != Self::default()
    }

    /// What the limit on findings says nothing of, in a line: `unread` are the namespaces that ended
    /// before their counters could be read. `None` where there is no such limit, or no such namespace.
    pub fn unproved(self, unread: &BTreeSet<String>) -> Option<String> {
        let least = self.finding?;
        let (how_many, their) = match unread.len() {
            0 => return None,
            1 => ("1 network namespace".to_owned(), "its"),
            more => (format!("{more} network namespaces"), "their"),
        };
        let mut names: Vec<&str> = unread.iter().take(MOST_NAMED).map(String::as_str).collect();
        if unread.len() > MOST_NAMED {
            names.push("…");
        }
        Some(format!(
            "{how_many} ended before {their} counters could be read, so --fail-on {} says nothing of \
             losses there that no drop shows: {}",
            least.name(),
            names.join(", ")
        ))
    }

    /// All that was exceeded. `highest` is the highest rate of a full interval.
    ///
    /// # Errors
    /// When something was.
    pub fn check(self, run: &Summing, highest: f64) -> Result<(), Failure> {
        let drops = run.harmful();
        let overall = exact_per_second(drops, run.duration_s());
        let rate = highest.max(overall);
        let exceeded = [
            self.drops
                .filter(|most| drops > *most)
                .map(|most| format!("{drops} packets dropped, more than --fail-over {most}")),
            self.rate.filter(|most| rate > *most).map(|most| {
                format!("{rate:.1} packets a second dropped, more than --fail-rate {most}")
            }),
            self.finding.and_then(|least| found(run, least)),
        ];
        let exceeded: Vec<String> = exceeded.into_iter().flatten().collect();
        match exceeded.is_empty() {
            true => Ok(()),
            false => Err(Failure::Threshold(exceeded.join("; "))),
        }
    }
}

/// Most namespaces that are named in one line.
const MOST_NAMED: usize = 5;

/// The findings of a run that are as severe as `least`, or more, in words.
fn found(run: &Summing, least: Severity) -> Option<String> {
    let mut findings = run.summary().findings;
    // The most severe is the least.
    findings.retain(|finding| finding.severity <= least);
    let worst = findings.first()?;
    let others = match findings.len() - 1 {
        0 => String::new(),
        1 => " and 1 other finding".to_owned(),
        others => format!(" and {others} other findings"),
    };
    let (severity, title) = (worst.severity.name(), &worst.title);
    Some(format!("{severity}: {title}{others}, which --fail-on {} forbids", least.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &[&str]) -> WatchedCommand {
        WatchedCommand {
            program: line[0].into(),
            arguments: line[1..].iter().map(Into::into).collect(),
            user: None,
            baseline: None,
        }
    }

    #[test]
    fn an_expression_before_a_command_is_told_from_a_command() {
        for (line, expression) in [
            (&["tcp", "--", "id"][..], Some("tcp")),
            (&["ip", "--", "ping", "-c", "1"], Some("ip")),
            (&["tcp port 80", "--", "id"], Some("tcp port 80")),
            (
                &["tcp", "dst", "port", "http", "and", "net", "10.0.0.0/8", "--", "id"],
                Some("tcp dst port http and net 10.0.0.0/8"),
            ),
            (&["(icmp", "or", "udp)", "--", "id"], Some("(icmp or udp)")),
            (&["not arp", "--", "id"], Some("not arp")),
            (&["tcp[13] & 2 != 0", "--", "id"], Some("tcp[13] & 2 != 0")),
            (&["ip", "netns", "exec", "gw", "--", "id"], None),
            (&["kubectl", "exec", "pod", "--", "id"], None),
            (&["ssh", "host", "--", "id"], None),
            (&["ip", "link"], None),
            (&["--", "--", "id"], None),
        ] {
            assert_eq!(command(line).expression().as_deref(), expression, "{line:?}");
        }
    }

    #[test]
    fn what_is_no_program_may_have_been_an_expression() {
        for (line, hinted) in [
            (&["tcp", "ping"][..], true),
            (&["tcp port 80", "ping"], true),
            (&["gw", "--", "ping"], true),
            (&["pign", "-c", "1"], false),
        ] {
            assert_eq!(command(line).hint().is_some(), hinted, "{line:?}");
        }
    }
    use crate::report::{finding::Finding, model::Report};

    fn finding(rule: &str, severity: Severity) -> Finding {
        Finding {
            rule: rule.to_owned(),
            severity,
            netns: None,
            subject: String::new(),
            title: format!("{rule} in gw"),
            object: None,
            explains: None,
            evidence: Vec::new(),
            actions: Vec::new(),
            unreachable: None,
            places: Vec::new(),
        }
    }

    fn run(reports: &[(bool, &[(&str, Severity)])]) -> Summing {
        let mut run = Summing::default();
        for (baseline, found) in reports {
            let findings = found.iter().map(|(rule, severity)| finding(rule, *severity)).collect();
            run.add(&Report { baseline: *baseline, findings, ..Report::default() });
        }
        run
    }

    fn exceeded(run: &Summing, least: Severity) -> Option<String> {
        let limits = Limits { finding: Some(least), ..Limits::default() };
        limits.check(run, 0.0).err().map(|failure| {
            assert_eq!(failure.code(), crate::exit::THRESHOLD);
            failure.to_string()
        })
    }

    #[test]
    fn a_finding_without_a_drop_is_enough() {
        use Severity::{Critical, Notice, Warning};
        let full = run(&[(false, &[]), (false, &[("full", Critical), ("refused", Warning)])]);
        let critical = "critical: full in gw, which --fail-on critical forbids";
        assert_eq!(exceeded(&full, Critical).as_deref(), Some(critical));
        let both = "critical: full in gw and 1 other finding, which --fail-on notice forbids";
        assert_eq!(exceeded(&full, Notice).as_deref(), Some(both));
        let refused = run(&[(false, &[("refused", Warning)])]);
        assert_eq!(exceeded(&refused, Critical), None);
        assert!(exceeded(&refused, Warning).is_some());
    }

    #[test]
    fn what_was_found_before_the_command_alone_is_not_its_fault() {
        let before = [("full", Severity::Critical)];
        assert_eq!(exceeded(&run(&[(true, &before), (false, &[])]), Severity::Notice), None);
        assert!(exceeded(&run(&[(true, &before), (false, &before)]), Severity::Notice).is_some());
    }

    #[test]
    fn what_ended_unread_is_said_where_findings_are_a_limit() {
        let limits = Limits { finding: Some(Severity::Warning), ..Limits::default() };
        let one: BTreeSet<String> = ["gw".to_owned()].into();
        assert_eq!(
            limits.unproved(&one).as_deref(),
            Some(
                "1 network namespace ended before its counters could be read, so --fail-on warning \
                 says nothing of losses there that no drop shows: gw"
            )
        );
        let many = (1..=6).map(|number| format!("netns {number}")).collect();
        let said = limits.unproved(&many).unwrap();
        assert!(said.starts_with("6 network namespaces ended before their counters"), "{said}");
        assert!(said.ends_with(": netns 1, netns 2, netns 3, netns 4, netns 5, …"), "{said}");
        assert_eq!(limits.unproved(&BTreeSet::new()), None);
        assert_eq!(Limits::default().unproved(&one), None);
    }

    #[test]
    fn all_that_was_exceeded_is_named() {
        let mut run = run(&[(false, &[("full", Severity::Critical)])]);
        run.add(&Report { drops: 7, interval_s: 1.0, ..Report::default() });
        let finding = Some(Severity::Critical);
        let limits = Limits { drops: Some(6), rate: Some(6.5), finding };
        let message = limits.check(&run, 7.0).unwrap_err().to_string();
        for part in ["7 packets dropped", "7.0 packets a second", "full in gw"] {
            assert!(message.contains(part), "{message}");
        }
        let limits = Limits { drops: Some(7), rate: Some(7.0), finding: None };
        limits.check(&run, 7.0).unwrap();
    }
}
