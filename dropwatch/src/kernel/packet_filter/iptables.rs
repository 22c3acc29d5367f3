//! What `iptables-save -c` prints (`iptables/iptables-save.c`, iptables 1.8): of legacy tables, and of
//! what a program of iptables has put into nftables.
//!
//! ```text
//! *filter
//! :INPUT DROP [12:1008]
//! :F2B - [0:0]
//! [7:420] -A INPUT -p udp -m comment --comment "no \"dns\"" -j F2B
//! COMMIT
//! ```

use super::{
    chains::Chains,
    lines::Joined,
    tally::{Seen, Table, Tally},
};
use crate::report::filter_rules::{Family, Hook, Hooks, Keeper, Part};

/// Reads the output line by line.
pub(super) struct IptablesSave<'t, 'a> {
    tally: &'t mut Tally<'a>,
    table: Table,
    /// Policies of chains of nftables have no counter, so this prints zeros.
    policies_count: bool,
    chains: Chains,
    lines: Joined,
    /// Rules of the chain that was met last: they stand together.
    position: (String, u64),
    /// Tables that were read to their end.
    whole: Vec<String>,
}

impl<'t, 'a> IptablesSave<'t, 'a> {
    /// `program` is what shows the rules of `family`: `iptables-legacy`.
    pub(super) fn new(
        tally: &'t mut Tally<'a>,
        program: &str,
        family: Family,
        policies_count: bool,
    ) -> Self {
        let (program, name) = (program.to_owned(), String::new());
        let handle = None;
        let table = Table { keeper: Keeper::Iptables, program, family, name, handle };
        let (chains, position) = (Chains::default(), Default::default());
        let lines = Joined::escaped();
        Self { tally, table, policies_count, chains, lines, position, whole: Vec::new() }
    }

    pub(super) fn line(&mut self, line: &[u8]) {
        let Some(line) = self.lines.line(line) else { return };
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        if let Some(name) = line.strip_prefix('*') {
            self.tally.begin_table();
            self.chains = Chains::default();
            self.position = Default::default();
            name.clone_into(&mut self.table.name);
        } else if let Some(chain) = line.strip_prefix(':') {
            self.chain(chain);
        } else if line.starts_with('[') {
            self.rule(line);
        } else if line == "COMMIT" {
            self.chains.settle();
            self.tally.end_table(&self.chains);
            self.whole.push(self.table.name.clone());
        }
    }

    /// `INPUT DROP [12:1008]`
    fn chain(&mut self, line: &str) {
        let mut words = line.split(' ');
        let (Some(chain), Some(policy)) = (words.next(), words.next()) else { return };
        self.chains.number(chain);
        let Some(hook) = Hook::of(chain).filter(|_| policy != "-") else { return };
        let mut hooks = Hooks::default();
        hooks.insert(hook);
        self.chains.at(chain, hooks);
        if policy == "DROP" {
            let counted = words.next().and_then(packets).filter(|_| self.policies_count);
            self.tally.see(&self.table, &Seen::new(chain, Part::Policy, "", counted));
        }
    }

    /// `[7:420] -A INPUT -p udp -j DROP`
    fn rule(&mut self, line: &str) {
        let Some((counters, rest)) = line.split_once(" -A ") else { return };
        let (chain, text) = rest.split_once(' ').unwrap_or((rest, ""));
        if self.position.0 != chain {
            self.position = (chain.to_owned(), 0);
        }
        self.position.1 += 1;
        let mut target = None;
        let mut comment = None;
        let mut words = Words(text);
        while let Some(word) = words.next() {
            match word {
                "-j" | "-g" => target = words.next(),
                "--comment" => comment = words.next(),
                _ => {}
            }
        }
        let Some(target) = target else { return };
        if matches!(target, "DROP" | "REJECT") {
            let comment = comment.map(|comment| comment.trim_matches('"').replace("\\\"", "\""));
            let (part, packets) = (Part::Rule(self.position.1), packets(counters));
            let comment = comment.as_deref();
            let seen = Seen { comment, ..Seen::new(chain, part, text, packets) };
            self.tally.see(&self.table, &seen);
        } else if self.chains.has(target) {
            self.chains.jump(chain, target);
        }
    }

    /// The tables that were read to their end; none where it is not sure what is a rule.
    pub(super) fn end(self) -> Vec<String> {
        if self.lines.is_whole() { self.whole } else { Vec::new() }
    }
}

/// `[7:420]`: packets and bytes.
fn packets(counters: &str) -> Option<u64> {
    counters.strip_prefix('[')?.split_once(':')?.0.parse().ok()
}

/// The words of a rule; what is in quotation marks, in which a backslash takes the next letter as it
/// is, is one.
struct Words<'a>(&'a str);

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start_matches(' ');
        let (mut quoted, mut escaped) = (false, false);
        let end = text.char_indices().find(|(at, letter)| match letter {
            _ if std::mem::take(&mut escaped) => false,
            '\\' => {
                escaped = quoted;
                false
            }
            // Within a word, it is part of a name.
            '"' => {
                quoted = !quoted && *at == 0;
                false
            }
            ' ' => !quoted,
            _ => false,
        });
        let (word, rest) = text.split_at(end.map_or(text.len(), |(at, _)| at));
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }
}
