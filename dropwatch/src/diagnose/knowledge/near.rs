//! What to say of a name that nobody knows: which known ones look like it.

use super::{KnowledgeTable, search::bare_reason, subject};
use crate::report::near::{MOST, did_you_mean, distance};

/// Unknown names that are repeated.
const MOST_NAMES: usize = 5;
/// Letters of an unknown name that are repeated.
const MOST_LETTERS: usize = 100;
/// Shortest name that others are compared with, letters; shorter ones look like anything.
const SHORTEST: usize = 3;

/// Whether a name is written as drivers write those of their counters.
fn is_of_driver(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name = name.trim_end_matches(|c: char| !is_word(c));
    ["rx_", "tx_", "rx-", "tx-"].iter().any(|begin| name.starts_with(begin))
        && name.chars().all(|c| is_word(c) || c == '-')
}

/// Whether a text is an option of a command line: `-v`, `--fail-over 0`.
fn is_option(text: &str) -> bool {
    let name = text.trim_start_matches('-');
    name.len() < text.len() && name.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    #[error("`{0}` is a drop reason of the kernel that dropwatch does not explain yet")]
    NotYet(String),
    #[error(
        "nothing is known about `{0}`: it may be a counter of a driver (`ethtool -S`), and most of \
         those are its own (`dropwatch explain` lists all names)"
    )]
    OfDriver(String),
    #[error("`{0}` is not known as a name; `dropwatch --help` explains options")]
    Option(String),
    /// The rest of what was asked for is known.
    #[error("of what was asked for, nothing is known about {} (`dropwatch explain` lists all names)",
        listed(.0))]
    Some(Vec<(String, Vec<String>)>),
    #[error("{bytes} bytes are too much to explain at once: at most {most}")]
    TooLong { bytes: usize, most: usize },
    #[error(
        "nothing is known about `{name}`{}{} (`dropwatch explain` lists all names)",
        did_you_mean(.near), spoken(.hints)
    )]
    Name {
        name: String,
        /// Names that look like it.
        near: Vec<String>,
        /// Names of what has its words somewhere.
        hints: Vec<String>,
    },
}

impl KnowledgeTable {
    /// The error about `names` beside others that are known; `None` where there are none.
    pub fn not_known(&self, names: &[String]) -> Option<Unknown> {
        let near = |name: &String| {
            let cut: String = name.chars().take(MOST_LETTERS).collect();
            let bare = name.split(['+', ' ']).next().unwrap_or(name);
            (cut, self.near(name, [bare, name]))
        };
        let all: Vec<_> = names.iter().take(MOST_NAMES).map(near).collect();
        (!all.is_empty()).then_some(Unknown::Some(all))
    }

    /// The error about a text, read as a reason and as any other name.
    pub(super) fn unknown(&self, text: &str, reason: &str, other: &str) -> Unknown {
        let mut letters = text.chars();
        let mut name: String = letters.by_ref().take(MOST_LETTERS).collect();
        if letters.next().is_some() {
            name.push('…');
        }
        if is_option(text) {
            return Unknown::Option(name);
        }
        let near = self.near(reason, [other, text]);
        let mut hints = subject::hints(self, text);
        hints.retain(|hint| !near.contains(hint));
        hints.truncate(MOST);
        if near.is_empty() && is_of_driver(text) {
            return Unknown::OfDriver(name);
        }
        Unknown::Name { name, near, hints }
    }

    /// Known names that look like one of the readings of an unknown one, the most alike first.
    fn near(&self, reason: &str, others: [&str; 2]) -> Vec<String> {
        let reason = bare_reason(reason).unwrap_or_default();
        let others = others.map(str::to_ascii_lowercase);
        let names = self.names();
        let mut near: Vec<(usize, &str)> = names
            .iter()
            .filter_map(|name| {
                // Of a setting or a counter, its own name is what people type.
                let last = name.rsplit('.').next().unwrap_or(name);
                let known = [name.to_ascii_lowercase(), last.to_ascii_lowercase()];
                let typed = others.iter().filter(|typed| typed.len() >= SHORTEST);
                let pairs = typed.flat_map(|typed| known.iter().map(move |known| (typed, known)));
                let alike = pairs.filter_map(|(typed, known)| distance(typed, known));
                let as_reason =
                    (reason.len() >= SHORTEST).then(|| distance(&reason, name)).flatten();
                let least = alike.chain(as_reason).min()?;
                Some((least, name.as_str()))
            })
            .collect();
        near.sort_unstable();
        near.into_iter().take(MOST).map(|(_, name)| name.to_owned()).collect()
    }
}

/// `` `NO_SOKET` (did you mean NO_SOCKET?), `foo` ``
fn listed(names: &[(String, Vec<String>)]) -> String {
    let one = |(name, near): &(String, Vec<String>)| match did_you_mean(near).as_str() {
        "" => format!("`{name}`"),
        question => format!("`{name}` ({})", question.trim_start_matches([':', ' '])),
    };
    names.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// `; it is spoken of under a and b`, which can be asked for; nothing where there is nothing to say.
fn spoken(hints: &[String]) -> String {
    match hints {
        [] => String::new(),
        [one] => format!("; it is spoken of under {one}: ask for that"),
        [most @ .., last] => {
            format!("; it is spoken of under {} and {last}: ask for one of these", most.join(", "))
        }
    }
}
