//! The sums of a run: where, how much and when, what was found, and what was so before.
//!
//! Pure: made of reports alone, so a run and its replay cannot differ.

use std::{cmp::Reverse, collections::HashMap};

use super::{
    finding::Finding,
    model::{
        Location, Report,
        summary::{Summary, SummaryFinding, SummaryRow, Worst},
    },
    number::{per_second, share, to_millisecond},
    place::Place,
};

/// Rows and findings that are remembered; more are summed. A recording is foreign input.
const MOST: usize = 65_536;
/// Bytes of their names that are remembered: a few hundred for each, and they may be thousands.
const MOST_TEXT: usize = 64 << 20;

/// What identifies a row: an unnamed place by its address alone, where that is known; and whether
/// the drops are known to be harmless, which need not be so of all at a place.
type SummaryKey = (Place, Option<u64>, bool);

/// Counts at one place.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    during: u64,
    before: u64,
}

/// What identifies a cause: the rule that found it, the namespace, and what it is about. Of a namespace
/// both the inode number and the name, since another one may have got either meanwhile.
type CauseKey = (String, Option<(u32, Option<String>)>, String);

/// The sums of one cause.
#[derive(Clone, Debug)]
struct Cause {
    found: SummaryFinding,
    /// The most drops that it explained in one report.
    most: u64,
    /// The last report that has it, as [`Summing::reports`] counts: several of its findings may
    /// have it.
    counted: u64,
}

/// Sums up reports as they come.
#[derive(Clone, Debug, Default)]
pub struct Summing {
    rows: HashMap<SummaryKey, Counts>,
    found: HashMap<CauseKey, Cause>,
    /// Bytes of the names in both.
    text: usize,
    sums: Summary,
    reports: u64,
}

impl Summing {
    pub fn add(&mut self, report: &Report) {
        if report.baseline {
            let before = self.sums.before.get_or_insert_default();
            before.drops = before.drops.saturating_add(report.drops);
            before.benign = before.benign.saturating_add(report.benign());
            before.duration_s += report.interval_s;
        } else {
            self.reports += 1;
            self.sum(report);
        }
        for row in &report.locations {
            self.row(row, report.baseline);
        }
        for finding in &report.findings {
            self.finding(finding, report);
        }
    }

    /// Reports of the command's time so far.
    pub fn reports(&self) -> u64 {
        self.reports
    }

    /// Drops of the command's time so far that are not known to be harmless.
    pub fn harmful(&self) -> u64 {
        self.sums.drops.saturating_sub(self.sums.benign)
    }

    /// Seconds of the command's time so far.
    pub fn duration_s(&self) -> f64 {
        self.sums.duration_s
    }

    pub fn summary(&self) -> Summary {
        let mut summary = self.sums.clone();
        summary.duration_s = to_millisecond(summary.duration_s);
        summary.rate = per_second(summary.drops, summary.duration_s);
        if let Some(before) = &mut summary.before {
            before.duration_s = to_millisecond(before.duration_s);
        }
        summary.locations =
            self.rows.iter().filter(|(_, counts)| counts.during > 0).map(row(&summary)).collect();
        summary.locations.sort_by(|a, b| {
            let name = |row: &SummaryRow| {
                (row.place.symbol.clone(), row.place.offset, row.place.reason.clone())
            };
            Reverse(a.count).cmp(&Reverse(b.count)).then_with(|| name(a).cmp(&name(b)))
        });
        let listed = summary.locations.iter().fold(0_u64, |sum, row| sum.saturating_add(row.count));
        summary.other = summary.drops.saturating_sub(listed);
        summary.findings = self.found.values().map(|cause| cause.found.clone()).collect();
        summary.findings.retain(|found| found.reports > 0);
        summary.findings.sort_by(|a, b| {
            let rank = |it: &SummaryFinding| (it.severity, Reverse(it.explains), it.first);
            let name = |it: &SummaryFinding| {
                let inum = it.netns.as_ref().map(|netns| netns.inum);
                (it.rule.clone(), inum, it.subject.clone())
            };
            rank(a).cmp(&rank(b)).then_with(|| name(a).cmp(&name(b)))
        });
        summary
    }

    fn sum(&mut self, report: &Report) {
        let sums = &mut self.sums;
        sums.drops = sums.drops.saturating_add(report.drops);
        let benign = report.benign();
        sums.benign = sums.benign.saturating_add(benign);
        sums.duration_s += report.interval_s;
        sums.lost = sums.lost.zip(&report.lost, u64::saturating_add);
        if let Some(undecided) = report.filter_undecided {
            let sum = sums.filter_undecided.get_or_insert(0);
            *sum = sum.saturating_add(undecided);
        }
        let rank = |drops: u64, benign: u64| (drops.saturating_sub(benign), drops);
        let worse = sums
            .worst
            .is_none_or(|worst| rank(report.drops, benign) > rank(worst.drops, worst.benign));
        if report.drops > 0 && worse {
            sums.worst = Some(Worst {
                seq: report.seq,
                start: report.start,
                end: report.end,
                interval_s: report.interval_s,
                drops: report.drops,
                benign,
                rate: report.rate,
            });
        }
    }

