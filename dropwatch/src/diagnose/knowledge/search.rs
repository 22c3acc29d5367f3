//! Finds entries by what a person types: a drop reason, a function, or a row of a report.

use super::{
    Table,
    entry::{CORE, Entry},
    function_name,
};

/// Entries shown in full, whatever their kind, where there are no more of them.
const FEW: usize = 3;
/// Most names suggested in place of an unknown one.
const SUGGESTIONS: usize = 4;
/// Prefix of reasons in the kernel's sources.
const ENUMERATOR: &str = "SKB_DROP_REASON_";

/// What is known about a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Entries about exactly this.
    pub full: Vec<&'a Entry>,
    /// Entries that have to do with it.
    pub brief: Vec<&'a Entry>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    #[error("`{0}` is a drop reason of the kernel that dropwatch does not explain yet")]
    NotYet(String),
    #[error("nothing is known about `{name}`{} (`dropwatch explain` lists all names)", suggest(.near))]
    Name { name: String, near: Vec<String> },
}

fn suggest(near: &[String]) -> String {
    match near {
        [] => String::new(),
        [one] => format!(": did you mean {one}?"),
        [most @ .., last] => format!(": did you mean {} or {last}?", most.join(", ")),
    }
}

impl Table {
    /// What is known about `name`: a reason in any case, with or without the kernel's prefix or a
    /// subsystem before a colon; a function with or without offset, module and the compiler's
    /// suffixes; or both as a report prints them, `nf_hook_slow+0x7d (NETFILTER_DROP)`.
    ///
    /// # Errors
    /// Nothing is known; the error suggests names that look like it.
    pub fn find(&self, name: &str) -> Result<Answer<'_>, Unknown> {
        let name = name.trim();
        if let Some((symbol, reason)) = name.strip_suffix(')').and_then(|row| row.split_once(" ("))
        {
            let (symbol, reason) = (bare_function(symbol), bare_reason(reason));
            if let Some(entry) = self.lookup(Some(symbol), self.subsystem_of(&reason), &reason) {
                return Ok(Answer { full: vec![entry], brief: Vec::new() });
            }
            return self.find_reason(&reason).or_else(|| self.find_function(symbol)).ok_or_else(
                || Unknown::Name { name: name.to_owned(), near: self.near(&reason, symbol) },
            );
        }
        let (reason, symbol) = (bare_reason(name), bare_function(name));
        if let Some(answer) = self.find_reason(&reason).or_else(|| self.find_function(symbol)) {
            return Ok(answer);
        }
        if self.not_yet_explained.contains(&reason) {
            return Err(Unknown::NotYet(reason));
        }
        Err(Unknown::Name { name: name.to_owned(), near: self.near(&reason, symbol) })
    }

    /// The entry that says the most about drops at `function` for `reason` of `subsystem`.
    pub fn lookup(&self, function: Option<&str>, subsystem: &str, reason: &str) -> Option<&Entry> {
        let speaks = |entry: &&Entry| entry.has_reason(subsystem, reason);
        let exact = |entry: &&Entry| function.is_some_and(|name| entry.is_about(name));
        self.entries
            .iter()
            .filter(speaks)
            .find(exact)
            .or_else(|| self.entries.iter().filter(speaks).find(|entry| entry.at.is_empty()))
    }

    fn find_reason(&self, reason: &str) -> Option<Answer<'_>> {
        let entries = self.entries.iter().filter(|entry| entry.reasons.iter().any(|r| r == reason));
        let (full, brief) = entries.partition(|entry| entry.at.is_empty());
        Answer::new(full, brief)
    }

    fn find_function(&self, function: &str) -> Option<Answer<'_>> {
        let full = self.entries.iter().filter(|entry| entry.is_about(function)).collect();
        let brief = self.entries.iter().filter(|entry| entry.is_seen_at(function)).collect();
        Answer::new(full, brief)
    }

    /// Subsystem of a reason that an entry has; names are unique among them.
    fn subsystem_of(&self, reason: &str) -> &str {
        let has = |entry: &&Entry| entry.reasons.iter().any(|name| name == reason);
        self.entries.iter().find(has).map_or(CORE, |entry| &entry.subsystem)
    }

    /// Known names that look like one of two readings of an unknown one, the most alike first.
    fn near(&self, reason: &str, function: &str) -> Vec<String> {
        let reasons = self.entries.iter().flat_map(|entry| &entry.reasons);
        let functions = self.functions();
        let mut near: Vec<(usize, &str)> = reasons
            .map(|name| (reason, name.as_str()))
            .chain(functions.map(|name| (function, name)))
            .filter_map(|(typed, name)| Some((distance(typed, name)?, name)))
            .collect();
        near.sort_unstable();
        near.dedup();
        near.into_iter().take(SUGGESTIONS).map(|(_, name)| name.to_owned()).collect()
    }
}

