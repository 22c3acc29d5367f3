//! Sums since the run began, as metrics have them: exact, and with a bound on how many there are.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    conntrack::{Counter, Counters},
    facts::Netns,
    finding::Severity,
    model::{Host, Report},
    place::Place,
    snapshot::Lost,
};

/// Places that have a sum of their own; the drops of later ones are in [`Totals::other`]. A metrics
/// database keeps a series for each.
pub const MOST_PLACES: usize = 1_000;

/// A rule that found something in the last report, how bad, and where.
pub type Found = (String, Severity, String);

/// Connection tracking of a namespace at the end of a report.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracked {
    pub netns: Netns,
    pub entries: u64,
    pub limit: Option<u64>,
    pub counters: Counters,
}

/// Connection tracking, by the name of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conntrack {
    pub entries: u64,
    pub limit: Option<u64>,
    /// Packets refused since the run began.
    pub drops: u64,
}

/// Everything that metrics tell.
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
    /// Without offsets: other builds have others. Drops whose location is unknown have no name.
    pub places: BTreeMap<Place, u64>,
    /// Drops at places beyond the bound.
    pub other: u64,
    pub lost: Lost,
    pub undecided: Option<u64>,
    /// How many findings of a kind the last report has.
    pub findings: BTreeMap<Found, u64>,
    pub conntrack: BTreeMap<String, Conntrack>,
    /// By inode number: what was counted last, and what was refused since the run began.
    refused: BTreeMap<u32, (Counters, u64)>,
}

impl Totals {
    /// Nothing counted yet, by this version of dropwatch.
    pub fn new(version: String, interval_s: f64) -> Self {
        // So that there is a zero to be seen.
        let places = [(Place::default(), 0)].into();
        Self { version, interval_s, places, ..Self::default() }
    }

    /// Adds a report, with what connection tracking was like at its end.
    pub fn add(&mut self, report: &Report, tracked: Vec<Tracked>) {
        self.host = report.host.clone();
        self.reports += 1;
        self.last = Some(report.end);
        for row in &report.locations {
            let place = Place { offset: None, ..Place::of(row) };
            let has_room = self.places.len() < MOST_PLACES || self.places.contains_key(&place);
            let sum = match has_room {
                true => self.places.entry(place).or_default(),
                false => &mut self.other,
            };
            *sum = sum.saturating_add(row.count);
        }
        // Rows that a recording left out are not at an unknown place.
        let unknown = report.other.unknown_location;
        let nowhere = self.places.entry(Place::default()).or_default();
        *nowhere = nowhere.saturating_add(unknown);
        self.other = self.other.saturating_add(report.other.count.saturating_sub(unknown));
        self.lost = self.lost.zip(&report.lost, u64::saturating_add);
        if let Some(undecided) = report.filter_undecided {
            let sum = self.undecided.get_or_insert(0);
            *sum = sum.saturating_add(undecided);
        }
        self.findings.clear();
        for finding in &report.findings {
            let netns = finding.netns.as_ref().map(name).unwrap_or_default();
            let found = (finding.rule.clone(), finding.severity, netns);
            *self.findings.entry(found).or_default() += 1;
        }
        self.track(tracked);
    }

    /// Drops of all places: those of all reports.
    pub fn drops(&self) -> u64 {
        self.places.values().fold(self.other, |sum, count| sum.saturating_add(*count))
    }

    fn track(&mut self, tracked: Vec<Tracked>) {
        let mut before = std::mem::take(&mut self.refused);
        self.conntrack.clear();
        for Tracked { netns, entries, limit, counters } in tracked {
            let sum = match before.remove(&netns.inum) {
                Some((then, sum)) => {
                    let since = counters.since(&then).and_then(|since| since.get(Counter::Drop));
                    sum.saturating_add(since.unwrap_or(0))
                }
                // What it counted before it was known is none of this run's.
                None => 0,
            };
            // Names need not be unique.
            let all = self.conntrack.entry(name(&netns)).or_default();
            all.entries = all.entries.saturating_add(entries);
            all.limit = all.limit.max(limit);
            all.drops = all.drops.saturating_add(sum);
            self.refused.insert(netns.inum, (counters, sum));
        }
    }
}

/// What a label calls a namespace.
fn name(netns: &Netns) -> String {
    netns.name.clone().unwrap_or_else(|| format!("netns {}", netns.inum))
}
