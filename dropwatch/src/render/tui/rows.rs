//! The rows of the live view: places, network namespaces, and places of one namespace, each with its drops
//! now and since the view began.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    fmt,
};

use crate::{
    render::words,
    report::{
        facts::Netns,
        model::{Location, Report},
        namespaces::{MoreNamespaces, NamespaceDrops},
        number::per_second,
        place::Place,
    },
};

/// Intervals that a row's history holds: the most that a wide screen shows.
pub const HISTORY: usize = 60;
/// Places that are remembered; beyond them, those at rest the longest are forgotten.
const MOST_PLACES: usize = 1_000;
/// As many of what places have in one namespace.
const MOST_PARTS: usize = 4_000;
/// As many namespaces: more than a host has.
const MOST_NAMESPACES: usize = 10_000;

/// A network namespace, or those drops of which none could be proved.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whose(pub Option<Netns>);

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(netns) => netns.fmt(f),
            None => f.write_str("netns unknown"),
        }
    }
}

/// What identifies a row: two functions of one name lie at two addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    place: Option<(Place, Option<u64>)>,
    netns: Option<Whose>,
}

impl Identity {
    pub(super) fn of_netns(whose: Whose) -> Self {
        Self { place: None, netns: Some(whose) }
    }

    fn of_place(row: &Location) -> Self {
        Self { place: Some((row.place.clone(), row.address.known())), netns: None }
    }

    fn of_part(row: &Location, whose: Whose) -> Self {
        Self { netns: Some(whose), ..Self::of_place(row) }
    }
}

/// What a row is about.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A place: its row in the last report that has drops there, or what one namespace has of it.
    Location(Box<Location>),
    Netns(Whose),
}

/// One place or namespace, now and before.
#[derive(Clone, Debug)]
pub struct TopRow {
    pub(super) identity: Identity,
    pub subject: Subject,
    /// Drops in the last interval.
    now: u64,
    /// Drops a second now.
    pub rate: f64,
    /// Drops since the view began.
    pub total: u64,
    /// Drops a second in the last intervals, the newest at the end.
    pub history: VecDeque<f64>,
}

impl TopRow {
    /// What it is called, to be shown.
    pub(super) fn title(&self) -> String {
        match &self.subject {
            Subject::Location(row) => words::location(row),
            Subject::Netns(whose) => crate::render::clean(&whose.to_string()).into_owned(),
        }
    }

    /// Whether its drops are known to be harmless.
    pub(super) fn is_benign(&self) -> bool {
        self.location().is_some_and(|row| row.benign)
    }

    /// The place, where it is about one.
    pub fn location(&self) -> Option<&Location> {
        match &self.subject {
            Subject::Location(row) => Some(row),
            Subject::Netns(_) => None,
        }
    }

    /// The namespace that its drops are all of, where it is about one.
    pub fn whose(&self) -> Option<&Whose> {
        self.identity.netns.as_ref()
    }

    /// How many intervals it has been at rest for.
    fn quiet(&self) -> usize {
        self.history.iter().rev().take_while(|rate| **rate == 0.0).count()
    }
}

/// Rows of one kind, at most so many.
#[derive(Clone, Debug)]
struct Rows {
    rows: BTreeMap<Identity, TopRow>,
    most: usize,
}

impl Rows {
    fn new(most: usize) -> Self {
        Self { rows: BTreeMap::new(), most }
    }

    fn begin(&mut self) {
        self.rows.values_mut().for_each(|row| row.now = 0);
    }

    fn add(&mut self, identity: Identity, subject: Subject, drops: u64) {
        if drops == 0 {
            return;
        }
        let row = self.rows.entry(identity.clone()).or_insert_with(|| TopRow {
            identity,
            subject: subject.clone(),
            now: 0,
            rate: 0.0,
            total: 0,
            history: VecDeque::new(),
        });
        row.now = row.now.saturating_add(drops);
        row.total = row.total.saturating_add(drops);
        row.subject = match (subject, &mut row.subject) {
            // Keeps the details of earlier intervals where this one has no samples.
            (Subject::Location(mut new), Subject::Location(old)) => {
                new.details = new.details.take().or_else(|| old.details.take());
                Subject::Location(new)
            }
            (subject, _) => subject,
        };
    }