    fn row(&mut self, row: &Location, before: bool) {
        let address = row.address.known().filter(|_| row.place.symbol.is_none());
        let key = (row.place.clone(), address, row.benign);
        // Drops for which there is no room are in the sum of the drops, and so in `other`.
        let text = key.0.texts().map(str::len).sum();
        if !self.rows.contains_key(&key) && !self.has_room(self.rows.len(), text) {
            return;
        }
        let counts = self.rows.entry(key).or_default();
        let count = if before { &mut counts.before } else { &mut counts.during };
        *count = count.saturating_add(row.count);
    }

    /// Whether one more is remembered, beside `count` of its kind, with so many bytes of names.
    fn has_room(&mut self, count: usize, text: usize) -> bool {
        let has_room = count < MOST && self.text.saturating_add(text) <= MOST_TEXT;
        self.text += if has_room { text } else { 0 };
        has_room
    }

    fn finding(&mut self, finding: &Finding, report: &Report) {
        let netns = finding.netns.as_ref().map(|netns| (netns.inum, netns.name.clone()));
        let key = (finding.rule.clone(), netns, finding.subject.clone());
        let name = finding.netns.as_ref().and_then(|netns| netns.name.as_ref());
        let texts = [finding.rule.len(), finding.title.len(), 2 * finding.subject.len()];
        let text = texts.iter().sum::<usize>() + name.map_or(0, String::len);
        if !self.found.contains_key(&key) && !self.has_room(self.found.len(), text) {
            return;
        }
        let explains = finding.explains.map_or(0, |explains| explains.drops);
        let Cause { found, most, counted } = self.found.entry(key).or_insert_with(|| {
            let found = SummaryFinding {
                rule: finding.rule.clone(),
                severity: finding.severity,
                netns: finding.netns.clone(),
                subject: finding.subject.clone(),
                title: finding.title.clone(),
                explains: 0,
                first: report.end,
                last: report.end,
                reports: 0,
                before: false,
            };
            Cause { found, most: explains, counted: 0 }
        });
        if report.baseline {
            found.before = true;
            return;
        }
        if found.reports == 0 {
            found.first = report.end;
        }
        found.last = report.end;
        if *counted < self.reports {
            *counted = self.reports;
            found.reports += 1;
        }
        found.severity = found.severity.min(finding.severity);
        found.explains = found.explains.saturating_add(explains);
        if explains >= *most {
            *most = explains;
            let others = self.text.saturating_sub(found.title.len());
            let text = others.saturating_add(finding.title.len());
            // Without room for the new title the old one stays, which is true of its own report.
            if text <= MOST_TEXT {
                self.text = text;
                found.title.clone_from(&finding.title);
            }
        }
    }
}

fn row(summary: &Summary) -> impl Fn((&SummaryKey, &Counts)) -> SummaryRow + '_ {
    |((place, _, benign), counts)| SummaryRow {
        place: place.clone(),
        count: counts.during,
        share: share(counts.during, summary.drops),
        rate: per_second(counts.during, summary.duration_s),
        benign: *benign,
        before: counts.before,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::finding::{Explains, Severity};

    fn finding(subject: &str, severity: Severity, drops: u64) -> Finding {
        Finding {
            rule: "closed_port".to_owned(),
            severity,
            netns: None,
            subject: subject.to_owned(),
            title: format!("{drops} packets for {subject}"),
            object: None,
            explains: Some(Explains::of(drops, 100)),
            evidence: Vec::new(),
            actions: Vec::new(),
            unreachable: None,
            places: Vec::new(),
        }
    }

    fn summary(reports: &[&[Finding]]) -> Vec<(String, Severity, u64, u64)> {
        let mut run = Summing::default();
        for findings in reports {
            run.add(&Report { findings: findings.to_vec(), ..Report::default() });
        }
        let found = run.summary().findings.into_iter();
        found.map(|it| (it.title, it.severity, it.explains, it.reports)).collect()
    }

    #[test]
    fn two_causes_that_one_rule_finds_are_two_entries() {
        use Severity::{Notice, Warning};
        let udp = |drops| finding("UDP ports", Notice, drops);
        let tcp = |drops| finding("TCP port 11", Warning, drops);
        let one = summary(&[&[udp(20), tcp(15)]]);
        let title = |text: &str| text.to_owned();
        assert_eq!(
            one,
            [
                (title("15 packets for TCP port 11"), Warning, 15, 1),
                (title("20 packets for UDP ports"), Notice, 20, 1),
            ]
        );
        let two = summary(&[&[udp(20), tcp(15)], &[udp(30)]]);
        assert_eq!(two[1], (title("30 packets for UDP ports"), Notice, 50, 2));
    }

    #[test]
    fn a_report_in_which_a_cause_is_found_twice_is_one_report() {
        let rule = |drops| finding("an nftables rule or policy", Severity::Warning, drops);
        let found = summary(&[&[rule(3), rule(4)], &[rule(1)]]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].2, found[0].3), (8, 2));
    }
}
