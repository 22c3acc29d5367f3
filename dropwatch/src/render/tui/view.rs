//! How the live view looks.
//!
//! Names come from kernels, packets and processes: all of them are cleaned on the way here.

use std::{borrow::Cow, iter};

use ratatui::{
    Frame,
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::{Modifier, Style},
    text::{Line, Span},
    widgets::{Paragraph, Wrap},
};

use super::{
    detail,
    rows::{HISTORY, TopRow},
    search::Search,
    state::{List, Screen, TopState},
};
use crate::{
    diagnose::knowledge::KnowledgeTable,
    render::{
        Medium,
        ascii::ascii,
        clean::clean,
        findings,
        palette::{ALARM, CAUTION},
        words::{PerSecond, count, losses},
        wrap::{columns, wrap},
    },
    report::{
        finding::{Finding, Severity, sum_up},
        number::step,
    },
};

/// Columns of a rate, of a total, and of the history on a narrow screen.
pub(super) const RATE: usize = 9;
pub(super) const TOTAL: usize = 11;
const NARROW_HISTORY: usize = 12;
/// A screen from this on has room for a long history.
const WIDE: u16 = 120;
/// A screen from this on shows all about the selected row below the table.
const TALL: u16 = 40;
/// Findings below the table.
const MOST_FINDINGS: usize = 6;
/// Those of one rule and severity among them.
const MOST_OF_RULE: usize = 3;
/// The smallest screen that has room for anything.
const LEAST: (u16, u16) = (40, 8);

/// How to write to a terminal.
#[derive(Clone, Debug)]
pub struct Look {
    /// What the screen shows. Without colours, brightness alone.
    pub medium: Medium,
    pub time_zone: jiff::tz::TimeZone,
    /// Nominal interval, seconds.
    pub interval_s: f64,
}

impl Look {
    /// A style of the lines that are printed elsewhere.
    fn paint(&self, style: anstyle::Style) -> Style {
        let style = Style::from(style);
        if self.medium.color { style } else { Style { fg: None, bg: None, ..style } }
    }

    fn severity(&self, severity: Severity) -> Style {
        self.paint(findings::style(severity))
    }
}

pub(super) const DIM: Style = Style::new().add_modifier(Modifier::DIM);
pub(super) const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
/// What a search has found.
const MATCH: Style = Style::new().add_modifier(Modifier::BOLD.union(Modifier::UNDERLINED));

/// Draws what is to be seen.
pub fn draw(state: &TopState, table: Option<&KnowledgeTable>, look: &Look, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        frame.render_widget(Paragraph::new("too small"), area);
        return;
    }
    let shown = state.shown();
    let findings = match shown.screen {
        Screen::Table => found(&shown.findings, look, area.width),
        Screen::Detail | Screen::Help => Vec::new(),
    };
    let below = match findings.len() as u16 {
        0 => 0,
        lines => (lines + 1).min(area.height / 3),
    };
    let parts = [
        Constraint::Length(2),
        Constraint::Min(3),
        Constraint::Length(below),
        Constraint::Length(1),
    ];
    let [head, body, foot, keys] = Layout::vertical(parts).areas(area);
    frame.render_widget(Paragraph::new(header(shown, state.is_frozen(), look, head.width)), head);
    match shown.screen {
        Screen::Table if area.height >= TALL => both(shown, table, look, frame, body),
        Screen::Table => rows(shown, frame, body),
        Screen::Help => {
            frame.render_widget(Paragraph::new(help()).wrap(Wrap { trim: false }), body);
        }
        Screen::Detail => about_row(shown, table, look, frame, body),
    }
    if below > 0 {
        let lines: Vec<Line<'_>> = iter::once(Line::default()).chain(findings).collect();
        frame.render_widget(Paragraph::new(lines), foot);
    }
    frame.render_widget(Paragraph::new(footer(shown)), keys);
    if look.medium.ascii {
        plain(frame.buffer_mut());
    }
}

