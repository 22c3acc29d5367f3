//! Counters of rules that drop, held against those of the reading before.
//!
//! There may be tens of thousands, so of each only a number is kept from one reading to the next, by
//! what the rule is; whole are those alone that counted, and of those that do not count a few.
//!
//! A counter tells what a rule dropped since the reading before only if that reading met the same rule
//! ([`same`](super::same)). Whoever reloads rules may keep their counters: one that is new may stand at any number.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, hash_map::RandomState},
    hash::BuildHasher as _,
};

use super::{
    chains::Chains,
    same::{Kept, by_number, by_place},
};
use crate::report::{
    filter_rules::{Dropper, Family, Hooks, Keeper, Part, Uncounted},
    shell::is_hidden,
};

/// Rules whose counters are kept from one reading to the next.
const MOST_COUNTERS: usize = 1 << 16;
/// Most that counted, and most that do not count, that are kept whole.
const MOST_WHOLE: usize = 32;
/// Those of a table that are kept whole before it is known which of them count, and can be reached.
const MOST_OPEN: usize = 1024;
/// Letters of a rule or a comment that are kept.
const MOST_LETTERS: usize = 400;

/// What drops in a namespace, and its counters.
#[derive(Debug, Default)]
pub(super) struct Counts {
    chains: HashMap<u64, Chain>,
    /// Of all chains.
    rules: usize,
    /// Some counters were lower than before: those that iptables writes back a moment after it has put in a
    /// new table, as at each change, will stand where they stood.
    fell: bool,
}

/// What drops in a chain, in its order.
#[derive(Debug, Default)]
struct Chain {
    hooks: Hooks,
    rules: Vec<Kept>,
}

impl Counts {
    /// How many rules and policies there are.
    pub(super) fn len(&self) -> usize {
        self.rules
    }
}

/// A rule or policy that drops, as a parser meets it.
pub(super) struct Seen<'a> {
    pub(super) chain: &'a str,
    pub(super) part: Part,
    pub(super) text: &'a str,
    pub(super) comment: Option<&'a str>,
    pub(super) by_map: bool,
    /// Of a map, the keys that drop.
    pub(super) elements: Vec<String>,
    /// The named counter that is its own.
    pub(super) counter: Option<&'a str>,
    pub(super) packets: Option<u64>,
    /// Why there are none, where there are not.
    pub(super) uncounted: Uncounted,
}

impl<'a> Seen<'a> {
    /// One that is no map's, and counts by itself or not at all.
    pub(super) fn new(chain: &'a str, part: Part, text: &'a str, packets: Option<u64>) -> Self {
        let (elements, comment, counter) = (Vec::new(), None, None);
        let uncounted = Uncounted::NoCounter;
        Self { chain, part, text, comment, by_map: false, elements, counter, packets, uncounted }
    }
}

/// The table that a parser is in.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) keeper: Keeper,
    pub(super) program: String,
    pub(super) family: Family,
    pub(super) name: String,
    /// Its number, where nft shows one: a table that is made anew gets another, and numbers its rules
    /// from the begin.
    pub(super) handle: Option<u64>,
}

/// What was met so far.
pub(super) struct Tally<'a> {
    before: Option<&'a Counts>,
    hasher: &'a RandomState,
    now: Counts,
    /// Of the table that a parser is in, by name.
    open: BTreeMap<String, OpenChain>,
    /// Rules of it that are kept whole: those that may count, those that count nothing, and those that
    /// do not count.
    counted: usize,
    idle: usize,
    uncounted: usize,
    end: Tallied,
}

/// A chain of a table that is not at its end.
struct OpenChain {
    key: u64,
    is_numbered: bool,
    rules: Vec<(Kept, Option<Box<Dropper>>)>,
}

/// What drops, at the end.
#[derive(Debug, Default)]
pub(super) struct Tallied {
    pub(super) now: Counts,
    pub(super) counting: Vec<Dropper>,
    pub(super) more: u64,
    pub(super) silent: Vec<Dropper>,
    pub(super) more_silent: usize,
    /// What has counted nothing since the reading before.
    pub(super) earlier: Vec<Dropper>,
    /// What drops is not what it was at the reading before.
    pub(super) changed: bool,
    /// What has a counter of which nobody knows where it stood then, as far as there is room.
    pub(super) unsure: Vec<Dropper>,
    pub(super) cut: bool,
}

