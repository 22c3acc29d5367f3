//! Each line of a run → bytes. Renderers print what the line holds and compute nothing, so live
//! output and replayed output cannot differ; they do not know each other.
//!
//! No clock, no files: the time zone and what the reader can show come in as values. Text that
//! came from a kernel or a recording passes [`clean()`] before a terminal sees it.

mod ascii;
mod beside;
mod classic;
mod clean;
pub mod compare;
mod conntrack;
mod details;
pub mod doctor;
mod each;
pub mod explain;
mod findings;
mod groups;
mod json;
mod medium;
pub mod metrics;
mod palette;
pub mod pcapng;
mod summary;
mod text;
mod tree;
pub mod tui;
pub mod words;
mod wrap;

use std::io::{self, Write};

use jiff::tz::TimeZone;

pub use self::{
    beside::Beside,
    classic::Classic,
    clean::clean,
    conntrack::ConntrackText,
    each::EachDrop,
    json::{Json, json_line},
    medium::Medium,
    text::Text,
    words::losses,
};
use crate::report::{model::Line, view::View};

/// First line of every run, as SystemTap's dropwatch.stp prints it.
const BEGIN: &str = "Monitoring for dropped packets";
/// Last line of every run, as SystemTap's dropwatch.stp prints it.
const STOP: &str = "Stopping dropped packet monitor";

/// Rows that the text format shows by default.
pub const TEXT_TOP: usize = 10;
/// Network namespaces that it shows under a row by default.
pub const TEXT_NAMESPACES: usize = 5;
/// Findings of one rule and severity that it shows whole by default.
pub const TEXT_FINDINGS: usize = 5;

/// Turns lines into one output format.
pub trait Renderer {
    /// Appends what `line` looks like to `page`.
    fn render(&self, line: &Line, page: &mut Vec<u8>) -> io::Result<()>;

    /// Writes a line whole and flushes it, so that a reader never waits for the rest of one.
    fn line(&self, line: &Line, out: &mut dyn Write) -> io::Result<()> {
        let mut page = Vec::new();
        self.render(line, &mut page)?;
        out.write_all(&page)?;
        out.flush()
    }
}

every! {
    /// The output formats.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum Format {
        /// For people.
        #[default]
        Text,
        /// As SystemTap's dropwatch.stp prints it.
        Classic,
        /// One object a line, for programs and for `replay`.
        Json,
    }
}

/// How text is written.
#[derive(Clone, Debug)]
pub struct Style {
    pub medium: Medium,
    /// Zone of the printed clock times.
    pub time_zone: TimeZone,
}

impl Format {
    /// The word of the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Classic => "classic",
            Self::Json => "json",
        }
    }

    /// Whether it shows more of a report than locations and counts: details of samples, findings,
    /// groups, raw addresses, notices, a part of the rows, a comparison.
    pub fn shows_details(self) -> bool {
        match self {
            Self::Text | Self::Json => true,
            Self::Classic => false,
        }
    }

    /// Whether programs read it, every sample on a line of its own.
    pub fn is_lines(self) -> bool {
        match self {
            Self::Json => true,
            Self::Text | Self::Classic => false,
        }
    }

    /// What the format shows of a report. `top` is `--top` (0 for all rows, all namespaces of each, and all findings),
    /// `all` is `--all`.
    pub fn view(self, top: Option<usize>, all: bool) -> View {
        let top = |default: usize| Some(top.unwrap_or(default)).filter(|most| *most > 0);
        match self {
            Self::Text => View {
                top: top(TEXT_TOP),
                namespaces: top(TEXT_NAMESPACES),
                findings: top(TEXT_FINDINGS),
                fold_benign: !all,
                merge_reasons: false,
            },
            // The namespaces of a row sum up to it, so a row has all of them or is not there.
            Self::Json => View { top: top(0), ..View::default() },
            Self::Classic => View { merge_reasons: true, ..View::default() },
        }
    }

    /// Shows drops instead of reports, each by itself; nothing in a format that has no place for them.
    pub fn drops(self, style: Style) -> Box<dyn Renderer> {
        match self {
            Self::Text => Box::new(EachDrop::new(style)),
            Self::Json | Self::Classic => self.renderer(style),
        }
    }

    pub fn renderer(self, style: Style) -> Box<dyn Renderer> {
        match self {
            Self::Text => Box::new(Text::new(style)),
            Self::Classic => Box::new(Classic::new(style.medium)),
            Self::Json => Box::new(Json),
        }
    }
}
