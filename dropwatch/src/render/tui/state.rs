//! What the live view knows: the rows since it began, and what the user has selected of them.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, VecDeque},
};

use super::search::Search;
use crate::report::{
    finding::Finding,
    model::{Host, Location, Lost, Report},
    number::per_second,
    place::Place,
};

/// Intervals that a row's history holds: the most that a wide screen shows.
pub const HISTORY: usize = 60;
/// Rows that are remembered; beyond them, those at rest the longest are forgotten.
const MOST_ROWS: usize = 1_000;

/// What identifies a row: two functions of one name lie at two addresses.
pub(super) type Identity = (Place, Option<u64>);

fn identity(row: &Location) -> Identity {
    (row.place.clone(), row.address.known())
}

/// One place, now and before.
#[derive(Clone, Debug)]
pub struct TopRow {
    identity: Identity,
    /// The row of the last report that has drops here; its rate and count are of that report.
    pub last: Location,
    /// Drops a second now.
    pub rate: f64,
    /// Drops since the view began.
    pub total: u64,
    /// Drops a second in the last intervals, the newest at the end.
    pub history: VecDeque<f64>,
}

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    #[default]
    Rate,
    Total,
    Name,
}

impl Sort {
    fn next(self) -> Self {
        match self {
            Self::Rate => Self::Total,
            Self::Total => Self::Name,
            Self::Name => Self::Rate,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Total => "total",
            Self::Name => "name",
        }
    }
}

/// What a user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    /// Ends the search; else back to the table; there, the end.
    Escape,
    Quit,
    Sort,
    Freeze,
    /// The next network namespace; while there is a search, the next match.
    Netns,
    /// Harmless drops, too.
    Benign,
    Help,
    /// Text to search for begins.
    Search,
    /// The letter of a key: part of a text while one is typed, else what it asks for there.
    Letter(char),
    /// Takes back the last letter of a text.
    Backspace,
    /// The match before.
    Previous,
}

impl Key {
    /// What a letter asks for where no text is typed.
    fn of(letter: char) -> Option<Self> {
        Some(match letter {
            'q' => Self::Quit,
            // What stands for the sign of the enter key where characters are ASCII alone.
            '>' => Self::Enter,
            'k' => Self::Up,
            'j' => Self::Down,
            'g' => Self::Home,
            'G' => Self::End,
            's' => Self::Sort,
            ' ' => Self::Freeze,
            'n' => Self::Netns,
            'N' => Self::Previous,
            'b' => Self::Benign,
            '/' => Self::Search,
            '?' | 'h' => Self::Help,
            _ => return None,
        })
    }
}

/// What is on the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Screen {
    #[default]
    Table,
    /// All that is known about one row.
    Detail,
    Help,
}

/// How many rows a page key moves.
const PAGE: usize = 10;

/// What the view knows.
#[derive(Clone, Debug, Default)]
pub struct TopState {
    pub host: Host,
    /// The last report, without its rows.
    pub header: Option<Header>,
    rows: Vec<TopRow>,
    pub findings: Vec<Finding>,
    /// Drops since the view began.
    pub total: u64,
    pub lost: Lost,
    pub sort: Sort,
    pub screen: Screen,
    /// Show benign rows.
    pub benign: bool,
    /// Show rows of this network namespace alone.
    pub netns: Option<String>,
    pub search: Option<Search>,
    selected: Option<Identity>,
    /// The frozen state, which is shown while this one goes on.
    frozen: Option<Box<TopState>>,
    pub over: bool,
}

/// The sums of a report.
#[derive(Clone, Debug)]
pub struct Header {
    pub end: jiff::Timestamp,
    pub interval_s: f64,
    pub drops: u64,
    pub rate: f64,
    /// Harmless drops a second, which are part of `rate`.
    pub benign_rate: f64,
    pub intervals: u64,
}

/// The order of rows that are equal otherwise.
fn name(row: &TopRow) -> impl Ord + '_ {
    let Place { symbol, offset, module: _, reason, subsystem: _ } = &row.last.place;
    (symbol, offset, reason)
}

impl TopState {
    pub fn new(host: Host, benign: bool) -> Self {
        Self { host, benign, ..Self::default() }
    }

