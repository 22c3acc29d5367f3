//! What a rule decides on: the drops of a report, and what changed on the host meanwhile.

mod devices;
mod questions;
mod rows;

use std::{borrow::Cow, collections::BTreeMap, net::SocketAddr, sync::LazyLock};

use dropwatch_common::NO_NETNS;

pub use self::rows::{Rows, SeenValues};
use super::{
    knowledge::{NOT_SPECIFIED, function_name},
    rules::{Proof, Rule},
};
use crate::report::{
    conntrack::{self, ConntrackStats},
    evidence::{
        Counters, HostEvidence, Link, NetnsEvidence, PacketQueue, Queue, QueueId, RulePrograms,
    },
    facts::Netns,
    finding::Unreachable,
    model::{Location, Report},
    question::{Answer, Answers, Ask, Question, Unanswered},
};

/// A report, and the host at its begin and end.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// For its sums: the rows to decide on are in [`Facts::locations`].
    pub report: &'a Report,
    scope: Scope,
    locations: &'a [Location],
    before: &'a HostEvidence,
    now: &'a HostEvidence,
    answers: &'a Answers,
    /// The rule that the facts are for: it may look up what it lists, and nothing else.
    rule: &'static Rule,
}

/// Whose drops a rule decides on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Those of the whole host.
    Host,
    /// Those of the namespace with this number in the run.
    Netns(u32),
    /// Those for which no namespace could be proved.
    Unknown,
}

/// The answer to a question, or why there is none. `Err` is the question itself, which nobody has
/// asked yet: a rule returns it by `?`, and decides again once it is answered.
pub type Answered<T> = Result<Result<T, Unanswered>, Ask>;

static NOT_ASKED: Answers = Answers::new();
/// What is known of a namespace that was not looked into.
static NOT_READ: LazyLock<NetnsEvidence> = LazyLock::new(NetnsEvidence::default);

impl<'a> Facts<'a> {
    pub fn new(report: &'a Report, before: &'a HostEvidence, now: &'a HostEvidence) -> Self {
        Self {
            report,
            scope: Scope::Host,
            locations: &report.locations,
            before,
            now,
            answers: &NOT_ASKED,
            rule: &Rule::NONE,
        }
    }

    /// Leaves the facts of `scope` alone, which has these rows.
    pub fn within(self, scope: Scope, locations: &'a [Location]) -> Self {
        Self { scope, locations, ..self }
    }

