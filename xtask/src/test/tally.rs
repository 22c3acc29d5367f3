//! Adding up what test programs print.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use anyhow::Result;
use testbed::unproved;

use crate::ci::Sum;

/// Counts over all test programs so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    passed: u64,
    failed: u64,
    /// In words; those that ran and proved nothing among them.
    skipped: Vec<String>,
    /// Groups of tests in which some proved nothing.
    partly: Vec<String>,
    /// Tests of each group that the current phase has run, and those that failed.
    ran: BTreeMap<String, u64>,
    failures: BTreeSet<String>,
    /// Tests ignored for these reasons run in another phase: they are not skipped.
    elsewhere: &'static [&'static str],
    /// Ignored tests that the current program has named, and whether it owes a summary.
    named: u64,
    owes_summary: bool,
}

impl Tally {
    pub(super) fn expect_elsewhere(&mut self, reasons: &'static [&'static str]) {
        self.elsewhere = reasons;
    }

    pub(super) fn sum(&self) -> Sum {
        Sum { passed: self.passed, failed: self.failed, skipped: self.skipped.len() as u64 }
    }

    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    pub(super) fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// Lines such as `findings: 28 of 34 tests prove something here`.
    pub(super) fn partly(&self) -> &[String] {
        &self.partly
    }

    /// A phase begins: what ran before is of other programs.
    pub(super) fn begin(&mut self) {
        (self.ran, self.failures) = Default::default();
    }

    /// Takes the lines of the phase's tests that have proved nothing. libtest lists those that did
    /// not fail as passed.
    pub(super) fn unproved(&mut self, lines: &str) {
        let mut groups = BTreeMap::<String, u64>::new();
        for unproved::Unproved { test, why } in lines.lines().filter_map(unproved::parse) {
            if self.failures.contains(&test) {
                continue;
            }
            self.passed = self.passed.saturating_sub(1);
            *groups.entry(group(&test).to_owned()).or_default() += 1;
            self.skipped.push(format!("{test} proves nothing here: {why}"));
        }
        for (group, unproved) in groups {
            let all = self.ran.get(&group).copied().unwrap_or_default().max(unproved);
            let proved = all - unproved;
            self.partly.push(format!("{group}: {proved} of {all} tests prove something here"));
        }
    }

    /// All that ran passed, and something did.
    pub(super) fn is_success(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }

    /// Runs a phase; one that breaks off counts as a failure and is named.
    pub(super) fn attempt(&mut self, phase: impl FnOnce(&mut Self) -> Result<()>) {
        if let Err(error) = phase(self) {
            eprintln!("error: {error:#}");
            self.failed += 1;
        }
    }

    /// Takes a line of libtest's output.
    pub(super) fn line(&mut self, line: &str) {
        if let Some(summary) = Summary::parse(line) {
            self.passed += summary.passed;
            self.failed += summary.failed;
            let unnamed = summary.ignored.saturating_sub(self.named);
            if unnamed > 0 {
                self.skipped.push(format!("{unnamed} tests ignored without a word"));
            }
            (self.named, self.owes_summary) = (0, false);
        } else if let Some((name, reason)) = ignored(line) {
            self.named += 1;
            if !self.elsewhere.contains(&reason) {
                let reason = if reason.is_empty() { "no reason given" } else { reason };
                self.skipped.push(format!("{name}: {reason}"));
            }
        } else if let Some((name, passed)) = outcome(line) {
            *self.ran.entry(group(name).to_owned()).or_default() += 1;
            if !passed {
                self.failures.insert(name.to_owned());
            }
        } else if is_start(line) {
            self.end_of_output();
            self.owes_summary = true;
        }
    }

    /// A program that began and did not sum up has died: a failure.
    pub(super) fn end_of_output(&mut self) {
        if std::mem::take(&mut self.owes_summary) {
            eprintln!("error: a test program ended without its summary line");
            self.failed += 1;
            self.named = 0;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sum().fmt(f)
    }
}

