//! What `dropwatch run` starts, and how much may be dropped.

use std::{ffi::OsString, time::Duration};

use super::{Terminal, Watch};
use crate::{cli, exit::Failure, report::summary::Summing};

/// Of a command, what recordings hold.
const MOST_WORDS: usize = 64;
const MOST_LETTERS: usize = 512;

/// A command to run, and to watch meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub program: OsString,
    pub arguments: Vec<OsString>,
    /// Whose it is to be; `None` for whoever called.
    pub user: Option<String>,
    /// How long to count before it starts.
    pub baseline: Option<Duration>,
}

impl Command {
    /// The command, and how to watch it.
    ///
    /// # Errors
    /// Usage.
    pub fn new(args: &cli::Run, terminal: Terminal) -> Result<(Watch, Self), Failure> {
        let watch = Watch::of(&args.what, args.pace.interval, true, terminal)?;
        let Some((program, arguments)) = args.command.split_first() else {
            return Err(Failure::Usage("there is no command to run".to_owned()));
        };
        let command = Self {
            program: program.clone(),
            arguments: arguments.to_vec(),
            user: args.user.clone(),
            baseline: (!args.no_baseline).then_some(args.baseline),
        };
        Ok((watch, command))
    }

    /// As typed; of long ones, the beginning.
    pub fn words(&self) -> Vec<String> {
        let words = std::iter::once(&self.program).chain(&self.arguments);
        let cut = |word: &OsString| word.to_string_lossy().chars().take(MOST_LETTERS).collect();
        words.take(MOST_WORDS).map(cut).collect()
    }
}

/// How much may be dropped, of what is not known to be harmless.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// In the whole run.
    pub drops: Option<u64>,
    /// A second, in any full interval and in the whole run.
    pub rate: Option<f64>,
}

impl Limits {
    /// Whether there are any.
    pub fn are_set(self) -> bool {
        self != Self::default()
    }

    /// What was exceeded. `highest` is the highest rate of a full interval.
    ///
    /// # Errors
    /// When something was.
    pub fn check(self, run: &Summing, highest: f64) -> Result<(), Failure> {
        let drops = run.harmful();
        if let Some(most) = self.drops.filter(|most| drops > *most) {
            return Err(Failure::Threshold(format!(
                "{drops} packets dropped, more than --fail-over {most}"
            )));
        }
        let overall = if run.duration_s() > 0.0 { drops as f64 / run.duration_s() } else { 0.0 };
        let rate = highest.max(overall);
        match self.rate.filter(|most| rate > *most) {
            Some(most) => Err(Failure::Threshold(format!(
                "{rate:.1} packets a second dropped, more than --fail-rate {most}"
            ))),
            None => Ok(()),
        }
    }
}
