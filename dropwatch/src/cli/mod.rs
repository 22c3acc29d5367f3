//! The command line, as typed. What needs more than one option is checked where it becomes
//! [`settings`](crate::settings), in `validate.rs`.

mod choices;
mod conntrack;
mod filters;
mod inert;
mod run;
mod series;
mod top;
mod validate;
mod values;

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use anyhow::anyhow;
use clap::{
    ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, ValueHint,
    error::ErrorKind,
};

use dropwatch_common::sample::PACKET_BYTES;

use self::values::{
    address, at_least_one, duration, rate, samples_a_second, snaplen, whole, whole_number,
};
pub use self::{
    conntrack::ConntrackArgs,
    filters::{Filtered, Filters},
    run::RunArgs,
    series::SeriesArgs,
    top::TopArgs,
};
use crate::{
    exit::{self, Failure},
    render::{Format, Medium, pcapng::SNAPLEN},
    report::{finding::Severity, model::groups::By},
    settings::Color,
};

/// What `--version` says; `-V` is the first line of it.
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit ",
    env!("DROPWATCH_COMMIT"),
    "\nkernel object sha256:",
    env!("DROPWATCH_OBJECT_SHA256"),
);

#[derive(Debug, Parser)]
#[command(
    name = "dropwatch",
    version,
    about = "Tells where the Linux kernel drops packets, why, and how many, exactly",
    long_version = LONG_VERSION,
    after_help = "\
Exit codes: 0 fine, 1 failure while running, also packets missing in FILE, 2 usage, 3 missing privilege, 4 kernel cannot, 5 more drops than --fail-over or --fail-rate allow, or a finding that --fail-on forbids.

Examples:
  sudo dropwatch                        report every 5 seconds until Ctrl-C
  sudo dropwatch -i 1s -d 1m            every second, for one minute
  sudo dropwatch top                    the same as a live table
  sudo dropwatch run -- ab -n 1000 URL  while a load test runs; then its sum
  sudo dropwatch --json >drops.ndjson   record what happens
  dropwatch replay drops.ndjson         show it again
  sudo dropwatch --proto tcp --port 80  only packets of web traffic
  sudo dropwatch 'icmp or udp port 53'  an expression, as for tcpdump
  sudo dropwatch --by netns,cpu         also by namespace and CPU
  sudo dropwatch --pcap drops.pcapng    sampled packets, for Wireshark
  sudo dropwatch --each --port 80       a line for each drop, as it happens
  sudo dropwatch --classic              as SystemTap's dropwatch.stp
  dropwatch explain NO_SOCKET           what a drop reason means, what to do
  sudo dropwatch conntrack              what fills the tables of connections
  dropwatch doctor                      what this kernel lets you see",
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub watch: WatchArgs,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show connection tracking: use, limit, memory, counters, and what fills the table
    Conntrack(ConntrackArgs),
    /// Watch while a command runs, then sum up; the exit status is the command's
    Run(Box<RunArgs>),
    /// Show a live table on the whole screen: rates, trends, all about a row
    Top(TopArgs),
    /// Show what this kernel and these privileges allow, and what each lack costs
    #[command(after_help = "\
Examples:
  dropwatch doctor                  what these privileges allow
  sudo dropwatch doctor             what root's do
  sudo dropwatch doctor --cost=30s  what counting costs, under load")]
    Doctor {
        /// Measure instead what counting costs here, for 5 seconds unless told otherwise
        #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "5s", value_parser = duration)]
        cost: Option<Duration>,
    },
    /// Explain a drop reason, function, row or finding: what it means, what to check and change
    #[command(after_help = "\
Counters and settings are shown with their values on this host, in the network
namespace that this is called in: `ip netns exec NAME dropwatch explain ...`
shows another's. Needs no privileges.

Exit codes: 0 all of it is known; 2 some of it is not, which standard error
says, with names that look like it. What is known is shown all the same.

