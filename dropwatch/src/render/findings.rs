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

use std::borrow::Cow;

use anstyle::Style;

use super::{
    clean,
    medium::Medium,
    palette::{ALARM, CAUTION, STRONG, WEAK, paint},
    words::{Percent, count},
    wrap::{wrap, wrap_pieces},
};
use crate::report::{
    finding::{Evidence, Finding, MoreFindings, Severity, Value},
    model::Report,
    number::share,
};

/// Columns of a severity and the space behind it.
const INDENT: usize = 10;
/// How much further in a note stands than its command.
const NOTE: usize = 2;
/// Pieces of evidence and columns of notes that are shown; JSON has all.
const MOST_EVIDENCE: usize = 6;
const MOST_NOTE: usize = 4 * 68;
/// Actions shown.
const MOST_ACTIONS: usize = 3;

/// The lines of all findings of a report, those of one severity side by side, and behind them one for
/// those of each rule that a view left out.
pub(super) fn all(report: &Report, medium: Medium) -> Vec<String> {
    let of = |severity: &Severity| {
        let severity = *severity;
        let whole = report.findings.iter().filter(move |it| it.severity == severity);
        let more = report.more_findings.iter().filter(move |it| it.severity == severity);
        let explained = |more: &MoreFindings| share(more.drops, report.drops);
        whole.flat_map(move |finding| lines(finding, medium)).chain(more.flat_map(move |more| {
            let explains = match more.drops {
                0 => String::new(),
                _ => format!(", explain {} of the drops", Percent(explained(more))),
            };
            title(severity, &format!("{}{explains} (-n 0 shows them)", rest(more)), medium)
        }))
    };
    Severity::ALL.iter().flat_map(of).collect()
}

/// `293 more by closed_port in 293 namespaces`
pub(super) fn rest(more: &MoreFindings) -> String {
    let within = match more.namespaces {
        0 => String::new(),
        namespaces => format!(" in {}", count(namespaces, "namespace")),
    };
    format!("{} more by {}{within}", more.findings, clean(&more.rule))
}

/// The lines of one finding.
fn lines(finding: &Finding, medium: Medium) -> Vec<String> {
    let room = medium.room(INDENT);
    let mut lines = title(finding.severity, &finding.title, medium);
    let mut indented = |indent: usize, style: Style, text: &str| {
        lines.push(format!("{:indent$}{}", "", paint(style, unlike_a_row(text))));
    };
    let explains = finding.explains.filter(|explains| explains.drops > 0).map(|explains| {
        format!("explains {} of the drops", Percent(explains.share).to_string().trim())
    });
    let pieces = explains.into_iter().chain(finding.evidence.iter().take(MOST_EVIDENCE).map(piece));
    for line in wrap_pieces(pieces.map(|piece| (" · ", piece)), room) {
        indented(INDENT, WEAK, &line);
    }
    for action in finding.actions.iter().take(MOST_ACTIONS) {
        // Commands are not wrapped, so that they can be copied.
        indented(INDENT, Style::new(), &medium.command(&clean(&action.command)));
        // Into a file a note is one line of as many columns as its lines on a screen have.
        let room = room.saturating_sub(NOTE).min(MOST_NOTE);
        let most = MOST_NOTE.div_ceil(room.max(1));
        for line in
            wrap(&clean(&action.note), room).iter().take(most).filter(|line| !line.is_empty())
        {
            indented(INDENT + NOTE, WEAK, line);
        }
    }
    if let Some(unreachable) = &finding.unreachable {
        for line in wrap(&clean(&unreachable.why), room) {
            indented(INDENT, WEAK, &line);
        }
    }
    lines
}

/// The severity and the cause.
pub(super) fn title(severity: Severity, title: &str, medium: Medium) -> Vec<String> {
    let word = severity.name();
    let style = style(severity);
    let line = |(index, text): (usize, String)| {
        let head = if index == 0 { format!("{word:<INDENT$}") } else { " ".repeat(INDENT) };
        paint(style, head + &unlike_a_row(&text))
    };
    let room = medium.room(INDENT);
    wrap(&clean(title), room).into_iter().enumerate().map(line).collect()
}

/// How a severity stands out.
pub(super) fn style(severity: Severity) -> Style {
    match severity {
        Severity::Critical => ALARM,
        Severity::Warning => CAUTION,
        Severity::Notice => STRONG,
    }
}

