//! Search over the rows of the live view: as it is typed, and from match to match.

use super::rows::{Identity, TopRow};
use crate::report::{model::Location, shell::is_hidden};

/// Longest text that is searched for, characters.
const LONGEST: usize = 64;

/// What is searched for.
#[derive(Clone, Debug, Default)]
pub struct Search {
    text: String,
    /// Keys still add to the text.
    pub typing: bool,
    /// The row that was selected when the search began: each letter looks from there on.
    pub(super) from: Option<Identity>,
}

impl Search {
    pub(super) fn new(from: Option<Identity>) -> Self {
        Self { text: String::new(), typing: true, from }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn push(&mut self, letter: char) {
        if !is_hidden(letter) && self.text.chars().count() < LONGEST {
            self.text.push(letter);
        }
    }

    /// Takes the last letter away; `false` where there is none.
    pub(super) fn pop(&mut self) -> bool {
        self.text.pop().is_some()
    }

    /// Whether the text is in what the row is called as it is shown, or in the names of its network
    /// namespaces or interface; capitals or not. An empty text is in none.
    pub fn matches(&self, row: &TopRow) -> bool {
        let selected = self.text.to_lowercase();
        let has = |name: &str| name.to_lowercase().contains(&selected);
        let named = |row: &Location| names(row).any(has);
        !selected.is_empty() && (has(&row.title()) || row.location().is_some_and(named))
    }

    /// Index of the match nearest to `now` among `rows`, which begin anew at their end: at `now` or
    /// after it, or strictly after or before it for a `step` of 1 or -1.
    pub(super) fn find(&self, rows: &[&TopRow], now: usize, step: isize) -> Option<usize> {
        let count = rows.len();
        (0..count)
            .map(|distance| match step {
                0 => (now + distance) % count,
                1.. => (now + 1 + distance) % count,
                _ => (now + count - 1 - distance) % count,
            })
            .find(|index| self.matches(rows[*index]))
    }
}

/// The names of a row's network namespaces, and of its interface: each namespace, where they are counted,
/// else that of most of the sampled packets.
fn names(row: &Location) -> impl Iterator<Item = &str> {
    let details = row.details.as_ref();
    let counted = row.namespaces.iter().filter_map(|netns| netns.name.as_deref());
    let sampled = details.filter(|_| row.namespaces.is_empty());
    let sampled = sampled.and_then(|details| details.netns.as_ref()?.is.name.as_deref());
    let interface = details.and_then(|it| it.interface.as_ref()?.is.name.as_deref());
    counted.chain(sampled).chain(interface)
}
