//! The chains of one table, and from which hooks each can be reached.

use std::collections::HashMap;

use crate::report::filter_rules::Hooks;

/// Most chains of a table; what comes beyond is reached from nowhere.
const MOST: usize = 1 << 17;
/// Most jumps that are kept.
const MOST_JUMPS: usize = 1 << 19;

/// The chains of a table.
#[derive(Default)]
pub(super) struct Chains {
    numbers: HashMap<Vec<u8>, usize>,
    chains: Vec<Chain>,
    jumps: usize,
}

#[derive(Default)]
struct Chain {
    hooks: Hooks,
    /// The kernel calls it, so no rule may.
    is_base: bool,
    to: Vec<usize>,
    /// It may jump to chains that are not known.
    anywhere: bool,
}

impl Chains {
    /// The number of a chain, which is made known by it; `None` past the bound.
    pub(super) fn number(&mut self, name: &str) -> Option<usize> {
        if let Some(number) = self.numbers.get(name.as_bytes()) {
            return Some(*number);
        }
        if self.chains.len() >= MOST {
            return None;
        }
        self.numbers.insert(name.as_bytes().to_vec(), self.chains.len());
        self.chains.push(Chain::default());
        Some(self.chains.len() - 1)
    }

    /// Whether there is such a chain.
    pub(super) fn has(&self, name: &str) -> bool {
        self.numbers.contains_key(name.as_bytes())
    }

    /// The kernel calls a chain at these hooks.
    pub(super) fn at(&mut self, name: &str, hooks: Hooks) {
        if let Some(chain) = self.number(name).and_then(|number| self.chains.get_mut(number)) {
            chain.hooks.join(hooks);
            chain.is_base = true;
        }
    }

    /// A rule of one chain leads to another.
    pub(super) fn jump(&mut self, from: &str, to: &str) {
        if self.jumps < MOST_JUMPS
            && let (Some(from), Some(to)) = (self.number(from), self.number(to))
            && let Some(chain) = self.chains.get_mut(from)
            && chain.to.last() != Some(&to)
        {
            chain.to.push(to);
            self.jumps += 1;
        }
    }

    /// A rule of a chain may lead to any other, by a map whose elements are not known.
    pub(super) fn jump_anywhere(&mut self, from: &str) {
        if let Some(chain) = self.number(from).and_then(|number| self.chains.get_mut(number)) {
            chain.anywhere = true;
        }
    }

    /// Follows all jumps. To be called once all are known.
    pub(super) fn settle(&mut self) {
        let mut open: Vec<usize> = (0..self.chains.len()).collect();
        while let Some(number) = open.pop() {
            let Some(chain) = self.chains.get(number) else { continue };
            let hooks = chain.hooks;
            if hooks.is_empty() {
                continue;
            }
            let targets = match chain.anywhere {
                true => (0..self.chains.len()).filter(|it| *it != number).collect(),
                false => chain.to.clone(),
            };
            for to in targets {
                // Each is done again only when it gained a hook, of which there are seven.
                if let Some(chain) = self.chains.get_mut(to)
                    && !chain.is_base
                    && chain.hooks.join(hooks)
                {
                    open.push(to);
                }
            }
        }
    }

    /// From where a chain is reached.
    pub(super) fn hooks(&self, name: &str) -> Hooks {
        let number = self.numbers.get(name.as_bytes());
        number.and_then(|it| self.chains.get(*it)).map_or(Hooks::default(), |chain| chain.hooks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::filter_rules::Hook;

    fn hooks(all: &[Hook]) -> Hooks {
        let mut hooks = Hooks::default();
        all.iter().for_each(|hook| hooks.insert(*hook));
        hooks
    }

    #[test]
    fn a_chain_is_reached_from_where_jumps_lead_to_it() {
        let mut chains = Chains::default();
        chains.jump("a", "b");
        chains.jump("INPUT", "a");
        chains.jump("FORWARD", "b");
        chains.jump("lost", "found");
        chains.jump("b", "a");
        for hook in [Hook::Input, Hook::Forward] {
            chains.at(hook.name(), hooks(&[hook]));
        }
        chains.settle();
        for name in ["a", "b"] {
            assert_eq!(chains.hooks(name), hooks(&[Hook::Input, Hook::Forward]), "{name}");
        }
        assert!(chains.hooks("found").is_empty() && chains.hooks("none").is_empty());
        assert_eq!(chains.hooks("INPUT"), hooks(&[Hook::Input]));
    }

    #[test]
    fn a_map_that_is_not_known_may_lead_anywhere() {
        let mut chains = Chains::default();
        chains.at("in", hooks(&[Hook::Input]));
        chains.at("out", hooks(&[Hook::Output]));
        chains.jump_anywhere("in");
        chains.number("other");
        chains.settle();
        assert_eq!(chains.hooks("other"), hooks(&[Hook::Input]));
        assert_eq!(chains.hooks("out"), hooks(&[Hook::Output]), "no rule jumps to a base chain");
    }
}
