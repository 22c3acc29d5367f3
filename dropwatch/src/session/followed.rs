//! Network namespaces that `--netns` means: those that had the names when the run began.
//!
//! The kernel side compares inode numbers, which are given again once a namespace is gone. What another
//! one drops then is none of what was asked for, and is left out here.

use crate::{
    filter::Packets,
    kernel::{HostRoot, Namespaces, netns_named},
    report::keys::Choice,
};

/// The namespaces of a run's filter.
#[derive(Default)]
pub(super) struct Followed(Vec<One>);

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
        Self(chosen.filter_map(one).collect())
    }

    /// Whether drops in the namespace with this inode number, and this number in the run, count. `rules`
    /// is how many rules of the filter mean the inode number by now: one that was to come may have got it.
    pub(super) fn keeps(&self, inum: u32, number: u32, rules: usize) -> bool {
        let mut same = self.0.iter().filter(|it| it.inum == inum).peekable();
        same.peek().is_none() || rules > same.clone().count() || same.any(|it| it.number == number)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Says of each that has ended that it has, once.
    pub(super) fn ended(&mut self, root: &HostRoot, namespaces: &mut Namespaces) -> Vec<String> {
        let mut said = Vec::new();
        for it in self.0.iter_mut().filter(|it| !it.ended) {
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
        let followed = Followed(vec![one(100, 100), one(200, 3)]);
        assert!(followed.keeps(100, 100, 1) && followed.keeps(200, 3, 1));
        assert!(!followed.keeps(100, 1, 1) && !followed.keeps(200, 200, 1));
        assert!(followed.keeps(300, 300, 0), "whatever else the filter lets through");
        assert!(followed.keeps(100, 1, 2), "one that was to come has the number now");
    }
}
