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

use std::io::{self, Write};

use jiff::Timestamp;

use super::{
    BEGIN, Renderer, STOP, Style,
    clean::clean,
    details, findings, groups,
    paint::Paint,
    summary, tree,
    words::{PerSecond, Percent, count, drops_in, location, losses},
};
use crate::report::model::{Address, End, Line, Location, Lost, Report, Start, share};

/// How much further in than a row's count the lines of its details begin, columns.
const DETAILS: usize = 3;

/// Renders reports as tables.
#[derive(Debug)]
pub struct Text {
    style: Style,
}

impl Renderer for Text {
    fn render(&self, line: &Line, page: &mut Vec<u8>) -> io::Result<()> {
        match line {
            Line::Start(start) => self.start(start, page),
            Line::Report(report) => self.report(report, page),
            // Details of the row that it belongs to, in the report that follows.
            Line::Sample(_) => Ok(()),
            Line::End(end) => self.end(end, page),
        }
    }
}

impl Text {
    pub fn new(style: Style) -> Self {
        Self { style }
    }

    fn start(&self, start: &Start, page: &mut Vec<u8>) -> io::Result<()> {
        writeln!(page, "{BEGIN}")?;
        if !start.filters.is_empty() {
            writeln!(page, "Only: {}", clean(&start.filters.join(" ")))?;
        }
        start.notices.iter().try_for_each(|notice| writeln!(page, "Note: {}", clean(notice)))
    }

    fn report(&self, report: &Report, page: &mut Vec<u8>) -> io::Result<()> {
        writeln!(page)?;
        self.header(report, page)?;
        let (benign, below_top) = (report.other.benign, report.other.below_top());
        let counts = report.locations.iter().map(|row| row.count);
        let width =
            counts.chain([benign.count, below_top.count]).max().unwrap_or(0).to_string().len();
        for row in &report.locations {
            self.location(row, width, page)?;
        }
        if below_top.locations > 0 {
            let places = count(below_top.locations, "other location");
            let percent = Percent(share(below_top.count, report.drops));
            let rest = format!("{:>width$} more at {places} {percent}", below_top.count);
            writeln!(page, "{}", self.paint(Paint::Dim, rest))?;
        }
        if benign.locations > 0 {
            let drops = if benign.count == 1 { "drop" } else { "drops" };
            let places = count(benign.locations, "location");
            let them = if benign.locations == 1 { "it" } else { "them" };
            let folded = format!(
                "{:>width$} benign {drops} at {places} not shown (--all shows {them})",
                benign.count
            );
            writeln!(page, "{}", self.paint(Paint::Dim, folded))?;
        }
        for finding in &report.findings {
            findings::lines(finding, self.style.color)
                .try_for_each(|line| writeln!(page, "{line}"))?;
        }
        let groups = report.groups.iter().filter(|groups| groups.drops > 0);
        groups.flat_map(groups::lines).try_for_each(|line| writeln!(page, "{line}"))
    }

    fn header(&self, report: &Report, page: &mut Vec<u8>) -> io::Result<()> {
        let drops = self.paint(Paint::Bold, drops_in(report.drops, report.interval_s));
        write!(page, "{}  {drops}", self.clock(report.end))?;
        if report.drops > 0 && report.interval_s > 0.0 {
            write!(page, " ({})", PerSecond(report.rate))?;
        }
        if report.location_count() > 0 {
            write!(page, " at {}", count(report.location_count(), "location"))?;
        }
        if report.baseline {
            write!(page, ", before the command")?;
        }
        writeln!(page, ", {}{}", self.lost(&report.lost), undecided(report.filter_undecided))?;
        if report.intervals > 1 {
            let late = format!("covers {} intervals: it was held back", report.intervals);
            writeln!(page, "{:10}{}", "", self.paint(Paint::Dim, late))?;
        }
        Ok(())
    }

    fn location(&self, row: &Location, width: usize, page: &mut Vec<u8>) -> io::Result<()> {
        let (place, percent) = (location(row), Percent(row.share));
        let mut line = format!("{:>width$} packets dropped at {place} {percent}", row.count);
        // An unnamed location shows its address already, in place of the name.
        if let (Some(_), Some(raw)) = (&row.symbol, row.address.public()) {
            line += &format!(" {}", Address::hex(raw));
        }
        let line = if row.benign { self.paint(Paint::Dim, line) } else { line };
        writeln!(page, "{line}")?;
        self.details(row, width + DETAILS, page)
    }

    /// What samples tell, `indent` columns in.
    fn details(&self, row: &Location, indent: usize, page: &mut Vec<u8>) -> io::Result<()> {
        let room = details::WIDTH.saturating_sub(indent);
        let told = row.details.as_ref();
        let facts = told.map(|told| details::lines(told, room, row.stacks.is_empty()));
        let tree = tree::lines(&row.stacks, told);
        facts
            .unwrap_or_default()
            .into_iter()
            .chain(tree)
            .try_for_each(|line| writeln!(page, "{:indent$}{}", "", self.paint(Paint::Dim, line)))
    }

    fn end(&self, end: &End, page: &mut Vec<u8>) -> io::Result<()> {
        if let Some(ran) = &end.run {
            writeln!(page)?;
            summary::lines(ran, self.style.color, |time| self.clock(time))
                .iter()
                .try_for_each(|line| writeln!(page, "{line}"))?;
        } else if end.reports > 1 {
            let drops = drops_in(end.drops, end.duration_s);
            let undecided = undecided(end.filter_undecided);
            writeln!(page, "\nTotal: {drops}, {}{undecided}", self.lost(&end.lost))?;
        }
        writeln!(page, "{STOP}")
    }

    fn lost(&self, lost: &Lost) -> String {
        match losses(lost) {
            Some(losses) => self.paint(Paint::Red, losses),
            None => "none lost".to_owned(),
        }
    }

    fn clock(&self, time: Timestamp) -> String {
        let local = self.style.time_zone.to_datetime(time);
        format!("{:02}:{:02}:{:02}", local.hour(), local.minute(), local.second())
    }

    fn paint(&self, paint: Paint, text: String) -> String {
        paint.on(text, self.style.color)
    }
}

/// What filters could not decide; nothing without filters.
fn undecided(drops: Option<u64>) -> String {
    match drops {
        None => String::new(),
        Some(0) => ", none undecided".to_owned(),
        Some(drops) => format!(", {drops} undecided"),
    }
}
