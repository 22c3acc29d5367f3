//! Takes apart what a person types or pastes: a row of any output, a finding's headline, a label of
//! a metric.
//!
//! It is untrusted text: escape sequences and what else a terminal obeys is taken out first, and
//! nothing here can fail.

use std::iter;

use anstream::adapter::strip_str;

use crate::report::totals::{OTHER, UNKNOWN};

/// How pagers and editors show the character that begins an escape sequence.
const SHOWN_ESCAPES: [&str; 7] = ["ESC[", "^[[", "\\x1b[", "\\x1B[", "\\u001b[", "\\033[", "\\e["];
/// What a text that was cut ends with.
const CUTS: [&str; 2] = ["…", "..."];
/// Words before a finding's cause: what has become of it, and its severity.
const HEADS: [&str; 6] = ["new", "still", "gone", "critical", "warning", "notice"];
/// Marks around what is quoted.
const QUOTES: [char; 9] =
    ['\'', '"', '`', '\u{2018}', '\u{2019}', '\u{201c}', '\u{201d}', '«', '»'];

/// A name that may have been cut to fit a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PastedName<'a> {
    pub(super) text: &'a str,
    pub(super) is_cut: bool,
}

/// A place and a reason, as one row of an output has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PastedRow<'a> {
    /// The function, with its offset if it has one.
    pub(super) function: PastedName<'a>,
    /// The module that it is in, with its brackets.
    pub(super) module: Option<&'a str>,
    pub(super) reason: Option<PastedName<'a>>,
    /// Whether its text can be nothing else, whatever the function.
    pub(super) is_said: bool,
}

impl<'a> PastedRow<'a> {
    pub(super) fn new(function: &'a str, reason: &'a str) -> Self {
        Self { function: name(function), module: None, reason: Some(name(reason)), is_said: true }
    }

    /// Whether the row is of a place that nothing gives a name, or of several.
    pub(super) fn has_no_name(&self) -> bool {
        let text = self.function.text;
        text.starts_with('[') || text.starts_with("0x") || [OTHER, UNKNOWN].contains(&text)
    }

    /// The function with its module, as the row has them.
    pub(super) fn place(&self) -> String {
        let module = self.module.map_or(String::new(), |module| format!(" {module}"));
        format!("{}{module}", self.function.text)
    }
}

/// `text` as one line of plain words with single spaces, without quotes around it.
pub(super) fn plain(text: &str) -> String {
    let mut text = text.to_owned();
    for shown in SHOWN_ESCAPES {
        text = text.replace(shown, "\x1b[");
    }
    let text = strip_str(&text).to_string();
    let breaks = |c: char| c.is_whitespace() || c.is_control() || c == '\u{fffd}';
    let words: Vec<&str> = text.split(breaks).filter(|word| !word.is_empty()).collect();
    words.join(" ").trim_matches(QUOTES).trim().to_owned()
}

/// The row in a line of plain words, whatever stands before and after it: counts, rates, trends,
/// shares, a namespace.
pub(super) fn row(text: &str) -> Option<PastedRow<'_>> {
    let (rest, is_said) = match text.split_once("dropped at ") {
        Some((_, rest)) => (rest, true),
        None => after_figures(text),
    };
    let mut words = rest.split(' ').filter(|word| !word.is_empty()).peekable();
    let function = words.next()?;
    let module = words.next_if(|word| word.starts_with('['));
    let has_module = module.is_some();
    // Behind the name of a namespace without one stands a process: `web (pid 812)`.
    let is_reason = |word: &&str| word.starts_with('(') && *word != "(pid";
    let reason = words.next().filter(is_reason).map(reason);
    let has_offset = function.contains("+0x");
    let is_alone = words.peek().is_none() && reason.is_none();
    let looks_like_one = is_said || has_module || has_offset || reason.is_some();
    let has_figures = text.contains("packets dropped at ")
        || ((is_said || has_module || has_offset || is_alone) && has_rates(text));
    (looks_like_one || (is_alone && rest.len() < text.len())).then(|| PastedRow {
        function: name(function.trim_end_matches([',', ':', ';'])),
        module: module.map(|module| module.trim_end_matches([',', ':', ';'])),
        reason,
        is_said: has_figures,
    })
}

