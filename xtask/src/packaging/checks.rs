//! Running checks one after the other, and counting what came of them.

use std::{fmt, path::PathBuf};

use anyhow::{Context, Result};

use crate::{ci::Sum, project::find_command};

/// What to do where a program is missing.
const INSTALL: &str = "cargo xtask setup --packaging";

/// Counts so far.
#[derive(Debug, Default)]
pub(super) struct Checks {
    strict: bool,
    filter: Option<String>,
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Checks {
    pub(super) fn new(strict: bool, filter: Option<&str>) -> Self {
        Self { strict, filter: filter.map(str::to_owned), ..Self::default() }
    }

    /// Whether a check of this name is asked for.
    pub(super) fn selects(&self, name: &str) -> bool {
        self.filter.as_deref().is_none_or(|filter| name.contains(filter))
    }

    /// Runs a check, if it is asked for, and says what came of it.
    pub(super) fn check(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        if !self.selects(name) {
            return;
        }
        match work() {
            Ok(()) => {
                println!("ok       {name}");
                self.passed += 1;
            }
            Err(error) => {
                println!("FAILED   {name}: {error:#}");
                self.failed += 1;
            }
        }
    }

    /// What `name` needs and this machine has not.
    pub(super) fn skip(&mut self, name: &str, why: &str) {
        if !self.selects(name) {
            return;
        }
        if self.strict {
            println!("FAILED   {name}: {why}");
            self.failed += 1;
        } else {
            println!("skipped  {name}: {why}");
            self.skipped += 1;
        }
    }

    /// Where a program is, or a skip of `name` that says how to get it.
    pub(super) fn program(&mut self, name: &str, program: &str) -> Option<PathBuf> {
        let found = find_command(program);
        if found.is_none() {
            self.skip(name, &format!("no program `{program}`; {INSTALL} installs it"));
        }
        found
    }

    /// What passed, failed and was skipped.
    pub(super) fn sum(&self) -> Sum {
        Sum { passed: self.passed.into(), failed: self.failed.into(), skipped: self.skipped.into() }
    }

    /// Something passed, and nothing failed.
    pub(super) fn is_success(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }
}

impl fmt::Display for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sum().fmt(f)
    }
}

/// A file's text.
///
/// # Errors
/// With the file's name, if it cannot be read.
pub(super) fn read(path: impl AsRef<std::path::Path>) -> Result<String> {
    let path = path.as_ref();
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_a_skip_unless_strict() {
        let run = |strict| {
            let mut checks = Checks::new(strict, Some("selected"));
            checks.check("selected", || Ok(()));
            checks.check("other", || anyhow::bail!("not asked for"));
            assert_eq!(checks.program("selected too", "no such program"), None);
            (checks.to_string(), checks.is_success())
        };
        assert_eq!(run(false), ("1 passed, 0 failed, 1 skipped".to_owned(), true));
        assert_eq!(run(true), ("1 passed, 1 failed".to_owned(), false));
    }

    #[test]
    fn nothing_run_is_no_success() {
        assert!(!Checks::new(false, None).is_success());
    }
}
