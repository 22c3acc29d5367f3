//! All that is known about one row: who and on which path, what was found, what it means.

use ratatui::text::{Line, Span};

use super::{
    state::{TopRow, TopState},
    view::{BOLD, DIM},
};
use crate::{
    diagnose::knowledge::{
        CORE, Check, DropEntry, KnowledgeTable, NOT_SPECIFIED, blanks, function_name,
    },
    render::{
        Medium,
        clean::clean,
        details,
        words::{PerSecond, location},
        wrap::{wrap, wrap_command, wrap_hanging},
    },
    report::{finding::Finding, model::Location},
};

/// Columns that text is set in from.
const INDENT: usize = 2;
/// Call paths shown.
const MOST_PATHS: usize = 3;

/// The lines about `row`, at most `width` columns wide where words allow it.
pub(super) fn lines(
    row: &TopRow,
    state: &TopState,
    table: Option<&KnowledgeTable>,
    medium: Medium,
    width: u16,
) -> Vec<Line<'static>> {
    let room = usize::from(width).saturating_sub(INDENT);
    let mut page = DetailPage { lines: vec![Line::default()], medium, room };
    for line in wrap_hanging(&location(&row.last), INDENT, usize::from(width)) {
        page.lines.push(Line::styled(line, BOLD));
    }
    let rate =
        if row.rate == 0.0 { "none now".to_owned() } else { PerSecond(row.rate).to_string() };
    page.text(&format!("{rate}, {} since the view began", row.total));
    let who = details::lines(&row.last, room, room);
    if !who.is_empty() {
        page.head(if row.last.namespaces.is_empty() { "Who (samples)" } else { "Who" });
        who.into_iter().for_each(|line| page.line(line));
    }
    page.paths(&row.last);
    for finding in about(&row.last, &state.findings) {
        page.head("Found");
        page.finding(finding);
    }
    if let Some(entry) = table.and_then(|table| known(table, &row.last)) {
        page.head("What it means");
        page.entry(entry);
    }
    page.lines
}

struct DetailPage {
    lines: Vec<Line<'static>>,
    medium: Medium,
    room: usize,
}

impl DetailPage {
    fn head(&mut self, text: &'static str) {
        self.lines.push(Line::default());
        self.lines.push(Line::styled(text, DIM));
    }

    fn line(&mut self, text: String) {
        self.lines.push(Line::from(vec![" ".repeat(INDENT).into(), Span::raw(text)]));
    }

    fn text(&mut self, text: &str) {
        for line in wrap(&clean(text), self.room) {
            self.line(line);
        }
    }

    /// A command, in as many lines as it takes; a shell reads them as one.
    fn command(&mut self, command: &str) {
        let lines = wrap_command(&self.medium.command(command), 4, self.room.saturating_sub(2));
        for (index, line) in lines.into_iter().enumerate() {
            self.line(format!("{}{line}", if index == 0 { "$ " } else { "  " }));
        }
    }

    fn paths(&mut self, row: &Location) {
        for path in row.stacks.iter().take(MOST_PATHS) {
            let frames: Vec<String> = path
                .frames
                .iter()
                .map(|frame| details::function(frame.symbol.as_deref()))
                .collect();
            self.text(&frames.join(" ← "));
        }
    }

    fn finding(&mut self, finding: &Finding) {
        self.text(&finding.title);
        for action in &finding.actions {
            self.command(&clean(&action.command));
            self.text(&action.note);
        }
        if let Some(unreachable) = &finding.unreachable {
            self.text(&unreachable.why);
        }
    }

    fn entry(&mut self, entry: &DropEntry) {
        self.text(&format!("{}: {}", entry.title, entry.meaning));
        let commands = || {
            entry.check.iter().filter_map(|check| match check {
                Check::Command(command) => Some(command.as_str()),
                Check::Number(_) => None,
            })
        };
        for command in commands() {
            self.command(command);
        }
        for (word, what) in blanks(commands()) {
            self.text(&format!("{word}: {what}, to be filled in"));
        }
    }
}

/// Findings about a row: about drops at its location for its reason, and of one of its namespaces or of
/// none.
fn about<'a>(row: &Location, findings: &'a [Finding]) -> Vec<&'a Finding> {
    let sampled = row.details.as_ref().and_then(|details| details.netns.as_ref());
    let sampled = sampled.map(|fact| fact.is.inum);
    let is_here = |inum: u32| {
        sampled == Some(inum) || row.namespaces.iter().any(|netns| netns.inum == Some(inum))
    };
    let near = |finding: &&Finding| {
        finding.places.contains(&row.place)
            && finding.netns.as_ref().is_none_or(|netns| is_here(netns.inum))
    };
    findings.iter().filter(near).collect()
}

fn known<'a>(table: &'a KnowledgeTable, row: &Location) -> Option<&'a DropEntry> {
    let place = &row.place;
    let function = place.symbol.as_deref().map(function_name);
    let subsystem = place.subsystem.as_deref().unwrap_or(CORE);
    table.lookup(function, subsystem, place.reason.as_deref().unwrap_or(NOT_SPECIFIED))
}
