//! What an entry or a rule is about, for those who know none of its names: settings in any spelling,
//! and topics.

use super::{
    KnowledgeTable,
    entry::{Check, DropEntry},
    rule::RuleEntry,
};

/// An entry or a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject<'a> {
    Rule(&'a RuleEntry),
    Entry(&'a DropEntry),
}

/// What texts are compared with, made once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Texts {
    /// Words of each topic.
    topics: Vec<Vec<String>>,
    /// What each subject is compared with, in the order of [`Subject::all`].
    subjects: Vec<Index>,
}

/// What one subject is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Index {
    /// Paths of settings that prove or change it.
    first: Vec<Vec<String>>,
    /// Paths of other settings.
    rest: Vec<Vec<String>>,
    /// Words of its title and names.
    near: Vec<String>,
    /// Words of everything else that it says.
    far: Vec<String>,
}

impl Texts {
    pub(super) fn of(table: &KnowledgeTable) -> Self {
        Self {
            topics: table.topics().map(|topic| words(topic).collect()).collect(),
            subjects: Subject::all(table).map(Subject::index).collect(),
        }
    }
}

/// Most hits of a word that stands in explanations alone: with more of them, it means nothing.
const MANY: usize = 12;
/// Shortest word that is looked for, letters; shorter ones are in every text.
const SHORTEST: usize = 4;
/// Words of questions.
const SMALL: [&str; 29] = [
    "a", "an", "and", "are", "at", "but", "by", "for", "from", "has", "have", "here", "how", "in",
    "is", "no", "not", "of", "on", "or", "that", "the", "this", "to", "was", "what", "why", "with",
    "does",
];

/// Whether a word says nothing by itself.
pub(super) fn is_small(word: &str) -> bool {
    SMALL.contains(&word.to_ascii_lowercase().as_str())
}

impl<'a> Subject<'a> {
    pub(super) fn all(table: &'a KnowledgeTable) -> impl Iterator<Item = Self> {
        table.rules.iter().map(Self::Rule).chain(table.entries.iter().map(Self::Entry))
    }

    /// Numbers that it names: those that prove it or change it first, then the others.
    fn quantities(self) -> (Vec<String>, Vec<String>) {
        let is_number = |check: &Check| matches!(check, Check::Number(_));
        let (all, checks, settings): (Vec<String>, usize, usize) = match self {
            Self::Rule(rule) => (
                rule.quantities().map(|quantity| quantity.name().to_owned()).collect(),
                rule.check.iter().filter(|check| is_number(check)).count(),
                rule.settings.len(),
            ),
            Self::Entry(entry) => {
                let all: Vec<String> =
                    entry.quantities().map(|quantity| quantity.name().to_owned()).collect();
                let checks = entry.check.iter().filter(|check| is_number(check)).count();
                let settings = all.len() - checks;
                (all, checks, settings)
            }
        };
        let leads = |index: usize| index == 0 || (settings > 0 && index == checks);
        let (first, rest): (Vec<_>, Vec<_>) =
            all.into_iter().enumerate().partition(|(index, _)| leads(*index));
        let names = |numbered: Vec<(usize, String)>| numbered.into_iter().map(|(_, name)| name);
        let named: Vec<String> = self.commands().flat_map(settings_in).collect();
        (names(first).collect(), names(rest).chain(named).collect())
    }

    /// What it is compared with.
    fn index(self) -> Index {
        let ((first, rest), [near, far]) = (self.quantities(), self.words());
        let setting = |name: String| is_sysctl(&name).then(|| setting(&name));
        Index {
            first: first.into_iter().filter_map(setting).collect(),
            rest: rest.into_iter().filter_map(setting).collect(),
            near,
            far,
        }
    }

    /// What it can be asked for by.
    fn name(self) -> String {
        match self {
            Self::Rule(rule) => rule.rule.clone(),
            Self::Entry(entry) => {
                entry.at.first().or(entry.reasons.first()).cloned().unwrap_or_default()
            }
        }
    }

