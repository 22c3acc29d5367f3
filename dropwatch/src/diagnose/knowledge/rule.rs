//! What is known about one of the rules that make findings.

use serde::{Deserialize, Serialize};

use super::{
    Knob, KnowledgeTable,
    entry::{Check, Quantity, commands, one_line},
    pasted,
};

/// What a finding of one rule means, what proves it, and what to do about it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RuleEntry {
    /// The name of the rule in findings and metrics: `conntrack_table_full`.
    pub rule: String,
    /// The cause in a few words.
    pub title: String,
    /// What its headlines look like; `*` stands for anything, `#` for a number.
    #[serde(skip_serializing)]
    pub(super) headlines: Vec<String>,
    /// More words that people look for it by.
    #[serde(default, skip_serializing)]
    pub(super) words: Vec<String>,
    #[serde(deserialize_with = "one_line")]
    pub meaning: String,
    /// What it rests on, and where to look next: the first is what proves it.
    pub check: Vec<Check>,
    /// Settings that change it. What they do and cost stands in an entry.
    #[serde(default)]
    pub settings: Vec<String>,
    /// What else can be changed.
    #[serde(default)]
    pub knobs: Vec<Knob>,
    /// Drops that it speaks of, as a report names them; none for losses without an event.
    #[serde(default)]
    pub drops: Vec<String>,
    /// Files of the kernel's sources and documents that it rests on.
    pub source: Vec<String>,
}

impl RuleEntry {
    /// Everything with a value on a host that it names.
    pub fn quantities(&self) -> impl Iterator<Item = Quantity> {
        let checks = self.check.iter().filter_map(|check| match check {
            Check::Number(quantity) => Some(quantity.clone()),
            Check::Command(_) => None,
        });
        checks.chain(self.settings.iter().cloned().map(Quantity::Sysctl))
    }

    /// What can be changed: the settings as `table` knows them, then the rest.
    pub fn knobs<'a>(&'a self, table: &'a KnowledgeTable) -> impl Iterator<Item = &'a Knob> {
        self.settings.iter().filter_map(|name| table.knob(name)).chain(&self.knobs)
    }

    /// Further words that lead to the rule and are no names.
    pub(super) fn topics(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(String::as_str).filter(|word| !word.contains('_'))
    }

    /// How much of a headline says that it is one of this rule's: letters of the pattern.
    pub(super) fn headline(&self, text: &str) -> Option<usize> {
        let fits = self.headlines.iter().filter(|pattern| pasted::matches(pattern, text));
        fits.map(|pattern| pattern.len()).max()
    }

    /// What its headlines look like; `*` stands for anything, `#` for a number.
    pub fn headlines(&self) -> impl Iterator<Item = &str> {
        self.headlines.iter().map(String::as_str)
    }

    /// How much says that a headline of this rule's begins so: letters.
    pub(super) fn begins(&self, text: &str) -> Option<usize> {
        self.headlines.iter().filter_map(|pattern| pasted::begins(pattern, text)).max()
    }

    /// The commands that it names, which may have [`BLANKS`](super::BLANKS).
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        commands(&self.check, &self.knobs)
    }
}