    fn end(&mut self, interval_s: f64) {
        for row in self.rows.values_mut() {
            row.rate = per_second(row.now, interval_s);
            row.history.push_back(row.rate);
            if row.history.len() > HISTORY {
                row.history.pop_front();
            }
        }
        if self.rows.len() > self.most {
            let mut rows: Vec<TopRow> = std::mem::take(&mut self.rows).into_values().collect();
            rows.sort_by_key(|row| (row.quiet(), Reverse(row.total)));
            rows.truncate(self.most);
            self.rows = rows.into_iter().map(|row| (row.identity.clone(), row)).collect();
        }
    }

    fn sum(&self) -> u64 {
        self.rows.values().fold(0, |sum, row| sum.saturating_add(row.total))
    }
}

/// The drops of the reports so far, as rows of each kind.
#[derive(Clone, Debug)]
pub(super) struct Tables {
    places: Rows,
    parts: Rows,
    /// Namespaces by what is not known to be harmless.
    harmful: Rows,
    /// Namespaces by all of their drops.
    whole: Rows,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            places: Rows::new(MOST_PLACES),
            parts: Rows::new(MOST_PARTS),
            harmful: Rows::new(MOST_NAMESPACES),
            whole: Rows::new(MOST_NAMESPACES),
        }
    }
}

impl Tables {
    pub(super) fn report(&mut self, report: &Report) {
        let mut tables = [&mut self.places, &mut self.parts, &mut self.harmful, &mut self.whole];
        tables.iter_mut().for_each(|rows| rows.begin());
        for row in &report.locations {
            let subject = Subject::Location(Box::new(row.clone()));
            self.places.add(Identity::of_place(row), subject, row.count);
            let mut left = row.count;
            for of in &row.namespaces {
                left = left.saturating_sub(of.count);
                self.part(row, within(row, of), Whose(of.netns()));
            }
            // All of them, where the kernel side does not tell namespaces apart.
            if left > 0 {
                let rest = Location { count: left, namespaces: Vec::new(), ..row.clone() };
                self.part(row, rest, Whose::default());
            }
        }
        // Drops of unknown location are nobody's.
        self.add_netns(Whose::default(), report.other.unknown_location, false);
        for rows in [&mut self.places, &mut self.parts, &mut self.harmful, &mut self.whole] {
            rows.end(report.interval_s);
        }
    }

    fn part(&mut self, row: &Location, part: Location, whose: Whose) {
        let drops = part.count;
        self.add_netns(whose.clone(), drops, row.benign);
        let identity = Identity::of_part(row, whose);
        self.parts.add(identity, Subject::Location(Box::new(part)), drops);
    }

    fn add_netns(&mut self, whose: Whose, drops: u64, benign: bool) {
        let identity = Identity::of_netns(whose.clone());
        if !benign {
            self.harmful.add(identity.clone(), Subject::Netns(whose.clone()), drops);
        }
        self.whole.add(identity, Subject::Netns(whose), drops);
    }

    pub(super) fn places(&self) -> impl Iterator<Item = &TopRow> {
        self.places.rows.values()
    }

    /// What places have in one namespace.
    pub(super) fn parts<'a>(&'a self, whose: &'a Whose) -> impl Iterator<Item = &'a TopRow> {
        self.parts.rows.values().filter(move |row| row.whose() == Some(whose))
    }

    /// Namespaces, with harmless drops or without.
    pub(super) fn namespaces(&self, benign: bool) -> impl Iterator<Item = &TopRow> {
        let rows = if benign { &self.whole } else { &self.harmful };
        rows.rows.values()
    }

    /// A namespace's row, with harmless drops or without; `None` where it has none.
    pub(super) fn namespace(&self, whose: &Whose, benign: bool) -> Option<&TopRow> {
        let rows = if benign { &self.whole } else { &self.harmful };
        rows.rows.get(&Identity::of_netns(whose.clone()))
    }

    /// Harmless drops in all namespaces.
    pub(super) fn benign(&self) -> u64 {
        self.whole.sum().saturating_sub(self.harmful.sum())
    }
}

/// What one namespace has of a row, as a row of its own. Its share is of the row.
fn within(row: &Location, of: &NamespaceDrops) -> Location {
    // What was sampled of several is of none of them.
    let (details, stacks) = match row.namespaces.as_slice() {
        [_] => (row.details.clone(), row.stacks.clone()),
        _ => (of.details.as_deref().cloned(), Vec::new()),
    };
    Location {
        place: row.place.clone(),
        count: of.count,
        rate: of.rate,
        share: of.share,
        total: of.total,
        new: of.total == of.count,
        details,
        stacks,
        namespaces: vec![of.clone()],
        more: MoreNamespaces::default(),
        ..*row
    }
}
