//! From options as typed to what the program acts on: which go together, and what stands for those
//! that were left out.

use std::{path::Path, time::Duration};

use super::{
    CandidateArg, ConntrackArgs, CountingArgs, PcapArgs, RunArgs, ShowArgs, TopArgs, WatchArgs,
};
use crate::{
    exit::Failure,
    render::{Format, pcapng::SNAPLEN},
    report::model::groups::By,
    settings::{
        self, Attached, Limits, Replay, Reported, Samples, Sinks, Target, Terminal, WatchedCommand,
        files::Files,
    },
};

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
        let mut watch =
            self.what.settings(self.pace.interval, &self.expression, false, terminal)?;
        match watch.sinks.show.each {
            true => watch.reported.shown = self.count,
            false => watch.reported.count = self.count,
        }
        watch.reported.duration = self.duration;
        Ok(watch)
    }
}

impl RunArgs {
    /// How to watch, and the command to run meanwhile.
    ///
    /// # Errors
    /// Usage: options that do not go together.
    pub fn settings(
        &self,
        terminal: Terminal,
    ) -> Result<(settings::Watch, WatchedCommand), Failure> {
        let watch = self.what.settings(self.pace.interval, &[], true, terminal)?;
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(Failure::Usage("there is no command to run".to_owned()));
        };
        let command = WatchedCommand {
            program: program.clone(),
            arguments: arguments.to_vec(),
            user: self.user.clone(),
            baseline: (!self.no_baseline).then_some(self.baseline),
        };
        Ok((watch, command))
    }
}

