//! The proof that a namespace began after dropwatch first looked, so that its counters began at zero
//! in the run.
//!
//! A number that is new proves it, if the first list had the numbers of all there were. So does the
//! number of one that has ended since, as its cookie shows. What a first list cannot have is a
//! namespace that nothing but a descriptor kept alive; some of these are known by their cookie, which
//! is lower than that of one that was there at first.

use std::collections::{HashMap, HashSet};

/// Cookies that each CPU takes at once, to give them out in order (`COOKIE_LOCAL_BATCH`,
/// include/linux/cookie.h). So only those of one batch tell which of two namespaces is older.
const BATCH: u64 = 4096;

/// The namespaces that were known so far in a run.
#[derive(Debug, Default)]
pub(super) struct Births {
    /// Whether all that were there at first are known.
    complete: bool,
    /// By number, with the cookie of the last one whose counters were read. Numbers are given again,
    /// so there are no more than ever were at once.
    seen: HashMap<u32, Option<u64>>,
    /// The highest cookie of each batch that a namespace had at first.
    first: HashMap<u64, u64>,
}

impl Births {
    /// Begins to prove births: `listing` are the numbers of all namespaces before the first look,
    /// whose own were [`seen`](Births::saw) by now; `None` where some may be hidden.
    pub fn begin(&mut self, listing: Option<HashSet<u32>>) {
        self.complete = listing.is_some();
        for cookie in self.seen.values().flatten() {
            let highest = self.first.entry(batch(*cookie)).or_default();
            *highest = (*cookie).max(*highest);
        }
        for inum in listing.into_iter().flatten() {
            self.seen.entry(inum).or_default();
        }
    }

    /// Whether it is proved that the namespace `inum` began since, and was not looked into before.
    pub fn is_new(&self, inum: u32, cookie: Option<u64>) -> bool {
        match (self.seen.get(&inum), cookie) {
            (Some(Some(known)), Some(cookie)) => *known != cookie,
            (Some(_), _) => false,
            (None, None) => self.complete,
            (None, Some(cookie)) => {
                let older = self.first.get(&batch(cookie)).is_some_and(|first| cookie < *first);
                self.complete && !older
            }
        }
    }

    /// Keeps in mind that the counters of a namespace were read.
    pub fn saw(&mut self, inum: u32, cookie: Option<u64>) {
        self.seen.insert(inum, cookie);
    }
}

/// The first cookie of a batch is one more than a multiple of its size.
fn batch(cookie: u64) -> u64 {
    cookie.saturating_sub(1) / BATCH
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After a first look that found the namespaces 10 and 20, and could not look into 30.
    fn births() -> Births {
        let mut births = Births::default();
        assert!(!births.is_new(10, Some(3)), "nothing is proved before the first look is over");
        births.saw(10, Some(3));
        births.saw(20, Some(4096 + 70));
        births.begin(Some([10, 20, 30].into()));
        births
    }

    #[test]
    fn a_number_that_was_nowhere_is_that_of_a_namespace_that_began_since() {
        let mut births = births();
        for cookie in [None, Some(4), Some(4096), Some(4096 + 71), Some(2 * 4096 + 1)] {
            assert!(births.is_new(40, cookie), "{cookie:?}");
        }
        births.saw(40, Some(4));
        assert!(!births.is_new(40, Some(4)), "it was looked into");
    }

    #[test]
    fn what_was_there_is_not_new() {
        let births = births();
        assert!(!births.is_new(10, Some(3)) && !births.is_new(10, None));
        assert!(!births.is_new(30, Some(9)) && !births.is_new(30, None), "never looked into");
        let mut partly = Births::default();
        partly.begin(None);
        assert!(!partly.is_new(40, Some(9)) && !partly.is_new(40, None), "it may have been hidden");
    }

    #[test]
    fn a_number_that_another_had_is_new_by_its_cookie() {
        let mut births = births();
        assert!(births.is_new(10, Some(4)));
        births.saw(40, None);
        assert!(!births.is_new(40, None), "without cookies nobody can say");
        let mut partly = Births::default();
        partly.saw(10, Some(3));
        partly.begin(None);
        assert!(partly.is_new(10, Some(4)), "whatever else is hidden");
    }

    #[test]
    fn one_that_was_hidden_is_known_by_a_cookie_lower_than_one_that_was_not() {
        let births = births();
        assert!(!births.is_new(40, Some(2)));
        assert!(!births.is_new(40, Some(4096 + 1)));
        assert!(!births.is_new(40, Some(4096 + 69)));
    }
}
