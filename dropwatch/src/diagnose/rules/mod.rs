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
mod bridge_port;
mod bridge_vlan;
#[cfg(test)]
mod carried;
mod checksums;
mod closed_port;
mod conntrack_full;
mod conntrack_insert;
mod conntrack_invalid;
mod conntrack_stale;
mod cpu_backlog;
mod draft;
mod elsewhere;
mod forwarding;
mod fragments;
mod hops;
mod ipsec;
mod ipv6_off;
mod martian;
mod mtu;
mod multicast_elsewhere;
mod narrow_end;
mod nat_ports;
mod neighbour_failed;
mod neighbour_queue;
mod neighbour_table;
mod netfilter;
mod nic;
mod no_carrier;
mod no_route;
mod objects;
mod packet_queue;
mod program;
mod qdisc;
#[cfg(test)]
mod reach;
mod refusing_route;
mod reverse_path;
mod socket_filter;
mod syn_queue;
mod tap_full;
mod tcp_backlog;
mod tcp_receive_memory;
#[cfg(test)]
pub(super) mod testing;
mod tunnel_remote;
mod udp_memory;
mod udp_receive_buffer;
mod unhandled;
mod unread;

use std::{cmp::Reverse, collections::BTreeSet, mem, slice};

use self::draft::{Draft, quote};
pub use self::netfilter::{at_hooks, filtered};
use super::{
    apart::Apart,
    facts::{Facts, Rows},
    late::{Counts, Kept},
    typed::keep_typed,
};
use crate::report::{
    evidence::{HostEvidence, WatchList},
    facts::Netns,
    finding::{Finding, Severity},
    model::Report,
    number::share,
    question::{Answers, Ask},
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
    /// Drops that prove as much as one of these counters.
    proofs: &'static [Proof],
    /// Drops that its counters count, besides those of its proofs.
    counts: &'static [Counts],
    /// Settings of a namespace that it quotes: `net.ipv4.ip_forward`.
    settings: &'static [&'static str],
    /// Settings of a device, whose name stands in for `DEV`; slashes keep its dots apart.
    device_settings: &'static [&'static str],
    /// Losses of the whole host, in whatever namespace they are: `softnet.dropped`.
    host_losses: &'static [&'static str],
    /// Settings of the whole host that it quotes.
    host_settings: &'static [&'static str],
    /// It decides on the drops of all namespaces together: what it is about happens in another one than
    /// they do.
    across: bool,
    /// Decides at once.
    check: fn(&Facts<'_>) -> Vec<Finding>,
    /// Decides, or asks the host first; called again when it has answered.
    check_or_ask: fn(&Facts<'_>) -> Vec<Verdict>,
}

/// Drops whose reason alone proves what a counter would: they stand in for it where the counter cannot
/// be read any more, or was not read before.
#[derive(Debug)]
pub struct Proof {
    /// Of the rule's counters, those that count such drops: the first is stood in for.
    pub counters: &'static [&'static str],
    pub reason: &'static str,
    /// Where; anywhere if there are none.
    pub functions: &'static [&'static str],
}

impl Proof {
    const fn of(
        counters: &'static [&'static str],
        reason: &'static str,
        functions: &'static [&'static str],
    ) -> Self {
        Self { counters, reason, functions }
    }
}

/// What comes of a rule's look at one namespace.
#[derive(Debug)]
pub enum Verdict {
    Found(Finding),
    /// It depends on this.
    Ask(Ask),
}

impl Verdict {
    /// Nothing where nothing was found; a question that was met on the way is asked.
    fn of(decided: Result<Option<Finding>, Ask>) -> Option<Self> {
        decided.map_or_else(|ask| Some(Self::Ask(ask)), |found| found.map(Self::Found))
    }
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
        proofs: &[],
        counts: &[],
        settings: &[],
        device_settings: &[],
        host_losses: &[],
        host_settings: &[],
        across: false,
        check: |_| Vec::new(),
        check_or_ask: |_| Vec::new(),
    };

    /// What it finds, and what it asks before it can decide.
    fn decide(&self, facts: &Facts<'_>) -> (Vec<Finding>, Vec<Ask>) {
        let (mut found, mut asks) = ((self.check)(facts), Vec::new());
        for verdict in (self.check_or_ask)(facts) {
            match verdict {
                Verdict::Found(finding) => found.push(finding),
                Verdict::Ask(ask) => asks.push(ask),
            }
        }
        (found, asks)
    }

    /// Whether it lists a counter of a namespace.
    pub fn asks_for(&self, counter: &str) -> bool {
        self.counters.contains(&counter)
    }

    /// What can stand in for its counters.
    pub fn proofs(&self) -> &'static [Proof] {
        self.proofs
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
    &no_carrier::RULE,
    &narrow_end::RULE,
    &bridge_port::RULE,
    &bridge_vlan::RULE,
    &tunnel_remote::RULE,
    &tap_full::RULE,
    &forwarding::RULE,
    &qdisc::RULE,
    &nic::RULE,
    &udp_receive_buffer::RULE,
    &udp_memory::RULE,
    &accept_queue::RULE,
    &syn_queue::RULE,
    &tcp_receive_memory::RULE,
    &tcp_backlog::RULE,
    &unread::RULE,
    &cpu_backlog::RULE,
    &closed_port::RULE,
    &socket_filter::RULE,
    &reverse_path::RULE,
    &no_route::RULE,
    &refusing_route::RULE,
    &neighbour_failed::RULE,
    &neighbour_queue::RULE,
    &neighbour_table::RULE,
    &unhandled::RULE,
    &mtu::RULE,
    &checksums::RULE,
    &fragments::RULE,
    &hops::RULE,
    &martian::RULE,
    &multicast_elsewhere::RULE,
    &ipv6_off::RULE,
    &packet_queue::RULE,
    &ipsec::RULE,
    &conntrack_stale::RULE,
    &conntrack_invalid::RULE,
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
        refusals: closed_port::REFUSALS,
        settings: list(|rule| rule.settings),
        device_settings: list(|rule| rule.device_settings),
        host_losses: list(|rule| rule.host_losses),
        host_settings: list(|rule| rule.host_settings),
    }
}