Examples:
  dropwatch explain                                everything, by topic
  dropwatch explain NETFILTER_DROP                 a drop reason
  dropwatch explain nf_hook_slow                   a function that drops
  dropwatch explain 'tcp_v4_rcv+0x91 (NO_SOCKET)'  a row of a report, as it is
  dropwatch explain conntrack_table_full           a finding: rule or headline
  dropwatch explain net.core.somaxconn             a setting
  dropwatch explain UdpInErrors rx_dropped         counters of the kernel
  dropwatch explain undecided                      a word of an output
  dropwatch explain mtu                            a topic")]
    Explain {
        /// Drop reasons, functions, rules of findings, settings, counters, words of the outputs or
        /// topics, or a row or headline as reports show them; without, lists all
        #[arg(value_name = "NAME|ROW")]
        words: Vec<String>,
        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
        /// Colours: auto uses them on a terminal, unless NO_COLOR is set
        #[arg(long, value_enum, default_value = "auto")]
        color: Color,
    },
    /// Render recorded --json output again, in any format; needs no privileges
    #[command(after_help = "\
Examples:
  dropwatch replay run.ndjson                         as the run showed it
  dropwatch replay --all -n 0 run.ndjson              all rows
  dropwatch replay --diff before.ndjson after.ndjson  what is gone, what is new
  dropwatch replay --pcap drops.pcapng run.ndjson     its packets
  dropwatch replay - --json < run.ndjson              from a pipe")]
    Replay {
        /// Recording to read, also compressed by gzip or zstd; - is standard input
        file: PathBuf,
        /// Compare with the run of an earlier recording: what is gone, what is new
        #[arg(long, value_name = "BEFORE", conflicts_with = "pcap")]
        diff: Option<PathBuf>,
        /// Serve its metrics at http://ADDR/metrics, each report as late as it was in the run
        #[arg(long, value_name = "ADDR", value_parser = address, conflicts_with_all = ["diff", "pcap"])]
        metrics: Option<SocketAddr>,
        #[command(flatten)]
        series: SeriesArgs,
        #[command(flatten)]
        pcap: PcapArgs,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Print what a value can be, one a line: for the completions of shells
    #[command(name = "__complete", hide = true)]
    Complete {
        #[arg(value_enum)]
        kind: CompletedKind,
    },
}

/// Kinds of values that a shell completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompletedKind {
    /// Drop reasons of this kernel
    Reason,
    /// Functions that are known to drop
    Symbol,
    /// Network namespaces with a name
    Netns,
    /// Interfaces, of whatever namespaces can be looked into
    Iface,
    /// Protocols
    Proto,
    /// What `explain` knows
    Topic,
}

/// How often a run reports, and when it ends.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Only packets that match, as tcpdump takes them: 'tcp dst port 443 and net 10.0.0.0/8'
    #[arg(value_name = "EXPR", value_hint = ValueHint::Other)]
    pub expression: Vec<String>,
    #[command(flatten)]
    pub pace: PaceArgs,
    /// Stop after N reports; with --each, after N drops
    #[arg(short, long, value_name = "N", value_parser = at_least_one)]
    pub count: Option<u64>,
    /// Stop after this time; the last report covers what is left of it
    #[arg(short, long, value_name = "DURATION", value_parser = duration, allow_hyphen_values = true)]
    pub duration: Option<Duration>,
    #[command(flatten)]
    pub what: CountingArgs,
}

/// When there is a report.
#[derive(Debug, Args)]
pub struct PaceArgs {
    /// Time between reports: 5s, 500ms, 1m30s; a bare number is seconds [default: 5s]
    #[arg(short, long, value_name = "DURATION", value_parser = duration, allow_hyphen_values = true)]
    pub interval: Option<Duration>,
}