    /// Takes a report in. While frozen, what is shown stays.
    pub fn report(&mut self, report: Report) {
        self.header = Some(Header {
            end: report.end,
            interval_s: report.interval_s,
            drops: report.drops,
            rate: report.rate,
            benign_rate: per_second(report.benign(), report.interval_s),
            intervals: report.intervals,
        });
        self.total = self.total.saturating_add(report.drops);
        self.lost = self.lost.zip(&report.lost, u64::saturating_add);
        self.findings = report.findings;
        for row in &mut self.rows {
            row.rate = 0.0;
        }
        for location in report.locations {
            let identity = identity(&location);
            let known = self.rows.iter_mut().find(|row| row.identity == identity);
            match known {
                Some(row) => {
                    row.rate = location.rate;
                    row.total = row.total.saturating_add(location.count);
                    // Keeps the details of earlier intervals where this one has no samples.
                    let details = row.last.details.take();
                    row.last = location;
                    row.last.details = row.last.details.take().or(details);
                }
                None => self.rows.push(TopRow {
                    identity,
                    rate: location.rate,
                    total: location.count,
                    history: VecDeque::new(),
                    last: location,
                }),
            }
        }
        for row in &mut self.rows {
            row.history.push_back(row.rate);
            if row.history.len() > HISTORY {
                row.history.pop_front();
            }
        }
        if self.rows.len() > MOST_ROWS {
            let quiet =
                |row: &TopRow| row.history.iter().rev().take_while(|rate| **rate == 0.0).count();
            self.rows.sort_by_key(|row| (quiet(row), Reverse(row.total)));
            self.rows.truncate(MOST_ROWS);
        }
    }

    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// What is to be drawn.
    pub fn shown(&self) -> &TopState {
        self.frozen.as_deref().unwrap_or(self)
    }

