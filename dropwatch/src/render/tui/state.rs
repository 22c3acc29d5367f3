//! What the live view knows: the rows since it began, and what the user has selected of them.

use std::cmp::Ordering;

use super::{
    rows::{Identity, Tables, TopRow, Whose},
    search::Search,
};
use crate::report::{
    finding::Finding,
    model::{Host, Lost, Report},
    number::per_second,
    place::Place,
};

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
    /// Namespaces in place of locations, and back.
    List,
    /// One network namespace alone: the next one, or the selected one where namespaces are listed; while
    /// there is a search, the next match.
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

/// What rows are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum List {
    #[default]
    Locations,
    Namespaces,
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
    tables: Tables,
    pub findings: Vec<Finding>,
    /// Drops since the view began.
    pub total: u64,
    pub lost: Lost,
    pub sort: Sort,
    pub list: List,
    pub screen: Screen,
    /// Show benign rows.
    pub benign: bool,
    /// Show what locations have in this network namespace alone.
    pub netns: Option<Whose>,
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
fn by_name(a: &TopRow, b: &TopRow) -> Ordering {
    let whose = |row: &TopRow| row.whose().map(ToString::to_string);
    place(a).cmp(&place(b)).then_with(|| whose(a).cmp(&whose(b)))
}

fn place(row: &TopRow) -> Option<impl Ord + '_> {
    let Place { symbol, offset, module: _, reason, subsystem: _ } = &row.location()?.place;
    Some((symbol, offset, reason))
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
        self.tables.report(&report);
        self.findings = report.findings;
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
        let shown = |row: &&TopRow| self.benign || !row.is_benign();
        let mut rows: Vec<&TopRow> = match (self.list, &self.netns) {
            (List::Namespaces, _) => self.tables.namespaces(self.benign).collect(),
            (List::Locations, None) => self.tables.places().filter(shown).collect(),
            (List::Locations, Some(whose)) => self.tables.parts(whose).filter(shown).collect(),
        };
        self.sort(&mut rows);
        rows
    }

    /// What the places of a namespace have in it, in the order of all rows.
    pub(super) fn places_of<'a>(&'a self, whose: &'a Whose) -> Vec<&'a TopRow> {
        let shown = |row: &&TopRow| self.benign || !row.is_benign();
        let mut rows: Vec<&TopRow> = self.tables.parts(whose).filter(shown).collect();
        self.sort(&mut rows);
        rows
    }

    fn sort(&self, rows: &mut [&TopRow]) {
        match self.sort {
            // Rows of equal rate, such as all that drop nothing now, are in the order of their
            // totals.
            Sort::Rate => rows.sort_by(|a, b| {
                b.rate
                    .total_cmp(&a.rate)
                    .then_with(|| b.total.cmp(&a.total))
                    .then_with(|| by_name(a, b))
            }),
            Sort::Total => {
                rows.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| by_name(a, b)));
            }
            Sort::Name => rows.sort_by(|a, b| by_name(a, b)),
        }
    }

    /// What a namespace drops: a second now, harmless ones among these, and since the view began.
    pub(super) fn sums_of(&self, whose: &Whose) -> (f64, f64, u64) {
        let whole = self.tables.namespace(whose, true);
        let harmful = self.tables.namespace(whose, false);
        let (rate, total) = whole.map_or((0.0, 0), |row| (row.rate, row.total));
        (rate, (rate - harmful.map_or(0.0, |row| row.rate)).max(0.0), total)
    }

    /// The selected one among `rows`, or the first.
    pub fn selected(&self, rows: &[&TopRow]) -> usize {
        let identity = self.selected.as_ref();
        rows.iter().position(|row| Some(&row.identity) == identity).unwrap_or(0)
    }

    /// How many benign drops are not shown.
    pub fn folded(&self) -> u64 {
        let sum = |rows: &mut dyn Iterator<Item = &TopRow>| {
            let benign = rows.filter(|row| row.is_benign());
            benign.fold(0, |sum: u64, row| sum.saturating_add(row.total))
        };
        match (self.benign, self.list, &self.netns) {
            (true, ..) => 0,
            (false, List::Namespaces, _) => self.tables.benign(),
            (false, List::Locations, None) => sum(&mut self.tables.places()),
            (false, List::Locations, Some(whose)) => sum(&mut self.tables.parts(whose)),
        }
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
            let Self { sort, list, screen, benign, netns, search, selected, .. } =
                (**frozen).clone();
            (self.sort, self.list, self.screen, self.benign) = (sort, list, screen, benign);
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
            (_, Key::List) => self.next_list(),
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

    /// From locations to namespaces and back. The namespace that was shown alone is the selected one.
    fn next_list(&mut self) {
        self.screen = Screen::Table;
        self.list = match self.list {
            List::Locations => List::Namespaces,
            List::Namespaces => List::Locations,
        };
        self.selected = self.netns.take().map(Identity::of_netns);
    }

    /// The selected namespace alone, where they are listed; else all, then each by its name, then all
    /// again.
    fn next_netns(&mut self) {
        let rows = self.rows();
        if self.list == List::Namespaces {
            let Some(row) = rows.get(self.selected(&rows)) else { return };
            self.netns = row.whose().cloned();
            (self.list, self.screen) = (List::Locations, Screen::Table);
            return;
        }
        let mut all: Vec<&TopRow> = self.tables.namespaces(self.benign).collect();
        all.sort_by(|a, b| by_name(a, b));
        let now = all.iter().position(|row| row.whose() == self.netns.as_ref());
        let next = all.get(now.map_or(0, |now| now + 1));
        self.netns = next.and_then(|row| row.whose().cloned());
    }
}
