//! What of a report is shown: the top rows, with benign ones folded away, and the largest findings of
//! each rule.
//!
//! A view moves rows into [`Other`](super::model::Other) and never loses one: the sum of the rows
//! and of `other` stays the number of drops. What it leaves out of the findings is summed by rule.

use std::{cmp::Reverse, collections::HashMap};

use super::{
    finding::{Finding, sum_up},
    model::{Line, Location, Report},
    namespaces,
    number::share,
    place::Place,
};

/// Which rows to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Most rows to show; `None` for all.
    pub top: Option<usize>,
    /// Most network namespaces to show of a row; `None` for all.
    pub namespaces: Option<usize>,
    /// Most findings to show of one rule and severity; `None` for all.
    pub findings: Option<usize>,
    /// Sum benign rows instead of showing them.
    pub fold_benign: bool,
    /// One row per call site, whatever the reasons.
    pub merge_reasons: bool,
}

impl View {
    /// Applies the view to a line; only reports are affected.
    pub fn line(&self, line: Line) -> Line {
        match line {
            Line::Report(report) => Line::Report(self.report(report)),
            other @ (Line::Start(_) | Line::Sample(_) | Line::End(_)) => other,
        }
    }

    /// Merges first, then folds, then truncates, so that the top N are N rows worth reading.
    pub fn report(&self, mut report: Report) -> Report {
        if self.merge_reasons {
            merge_reasons(&mut report);
        }
        if self.fold_benign {
            fold_benign(&mut report);
        }
        if let Some(rows) = self.top {
            truncate(&mut report, rows);
        }
        if let Some(most) = self.namespaces {
            for row in &mut report.locations {
                namespaces::truncate(&mut row.namespaces, most, &mut row.more);
            }
        }
        if let Some(most) = self.findings {
            let more = sum_up(&mut report.findings, most, Finding::kind);
            report.more_findings.extend(more);
        }
        report
    }
}

/// Keeps the first `rows` rows, and groups, and sums the rest into `other`.
pub fn truncate(report: &mut Report, rows: usize) {
    let rest = report.locations.split_off(rows.min(report.locations.len()));
    hide(report, &rest);
    if let Some(groups) = &mut report.groups {
        groups.truncate(rows);
    }
}

/// Sums the benign rows into `other`.
pub fn fold_benign(report: &mut Report) {
    let (benign, rest) =
        std::mem::take(&mut report.locations).into_iter().partition(|row| row.benign);
    report.locations = rest;
    let (locations, count) = hide(report, &benign);
    let folded = &mut report.other.benign;
    folded.locations = folded.locations.saturating_add(locations);
    folded.count = folded.count.saturating_add(count);
}

/// Sums the reasons of each call site into one row, which then has no reason of its own.
///
/// A call site is an address, or where a recording holds none, a symbol with its offset. Rows that
/// have neither cannot be proved to be one place, so they stay apart.
pub fn merge_reasons(report: &mut Report) {
    let mut merged: Vec<Location> = Vec::with_capacity(report.locations.len());
    let mut rows = HashMap::new();
    for row in report.locations.drain(..) {
        let Place { symbol, offset, module, .. } = &row.place;
        let site = match (row.address.known(), symbol) {
            (None, None) => None,
            (Some(address), _) => Some((Some(address), None)),
            (None, Some(_)) => Some((None, Some((symbol.clone(), *offset, module.clone())))),
        };
        let index = match site {
            Some(site) => *rows.entry(site).or_insert(merged.len()),
            None => merged.len(),
        };
        match merged.get_mut(index) {
            Some(into) => merge(into, &row, report.drops),
            None => {
                let place = Place { reason: None, subsystem: None, ..row.place };
                merged.push(Location { place, ..row });
            }
        }
    }
    // Stable: rows of equal count keep the order in which the report has them.
    merged.sort_by_key(|row| Reverse(row.count));
    report.locations = merged;
}

fn merge(into: &mut Location, row: &Location, drops: u64) {
    into.count = into.count.saturating_add(row.count);
    into.total = into.total.saturating_add(row.total);
    into.rate += row.rate;
    into.share = share(into.count, drops);
    into.benign &= row.benign;
    into.new &= row.new;
    // Details are dropped, since what holds for the samples of each row need not hold for both
    // together.
    into.details = None;
    into.stacks.clear();
    namespaces::merge(&mut into.namespaces, &row.namespaces, into.count);
}

/// Adds `rows` to `other`; returns how many they are, and the sum of their drops.
fn hide(report: &mut Report, rows: &[Location]) -> (u64, u64) {
    let locations = rows.len() as u64;
    let count = rows.iter().fold(0, |sum: u64, row| sum.saturating_add(row.count));
    let other = &mut report.other;
    other.locations = other.locations.saturating_add(locations);
    other.count = other.count.saturating_add(count);
    let benign = rows.iter().filter(|row| row.benign);
    other.known_benign = benign.fold(other.known_benign, |sum, row| sum.saturating_add(row.count));
    (locations, count)
}
