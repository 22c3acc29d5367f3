//! The command line, validated: what the program acts on.

mod run;
mod terminal;
mod top;

use std::{
    fmt::{self, Display},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::tz::TimeZone;

pub use self::{
    run::{Command, Limits},
    terminal::{Stream, Terminal},
};
use crate::{
    cli,
    exit::Failure,
    filter::Packets,
    render::{Format, Medium, Renderer, Style, pcapng::SNAPLEN},
    report::{keys::Keys, model::groups::By, view::View},
};

/// A live run.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    pub interval: Duration,
    /// Stop after this many reports.
    pub count: Option<u64>,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// Keep some drops in detail.
    pub samples: bool,
    /// Write each of them as a line of its own.
    pub sample_lines: bool,
    /// Write their packets to a capture.
    pub pcap: Option<Pcap>,
    /// Write JSON lines to this file, too.
    pub record: Option<PathBuf>,
    /// Serve metrics here.
    pub metrics: Option<SocketAddr>,
    /// How much may be dropped.
    pub limits: Limits,
    /// Show their call paths.
    pub stacks: bool,
    /// Count only these packets.
    pub packets: Packets,
    /// Report only these rows.
    pub keys: Keys,
    /// The options behind both, as typed.
    pub filters: Vec<String>,
    /// Take names in them that are not there yet.
    pub later: bool,
    /// Count by these, too.
    pub by: Vec<By>,
    /// Look for the causes of drops.
    pub findings: bool,
    pub verbose: bool,
    /// Attach with reasons, or without, and no other way; `None` is what the kernel takes.
    pub reasons: Option<bool>,
    pub show: Show,
    /// Reports go to standard error: standard output is somebody else's.
    pub aside: bool,
}

/// A recording that is rendered again.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    /// Write its packets to a capture.
    pub pcap: Option<Pcap>,
    pub show: Show,
}

/// A capture of sampled packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pcap {
    pub target: Target,
    /// Most bytes of each packet.
    pub snaplen: usize,
}

/// Where a capture goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Reports then go to standard error.
    Stdout,
    File(PathBuf),
}

impl Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// How reports look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Show {
    pub format: Format,
    /// Which rows of a report to show.
    pub view: View,
    /// Show raw kernel addresses.
    pub addresses: bool,
    pub medium: Medium,
}

/// What to show of connection tracking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// Network namespaces, as somebody calls them; none stands for all.
    pub netns: Vec<String>,
    /// Rows of each ranking.
    pub top: usize,
    /// Time between pages; `None` for a single one.
    pub watch: Option<Duration>,
    pub json: bool,
    pub medium: Medium,
}

impl Conntrack {
    pub fn new(args: &cli::Conntrack, terminal: Terminal) -> Self {
        Self {
            netns: args.netns.clone(),
            top: if args.top == 0 { usize::MAX } else { args.top },
            watch: args.watch,
            json: args.json,
            medium: terminal.medium(args.color),
        }
    }
}

impl Watch {
    pub fn new(args: &cli::Watch, terminal: Terminal) -> Result<Self, Failure> {
        let cli::Watch { pace, count, duration, what } = args;
        let watch = Self::of(what, pace.interval, false, terminal)?;
        Ok(Self { count: *count, duration: *duration, ..watch })
    }

    /// What runs of all kinds have in common; `aside` where standard output is a command's.
    fn of(
        args: &cli::What,
        interval: Duration,
        aside: bool,
        terminal: Terminal,
    ) -> Result<Self, Failure> {
        let pcap = Pcap::new(&args.pcap, terminal)?;
        let packets_on_stdout = matches!(&pcap, Some(Pcap { target: Target::Stdout, .. }));
        if aside && packets_on_stdout {
            return Err(Failure::Usage(
                "--pcap - does not go with a command, whose standard output it is: name a file"
                    .to_owned(),
            ));
        }
        let aside = aside || packets_on_stdout;
        let show = Show::new(&args.show, terminal.aside(aside))?;
        let lines = show.format.is_lines() || args.output.is_some();
        if args.samples && !lines {
            return Err(Failure::Usage(
                "--samples writes JSON lines: add --json, or --output FILE".to_owned(),
            ));
        }
        let details = show.format.shows_details() || args.output.is_some();
        Ok(Self {
            interval,
            count: None,
            duration: None,
            samples: !args.no_samples && (details || pcap.is_some()),
            pcap,
            record: args.output.clone(),
            metrics: args.metrics,
            limits: Limits { drops: args.fail_over, rate: args.fail_rate, finding: args.fail_on },
            sample_lines: args.samples,
            findings: !args.no_findings && (details || args.fail_on.is_some()),
            aside,
            stacks: args.stacks,
            by: by(args, show.format)?,
            packets: args.filters.packets(),
            keys: args.filters.keys(),
            filters: args.filters.typed(),
            later: args.filters.later,
            verbose: args.verbose,
            show,
            reasons: args.candidate.map(|candidate| candidate == cli::Candidate::WithReasons),
        })
    }
}

