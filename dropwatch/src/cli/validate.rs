//! From options as typed to what the program acts on: which go together, and what stands for those
//! that were left out.

use std::{path::Path, time::Duration};

use super::{
    CandidateArg, ConntrackArgs, CountingArgs, PaceArgs, PcapArgs, RunArgs, ShowArgs, TopArgs,
    WatchArgs, inert::Takers,
};
use crate::{
    exit::Failure,
    render::{Format, pcapng::SNAPLEN},
    report::{model::groups::By, shell::quote},
    settings::{
        self, Attached, Limits, Replay, Reported, Samples, Sinks, Target, Terminal, WatchedCommand,
        files::Files,
    },
};

/// Time between reports where none is given.
const INTERVAL: Duration = Duration::from_secs(5);
/// Samples a second at most where every drop is sampled and no rate is given.
const EVERY_DROP: u32 = 10_000;
/// How long the names of namespaces and interfaces hold between two reports, of drops that somebody
/// watches come, and of others.
const NAMES_OF_DROPS: Duration = Duration::from_secs(1);
const NAMES_OF_SAMPLES: Duration = Duration::from_secs(5);

impl WatchArgs {
    /// # Errors
    /// Usage: options that do not go together.
    pub fn settings(&self, terminal: Terminal) -> Result<settings::Watch, Failure> {
        let mut watch = self.what.settings(&self.pace, &self.expression, false, terminal)?;
        match watch.sinks.show.each {
            true => watch.reported.shown = self.count,
            false => watch.reported.count = self.count,
        }
        watch.reported.duration = self.duration;
        Ok(watch)
    }
}

impl RunArgs {
    /// How to watch, and the command to run meanwhile. `is_parted` says that `--` stands before it.
    ///
    /// # Errors
    /// Usage: options that do not go together, or an expression in the place of the command.
    pub fn settings(
        &self,
        is_parted: bool,
        terminal: Terminal,
    ) -> Result<(settings::Watch, WatchedCommand), Failure> {
        let watch = self.what.settings(&self.pace, &[], true, terminal)?;
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(Failure::Usage("there is no command to run".to_owned()));
        };
        let command = WatchedCommand {
            program: program.clone(),
            arguments: arguments.to_vec(),
            user: self.user.clone(),
            baseline: (!self.no_baseline).then_some(self.baseline),
        };
        if let Some(expression) = command.expression().filter(|_| !is_parted) {
            let filter = quote(&expression);
            return Err(Failure::Usage(format!(
                "{filter} stands where the command begins, and reads as a filter expression, which \
                 --filter takes under `run`: `dropwatch run --filter {filter} -- CMD` (where it is \
                 the command: `dropwatch run -- {expression} ...`)"
            )));
        }
        Ok((watch, command))
    }
}

