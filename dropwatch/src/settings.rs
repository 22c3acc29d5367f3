//! The command line, validated: what the program acts on.

use std::{io::IsTerminal, time::Duration};

use jiff::tz::TimeZone;

use crate::{
    cli,
    exit::Failure,
    filter::Packets,
    render::{Format, Renderer, Style},
    report::{
        groups::By,
        keys::{Choice, Keys},
        view::View,
    },
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
    /// Show their call paths.
    pub stacks: bool,
    /// Count only these packets.
    pub packets: Packets,
    /// Report only these rows.
    pub keys: Keys,
    /// The options behind both, as typed.
    pub filters: Vec<String>,
    /// Count by these, too.
    pub by: Vec<By>,
    pub verbose: bool,
    /// Attach with reasons, or without, and no other way; `None` is what the kernel takes.
    pub reasons: Option<bool>,
    pub show: Show,
}

/// How reports look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Show {
    pub format: Format,
    /// Which rows of a report to show.
    pub view: View,
    /// Show raw kernel addresses.
    pub addresses: bool,
    pub color: bool,
}

/// What decides about colour besides the option.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    pub is_terminal: bool,
    /// `NO_COLOR` is set and not empty (<https://no-color.org>).
    pub no_color: bool,
    /// `TERM` is `dumb`.
    pub dumb: bool,
}

impl Terminal {
    /// Of standard output.
    pub fn stdout() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        Self {
            is_terminal: std::io::stdout().is_terminal(),
            no_color: set("NO_COLOR"),
            dumb: std::env::var_os("TERM").is_some_and(|term| term == "dumb"),
        }
    }

    /// Whether to use colour where nobody said so.
    pub fn wants_color(self) -> bool {
        self.is_terminal && !self.no_color && !self.dumb
    }
}

impl Watch {
    pub fn new(args: &cli::Watch, terminal: Terminal) -> Result<Self, Failure> {
        let show = Show::new(&args.show, terminal)?;
        if args.samples && show.format != Format::Json {
            return Err(Failure::Usage("--samples writes JSON lines: add --json".to_owned()));
        }
        Ok(Self {
            interval: args.interval,
            count: args.count,
            duration: args.duration,
            // The classic format has no place for details.
            samples: !args.no_samples && show.format != Format::Classic,
            sample_lines: args.samples,
            stacks: args.stacks,
            by: by(args, show.format)?,
            packets: packets(&args.filters),
            keys: keys(&args.filters),
            filters: typed(&args.filters),
            verbose: args.verbose,
            show,
            reasons: args.candidate.map(|candidate| candidate == cli::Candidate::WithReasons),
        })
    }
}

/// What to count by, each once.
fn by(args: &cli::Watch, format: Format) -> Result<Vec<By>, Failure> {
    let mut by: Vec<By> = Vec::new();
    for key in &args.by {
        let key = match key {
            cli::By::Netns => By::Netns,
            cli::By::Iface => By::Iface,
            cli::By::Protocol => By::Protocol,
            cli::By::Cpu => By::Cpu,
        };
        if !by.contains(&key) {
            by.push(key);
        }
    }
    let refuse = |why: &str| Err(Failure::Usage(format!("--by {why}")));
    match by.is_empty() {
        false if format == Format::Classic => refuse("does not go with the classic format"),
        false if !keys(&args.filters).is_empty() => refuse(
            "does not go with --reason and --symbol: the kernel counts groups before dropwatch \
             looks at reasons and functions; use --netns, --iface, --proto, --host, --port",
        ),
        _ => Ok(by),
    }
}

fn choices<T: Clone>(given: &[cli::Filtered<T>]) -> Vec<Choice<T>> {
    given.iter().map(|filtered| filtered.choice.clone()).collect()
}

fn packets(args: &cli::Filters) -> Packets {
    Packets {
        netns: choices(&args.netns),
        iface: choices(&args.iface),
        protocol: choices(&args.proto),
        host: choices(&args.host),
        port: choices(&args.port),
    }
}

