//! What `nft -a -t list ruleset` prints (`src/rule.c`, nftables 0.9 to 1.1): all tables of a namespace,
//! with handles and without the elements of sets.
//!
//! Its JSON has neither a rule's own text, nor what it calls "no json callback" (nested chains).
//!
//! ```text
//! table inet fw { # handle 6
//!     chain in { # handle 2
//!         type filter hook input priority filter; policy drop;
//!         ip saddr @bad counter packets 3 bytes 90 drop comment "listed" # handle 7
//!     }
//! }
//! ```

use std::collections::HashMap;

use super::{
    chains::Chains,
    lines::Joined,
    map::dropping,
    tally::{Seen, Table, Tally},
};
use crate::report::filter_rules::{Family, Hook, Hooks, Keeper, Part, Uncounted};

/// Reads the output line by line.
pub(super) struct NftRuleset<'t, 'a, F> {
    tally: &'t mut Tally<'a>,
    /// Whether a table is read elsewhere.
    skips: F,
    table: Option<Table>,
    chains: Chains,
    chain: Option<String>,
    /// Open braces of what is neither table nor chain.
    depth: u32,
    lines: Joined,
    named: NamedCounters,
    maps: Vec<NamedMap>,
    /// The whole output was read.
    is_whole: bool,
}

impl<'t, 'a, F: Fn(Family, &str) -> bool> NftRuleset<'t, 'a, F> {
    pub(super) fn new(tally: &'t mut Tally<'a>, skips: F) -> Self {
        let (table, chains, chain) = (None, Chains::default(), None);
        let (named, maps) = (NamedCounters::default(), Vec::new());
        let (depth, lines) = (0, Joined::default());
        Self { tally, skips, table, chains, chain, depth, lines, named, maps, is_whole: true }
    }

    pub(super) fn line(&mut self, line: &[u8]) {
        let Some(line) = self.lines.line(line) else { return };
        let line = String::from_utf8_lossy(&line);
        let (line, handle) = split_handle(line.trim());
        if line.is_empty() || line.starts_with('#') {
            return;
        }
        let closes = line.starts_with('}');
        let opens = opens(line);
        match (&self.table, &self.chain) {
            (None, _) => {
                if let Some(table) = line.strip_prefix("table ") {
                    self.tally.begin_table();
                    self.is_whole = false;
                    self.table = table_of(table, handle);
                }
            }
            // A rule goes on in lines of its own: `tcp dport 80 jump {` … `}`.
            (Some(_), Some(_)) if self.depth > 0 && closes => self.depth -= 1,
            (Some(_), Some(_)) if closes => self.chain = None,
            (Some(_), Some(_)) => {
                self.in_chain(line, handle);
                self.depth += u32::from(opens);
            }
            (Some(_), None) if self.depth > 0 => {
                self.named.line(line);
                self.depth = match (closes, opens) {
                    (true, _) => self.depth - 1,
                    (false, opens) => self.depth.saturating_add(opens.into()),
                };
            }
            (Some(_), None) if closes => self.end_table(),
            (Some(_), None) => match line.strip_prefix("chain ") {
                Some(chain) => {
                    let chain = chain.split(' ').next().unwrap_or_default();
                    self.chains.number(chain);
                    self.chain = Some(chain.to_owned());
                }
                None => {
                    self.named.open = line
                        .strip_prefix("counter ")
                        .and_then(|it| Some(it.split(' ').next()?.trim_matches('"').to_owned()));
                    self.depth += u32::from(opens);
                }
            },
        }
    }

    fn end_table(&mut self) {
        let named = std::mem::take(&mut self.named);
        if let Some(table) = &self.table {
            for rule in &named.rules {
                let packets = named.of_one(&rule.counter);
                let counter = packets.map(|_| rule.counter.as_str());
                let (chain, comment) = (rule.chain.as_str(), rule.comment.as_deref());
                let seen = Seen::new(chain, Part::Rule(rule.handle), &rule.text, packets);
                let uncounted = Uncounted::Shared;
                self.tally.see(table, &Seen { comment, counter, uncounted, ..seen });
            }
        }
        self.chains.settle();
        self.tally.end_table(&self.chains);
        self.chains = Chains::default();
        self.table = None;
        self.is_whole = true;
    }

