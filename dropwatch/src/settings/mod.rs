//! What the program acts on: values, each for those who need all of it. Made of the command line by
//! [`cli`](crate::cli), which this knows nothing of.

pub mod files;
mod run;
mod terminal;

use std::{
    fmt::{self, Display},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::tz::TimeZone;

pub use self::{
    run::{Limits, WatchedCommand},
    terminal::{Color, Stream, Terminal, message},
};
use crate::{
    filter::Packets,
    render::{Format, Medium, Renderer, Style},
    report::{
        keys::Keys,
        model::{End, Line, groups::By},
        view::View,
    },
};

/// A live run.
#[derive(Debug, PartialEq)]
pub struct Watch {
    pub attached: Attached,
    pub reported: Reported,
    pub sinks: Sinks,
}

/// A live run on the whole screen.
#[derive(Debug, PartialEq)]
pub struct Top {
    pub attached: Attached,
    pub reported: Reported,
    pub show: Show,
}

/// What is attached to the kernel: which drops are counted, by what, and how much is kept of them.
#[derive(Debug, PartialEq)]
pub struct Attached {
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
    pub samples: Samples,
    /// Sample all drops, so many a second at most.
    pub every: Option<u32>,
    /// Attach with reasons, or without, and no other way; `None` is what the kernel takes.
    pub reasons: Option<bool>,
    /// Say on standard error what happens while loading, and in the kernel.
    pub verbose: bool,
}

/// What is kept of some drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Samples {
    /// Nothing: drops are counted only.
    None,
    /// Details, as far as the kernel shows them.
    Details,
    /// Packets, too; a kernel that does not show them is refused.
    Packets,
}

/// What reports hold, how many there are, and what they may say before the run has failed.
#[derive(Debug, PartialEq)]
pub struct Reported {
    /// Time between two of them.
    pub interval: Duration,
    /// Stop after this many.
    pub count: Option<u64>,
    /// Stop after this many drops were shown, each by itself.
    pub shown: Option<u64>,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// How long names of namespaces and interfaces hold between two reports, for drops that are shown
    /// before the next one.
    pub names_kept: Duration,
    /// List the call paths of samples.
    pub stacks: bool,
    /// Show raw kernel addresses.
    pub addresses: bool,
    /// Look for the causes of drops.
    pub findings: bool,
    pub limits: Limits,
}

/// Where reports and samples go, and how they look there.
#[derive(Debug, PartialEq)]
pub struct Sinks {
    pub show: Show,
    /// Reports go to standard error: standard output is somebody else's.
    pub aside: bool,
    /// Write each sample as a line of its own.
    pub sample_lines: bool,
    /// Write JSON lines to this file, too.
    pub record: Option<PathBuf>,
    /// Write the packets of samples to a capture.
    pub pcap: Option<Pcap>,
    pub metrics: Option<Metrics>,
}

/// Metrics that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Where.
    pub address: SocketAddr,
    /// Network namespaces with series of their own.
    pub namespaces: usize,
}

/// A recording that is rendered again.
#[derive(Debug, PartialEq)]
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

impl Pcap {
    /// The file, where it is one.
    pub fn path(&self) -> Option<&Path> {
        match &self.target {
            Target::Stdout => None,
            Target::File(path) => Some(path),
        }
    }
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
    /// Show drops instead of reports, each by itself.
    pub each: bool,
    /// Which rows of a report to show. A recording has all of them.
    pub view: View,
    pub medium: Medium,
}

impl Show {
    /// Whether a line of a run is shown at all.
    pub fn shows(&self, line: &Line) -> bool {
        match line {
            Line::Sample(_) => true,
            Line::End(End { run: Some(_), .. }) => !self.each || !self.format.is_lines(),
            Line::Start(_) | Line::Report(_) | Line::End(_) => !self.each,
        }
    }

    /// What renders the lines, with clock times of this machine's zone.
    pub fn renderer(&self) -> Box<dyn Renderer> {
        let style = Style { medium: self.medium, time_zone: TimeZone::system() };
        match self.each {
            true => self.format.drops(style),
            false => self.format.renderer(style),
        }
    }
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
