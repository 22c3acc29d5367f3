//! Counters of rules that drop, held against those of the reading before.
//!
//! There may be tens of thousands, so of each only a number is kept from one reading to the next, by
//! what the rule is; whole are those alone that counted, and of those that do not count a few.

use std::{
    cmp::Reverse,
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher as _,
};

use super::chains::Chains;
use crate::report::{
    filter_rules::{Dropper, Family, Hooks, Keeper, Part},
    shell::is_hidden,
};

/// Rules whose counters are kept from one reading to the next.
const MOST_COUNTERS: usize = 1 << 16;
/// Most that counted, and most that do not count, that are kept whole.
const MOST_WHOLE: usize = 32;
/// Those of a table that do not count, before it is known which of them can be reached.
const MOST_OPEN: usize = 1024;
/// Letters of a rule or a comment that are kept.
const MOST_LETTERS: usize = 400;

/// Packets by rule.
pub(super) type Counts = HashMap<u64, u64>;

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
}

impl<'a> Seen<'a> {
    /// One that is no map's, and counts by itself or not at all.
    pub(super) fn new(chain: &'a str, part: Part, text: &'a str, packets: Option<u64>) -> Self {
        let (elements, comment, counter) = (Vec::new(), None, None);
        Self { chain, part, text, comment, by_map: false, elements, counter, packets }
    }
}

/// The table that a parser is in.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) keeper: Keeper,
    pub(super) program: String,
    pub(super) family: Family,
    pub(super) name: String,
}

/// What was met so far.
pub(super) struct Tally<'a> {
    before: Option<&'a Counts>,
    hasher: &'a RandomState,
    now: Counts,
    /// How many rules of a chain had the same text so far.
    same: HashMap<u64, u32>,
    open: Vec<Dropper>,
    counting: Vec<Dropper>,
    more: u64,
    silent: Vec<Dropper>,
    more_silent: usize,
    earlier: Vec<Dropper>,
    /// Those among them that are open or kept.
    idle: usize,
    /// Rules for whose counters there was no room.
    cut: bool,
}

/// What drops, at the end.
#[derive(Default)]
pub(super) struct Tallied {
    pub(super) now: Counts,
    pub(super) counting: Vec<Dropper>,
    pub(super) more: u64,
    pub(super) silent: Vec<Dropper>,
    pub(super) more_silent: usize,
    /// What has counted nothing since the reading before.
    pub(super) earlier: Vec<Dropper>,
    pub(super) cut: bool,
}

impl<'a> Tally<'a> {
    /// `hasher` has to be that of the reading before.
    pub(super) fn new(before: Option<&'a Counts>, hasher: &'a RandomState) -> Self {
        Self {
            before,
            hasher,
            now: Counts::new(),
            same: HashMap::new(),
            open: Vec::new(),
            counting: Vec::new(),
            more: 0,
            silent: Vec::new(),
            more_silent: 0,
            earlier: Vec::new(),
            idle: 0,
            cut: false,
        }
    }

    /// A rule or policy that drops.
    pub(super) fn see(&mut self, table: &Table, seen: &Seen<'_>) {
        let Some(packets) = seen.packets else {
            match self.open.iter().filter(|it| it.counted.is_none()).count() < MOST_OPEN {
                true => self.open.push(whole(table, seen, None, 0)),
                false => self.more_silent += 1,
            }
            return;
        };
        // A handle stays a rule's; a position does not, so there the text tells.
        let handle = match (table.keeper, seen.part) {
            (Keeper::Nft, Part::Rule(handle)) => Some(handle),
            _ => None,
        };
        let text = handle.map_or(seen.text, |_| "");
        let is_policy = seen.part == Part::Policy;
        let of = (&table.program, table.family, &table.name, seen.chain, is_policy, handle, text);
        let base = self.hasher.hash_one(of);
        let ordinal = self.same.entry(base).or_default();
        let key = self.hasher.hash_one((base, *ordinal));
        *ordinal += 1;
        if self.now.len() >= MOST_COUNTERS {
            self.cut = true;
            return;
        }
        self.now.insert(key, packets);
        let before = self.before.and_then(|before| before.get(&key)).copied().unwrap_or(0);
        // Where it fell, it was set to zero meanwhile.
        let counted = packets.checked_sub(before).unwrap_or(packets);
        if counted > 0 {
            self.open.push(whole(table, seen, Some(counted), key));
            self.shorten();
        } else if packets > 0 && self.idle < MOST_WHOLE {
            self.idle += 1;
            self.open.push(whole(table, seen, Some(0), key));
        }
    }

    /// Keeps those that counted most.
    fn shorten(&mut self) {
        let counts = |it: &Dropper| it.counted.is_some_and(|counted| counted > 0);
        let counting = self.open.iter().filter(|it| counts(it)).count();
        if counting <= 4 * MOST_WHOLE {
            return;
        }
        self.open.sort_by_key(|it| Reverse(it.counted));
        for cut in self.open.extract_if(MOST_WHOLE.., |it| counts(it)) {
            self.more = self.more.saturating_add(cut.counted.unwrap_or(0));
        }
    }

    /// A table begins. What is left of one that did not end is of no use.
    pub(super) fn begin_table(&mut self) {
        self.open.clear();
    }

    /// The table ends, and `chains` are all that it has: now it is known what can be reached.
    pub(super) fn end_table(&mut self, chains: &Chains) {
        for mut dropper in self.open.drain(..) {
            dropper.hooks = chains.hooks(&dropper.chain);
            match dropper.counted {
                Some(0) => self.earlier.push(dropper),
                Some(_) => self.counting.push(dropper),
                None if dropper.hooks.is_empty() => {}
                None if self.silent.len() < MOST_WHOLE => self.silent.push(dropper),
                None => self.more_silent += 1,
            }
        }
    }

    pub(super) fn end(mut self) -> Tallied {
        self.counting.sort_by_key(|it| Reverse(it.counted));
        let rest = self.counting.drain(MOST_WHOLE.min(self.counting.len())..);
        let more = rest.fold(self.more, |sum, it| sum.saturating_add(it.counted.unwrap_or(0)));
        let Self { now, counting, silent, more_silent, earlier, cut, .. } = self;
        Tallied { now, counting, more, silent, more_silent, earlier, cut }
    }
}

/// Has the next reading find up to `count` packets of a rule that this one has found; how many.
fn leave(now: &mut Counts, dropper: &mut Dropper, count: u64) -> u64 {
    let counted = dropper.counted.unwrap_or(0);
    let count = count.min(counted);
    let Some(packets) = now.get_mut(&dropper.key) else { return 0 };
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

fn whole(table: &Table, seen: &Seen<'_>, counted: Option<u64>, key: u64) -> Dropper {
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
        counted,
        key,
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