    pub(super) fn commands(self) -> Box<dyn Iterator<Item = &'a str> + 'a> {
        match self {
            Self::Rule(rule) => Box::new(rule.commands()),
            Self::Entry(entry) => Box::new(entry.commands()),
        }
    }

    /// Words of its title and names, then those of everything that it says.
    fn words(self) -> [Vec<String>; 2] {
        let mut near = Vec::new();
        let mut far = Vec::new();
        match self {
            Self::Rule(rule) => {
                near.extend([rule.rule.as_str(), &rule.title]);
                near.extend(rule.topics());
                far.extend([rule.meaning.as_str()]);
            }
            Self::Entry(entry) => {
                near.extend([entry.title.as_str(), &entry.topic]);
                near.extend(entry.reasons.iter().map(String::as_str));
                far.extend(entry.at.iter().chain(&entry.seen_at).map(String::as_str));
                far.extend([entry.meaning.as_str()]);
            }
        }
        let split = |texts: Vec<&str>| texts.into_iter().flat_map(words).collect();
        let mut far: Vec<String> = split(far);
        let (first, rest) = self.quantities();
        far.extend(first.iter().chain(&rest).flat_map(|name| words(name)));
        far.extend(self.commands().flat_map(words));
        [split(near), far]
    }
}

/// Everything that has to do with a topic: with each word of `text`, or with all of them as they
/// stand there. What is named so, else what speaks of it. `None` where it is no topic.
pub(super) fn about<'a>(table: &'a KnowledgeTable, text: &str) -> Option<Vec<Subject<'a>>> {
    // One word with a low line is a name.
    if text.contains('_') {
        return None;
    }
    let asked: Vec<String> = words(text).filter(|word| !SMALL.contains(&word.as_str())).collect();
    let topics = &table.texts().topics;
    let is_topic =
        |word: &String| topics.iter().any(|topic| matches!(&topic[..], [it] if it == word));
    if asked.is_empty() || !(topics.contains(&asked) || asked.iter().all(is_topic)) {
        return None;
    }
    let (found, is_named) = speaking(table, &asked);
    // What only stands in a text, and beside which words, says little.
    (!found.is_empty() && (is_named || asked.len() == 1)).then_some(found)
}

/// Names of what has all words of `text` in it: no answer, and a hint where there is none.
pub(super) fn hints(table: &KnowledgeTable, text: &str) -> Vec<String> {
    let asked: Vec<String> = words(text).filter(|word| !SMALL.contains(&word.as_str())).collect();
    if asked.is_empty() || asked.iter().any(|word| word.len() < SHORTEST) {
        return Vec::new();
    }
    let (found, _) = speaking(table, &asked);
    if found.len() > MANY {
        return Vec::new();
    }
    found.into_iter().map(Subject::name).collect()
}

/// What has all of some words in its names and title, and whether that is so: else what has them
/// somewhere.
fn speaking<'a>(table: &'a KnowledgeTable, asked: &[String]) -> (Vec<Subject<'a>>, bool) {
    let all_in = |words: &[&Vec<String>]| {
        asked.iter().all(|word| words.iter().any(|words| words.contains(word)))
    };
    let subjects = || Subject::all(table).zip(&table.texts().subjects);
    let named: Vec<Subject<'a>> =
        subjects().filter(|(_, index)| all_in(&[&index.near])).map(|(it, _)| it).collect();
    if !named.is_empty() {
        return (named, true);
    }
    let speaks = |index: &Index| all_in(&[&index.near, &index.far]);
    (subjects().filter(|(_, index)| speaks(index)).map(|(it, _)| it).collect(), false)
}

/// Rules and entries apart.
pub(super) fn subjects<'a>(all: Vec<Subject<'a>>) -> (Vec<&'a RuleEntry>, Vec<&'a DropEntry>) {
    let (mut rules, mut entries) = (Vec::new(), Vec::new());
    for subject in all {
        match subject {
            Subject::Rule(rule) => rules.push(rule),
            Subject::Entry(entry) => entries.push(entry),
        }
    }
    (rules, entries)
}