    fn in_chain(&mut self, line: &str, handle: Option<u64>) {
        let (Some(table), Some(chain)) = (&self.table, &self.chain) else { return };
        if (self.skips)(table.family, &table.name) {
            return;
        }
        let words = words(line);
        let word = |index: usize| words.get(index).map_or("", |word| word.text);
        if word(0) == "type" && word(2) == "hook" {
            let mut hooks = Hooks::default();
            if let Some(hook) = Hook::of(word(3)) {
                hooks.insert(hook);
            }
            self.chains.at(chain, hooks);
            if words.windows(2).any(|two| two[0].text == "policy" && two[1].text == "drop") {
                self.tally.see(table, &Seen::new(chain, Part::Policy, "", None));
            }
            return;
        }
        let rule = Rule::of(&words);
        rule.jumps.iter().for_each(|to| self.chains.jump(chain, to));
        if rule.by_unknown_map {
            self.chains.jump_anywhere(chain);
        }
        self.named.refer(&words);
        if let Some(map) = rule.map
            && self.maps.len() < MOST_MAPS
        {
            let (table, map) = (table.name.clone(), map.to_owned());
            let map = NamedMap {
                family: self.table.as_ref().map_or(Family::Inet, |it| it.family),
                table,
                map,
            };
            if !self.maps.contains(&map) {
                self.maps.push(map);
            }
        }
        // Whether the counter is this rule's alone is known at the end.
        if let (true, Some(counter), Some(handle)) = (rule.drops, rule.named, handle)
            && self.named.rules.len() < MOST_NAMED
        {
            self.named.rules.push(NamedRule {
                chain: chain.clone(),
                handle,
                text: line.to_owned(),
                comment: rule.comment.map(str::to_owned),
                counter: counter.to_owned(),
            });
            return;
        }
        if rule.drops || rule.map_drops || rule.by_unknown_map {
            let text = without_counter(line, &words);
            let packets = rule.packets.filter(|_| rule.drops && handle.is_some());
            let by_map = !rule.drops;
            let elements = match by_map && !rule.by_unknown_map {
                true => {
                    line.split_once("vmap {").and_then(|(_, map)| dropping(map)).unwrap_or_default()
                }
                false => Vec::new(),
            };
            let seen = Seen::new(chain, Part::Rule(handle.unwrap_or(0)), &text, packets);
            let has_counter = rule.packets.is_some() || rule.named.is_some();
            let uncounted = match rule.counts_before || (by_map && has_counter) {
                true => Uncounted::BeforeMatch,
                false => Uncounted::NoCounter,
            };
            let seen = Seen { comment: rule.comment, by_map, elements, uncounted, ..seen };
            self.tally.see(table, &seen);
        }
    }

    /// Whether all was read that was begun, and the maps by name that rules decide by.
    pub(super) fn end(self) -> (bool, Vec<NamedMap>) {
        (self.is_whole && self.lines.is_whole(), self.maps)
    }
}

/// Most maps by name whose elements are looked up.
const MOST_MAPS: usize = 8;
/// Most rules of a table with a named counter, and most such counters.
const MOST_NAMED: usize = 1024;

/// A map that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedMap {
    pub(super) family: Family,
    pub(super) table: String,
    pub(super) map: String,
}

/// The counters of a table that have a name, and who refers to them.
#[derive(Default)]
struct NamedCounters {
    /// The one whose lines come next.
    open: Option<String>,
    packets: HashMap<String, u64>,
    /// How many rules refer to each.
    referred: HashMap<String, u32>,
    /// A rule finds its counter by a map, so each may be another rule's, too.
    by_map: bool,
    rules: Vec<NamedRule>,
}