impl CountingArgs {
    /// What runs of all kinds have in common. `expression` are the words that stand free, `aside` where
    /// standard output is a command's.
    fn settings(
        &self,
        pace: &PaceArgs,
        expression: &[String],
        aside: bool,
        terminal: Terminal,
    ) -> Result<settings::Watch, Failure> {
        let pcap = self.pcap.settings(terminal)?;
        let packets_on_stdout = pcap.as_ref().is_some_and(|pcap| pcap.target == Target::Stdout);
        if aside && packets_on_stdout {
            return Err(Failure::Usage(
                "--pcap - does not go with a command, whose standard output it is: name a file"
                    .to_owned(),
            ));
        }
        let takers = Takers::of(self, aside);
        let aside = aside || packets_on_stdout;
        Files::default()
            .writes("--output", self.output.as_deref())
            .writes("--pcap", pcap.as_ref().and_then(settings::Pcap::path))
            .stdout(if packets_on_stdout { "--pcap -" } else { "standard output" })
            .reports_aside(aside)
            .check()?;
        let show = self.show.settings(terminal.aside(aside))?;
        if show.each && self.no_samples {
            return Err(Failure::Usage(
                "--each does not go with --no-samples: a line is a sample".to_owned(),
            ));
        }
        self.check_inert(pace, &show, takers)?;
        let every = self.every.or(show.each.then_some(None));
        let every = every.map(|rate| rate.unwrap_or(EVERY_DROP));
        let lines = show.format.is_lines() || self.output.is_some();
        if self.samples && !lines {
            return Err(Failure::Usage(
                "--samples writes JSON lines: add --json, or --output FILE".to_owned(),
            ));
        }
        let details = show.format.shows_details() || self.output.is_some();
        let expression = self.filters.expression(expression)?;
        let attached = Attached {
            filters: self.filters.typed(expression.as_ref()),
            packets: self.filters.packets(expression),
            keys: self.filters.keys(),
            later: self.filters.later,
            by: self.by(show.format)?,
            samples: match &pcap {
                Some(_) => Samples::Packets,
                None if details && !self.no_samples => Samples::Details,
                None if every.is_some() => {
                    return Err(Failure::Usage(format!(
                        "--every does not go with the {} format, which shows no samples: add \
                         --pcap FILE or --output FILE",
                        show.format.name()
                    )));
                }
                None => Samples::None,
            },
            every,
            reasons: self.candidate.map(|candidate| candidate == CandidateArg::WithReasons),
            verbose: self.verbose,
        };
        let reported = Reported {
            interval: pace.interval.unwrap_or(INTERVAL),
            count: None,
            shown: None,
            duration: None,
            names_kept: if show.each { NAMES_OF_DROPS } else { NAMES_OF_SAMPLES },
            stacks: self.stacks,
            addresses: self.show.addresses,
            findings: !self.no_findings
                && (details && !show.each || self.output.is_some() || self.fail_on.is_some()),
            limits: Limits { drops: self.fail_over, rate: self.fail_rate, finding: self.fail_on },
        };
        let sinks = Sinks {
            show,
            aside,
            sample_lines: self.samples || show.each,
            record: self.output.clone(),
            pcap,
            metrics: self.metrics.map(|address| self.series.at(address)),
        };
        Ok(settings::Watch { attached, reported, sinks })
    }

    /// What to count by, each once.
    fn by(&self, format: Format) -> Result<Vec<By>, Failure> {
        let mut by: Vec<By> = Vec::new();
        for key in &self.by {
            if !by.contains(key) {
                by.push(*key);
            }
        }
        let refuse = |why: &str| Err(Failure::Usage(format!("--by {why}")));
        match by.is_empty() {
            false if !format.shows_details() => {
                refuse(&format!("does not go with the {} format", format.name()))
            }
            false if !self.filters.keys().is_empty() => refuse(
                "does not go with --reason and --symbol: the kernel counts groups before \
                 dropwatch looks at reasons and functions; use --netns, --iface, --proto, --host, \
                 --port",
            ),
            _ => Ok(by),
        }
    }
}

impl TopArgs {
    /// # Errors
    /// Usage, where there is no terminal to draw on.
    pub fn settings(&self, terminal: Terminal) -> Result<settings::Top, Failure> {
        if !terminal.stdout.is_terminal || terminal.dumb {
            return Err(Failure::Usage(
                "`dropwatch top` draws on a terminal, and this is none that it can draw on: \
                 `dropwatch -i 1s` prints the same as lines"
                    .to_owned(),
            ));
        }
        self.filters.check_inert()?;
        let expression = self.filters.expression(&self.expression)?;
        let attached = Attached {
            filters: self.filters.typed(expression.as_ref()),
            packets: self.filters.packets(expression),
            keys: self.filters.keys(),
            later: self.filters.later,
            by: Vec::new(),
            samples: Samples::Details,
            every: None,
            reasons: None,
            verbose: self.verbose,
        };
        let reported = Reported {
            interval: self.interval,
            count: None,
            shown: None,
            duration: None,
            names_kept: NAMES_OF_SAMPLES,
            stacks: self.stacks,
            addresses: false,
            findings: !self.no_findings,
            limits: Limits::default(),
        };
        let format = Format::Text;
        let view = format.view(Some(0), self.all);
        let medium = terminal.medium(self.color);
        let show = settings::Show { format, each: false, view, medium };
        Ok(settings::Top { attached, reported, show })
    }
}