    /// The rows to decide on.
    pub fn locations(&self) -> &'a [Location] {
        self.locations
    }

    /// Drops of the scope that are not known to be harmless, those in rows that are not shown
    /// included.
    pub fn harmful(&self) -> u64 {
        if self.scope == Scope::Host {
            return self.report.harmful();
        }
        let rows = self.locations.iter().filter(|row| !row.benign);
        rows.fold(0, |sum: u64, row| sum.saturating_add(row.count))
    }

    /// Adds the answers that the host has given so far.
    pub fn with(self, answers: &'a Answers) -> Self {
        Self { answers, ..self }
    }

    /// Makes these the facts of `rule`, which may look up what it lists and nothing else.
    pub fn of(self, rule: &'static Rule) -> Self {
        Self { rule, ..self }
    }

    /// Returns the rule that the facts are for.
    pub fn rule(&self) -> &'static Rule {
        self.rule
    }

    /// How much of what a counter `counted` a sentence may say: packet filters leave the drops of `rows`
    /// alone, and a counter knows of no filter.
    pub fn selected(&self, counted: u64, rows: &Rows<'_>) -> u64 {
        match self.report.filter_undecided.is_some() && !rows.is_empty() {
            true => counted.min(rows.count()),
            false => counted,
        }
    }

    /// What a counter of the whole host counted in the interval; 0 where it is not there.
    pub fn delta(&self, name: &str) -> u64 {
        delta(&self.before.host, &self.now.host, name)
    }

    /// The value of a gauge of the whole host at the end of the report: `arp_cache.entries`.
    pub fn gauge(&self, name: &str) -> Option<u64> {
        self.now.host.get(name)
    }

    /// The programs of this host that show rules of the packet filter.
    pub fn rule_programs(&self) -> &'a RulePrograms {
        &self.now.rule_programs
    }

    /// A setting of the whole host.
    pub fn setting(&self, name: &str) -> Option<&'a str> {
        debug_assert!(self.rule.quotes(name), "the rule does not list {name}");
        self.now.settings.get(name).map(String::as_str)
    }

    /// The namespaces of the scope that were looked into, and those that samples name and that were not:
    /// they had ended, or no way led there.
    pub fn namespaces(&self) -> impl Iterator<Item = NetnsFacts<'a>> {
        let (facts, unread) = (*self, self.unread());
        self.looked_into().chain(unread.into_iter().map(move |netns| NetnsFacts {
            facts,
            netns: Some(netns),
            now: &NOT_READ,
            before: None,
        }))
    }

    fn looked_into(&self) -> impl Iterator<Item = NetnsFacts<'a>> {
        let facts = *self;
        let numbers = match self.scope {
            Scope::Host => 0..=u32::MAX,
            Scope::Netns(number) => number..=number,
            // No namespace has the number.
            Scope::Unknown => NO_NETNS..=NO_NETNS,
        };
        self.now.namespaces.range(numbers).map(move |(number, now)| facts.changed(*number, now))
    }

    fn unread(&self) -> Vec<&'a Netns> {
        let mut unread = Rows(self.locations.iter().collect()).namespaces();
        unread.retain(|netns| !self.now.namespaces.contains_key(&netns.number()));
        unread
    }

    /// Namespaces that track connections, be they of the scope or not, those with the most first.
    pub fn trackers(&self) -> Vec<NetnsFacts<'a>> {
        let entries = |it: &NetnsFacts<'_>| it.now.conntrack.map_or(0, |stats| stats.entries);
        let all = self.now.namespaces.iter().map(|(number, now)| self.changed(*number, now));
        let mut trackers: Vec<_> = all.filter(|namespace| entries(namespace) > 0).collect();
        trackers.sort_by_key(|namespace| std::cmp::Reverse(entries(namespace)));
        trackers
    }

    /// The namespace with this number in the run, be it of the scope or not.
    pub fn namespace(&self, number: u32) -> Option<NetnsFacts<'a>> {
        Some(self.changed(number, self.now.namespaces.get(&number)?))
    }

    fn changed(&self, number: u32, now: &'a NetnsEvidence) -> NetnsFacts<'a> {
        let before = self.before.namespaces.get(&number).filter(|it| !now.is_another_than(it));
        NetnsFacts { facts: *self, netns: now.netns.as_ref(), now, before }
    }

    /// Returns what a command has to start with to run in `netns`, which samples name: `ip netns exec
    /// gw `, or nothing.
    ///
    /// A number alone proves nothing: the kernel gives it to another namespace as soon as one has
    /// ended. Only what was the same namespace at the begin and at the end of the interval is the one
    /// in which packets were dropped in between. One that began meanwhile may have got the number of
    /// another that did, too, and whose packets these were.
    ///
    /// # Errors
    /// Why no command can be said to run there.
    pub fn prefix(&self, netns: Option<&Netns>) -> Result<&'a str, Unreachable> {
        let Self { before, now, .. } = *self;
        let cannot = |why: &str| {
            Err(Unreachable { ended: false, why: format!("no command for {}: {why}", name(netns)) })
        };
        let Some(number) = netns.map(Netns::number) else {
            return cannot("samples do not tell where the packets were dropped");
        };
        let Some(namespace) = now.namespaces.get(&number) else {
            if now.ended.contains(&number) || netns.is_some_and(|netns| netns.ended) {
                let why = format!("{} has ended: no command can be run there", name(netns));
                return Err(Unreachable { ended: true, why });
            }
            return cannot("it has ended, or no way into it is known here");
        };
        match before.namespaces.get(&number) {
            Some(before) if namespace.is_another_than(before) => {
                cannot("one of two that had the same number, of which the first has ended")
            }
            None | Some(NetnsEvidence { at_birth: true, .. }) => {
                cannot("it began within the report, and its number may have been another's")
            }
            Some(_) => prefix_of(namespace),
        }
    }

    /// Returns what a command has to start with to run in a namespace that its own counters are held
    /// against: they were read there, so it is no other that had its number.
    ///
    /// # Errors
    /// Why no command can be said to run there.
    pub fn prefix_in(&self, namespace: NetnsFacts<'a>) -> Result<&'a str, Unreachable> {
        match namespace.before {
            Some(NetnsEvidence { at_birth: true, .. }) => prefix_of(namespace.now),
            _ => self.prefix(namespace.netns()),
        }
    }

    /// Returns what a command has to start with to run in the host's own namespace.
    ///
    /// # Errors
    /// No path leads there, as in a container.
    pub fn host_prefix(&self) -> Result<&'a str, Unreachable> {
        self.now.host_prefix.as_deref().ok_or_else(|| Unreachable {
            ended: false,
            why: "no command: it is for the host itself, outside this container".to_owned(),
        })
    }

    fn answer<T>(
        &self,
        netns: u32,
        question: Question,
        take: impl FnOnce(Answer) -> Option<T>,
    ) -> Answered<T> {
        let ask = Ask { netns, question };
        let answer = self.answers.get(&ask).ok_or(ask)?;
        Ok(answer.and_then(|answer| take(answer).ok_or(Unanswered::Failed)))
    }

    /// Rows of the report that are about drops for one of `reasons`, at one of `functions`; either
    /// may be empty, for all. On kernels without reasons the functions alone count, and there have
    /// to be some.
    pub fn rows(&self, reasons: &[&str], functions: &[&str]) -> Rows<'a> {
        let matching = |row: &&Location| {
            let function = row.place.symbol.as_deref().map(function_name);
            let here = functions.is_empty() || function.is_some_and(|f| functions.contains(&f));
            let why = match row.place.reason.as_deref() {
                Some(reason) => reasons.is_empty() || reasons.contains(&reason),
                None => !functions.is_empty(),
            };
            here && why && !row.benign
        };
        Rows(self.locations.iter().filter(matching).collect())
    }

    /// Returns [`Facts::rows`], and the rows at `functions` whose reason is `NOT_SPECIFIED`, since
    /// not every caller in the kernel gives a reason.
    pub fn rows_or_unspecified(&self, reasons: &[&str], functions: &[&str]) -> Rows<'a> {
        self.rows(&[reasons, &[NOT_SPECIFIED]].concat(), functions)
    }

    /// Returns the rows of drops for `reason`, at whatever function, since a call that the compiler
    /// made a jump shows the caller instead. Where there are none, returns those at `functions`
    /// without a reason, since older kernels give none there.
    pub fn rows_for(&self, reason: &str, functions: &[&str]) -> Rows<'a> {
        let named = self.rows(&[reason], &[]);
        if named.is_empty() { self.rows(&[NOT_SPECIFIED], functions) } else { named }
    }
}