/// Whether a share or a rate stands in a text.
fn has_rates(text: &str) -> bool {
    let is_figure = |word: &str| {
        let word = word.trim_start_matches('<');
        let is_rate = word.ends_with('%') || word.ends_with("/s");
        is_rate && word.starts_with(|c: char| c.is_ascii_digit())
    };
    text.split(' ').any(|word| is_figure(word.trim_end_matches([',', ';', ':'])))
}

/// The functions of a line of callers (`a ← b`, `a < b`), or of one of a drawn tree of them.
pub(super) fn path(text: &str) -> Option<Vec<&str>> {
    let is_mark = |c: char| matches!(c, '|' | ' ' | '-');
    let drawn = text.trim_start_matches(is_mark);
    let drawn = match drawn.split_once("--") {
        Some((share, rest)) if share.ends_with('%') => rest,
        _ => drawn,
    };
    let has_share = drawn.len() < text.len() && text.contains("%--");
    if text.starts_with('|') || text.starts_with("---") || has_share {
        let is_tree = drawn.split(' ').all(|word| is_function(word) || word.starts_with('['));
        return (drawn.is_empty() || is_tree)
            .then(|| drawn.split(' ').filter(|word| is_function(word)).collect());
    }
    // Behind the last one may stand its share, in parentheses.
    let (line, _share) = text.split_once(" (").unwrap_or((text, ""));
    let functions: Vec<&str> = line.split([' ', '←', '<']).filter(|it| !it.is_empty()).collect();
    let arrows = line.split(' ').filter(|word| matches!(*word, "←" | "<")).count();
    let is_path = arrows > 0 && arrows + 1 == functions.len();
    (is_path && functions.iter().all(|name| is_function(name))).then_some(functions)
}

fn is_function(word: &str) -> bool {
    let within = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    word == "[unknown]"
        || (word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && word.chars().all(within))
}

/// A text without the sign that it was cut.
pub(super) fn uncut(text: &str) -> &str {
    CUTS.iter().find_map(|cut| text.strip_suffix(cut)).unwrap_or(text).trim()
}

/// All rows in a line of plain words: the first one, and those that follow it with an offset.
pub(super) fn rows(text: &str) -> impl Iterator<Item = PastedRow<'_>> {
    let mut rest = Some(text);
    let mut is_first = true;
    iter::from_fn(move || {
        let text = rest.take()?;
        let begin = if is_first { text } else { next_row(text)? };
        is_first = false;
        let found = row(begin)?;
        let end = found.reason.unwrap_or(found.function).text;
        // Both are parts of the text.
        let at = end.as_ptr() as usize - text.as_ptr() as usize + end.len();
        rest = Some(&text[at..]);
        Some(found)
    })
}

/// From the next word on that is a place.
fn next_row(text: &str) -> Option<&str> {
    let mut at = 0;
    for word in text.split(' ') {
        let rest = &text[at..];
        let begins = word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if begins && word.contains("+0x") {
            return Some(rest);
        }
        at += word.len() + 1;
    }
    None
}

/// Words that are written as drop reasons are.
pub(super) fn reasons(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.contains('_') && word.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// What follows the numbers, rates and bars of a row, and whether that was said to be a place.
fn after_figures(text: &str) -> (&str, bool) {
    let mut rest = text;
    loop {
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        let begins_name = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '[' | '(');
        match word {
            "at" => return (after, true),
            // An address in place of a name.
            _ if word.starts_with("0x") || word.starts_with(begins_name) => return (rest, false),
            _ if after.is_empty() => return (rest, false),
            _ => rest = after,
        }
    }
}