impl CountingArgs {
    /// What runs of all kinds have in common. `expression` are the words that stand free, `aside` where standard output is a command's.
    fn settings(
        &self,
        interval: Duration,
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
            filters: self.filters.typed(expression.as_deref()),
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
            interval,
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
        let expression = self.filters.expression(&self.expression)?;
        let attached = Attached {
            filters: self.filters.typed(expression.as_deref()),
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
            _ => self.format,
        };
        let refuse = |option: &str, why: &str| {
            let name = format.name();
            Err(Failure::Usage(format!("{option} does not go with the {name} format: {why}")))
        };
        if self.each && !format.shows_details() {
            return refuse("--each", "it has no line for a drop");
        }
        if !format.shows_details() {
            if self.top.is_some_and(|top| top > 0) {
                return refuse("--top", "it shows every location, as the script does");
            }
            if self.addresses {
                return refuse("--addresses", "it has no column for them");
            }
        }
        let view = format.view(self.top, self.all);
        let medium = terminal.medium(self.color);
        Ok(settings::Show { format, each: self.each, view, medium })
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
            show if show.format.shows_details() => Ok(show),
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
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{
        cli::{Cli, Command},
        render::Medium,
        report::{
            finding::Severity,
            model::{Line, Start},
        },
        settings::Stream,
    };

    const SCREEN: Stream = Stream { is_terminal: true, color: true, columns: Some(100) };
    const FILE: Stream = Stream { is_terminal: false, color: false, columns: None };
    const TTY: Terminal = Terminal { stdout: SCREEN, stderr: SCREEN, dumb: false, ascii: false };
    const PIPE: Terminal = Terminal { stdout: FILE, ..TTY };

    fn show(args: &[&str], terminal: Terminal) -> Result<settings::Show, Failure> {
        let cli = Cli::try_parse_from(["dropwatch"].iter().chain(args)).expect("parses");
        cli.watch.what.show.settings(terminal)
    }

    #[test]
    fn text_shows_ten_and_folds_json_shows_everything() {
        let text = show(&[], PIPE).unwrap();
        assert_eq!((text.view.top, text.view.fold_benign), (Some(10), true));
        let json = show(&["--json"], PIPE).unwrap();
        assert_eq!((json.view.top, json.view.fold_benign), (None, false));
        let classic = show(&["--classic"], PIPE).unwrap();
        assert_eq!((classic.view.top, classic.view.fold_benign), (None, false));
    }

    #[test]
    fn zero_means_all() {
        assert_eq!(show(&["-n", "0"], PIPE).unwrap().view.top, None);
        assert_eq!(show(&["-n", "3"], PIPE).unwrap().view.top, Some(3));
        assert_eq!(show(&["--json", "-n", "3"], PIPE).unwrap().view.top, Some(3));
    }

    #[test]
    fn classic_takes_no_option_that_it_cannot_honour() {
        assert!(matches!(show(&["--classic", "-n", "3"], PIPE), Err(Failure::Usage(_))));
        assert!(matches!(show(&["--classic", "--addresses"], PIPE), Err(Failure::Usage(_))));
        assert!(show(&["--classic", "-n", "0", "--all"], PIPE).is_ok());
    }

    fn watch(args: &[&str], terminal: Terminal) -> Result<settings::Watch, Failure> {
        let cli = Cli::try_parse_from(["dropwatch"].iter().chain(args)).expect("parses");
        cli.watch.settings(terminal)
    }

    #[test]
    fn two_ways_to_ask_for_a_format_mean_the_same() {
        for (short, long) in
            [("--json", ["--format", "json"]), ("--classic", ["--format", "classic"])]
        {
            for others in [&[][..], &["-o", "f"], &["-o", "f", "-n", "0"], &["--pcap", "f"]] {
                let of = |asked: &[&str]| watch(&[asked, others].concat(), PIPE).unwrap();
                assert_eq!(of(&[short]), of(&long), "{short} {others:?}");
            }
            let run = |asked: &[&str]| {
                let args = [&["dropwatch", "run", "-o", "f"], asked, &["id"]].concat();
                let Some(Command::Run(run)) = Cli::parse_from(args).command else {
                    panic!("no command to run")
                };
                run.settings(PIPE).unwrap().0
            };
            assert_eq!(run(&[short]), run(&long));
            let compared = |asked: &[&str]| {
                let args = [&["dropwatch", "replay", "a", "--diff", "b"], asked].concat();
                let Some(Command::Replay { show, .. }) = Cli::parse_from(args).command else {
                    panic!("no recording to replay")
                };
                let recordings = ["a", "b"].map(Path::new);
                show.comparison(recordings, PIPE).map_err(|failure| failure.to_string())
            };
            assert_eq!(compared(&[short]), compared(&long));
            assert_eq!(compared(&[short]).is_ok(), short == "--json");
        }
        assert_eq!(watch(&["--json", "-o", "f"], PIPE).unwrap().sinks.show.format, Format::Json);
    }

    #[test]
    fn a_finding_that_ends_a_run_badly_is_looked_for_in_every_format() {
        let limits = |args: &[&str]| {
            let reported = watch(args, PIPE).unwrap().reported;
            (reported.findings, reported.limits.finding)
        };
        assert_eq!(limits(&["--classic"]), (false, None));
        let warning = Some(Severity::Warning);
        assert_eq!(limits(&["--classic", "--fail-on", "warning"]), (true, warning));
        let without = ["dropwatch", "--fail-on", "critical", "--no-findings"];
        assert!(Cli::try_parse_from(without).is_err());
    }

    #[test]
    fn packets_go_to_a_file_or_a_pipe_and_never_to_a_terminal() {
        let sinks = |args: &[&str], terminal| watch(args, terminal).unwrap().sinks;
        let file = sinks(&["--pcap", "x.pcapng", "--snaplen", "64"], TTY);
        let target = Target::File("x.pcapng".into());
        assert_eq!(file.pcap, Some(settings::Pcap { target, snaplen: 64 }));
        assert!(matches!(watch(&["--pcap", "-"], TTY), Err(Failure::Usage(_))));
        let pipe = sinks(&["--pcap", "-"], PIPE);
        assert_eq!(pipe.pcap, Some(settings::Pcap { target: Target::Stdout, snaplen: SNAPLEN }));
        assert!(pipe.show.medium.color, "reports go to standard error, which is a terminal");
        assert_eq!(pipe.show.medium.columns, Some(100));
        let logged = Terminal { stderr: FILE, ..PIPE };
        assert_eq!(sinks(&["--pcap", "-"], logged).show.medium, Medium::default());
    }

    #[test]
    fn a_capture_needs_samples_in_every_format() {
        let samples = |args: &[&str]| watch(args, PIPE).unwrap().attached.samples;
        assert_eq!(samples(&[]), Samples::Details);
        assert_eq!(samples(&["--no-samples"]), Samples::None);
        assert_eq!(samples(&["--classic"]), Samples::None);
        assert_eq!(samples(&["--classic", "-o", "f"]), Samples::Details);
        assert_eq!(samples(&["--classic", "--pcap", "f"]), Samples::Packets);
    }

    #[test]
    fn every_drop_is_sampled_where_it_is_shown_or_asked_for() {
        let every = |args: &[&str]| watch(args, PIPE).map(|watch| watch.attached.every).ok();
        assert_eq!(every(&[]), Some(None));
        assert_eq!(every(&["--every"]), Some(Some(10_000)));
        assert_eq!(every(&["--every=7", "--pcap", "f"]), Some(Some(7)));
        assert_eq!(every(&["--each"]), Some(Some(10_000)));
        assert_eq!(every(&["--each", "--every=500"]), Some(Some(500)));
        for args in
            [&["--classic", "--every"][..], &["--classic", "--each"], &["--each", "--no-samples"]]
        {
            let parsed = Cli::try_parse_from(["dropwatch"].iter().chain(args));
            assert!(parsed.is_err() || every(args).is_none(), "{args:?}");
        }
        for rate in ["0", "100001", "x", "-1", ""] {
            let every = format!("--every={rate}");
            assert!(Cli::try_parse_from(["dropwatch", &every]).is_err(), "{rate}");
        }
    }

    #[test]
    fn drops_are_shown_instead_of_reports_and_counted_by_their_number() {
        let each = watch(&["--each", "-c", "5"], PIPE).unwrap();
        assert_eq!((each.reported.count, each.reported.shown), (None, Some(5)));
        assert!(each.sinks.sample_lines && !each.reported.findings);
        let reports = watch(&["-c", "5"], PIPE).unwrap();
        assert_eq!((reports.reported.count, reports.reported.shown), (Some(5), None));
        // A recording has the reports, too.
        assert!(watch(&["--each", "-o", "f"], PIPE).unwrap().reported.findings);
        let show = each.sinks.show;
        let lines = [Line::Start(Start::default()), Line::Sample(Box::default())];
        assert_eq!(lines.map(|line| show.shows(&line)), [false, true]);
    }

    #[test]
    fn filters_are_alternatives_of_each_option_and_shown_as_typed() {
        let args = ["--port", "80", "--proto", "tcp", "--port", "!8000-8099"];
        let watch = watch(&args, PIPE).unwrap().attached;
        assert_eq!(watch.filters, ["--proto tcp", "--port 80", "--port !8000-8099"]);
        let excluded: Vec<_> = watch.packets.port.iter().map(|choice| choice.exclude).collect();
        assert_eq!(excluded, [false, true]);
        assert!(watch.keys.is_empty());
    }

    #[test]
    fn groups_are_listed_once_and_refused_where_they_cannot_be() {
        let twice = watch(&["--by", "cpu,netns,cpu"], PIPE).unwrap();
        assert_eq!(twice.attached.by, [By::Cpu, By::Netns]);
        assert!(matches!(watch(&["--by", "cpu", "--classic"], PIPE), Err(Failure::Usage(_))));
        assert!(matches!(watch(&["--by", "cpu", "--symbol", "x"], PIPE), Err(Failure::Usage(_))));
        assert!(watch(&["--by", "cpu", "--proto", "udp"], PIPE).is_ok());
    }

    #[test]
    fn colour_is_for_terminals_that_want_it() {
        let color = |args: &[&str], terminal| show(args, terminal).unwrap().medium.color;
        assert!(color(&[], TTY));
        assert!(!color(&[], PIPE));
        assert!(color(&["--color", "always"], PIPE));
        assert!(!color(&["--color", "never"], TTY));
    }
}
