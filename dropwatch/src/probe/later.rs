//! Network namespaces that the packet filter waits for.

use std::io;

use dropwatch_common::filter::MOST;
use zerocopy::IntoBytes as _;

use super::{Probe, maps::Map};

/// The section of the kernel side's list, which is the name of its map.
pub(super) const LATER: &str = ".bss.later";

/// Their inode numbers, each at the place of its rule; 0 while there is none.
type Numbers = [u32; MOST];

/// The list that the program looks at.
pub(super) struct Later {
    map: Map,
    numbers: Numbers,
}

impl Later {
    /// `None` where the map has another layout.
    pub(super) fn new(map: Map) -> Option<Self> {
        let fits = map.value_size == size_of::<Numbers>();
        fits.then_some(Self { map, numbers: Numbers::default() })
    }
}

impl Probe {
    /// Has the rule `index` of `--netns` mean the namespace `inum` from now on.
    ///
    /// # Errors
    /// When the kernel refuses; nothing has changed then.
    pub fn set_netns(&mut self, index: usize, inum: u32) -> io::Result<()> {
        let mut numbers = self.later.numbers;
        let Some(number) = numbers.get_mut(index) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        *number = inum;
        // The kernel copies words, so the program sees the old or the new number, and the others as
        // they are.
        self.later.map.set(numbers.as_bytes())?;
        self.later.numbers = numbers;
        Ok(())
    }
}
