//! Lines of the outputs that name nothing: who and on which path, the command of a finding, a sentence
//! of an explanation. They are looked for last, where a line holds no name that says more.

use super::{
    BLANKS, DropEntry, Knob, KnowledgeTable, RuleEntry,
    answer::Explanation,
    pasted::{self, PastedRow},
    subject::{Subject, subjects},
};

/// Fewest words of a sentence that is recognised: shorter pieces stand in many.
const FEWEST: usize = 4;
/// What says that a command is one: how pages show it, and what runs it in a namespace.
const SHOWN: &str = "$ ";
const WITHIN: &str = "ip netns exec ";

impl KnowledgeTable {
    /// What a line is, where it has no name of anything.
    pub(super) fn find_line(&self, text: &str) -> Option<Explanation<'_>> {
        self.find_path(text)
            .or_else(|| self.find_command(text))
            .or_else(|| self.find_sentence(text))
            .or_else(|| self.words(|word| word.is_like(text)))
    }

    /// What a row is whose function nothing is known about.
    pub(super) fn find_row_itself(&self, row: PastedRow<'_>) -> Explanation<'_> {
        let name = row.function.text;
        let (word, not_known) = match name {
            "[unknown]" => ("[unknown]", Vec::new()),
            _ if name.starts_with("0x") => ("address in place of a name", Vec::new()),
            _ => ("row", vec![name.to_owned()]),
        };
        let answer = self.words(|entry| entry.names.iter().any(|it| it == word || it == "row"));
        Explanation { not_known, ..answer.unwrap_or_default() }
    }

    fn words(&self, is_it: impl Fn(&super::WordEntry) -> bool) -> Option<Explanation<'_>> {
        let words: Vec<_> = self.words.iter().filter(|word| is_it(word)).collect();
        (!words.is_empty()).then(|| Explanation { words, ..Explanation::default() })
    }

    /// A line of callers, or one of a tree of them; with what is known of the functions.
    fn find_path(&self, text: &str) -> Option<Explanation<'_>> {
        let functions = pasted::path(text)?;
        let known = functions.iter().filter_map(|function| self.find_name(function));
        let path = self.words(|word| word.names.iter().any(|name| name == "call path"))?;
        Some(known.fold(path, Explanation::and))
    }

    /// What names a command, with its blanks filled in or not.
    fn find_command(&self, text: &str) -> Option<Explanation<'_>> {
        let bare = text.strip_prefix(SHOWN).unwrap_or(text);
        let within = bare.strip_prefix(WITHIN).and_then(|rest| rest.split_once(' '));
        let is_said = text.starts_with(SHOWN) || within.is_some();
        let command = without_remark(within.map_or(bare, |(_, command)| command));
        let names = |subject: &Subject<'_>| subject.commands().any(|it| is_filled_in(it, command));
        let all: Vec<Subject<'_>> = Subject::all(self).filter(names).collect();
        if !all.is_empty() {
            return Some(Explanation::about(text, all));
        }
        is_said
            .then(|| self.words(|word| word.names.iter().any(|name| name == "command to run")))?
    }

    /// What says a sentence, or a part of one that a line had room for.
    fn find_sentence(&self, text: &str) -> Option<Explanation<'_>> {
        let text = pasted::uncut(text);
        if text.split(' ').count() < FEWEST {
            return None;
        }
        let all = Subject::all(self).filter(|subject| says(*subject, text)).collect();
        let (rules, entries) = subjects(all);
        Explanation::new(rules, entries, Vec::new(), Vec::new())
    }
}

fn without_remark(command: &str) -> &str {
    command.split(" # ").next().unwrap_or(command).trim()
}

/// Whether `command` is the table's `pattern`, in which words of [`BLANKS`] stand for anything.
fn is_filled_in(pattern: &str, command: &str) -> bool {
    let pattern = pattern.split("  # ").next().unwrap_or(pattern);
    let is_blank = |word: &str| BLANKS.iter().any(|(blank, _)| word.contains(blank));
    let mut words = command.split(' ');
    let fits = pattern
        .split_whitespace()
        .all(|expected| words.next().is_some_and(|word| word == expected || is_blank(expected)));
    fits && words.next().is_none()
}

/// Whether an entry or a rule has `text` in what it says, or `text` has what a setting or a command of it
/// does.
fn says(subject: Subject<'_>, text: &str) -> bool {
    let has = |whole: &str| whole.contains(text);
    let is_said = |part: &str| part.split(' ').count() >= FEWEST && text.contains(part);
    let of_knob = |knob: &Knob| {
        has(&knob.effect) || is_said(&knob.effect) || knob.cost.as_deref().is_some_and(has)
    };
    let (title, meaning, knobs) = match subject {
        Subject::Rule(RuleEntry { title, meaning, knobs, .. }) => (title, meaning, knobs),
        Subject::Entry(DropEntry { title, meaning, knobs, .. }) => (title, meaning, knobs),
    };
    let remarks = || subject.commands().filter_map(|command| Some(command.split_once("  # ")?.1));
    has(&format!("{title}: {meaning}"))
        || knobs.iter().any(of_knob)
        || remarks().any(|remark| has(remark) || is_said(remark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_stand_for_anything() {
        assert!(is_filled_in("ip route get ADDRESS  # where", "ip route get 10.0.0.1"));
        assert!(is_filled_in("tc -s qdisc show dev DEV", "tc -s qdisc show dev eth0"));
        assert!(!is_filled_in("ip route get ADDRESS", "ip route get"));
        assert!(!is_filled_in("ip route get ADDRESS", "ip route get 10.0.0.1 mark 7"));
        assert_eq!(without_remark("nft list ruleset # rules"), "nft list ruleset");
    }
}