/// Which drops the counters of all rules count.
pub fn counts() -> impl Iterator<Item = Counts> {
    RULES.iter().flat_map(|rule| {
        let proofs = rule.proofs.iter();
        let proved = proofs.map(|it| {
            Counts::of(Kept::Netns(it.counters), slice::from_ref(&it.reason), it.functions)
        });
        proved.chain(rule.counts.iter().copied())
    })
}

/// Every kind of finding, in the order of the rules.
pub fn kinds() -> impl Iterator<Item = &'static Makes> {
    RULES.iter().flat_map(|rule| rule.findings)
}

/// Drops below this part of all are not worth a finding that rests on drops alone.
const LEAST_SHARE: f64 = 0.01;
/// Fewer drops than this in an interval are not worth a finding that rests on drops alone.
const LEAST_DROPS: u64 = 3;
/// More a second of what is usual in small numbers (announcements of switches, traceroute, senders
/// that find out an MTU) mean something.
const USUAL_PER_SECOND: f64 = 10.0;

/// How often a rule may ask: a second question may depend on the answer to the first.
const ROUNDS: usize = 3;

/// What answers the questions of rules, each with an answer or with why there is none.
pub type Answerer<'a> = &'a mut dyn FnMut(&[Ask], &mut Answers);

/// What is wrong on a host whose evidence was `before` at the begin of `report` and is `now` at
/// its end: the most severe first, then what explains the most. What a rule asks, `answer` is called
/// for; where none asks, never.
pub fn findings(
    report: &Report,
    before: &HostEvidence,
    now: &HostEvidence,
    answer: Answerer<'_>,
) -> Vec<Finding> {
    let apart = Apart::new(report, now.namespaces.keys().copied());
    let mut findings = decide(RULES, &Facts::new(report, before, now), &apart, answer);
    findings.iter_mut().for_each(keep_typed);
    findings.sort_by_key(|finding| {
        (finding.severity, Reverse(finding.explains.map_or(0, |explains| explains.drops)))
    });
    findings
}

/// What `rules` find, in their order. Each that asks decides anew, with all that was answered; what is
/// still open after the last round is not found.
fn decide(
    rules: &[&'static Rule],
    facts: &Facts<'_>,
    apart: &Apart<'_>,
    answer: Answerer<'_>,
) -> Vec<Finding> {
    let mut answers = Answers::default();
    // A rule that asks for losses of the whole host is about it.
    let scopes = |rule: &&'static Rule| {
        let rule = *rule;
        let host = rule.across || !rule.host_losses.is_empty();
        apart.scopes(host).map(move |(scope, rows)| (rule, scope, rows))
    };
    let looks: Vec<_> = rules.iter().flat_map(scopes).collect();
    let mut found: Vec<Vec<Finding>> = looks.iter().map(|_| Vec::new()).collect();
    let mut undecided: Vec<usize> = (0..looks.len()).collect();
    for round in 0..=ROUNDS {
        let mut asks = BTreeSet::new();
        let facts = facts.with(&answers);
        for index in mem::take(&mut undecided) {
            let (Some(&(rule, scope, rows)), Some(found)) =
                (looks.get(index), found.get_mut(index))
            else {
                continue;
            };
            let open;
            (*found, open) = rule.decide(&facts.of(rule).within(scope, rows));
            if !open.is_empty() {
                undecided.push(index);
            }
            asks.extend(open);
        }
        // Each is asked once, whoever asks.
        let asks: Vec<Ask> = asks.into_iter().collect();
        if asks.is_empty() || round == ROUNDS {
            break;
        }
        answer(&asks, &mut answers);
    }
    found.into_iter().flatten().collect()
}

/// Decides on the drops of each device of each namespace by themselves. What is of no known namespace is
/// left out: its device cannot be asked for.
fn by_device<'a>(
    rows: &Rows<'a>,
    decide: impl Fn(&'a Netns, u32, &Rows<'a>, u64) -> Result<Option<Finding>, Ask>,
) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (netns, rows) in rows.by_netns() {
        let Some(netns) = netns else { continue };
        for (index, (rows, drops)) in rows.by_device() {
            verdicts.extend(Verdict::of(decide(netns, index, &rows, drops)));
        }
    }
    verdicts
}

/// Whether so many drops are more than what is usual on a healthy host.
fn matters(drops: u64, facts: &Facts<'_>) -> bool {
    // What no drop event shows is part of no report's drops, and what is harmless hides nothing.
    let all = facts.harmful().max(drops);
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
mod tests;
