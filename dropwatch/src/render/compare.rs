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

use super::{
    clean::clean,
    details::WIDTH,
    paint::Paint,
    words::{self, PerSecond, count, drops_in, wrap},
};
use crate::report::compare::{Amount, Change, ChangedFinding, Comparison, Side, What};

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
    color: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let sides = [("before", &comparison.before), ("after", &comparison.after)];
    for (word, Side { name, drops, duration_s, rate }) in sides {
        let rate = amount(Amount { count: *drops, rate: *rate });
        let drops = drops_in(*drops, *duration_s);
        writeln!(out, "{word:<7} {drops} ({rate})  {}", clean(name))?;
    }
    let top = top.unwrap_or(usize::MAX);
    let (shown, hidden) = comparison.locations.split_at(top.min(comparison.locations.len()));
    if !shown.is_empty() {
        let head = format!("{:>RATE$} {:>RATE$}", "before", "after");
        writeln!(out, "\n{}", Paint::Dim.on(head, color))?;
    }
    for change in shown {
        writeln!(out, "{}", row(change, color))?;
    }
    if !hidden.is_empty() {
        let more =
            format!("{:>RATE$} {:>RATE$}  {} more", "", "", count(hidden.len() as u64, "row"));
        writeln!(out, "{}", Paint::Dim.on(more, color))?;
    }
    if !comparison.findings.is_empty() {
        writeln!(out)?;
    }
    comparison.findings.iter().try_for_each(|found| finding(found, color, out))
}

fn amount(amount: Amount) -> String {
    match amount {
        Amount { count: 0, .. } => "0/s".to_owned(),
        Amount { rate, .. } => PerSecond(rate).to_string(),
    }
}

fn row(change: &Change, color: bool) -> String {
    let name = words::function(change.symbol.as_deref());
    let place = words::place(&name, None, change.module.as_deref(), change.reason.as_deref());
    let mut line =
        format!("{:>RATE$} {:>RATE$}  {place}", amount(change.before), amount(change.after));
    let paint = match (change.before.count, change.after.count) {
        _ if change.benign => {
            line += ": benign";
            Some(Paint::Dim)
        }
        (0, _) => {
            line += ": new";
            Some(Paint::Yellow)
        }
        (_, 0) => {
            line += ": gone";
            Some(Paint::Dim)
        }
        _ => None,
    };
    match paint {
        Some(paint) => paint.on(line, color),
        None => line,
    }
}

fn finding(found: &ChangedFinding, color: bool, out: &mut dyn Write) -> io::Result<()> {
    let (word, paint) = match found.what {
        What::New => ("new", Paint::Red),
        What::Still => ("still", Paint::Yellow),
        What::Gone => ("gone", Paint::Dim),
    };
    let severity = found.severity.name();
    for (index, text) in wrap(&clean(&found.title), WIDTH - INDENT).into_iter().enumerate() {
        let head = match index {
            0 => format!("{word:<6} {severity:<9} "),
            _ => " ".repeat(INDENT),
        };
        writeln!(out, "{}", paint.on(head + &text, color))?;
    }
    Ok(())
}