fn prefix_of(namespace: &NetnsEvidence) -> Result<&str, Unreachable> {
    namespace.prefix.as_deref().ok_or_else(|| {
        let name = name(namespace.netns.as_ref());
        let why = format!("no command for {name}: it ends with dropwatch");
        Unreachable { ended: false, why }
    })
}

/// What a title calls a namespace.
pub fn name(netns: Option<&Netns>) -> Cow<'_, str> {
    match netns {
        Some(Netns { name: Some(name), .. }) => Cow::Borrowed(name.as_str()),
        Some(netns) => Cow::Owned(netns.to_string()),
        None => Cow::Borrowed("an unknown netns"),
    }
}

/// A namespace at the end of an interval, and at its begin if it was known then.
#[derive(Clone, Copy, Debug)]
pub struct NetnsFacts<'a> {
    facts: Facts<'a>,
    netns: Option<&'a Netns>,
    pub now: &'a NetnsEvidence,
    before: Option<&'a NetnsEvidence>,
}

impl<'a> NetnsFacts<'a> {
    pub fn netns(&self) -> Option<&'a Netns> {
        self.netns
    }

    /// The name of the namespace, for a title.
    pub fn name(&self) -> Cow<'a, str> {
        name(self.netns())
    }

    /// What a counter counted in the interval; 0 where it is not there. Of a namespace whose counters
    /// cannot be compared, the drops that prove as much by their reason ([`Proof`]).
    pub fn delta(&self, name: &str) -> u64 {
        debug_assert!(self.facts.rule.asks_for(name), "the rule does not list {name}");
        match self.before {
            Some(before) => delta(&before.counters, &self.now.counters, name),
            None => self.proof(name).map_or(0, |proof| self.proved(proof)),
        }
    }

    /// What stands in for a counter of this namespace, whose counters cannot be compared since it
    /// ended before they could be read, or was not looked into before; `None` where they can be, and
    /// where only the counter could tell.
    pub fn proof(&self, counter: &str) -> Option<&'static Proof> {
        let stands_in = |proof: &&Proof| proof.counters.first() == Some(&counter);
        self.facts.rule.proofs().iter().find(stands_in).filter(|_| !self.is_comparable())
    }

    /// Whether what its counters counted in the interval is known.
    pub fn is_comparable(&self) -> bool {
        self.before.is_some()
    }

    /// Drops here for a reason that proves the cause, less those that counters of other namespaces
    /// claim.
    fn proved(&self, proof: &Proof) -> u64 {
        let mut rows = self.facts.rows(&[proof.reason], proof.functions);
        rows.0.retain(|row| row.place.reason.is_some());
        let claimed = self.facts.looked_into().fold(0, |sum: u64, other| {
            let counted = |name: &&str| {
                other.before.map_or(0, |it| delta(&it.counters, &other.now.counters, name))
            };
            proof.counters.iter().map(counted).fold(sum, u64::saturating_add)
        });
        let here = self.netns.map_or(0, |netns| rows.of_netns(netns.number()).count());
        here.min(rows.count().saturating_sub(claimed))
    }

    /// The value of a gauge at the end of the interval.
    pub fn gauge(&self, name: &str) -> Option<u64> {
        self.now.gauges.get(name)
    }

    pub fn setting(&self, name: &str) -> Option<&'a str> {
        debug_assert!(self.facts.rule.quotes(name), "the rule does not list {name}");
        self.now.settings.get(name).map(String::as_str)
    }

    /// The ends of UDP sockets that were connected at the begin or at the end of the interval.
    pub fn connected(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr)> + use<'a> {
        let both = [self.before, Some(self.now)].into_iter().flatten();
        both.flat_map(|at| at.connected.iter().copied())
    }

    /// Connection tracking, before and now.
    pub fn conntrack(&self) -> Option<(&'a ConntrackStats, &'a ConntrackStats)> {
        Some((self.before?.conntrack.as_ref()?, self.now.conntrack.as_ref()?))
    }

    /// What a counter of connection tracking counted in the interval.
    pub fn conntrack_delta(&self, counter: conntrack::ConntrackCounter) -> u64 {
        let since = self.conntrack().and_then(|(before, now)| now.counters.since(&before.counters));
        since.and_then(|since| since.get(counter)).unwrap_or(0)
    }

    /// Queues of the packet filter at the begin of the interval; `None` where nothing is known of it.
    pub fn queues_before(&self) -> Option<&'a BTreeMap<u16, PacketQueue>> {
        Some(&self.before?.queues)
    }

    /// Devices that were there at the begin, too.
    pub fn links(&self) -> impl Iterator<Item = LinkFacts<'a>> + use<'a> {
        let before = self.before;
        self.now.links.iter().filter_map(move |(index, now)| {
            let before = before?.links.get(index).filter(|before| before.name == now.name)?;
            Some(LinkFacts { now, before })
        })
    }
}

