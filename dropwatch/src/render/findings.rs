//! Findings, below the rows that they explain.
//!
//! ```text
//! critical  conntrack table full in gw: 1000 of 1000 entries, 10001 packets refused
//!           explains 93.4% of the drops · drop +10001 · entries 1000
//!           sysctl -w net.netfilter.nf_conntrack_max=65536
//!             16.5 MiB when full (65536 × 256 B + 65536 × 8 B)
//! ```
//!
//! None of these lines can be taken for a row.

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
    let room = WIDTH - INDENT;
    let mut lines = title(finding.severity, &finding.title, color);
    let mut indented = |indent: usize, paint: Option<Paint>, text: String| {
        let text = unlike_a_row(text);
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

/// The severity and the cause.
pub(super) fn title(severity: Severity, title: &str, color: bool) -> Vec<String> {
    let word = severity.name();
    let paint = match severity {
        Severity::Critical => Paint::Red,
        Severity::Warning => Paint::Yellow,
        Severity::Notice => Paint::Cyan,
    };
    let line = |(index, text): (usize, String)| {
        let head = if index == 0 { format!("{word:<INDENT$}") } else { " ".repeat(INDENT) };
        paint.on(head + &unlike_a_row(text), color)
    };
    wrap(&clean(title), WIDTH - INDENT).into_iter().enumerate().map(line).collect()
}

/// Text that begins with a number could be taken for a row: the space after it is one that does
/// not break.
fn unlike_a_row(text: String) -> String {
    match text.split_once(' ') {
        Some((number, rest)) if number.starts_with(|c: char| c.is_numeric()) => {
            format!("{number}\u{a0}{rest}")
        }
        _ => text,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::finding::{Action, Explains};

    fn finding(title: &str, note: &str) -> Finding {
        let evidence = |name: &str, value, delta| Evidence {
            name: name.to_owned(),
            value,
            delta,
            source: "snmp".to_owned(),
        };
        Finding {
            rule: "udp_receive_buffer".to_owned(),
            severity: Severity::Critical,
            netns: None,
            title: title.to_owned(),
            explains: Some(Explains { drops: 91, share: 0.914 }),
            evidence: vec![
                evidence("Udp.RcvbufErrors", Value::Number(91), true),
                evidence("net.core.rmem_default", Value::Number(4608), false),
                evidence("reader", Value::Text("dns\x1b[2Jmasq".to_owned()), false),
            ],
            actions: vec![Action {
                command: "sysctl -w net.core.rmem_default=212992".to_owned(),
                note: note.to_owned(),
            }],
        }
    }

    fn text(finding: &Finding) -> String {
        lines(finding, false).map(|line| line + "\n").collect()
    }

    #[test]
    fn a_finding_is_its_cause_its_evidence_and_what_to_do() {
        let note = "twice as much; buffer of sockets that do not ask; memory for each socket";
        let expected = "\
critical  UDP receive buffer of port 53 full in gw: 91 datagrams lost
          explains 91.4% of the drops · Udp.RcvbufErrors +91
          net.core.rmem_default 4608 · reader dns?[2Jmasq
          sysctl -w net.core.rmem_default=212992
            twice as much; buffer of sockets that do not ask; memory for each
            socket
";
        let finding = finding("UDP receive buffer of port 53 full in gw: 91 datagrams lost", note);
        assert_eq!(text(&finding).replace('\u{fffd}', "?"), expected);
    }

    #[test]
    fn no_line_is_too_wide_or_looks_like_a_row() {
        let row = "7 packets dropped at nf_hook_slow+0x7d ";
        let long = format!("{}{row}{row}{row}", "word ".repeat(12));
        let mut finding = finding(&long, &long);
        finding.actions[0].command = row.to_owned();
        for line in text(&finding).lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
            let first = line.trim_start().split(' ').next().unwrap_or_default();
            assert!(!first.chars().all(char::is_numeric), "{line}");
        }
    }
}