impl<'a> Tally<'a> {
    /// `hasher` has to be that of the reading before.
    pub(super) fn new(before: Option<&'a Counts>, hasher: &'a RandomState) -> Self {
        let (now, open, end) = (Counts::default(), BTreeMap::new(), Tallied::default());
        Self { before, hasher, now, open, counted: 0, idle: 0, uncounted: 0, end }
    }

    /// A rule or policy that drops.
    pub(super) fn see(&mut self, table: &Table, seen: &Seen<'_>) {
        if self.now.rules >= MOST_COUNTERS {
            self.end.cut = true;
            return;
        }
        self.now.rules += 1;
        let is_numbered = table.keeper == Keeper::Nft;
        let of = (&table.program, table.family, &table.name, table.handle, seen.chain);
        let chain = self.open.entry(seen.chain.to_owned()).or_insert_with(|| OpenChain {
            key: self.hasher.hash_one(of),
            is_numbered,
            rules: Vec::new(),
        });
        let number = match (is_numbered, seen.part) {
            (true, Part::Rule(number)) if number > 0 => Some(number),
            _ => None,
        };
        // Without the table's number, that of a rule is no proof.
        let text = if number.is_some() && table.handle.is_some() { "" } else { seen.text };
        let kept = (self.hasher.hash_one((seen.part == Part::Policy, number, text)), seen.packets);
        // Of tens of thousands, most have not counted, and stand where they stood.
        let before = self.before.and_then(|before| before.chains.get(&chain.key));
        let before = before.and_then(|it| it.rules.get(chain.rules.len()));
        let is_idle = before == Some(&kept);
        let is_reset = before.is_some_and(|it| it.0 == kept.0 && it.1 > kept.1);
        let (room, most) = match seen.packets {
            None => (&mut self.uncounted, MOST_OPEN),
            Some(0) if !is_reset => (&mut self.idle, 0),
            Some(_) if is_idle => (&mut self.idle, MOST_WHOLE),
            Some(_) => (&mut self.counted, MOST_OPEN),
        };
        let is_whole = *room < most;
        *room += usize::from(is_whole);
        chain.rules.push((kept, is_whole.then(|| Box::new(whole(table, seen)))));
        if self.before.is_none() {
            self.shorten();
        }
    }

    /// Of rules all of whose life counts, keeps those whole that counted most.
    fn shorten(&mut self) {
        if self.counted < MOST_OPEN {
            return;
        }
        let rules = || self.open.values().flat_map(|chain| &chain.rules);
        let whole = rules().filter(|it| it.1.is_some()).filter_map(|it| it.0.1);
        let mut packets: Vec<u64> = whole.collect();
        packets.sort_unstable_by_key(|it| Reverse(*it));
        let least = packets.get(MOST_WHOLE).copied().unwrap_or(0);
        self.counted = 0;
        for (kept, whole) in self.open.values_mut().flat_map(|chain| &mut chain.rules) {
            let Some(packets) = kept.1 else { continue };
            if packets < least || self.counted >= MOST_WHOLE {
                *whole = None;
            }
            self.counted += usize::from(whole.is_some());
        }
    }

    /// A table begins. What is left of one that did not end is of no use.
    pub(super) fn begin_table(&mut self) {
        self.open.clear();
        (self.counted, self.idle, self.uncounted) = (0, self.end.earlier.len(), 0);
    }

