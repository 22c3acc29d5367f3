//! What `arptables-legacy -vnxL` prints (`arptables.c`, arptables 0.0.5): the chains of one table.
//!
//! ```text
//! Chain INPUT (policy ACCEPT 12 packets, 336 bytes)
//! -j DROP -i * -o * -s 1.2.3.4 , pcnt=7 -- bcnt=196
//! ```

use super::{
    chains::Chains,
    tally::{Seen, Table, Tally},
};
use crate::report::filter_rules::{Family, Hook, Hooks, Keeper, Part};

/// Reads the output line by line.
pub(super) struct ArptablesList<'t, 'a> {
    tally: &'t mut Tally<'a>,
    table: Table,
    chains: Chains,
    /// The chain that the output is in, and how many of its rules were met.
    chain: (String, u64),
}

impl<'t, 'a> ArptablesList<'t, 'a> {
    /// `program` is what shows the rules: `arptables-legacy`.
    pub(super) fn new(tally: &'t mut Tally<'a>, program: &str, table: &str) -> Self {
        tally.begin_table();
        let (program, name) = (program.to_owned(), table.to_owned());
        let (keeper, family) = (Keeper::Arptables, Family::Arp);
        let table = Table { keeper, program, family, name, handle: None };
        Self { tally, table, chains: Chains::default(), chain: Default::default() }
    }

    pub(super) fn line(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim();
        if let Some(chain) = line.strip_prefix("Chain ") {
            self.begin_chain(chain);
        } else if let Some((rule, counters)) = line.rsplit_once(", pcnt=") {
            self.rule(rule.trim_end(), counters);
        }
    }

    /// `INPUT (policy DROP 12 packets, 336 bytes)`
    fn begin_chain(&mut self, line: &str) {
        let Some((chain, rest)) = line.split_once(' ') else { return };
        self.chain = (chain.to_owned(), 0);
        let Some(policy) = rest.strip_prefix("(policy ") else { return };
        let mut hooks = Hooks::default();
        if let Some(hook) = Hook::of(chain) {
            hooks.insert(hook);
        }
        self.chains.at(chain, hooks);
        let mut words = policy.split(' ');
        if words.next() == Some("DROP") {
            let packets = words.next().and_then(|word| word.parse().ok());
            self.tally.see(&self.table, &Seen::new(chain, Part::Policy, "", packets));
        }
    }

    /// `-j DROP -i * -o * -s 1.2.3.4` and `7 -- bcnt=196`.
    fn rule(&mut self, rule: &str, counters: &str) {
        self.chain.1 += 1;
        let mut words = rule.split(' ').skip_while(|word| *word != "-j");
        let Some(target) = words.nth(1) else { return };
        let chain = self.chain.0.as_str();
        if target == "DROP" {
            let packets = counters.split(' ').next().and_then(|word| word.parse().ok());
            let seen = Seen::new(chain, Part::Rule(self.chain.1), rule, packets);
            self.tally.see(&self.table, &seen);
        } else {
            self.chains.jump(chain, target);
        }
    }

    /// All was read.
    pub(super) fn end(mut self) {
        self.chains.settle();
        self.tally.end_table(&self.chains);
    }
}