fn keys(args: &cli::Filters) -> Keys {
    Keys { reasons: choices(&args.reason), symbols: choices(&args.symbol) }
}

/// The filters as they were typed, in the order of the help.
fn typed(args: &cli::Filters) -> Vec<String> {
    fn of<T>(option: &str, given: &[cli::Filtered<T>]) -> Vec<String> {
        given.iter().map(|filtered| format!("{option} {}", filtered.typed)).collect()
    }
    [
        of("--reason", &args.reason),
        of("--symbol", &args.symbol),
        of("--netns", &args.netns),
        of("--iface", &args.iface),
        of("--proto", &args.proto),
        of("--host", &args.host),
        of("--port", &args.port),
    ]
    .concat()
}

impl Show {
    pub fn new(args: &cli::Show, terminal: Terminal) -> Result<Self, Failure> {
        let format = match (args.json, args.classic) {
            (true, _) => Format::Json,
            (_, true) => Format::Classic,
            _ => args.format.into(),
        };
        let refuse = |option: &str, why: &str| {
            Err(Failure::Usage(format!("{option} does not go with the classic format: {why}")))
        };
        if format == Format::Classic {
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
            color: match args.color {
                cli::Color::Always => true,
                cli::Color::Never => false,
                cli::Color::Auto => terminal.is_terminal && !terminal.no_color && !terminal.dumb,
            },
        })
    }

    /// What renders the lines, with clock times of this machine's zone.
    pub fn renderer(&self) -> Box<dyn Renderer> {
        self.format.renderer(Style { color: self.color, time_zone: TimeZone::system() })
    }
}

impl From<cli::Format> for Format {
    fn from(format: cli::Format) -> Self {
        match format {
            cli::Format::Text => Self::Text,
            cli::Format::Classic => Self::Classic,
            cli::Format::Json => Self::Json,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    const TTY: Terminal = Terminal { is_terminal: true, no_color: false, dumb: false };
    const PIPE: Terminal = Terminal { is_terminal: false, ..TTY };

    fn show(args: &[&str], terminal: Terminal) -> Result<Show, Failure> {
        let cli = cli::Cli::try_parse_from(["dropwatch"].iter().chain(args)).expect("parses");
        Show::new(&cli.watch.show, terminal)
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

    fn watch(args: &[&str]) -> Result<Watch, Failure> {
        let cli = cli::Cli::try_parse_from(["dropwatch"].iter().chain(args)).expect("parses");
        Watch::new(&cli.watch, PIPE)
    }

    #[test]
    fn filters_are_alternatives_of_each_option_and_told_as_typed() {
        let watch = watch(&["--port", "80", "--proto", "tcp", "--port", "!8000-8099"]).unwrap();
        assert_eq!(watch.filters, ["--proto tcp", "--port 80", "--port !8000-8099"]);
        let excluded: Vec<_> = watch.packets.port.iter().map(|choice| choice.exclude).collect();
        assert_eq!(excluded, [false, true]);
        assert!(watch.keys.is_empty());
    }

    #[test]
    fn groups_are_told_once_and_not_where_they_cannot_be() {
        assert_eq!(watch(&["--by", "cpu,netns,cpu"]).unwrap().by, [By::Cpu, By::Netns]);
        assert!(matches!(watch(&["--by", "cpu", "--classic"]), Err(Failure::Usage(_))));
        assert!(matches!(watch(&["--by", "cpu", "--symbol", "x"]), Err(Failure::Usage(_))));
        assert!(watch(&["--by", "cpu", "--proto", "udp"]).is_ok());
    }

    #[test]
    fn colour_is_for_terminals_that_want_it() {
        assert!(show(&[], TTY).unwrap().color);
        assert!(!show(&[], PIPE).unwrap().color);
        assert!(!show(&[], Terminal { no_color: true, ..TTY }).unwrap().color);
        assert!(!show(&[], Terminal { dumb: true, ..TTY }).unwrap().color);
        assert!(show(&["--color", "always"], PIPE).unwrap().color);
        assert!(!show(&["--color", "never"], TTY).unwrap().color);
    }
}
