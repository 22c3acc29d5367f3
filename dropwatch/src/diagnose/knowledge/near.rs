//! What to say of a name that nobody knows: which known ones look like it.

use super::{
    Table,
    search::{Unknown, bare_reason},
};
use crate::report::near::{MOST, distance};

/// Letters of an unknown name that are repeated.
const MOST_LETTERS: usize = 100;

impl Table {
    /// The error about a text, read as a reason and as any other name.
    pub(super) fn unknown(&self, text: &str, reason: &str, other: &str) -> Unknown {
        let mut letters = text.chars();
        let mut name: String = letters.by_ref().take(MOST_LETTERS).collect();
        if letters.next().is_some() {
            name.push('…');
        }
        Unknown::Name { name, near: self.near(reason, [other, text]) }
    }

    /// Known names that look like one of the readings of an unknown one, the most alike first.
    fn near(&self, reason: &str, others: [&str; 2]) -> Vec<String> {
        let reason = bare_reason(reason);
        let others = others.map(str::to_ascii_lowercase);
        let names = self.names();
        let mut near: Vec<(usize, &str)> = names
            .iter()
            .filter_map(|name| {
                // Of a setting or a counter, its own name is what people type.
                let last = name.rsplit('.').next().unwrap_or(name);
                let known = [name.to_ascii_lowercase(), last.to_ascii_lowercase()];
                let pairs =
                    known.iter().flat_map(|known| others.each_ref().map(|typed| (typed, known)));
                let alike = pairs.filter_map(|(typed, known)| distance(typed, known));
                let least = alike.chain(distance(&reason, name)).min()?;
                Some((least, name.as_str()))
            })
            .collect();
        near.sort_unstable();
        near.into_iter().take(MOST).map(|(_, name)| name.to_owned()).collect()
    }
}
