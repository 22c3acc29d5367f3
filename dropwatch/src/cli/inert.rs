//! Options that would do nothing where they are given: refused, since whoever types one expects
//! something of it. Options that leave something out (`--no-samples`) are none of them, nor is `--color`,
//! nor one that asks for what is so anyway (`--json --all`).

use super::{CountingArgs, Filters, PaceArgs, ShowArgs};
use crate::{exit::Failure, settings::Show};

/// Whatever takes what a run counts, beside the output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Takers {
    /// JSON lines in a file.
    record: bool,
    metrics: bool,
    /// A limit on the rate of an interval.
    rate: bool,
    /// The sum of a command's run, which has the worst of its intervals.
    summary: bool,
}

impl Takers {
    /// Those of a run, which is a command's or not.
    pub(super) fn of(args: &CountingArgs, of_command: bool) -> Self {
        Self {
            record: args.output.is_some(),
            metrics: args.metrics.is_some(),
            rate: args.fail_rate.is_some(),
            summary: of_command,
        }
    }
}

fn refuse(option: &str, with: &str, why: &str) -> Failure {
    Failure::Usage(format!("{option} does not go with {with}: {why}"))
}

impl CountingArgs {
    /// Refuses what nothing of a run would show.
    ///
    /// # Errors
    /// Usage: the first such option.
    pub(super) fn check_inert(
        &self,
        pace: &PaceArgs,
        show: &Show,
        takers: Takers,
    ) -> Result<(), Failure> {
        self.filters.check_inert()?;
        let Takers { record, metrics, rate, summary } = takers;
        let with = if show.each { "--each" } else { "the classic format" };
        if self.stacks && !record && (show.each || !show.format.shows_details()) {
            let why = "call paths are shown with reports: add --output FILE";
            return Err(refuse("--stacks", with, why));
        }
        if !show.each {
            return Ok(());
        }
        if !self.by.is_empty() && !record && !metrics {
            let why = "groups are shown with reports: add --output FILE or --metrics ADDR";
            return Err(refuse("--by", with, why));
        }
        if pace.interval.is_some() && !(record || metrics || rate || summary) {
            let why = "drops are shown as they happen, and there are no reports: add --output FILE \
                       or --metrics ADDR";
            return Err(refuse("--interval", with, why));
        }
        Ok(())
    }
}

impl Filters {
    /// # Errors
    /// Usage: `--later`, where no filter has a name that could come.
    pub(super) fn check_inert(&self) -> Result<(), Failure> {
        let Self { reason, symbol, netns, iface, later, .. } = self;
        let is_nameless =
            reason.is_empty() && symbol.is_empty() && netns.is_empty() && iface.is_empty();
        match *later && is_nameless {
            true => Err(Failure::Usage(
                "--later is about names in filters, and there are none: it goes with --netns, \
                 --iface, --reason and --symbol"
                    .to_owned(),
            )),
            false => Ok(()),
        }
    }
}

impl ShowArgs {
    /// Refuses what neither drops by themselves nor the classic format show.
    ///
    /// # Errors
    /// Usage: the first such option.
    pub(super) fn check_inert(&self, show: &Show) -> Result<(), Failure> {
        let has_rows = self.top.is_some_and(|top| top > 0);
        if show.each && has_rows {
            let why = "every drop has a line; -c N ends after N of them";
            return Err(refuse("--top", "--each", why));
        }
        if show.each && self.all {
            return Err(refuse("--all", "--each", "harmless drops have lines as all others have"));
        }
        if show.format.shows_details() {
            return Ok(());
        }
        let with = format!("the {} format", show.format.name());
        if has_rows {
            return Err(refuse("--top", &with, "it shows every location, as the script does"));
        }
        if self.all {
            return Err(refuse("--all", &with, "it shows every location, harmless or not"));
        }
        if self.addresses {
            return Err(refuse("--addresses", &with, "it has no column for them"));
        }
        Ok(())
    }

    /// Refuses what a recording that is shown again leaves no choice about.
    ///
    /// # Errors
    /// Usage: the first such option.
    pub(super) fn check_recorded(&self) -> Result<(), Failure> {
        match self.addresses {
            true => Err(Failure::Usage(
                "--addresses does not go with replay, which shows those that the recording has"
                    .to_owned(),
            )),
            false => Ok(()),
        }
    }

    /// Refuses what a comparison of two recordings does not show.
    ///
    /// # Errors
    /// Usage: the first such option.
    pub(super) fn check_compared(&self, show: &Show) -> Result<(), Failure> {
        self.check_recorded()?;
        if self.all && !show.format.is_lines() {
            return Err(refuse("--all", "--diff", "harmless drops are in its sums as all others"));
        }
        if self.top.is_some_and(|top| top > 0) && show.format.is_lines() {
            return Err(refuse("--top", "--diff as JSON", "it has every row"));
        }
        Ok(())
    }

    /// Refuses what metrics of a recording have no place for: all that is about how reports look.
    ///
    /// # Errors
    /// Usage: the first such option.
    pub fn check_served(&self) -> Result<(), Failure> {
        let given = [
            ("--json", self.json),
            ("--each", self.each),
            ("--classic", self.classic),
            ("--format", self.format.is_some()),
            ("--top", self.top.is_some()),
            ("--all", self.all),
            ("--addresses", self.addresses),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((option, _)) => {
                Err(refuse(option, "replay --metrics", "it serves sums, and shows no reports"))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