impl<'a> NetnsFacts<'a> {
    /// The device with this index, if it was there at the begin, too.
    pub fn link(&self, index: u32) -> Option<LinkFacts<'a>> {
        let (now, before) = (self.now.links.get(&index)?, self.before?.links.get(&index)?);
        (now.name == before.name).then_some(LinkFacts { now, before })
    }
}

/// A device at the begin and at the end of an interval.
#[derive(Clone, Copy, Debug)]
pub struct LinkFacts<'a> {
    pub now: &'a Link,
    before: &'a Link,
}

impl LinkFacts<'_> {
    /// Packets that it sent in the interval.
    pub fn sent(&self) -> u64 {
        self.now.sent.saturating_sub(self.before.sent)
    }

    /// What a counter counted in the interval.
    pub fn delta(&self, name: &str) -> u64 {
        delta(&self.before.counters, &self.now.counters, name)
    }

    /// Queueing disciplines that dropped something in the interval, and how much.
    pub fn queues(&self) -> Vec<(QueueId, &Queue, u64)> {
        let dropped = self.now.queues.iter().map(|(id, queue)| {
            let before = self.before.queues.get(id).filter(|it| it.kind == queue.kind);
            (*id, queue, queue.drops.saturating_sub(before.map_or(0, |before| before.drops)))
        });
        dropped.filter(|(.., drops)| *drops > 0).collect()
    }
}

fn delta(before: &Counters, now: &Counters, name: &str) -> u64 {
    match (before.get(name), now.get(name)) {
        (Some(before), Some(now)) => now.saturating_sub(before),
        _ => 0,
    }
}
