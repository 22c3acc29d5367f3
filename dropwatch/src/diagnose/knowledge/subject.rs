//! What an entry or a rule is about, for those who know none of its names: settings and counters in
//! any spelling, and topics.

use super::{
    Table,
    entry::{Check, Entry},
    rule::Rule,
};

/// An entry or a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject<'a> {
    Rule(&'a Rule),
    Entry(&'a Entry),
}

/// More hits than this say nothing about a word that only stands in explanations.
const MANY: usize = 12;
/// Shorter words are in everything.
const SHORTEST: usize = 2;
/// Words of questions.
const SMALL: [&str; 20] = [
    "and", "are", "but", "for", "from", "has", "have", "here", "how", "no", "not", "of", "or",
    "that", "the", "this", "was", "what", "why", "with",
];

impl<'a> Subject<'a> {
    pub(super) fn all(table: &'a Table) -> impl Iterator<Item = Self> {
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

    /// Whether it names a number: 0 where that proves or changes it, 1 elsewhere.
    pub(super) fn names_number(self, typed: &str) -> Option<usize> {
        let (first, rest) = self.quantities();
        let fits = |names: Vec<String>| names.iter().any(|name| is_number(typed, name));
        if fits(first) {
            Some(0)
        } else if fits(rest) {
            Some(1)
        } else {
            None
        }
    }

    fn commands(self) -> Box<dyn Iterator<Item = &'a str> + 'a> {
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
                near.extend([&rule.rule, &rule.title]);
                near.extend(&rule.words);
                near.extend(&rule.settings);
                far.extend([&rule.meaning]);
            }
            Self::Entry(entry) => {
                near.extend([&entry.title, &entry.topic]);
                near.extend(&entry.reasons);
                far.extend(entry.at.iter().chain(&entry.seen_at));
                far.extend([&entry.meaning]);
            }
        }
        let split = |texts: Vec<&String>| texts.into_iter().flat_map(|text| words(text)).collect();
        let mut far: Vec<String> = split(far);
        let (first, rest) = self.quantities();
        far.extend(first.iter().chain(&rest).flat_map(|name| words(name)));
        far.extend(self.commands().flat_map(words));
        [split(near), far]
    }
}

/// Everything that has to do with each of the words of `text`: what is named so, else what speaks
/// of it.
pub(super) fn about<'a>(table: &'a Table, text: &str) -> Vec<Subject<'a>> {
    let asked: Vec<String> = words(text).filter(|word| !SMALL.contains(&word.as_str())).collect();
    if asked.is_empty() || asked.iter().any(|word| word.len() < SHORTEST) {
        return Vec::new();
    }
    let subjects: Vec<(Subject<'a>, [Vec<String>; 2])> =
        Subject::all(table).map(|subject| (subject, subject.words())).collect();
    let all_in = |words: &[&Vec<String>]| {
        asked.iter().all(|word| words.iter().any(|words| words.contains(word)))
    };
    let named: Vec<Subject<'a>> =
        subjects.iter().filter(|(_, [near, _])| all_in(&[near])).map(|(it, _)| *it).collect();
    if !named.is_empty() {
        return named;
    }
    let speak = subjects.iter().filter(|(_, [near, far])| all_in(&[near, far]));
    let speak: Vec<Subject<'a>> = speak.map(|(it, _)| *it).collect();
    if speak.len() <= MANY { speak } else { Vec::new() }
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

/// Whether `typed` is a way to write the name of a number: `rp_filter`, `conf.all.rp_filter`,
/// `/proc/sys/net/ipv4/conf/eth0/rp_filter` for `net.ipv4.conf.all.rp_filter`; `ListenOverflows`,
/// `TcpExtListenOverflows` for `TcpExt.ListenOverflows`.
pub(super) fn is_number(typed: &str, name: &str) -> bool {
    if name.starts_with("net.") || name.starts_with("vm.") {
        let typed = setting(typed);
        let name = setting(name);
        return !typed.is_empty() && name.ends_with(&typed);
    }
    let letters = |text: &str| -> String {
        text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
    };
    let (typed, last) = (letters(typed), name.rsplit('.').next().unwrap_or(name));
    typed == letters(name) || typed == letters(last)
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
            assert!(is_number(typed, rp_filter), "{typed}");
        }
        for typed in ["net.ipv6.conf.all.rp_filter", "filter", "rp", "", ".", "/proc/sys/", "all"] {
            assert!(!is_number(typed, rp_filter), "{typed}");
        }
        assert!(is_number("gc_thresh3", "net.ipv6.neigh.default.gc_thresh3"));
        assert!(is_number("somaxconn", "net.core.somaxconn"));
    }

    #[test]
    fn a_counter_is_known_in_any_spelling() {
        for typed in ["TcpExt.ListenOverflows", "TcpExtListenOverflows", "ListenOverflows"] {
            assert!(is_number(typed, "TcpExt.ListenOverflows"), "{typed}");
        }
        assert!(is_number("udp:RcvbufErrors", "Udp.RcvbufErrors"));
        assert!(!is_number("RcvbufErrors", "Udp.InErrors"));
        assert!(!is_number("", "Udp.InErrors"));
    }

    #[test]
    fn words_are_compared_in_the_singular() {
        let singular: Vec<String> = words("Fragments, class of-address mss").collect();
        assert_eq!(singular, ["fragment", "class", "of", "address", "mss"]);
    }
}