/// Leaves nothing on the screen but ASCII.
fn plain(screen: &mut Buffer) {
    for cell in &mut screen.content {
        if let Cow::Owned(symbol) = ascii(cell.symbol()) {
            cell.set_symbol(&symbol);
        }
    }
}

/// The table, and below it what is known about the selected row.
fn both(
    state: &TopState,
    table: Option<&KnowledgeTable>,
    look: &Look,
    frame: &mut Frame<'_>,
    area: Rect,
) {
    let half = Constraint::Fill(1);
    let [above, below] = Layout::vertical([half, half]).areas(area);
    rows(state, frame, above);
    about_row(state, table, look, frame, below);
}

fn about_row(
    state: &TopState,
    table: Option<&KnowledgeTable>,
    look: &Look,
    frame: &mut Frame<'_>,
    area: Rect,
) {
    let rows = state.rows();
    if let Some(row) = rows.get(state.selected(&rows)) {
        let lines = detail::lines(row, state, table, look.medium, area.width);
        frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), area);
    }
}

/// Who and when; how much and how complete.
fn header(state: &TopState, frozen: bool, look: &Look, width: u16) -> Vec<Line<'static>> {
    let host = format!("{} · Linux {}", clean(&state.host.host), clean(&state.host.kernel));
    let mut first = vec![Span::styled("dropwatch", BOLD), format!(" · {host}").into()];
    let Some(header) = &state.header else {
        return vec![Line::from(first), Line::styled("the first report is under way…", DIM)];
    };
    let local = look.time_zone.to_datetime(header.end);
    let clock = format!("{:02}:{:02}:{:02}", local.hour(), local.minute(), local.second());
    let every = format!(" · every {}", jiff::SignedDuration::from_secs_f64(look.interval_s));
    let every = every.replace("PT", "").to_lowercase();
    let right = if frozen { format!("FROZEN at {clock}") } else { clock };
    first.push(Span::styled(every, DIM));
    let used: usize = first.iter().map(Span::width).sum();
    let gap = usize::from(width).saturating_sub(used + right.chars().count()).max(1);
    first.push(" ".repeat(gap).into());
    let style = if frozen { look.paint(CAUTION).patch(BOLD) } else { Style::new() };
    first.push(Span::styled(right, style));

    // Of one namespace, where it is shown alone.
    let (rate, benign, total) = match &state.netns {
        Some(whose) => state.sums_of(whose),
        None => (header.rate, header.benign_rate, state.total),
    };
    let now = if rate == 0.0 { "0/s".to_owned() } else { PerSecond(rate).to_string() };
    let mut second = vec![
        Span::styled(format!("{now} now"), BOLD),
        match benign {
            0.0 => Span::default(),
            rate => Span::styled(format!(", {} of them benign", PerSecond(rate)), DIM),
        },
        format!(" · {} in all · ", count(total, "drop")).into(),
        match losses(&state.lost) {
            Some(losses) => Span::styled(losses, look.paint(ALARM)),
            None => "none lost".into(),
        },
    ];
    if header.intervals > 1 {
        second.push(Span::styled(format!(" · {} intervals at once", header.intervals), DIM));
    }
    if let Some(netns) = &state.netns {
        let only = format!(" · only {}", clean(&netns.to_string()));
        second.push(Span::styled(only, look.paint(CAUTION)));
    }
    vec![Line::from(first), Line::from(second)]
}

