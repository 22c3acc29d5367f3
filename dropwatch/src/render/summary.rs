//! The sum of a run, below its last report.
//!
//! ```text
//! ab -c 900 http://gw/: exit status 0 after 12.3s
//! 10707 drops in 12.3s (870/s) at 2 locations, none lost
//!   10031 at nf_hook_slow+0x7d (NETFILTER_DROP) 93.7%, new
//!     676 at tcp_v4_rcv+0x91 (NO_SOCKET) 6.3%, 55/s; 3.0/s before
//! worst: 5023 drops in 5.0s (1005/s) until 07:35:10
//! before: 3 drops in 1.0s
//! critical  conntrack table full in gw: 1000 of 1000 entries, 10001 packets refused
//!           in 2 reports from 07:35:10 to 07:35:15; explains 10001 drops
//! ```
//!
//! None of these lines can be taken for a row of a report, so that sums over rows stay right.

use jiff::Timestamp;

use super::{
    TEXT_FINDINGS, TEXT_TOP,
    clean::clean,
    findings,
    medium::Medium,
    palette::{STRONG, WEAK, paint},
    text::lost,
    words::{self, PerSecond, Percent, count, drops_in},
    wrap::wrap,
};
use crate::report::{
    finding::{Severity, sum_up},
    model::RanCommand,
    model::summary::{Before, Summary, SummaryFinding, SummaryRow, Worst},
    number::exact_per_second,
};

/// Columns of a severity and the space behind it.
const INDENT: usize = 10;
/// How much further in than a row's count goes on what a screen has no room for, columns.
const REST: usize = 5;
/// Letters of the command that are shown.
const MOST_LETTERS: usize = 100;

/// The lines of a summary; `clock` shows a time of day.
pub(super) fn lines(
    ran: &RanCommand,
    medium: Medium,
    clock: impl Fn(Timestamp) -> String,
) -> Vec<String> {
    let RanCommand { summary, .. } = ran;
    let mut lines = wrap(&command(ran), medium.room(0));
    if let Some(first) = lines.first_mut() {
        *first = paint(STRONG, &first);
    }
    lines.extend(medium.row(totals(summary), 2));
    lines.extend(rows(summary, medium));
    if let Some(Worst { end, interval_s, drops, benign, rate, .. }) = summary.worst {
        let (drops, benign) = (drops_in(drops, interval_s), words::of_them_benign(benign));
        let worst = format!("worst: {drops} ({}) until {}{benign}", PerSecond(rate), clock(end));
        lines.extend(medium.row(worst, 7));
    }
    if let Some(Before { drops, benign, duration_s }) = summary.before {
        let (drops, benign) = (drops_in(drops, duration_s), words::of_them_benign(benign));
        lines.extend(medium.row(format!("before: {drops}{benign}"), 8));
    }
    let mut shown: Vec<&SummaryFinding> = summary.findings.iter().collect();
    let more = sum_up(&mut shown, TEXT_FINDINGS, |found| found.kind());
    for severity in Severity::ALL {
        for found in shown.iter().filter(|found| found.severity == *severity) {
            lines.extend(finding(found, medium, &clock));
        }
        for more in more.iter().filter(|more| more.severity == *severity) {
            let explain = match more.drops {
                0 => String::new(),
                drops => format!(", explain {drops} drops"),
            };
            let line = format!("{}{explain}", findings::rest(more));
            lines.extend(findings::title(*severity, &line, medium));
        }
    }
    lines
}

fn command(ran: &RanCommand) -> String {
    let words: Vec<&str> = ran.command.iter().flat_map(|word| word.split_whitespace()).collect();
    let mut line = clean(&words.join(" ")).into_owned();
    if let Some((end, _)) = line.char_indices().nth(MOST_LETTERS) {
        line.truncate(end);
        line.push('…');
    }
    let after = format!("after {:.1}s", ran.duration_s);
    match (ran.status, ran.signal) {
        (Some(status), _) => format!("{line}: exit status {status} {after}"),
        (None, Some(signal)) => format!("{line}: ended by signal {signal} {after}"),
        (None, None) => format!("{line}: not run"),
    }
}

fn totals(summary: &Summary) -> String {
    let mut line = paint(STRONG, drops_in(summary.drops, summary.duration_s));
    if summary.drops > 0 {
        line += &format!(" ({})", PerSecond(summary.rate));
    }
    let places = summary.locations.len() as u64;
    if places > 0 {
        line += &format!(" at {}", count(places, "location"));
    }
    line += ", ";
    line += &lost(&summary.lost);
    match summary.filter_undecided {
        Some(0) => line += ", none undecided",
        Some(drops) => line += &format!(", {drops} undecided"),
        None => {}
    }
    line
}

fn rows(summary: &Summary, medium: Medium) -> Vec<String> {
    let harmful = summary.locations.iter().filter(|row| !row.benign);
    let shown: Vec<&SummaryRow> = harmful.clone().take(TEXT_TOP).collect();
    let below: u64 = harmful.skip(TEXT_TOP).fold(0, |sum, row| sum.saturating_add(row.count));
    let below = below.saturating_add(summary.other);
    let counts = shown.iter().map(|row| row.count).chain([below, summary.benign]);
    let width = counts.max().unwrap_or(0).to_string().len();
    let mut lines: Vec<String> = shown
        .iter()
        .map(|row| format!("  {:>width$} {}", row.count, place(row, summary)))
        .flat_map(|line| medium.row(line, width + REST))
        .collect();
    let dim = |line: String| paint(WEAK, line);
    if below > 0 {
        lines.push(dim(format!("  {below:>width$} elsewhere")));
    }
    if summary.benign > 0 {
        lines.push(dim(format!("  {:>width$} benign", summary.benign)));
    }
    lines
}

/// Where, which part, and what is new about it.
fn place(row: &SummaryRow, summary: &Summary) -> String {
    let mut line = format!("at {} {}", words::place(&row.place, None), Percent(row.share));
    match summary.before {
        Some(_) if row.before == 0 => line += ", new",
        Some(Before { duration_s, .. }) if duration_s > 0.0 => {
            let before = exact_per_second(row.before, duration_s);
            line += &format!(", {}; {} before", PerSecond(row.rate), PerSecond(before));
        }
        _ => {}
    }
    line
}

fn finding(
    found: &SummaryFinding,
    medium: Medium,
    clock: &impl Fn(Timestamp) -> String,
) -> Vec<String> {
    let mut lines = findings::title(found.severity, &found.title, medium);
    let reports = count(found.reports, "report");
    let when = match found.first == found.last {
        true => format!("in the report of {}", clock(found.last)),
        false => format!("in {reports} from {} to {}", clock(found.first), clock(found.last)),
    };
    let explains = match found.explains {
        0 => String::new(),
        drops => format!("; explains {drops} drops"),
    };
    let before = if found.before { "; before the command, too" } else { "" };
    let line = format!("{:INDENT$}{when}{explains}{before}", "");
    lines.extend(medium.row(line, INDENT).iter().map(|line| paint(WEAK, line)));
    lines
}