/// A rule that drops what it has counted by a named counter.
struct NamedRule {
    chain: String,
    handle: u64,
    text: String,
    comment: Option<String>,
    counter: String,
}

impl NamedCounters {
    /// A line within an object: `packets 3 bytes 90`.
    fn line(&mut self, line: &str) {
        let packets =
            line.strip_prefix("packets ").and_then(|it| it.split(' ').next()?.parse().ok());
        if let Some(packets) = packets
            && let Some(name) = self.open.take()
            && self.packets.len() < MOST_NAMED
        {
            self.packets.insert(name, packets);
        }
    }

    /// The words of a rule, which may name counters.
    fn refer(&mut self, words: &[Word<'_>]) {
        for words in words.windows(3) {
            let [counter, name, which] = words else { continue };
            if counter.quoted || (counter.text, name.text) != ("counter", "name") {
                continue;
            }
            match self.packets.contains_key(which.text) {
                true => *self.referred.entry(which.text.to_owned()).or_default() += 1,
                false => self.by_map = true,
            }
        }
    }

    /// What a counter says that one rule alone refers to.
    fn of_one(&self, name: &str) -> Option<u64> {
        let is_own = !self.by_map && self.referred.get(name) == Some(&1);
        self.packets.get(name).copied().filter(|_| is_own)
    }
}

/// `inet fw {`; `None` for a family that is not known.
fn table_of(line: &str, handle: Option<u64>) -> Option<Table> {
    let mut words = line.split(' ');
    let (family, name) = (words.next()?, words.next()?);
    // A table of a family that is not known has to be left, too.
    let family = Family::of(family).unwrap_or(Family::Netdev);
    let (program, name) = ("nft".to_owned(), name.to_owned());
    Some(Table { keeper: Keeper::Nft, program, family, name, handle })
}

/// `tcp dport 80 drop # handle 7`: what stands before the handle, and that.
fn split_handle(line: &str) -> (&str, Option<u64>) {
    match line.rsplit_once("# handle ") {
        Some((line, handle)) => match handle.parse() {
            Ok(handle) => (line.trim_end(), Some(handle)),
            Err(_) => (line, None),
        },
        None => (line, None),
    }
}

/// Whether a line has more braces that open than such that close.
fn opens(line: &str) -> bool {
    let (mut depth, mut quoted) = (0_i32, false);
    for byte in line.bytes() {
        match byte {
            b'"' => quoted = !quoted,
            b'{' if !quoted => depth += 1,
            b'}' if !quoted => depth -= 1,
            _ => {}
        }
    }
    depth > 0
}

/// A word of a rule.
#[derive(Clone, Copy)]
struct Word<'a> {
    text: &'a str,
    /// Where it begins in its line.
    at: usize,
    /// It was in quotation marks.
    quoted: bool,
    /// It is within braces.
    within: bool,
}

