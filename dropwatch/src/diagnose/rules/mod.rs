//! The rules: each decides from [`Facts`] alone whether one cause is at work, and proves it.
//!
//! A rule speaks only of what was counted in the interval, and only where it can show the counter,
//! the table or the rows that it rests on. Where two causes look alike (a full conntrack table and
//! an iptables rule, say), each takes what its own counter proves and leaves the rest. What packets
//! are refused in small numbers on every healthy host is the business of `matters`.
//!
//! What to change and what that costs comes from the knowledge table, so that findings and
//! `dropwatch explain` never differ.

mod accept_queue;
mod checksums;
mod closed_port;
mod conntrack_full;
mod conntrack_insert;
mod cpu_backlog;
mod draft;
mod forwarding;
mod fragments;
mod hops;
mod martian;
mod mtu;
mod neighbour_failed;
mod neighbour_queue;
mod neighbour_table;
mod netfilter;
mod nic;
mod no_route;
mod program;
mod qdisc;
#[cfg(test)]
mod reach;
mod reverse_path;
mod socket_filter;
mod syn_queue;
mod tcp_backlog;
mod tcp_receive_memory;
#[cfg(test)]
pub(super) mod testing;
mod udp_memory;
mod udp_receive_buffer;
mod unhandled;

use std::{cmp::Reverse, collections::BTreeSet};

use self::draft::{Draft, quote};
use super::facts::Facts;
use crate::report::{
    evidence::{Evidence, WatchList},
    finding::{Finding, Severity},
    model::{Report, share},
};

/// A rule: what it finds, everything that it asks a host for, and how it decides.
///
/// What is not listed here is not read, so a rule that asks for more fails its own tests.
#[derive(Debug)]
pub struct Rule {
    /// The findings that it can make.
    findings: &'static [Makes],
    /// Counters of a namespace: `Udp.NoPorts`.
    counters: &'static [&'static str],
    /// Settings of a namespace that it quotes: `net.ipv4.ip_forward`.
    settings: &'static [&'static str],
    /// Settings of a device, whose name stands in for `DEV`; slashes keep its dots apart.
    device_settings: &'static [&'static str],
    /// Losses of the whole host, in whatever namespace they are: `softnet.dropped`.
    host_losses: &'static [&'static str],
    /// Settings of the whole host that it quotes.
    host_settings: &'static [&'static str],
    check: fn(&Facts<'_>) -> Vec<Finding>,
}

/// A kind of finding, as docs/json.md lists it.
#[derive(Debug)]
pub struct Makes {
    /// Stable.
    pub name: &'static str,
    pub severity: &'static str,
    pub says: &'static str,
    pub rests_on: &'static str,
}

impl Rule {
    /// Asks for nothing and finds nothing.
    pub const NONE: Self = Self {
        findings: &[],
        counters: &[],
        settings: &[],
        device_settings: &[],
        host_losses: &[],
        host_settings: &[],
        check: |_| Vec::new(),
    };

    /// Whether it lists a counter of a namespace.
    pub fn asks_for(&self, counter: &str) -> bool {
        self.counters.contains(&counter)
    }

    /// Whether it lists a setting, of whatever it may be.
    pub fn quotes(&self, setting: &str) -> bool {
        let parts: Vec<&str> = setting.split('/').collect();
        if let ["net", family, kind, _, name] = parts.as_slice() {
            let general = format!("net/{family}/{kind}/DEV/{name}");
            return self.device_settings.contains(&general.as_str());
        }
        self.settings.contains(&setting) || self.host_settings.contains(&setting)
    }

    /// Whether it makes findings of this name.
    pub fn makes(&self, finding: &str) -> bool {
        self.findings.iter().any(|kind| kind.name == finding)
    }
}

const RULES: &[&Rule] = &[
    &conntrack_full::RULE,
    &conntrack_insert::RULE,
    &netfilter::RULE,
    &program::RULE,
    &forwarding::RULE,
    &qdisc::RULE,
    &nic::RULE,
    &udp_receive_buffer::RULE,
    &udp_memory::RULE,
    &accept_queue::RULE,
    &syn_queue::RULE,
    &tcp_receive_memory::RULE,
    &tcp_backlog::RULE,
    &cpu_backlog::RULE,
    &closed_port::RULE,
    &socket_filter::RULE,
    &reverse_path::RULE,
    &no_route::RULE,
    &neighbour_failed::RULE,
    &neighbour_queue::RULE,
    &neighbour_table::RULE,
    &unhandled::RULE,
    &mtu::RULE,
    &checksums::RULE,
    &fragments::RULE,
    &hops::RULE,
    &martian::RULE,
];