    /// Rows to be listed, in their order.
    pub fn rows(&self) -> Vec<&TopRow> {
        let mut rows: Vec<&TopRow> = self.rows.iter().filter(|row| self.selects(row)).collect();
        match self.sort {
            // Rows of equal rate, such as all that drop nothing now, are in the order of their
            // totals.
            Sort::Rate => rows.sort_by(|a, b| {
                b.rate
                    .total_cmp(&a.rate)
                    .then_with(|| b.total.cmp(&a.total))
                    .then_with(|| name(a).cmp(&name(b)))
            }),
            Sort::Total => {
                rows.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| name(a).cmp(&name(b))));
            }
            Sort::Name => rows.sort_by(|a, b| name(a).cmp(&name(b))),
        }
        rows
    }

    /// The selected one among `rows`, or the first.
    pub fn selected(&self, rows: &[&TopRow]) -> usize {
        let identity = self.selected.as_ref();
        rows.iter().position(|row| Some(&row.identity) == identity).unwrap_or(0)
    }

    /// How many benign drops are not shown.
    pub fn folded(&self) -> u64 {
        let benign = self.rows.iter().filter(|row| row.last.benign && !self.benign);
        benign.fold(0, |sum, row| sum.saturating_add(row.total))
    }

    fn selects(&self, row: &TopRow) -> bool {
        let netns = self.netns.as_deref();
        (self.benign || !row.last.benign)
            && (netns.is_none() || namespaces_of(row).any(|name| Some(name) == netns))
    }

    /// Acts on a key.
    pub fn key(&mut self, key: Key) {
        let typing = self.search.as_ref().is_some_and(|search| search.typing);
        let key = match key {
            Key::Letter(letter) if !typing => match Key::of(letter) {
                Some(key) => key,
                None => return,
            },
            key => key,
        };
        if key == Key::Freeze {
            let frozen = self.frozen.take();
            if frozen.is_none() {
                self.frozen = Some(Box::new(self.clone()));
            }
            return;
        }
        if let Some(frozen) = &mut self.frozen {
            frozen.act(key);
            self.over = frozen.over;
            // Selections that were made while the view was frozen are kept.
            let Self { sort, screen, benign, netns, search, selected, .. } = (**frozen).clone();
            (self.sort, self.screen, self.benign) = (sort, screen, benign);
            (self.netns, self.search, self.selected) = (netns, search, selected);
            return;
        }
        self.act(key);
    }

    fn act(&mut self, key: Key) {
        if self.search_acts(key) {
            return;
        }
        match (self.screen, key) {
            (_, Key::Search) => {
                self.screen = Screen::Table;
                let rows = self.rows();
                let from = rows.get(self.selected(&rows)).map(|row| row.identity.clone());
                self.search = Some(Search::new(from));
            }
            (_, Key::Quit) | (Screen::Table, Key::Escape) => self.over = true,
            (Screen::Help, _) | (_, Key::Escape) => self.screen = Screen::Table,
            (_, Key::Help) => self.screen = Screen::Help,
            (Screen::Detail, Key::Enter) => self.screen = Screen::Table,
            (Screen::Table, Key::Enter) => {
                if !self.rows().is_empty() {
                    self.step(0, true);
                    self.screen = Screen::Detail;
                }
            }
            (_, Key::Sort) => self.sort = self.sort.next(),
            (_, Key::Netns) => self.next_netns(),
            (_, Key::Benign) => self.benign = !self.benign,
            (_, Key::Up) => self.step(1, false),
            (_, Key::Down) => self.step(1, true),
            (_, Key::PageUp) => self.step(PAGE, false),
            (_, Key::PageDown) => self.step(PAGE, true),
            (_, Key::Home) => self.step(usize::MAX, false),
            (_, Key::End) => self.step(usize::MAX, true),
            (_, Key::Freeze | Key::Letter(_) | Key::Backspace | Key::Previous) => {}
        }
    }

    /// What a key does to a search, if there is one; `false` where it does what it always does.
    fn search_acts(&mut self, key: Key) -> bool {
        let Some(search) = &mut self.search else { return false };
        match key {
            Key::Letter(letter) => search.push(letter),
            Key::Backspace if search.typing => {
                if !search.pop() {
                    self.search = None;
                    return true;
                }
            }
            Key::Enter if search.typing => {
                search.typing = false;
                if search.text().is_empty() {
                    self.search = None;
                }
                return true;
            }
            Key::Escape if self.screen == Screen::Table => {
                self.search = None;
                return true;
            }
            Key::Netns if self.screen != Screen::Help => {
                self.select_match(1);
                return true;
            }
            Key::Previous if self.screen != Screen::Help => {
                self.select_match(-1);
                return true;
            }
            _ => {
                // Any other key ends the typing and keeps the text.
                search.typing = false;
                if search.text().is_empty() {
                    self.search = None;
                }
                return false;
            }
        }
        self.select_match(0);
        true
    }

    /// Selects the nearest match; while a text is typed, from where that began, and that again where
    /// there is none.
    fn select_match(&mut self, step: isize) {
        let Some(search) = &self.search else { return };
        let rows = self.rows();
        let at = |identity: &Option<Identity>| {
            rows.iter().position(|row| Some(&row.identity) == identity.as_ref())
        };
        let from = if step == 0 { at(&search.from) } else { at(&self.selected) }.unwrap_or(0);
        let found = search.find(&rows, from, step).or((step == 0).then_some(from));
        let found = found.and_then(|index| rows.get(index)).map(|row| row.identity.clone());
        self.selected = found.or_else(|| self.selected.clone());
    }

    fn step(&mut self, by: usize, down: bool) {
        let rows = self.rows();
        let Some(last) = rows.len().checked_sub(1) else { return };
        let now = self.selected(&rows);
        let next = if down { now.saturating_add(by).min(last) } else { now.saturating_sub(by) };
        self.selected = Some(rows[next].identity.clone());
    }

    /// All, then each one that rows name, then all again.
    fn next_netns(&mut self) {
        let names: BTreeSet<&str> = self.rows.iter().flat_map(namespaces_of).collect();
        let next = match self.netns.as_deref() {
            None => names.first(),
            Some(now) => names.iter().find(|name| **name > now),
        };
        self.netns = next.map(|name| (*name).to_owned());
    }
}

/// The network namespaces that a row's drops are in: each of them, where they are counted, else that of
/// most of the sampled ones.
pub(super) fn namespaces_of(row: &TopRow) -> impl Iterator<Item = &str> {
    let counted = row.last.namespaces.iter().filter_map(|netns| netns.name.as_deref());
    let sampled = row.last.details.as_ref().filter(|_| row.last.namespaces.is_empty());
    let sampled = sampled.and_then(|details| details.netns.as_ref()?.is.name.as_deref());
    counted.chain(sampled)
}
