//! What of a text has no part in the answer to it: it is explained, too, or said to be unknown. Words of
//! a sentence around names are all that is passed over.

use super::{
    KnowledgeTable,
    answer::Explanation,
    pasted::{self, Labelled, PastedRow},
    subject,
};
use crate::report::totals::{OTHER, UNKNOWN};

/// Values of `type` in dropwatch's own lines of JSON.
const TYPES: [&str; 6] = ["start", "report", "sample", "end", "conntrack", "comparison"];

impl KnowledgeTable {
    /// What `typed` says beside what is found of it as a whole. `counters` are those of the host.
    pub(super) fn left_out(&self, typed: &str, counters: &[String]) -> Explanation<'_> {
        let text = pasted::plain(typed);
        let lines = || typed.lines().map(pasted::plain).filter(|line| !line.is_empty());
        let mut all = Explanation::default();
        if text.contains('{') {
            self.unknown_labels(&text, &mut all);
            // A piece of JSON may have any number of lines.
            if pasted::keys(&text).next().is_none() && lines().count() > 1 {
                for line in lines().filter(|line| !line.contains('{')) {
                    self.whole_line(&line, counters, &mut all);
                }
            }
            return all;
        }
        let has_row = |line: &str| has_row(line) && !self.is_headline(line);
        let rows = || lines().filter(|line| has_row(line));
        if rows().next().is_none() {
            return all;
        }
        for line in lines() {
            match has_row(&line) {
                true => self.beside_rows(&line, counters, &mut all),
                false => self.whole_line(&line, counters, &mut all),
            }
        }
        all
    }

    /// Adds a word of its own.
    fn one<'a>(&'a self, word: &str, counters: &[String], all: &mut Explanation<'a>) {
        let found = self.find_name(word).or_else(|| self.only_counted(word, counters));
        let found = found.unwrap_or_else(|| unknown(word));
        *all = std::mem::take(all).and(found);
    }

    /// A line among others: what is printed beside rows is about them, all else is asked for by itself.
    fn whole_line<'a>(&'a self, line: &str, counters: &[String], all: &mut Explanation<'a>) {
        // Lines that the outputs have below a row, who and on which path among them.
        let is_of_row = line.contains(" · ") || self.find_line(line).is_some();
        if !is_of_row && !self.find_whole(line).is_ok_and(|found| found.is_some()) {
            for word in foreign(line) {
                self.one(word, counters, all);
            }
        }
    }

    /// Words of a line that are no part of the rows in it.
    fn beside_rows<'a>(&'a self, line: &str, counters: &[String], all: &mut Explanation<'a>) {
        // Behind a row of one drop, and before the row of a captured packet, stands all about the packet.
        if line.contains(" · ") || line.contains(" → ") || line.contains("), netns") {
            return;
        }
        let rows: Vec<_> = pasted::rows(line).collect();
        let is_of_row = |word: &str| {
            rows.iter().any(|row| {
                let parts = [Some(row.function), row.reason];
                parts.into_iter().flatten().any(|part| word == part.text)
            })
        };
        for word in foreign(line) {
            if !is_of_row(word) && !is_of_row(pasted::uncut(word)) {
                self.one(word, counters, all);
            }
        }
    }

    /// What lines of JSON and series of metrics call by names that are not known.
    fn unknown_labels(&self, text: &str, all: &mut Explanation<'_>) {
        for labelled in pasted::labelled(text) {
            let name = match labelled {
                Labelled::Rule(rule) => {
                    self.find_rule(rule).is_none().then(|| rule.to_owned()).filter(|it| it != OTHER)
                }
                Labelled::Drops { function: Some(OTHER | UNKNOWN), .. } => None,
                Labelled::Drops { function: Some(function), reason: Some(reason) }
                    if self.find_row(PastedRow::new(function, reason)).is_none() =>
                {
                    Some(format!("{function} ({reason})"))
                }
                // Said to be a function of which nothing more is known than the row's reason.
                Labelled::Drops { function: Some(_), reason: Some(_) } => None,
                Labelled::Drops { function, .. } => {
                    function.filter(|name| self.find_name(name).is_none()).map(str::to_owned)
                }
            };
            all.not_known.extend(name);
        }
        let keys = pasted::keys(text).filter(|key| self.find_name(key).is_none());
        all.not_known.extend(keys.map(str::to_owned));
        if let Some(kind) = pasted::label(text, "type").filter(|kind| !TYPES.contains(kind))
            && pasted::keys(text).any(|key| key == "v")
        {
            all.not_known.push(kind.to_owned());
        }
        let series = text.match_indices('{').filter_map(|(at, _)| {
            let name = text[..at].rsplit(|c: char| !is_of_series(c)).next()?;
            let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic());
            (is_name && self.find_name(name).is_none()).then(|| name.to_owned())
        });
        all.not_known.extend(series);
        let mut seen = std::collections::BTreeSet::new();
        all.not_known.retain(|name| seen.insert(name.clone()));
    }
}

fn unknown(name: &str) -> Explanation<'static> {
    Explanation { not_known: vec![name.to_owned()], ..Explanation::default() }
}

/// Whether a line has a row that is sure to be one.
fn has_row(line: &str) -> bool {
    let is_sure = |row: PastedRow<'_>| {
        row.is_said || row.reason.is_some() || row.function.text.contains("+0x")
    };
    pasted::row(line).is_some_and(is_sure)
}

fn is_of_series(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | ':')
}

/// Words that no row has beside its place and its reason.
fn foreign(line: &str) -> impl Iterator<Item = &str> {
    /// Words around counts, and what has become of a row.
    const OWN: [&str; 14] = [
        "packets", "packet", "dropped", "drops", "drop", "at", "new", "still", "gone", "before",
        "about", "critical", "warning", "notice",
    ];
    line.split(' ').filter_map(|word| {
        let is_module = word.starts_with('[');
        let word = word.trim_matches(['(', ')', ',', ';', ':', '"', '\'', '`']);
        let figures = word.trim_start_matches(['<', '>', '+', '-', '~', '#']);
        let is_figure = figures.starts_with(|c: char| c.is_ascii_digit());
        let has_letters = word.contains(|c: char| c.is_alphabetic());
        let is_own =
            OWN.iter().any(|own| own.eq_ignore_ascii_case(word)) || subject::is_small(word);
        (has_letters && !is_module && !is_figure && !is_own).then_some(word)
    })
}