impl<'a> Answer<'a> {
    fn new(mut full: Vec<&'a Entry>, mut brief: Vec<&'a Entry>) -> Option<Self> {
        if full.len() + brief.len() <= FEW {
            full.append(&mut brief);
        }
        (!full.is_empty() || !brief.is_empty()).then_some(Self { full, brief })
    }
}

/// How unlike two names are; `None` for too unlike.
fn distance(typed: &str, name: &str) -> Option<usize> {
    /// Parts of names shorter than this say nothing.
    const PART: usize = 4;
    if typed.len() >= PART && name.contains(typed) {
        return Some(0);
    }
    let edits = strsim::osa_distance(typed, name);
    (edits <= typed.chars().count().max(name.len()) / 3).then_some(edits)
}

/// `SKB_DROP_REASON_NO_SOCKET`, `CORE:no_socket` → `NO_SOCKET`.
fn bare_reason(name: &str) -> String {
    let name = name.trim().trim_start_matches('(').trim_end_matches(')');
    let name = name.rsplit(':').next().unwrap_or(name).to_ascii_uppercase();
    name.strip_prefix(ENUMERATOR).map_or(name.clone(), str::to_owned)
}

/// `nft_do_chain.constprop.0+0x7d [nf_tables]` → `nft_do_chain`.
fn bare_function(name: &str) -> &str {
    let name = name.trim().split(char::is_whitespace).next().unwrap_or_default();
    let name = name.split('+').next().unwrap_or_default();
    function_name(name)
}

#[cfg(test)]
mod tests {
    use crate::diagnose::knowledge::table;

    fn titles(name: &str) -> Vec<&str> {
        let answer = table().expect("table").find(name).expect("known");
        answer.full.iter().map(|entry| entry.title.as_str()).collect()
    }

    #[test]
    fn a_reason_is_found_however_it_is_written() {
        for name in
            ["QUEUE_PURGE", "queue_purge", "SKB_DROP_REASON_QUEUE_PURGE", "CORE:Queue_Purge"]
        {
            assert_eq!(titles(name), ["a queue was discarded"], "{name}");
        }
    }

    #[test]
    fn a_function_is_found_however_it_is_written() {
        for name in [
            "net_tx_action",
            "net_tx_action+0x7d",
            "net_tx_action.constprop.0+0x7d/0x120",
            "net_tx_action [sch_fq]",
        ] {
            assert_eq!(titles(name), ["the driver dropped it, in an interrupt"], "{name}");
        }
    }

    #[test]
    fn a_row_of_a_report_finds_the_one_entry_about_it() {
        let of = |row| titles(row);
        assert_eq!(of("tcp_v4_rcv+0x91 (NO_SOCKET)"), ["no TCP socket for this segment"]);
        assert_eq!(
            of("tcp_v4_rcv+0x91 (NOT_SPECIFIED)"),
            ["the last segment met a TIME_WAIT socket"]
        );
        assert_eq!(
            of("some_driver+0x1 [some] (NO_SOCKET)"),
            ["no socket is waiting for this packet"]
        );
    }

    #[test]
    fn entries_of_one_place_alone_stay_brief_where_there_are_many() {
        let answer = table().expect("table").find("NOT_SPECIFIED").expect("known");
        assert_eq!(answer.full.len(), 1);
        assert!(answer.brief.len() > 3, "{}", answer.brief.len());
    }

    #[test]
    fn unknown_names_get_suggestions_and_nonsense_none() {
        let unknown = |name: &str| table().expect("table").find(name).unwrap_err().to_string();
        assert_eq!(
            unknown("nf_hook_slo"),
            "nothing is known about `nf_hook_slo`: did you mean nf_hook_slow? (`dropwatch explain` \
             lists all names)"
        );
        assert!(unknown("NETFILTR_DROP").contains("NETFILTER_DROP"));
        assert!(unknown("PAWS").contains("TCP_RFC7323_PAWS"));
        assert_eq!(
            unknown("nonsense"),
            "nothing is known about `nonsense` (`dropwatch explain` lists all names)"
        );
        assert!(unknown("").starts_with("nothing is known about `` ("));
        assert!(unknown(&"x".repeat(5_000)).contains("nothing is known"));
    }
}