    /// The table ends, and `chains` are all that it has: now it is known what can be reached.
    pub(super) fn end_table(&mut self, chains: &Chains) {
        let open = std::mem::take(&mut self.open);
        // One that was met already, as no table is, has no rule that is known.
        let old = |chain: &OpenChain| match self.now.chains.contains_key(&chain.key) {
            true => None,
            false => self.before?.chains.get(&chain.key),
        };
        let matched: Vec<Vec<Option<Kept>>> = open
            .values()
            .map(|chain| {
                let now: Vec<Kept> = chain.rules.iter().map(|it| it.0).collect();
                let before = old(chain).map_or(&[][..], |it| &it.rules);
                let places = if chain.is_numbered { by_number } else { by_place };
                let places = places(before, &now);
                places.into_iter().map(|it| before.get(it?).copied()).collect()
            })
            .collect();
        // Counters that somebody has set. Of rules without a number, all of the table may have been.
        let fell = open.values().zip(&matched).any(|(chain, before)| {
            let mut rules = chain.rules.iter().zip(before);
            !chain.is_numbered && rules.any(|((now, _), it)| it.is_some_and(|it| now.1 < it.1))
        });
        self.end.changed |= fell;
        self.now.fell |= fell;
        for ((name, chain), matched) in open.into_iter().zip(matched) {
            let hooks = chains.hooks(&name);
            if let Some(before) = self.before {
                let before = before.chains.get(&chain.key);
                let all = before.map_or(0, |it| it.rules.len());
                let is_reached_as_before = before.is_none_or(|it| it.hooks == hooks);
                self.end.changed |=
                    matched.iter().flatten().count() != all || !is_reached_as_before;
            }
            let mut rules = Vec::with_capacity(chain.rules.len());
            for ((kept, mut whole), before) in chain.rules.into_iter().zip(matched) {
                if let Some(whole) = &mut whole {
                    whole.hooks = hooks;
                    whole.key = (chain.key, rules.len());
                }
                let before = before.filter(|_| !fell);
                self.settle(kept.1, before, whole, hooks);
                rules.push(kept);
            }
            self.now.chains.entry(chain.key).or_insert(Chain { hooks, rules });
        }
    }

    /// What became of a rule that has counted `packets`, and was met as `before`.
    fn settle(
        &mut self,
        packets: Option<u64>,
        before: Option<Kept>,
        whole: Option<Box<Dropper>>,
        hooks: Hooks,
    ) {
        let end = &mut self.end;
        let is_first = self.before.is_none();
        let Some(packets) = packets else {
            end.changed |= !is_first && before.is_none();
            match whole {
                _ if hooks.is_empty() => {}
                Some(whole) if end.silent.len() < MOST_WHOLE => end.silent.push(*whole),
                _ => end.more_silent += 1,
            }
            return;
        };
        let base = match before {
            _ if is_first => Some(0),
            Some((_, before)) => before.filter(|before| *before <= packets),
            None => None,
        };
        let Some(base) = base else {
            // One that has dropped nothing ever has not done it, whoever put it there.
            end.changed |= packets > 0 || before.is_some();
            end.unsure.extend(whole.filter(|_| end.unsure.len() < MOST_WHOLE).map(|it| *it));
            return;
        };
        let counted = packets - base;
        match whole {
            Some(whole) if counted > 0 => {
                end.counting.push(Dropper { counted: Some(counted), ..*whole });
            }
            Some(whole) if end.earlier.len() < MOST_WHOLE => {
                end.earlier.push(Dropper { counted: Some(0), ..*whole });
            }
            _ => end.more = end.more.saturating_add(counted),
        }
    }

    pub(super) fn end(self) -> Tallied {
        let mut end = Tallied { now: self.now, ..self.end };
        end.counting.sort_by_key(|it| Reverse(it.counted));
        let rest = end.counting.drain(MOST_WHOLE.min(end.counting.len())..);
        let rest = rest.fold(0, |sum: u64, it| sum.saturating_add(it.counted.unwrap_or(0)));
        end.more = end.more.saturating_add(rest);
        if let Some(before) = self.before {
            end.changed |= before.fell;
            // A chain that is gone took its rules with it.
            end.changed |= before.chains.keys().any(|chain| !end.now.chains.contains_key(chain));
        }
        end
    }
}

/// Has the next reading find up to `count` packets of a rule that this one has found; how many.
fn leave(now: &mut Counts, dropper: &mut Dropper, count: u64) -> u64 {
    let counted = dropper.counted.unwrap_or(0);
    let count = count.min(counted);
    let (chain, place) = dropper.key;
    let chain = now.chains.get_mut(&chain);
    let Some((_, Some(packets))) = chain.and_then(|chain| chain.rules.get_mut(place)) else {
        return 0;
    };
    *packets = packets.saturating_sub(count);
    dropper.counted = Some(counted - count);
    count
}

