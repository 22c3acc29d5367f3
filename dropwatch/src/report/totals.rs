//! Sums since the run began, as metrics have them: exact, and with a bound on how many there are.

mod bound;
mod groups;
mod namespaces;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use self::bound::{Rowless, netns_label};
pub use self::{
    bound::{OTHER, UNKNOWN},
    groups::{GroupKey, GroupSums, MOST_GROUPS},
    namespaces::{MOST_NAMESPACES, MOST_REASONS, NAMESPACES, NamespaceKey, NamespaceSums},
};
use super::{
    conntrack::{ConntrackCounter, ConntrackCounters},
    facts::Netns,
    finding::{Finding, Severity},
    model::{Host, Report},
    place::Place,
    snapshot::Lost,
};

/// Most places that have a sum of their own, since a metrics database keeps a series for each. The
/// drops of further ones are summed.
pub const MOST_PLACES: usize = 1_000;
/// Most findings that have sums of their own: what a rule finds in further namespaces is summed for
/// all of these together.
pub const MOST_FINDINGS: usize = 1_000;
/// Most sums of that kind, one for each rule, since a recording may hold any number of names.
pub const MOST_RULES: usize = 100;
/// Most ended namespaces whose refused packets have a sum of their own.
pub const MOST_ENDED: usize = 1_000;

/// A rule that found something, how bad, and where.
pub type FindingKey = (String, Severity, String);

/// What a rule has found since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FindingSums {
    /// Reports that have it, however often.
    pub reports: u64,
    /// Drops that it explains, in all reports.
    pub drops: u64,
}

/// Connection tracking of a namespace at the end of a report.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracked {
    pub netns: Netns,
    pub entries: u64,
    pub limit: Option<u64>,
    pub counters: ConntrackCounters,
}

/// Connection tracking at the end of the last report, by the name of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConntrackGauges {
    pub entries: u64,
    pub limit: Option<u64>,
}

/// Everything that metrics show.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    pub host: Host,
    /// Version of the dropwatch that counted.
    pub version: String,
    /// Nominal interval, seconds.
    pub interval_s: f64,
    pub reports: u64,
    /// End of the last report.
    pub last: Option<Timestamp>,
    /// Drops by place, and whether they are known to be harmless. Without offsets: other builds have
    /// others. Drops whose location is unknown have no name.
    pub places: BTreeMap<(Place, bool), u64>,
    /// Drops at places beyond the bound that are not known to be harmless.
    pub other: u64,
    /// Harmless drops at places beyond the bound.
    pub other_benign: u64,
    /// The same drops by network namespace.
    pub namespaces: NamespaceSums,
    /// The same drops by group, where reports have groups.
    pub groups: GroupSums,
    pub lost: Lost,
    pub undecided: Option<u64>,
    /// How many findings of a kind the last report has.
    pub findings: BTreeMap<FindingKey, u64>,
    /// What was found since the run began: a finding is of one report, and most of them are made
    /// between two looks at these totals.
    pub found: BTreeMap<FindingKey, FindingSums>,
    /// Connection tracking by the name of a namespace, for those that the last report knows.
    pub conntrack: BTreeMap<String, ConntrackGauges>,
    /// Packets that connection tracking refused since the run began, by the name of a namespace,
    /// those that have ended included.
    pub refused: BTreeMap<String, u64>,
    /// What a namespace had counted at the end of the last report, by its inode number.
    counted: BTreeMap<u32, ConntrackCounters>,
}

impl Totals {
    /// Makes totals with nothing counted yet, by this version of dropwatch, of which `namespaces` have
    /// sums of their own.
    pub fn new(version: String, interval_s: f64, namespaces: usize) -> Self {
        // Added even if it is zero, so that a metric exists before the first drop.
        let places = [((Place::default(), false), 0)].into();
        let namespaces = NamespaceSums::new(namespaces);
        Self { version, interval_s, places, namespaces, ..Self::default() }
    }

