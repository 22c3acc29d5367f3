//! Network namespaces that `--netns` means: those that had the names when the run began.
//!
//! The kernel side compares inode numbers, which are given again once a namespace is gone. What another
//! one drops then is none of what was asked for, and is left out here.

use std::{cell::RefCell, collections::BTreeSet};

use crate::{
    filter::Packets,
    kernel::{HostRoot, Namespaces, netns_named},
    report::keys::Choice,
};

/// The namespaces of a run's filter.
#[derive(Default)]
pub(super) struct Followed {
    all: Vec<One>,
    /// Numbers of those whose drops were counted: what was, stays, since counts never fall.
    counted: RefCell<BTreeSet<u32>>,
}

struct One {
    name: String,
    inum: u32,
    /// In this run.
    number: u32,
    /// Whether a file has the name, so that it shows when the namespace may have ended.
    is_file: bool,
    /// Whether it was said to have ended.
    ended: bool,
}

impl Followed {
    /// Those that `packets` includes and that are there, by their inode numbers in the order of the
    /// options. To be called with the capabilities that entering one takes.
    pub(super) fn new(
        root: &HostRoot,
        packets: &Packets,
        inums: &[Option<u32>],
        namespaces: &mut Namespaces,
    ) -> Self {
        let chosen = packets.netns.iter().zip(inums).filter(|(choice, _)| !choice.exclude);
        let one = |(choice, inum): (&Choice<String>, &Option<u32>)| {
            let (name, inum) = (choice.value.clone(), (*inum)?);
            let is_file = netns_named(root, &name) == Some(inum);
            Some(One { number: namespaces.look_up(inum), name, inum, is_file, ended: false })
        };
        Self { all: chosen.filter_map(one).collect(), counted: RefCell::default() }
    }

    /// Whether drops in the namespace with this inode number, and this number in the run, count. `rules`
    /// is how many rules of the filter mean the inode number by now: one that was to come may have got it.
    pub(super) fn keeps(&self, inum: u32, number: u32, rules: usize) -> bool {
        let same = || self.all.iter().filter(|it| it.inum == inum);
        let is_meant = same().next().is_none()
            || rules > same().count()
            || same().any(|it| it.number == number);
        let mut counted = self.counted.borrow_mut();
        if is_meant {
            counted.insert(number);
        }
        counted.contains(&number)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Says of each that has ended that it has, once.
    pub(super) fn ended(&mut self, root: &HostRoot, namespaces: &mut Namespaces) -> Vec<String> {
        let mut said = Vec::new();
        for it in self.all.iter_mut().filter(|it| !it.ended) {
            let is_gone = || it.is_file && netns_named(root, &it.name) != Some(it.inum);
            it.ended =
                namespaces.is_succeeded(it.number) || is_gone() && namespaces.has_ended(it.number);
            if it.ended {
                said.push(format!(
                    "the network namespace {} has ended: there is nothing more to count there. With \
                     --later, one of that name that is yet to come is counted",
                    it.name
                ));
            }
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_with_the_number_does_not_count() {
        let one = |inum, number| One {
            name: "gw".to_owned(),
            inum,
            number,
            is_file: false,
            ended: false,
        };
        let all = vec![one(100, 100), one(200, 3)];
        let followed = Followed { all, counted: RefCell::default() };
        assert!(followed.keeps(100, 100, 1) && followed.keeps(200, 3, 1));
        assert!(!followed.keeps(100, 1, 1) && !followed.keeps(200, 200, 1));
        assert!(followed.keeps(300, 300, 0), "whatever else the filter lets through");
        assert!(followed.keeps(100, 1, 2), "one that was to come has the number now");
        assert!(followed.keeps(100, 1, 1), "what was counted stays");
    }
}
