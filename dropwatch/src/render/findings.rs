//! Findings, below the rows that they explain.
//!
//! ```text
//! critical  conntrack table full in gw: 1000 of 1000 entries, 10001 packets refused
//!           explains 93.4% of the drops · drop +10001 · entries 1000
//!           sysctl -w net.netfilter.nf_conntrack_max=65536
//!             16.5 MiB when full (65536 × 256 B + 65536 × 8 B)
//! ```
//!
//! None of these lines can be taken for a row: each begins with a word.

use super::{
    clean,
    details::WIDTH,
    paint::Paint,
    words::{Percent, wrap, wrap_pieces},
};
use crate::report::finding::{Evidence, Finding, Severity, Value};

/// Columns of a severity and the space behind it.
const INDENT: usize = 10;
/// How much further in a note stands than its command.
const NOTE: usize = 2;
/// Pieces of evidence and lines of notes that are shown; JSON has all.
const MOST_EVIDENCE: usize = 6;
const MOST_NOTE_LINES: usize = 4;
/// Actions shown.
const MOST_ACTIONS: usize = 3;

/// The lines of one finding.
pub(super) fn lines(finding: &Finding, color: bool) -> impl Iterator<Item = String> {
    let (word, paint) = match finding.severity {
        Severity::Critical => ("critical", Paint::Red),
        Severity::Warning => ("warning", Paint::Yellow),
        Severity::Notice => ("notice", Paint::Cyan),
    };
    let mut lines = Vec::new();
    let room = WIDTH - INDENT;
    for (index, text) in wrap(&clean(&finding.title), room).into_iter().enumerate() {
        let head = if index == 0 { format!("{word:<INDENT$}") } else { " ".repeat(INDENT) };
        lines.push(paint.on(head + &text, color));
    }
    let mut indented = |indent: usize, paint: Option<Paint>, text: String| {
        let text = paint.map_or_else(|| text.clone(), |paint| paint.on(&text, color));
        lines.push(format!("{:indent$}{text}", ""));
    };
    let explains = finding.explains.filter(|explains| explains.drops > 0).map(|explains| {
        format!("explains {} of the drops", Percent(explains.share).to_string().trim())
    });
    let pieces = explains.into_iter().chain(finding.evidence.iter().take(MOST_EVIDENCE).map(piece));
    for line in wrap_pieces(pieces.map(|piece| (" · ", piece)), room) {
        indented(INDENT, Some(Paint::Dim), line);
    }
    for action in finding.actions.iter().take(MOST_ACTIONS) {
        // A command is never broken: it is there to be copied.
        indented(INDENT, None, clean(&action.command).into_owned());
        let note = wrap(&clean(&action.note), room - NOTE);
        for line in note.into_iter().take(MOST_NOTE_LINES).filter(|line| !line.is_empty()) {
            indented(INDENT + NOTE, Some(Paint::Dim), line);
        }
    }
    lines.into_iter()
}

/// `drop +10001`, `entries 1000`.
fn piece(Evidence { name, value, delta, .. }: &Evidence) -> String {
    let name = clean(name);
    match value {
        Value::Number(number) if *delta => format!("{name} +{number}"),
        Value::Number(number) => format!("{name} {number}"),
        Value::Text(text) => format!("{name} {}", clean(text)),
    }
}
