//! Hosts for tests of rules: what a test does not say is at rest.

use std::mem;

use jiff::Timestamp;

use super::super::{apart::Apart, facts::Facts};
use crate::report::{
    conntrack::{ConntrackStats, ConntrackTable},
    device::Mac,
    evidence::{HostEvidence, Link, Listener, NetnsEvidence, PacketQueue},
    facts::{Callers, Details, Fact, Interface, Netns, Owner, Pattern, Routed, Values},
    filter_rules::FilterReading,
    finding::Finding,
    flow::Flow,
    model::{self, Location, Lost, Other, Report, UndecidedBy},
    question::{Answer, Question, Unanswered},
};

/// Inode number of the namespace `gw`, which everything is about.
pub(in crate::diagnose) const GW: u32 = 7;

/// One host with one namespace, at the begin and at the end of an interval.
#[derive(Clone)]
pub(in crate::diagnose) struct TestHost {
    rows: Vec<Location>,
    pub(in crate::diagnose) before: HostEvidence,
    pub(in crate::diagnose) now: HostEvidence,
    answers: Vec<(Question, Result<Answer, Unanswered>)>,
    filtered: bool,
}

impl TestHost {
    pub(in crate::diagnose) fn new() -> Self {
        let gw = NetnsEvidence {
            netns: Some(Self::netns()),
            prefix: Some("ip netns exec gw ".into()),
            cookie: Some(70),
            ..NetnsEvidence::default()
        };
        let host = HostEvidence {
            namespaces: [(GW, gw)].into(),
            host_prefix: Some(String::new()),
            ..HostEvidence::default()
        };
        Self {
            rows: Vec::new(),
            before: host.clone(),
            now: host,
            answers: Vec::new(),
            filtered: false,
        }
    }

    /// Drops, dropped in `gw` according to their samples.
    pub(in crate::diagnose) fn row(mut self, count: u64, function: &str, reason: &str) -> Self {
        let netns = self.now.namespaces[&GW].netns.clone().expect("named");
        let details = Details {
            samples: 1,
            weight: count,
            netns: Some(Fact { is: netns, share: 1.0 }),
            ..Details::default()
        };
        self.rows.push(Location {
            place: model::Place {
                symbol: Some(function.to_owned()),
                offset: Some(1),
                module: None,
                reason: (!reason.is_empty()).then(|| reason.to_owned()),
                subsystem: Some("CORE".to_owned()),
            },
            address: model::Address::default(),
            count,
            rate: count as f64,
            share: 0.0,
            total: count,
            benign: false,
            new: false,
            details: Some(details),
            stacks: Vec::new(),
            ..Location::default()
        });
        self
    }

    /// The rows are what packet filters let through.
    pub(super) fn filtered(self) -> Self {
        Self { filtered: true, ..self }
    }

    /// The last row is known to be harmless.
    pub(super) fn benign(mut self) -> Self {
        self.rows.last_mut().expect("a row").benign = true;
        self
    }

    /// Changes the details of the last row, which its samples give.
    pub(in crate::diagnose) fn details(mut self, change: impl FnOnce(&mut Details)) -> Self {
        change(self.rows.last_mut().and_then(|row| row.details.as_mut()).expect("a row"));
        self
    }

    pub(in crate::diagnose) fn callers(self, callers: &[&str]) -> Self {
        let callers = callers.iter().map(|caller| Some((*caller).to_owned())).collect();
        self.paths(&[Callers { callers }])
    }

    /// Call paths of the last row, each with as many drops.
    pub(in crate::diagnose) fn paths(self, paths: &[Callers]) -> Self {
        self.details(|details| {
            let each = details.weight / paths.len() as u64;
            let share = 1.0 / paths.len() as f64;
            details.path = Some(Fact { is: paths[0].clone(), share });
            details.values.paths = paths.iter().map(|path| (path.clone(), each)).collect();
        })
    }

    pub(in crate::diagnose) fn interface(self, name: &str) -> Self {
        let is = Interface { name: Some(name.to_owned()), index: 2 };
        self.details(|details| {
            details.values.devices = [(is.index, details.weight)].into();
            details.interface = Some(Fact { is, share: 1.0 });
        })
    }

    /// The stations that all frames of the last row were for and from.
    pub(in crate::diagnose) fn stations(self, to: Mac, from: Mac) -> Self {
        self.details(|details| details.values.stations = [((to, from), details.weight)].into())
    }

