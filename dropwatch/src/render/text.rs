//! The format for people.
//!
//! ```text
//! Monitoring for dropped packets
//!
//! 07:35:10  10707 drops in 5.0s (2141/s) at 2 locations, none lost
//! 10031 packets dropped at nf_hook_slow+0x7d (NETFILTER_DROP) 93.7%
//!         gw · eth0 · tcp 192.168.0.2:* → 192.168.0.30:8080 SYN  (64 samples)
//!         ip_rcv ← __netif_receive_skb_one_core
//!   676 packets dropped at tcp_v4_rcv+0x91 (NO_SOCKET) 6.3%
//! critical  conntrack table full in gw: 1000 of 1000 entries, 10001 packets refused
//!           explains 93.4% of the drops · drop +10001 · early_drop +0
//!           sysctl -w net.netfilter.nf_conntrack_max=65536
//! Stopping dropped packet monitor
//! ```
//!
//! Only rows of known locations match `^\s*([0-9]+) packets dropped at (\S+)`.

use std::io;

use jiff::Timestamp;

use super::{
    BEGIN, Renderer, STOP, Style,
    clean::clean,
    details, findings, groups,
    medium::Medium,
    palette::{ALARM, STRONG, WEAK, paint},
    summary, tree,
    words::{PerSecond, Percent, count, drops_in, location, losses, of_them_benign},
};
use crate::report::{
    model::{Address, End, Line, Location, Lost, Report, Start, UndecidedBy},
    number::share,
};

/// How much further in than a row's count the lines of its details begin, columns.
const DETAILS: usize = 3;
/// How much further in than a row's count goes on what a screen has no room for, columns.
const REST: usize = 5;
/// Columns of the clock at the head of a report.
const CLOCK: usize = 10;

/// Renders reports as tables.
#[derive(Debug)]
pub struct Text {
    style: Style,
}

impl Renderer for Text {
    fn render(&self, line: &Line, page: &mut Vec<u8>) -> io::Result<()> {
        let lines = match line {
            Line::Start(start) => self.start(start),
            Line::Report(report) => self.report(report),
            // Samples have no line in text: the report that follows shows them as details of a row.
            Line::Sample(_) => Vec::new(),
            Line::End(end) => self.end(end),
        };
        let text: String = lines.into_iter().map(|line| line + "\n").collect();
        self.medium().write(&text, page)
    }
}

impl Text {
    pub fn new(style: Style) -> Self {
        Self { style }
    }

    fn medium(&self) -> Medium {
        self.style.medium
    }

    fn start(&self, start: &Start) -> Vec<String> {
        let labelled =
            |word: &str, text: &str| self.row(format!("{word}: {}", clean(text)), word.len() + 2);
        let mut lines = vec![BEGIN.to_owned()];
        if !start.filters.is_empty() {
            lines.extend(labelled("Only", &start.filters.join(" ")));
        }
        lines.extend(start.notices.iter().flat_map(|notice| labelled("Note", notice)));
        lines
    }

    fn report(&self, report: &Report) -> Vec<String> {
        let mut lines = vec![String::new()];
        lines.extend(self.header(report));
        let (benign, below_top) = (report.other.benign, report.other.below_top());
        let counts = report.locations.iter().map(|row| row.count);
        let width =
            counts.chain([benign.count, below_top.count]).max().unwrap_or(0).to_string().len();
        for row in &report.locations {
            lines.extend(self.location(row, width));
        }
        let mut sum = |line: String| lines.extend(self.row(paint(WEAK, line), width + REST));
        if below_top.locations > 0 {
            let places = count(below_top.locations, "other location");
            let percent = Percent(share(below_top.count, report.drops));
            sum(format!("{:>width$} more at {places} {percent}", below_top.count));
        }
        if benign.locations > 0 {
            let drops = if benign.count == 1 { "drop" } else { "drops" };
            let places = count(benign.locations, "location");
            let them = if benign.locations == 1 { "it" } else { "them" };
            sum(format!(
                "{:>width$} benign {drops} at {places} not shown (--all shows {them})",
                benign.count
            ));
        }
        let medium = self.medium();
        lines.extend(findings::all(report, medium));
        let groups = report.groups.iter().filter(|groups| groups.drops > 0);
        lines.extend(groups.flat_map(|groups| groups::lines(groups, medium)));
        lines
    }

