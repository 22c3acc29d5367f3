//! Search over the rows of the live view: as it is typed, and from match to match.

use super::state::{Identity, TopRow, namespaces_of};
use crate::{render::words::location, report::shell::is_hidden};

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

    /// Whether the text is in the row's location and reason as they are shown, or in the names of its
    /// network namespace or interface; capitals or not. An empty text is in none.
    pub fn matches(&self, row: &TopRow) -> bool {
        let selected = self.text.to_lowercase();
        let has = |name: &str| name.to_lowercase().contains(&selected);
        let details = row.last.details.as_ref();
        let interface = details.and_then(|it| it.interface.as_ref()?.is.name.as_deref());
        !selected.is_empty()
            && (has(&location(&row.last)) || namespaces_of(row).chain(interface).any(has))
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
