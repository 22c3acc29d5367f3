//! Network namespaces that `--netns` means, those that had the names when the run began: whether they
//! are still there.

use super::awaited::Meant;
use crate::{
    filter::Packets,
    kernel::{HostRoot, Namespaces, netns_named},
    report::keys::Choice,
};

/// The namespaces of a run's filter.
#[derive(Default)]
pub(super) struct Followed {
    all: Vec<One>,
}

struct One {
    name: String,
    inum: u32,
    /// In this run.
    number: u32,
    excluded: bool,
    /// Whether a file has the name, so that it shows when the namespace may have ended.
    is_file: bool,
    /// Whether it was said to have ended.
    ended: bool,
}

impl Followed {
    /// Those of `packets` that go on meaning one namespace, as `meant` says in the order of the options.
    /// To be called with the capabilities that entering one takes.
    pub(super) fn new(
        root: &HostRoot,
        packets: &Packets,
        meant: &[Meant],
        namespaces: &mut Namespaces,
    ) -> Self {
        let one = |(choice, meant): (&Choice<String>, &Meant)| {
            let Meant::One(inum) = *meant else { return None };
            let name = choice.value.clone();
            let is_file = netns_named(root, &name) == Some(inum);
            let number = namespaces.look_up(inum);
            Some(One { number, name, inum, excluded: choice.exclude, is_file, ended: false })
        };
        Self { all: packets.netns.iter().zip(meant).filter_map(one).collect() }
    }

    /// Says of each that has ended that it has, once.
    pub(super) fn ended(&mut self, root: &HostRoot, namespaces: &mut Namespaces) -> Vec<String> {
        let mut said = Vec::new();
        for it in self.all.iter_mut().filter(|it| !it.ended) {
            let is_gone = || it.is_file && netns_named(root, &it.name) != Some(it.inum);
            it.ended =
                namespaces.is_succeeded(it.number) || is_gone() && namespaces.has_ended(it.number);
            if it.ended {
                let (what, then) = match it.excluded {
                    true => ("leave out", "left out"),
                    false => ("count", "counted"),
                };
                said.push(format!(
                    "the network namespace {} has ended: there is nothing more to {what} there. With \
                     --later, one of that name that is yet to come is {then}",
                    it.name
                ));
            }
        }
        said
    }
}