/// `(NO_SOCKET),` → `NO_SOCKET`; without its end it was cut.
fn reason(word: &str) -> PastedName<'_> {
    let word = word.trim_start_matches('(');
    match word.split_once(')') {
        Some((whole, _)) => name(whole),
        None => PastedName { is_cut: true, ..name(word) },
    }
}

fn name(text: &str) -> PastedName<'_> {
    let cut = CUTS.iter().find_map(|cut| text.strip_suffix(cut));
    PastedName { text: cut.unwrap_or(text), is_cut: cut.is_some() }
}

/// A finding's cause, without its severity and what else stands before it.
pub(super) fn headline(text: &str) -> &str {
    let mut rest = text;
    while let Some((word, after)) = rest.split_once(' ') {
        if !HEADS.contains(&word.to_ascii_lowercase().as_str()) {
            break;
        }
        rest = after;
    }
    uncut(rest)
}

/// Value of a label: `rule="mtu"` in a series, `"rule":"mtu"` in JSON.
pub(super) fn label<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut rest = text;
    loop {
        let at = rest.find(key)?;
        let begins = !rest[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        rest = &rest[at + key.len()..];
        let after = rest.trim_start_matches(['"', ' ']);
        if let (true, Some(value)) = (begins, after.strip_prefix(['=', ':'])) {
            let value = value.trim_start_matches(['"', ' ', '~']);
            let end = value.find(['"', ',', '}', ' ']).unwrap_or(value.len());
            return Some(&value[..end]).filter(|value| !value.is_empty() && *value != "null");
        }
    }
}

/// Every drop and finding that a piece of JSON or some series of metrics speak of, in their order: what
/// stands before each closing brace is one of them, so a line that was cut has those that are whole.
pub(super) fn labelled(text: &str) -> impl Iterator<Item = Labelled<'_>> {
    let pieces = text.split_inclusive('}').filter(|piece| piece.contains('{'));
    pieces.filter_map(|piece| {
        if let Some(rule) = label(piece, "rule") {
            return Some(Labelled::Rule(rule));
        }
        let function = label(piece, "symbol");
        let reason = label(piece, "reason");
        // A function of a call path has neither a reason nor a count.
        (reason.is_some() || (function.is_some() && label(piece, "count").is_some()))
            .then_some(Labelled::Drops { function, reason })
    })
}

/// What labels name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Labelled<'a> {
    Rule(&'a str),
    Drops { function: Option<&'a str>, reason: Option<&'a str> },
}

/// Words of a text, without the marks around them and without numbers; of `name=value` and of
/// `name: value` the name.
pub(super) fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let within = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-' | '+');
    text.split(move |c: char| !within(c))
        .map(|word| word.trim_matches(['.', '-', '/', '+']))
        .filter(|word| {
            word.contains(|c: char| c.is_ascii_alphabetic())
                && !word.starts_with(|c: char| c.is_ascii_digit())
        })
}

/// Whether a word is written as names are: not one of a sentence.
pub(super) fn is_name(word: &str) -> bool {
    let inner = word.contains(['_', '.', '/']);
    let humps = word.chars().skip(1).any(|c| c.is_ascii_uppercase());
    word.len() > 2 && (inner || humps)
}

/// Whether a text says how much something rose: `drop +4501`.
pub(super) fn is_counted(text: &str, name: &str) -> bool {
    text.split(' ').zip(text.split(' ').skip(1)).any(|(before, after)| {
        before == name
            && after.strip_prefix('+').is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()))
    })
}

/// Keys of a piece of JSON.
pub(super) fn keys(text: &str) -> impl Iterator<Item = &str> {
    let mut parts = text.split('"').peekable();
    iter::from_fn(move || {
        loop {
            let part = parts.next()?;
            let is_key = parts.peek().is_some_and(|after| after.trim_start().starts_with(':'));
            if is_key && !part.is_empty() {
                return Some(part);
            }
        }
    })
}