/// Everything that any rule asks a host for.
pub fn watch_list() -> WatchList {
    let all = |of: fn(&Rule) -> &'static [&'static str]| -> BTreeSet<&'static str> {
        RULES.iter().flat_map(|rule| of(rule)).copied().collect()
    };
    let list = |of| Vec::from_iter(all(of));
    WatchList {
        counters: all(|rule| rule.counters).iter().filter_map(|it| it.split_once('.')).collect(),
        overflows: accept_queue::OVERFLOWS,
        settings: list(|rule| rule.settings),
        device_settings: list(|rule| rule.device_settings),
        host_losses: list(|rule| rule.host_losses),
        host_settings: list(|rule| rule.host_settings),
    }
}

/// Every kind of finding, in the order of the rules.
pub fn kinds() -> impl Iterator<Item = &'static Makes> {
    RULES.iter().flat_map(|rule| rule.findings)
}

/// Drops below this part of all are not worth a finding that rests on drops alone.
const LEAST_SHARE: f64 = 0.01;
/// Nor are fewer than so many in an interval.
const LEAST_DROPS: u64 = 3;
/// More a second of what is usual in small numbers (announcements of switches, traceroute, senders
/// that find out an MTU) mean something.
const USUAL_PER_SECOND: f64 = 10.0;

/// What is wrong on a host whose evidence was `before` at the begin of `report` and is `now` at
/// its end: the most severe first, then what explains the most.
pub fn findings(report: &Report, before: &Evidence, now: &Evidence) -> Vec<Finding> {
    let facts = Facts::new(report, before, now);
    let mut findings: Vec<Finding> =
        RULES.iter().flat_map(|rule| (rule.check)(&facts.of(rule))).collect();
    findings.sort_by_key(|finding| {
        (finding.severity, Reverse(finding.explains.map_or(0, |explains| explains.drops)))
    });
    findings
}

/// Whether so many drops are more than what is usual on a healthy host.
fn matters(drops: u64, facts: &Facts<'_>) -> bool {
    // What no drop event shows is part of no report's drops, and what is harmless hides nothing.
    let all = facts.report.harmful().max(drops);
    drops >= LEAST_DROPS && share(drops, all) >= LEAST_SHARE
}

/// How severe drops are of a kind that every healthy host has a few of.
fn by_rate(drops: u64, facts: &Facts<'_>) -> Severity {
    match drops as f64 > USUAL_PER_SECOND * facts.report.interval_s {
        true => Severity::Warning,
        false => Severity::Notice,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::knowledge;

    #[test]
    fn what_rules_rest_on_can_be_asked_for() {
        let table = knowledge::table().expect("table");
        let asked = RULES.iter().flat_map(|rule| {
            [
                rule.counters,
                rule.settings,
                rule.device_settings,
                rule.host_losses,
                rule.host_settings,
            ]
            .concat()
        });
        for name in asked {
            let answer = table.find(name);
            assert!(answer.is_ok(), "{answer:?}");
        }
    }

    /// What a command changes, it changes for the namespace or for the host, never for the wrong one.
    #[test]
    fn settings_are_of_a_namespace_or_of_the_host() {
        for rule in RULES {
            assert!(rule.host_settings.iter().all(|name| draft::is_host_wide(name)));
            assert!(!rule.settings.iter().any(|name| draft::is_host_wide(name)));
        }
    }

    #[test]
    fn a_kind_of_finding_is_one_rule_s() {
        let names: Vec<_> = kinds().map(|kind| kind.name).collect();
        let once: BTreeSet<_> = names.iter().collect();
        assert_eq!(once.len(), names.len(), "{names:?}");
    }

    #[test]
    fn every_file_with_a_rule_is_in_the_list() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/diagnose/rules");
        let files = std::fs::read_dir(folder).expect("folder");
        let rule = concat!("const RULE: ", "Rule = Rule {");
        let texts =
            files.map(|file| std::fs::read_to_string(file.expect("file").path()).expect("text"));
        assert_eq!(texts.filter(|text| text.contains(rule)).count(), RULES.len());
    }

    #[test]
    fn the_documentation_lists_every_kind() {
        let page = include_str!("../../../../docs/json.md");
        let row = |kind: &Makes| {
            let Makes { name, severity, says, rests_on } = kind;
            format!("| `{name}` | {severity} | {says} | {rests_on} |")
        };
        let listed: BTreeSet<_> = page
            .lines()
            .skip_while(|line| !line.starts_with("| rule |"))
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .map(str::to_owned)
            .collect();
        assert_eq!(listed, kinds().map(row).collect());
    }

    #[test]
    #[should_panic(expected = "does not list Udp.NoPorts")]
    fn a_rule_that_asks_for_what_it_does_not_list_fails_its_tests() {
        const FORGETFUL: Rule = Rule {
            check: |facts| {
                facts.spaces().for_each(|space| assert_eq!(space.delta("Udp.NoPorts"), 0));
                Vec::new()
            },
            ..Rule::NONE
        };
        testing::Host::new().run(&FORGETFUL);
    }
}
