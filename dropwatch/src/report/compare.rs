//! Two runs side by side: what has gone, what is new, what has changed.
//!
//! Runs of different lengths are compared by their rates. Places are compared by function and
//! reason, not by offset, since another build of the kernel has other offsets.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    facts::Netns,
    finding::Severity,
    model::{
        SCHEMA_VERSION,
        summary::{Summary, SummaryFinding},
    },
    number::{self, is_zero, per_second},
    place::Place,
};

/// What two runs differ in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    pub v: u32,
    pub r#type: &'static str,
    pub before: Side,
    pub after: Side,
    /// The largest change of rate first; behind them what is known to be harmless.
    pub locations: Vec<ChangedLocation>,
    /// Findings of the second run, then those of the first run that it no longer has.
    pub findings: Vec<ChangedFinding>,
}

/// One of the runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Side {
    /// Name of its recording.
    pub name: String,
    pub drops: u64,
    /// Drops that are known to be harmless; absent where there are none.
    #[serde(skip_serializing_if = "is_zero")]
    pub benign: u64,
    pub duration_s: f64,
    /// Drops per second.
    pub rate: f64,
}

/// Drops of one function, for one reason, in both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangedLocation {
    /// Without offset and subsystem, which builds of a kernel differ in.
    #[serde(flatten, serialize_with = "of_any_build")]
    pub place: Place,
    pub benign: bool,
    pub before: Amount,
    pub after: Amount,
}

/// The function and the reason alone, which are the same in every build of a kernel.
fn of_any_build<S: Serializer>(place: &Place, to: S) -> Result<S::Ok, S::Error> {
    let Place { symbol, offset: _, module, reason, subsystem: _ } = place;
    let mut fields = to.serialize_map(Some(3))?;
    fields.serialize_entry("symbol", symbol)?;
    fields.serialize_entry("module", module)?;
    fields.serialize_entry("reason", reason)?;
    fields.end()
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Amount {
    pub count: u64,
    /// Per second.
    pub rate: f64,
}

/// A finding of either run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangedFinding {
    pub what: FindingChange,
    pub rule: String,
    pub severity: Severity,
    pub netns: Option<Netns>,
    pub title: String,
}

/// What has become of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingChange {
    New,
    Still,
    Gone,
}

/// Compares the run of the recording `names[0]` with that of `names[1]`.
pub fn compare(names: [&str; 2], before: &Summary, after: &Summary) -> Comparison {
    Comparison {
        v: SCHEMA_VERSION,
        r#type: "comparison",
        before: side(names[0], before),
        after: side(names[1], after),
        locations: locations(before, after),
        findings: findings(before, after),
    }
}

fn side(name: &str, summary: &Summary) -> Side {
    let Summary { drops, benign, duration_s, rate, .. } = *summary;
    Side { name: name.to_owned(), drops, benign, duration_s, rate }
}

fn locations(before: &Summary, after: &Summary) -> Vec<ChangedLocation> {
    let mut places: BTreeMap<Place, ChangedLocation> = BTreeMap::new();
    let rows = before.locations.iter().map(|row| (row, false));
    for (row, is_after) in rows.chain(after.locations.iter().map(|row| (row, true))) {
        let place = Place { offset: None, subsystem: None, ..row.place.clone() };
        let change = places.entry(place.clone()).or_insert_with(|| ChangedLocation {
            place,
            benign: row.benign,
            before: Amount::default(),
            after: Amount::default(),
        });
        // Harmless only if both recordings say so, since versions of dropwatch know different
        // causes.
        change.benign &= row.benign;
        let amount = if is_after { &mut change.after } else { &mut change.before };
        amount.count = amount.count.saturating_add(row.count);
    }
    let mut changes: Vec<ChangedLocation> = places.into_values().collect();
    for change in &mut changes {
        change.before.rate = per_second(change.before.count, before.duration_s);
        change.after.rate = per_second(change.after.count, after.duration_s);
    }
    // The map is ordered by name and this sort is stable, so equal changes stay in the order of
    // names.
    let size = |change: &ChangedLocation| number::change(change.before.rate, change.after.rate);
    changes.sort_by(|a, b| a.benign.cmp(&b.benign).then(size(b).total_cmp(&size(a))));
    changes
}

fn findings(before: &Summary, after: &Summary) -> Vec<ChangedFinding> {
    // Compared without the number of the namespace, which differs from run to run while its name
    // does not.
    let same = |a: &SummaryFinding, b: &SummaryFinding| {
        let name =
            |found: &SummaryFinding| found.netns.as_ref().and_then(|netns| netns.name.clone());
        // Older recordings do not say what a finding is about.
        let unknown = a.subject.is_empty() || b.subject.is_empty();
        a.rule == b.rule && name(a) == name(b) && (a.subject == b.subject || unknown)
    };
    let changed = |found: &SummaryFinding, what| ChangedFinding {
        what,
        rule: found.rule.clone(),
        severity: found.severity,
        netns: found.netns.clone(),
        title: found.title.clone(),
    };
    let now = after.findings.iter().map(|found| {
        let known = before.findings.iter().any(|other| same(found, other));
        changed(found, if known { FindingChange::Still } else { FindingChange::New })
    });
    let gone = before
        .findings
        .iter()
        .filter(|found| after.findings.iter().all(|other| !same(found, other)));
    let mut all: Vec<ChangedFinding> =
        now.chain(gone.map(|found| changed(found, FindingChange::Gone))).collect();
    all.sort_by_key(|finding| (finding.what, finding.severity));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::summary::SummaryRow;

    fn row(symbol: &str, offset: u64, count: u64) -> SummaryRow {
        SummaryRow {
            place: Place { symbol: Some(symbol.into()), offset: Some(offset), ..Place::default() },
            count,
            share: 1.0,
            rate: 0.0,
            benign: false,
            before: 0,
        }
    }

    fn found(rule: &str, inum: u32) -> SummaryFinding {
        SummaryFinding {
            rule: rule.into(),
            severity: Severity::Critical,
            netns: Some(Netns::new(Some("gw".into()), inum)),
            subject: String::new(),
            title: rule.into(),
            explains: 1,
            first: jiff::Timestamp::UNIX_EPOCH,
            last: jiff::Timestamp::UNIX_EPOCH,
            reports: 1,
            before: false,
        }
    }

    #[test]
    fn runs_of_different_lengths_are_compared_by_rate() {
        let before = Summary {
            drops: 1000,
            duration_s: 10.0,
            locations: vec![row("f", 1, 900), row("f", 7, 50), row("g", 1, 50)],
            findings: vec![found("full", 7), found("closed", 7)],
            ..Summary::default()
        };
        let after = Summary {
            drops: 25,
            duration_s: 5.0,
            locations: vec![row("g", 3, 25)],
            findings: vec![found("closed", 8), found("other", 8)],
            ..Summary::default()
        };
        let comparison = compare(["a", "b"], &before, &after);
        let rates: Vec<_> = comparison
            .locations
            .iter()
            .map(|change| {
                (change.place.symbol.as_deref().unwrap(), change.before.rate, change.after.rate)
            })
            .collect();
        assert_eq!(rates, [("f", 95.0, 0.0), ("g", 5.0, 5.0)], "offsets do not matter");
        let findings: Vec<_> = comparison
            .findings
            .iter()
            .map(|finding| (finding.what, finding.rule.as_str()))
            .collect();
        assert_eq!(
            findings,
            [
                (FindingChange::New, "other"),
                (FindingChange::Still, "closed"),
                (FindingChange::Gone, "full")
            ],
            "another number of the same namespace is the same namespace"
        );
    }
}