/// What to count by, each once.
fn by(args: &cli::What, format: Format) -> Result<Vec<By>, Failure> {
    let mut by: Vec<By> = Vec::new();
    for key in &args.by {
        if !by.contains(key) {
            by.push(*key);
        }
    }
    let refuse = |why: &str| Err(Failure::Usage(format!("--by {why}")));
    match by.is_empty() {
        false if !format.shows_details() => {
            refuse(&format!("does not go with the {} format", format.name()))
        }
        false if !args.filters.keys().is_empty() => refuse(
            "does not go with --reason and --symbol: the kernel counts groups before dropwatch \
             looks at reasons and functions; use --netns, --iface, --proto, --host, --port",
        ),
        _ => Ok(by),
    }
}

impl Replay {
    pub fn new(show: &cli::Show, pcap: &cli::Pcap, terminal: Terminal) -> Result<Self, Failure> {
        let pcap = Pcap::new(pcap, terminal)?;
        let aside = matches!(&pcap, Some(Pcap { target: Target::Stdout, .. }));
        let show = Show::new(show, terminal.aside(aside))?;
        Ok(Self { pcap, show })
    }
}

impl Pcap {
    fn new(args: &cli::Pcap, terminal: Terminal) -> Result<Option<Self>, Failure> {
        let Some(path) = &args.pcap else { return Ok(None) };
        let target =
            if path == Path::new("-") { Target::Stdout } else { Target::File(path.clone()) };
        if target == Target::Stdout && terminal.stdout.is_terminal {
            return Err(Failure::Usage(
                "--pcap - writes binary data, and standard output is a terminal: name a file, or \
                 pipe it into `tshark -r -`"
                    .to_owned(),
            ));
        }
        Ok(Some(Self { target, snaplen: args.snaplen.unwrap_or(SNAPLEN) }))
    }
}

impl Show {
    pub fn new(args: &cli::Show, terminal: Terminal) -> Result<Self, Failure> {
        let format = match (args.json, args.classic) {
            (true, _) => Format::Json,
            (_, true) => Format::Classic,
            _ => args.format,
        };
        let refuse = |option: &str, why: &str| {
            let name = format.name();
            Err(Failure::Usage(format!("{option} does not go with the {name} format: {why}")))
        };
        if !format.shows_details() {
            if args.top.is_some_and(|top| top > 0) {
                return refuse("--top", "it shows every location, as the script does");
            }
            if args.addresses {
                return refuse("--addresses", "it has no column for them");
            }
        }
        Ok(Self {
            format,
            view: format.view(args.top, args.all),
            addresses: args.addresses,
            medium: terminal.medium(args.color),
        })
    }

    /// The same for a comparison of two recordings.
    ///
    /// # Errors
    /// Usage, where the format has no place for one.
    pub fn comparison(args: &cli::Show, terminal: Terminal) -> Result<Self, Failure> {
        match Self::new(args, terminal)? {
            show if show.format.shows_details() => Ok(show),
            show => Err(Failure::Usage(format!(
                "--diff does not go with the {} format: SystemTap's script compares nothing",
                show.format.name()
            ))),
        }
    }