impl PcapArgs {
    fn settings(&self, terminal: Terminal) -> Result<Option<settings::Pcap>, Failure> {
        let Some(path) = &self.pcap else { return Ok(None) };
        let target =
            if path == Path::new("-") { Target::Stdout } else { Target::File(path.clone()) };
        if target == Target::Stdout && terminal.stdout.is_terminal {
            return Err(Failure::Usage(
                "--pcap - writes binary data, and standard output is a terminal: name a file, or \
                 pipe it into `tshark -r -`"
                    .to_owned(),
            ));
        }
        Ok(Some(settings::Pcap { target, snaplen: self.snaplen.unwrap_or(SNAPLEN) }))
    }
}

impl ShowArgs {
    /// # Errors
    /// Usage: options that the format cannot honour.
    pub fn settings(&self, terminal: Terminal) -> Result<settings::Show, Failure> {
        let format = match (self.json, self.classic) {
            (true, _) => Format::Json,
            (_, true) => Format::Classic,
            _ => self.format.unwrap_or(Format::Text),
        };
        if self.each && !format.shows_details() {
            return Err(Failure::Usage(format!(
                "--each does not go with the {} format: it has no line for a drop",
                format.name()
            )));
        }
        let view = format.view(self.top, self.all);
        let medium = terminal.medium(self.color);
        let show = settings::Show { format, each: self.each, view, medium };
        self.check_inert(&show)?;
        Ok(show)
    }

    /// How a comparison of two recordings looks.
    ///
    /// # Errors
    /// Usage, where the format has no place for one, or it is written into one of the `recordings`.
    pub fn comparison(
        &self,
        recordings: [&Path; 2],
        terminal: Terminal,
    ) -> Result<settings::Show, Failure> {
        let files = recordings.into_iter().fold(Files::default(), Files::reads);
        files.stdout("standard output").check()?;
        match self.settings(terminal)? {
            show if show.each => {
                Err(Failure::Usage("--diff does not go with --each: it compares sums".to_owned()))
            }
            show if show.format.shows_details() => {
                self.check_compared(&show)?;
                Ok(show)
            }
            show => Err(Failure::Usage(format!(
                "--diff does not go with the {} format: SystemTap's script compares nothing",
                show.format.name()
            ))),
        }
    }

    /// How the recording `file` is shown again, and where its packets go.
    ///
    /// # Errors
    /// Usage: options that do not go together, or an output that is the recording itself.
    pub fn replay(
        &self,
        file: &Path,
        pcap: &PcapArgs,
        terminal: Terminal,
    ) -> Result<Replay, Failure> {
        self.check_recorded()?;
        let pcap = pcap.settings(terminal)?;
        let aside = pcap.as_ref().is_some_and(|pcap| pcap.target == Target::Stdout);
        Files::default()
            .reads(file)
            .writes("--pcap", pcap.as_ref().and_then(settings::Pcap::path))
            .stdout(if aside { "--pcap -" } else { "standard output" })
            .reports_aside(aside)
            .check()?;
        let show = self.settings(terminal.aside(aside))?;
        Ok(Replay { pcap, show })
    }
}

impl ConntrackArgs {
    pub fn settings(&self, terminal: Terminal) -> settings::Conntrack {
        settings::Conntrack {
            netns: self.netns.clone(),
            top: if self.top == 0 { usize::MAX } else { self.top },
            watch: self.watch,
            json: self.json,
            medium: terminal.medium(self.color),
        }
    }
}

#[cfg(test)]
mod tests;