    pub(in crate::diagnose) fn flow(self, flow: Flow) -> Self {
        self.flows(&[flow])
    }

    /// Flows of the last row, each with as many drops. The first stands for them, as a pattern may.
    pub(in crate::diagnose) fn flows(self, flows: &[Flow]) -> Self {
        self.details(|details| {
            let share = 1.0 / flows.len() as f64;
            let (flow, varies) = (flows[0].clone(), Vec::new());
            details.flow = Some(Pattern { flow, varies, share });
            let each = details.weight / flows.len() as u64;
            let Values { paths, devices, stations, .. } = mem::take(&mut details.values);
            details.values = Values { paths, devices, stations, ..Values::default() };
            flows.iter().for_each(|flow| details.values.add(None, Some(flow), 0, each));
        })
    }

    /// The mark of all packets of the last row, whose flows are set.
    pub(in crate::diagnose) fn mark(self, mark: u32) -> Self {
        self.details(|details| {
            let routed = mem::take(&mut details.values.routed).into_iter();
            details.values.routed =
                routed.map(|(it, drops)| (Routed { mark, ..it }, drops)).collect();
        })
    }

    pub(in crate::diagnose) fn owner(self, owner: Owner) -> Self {
        self.details(|details| details.owner = Some(Fact { is: owner, share: 1.0 }))
    }

    /// The last row without samples.
    pub(in crate::diagnose) fn unsampled(mut self) -> Self {
        self.rows.last_mut().expect("a row").details = None;
        self
    }

    /// All rows without samples.
    pub(super) fn nothing_sampled(mut self) -> Self {
        self.rows.iter_mut().for_each(|row| row.details = None);
        self
    }

    /// Samples call the namespace so.
    pub(super) fn named(mut self, name: &str) -> Self {
        for row in &mut self.rows {
            if let Some(fact) = row.details.as_mut().and_then(|details| details.netns.as_mut()) {
                fact.is.name = Some(name.to_owned());
            }
        }
        self
    }

    /// A counter of the namespace that stood at 5 and counted so many.
    pub(in crate::diagnose) fn counted(mut self, name: &str, count: u64) -> Self {
        self.before.namespaces.get_mut(&GW).expect("gw").counters.add(name.to_owned(), 5);
        self.now.namespaces.get_mut(&GW).expect("gw").counters.add(name.to_owned(), 5 + count);
        self
    }

    /// How something of the namespace stands that rises and falls.
    pub(in crate::diagnose) fn gauge(mut self, name: &str, value: u64) -> Self {
        self.now.namespaces.get_mut(&GW).expect("gw").gauges.add(name.to_owned(), value);
        self
    }

    /// A counter of the host that stood at 5 and counted so many.
    pub(in crate::diagnose) fn host_counted(mut self, name: &str, count: u64) -> Self {
        self.before.host.add(name.to_owned(), 5);
        self.now.host.add(name.to_owned(), 5 + count);
        self
    }

