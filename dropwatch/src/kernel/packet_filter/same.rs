//! Which rules of a chain are those that the reading before met, so that their counters can be held against
//! each other.
//!
//! nft gives each rule a number that stays its own as long as its table. iptables gives none: a rule is
//! known by its text and its place alone, and whoever edits what `iptables-save -c` prints and restores it
//! hands a rule's counter on to another text. So a text is not enough: where rules came and went, only
//! those that stand before and behind all of that are known.

use std::collections::{HashMap, HashSet};

/// A rule or policy that drops: what it is known by, and its counter, if it has one.
pub(super) type Kept = (u64, Option<u64>);

/// Of each rule of `now`, which one of `before` it is; `None` where that is not proved. What the rules are known by is
/// their own: no two share it.
pub(super) fn by_number(before: &[Kept], now: &[Kept]) -> Vec<Option<usize>> {
    let places: HashMap<u64, usize> =
        before.iter().enumerate().map(|(place, kept)| (kept.0, place)).collect();
    now.iter().map(|kept| places.get(&kept.0).copied()).collect()
}

/// As [`by_number`], of rules in their order that are known by their text.
pub(super) fn by_place(before: &[Kept], now: &[Kept]) -> Vec<Option<usize>> {
    let same = |(before, now): &(&Kept, &Kept)| before.0 == now.0;
    let pairs = || before.iter().zip(now);
    let ahead = pairs().take_while(same).count();
    if (ahead, ahead) == (before.len(), now.len()) {
        return (0..ahead).map(Some).collect();
    }
    // Rules only came, or only went: each other one is what it was.
    if let Some(places) = within(before, now) {
        let mut found = vec![None; now.len()];
        for (then, place) in places.into_iter().enumerate() {
            found[place] = Some(then);
        }
        return found;
    }
    if let Some(places) = within(now, before) {
        return places.into_iter().map(Some).collect();
    }
    let behind = before.iter().rev().zip(now.iter().rev()).take_while(same).count();
    let (then, now_too) = (alone(before), alone(now));
    let place = |(at, kept): (usize, &Kept)| {
        if !then.contains(&kept.0) || !now_too.contains(&kept.0) {
            return None;
        }
        // Some were edited, and each other one stands where it stood.
        if before.len() == now.len() {
            return (before[at].0 == kept.0).then_some(at);
        }
        let from_end = now.len() - at;
        match at < ahead {
            true => Some(at),
            false if from_end <= behind => before.len().checked_sub(from_end),
            false => None,
        }
    };
    now.iter().enumerate().map(place).collect()
}

/// Where in `long` each rule of `short` stands, if all do, in this order, and no two have one text.
fn within(short: &[Kept], long: &[Kept]) -> Option<Vec<usize>> {
    if alone(short).len() < short.len() || alone(long).len() < long.len() {
        return None;
    }
    let mut rest = long.iter().enumerate();
    short.iter().map(|kept| Some(rest.find(|it| it.1.0 == kept.0)?.0)).collect()
}

/// The texts that one rule alone has.
fn alone(rules: &[Kept]) -> HashSet<u64> {
    let (mut alone, mut met) = (HashSet::new(), HashSet::new());
    for (text, _) in rules {
        match met.insert(*text) {
            true => _ = alone.insert(*text),
            false => _ = alone.remove(text),
        }
    }
    alone
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(before: &str, now: &str) -> Vec<Option<usize>> {
        let rules = |texts: &str| texts.bytes().map(|text| (text.into(), None)).collect::<Vec<_>>();
        by_place(&rules(before), &rules(now))
    }

    #[test]
    fn an_edited_neighbour_moves_nobody() {
        assert_eq!(places("abc", "abc"), [Some(0), Some(1), Some(2)]);
        assert_eq!(places("abc", "axc"), [Some(0), None, Some(2)], "edited");
        assert_eq!(places("abcd", "xbyd"), [None, Some(1), None, Some(3)], "two were edited");
        assert_eq!(places("abc", "xabc"), [None, Some(0), Some(1), Some(2)], "one came");
        assert_eq!(places("abc", "abxc"), [Some(0), Some(1), None, Some(2)], "one came");
        assert_eq!(places("abc", "abcx"), [Some(0), Some(1), Some(2), None], "one came");
        assert_eq!(places("abc", "ac"), [Some(0), Some(2)], "one went");
        assert_eq!(places("abc", "xaybcz"), [None, Some(0), None, Some(1), Some(2), None]);
        assert_eq!(places("xaybcz", "abc"), [Some(1), Some(3), Some(4)], "some went");
        assert_eq!(places("abcde", "axyde"), [Some(0), None, None, Some(3), Some(4)]);
        assert_eq!(places("abcd", "axycd"), [Some(0), None, None, Some(2), Some(3)]);
        assert_eq!(places("", "a"), [None]);
        assert_eq!(places("a", ""), []);
    }

    #[test]
    fn a_text_that_may_be_anothers_is_nobodys() {
        assert_eq!(places("ab", "ba"), [None, None], "they changed places");
        assert_eq!(places("abc", "bcd"), [None, None, None], "each has the next one's text");
        assert_eq!(places("ab", "bc"), [None, None]);
        assert_eq!(places("aa", "aa"), [Some(0), Some(1)]);
        assert_eq!(places("aa", "a"), [None], "which of the two went?");
        assert_eq!(places("aab", "aax"), [None, None, None]);
        assert_eq!(places("xaay", "xay"), [Some(0), None, Some(3)]);
    }

    #[test]
    fn a_number_is_a_rules_own() {
        let rules = |numbers: &[u64]| numbers.iter().map(|it| (*it, None)).collect::<Vec<_>>();
        assert_eq!(by_number(&rules(&[1, 2]), &rules(&[2, 3, 1])), [Some(1), None, Some(0)]);
    }
}
