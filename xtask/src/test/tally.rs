//! Adding up what test programs print.

use std::fmt;

use anyhow::Result;

/// Counts over all test programs so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    passed: u64,
    failed: u64,
    skipped: Vec<String>,
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

    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    pub(super) fn skipped(&self) -> &[String] {
        &self.skipped
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

/// `12 passed, 0 failed`, and `, 1 skipped` where there is one.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        match self.skipped.len() {
            0 => Ok(()),
            skipped => write!(f, ", {skipped} skipped"),
        }
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