fn rows(state: &TopState, frame: &mut Frame<'_>, area: Rect) {
    let history =
        if area.width >= WIDE { HISTORY.min(usize::from(area.width) / 5) } else { NARROW_HISTORY };
    let rows = state.rows();
    let selected = state.selected(&rows);
    let mark = |name: &str| if state.sort.name() == name { "▼" } else { "" };
    let head = format!(
        "{:>RATE$} {:>TOTAL$}  {:history$}  {}{}",
        format!("RATE{}", mark("rate")),
        format!("TOTAL{}", mark("total")),
        "TREND",
        match state.list {
            List::Locations => "LOCATION (REASON)",
            List::Namespaces => "NAMESPACE",
        },
        mark("name"),
    );
    let mut lines = vec![Line::default(), Line::styled(head, DIM)];
    let room = usize::from(area.height).saturating_sub(3).max(1);
    // The selected row is always on the screen.
    let first = (selected + 1).saturating_sub(room);
    for (index, row) in rows.iter().enumerate().skip(first).take(room) {
        let is_match = state.search.as_ref().is_some_and(|search| search.matches(row));
        lines.push(line(row, history, index == selected, is_match, area.width));
    }
    let below = rows.len().saturating_sub(first + room);
    let folded = state.folded();
    let mut rest: Vec<String> = Vec::new();
    if rows.is_empty() && folded == 0 {
        rest.push("nothing was dropped".to_owned());
    }
    if below > 0 {
        rest.push(format!("{} below", count(below as u64, "row")));
    }
    if folded > 0 {
        rest.push(format!("{} not shown (b shows them)", count(folded, "benign drop")));
    }
    if !rest.is_empty() {
        lines.push(Line::styled(format!("{:>RATE$} {}", "", rest.join(" · ")), DIM));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn line(row: &TopRow, history: usize, selected: bool, is_match: bool, width: u16) -> Line<'static> {
    let style = match (selected, row.rate == 0.0 || row.is_benign()) {
        (true, _) => Style::new().add_modifier(Modifier::REVERSED),
        (false, true) => DIM,
        (false, false) => Style::new(),
    };
    let trend = sparkline(row, history);
    let head = format!("{:>RATE$} {:>TOTAL$}  {trend}  ", rate(row), row.total);
    let room = usize::from(width).saturating_sub(columns(&head));
    let place = fitted(row.title(), room);
    let place = Span::styled(place, if is_match { MATCH } else { Style::new() });
    Line::from(vec![head.into(), place]).style(style)
}

/// Drops a second now; a dash for none.
pub(super) fn rate(row: &TopRow) -> String {
    if row.rate == 0.0 { "–".to_owned() } else { PerSecond(row.rate).to_string() }
}

/// `text` in no more than `width` columns; what is cut off shows as `…`. Some characters take two
/// columns, and some none.
fn fitted(text: String, width: usize) -> String {
    if columns(&text) <= width {
        return text;
    }
    let mut kept = String::new();
    for letter in text.chars() {
        kept.push(letter);
        if columns(&kept) >= width.max(1) {
            kept.pop();
            break;
        }
    }
    kept + "…"
}

/// The last intervals of a row, each as high as it is compared with its own highest.
fn sparkline(row: &TopRow, width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = row.history.iter().rev().take(width).rev();
    let highest = shown.clone().copied().fold(0.0, f64::max);
    let bar = |rate: &f64| match *rate {
        0.0 => ' ',
        rate => BARS[step(rate, highest, 7)],
    };
    let bars: String = shown.map(bar).collect();
    format!("{bars:>width$}")
}

/// A line for each of the largest findings, the most severe first; behind those of a severity, one for
/// those of each rule that are left out.
fn found(all: &[Finding], look: &Look, width: u16) -> Vec<Line<'static>> {
    let mut shown: Vec<&Finding> = all.iter().collect();
    let more = sum_up(&mut shown, MOST_OF_RULE, |finding| finding.kind());
    let shown = shown.into_iter().map(|it| (it.severity, clean(&it.title).into_owned()));
    let mut lines: Vec<_> =
        shown.chain(more.iter().map(|it| (it.severity, findings::rest(it)))).collect();
    // Stable: a sum stands behind what is shown.
    lines.sort_by_key(|(severity, _)| *severity);
    let lines = lines.into_iter().take(MOST_FINDINGS);
    lines.map(|(severity, text)| finding(severity, text, look, width)).collect()
}

/// A finding as one line: as many of its words as fit, and a sign where there are more.
fn finding(severity: Severity, title: String, look: &Look, width: u16) -> Line<'static> {
    let word = format!("{:<9} ", severity.name());
    let room = usize::from(width).saturating_sub(columns(&word));
    let mut text = title;
    if columns(&text) > room {
        let mut lines = wrap(&text, room.saturating_sub(2)).into_iter();
        text = lines.next().unwrap_or_default() + " …";
    }
    Line::from(vec![Span::styled(word, look.severity(severity)), text.into()])
}