    /// A setting of the namespace.
    pub(in crate::diagnose) fn setting(mut self, name: &str, value: &str) -> Self {
        let gw = self.now.namespaces.get_mut(&GW).expect("gw");
        gw.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// A setting of the host.
    pub(in crate::diagnose) fn host_setting(mut self, name: &str, value: &str) -> Self {
        self.now.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// A device of `gw`, of which a counter stood at 5 and counted so many.
    pub(in crate::diagnose) fn link(mut self, link: &Link, counter: &str, count: u64) -> Self {
        for (evidence, value) in [(&mut self.before, 5), (&mut self.now, 5 + count)] {
            let links = &mut evidence.namespaces.get_mut(&GW).expect("gw").links;
            links.entry(2).or_insert_with(|| link.clone()).counters.add(counter.to_owned(), value);
        }
        self
    }

    /// The longest accept queue.
    pub(in crate::diagnose) fn listener(mut self, listener: Listener) -> Self {
        self.now.namespaces.get_mut(&GW).expect("gw").fullest_listener = Some(listener);
        self
    }

    /// What of the packet filter's rules of `gw` drops.
    pub(super) fn filter(mut self, reading: FilterReading) -> Self {
        self.now.namespaces.get_mut(&GW).expect("gw").filter = Some(reading);
        self
    }

    /// A device of `gw` that is up and at rest.
    pub(in crate::diagnose) fn device(mut self, index: u32, name: &str, mtu: u32) -> Self {
        let link = Link { name: name.to_owned(), mtu, up: true, ..Link::default() };
        for evidence in [&mut self.before, &mut self.now] {
            evidence.namespaces.get_mut(&GW).expect("gw").links.insert(index, link.clone());
        }
        self
    }

    pub(in crate::diagnose) fn conntrack(
        mut self,
        before: ConntrackStats,
        now: ConntrackStats,
    ) -> Self {
        self.before.namespaces.get_mut(&GW).expect("gw").conntrack = Some(before);
        self.conntrack_now(now)
    }

    pub(in crate::diagnose) fn conntrack_now(mut self, now: ConntrackStats) -> Self {
        self.now.namespaces.get_mut(&GW).expect("gw").conntrack = Some(now);
        self
    }

    pub(in crate::diagnose) fn table(mut self, table: ConntrackTable) -> Self {
        self.now.namespaces.get_mut(&GW).expect("gw").table = Some(table);
        self
    }

    /// A queue of the packet filter at which a program listens at the end.
    pub(super) fn queue(
        mut self,
        number: u16,
        then: Option<PacketQueue>,
        now: PacketQueue,
    ) -> Self {
        let queues = |evidence: &mut HostEvidence, queue| {
            evidence.namespaces.get_mut(&GW).expect("gw").queues.insert(number, queue);
        };
        then.into_iter().for_each(|then| queues(&mut self.before, then));
        queues(&mut self.now, now);
        self
    }

    /// What `gw` answers; nothing to any other question.
    pub(super) fn answer(mut self, question: Question, answer: Answer) -> Self {
        self.answers.push((question, Ok(answer)));
        self
    }

    /// Why `gw` does not answer.
    pub(super) fn unanswered(mut self, question: Question, why: Unanswered) -> Self {
        self.answers.push((question, Err(why)));
        self
    }

    /// No question is answered.
    pub(super) fn silent(self) -> Self {
        Self { answers: Vec::new(), ..self }
    }

    /// The namespace `gw`.
    pub(in crate::diagnose) fn netns() -> Netns {
        Netns::new(Some("gw".into()), GW)
    }

    pub(super) fn run(self, rule: &'static super::Rule) -> Vec<Finding> {
        let (before, now) = (self.before.clone(), self.now.clone());
        let answers = self.answers.clone();
        let report = self.report();
        let apart = Apart::new(&report, now.namespaces.keys().copied());
        let facts = Facts::new(&report, &before, &now);
        let findings = super::decide(&[rule], &facts, &apart, &mut |asks, known| {
            for ask in asks {
                let answer = answers.iter().find(|(question, _)| *question == ask.question);
                let answer = answer.filter(|_| ask.netns == GW).map(|(_, answer)| answer.clone());
                known.insert(*ask, answer.unwrap_or(Err(Unanswered::Gone)));
            }
        });
        findings.iter().for_each(explained);
        findings
    }

    /// Runs the rule that makes findings of this name.
    pub(in crate::diagnose) fn run_named(self, finding: &str) -> Vec<Finding> {
        let rule = super::RULES.iter().find(|rule| rule.makes(finding));
        self.run(rule.expect("a rule"))
    }

    /// Makes the report of an interval in which these drops happened.
    pub(in crate::diagnose) fn report(self) -> Report {
        let drops = self.rows.iter().map(|row| row.count).sum();
        Report {
            seq: 1,
            host: model::Host::default(),
            start: Timestamp::UNIX_EPOCH,
            end: Timestamp::UNIX_EPOCH,
            interval_s: 1.0,
            intervals: 1,
            baseline: false,
            drops,
            rate: drops as f64,
            locations: self.rows,
            other: Other::default(),
            lost: Lost::default(),
            filter_undecided: self.filtered.then_some(0),
            filter_undecided_by: UndecidedBy::default(),
            groups: None,
            findings: Vec::new(),
            more_findings: Vec::new(),
        }
    }
}

/// Whoever sees a finding can ask what it means, by its rule and by its headline.
fn explained(finding: &Finding) {
    let Finding { rule, title, severity, .. } = finding;
    let table = crate::diagnose::knowledge::table().expect("table");
    for typed in [rule.clone(), title.clone(), format!("{}  {title}", severity.name())] {
        let answer = table.find(&typed).unwrap_or_else(|unknown| panic!("{unknown}"));
        let names: Vec<&str> = answer.rules.iter().map(|rule| rule.rule.as_str()).collect();
        assert_eq!(names, [rule.as_str()], "{typed}");
    }
}
