//! The one moment that everything in a package is of.

use std::{env, process::Command};

use anyhow::{Context, Result};
use jiff::{Timestamp, tz::TimeZone};

use crate::{process::CommandExt, project::Project};

/// <https://reproducible-builds.org/specs/source-date-epoch/>
pub(super) const VARIABLE: &str = "SOURCE_DATE_EPOCH";
/// Of sources without a history, an unpacked archive for instance: 2026-01-01.
const UNKNOWN: i64 = 1_767_225_600;

/// Seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Epoch(Timestamp);

impl Epoch {
    /// As the environment has it, else the time of the last commit.
    ///
    /// # Errors
    /// When the environment has something else than a number.
    pub(super) fn find(project: &Project) -> Result<Self> {
        let set = env::var(VARIABLE).ok();
        let git = || {
            let mut command = Command::new("git");
            command.args(["log", "-1", "--format=%ct"]).current_dir(&project.root);
            command.read().ok()
        };
        Self::choose(set.as_deref(), git)
    }

    fn choose(set: Option<&str>, git: impl FnOnce() -> Option<String>) -> Result<Self> {
        let seconds = match set {
            Some(text) => text
                .parse()
                .with_context(|| format!("{VARIABLE} is {text:?}, not a number of seconds"))?,
            None => git().and_then(|text| text.trim().parse().ok()).unwrap_or(UNKNOWN),
        };
        Ok(Self(Timestamp::from_second(seconds).context("no such time")?))
    }

    pub(super) fn seconds(self) -> i64 {
        self.0.as_second()
    }

    /// `2026-11-23`
    pub(super) fn date(self) -> String {
        self.0.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string()
    }

    /// `Mon, 23 Nov 2026 00:31:00 +0000`, for a changelog.
    pub(super) fn mail_date(self) -> String {
        self.0.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
    }
}

#[cfg(test)]
impl Epoch {
    pub(super) fn of(seconds: i64) -> Self {
        Self(Timestamp::from_second(seconds).unwrap())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_comes_first_then_git() {
        let git = |text: &'static str| move || Some(text.to_owned());
        assert_eq!(Epoch::choose(Some("5"), git("7\n")).unwrap().seconds(), 5);
        assert_eq!(Epoch::choose(None, git("7\n")).unwrap().seconds(), 7);
        assert_eq!(Epoch::choose(None, git("")).unwrap().seconds(), UNKNOWN);
        assert_eq!(Epoch::choose(None, || None).unwrap().seconds(), UNKNOWN);
        for wrong in ["", "x", "1.5", "99999999999999999"] {
            assert!(Epoch::choose(Some(wrong), || None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn dates_are_utc() {
        assert_eq!(Epoch::of(UNKNOWN).date(), "2026-01-01");
        assert_eq!(Epoch::of(UNKNOWN).mail_date(), "Thu, 01 Jan 2026 00:00:00 +0000");
        assert_eq!(Epoch::of(1_795_393_860).mail_date(), "Mon, 23 Nov 2026 00:31:00 +0000");
    }
}
