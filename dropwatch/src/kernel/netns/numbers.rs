//! What each network namespace is called in a run, by a number of its own.
//!
//! The kernel gives an inode number to another namespace as soon as the one that had it is gone: the
//! lowest free one. The cookie of a namespace is given once. The first namespace of the run that had an
//! inode number is called by it; those that have got it since, by numbers that no namespace has.

use std::collections::HashMap;

use dropwatch_common::{NO_COOKIE, NO_NETNS, Netns};

/// Below the inode numbers that the kernel gives: those begin at `PROC_DYNAMIC_FIRST`, 0xf0000000, and
/// a few that are fixed lie just below (fs/proc/generic.c, include/linux/proc_ns.h).
const END: u32 = 0xe000_0000;

/// The namespaces of a run.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// By inode number.
    known: HashMap<u32, Bearers>,
    /// Those that are not called by their inode number: the first is called 1.
    later: Vec<Netns>,
}

/// Those that had one inode number.
#[derive(Debug)]
struct Bearers {
    /// Its cookie; [`NO_COOKIE`] as long as that is not known.
    first: u64,
    later: HashMap<u64, u32>,
    /// Whose it is as far as was seen last.
    last: u64,
}

impl Numbers {
    /// The number of a namespace whose packet, or which itself, was met now.
    pub fn meet(&mut self, netns: Netns) -> u32 {
        let number = self.of(netns);
        if let Some(bearers) = self.known.get_mut(&netns.inum) {
            bearers.last = netns.cookie;
        }
        number
    }

    /// The number of a namespace that may have ended meanwhile.
    pub fn of(&mut self, Netns { inum, cookie }: Netns) -> u32 {
        if inum == NO_NETNS || cookie == NO_COOKIE {
            return inum;
        }
        let bearers = self.known.entry(inum).or_insert_with(|| Bearers {
            first: cookie,
            later: HashMap::new(),
            last: cookie,
        });
        if bearers.first == cookie {
            return inum;
        }
        if let Some(number) = bearers.later.get(&cookie) {
            return *number;
        }
        let Some(number) = u32::try_from(self.later.len() + 1).ok().filter(|it| *it < END) else {
            return NO_NETNS;
        };
        self.later.push(Netns { inum, cookie });
        bearers.later.insert(cookie, number);
        // What has just been met for the first time came last.
        bearers.last = cookie;
        number
    }

    /// The namespace with a number. Without a cookie where that is not known.
    pub fn netns(&self, number: u32) -> Netns {
        let later = number.checked_sub(1).and_then(|index| self.later.get(index as usize));
        later.copied().unwrap_or_else(|| {
            let first = self.known.get(&number).map_or(NO_COOKIE, |bearers| bearers.first);
            Netns { inum: number, cookie: first }
        })
    }

    /// The number of the one that has an inode number now, as far as was seen.
    pub fn bearer(&self, inum: u32) -> u32 {
        let Some(bearers) = self.known.get(&inum) else { return inum };
        bearers.later.get(&bearers.last).copied().unwrap_or(inum)
    }

    /// Whether another namespace has got the inode number since.
    pub fn is_succeeded(&self, number: u32) -> bool {
        self.bearer(self.netns(number).inum) != number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INUM: u32 = 0xf000_0090;

    fn netns(cookie: u64) -> Netns {
        Netns { inum: INUM, cookie }
    }

    #[test]
    fn the_first_keeps_the_inode_number_and_others_get_their_own() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.meet(netns(5)), INUM);
        assert!(!numbers.is_succeeded(INUM));
        assert_eq!((numbers.meet(netns(9)), numbers.meet(netns(12))), (1, 2));
        assert_eq!((numbers.of(netns(5)), numbers.of(netns(9))), (INUM, 1));
        assert_eq!([INUM, 1, 2].map(|it| numbers.is_succeeded(it)), [true, true, false]);
        assert_eq!((numbers.netns(2), numbers.netns(INUM)), (netns(12), netns(5)));
        assert_eq!(numbers.bearer(INUM), 2);
    }

    #[test]
    fn without_cookies_the_inode_number_is_all_there_is() {
        let mut numbers = Numbers::default();
        let unknown = netns(NO_COOKIE);
        assert_eq!((numbers.meet(unknown), numbers.netns(INUM)), (INUM, unknown));
        assert!(!numbers.is_succeeded(INUM));
        assert_eq!(numbers.of(Netns { inum: NO_NETNS, cookie: 7 }), NO_NETNS);
    }
}