impl Tallied {
    /// Packets that all counters counted together.
    pub(super) fn counted(&self) -> u64 {
        let counted = self.counting.iter().filter_map(|it| it.counted);
        counted.fold(self.more, u64::saturating_add)
    }

    /// Leaves `count` packets that rules have counted to the next reading, which finds them as if they
    /// were counted behind this one. Of each rule as large a part, the rest of those that counted most.
    pub(super) fn leave(&mut self, count: u64) {
        let all = |it: &Dropper| it.counted.unwrap_or(0);
        let sum = self.counting.iter().fold(0, |sum: u64, it| sum.saturating_add(all(it)));
        let mut left = count.min(sum);
        let whole = left;
        for dropper in &mut self.counting {
            let part = u128::from(all(dropper)) * u128::from(whole) / u128::from(sum.max(1));
            left -=
                leave(&mut self.now, dropper, u64::try_from(part).unwrap_or(u64::MAX).min(left));
        }
        for dropper in &mut self.counting {
            left -= leave(&mut self.now, dropper, left);
        }
        self.counting.retain(|it| it.counted > Some(0));
    }
}

/// What is counted is known at the table's end.
fn whole(table: &Table, seen: &Seen<'_>) -> Dropper {
    Dropper {
        keeper: table.keeper,
        program: table.program.clone(),
        family: table.family,
        table: clean(&table.name),
        chain: clean(seen.chain),
        part: seen.part,
        text: clean(seen.text),
        comment: seen.comment.map(clean),
        hooks: Hooks::default(),
        by_map: seen.by_map,
        elements: seen.elements.clone(),
        counter: seen.counter.map(clean),
        uncounted: seen.uncounted,
        counted: None,
        key: (0, 0),
        ever: seen.packets.unwrap_or(0),
    }
}

/// The begin of `text`, without what moves a cursor.
pub(super) fn clean(text: &str) -> String {
    let mut clean: String = text
        .chars()
        .take(MOST_LETTERS)
        .map(|letter| if is_hidden(letter) { '\u{fffd}' } else { letter })
        .collect();
    if text.chars().nth(MOST_LETTERS).is_some() {
        clean.push('…');
    }
    clean
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is tallied of rules whose counters stand so.
    fn tallied(before: Option<&Counts>, hasher: &RandomState, counters: &[u64]) -> Tallied {
        let table = Table {
            keeper: Keeper::Iptables,
            program: "iptables".to_owned(),
            family: Family::Ip,
            name: "filter".to_owned(),
            handle: None,
        };
        let mut tally = Tally::new(before, hasher);
        for (counter, position) in counters.iter().zip(1..) {
            let text = format!("-p udp --dport {position} -j DROP");
            tally.see(&table, &Seen::new("INPUT", Part::Rule(position), &text, Some(*counter)));
        }
        tally.end_table(&Chains::default());
        tally.end()
    }

    fn by_rule(tallied: &Tallied) -> HashMap<Part, u64> {
        tallied.counting.iter().map(|it| (it.part, it.counted.unwrap_or(0))).collect()
    }

    proptest! {
        /// Whatever is left to the next reading, both together have found what each rule has counted.
        #[test]
        fn what_is_left_is_found_by_the_next_reading(
            rules in proptest::collection::vec((0..100_u64, 0..100_u64), 0..20), left in 0..900_u64
        ) {
            let hasher = RandomState::new();
            let first: Vec<u64> = rules.iter().map(|(first, _)| *first).collect();
            let both: Vec<u64> = rules.iter().map(|(first, second)| first + second).collect();
            let mut earlier = tallied(None, &hasher, &first);
            let all = earlier.counted();
            earlier.leave(left);
            prop_assert_eq!(earlier.counted(), all.saturating_sub(left));
            prop_assert!(earlier.counting.iter().all(|it| it.counted > Some(0)));
            let later = by_rule(&tallied(Some(&earlier.now), &hasher, &both));
            let earlier = by_rule(&earlier);
            for (sum, position) in both.iter().zip(1..) {
                let of = |found: &HashMap<Part, u64>| {
                    found.get(&Part::Rule(position)).copied().unwrap_or(0)
                };
                prop_assert_eq!(of(&earlier) + of(&later), *sum);
            }
        }
    }
}