    fn header(&self, report: &Report) -> Vec<String> {
        let drops = paint(STRONG, drops_in(report.drops, report.interval_s));
        let mut head = format!("{}  {drops}", self.clock(report.end));
        if report.drops > 0 && report.interval_s > 0.0 {
            head += &format!(" ({})", PerSecond(report.rate));
        }
        if report.location_count() > 0 {
            head += &format!(" at {}", count(report.location_count(), "location"));
        }
        if report.baseline {
            head += ", before the command";
        }
        head += &format!(
            ", {}{}",
            lost(&report.lost),
            undecided(report.filter_undecided, &report.filter_undecided_by)
        );
        let mut lines = self.row(head, CLOCK);
        if report.intervals > 1 {
            let late = format!("covers {} intervals: it was held back", report.intervals);
            lines.extend(self.row(format!("{:CLOCK$}{}", "", paint(WEAK, late)), CLOCK));
        }
        lines
    }

    fn location(&self, row: &Location, width: usize) -> Vec<String> {
        let (place, percent) = (location(row), Percent(row.share));
        let mut line = format!("{:>width$} packets dropped at {place} {percent}", row.count);
        // An unnamed location shows its address already, in place of the name.
        if let (Some(_), Some(raw)) = (&row.place.symbol, row.address.public()) {
            line += &format!(" {}", Address::hex(raw));
        }
        // Where there are no colours, too.
        if row.benign {
            line += " benign";
        }
        let mut lines = self.row(line, width + REST);
        if row.benign {
            lines.iter_mut().for_each(|line| *line = paint(WEAK, &line));
        }
        lines.extend(self.details(row, width + DETAILS));
        lines
    }

    /// The details of a row from its samples, `indent` columns in.
    fn details(&self, row: &Location, indent: usize) -> Vec<String> {
        let width = self.medium().width().saturating_sub(indent);
        let details = row.details.as_ref();
        let tree = tree::lines(&row.stacks, details, width);
        let lines = details::lines(row, self.medium().room(indent), width).into_iter().chain(tree);
        lines.map(|line| format!("{:indent$}{}", "", paint(WEAK, line))).collect()
    }

    fn end(&self, end: &End) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(ran) = &end.run {
            lines.push(String::new());
            lines.extend(summary::lines(ran, self.medium(), |time| self.clock(time)));
        } else if end.reports > 1 {
            let drops = drops_in(end.drops, end.duration_s);
            let undecided = undecided(end.filter_undecided, &end.filter_undecided_by);
            let benign = of_them_benign(end.benign);
            lines.push(String::new());
            let total = format!("Total: {drops}{benign}, {}{undecided}", lost(&end.lost));
            lines.extend(self.row(total, 7));
        }
        lines.push(STOP.to_owned());
        lines
    }

    fn clock(&self, time: Timestamp) -> String {
        let local = self.style.time_zone.to_datetime(time);
        format!("{:02}:{:02}:{:02}", local.hour(), local.minute(), local.second())
    }

    fn row(&self, line: String, indent: usize) -> Vec<String> {
        self.medium().row(line, indent)
    }
}

/// What was lost, made to stand out.
pub(super) fn lost(lost: &Lost) -> String {
    losses(lost).map_or_else(|| "none lost".to_owned(), |losses| paint(ALARM, losses))
}

/// What filters could not decide; nothing without filters.
fn undecided(drops: Option<u64>, by: &UndecidedBy) -> String {
    match drops {
        None => String::new(),
        Some(0) => ", none undecided".to_owned(),
        Some(drops) => format!(", {drops} undecided{}", by_option(by)),
    }
}

/// `: --iface 3 · --port 12`
fn by_option(by: &UndecidedBy) -> String {
    let counted = by.by_option().into_iter().filter(|(_, count)| *count > 0);
    let pieces: Vec<String> = counted.map(|(option, count)| format!("{option} {count}")).collect();
    if pieces.is_empty() { String::new() } else { format!(": {}", pieces.join(" · ")) }
}