fn footer(state: &TopState) -> Line<'static> {
    if let Some(search) = state.search.as_ref().filter(|_| state.screen == Screen::Table) {
        return searching(state, search);
    }
    let tab = match state.list {
        List::Locations => "namespaces",
        List::Namespaces => "locations",
    };
    let keys: &[(&str, &str)] = match state.screen {
        // As many as a screen of 80 columns has room for.
        Screen::Table => &[
            ("q", "quit"),
            ("⏎", "details"),
            ("/", "search"),
            ("space", "freeze"),
            ("s", "sort"),
            ("tab", tab),
            ("n", "one"),
            ("?", "help"),
        ],
        Screen::Detail => {
            &[("esc", "back"), ("↑↓", "other rows"), ("space", "freeze"), ("q", "quit")]
        }
        Screen::Help => &[("any key", "back"), ("q", "quit")],
    };
    keys.iter().flat_map(pair).collect()
}

/// A key and what it does.
fn pair((key, what): &(&'static str, &'static str)) -> [Span<'static>; 2] {
    [Span::styled(*key, BOLD), Span::styled(format!(" {what}  "), DIM)]
}

/// What is searched for, which match is selected, and what keys do meanwhile.
fn searching(state: &TopState, search: &Search) -> Line<'static> {
    let rows = state.rows();
    let matches = rows.iter().filter(|row| search.matches(row)).count();
    let selected = state.selected(&rows);
    let before = rows.iter().take(selected + 1).filter(|row| search.matches(row)).count();
    let is_match = rows.get(selected).is_some_and(|row| search.matches(row));
    let found = match (search.text().is_empty(), matches, is_match) {
        (true, ..) => String::new(),
        (false, 0, _) => "no row has it".to_owned(),
        (false, _, true) => format!("{before} of {matches}"),
        (false, _, false) => count(matches as u64, "row").to_string(),
    };
    let cursor = if search.typing { "▏" } else { "" };
    let keys: &[(&str, &str)] = match search.typing {
        true => &[("⏎", "keep"), ("esc", "clear")],
        false => &[("n", "next"), ("N", "previous"), ("esc", "clear"), ("/", "new search")],
    };
    let text = format!("/{}{cursor}  ", search.text());
    let mut spans = vec![Span::styled(text, BOLD), format!("{found}  ").into()];
    spans.extend(keys.iter().flat_map(pair));
    Line::from(spans)
}

fn help() -> Vec<Line<'static>> {
    const KEYS: [(&str, &str); 12] = [
        ("q, Ctrl-C", "quit; esc does, too, from the table"),
        ("up, down, k, j", "select a row; page up, page down, home, end"),
        ("enter", "all that is known about it: who, path, cause, what to do"),
        ("esc", "back"),
        ("/", "search as you type: location, reason, namespace, interface"),
        ("n, N", "with a search, its next and its previous row; esc ends it"),
        ("space", "freeze the picture; counting goes on"),
        ("s", "sort by rate, total, name"),
        ("tab", "network namespaces in place of locations; back"),
        ("n", "only the next namespace, or the one selected; then all"),
        ("b", "show harmless drops, too"),
        ("?", "this page"),
    ];
    let mut lines = vec![Line::default()];
    for (key, what) in KEYS {
        lines.push(Line::from(vec![Span::styled(format!("  {key:<16}"), BOLD), what.into()]));
    }
    let notes = [
        "RATE: drops a second in the last interval. TOTAL: since the view began.",
        "TREND: the last intervals, compared with the row's own highest.",
        "Both are exact, of a namespace, too. Interfaces, flows, paths are sampled.",
    ];
    lines.push(Line::default());
    lines.extend(notes.map(|note| Line::styled(format!("  {note}"), DIM)));
    lines
}