/// The words of a line, without what only parts them.
fn words(line: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let (mut begin, mut depth) = (None, 0_u32);
    let mut quote = None;
    for (at, byte) in line.bytes().enumerate() {
        let mut push = |begin: usize, quoted| {
            if let Some(text) = line.get(begin..at) {
                words.push(Word { text, at: begin, quoted, within: depth > 0 });
            }
        };
        match (quote, byte) {
            (Some(from), b'"') => {
                push(from, true);
                quote = None;
            }
            (Some(_), _) => {}
            (None, b'"' | b' ' | b'\t' | b'{' | b'}' | b',' | b';') => {
                if let Some(begin) = begin.take() {
                    push(begin, false);
                }
                match byte {
                    b'"' => quote = Some(at + 1),
                    b'{' => depth += 1,
                    b'}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            (None, _) => _ = begin.get_or_insert(at),
        }
    }
    if let Some(text) = begin.and_then(|begin| Some((begin, line.get(begin..)?))) {
        words.push(Word { text: text.1, at: text.0, quoted: false, within: depth > 0 });
    }
    words
}

/// What of a rule matters here.
#[derive(Default)]
struct Rule<'a> {
    drops: bool,
    /// An element of a map within the rule drops.
    map_drops: bool,
    /// A map decides whose elements are not shown.
    by_unknown_map: bool,
    jumps: Vec<&'a str>,
    comment: Option<&'a str>,
    /// Packets that came to its verdict, if its counter stands right before it.
    packets: Option<u64>,
    /// The name of that counter.
    named: Option<&'a str>,
    /// Its counter stands before something that may let some pass.
    counts_before: bool,
    /// The map by name that decides.
    map: Option<&'a str>,
}

impl<'a> Rule<'a> {
    fn of(words: &[Word<'a>]) -> Self {
        let mut rule = Self::default();
        let mut after_counter = false;
        let mut rest = words;
        while let [word, next @ ..] = rest {
            rest = next;
            if word.quoted {
                continue;
            }
            let following = |index: usize| next.get(index).map_or("", |word| word.text);
            match word.text {
                "drop" | "reject" if !word.within => {
                    rule.drops = true;
                    if !after_counter {
                        rule.counts_before = rule.packets.is_some() || rule.named.is_some();
                        (rule.packets, rule.named) = (None, None);
                    }
                    // What comes behind says how it is refused, and the comment.
                    rest = rest.split_at(comment_at(rest)).1;
                }
                "drop" | "reject" => rule.map_drops = true,
                "jump" | "goto" => rule.jumps.extend(next.first().map(|to| to.text)),
                "vmap" if following(0).starts_with('@') => {
                    rule.by_unknown_map = true;
                    rule.map = following(0).strip_prefix('@');
                }
                "comment" if next.first().is_some_and(|word| word.quoted) => {
                    rule.comment = next.first().map(|word| word.text);
                }
                // Those within braces are elements'.
                "counter" if word.within => {}
                "counter" if following(0) == "packets" && following(2) == "bytes" => {
                    (rule.packets, rule.named) = (following(1).parse().ok(), None);
                    after_counter = rule.packets.is_some();
                    rest = next.get(4..).unwrap_or_default();
                    continue;
                }
                "counter" if following(0) == "name" => {
                    (rule.packets, rule.named) = (None, next.get(1).map(|word| word.text));
                    after_counter = true;
                    rest = next.get(2..).unwrap_or_default();
                    continue;
                }
                // It lets all of them pass.
                "log" => {
                    rest = rest.split_at(log_ends(rest)).1;
                    continue;
                }
                _ => {}
            }
            // What may let some pass: the counter has counted them, too.
            after_counter = false;
        }
        rule
    }
}

/// Where the comment begins.
fn comment_at(words: &[Word<'_>]) -> usize {
    words.iter().position(|word| word.text == "comment").unwrap_or(words.len())
}

/// How many words belong to a `log` before them: its options come in pairs.
fn log_ends(words: &[Word<'_>]) -> usize {
    let options = ["prefix", "level", "group", "snaplen", "queue-threshold", "flags"];
    let mut end = 0;
    while words.get(end).is_some_and(|word| !word.quoted && options.contains(&word.text)) {
        // `flags tcp sequence` is longer than a pair, and taken for a match: its counter counts for less.
        end += 2;
    }
    end.min(words.len())
}

/// A rule's line without what changes: `counter packets 3 bytes 90` is `counter`.
fn without_counter(line: &str, words: &[Word<'_>]) -> String {
    let shown = words.windows(5).find(|words| {
        let [counter, packets, _, bytes, _] = words else { return false };
        !counter.quoted
            && (counter.text, packets.text, bytes.text) == ("counter", "packets", "bytes")
    });
    let Some([counter, .., last]) = shown else { return line.to_owned() };
    let before = line.get(..counter.at + counter.text.len()).unwrap_or(line);
    let after = line.get(last.at + last.text.len()..).unwrap_or_default();
    format!("{before}{after}")
}