    /// Adds a report, with what connection tracking was like at its end.
    pub fn add(&mut self, report: &Report, tracked: Vec<Tracked>) {
        self.host = report.host.clone();
        self.reports += 1;
        self.last = Some(report.end);
        for row in &report.locations {
            self.count((Place { offset: None, ..row.place.clone() }, row.benign), row.count);
        }
        // Rows that a recording left out are not at an unknown place.
        let Rowless { unknown, benign, harmful } = Rowless::of(&report.other);
        self.count((Place::default(), false), unknown);
        self.other_benign = self.other_benign.saturating_add(benign);
        self.other = self.other.saturating_add(harmful);
        self.namespaces.add(report);
        report.groups.iter().for_each(|groups| self.groups.add(groups));
        self.lost = self.lost.zip(&report.lost, u64::saturating_add);
        if let Some(undecided) = report.filter_undecided {
            let sum = self.undecided.get_or_insert(0);
            *sum = sum.saturating_add(undecided);
        }
        self.find(&report.findings);
        self.track(tracked);
    }

    /// Drops of all places: those of all reports.
    pub fn drops(&self) -> u64 {
        let others = self.other.saturating_add(self.other_benign);
        self.places.values().fold(others, |sum, count| sum.saturating_add(*count))
    }

    fn count(&mut self, place: (Place, bool), count: u64) {
        let has_room = self.places.len() < MOST_PLACES || self.places.contains_key(&place);
        let sum = match (has_room, place.1) {
            (true, _) => self.places.entry(place).or_default(),
            (false, true) => &mut self.other_benign,
            (false, false) => &mut self.other,
        };
        *sum = sum.saturating_add(count);
    }

    fn find(&mut self, findings: &[Finding]) {
        self.findings.clear();
        let mut made = BTreeSet::new();
        for finding in findings {
            let netns = finding.netns.as_ref().map(netns_label).unwrap_or_default();
            let found = (finding.rule.clone(), finding.severity, netns);
            *self.findings.entry(found.clone()).or_default() += 1;
            let found = self.room(found);
            let sums = self.found.entry(found.clone()).or_default();
            let drops = finding.explains.map_or(0, |explains| explains.drops);
            sums.drops = sums.drops.saturating_add(drops);
            if made.insert(found) {
                sums.reports += 1;
            }
        }
    }

    /// What a finding is summed as: itself, else all of its rule, else all of its severity.
    fn room(&self, found: FindingKey) -> FindingKey {
        let (rule, severity, _) = &found;
        let of_rule = (rule.clone(), *severity, OTHER.to_owned());
        let of_severity = (OTHER.to_owned(), *severity, OTHER.to_owned());
        let has_room = |found: &FindingKey, most: usize| {
            self.found.len() < most || self.found.contains_key(found)
        };
        if has_room(&found, MOST_FINDINGS) {
            found
        } else if has_room(&of_rule, MOST_FINDINGS + MOST_RULES) {
            of_rule
        } else {
            of_severity
        }
    }

    fn track(&mut self, tracked: Vec<Tracked>) {
        let before = std::mem::take(&mut self.counted);
        self.conntrack.clear();
        for Tracked { netns, entries, limit, counters } in tracked {
            // The first reading of a namespace adds nothing, since what it had counted before is
            // not of this run.
            let since = before.get(&netns.number()).and_then(|then| counters.since(then));
            let refused = since.and_then(|since| since.get(ConntrackCounter::Drop)).unwrap_or(0);
            self.counted.insert(netns.number(), counters);
            // Summed, since two namespaces may have one name.
            let name = netns_label(&netns);
            let sum = self.refused.entry(name.clone()).or_default();
            *sum = sum.saturating_add(refused);
            let all = self.conntrack.entry(name).or_default();
            all.entries = all.entries.saturating_add(entries);
            all.limit = all.limit.max(limit);
        }
        self.forget_ended();
    }

    /// Keeps the counts of a namespace that has ended: a sum that fell would look like a counter
    /// that began anew.
    fn forget_ended(&mut self) {
        let living = &self.conntrack;
        self.refused.retain(|name, sum| *sum > 0 || living.contains_key(name));
        let ended: Vec<String> = self
            .refused
            .keys()
            .filter(|name| !living.contains_key(*name) && *name != OTHER)
            .skip(MOST_ENDED)
            .cloned()
            .collect();
        for name in ended {
            let sum = self.refused.remove(&name).unwrap_or(0);
            let other = self.refused.entry(OTHER.to_owned()).or_default();
            *other = other.saturating_add(sum);
        }
    }
}