    /// What renders the lines, with clock times of this machine's zone.
    pub fn renderer(&self) -> Box<dyn Renderer> {
        self.format.renderer(Style { medium: self.medium, time_zone: TimeZone::system() })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::report::finding::Severity;

    const SCREEN: Stream = Stream { is_terminal: true, color: true, columns: Some(100) };
    const FILE: Stream = Stream { is_terminal: false, color: false, columns: None };
    const TTY: Terminal = Terminal { stdout: SCREEN, stderr: SCREEN, dumb: false, ascii: false };
    const PIPE: Terminal = Terminal { stdout: FILE, ..TTY };

    fn show(args: &[&str], terminal: Terminal) -> Result<Show, Failure> {
        let cli = cli::Cli::try_parse_from(["dropwatch"].iter().chain(args)).expect("parses");
        Show::new(&cli.watch.what.show, terminal)
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

    fn watch(args: &[&str], terminal: Terminal) -> Result<Watch, Failure> {
        let cli = cli::Cli::try_parse_from(["dropwatch"].iter().chain(args)).expect("parses");
        Watch::new(&cli.watch, terminal)
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
                let Some(cli::Command::Run(run)) = cli::Cli::parse_from(args).command else {
                    panic!("no command to run")
                };
                Command::new(&run, PIPE).unwrap().0
            };
            assert_eq!(run(&[short]), run(&long));
            let compared = |asked: &[&str]| {
                let args = [&["dropwatch", "replay", "a", "--diff", "b"], asked].concat();
                let Some(cli::Command::Replay { show, .. }) = cli::Cli::parse_from(args).command
                else {
                    panic!("no recording to replay")
                };
                Show::comparison(&show, PIPE).map_err(|failure| failure.to_string())
            };
            assert_eq!(compared(&[short]), compared(&long));
            assert_eq!(compared(&[short]).is_ok(), short == "--json");
        }
        assert_eq!(watch(&["--json", "-o", "f"], PIPE).unwrap().show.format, Format::Json);
    }

    #[test]
    fn a_finding_that_ends_a_run_badly_is_looked_for_in_every_format() {
        let limits = |args: &[&str]| {
            let watch = watch(args, PIPE).unwrap();
            (watch.findings, watch.limits.finding)
        };
        assert_eq!(limits(&["--classic"]), (false, None));
        let warning = Some(Severity::Warning);
        assert_eq!(limits(&["--classic", "--fail-on", "warning"]), (true, warning));
        let without = ["dropwatch", "--fail-on", "critical", "--no-findings"];
        assert!(cli::Cli::try_parse_from(without).is_err());
    }

    #[test]
    fn packets_go_to_a_file_or_a_pipe_and_never_to_a_terminal() {
        let file = watch(&["--pcap", "x.pcapng", "--snaplen", "64"], TTY).unwrap();
        let target = Target::File("x.pcapng".into());
        assert_eq!(file.pcap, Some(Pcap { target, snaplen: 64 }));
        assert!(matches!(watch(&["--pcap", "-"], TTY), Err(Failure::Usage(_))));
        let pipe = watch(&["--pcap", "-"], PIPE).unwrap();
        assert_eq!(pipe.pcap, Some(Pcap { target: Target::Stdout, snaplen: SNAPLEN }));
        assert!(pipe.show.medium.color, "reports go to standard error, which is a terminal");
        assert_eq!(pipe.show.medium.columns, Some(100));
        let logged = Terminal { stderr: FILE, ..PIPE };
        assert_eq!(watch(&["--pcap", "-"], logged).unwrap().show.medium, Medium::default());
    }

    #[test]
    fn a_capture_needs_samples_in_every_format() {
        assert!(!watch(&["--classic"], PIPE).unwrap().samples);
        assert!(watch(&["--classic", "--pcap", "f"], PIPE).unwrap().samples);
    }

    #[test]
    fn filters_are_alternatives_of_each_option_and_told_as_typed() {
        let watch =
            watch(&["--port", "80", "--proto", "tcp", "--port", "!8000-8099"], PIPE).unwrap();
        assert_eq!(watch.filters, ["--proto tcp", "--port 80", "--port !8000-8099"]);
        let excluded: Vec<_> = watch.packets.port.iter().map(|choice| choice.exclude).collect();
        assert_eq!(excluded, [false, true]);
        assert!(watch.keys.is_empty());
    }

    #[test]
    fn groups_are_told_once_and_not_where_they_cannot_be() {
        assert_eq!(watch(&["--by", "cpu,netns,cpu"], PIPE).unwrap().by, [By::Cpu, By::Netns]);
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