/// What to count, and where the reports go.
#[derive(Debug, Args)]
pub struct CountingArgs {
    /// Show the call paths of sampled drops under each location
    #[arg(short = 'g', long, conflicts_with = "no_samples")]
    pub stacks: bool,
    /// Write every sample as a line of its own (JSON only)
    #[arg(long, conflicts_with = "no_samples")]
    pub samples: bool,
    /// Sample every drop instead of some, at most RATE a second: 10000 unless told otherwise
    ///
    /// For --pcap, --samples, --each and the details of reports. In each second the first RATE drops
    /// are sampled; what comes beyond is counted as ever, and reports say how many were not sampled.
    #[arg(long, value_name = "RATE", num_args = 0..=1, require_equals = true, value_parser = samples_a_second, conflicts_with = "no_samples")]
    pub every: Option<Option<u32>>,
    /// Count only: no details of who and on which path
    #[arg(long, conflicts_with = "pcap")]
    pub no_samples: bool,
    /// Do not look for causes: no counters of the host are read
    #[arg(long)]
    pub no_findings: bool,
    #[command(flatten)]
    pub pcap: PcapArgs,
    /// Write JSON lines to FILE, while the reports stay where they are
    ///
    /// Lines are appended, each whole. SIGHUP opens FILE anew, for log rotation, except under `run`, whose signals are the command's. While FILE cannot
    /// be written, reports are held back; the counters stay in the kernel.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Serve metrics for Prometheus at http://ADDR/metrics; a bare port is one of this host alone
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub metrics: Option<SocketAddr>,
    #[command(flatten)]
    pub series: SeriesArgs,
    /// Exit with status 5 if more than N packets were dropped; harmless ones do not count
    #[arg(long, value_name = "N", value_parser = whole)]
    pub fail_over: Option<u64>,
    /// Exit with status 5 if more than R packets a second were dropped in an interval or in all
    #[arg(long, value_name = "R", value_parser = rate)]
    pub fail_rate: Option<f64>,
    /// Exit with status 5 if a finding is as severe as LEVEL or more, also of losses without drops
    /// (with filters but for --netns: of drops that they let through, alone)
    #[arg(long, value_name = "LEVEL", value_enum, conflicts_with = "no_findings")]
    pub fail_on: Option<Severity>,
    /// Count once more by KEY, several with commas between; what cannot be proved is `unknown`
    #[arg(long, value_name = "KEY", value_enum, value_delimiter = ',')]
    pub by: Vec<By>,
    /// Explain on standard error what happens while loading and in the kernel
    #[arg(short, long)]
    pub verbose: bool,
    /// For tests: attach this way and no other; the attach plan of `doctor` has them all
    #[arg(long, value_enum, hide = true)]
    pub candidate: Option<CandidateArg>,
    #[command(flatten)]
    pub show: ShowArgs,
    #[command(flatten)]
    pub filters: Filters,
}

/// Where sampled packets go.
#[derive(Debug, Args)]
pub struct PcapArgs {
    /// Write the sampled packets to FILE as pcapng, for tshark and Wireshark
    ///
    /// Each has a comment with location, reason and namespace. An existing file is overwritten, a
    /// new one is readable by its owner alone. - is standard output; reports then go to standard
    /// error.
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    #[arg(
        long,
        value_name = "N",
        requires = "pcap",
        value_parser = snaplen,
        help = format!("Bytes of each packet in FILE, at most {PACKET_BYTES} [default: {SNAPLEN}]")
    )]
    pub snaplen: Option<usize>,
}

/// How reports look.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Locations to show, and in text namespaces below each and findings of each rule; the rest is
    /// summed, 0 shows all [default: 10 and 5 in text, all in JSON]
    #[arg(short = 'n', long, value_name = "N", value_parser = whole_number)]
    pub top: Option<usize>,
    /// Output format [default: text]
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Same as --format json: one JSON object a line
    #[arg(long, conflicts_with_all = ["format", "classic"])]
    pub json: bool,
    /// Show drops instead of reports, a line for each as it happens; with --json, an object for each
    ///
    /// Every drop is sampled, as with --every. Messages, the sum, and what is missing go to standard
    /// error.
    #[arg(long, conflicts_with = "classic")]
    pub each: bool,
    /// Same as --format classic: the output of SystemTap's dropwatch.stp
    #[arg(long, conflicts_with = "format")]
    pub classic: bool,
    /// Show drops that are known to be harmless as rows of their own, too
    #[arg(long)]
    pub all: bool,
    /// Show raw kernel addresses (they tell where the kernel lies in memory)
    #[arg(long)]
    pub addresses: bool,
    /// Colours: auto uses them on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, default_value = "auto", action = ArgAction::Set)]
    pub color: Color,
}

/// Ways to attach, for [`CountingArgs::candidate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CandidateArg {
    WithReasons,
    WithoutReasons,
}

