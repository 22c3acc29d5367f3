//! Network namespaces to filter by that were not there when the run began.
//!
//! The kernel tells nobody that one was given a name, so the name is looked up again and again: a
//! few system calls each time. A name that another namespace has got meanwhile means that one.

use std::time::{Duration, Instant};

use crate::{filter::Packets, kernel::Namespaces};

/// Time between two looks. What a namespace drops before the first one that sees it is not counted.
const EVERY: Duration = Duration::from_millis(25);

/// Those to come, and those that have come since.
pub struct Awaited {
    names: Vec<Name>,
    next: Instant,
}

struct Name {
    /// Of its rule among those of `--netns`.
    index: usize,
    name: String,
    /// `None` while there is none.
    inum: Option<u32>,
}

/// A name that stands for another namespace than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Of its rule among those of `--netns`.
    pub index: usize,
    pub name: String,
    /// `None` where it stands for none any more.
    pub inum: Option<u32>,
}

impl Awaited {
    /// The namespaces of `packets` that have no number among `inums`.
    pub fn new(packets: &Packets, inums: &[Option<u32>]) -> Self {
        let names = packets.netns.iter().zip(inums).enumerate();
        let names = names
            .filter(|(_, (_, inum))| inum.is_none())
            .map(|(index, (choice, _))| Name { index, name: choice.value.clone(), inum: None });
        Self { names: names.collect(), next: Instant::now() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// When it is time to look; `None` where there is nothing to look for.
    pub fn due(&self) -> Option<Instant> {
        (!self.is_empty()).then_some(self.next)
    }

    /// Looks every name up, and returns those that stand for another namespace now.
    pub fn look(&mut self, namespaces: &Namespaces) -> Vec<Change> {
        self.next = Instant::now() + EVERY;
        let mut changes = Vec::new();
        for Name { index, name, inum } in &mut self.names {
            let found = namespaces.named(name);
            if *inum != found {
                *inum = found;
                changes.push(Change { index: *index, name: name.clone(), inum: found });
            }
        }
        changes
    }
}