/// Words in lower case, in the singular.
fn words(text: &str) -> impl Iterator<Item = String> + use<'_> {
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).map(|word| {
        let word = word.to_ascii_lowercase();
        match word.strip_suffix('s') {
            Some(one) if one.len() > 3 && !one.ends_with('s') => one.to_owned(),
            _ => word,
        }
    })
}

/// Settings in a command: `sysctl -w net.ipv6.conf.DEV.suppress_frag_ndisc=0`.
fn settings_in(command: &str) -> impl Iterator<Item = String> + use<'_> {
    let names = command.split([' ', '=', '\'']).filter(|word| word.starts_with("net."));
    names.map(str::to_owned)
}

/// What names a setting that is written `rp_filter`, `conf.all.rp_filter` or
/// `/proc/sys/net/ipv4/conf/eth0/rp_filter` for `net.ipv4.conf.all.rp_filter`: what that proves or
/// changes, then the others.
pub(super) fn of_setting<'a>(table: &'a KnowledgeTable, typed: &str) -> [Vec<Subject<'a>>; 2] {
    let Some(typed) = typed_setting(typed) else { return [Vec::new(), Vec::new()] };
    let fits = |names: &[Vec<String>]| names.iter().any(|name| name.ends_with(&typed));
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for (subject, index) in Subject::all(table).zip(&table.texts().subjects) {
        if fits(&index.first) {
            first.push(subject);
        } else if fits(&index.rest) {
            rest.push(subject);
        }
    }
    [first, rest]
}

/// Parts of a setting's path; a value may stand behind it, and no other name.
fn typed_setting(typed: &str) -> Option<Vec<String>> {
    let (typed, value) = typed.split_once('=').unwrap_or((typed, ""));
    let typed = typed.trim_end();
    let is_one = !typed.contains(' ') && !value.contains('=') && !is_sysctl(value.trim_start());
    is_one.then(|| setting(typed)).filter(|parts| !parts.is_empty())
}

fn is_sysctl(name: &str) -> bool {
    name.starts_with("net.") || name.starts_with("vm.")
}

/// Parts of a setting's path, those that name a device as any other.
fn setting(name: &str) -> Vec<String> {
    let name = name.split(['=', ' ']).next().unwrap_or_default();
    let name = name.strip_prefix("/proc/sys/").unwrap_or(name);
    // Slashes keep the dots of a device's name apart.
    let separator = if name.contains('/') { '/' } else { '.' };
    let mut parts: Vec<String> = name
        .split(separator)
        .filter(|part| !part.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    if let Some(kind) = parts.iter().position(|part| part == "conf" || part == "neigh")
        && parts.len() > kind + 2
    {
        let setting = parts.pop();
        parts.truncate(kind + 1);
        parts.push("*".to_owned());
        parts.extend(setting);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_setting(typed: &str, name: &str) -> bool {
        typed_setting(typed).is_some_and(|typed| setting(name).ends_with(&typed))
    }

    #[test]
    fn a_setting_is_known_in_any_spelling() {
        let rp_filter = "net.ipv4.conf.all.rp_filter";
        for typed in [
            rp_filter,
            "net/ipv4/conf/all/rp_filter",
            "/proc/sys/net/ipv4/conf/eth0.100/rp_filter",
            "net.ipv4.conf.eth0.100.rp_filter",
            "net.ipv4.conf.default.rp_filter=2",
            "ipv4.conf.all.rp_filter",
            "conf/eth0/rp_filter",
            "RP_FILTER",
        ] {
            assert!(is_setting(typed, rp_filter), "{typed}");
        }
        for typed in ["net.ipv6.conf.all.rp_filter", "filter", "rp", "", ".", "/proc/sys/", "all"] {
            assert!(!is_setting(typed, rp_filter), "{typed}");
        }
        assert!(is_setting("gc_thresh3", "net.ipv6.neigh.default.gc_thresh3"));
        assert!(is_setting("somaxconn", "net.core.somaxconn"));
    }

    #[test]
    fn words_are_compared_in_the_singular() {
        let singular: Vec<String> = words("Fragments, class of-address mss").collect();
        assert_eq!(singular, ["fragment", "class", "of", "address", "mss"]);
    }
}