impl Cli {
    /// Reads the command line of this process.
    ///
    /// `--help` and `--version` print to `medium`, standard output, and exit here.
    ///
    /// # Errors
    /// What is wrong with the command line, in one line.
    pub fn from_args(medium: Medium) -> Result<Self, Failure> {
        let command = Self::command().term_width(medium.width());
        let parsed = command.try_get_matches().and_then(|matches| Self::from_arg_matches(&matches));
        parsed.map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                let page = error.render().ansi().to_string();
                let mut out = io::stdout();
                match medium.write(&page, &mut out).and_then(|()| out.flush()) {
                    // A reader that has seen enough is no failure.
                    Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                        Failure::Runtime(anyhow!(error).context("cannot write the output"))
                    }
                    _ => std::process::exit(exit::OK.into()),
                }
            }
            _ => Failure::Usage(one_line(&error.render().to_string())),
        })
    }
}

/// Clap's message without its frame: the error itself, what it lists, and its tip.
fn one_line(message: &str) -> String {
    let mut lines = message.lines().map(str::trim);
    let error = lines.next().unwrap_or_default();
    let mut message = error.strip_prefix("error: ").unwrap_or(error).to_owned();
    let listed: Vec<&str> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    if !listed.is_empty() {
        message = format!("{message} {}", listed.join(" "));
    }
    // That an unknown option could be a value is true, and helps nobody who has mistyped one.
    let tip = |line: &&str| !line.starts_with("to pass ");
    match lines.filter_map(|line| line.strip_prefix("tip: ")).find(tip) {
        Some(tip) => format!("{message} ({tip}; see --help)"),
        None => format!("{message} (see --help)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_command_line_is_reported_in_one_line() {
        for (args, expected) in [
            (
                &["--jsn"][..],
                "unexpected argument '--jsn' found (a similar argument exists: '--json'; see --help)",
            ),
            (
                &["-i", "-5s"],
                "invalid value '-5s' for '--interval <DURATION>': must be at least 10ms (see --help)",
            ),
            (&["-n", "x"], "invalid value 'x' for '--top <N>': not a whole number (see --help)"),
            (&["-c", "0"], "invalid value '0' for '--count <N>': must be at least 1 (see --help)"),
            (
                &["--pcap", "f", "--snaplen", "257"],
                "invalid value '257' for '--snaplen <N>': must be from 1 to 256, all that a sample \
                 holds (see --help)",
            ),
            (
                &["--pcap", "f", "--no-samples"],
                "the argument '--pcap <FILE>' cannot be used with '--no-samples' (see --help)",
            ),
        ] {
            let error = Cli::try_parse_from(["dropwatch"].iter().chain(args)).expect_err("wrong");
            assert_eq!(one_line(&error.render().to_string()), expected);
        }
    }

    /// What comes after the command's name is the command's, and nothing before it is.
    #[test]
    fn options_stand_before_the_command_that_runs() {
        let command =
            |args: &[&str]| match Cli::try_parse_from([&["dropwatch", "run"], args].concat()) {
                Ok(Cli { command: Some(Command::Run(run)), .. }) => {
                    Ok(run.command.iter().map(|word| word.to_string_lossy().into_owned()).collect())
                }
                Ok(_) => panic!("not `run`"),
                Err(error) => Err(one_line(&error.render().to_string())),
            };
        for (args, words) in [
            (&["id", "--fail"][..], &["id", "--fail"][..]),
            (&["id", "-i", "1s", "--", "-x"], &["id", "-i", "1s", "--", "-x"]),
            (&["--", "-weird", "--json"], &["-weird", "--json"]),
            (&["--no-baseline", "--", "--no-baseline"], &["--no-baseline"]),
            (&["-i", "1s", "id", "--no-baselin"], &["id", "--no-baselin"]),
        ] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(command(args), Ok(words), "{args:?}");
        }
        for (args, expected) in [
            (&["--fail-ovr", "0", "--", "id"][..], "a similar argument exists: '--fail-over'"),
            (&["--fail-ovr=0", "id"], "a similar argument exists: '--fail-over'"),
            (
                &["--iface", "lo", "--no-baselin", "id"],
                "a similar argument exists: '--no-baseline'",
            ),
            (&["-d", "10s", "--", "id"], "unexpected argument '-d' found (see --help)"),
            (&["-1", "id"], "unexpected argument '-1' found (see --help)"),
        ] {
            let error = command(args).expect_err("wrong");
            assert!(error.contains(expected), "{args:?}: {error}");
        }
    }
}
