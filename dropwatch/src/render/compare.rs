//! Two runs side by side.
//!
//! ```text
//! before  10707 drops in 5.0s (2141/s)  before.ndjson
//! after   12 drops in 5.0s (2.4/s)  after.ndjson
//!
//!   before     after
//!   2006/s       0/s  nf_hook_slow (NETFILTER_DROP): gone
//!    135/s     2.4/s  tcp_v4_rcv (NO_SOCKET)
//!
//! gone   critical  conntrack table full in gw: 1000 of 1000 entries, 10001 packets refused
//! ```

use std::io::{self, Write};

use anstyle::Style;

use super::{
    clean::clean,
    medium::Medium,
    palette::{ALARM, CAUTION, WEAK, paint},
    words::{self, PerSecond, count, drops_in},
    wrap::wrap,
};
use crate::report::compare::{
    Amount, ChangedFinding, ChangedLocation, Comparison, FindingChange, Side,
};

/// Columns of a rate.
const RATE: usize = 9;
/// Columns of what has become of a finding, and of its severity.
const INDENT: usize = 17;

/// Writes a comparison as text; `top` rows of it, or all.
///
/// # Errors
/// Those of `out`.
pub fn text(
    comparison: &Comparison,
    top: Option<usize>,
    medium: Medium,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut lines = Vec::new();
    let sides = [("before", &comparison.before), ("after", &comparison.after)];
    for (word, Side { name, drops, benign, duration_s, rate }) in sides {
        let rate = amount(Amount { count: *drops, rate: *rate });
        let (drops, benign) = (drops_in(*drops, *duration_s), words::of_them_benign(*benign));
        lines.extend(medium.row(format!("{word:<7} {drops} ({rate}){benign}  {}", clean(name)), 8));
    }
    let top = top.unwrap_or(usize::MAX);
    let (shown, hidden) = comparison.locations.split_at(top.min(comparison.locations.len()));
    if !shown.is_empty() {
        lines.push(String::new());
        lines.push(paint(WEAK, format!("{:>RATE$} {:>RATE$}", "before", "after")));
    }
    lines.extend(shown.iter().flat_map(|change| row(change, medium)));
    if !hidden.is_empty() {
        let more =
            format!("{:>RATE$} {:>RATE$}  {} more", "", "", count(hidden.len() as u64, "row"));
        lines.push(paint(WEAK, more));
    }
    if !comparison.findings.is_empty() {
        lines.push(String::new());
    }
    lines.extend(comparison.findings.iter().flat_map(|found| finding(found, medium)));
    let page: String = lines.into_iter().map(|line| line + "\n").collect();
    medium.write(&page, out)
}

fn amount(amount: Amount) -> String {
    match amount {
        Amount { count: 0, .. } => "0/s".to_owned(),
        Amount { rate, .. } => PerSecond(rate).to_string(),
    }
}

fn row(change: &ChangedLocation, medium: Medium) -> Vec<String> {
    let place = words::place(&change.place, None);
    let mut line =
        format!("{:>RATE$} {:>RATE$}  {place}", amount(change.before), amount(change.after));
    let style = match (change.before.count, change.after.count) {
        _ if change.benign => {
            line += ": benign";
            WEAK
        }
        (0, _) => {
            line += ": new";
            CAUTION
        }
        (_, 0) => {
            line += ": gone";
            WEAK
        }
        _ => Style::new(),
    };
    medium.row(line, 2 * RATE + 5).iter().map(|line| paint(style, line)).collect()
}

fn finding(found: &ChangedFinding, medium: Medium) -> Vec<String> {
    let (word, style) = match found.what {
        FindingChange::New => ("new", ALARM),
        FindingChange::Still => ("still", CAUTION),
        FindingChange::Gone => ("gone", WEAK),
    };
    let severity = found.severity.name();
    let line = |(index, text): (usize, String)| {
        let head = match index {
            0 => format!("{word:<6} {severity:<9} "),
            _ => " ".repeat(INDENT),
        };
        paint(style, head + &text)
    };
    let room = medium.room(INDENT);
    wrap(&clean(&found.title), room).into_iter().enumerate().map(line).collect()
}
