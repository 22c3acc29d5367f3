//! All that is known about one row: who and on which path, what was found, what it means; of a network
//! namespace, where it drops, and what was found there.

use ratatui::text::{Line, Span};

use super::{
    rows::{Subject, TopRow, Whose},
    state::TopState,
    view::{BOLD, DIM, RATE, TOTAL, rate},
};
use crate::{
    diagnose::knowledge::{
        CORE, Check, DropEntry, KnowledgeTable, NOT_SPECIFIED, blanks, function_name,
    },
    render::{
        Medium, TEXT_FINDINGS,
        clean::clean,
        details,
        findings::rest,
        words::count,
        wrap::{wrap, wrap_command, wrap_hanging},
    },
    report::{
        finding::{Finding, sum_up},
        model::Location,
        namespaces::truncate,
    },
};

/// Columns that text is set in from.
const INDENT: usize = 2;
/// Call paths shown.
const MOST_PATHS: usize = 3;
/// Locations shown of a namespace.
const MOST_PLACES: usize = 10;
/// Namespaces shown of a location.
const MOST_NAMESPACES: usize = 10;

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
    for line in wrap_hanging(&row.title(), INDENT, usize::from(width)) {
        page.lines.push(Line::styled(line, BOLD));
    }
    let now = match row.rate {
        0.0 => "none now".to_owned(),
        _ => rate(row),
    };
    page.text(&format!("{now}, {} since the view began", row.total));
    match &row.subject {
        Subject::Location(location) => page.location(location, state, table),
        Subject::Netns(whose) => page.netns(whose, row.total, state),
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

    fn location(&mut self, row: &Location, state: &TopState, table: Option<&KnowledgeTable>) {
        let mut listed = row.clone();
        truncate(&mut listed.namespaces, MOST_NAMESPACES, &mut listed.more);
        let who = details::lines(&listed, self.room, self.room);
        if !who.is_empty() {
            self.head(if row.namespaces.is_empty() { "Who (samples)" } else { "Who" });
            who.into_iter().for_each(|line| self.line(line));
        }
        self.paths(row);
        self.findings(about(row, &state.findings));
        if let Some(entry) = table.and_then(|table| known(table, row)) {
            self.head("What it means");
            self.entry(entry);
        }
    }

    /// Where a namespace has its `total` drops, which the lines sum up to.
    fn netns(&mut self, whose: &Whose, total: u64, state: &TopState) {
        self.head("Where");
        let places = state.places_of(whose);
        let shown = &places[..places.len().min(MOST_PLACES)];
        let mut left = total;
        for place in shown {
            left = left.saturating_sub(place.total);
            let line = format!("{:>RATE$} {:>TOTAL$}  {}", rate(place), place.total, place.title());
            for line in wrap_hanging(&line, RATE + TOTAL + 5, self.room) {
                self.line(line);
            }
        }
        if left > 0 {
            let more = count((places.len() - shown.len()) as u64, "more location");
            let rest = if places.len() > shown.len() {
                format!("at {more}")
            } else {
                "elsewhere".to_owned()
            };
            self.line(format!("{:>RATE$} {left:>TOTAL$}  {rest}", ""));
        }
        let here = whose.0.as_ref().map(|netns| netns.inum);
        let there = |it: &&Finding| it.netns.as_ref().is_some_and(|at| Some(at.inum) == here);
        self.findings(state.findings.iter().filter(there).collect());
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

    /// The largest findings of each rule, and one line for the rest of it.
    fn findings(&mut self, mut found: Vec<&Finding>) {
        let more = sum_up(&mut found, TEXT_FINDINGS, |finding| finding.kind());
        for finding in found {
            self.head("Found");
            self.finding(finding);
        }
        for more in more {
            self.head("Found");
            self.text(&format!("{} {}", more.severity.name(), rest(&more)));
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