/// Changes text that could be taken for a row of a report, since names in it are chosen by anyone.
fn unlike_a_row(text: &str) -> Cow<'_, str> {
    match text.split_once(' ') {
        Some((number, rest))
            if number.bytes().all(|digit| digit.is_ascii_digit())
                && rest.starts_with("packets dropped at") =>
        {
            Cow::Owned(format!("{number}\u{fffd}{rest}"))
        }
        _ => Cow::Borrowed(text),
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
    use crate::{
        render::Format,
        report::{
            facts::Netns,
            finding::{Action, Explains, Unreachable},
        },
    };

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
            subject: String::new(),
            title: title.to_owned(),
            object: None,
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
            unreachable: None,
            places: Vec::new(),
        }
    }

    const SCREEN: Medium = Medium { columns: Some(80), color: false, ascii: false };

    fn text(finding: &Finding) -> String {
        on(SCREEN, finding)
    }

    fn on(medium: Medium, finding: &Finding) -> String {
        let mut page = Vec::new();
        let lines: String = lines(finding, medium).into_iter().map(|line| line + "\n").collect();
        medium.write(&lines, &mut page).expect("writes");
        String::from_utf8(page).expect("text")
    }

    #[test]
    fn a_headline_and_what_stands_below_it_are_a_line_each_in_a_file() {
        let cause = "the cause is told in many words ".repeat(5);
        let mut finding = finding(cause.trim_end(), &"what it does; ".repeat(12));
        finding.evidence.extend_from_within(..);
        finding.unreachable = Some(Unreachable { ended: true, why: "gone ".repeat(30) });
        let text = on(Medium::default(), &finding);
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(text.lines().next().is_some_and(|line| line.ends_with(cause.trim_end())), "{text}");
        assert!(on(SCREEN, &finding).lines().count() > 10);
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
    fn a_namespace_that_has_ended_is_said_to_have() {
        let mut finding = finding("a rule drops packets in gw", "");
        finding.actions.clear();
        let why = "gw has ended: no command can be run there".to_owned();
        finding.unreachable = Some(Unreachable { ended: true, why });
        let text = text(&finding);
        assert!(
            text.ends_with("\n          gw has ended: no command can be run there\n"),
            "{text}"
        );
    }

    #[test]
    fn no_line_is_too_wide_or_looks_like_a_row() {
        let row = "7 packets dropped at nf_hook_slow+0x7d ";
        let long = format!("{}{row}{row}{row}", "word ".repeat(12));
        let mut finding = finding(&long, &long);
        finding.actions[0].command = row.to_owned();
        let (narrow, file) = (text(&finding), on(Medium::default(), &finding));
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        for line in narrow.lines().chain(file.lines()) {
            let is_row = line.trim_start().split_once(' ').is_some_and(|(first, rest)| {
                first.chars().all(char::is_numeric) && rest.starts_with("packets dropped at ")
            });
            assert!(!is_row, "{line}");
        }
    }

    /// A report of 300 namespaces, each with a finding of the same rule, and one that is worse.
    fn crowded() -> Report {
        let found = |at: u32| {
            let mut finding = finding(
                &format!("nobody listens at UDP port 9 in bk{at}: {} packets refused", 1000 - at),
                "what listens, at which address: start the service, or stop the sender",
            );
            finding.rule = "closed_port".to_owned();
            finding.severity = Severity::Warning;
            finding.netns = Some(Netns::new(Some(format!("bk{at}")), at));
            finding.explains = Some(Explains::of(1000 - u64::from(at), 300_000));
            finding
        };
        let mut findings: Vec<Finding> = vec![finding("UDP receive buffer full", "")];
        findings.extend((0..300).map(found));
        Report { drops: 300_000, findings, ..Report::default() }
    }

    #[test]
    fn a_cause_in_hundreds_of_namespaces_has_its_largest_whole_and_one_sum() {
        let lines = |top: Option<usize>, columns| {
            let report = Format::Text.view(top, false).report(crowded());
            let medium = Medium { columns, ..SCREEN };
            let mut page = Vec::new();
            medium.write(&all(&report, medium).join("\n"), &mut page).expect("writes");
            let page = String::from_utf8(page).expect("text");
            page.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let file = lines(None, None);
        assert_eq!(file.iter().filter(|line| line.starts_with("warning")).count(), 6, "{file:?}");
        assert!(file[0].starts_with("critical"), "{file:?}");
        let drops: u64 = (5..300).map(|at| 1000 - at).sum();
        assert_eq!(drops, 250_160);
        assert_eq!(
            file.last().map(String::as_str),
            Some(
                "warning   295 more by closed_port in 295 namespaces, explain 83.4% of the drops \
                 (-n 0 shows them)"
            )
        );
        assert!(lines(Some(2), None).iter().any(|line| line.contains("298 more by closed_port")));
        assert_eq!(lines(Some(0), None).iter().filter(|it| it.starts_with("warning")).count(), 300);
        for columns in [80, 120] {
            let lines = lines(None, Some(columns));
            assert!(lines.len() < 50, "{}", lines.len());
            assert!(lines.iter().all(|line| line.chars().count() <= columns), "{lines:?}");
        }
        // JSON has all.
        assert_eq!(Format::Json.view(None, false).report(crowded()).findings.len(), 301);
    }

    #[test]
    fn amounts_are_found_by_those_who_search_for_them() {
        let text = text(&finding("cause", "16.5 MiB when full; 8 B each"));
        assert!(text.contains("            16.5 MiB when full"), "{text}");
        assert!(!text.contains('\u{a0}'), "{text}");
    }
}