/// The group of a line of counters: `Udp: InDatagrams NoPorts InErrors`, and `RX` of
/// `RX errors 0  dropped 5`, as `ip` and `ifconfig` have it.
pub(super) fn group(text: &str) -> Option<&str> {
    if let Some((way, _)) = text.split_once([':', ' '])
        && ["RX", "TX"].contains(&way)
    {
        return Some(way);
    }
    let (group, rest) = text.split_once(": ")?;
    let is_group = !group.is_empty() && group.chars().all(|c| c.is_ascii_alphanumeric());
    (is_group && !rest.is_empty()).then_some(group)
}

/// A counter without the values around it: `TcpExtListenOverflows 10 0.0`, `rx_dropped: 12`,
/// `91 receive buffer errors`.
pub(super) fn without_values(text: &str) -> &str {
    let marks = |c: char| c == ' ' || c == ':' || c == '=';
    let is_value = |word: &str| {
        word.trim_start_matches(['+', '#']).chars().all(|c| c.is_ascii_digit() || c == '.')
    };
    let mut rest = text.trim();
    while let Some((before, _)) = rest.rsplit_once(marks).filter(|(_, last)| is_value(last)) {
        rest = before.trim_end_matches(marks);
    }
    while let Some((_, after)) = rest.split_once(' ').filter(|(first, _)| is_value(first)) {
        rest = after;
    }
    rest
}

/// Whether `text` begins as `pattern` says, whatever the case: `*` stands for anything, `#` for a
/// number.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_lowercase(), text.to_lowercase());
    let mut parts = pattern.split('*');
    let Some(mut rest) = after(&text, parts.next().unwrap_or_default()) else { return false };
    for part in parts {
        let found = rest.char_indices().map(|(at, _)| &rest[at..]).chain([""]);
        match found.into_iter().find_map(|from| after(from, part)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    true
}

/// Letters of a pattern in a row that say that a text is the begin of such a headline.
const FEWEST: usize = 6;

/// How many letters in a row say that `text` is where one that `pattern` says begins (see [`matches`]): it
/// ends before the pattern does. `None` where it does not, or too few of them are the pattern's own.
pub(super) fn begins(pattern: &str, text: &str) -> Option<usize> {
    let (pattern, text) = (pattern.to_lowercase(), text.to_lowercase());
    if !text.contains(' ') {
        return None;
    }
    let (mut rest, mut said) = (text.as_str(), 0);
    for (index, part) in pattern.split('*').enumerate() {
        let mut places = rest.char_indices().map(|(at, _)| &rest[at..]);
        let found = match index {
            0 => after(rest, part),
            _ => places.clone().find_map(|from| after(from, part)),
        };
        if let Some(after) = found {
            said = said.max(part.trim().len());
            rest = after;
            continue;
        }
        let ends = |from: &str| ends_within(part, from).then_some(from.trim().len());
        let cut = if index == 0 { ends(rest) } else { places.find_map(ends) };
        // Else it ends in what the star before this part stands for.
        let said = match cut {
            Some(cut) => said.max(cut),
            None if index == 0 => 0,
            None => said,
        };
        return (said >= FEWEST).then_some(said);
    }
    None
}

/// Whether `text` ends within `part`, the pieces of which are parted by numbers.
fn ends_within(part: &str, text: &str) -> bool {
    let mut rest = text;
    for (index, piece) in part.split('#').enumerate() {
        if index > 0 {
            let number = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            if number.is_empty() || number.len() == rest.len() {
                return number.is_empty() && !rest.is_empty();
            }
            rest = number;
        }
        match rest.strip_prefix(piece) {
            Some(after) => rest = after,
            None => return !rest.is_empty() && piece.starts_with(rest),
        }
    }
    false
}

/// What follows `part`, with its numbers, at the beginning of `text`.
fn after<'a>(text: &'a str, part: &str) -> Option<&'a str> {
    let mut pieces = part.split('#');
    let mut rest = text.strip_prefix(pieces.next().unwrap_or_default())?;
    for piece in pieces {
        let number = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        rest = (number.len() < rest.len()).then(|| number.strip_prefix(piece))??;
    }
    Some(rest)
}

#[cfg(test)]
mod tests;