/// libtest's last line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Summary {
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in …`
    fn parse(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let mut summary = Self::default();
        for part in counts.split("; ") {
            match part.split_once(' ') {
                Some((count, "passed")) => summary.passed = count.parse().ok()?,
                Some((count, "failed")) => summary.failed = count.parse().ok()?,
                Some((count, "ignored")) => summary.ignored = count.parse().ok()?,
                _ => {}
            }
        }
        Some(summary)
    }
}

/// `running 3 tests`
fn is_start(line: &str) -> bool {
    line.strip_prefix("running ")
        .and_then(|rest| rest.strip_suffix(" tests").or_else(|| rest.strip_suffix(" test")))
        .is_some_and(|count| count.parse::<u64>().is_ok())
}

/// `test NAME ... ok`, or `FAILED`.
pub(crate) fn outcome(line: &str) -> Option<(&str, bool)> {
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
    // A test that is expected to panic has that behind its name.
    let name = name.strip_suffix(" - should panic").unwrap_or(name);
    match verdict {
        "ok" => Some((name, true)),
        "FAILED" => Some((name, false)),
        _ => None,
    }
}

/// The module that a test is in; of those for guests alone, which are in one, the module below.
pub(crate) fn group(test: &str) -> &str {
    let name = test.strip_prefix("guest::").unwrap_or(test);
    name.split_once("::").map_or("", |(group, _)| group)
}

/// Name and reason out of `test NAME ... ignored, REASON`.
fn ignored(line: &str) -> Option<(&str, &str)> {
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ignored")?;
    match verdict.strip_prefix(", ") {
        Some(reason) => Some((name, reason)),
        None => verdict.is_empty().then_some((name, "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(lines: &str) -> Tally {
        let mut tally = Tally::default();
        tally.expect_elsewhere(&["needs root"]);
        lines.lines().for_each(|line| tally.line(line));
        tally.end_of_output();
        tally
    }

    #[test]
    fn programs_add_up() {
        let tally = tally(
            "\nrunning 2 tests\ntest a ... ok\ntest b ... FAILED\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             running 1 test\ntest c ... ok\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.10s\n",
        );
        assert_eq!(tally.to_string(), "2 passed, 1 failed");
        assert!(!tally.is_success());
    }

    #[test]
    fn what_runs_elsewhere_is_not_skipped_but_anything_else_is() {
        let tally = tally(
            "running 4 tests\ntest flood ... ignored, needs root\ntest slow ... ignored, takes a day\n\
             test mute ... ignored\ntest a ... ok\n\
             test result: ok. 1 passed; 0 failed; 4 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        let skipped =
            ["slow: takes a day", "mute: no reason given", "1 tests ignored without a word"];
        assert_eq!(tally.skipped(), skipped);
        assert_eq!(tally.to_string(), "1 passed, 0 failed, 3 skipped");
        assert!(tally.is_success());
    }

    #[test]
    fn what_proves_nothing_has_not_passed() {
        let mut tally = tally(
            "running 4 tests\ntest findings::xdp ... ok\ntest findings::mtu ... ok\n\
             test findings::slow ... FAILED\ntest names::a ... ok\n\
             test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s\n",
        );
        tally.unproved(
            "unproved: findings::xdp: this kernel has no reason XDP\n\
             unproved: findings::slow: this kernel has no reason QDISC_DROP\nother text\n",
        );
        assert_eq!(tally.to_string(), "2 passed, 1 failed, 1 skipped");
        assert_eq!(
            tally.skipped(),
            ["findings::xdp proves nothing here: this kernel has no reason XDP"]
        );
        assert_eq!(tally.partly(), ["findings: 2 of 3 tests prove something here"]);
    }

    #[test]
    fn nothing_but_unproved_is_no_success() {
        let mut tally = tally(
            "running 1 test\ntest a::b ... ok\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s\n",
        );
        tally.unproved("unproved: a::b: no BTF\n");
        assert_eq!(tally.to_string(), "0 passed, 0 failed, 1 skipped");
        assert!(!tally.is_success());
    }

    #[test]
    fn nothing_run_is_no_success() {
        assert!(!Tally::default().is_success());
        assert_eq!(Tally::default().to_string(), "0 passed, 0 failed");
    }

    #[test]
    fn a_program_that_dies_fails() {
        let ok = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0s";
        let died = tally(&format!("running 5 tests\ntest a ... ok\nrunning 1 test\n{ok}\n"));
        assert_eq!(died.to_string(), "1 passed, 1 failed");
        assert_eq!(tally("running 5 tests\n").to_string(), "0 passed, 1 failed");
    }

    #[test]
    fn a_phase_that_breaks_off_fails() {
        let mut tally = Tally::default();
        tally.attempt(|_| anyhow::bail!("no sudo"));
        assert_eq!(tally.to_string(), "0 passed, 1 failed");
    }

    #[test]
    fn other_lines_do_not_count() {
        let tally = tally("test result: who knows\nrunning late tests\n3 passed; 1 failed\n");
        assert_eq!(tally.to_string(), "0 passed, 0 failed");
    }
}
