//! Network namespaces that the packet filter waits for.

use std::io;

use dropwatch_common::filter::MOST;
use zerocopy::IntoBytes as _;

use super::maps::Map;

/// The section of the kernel side's list, which is the name of its map.
pub(super) const LATER: &str = ".bss.later";

/// Inode numbers of the namespaces to come, each at the index of its rule; 0 while there is none.
pub type Numbers = [u32; MOST];

/// The list that the program looks at. It is of no use once that is detached.
pub struct Later {
    map: Map,
    numbers: Numbers,
}

impl Later {
    /// Whether the map has the layout of the list.
    pub(super) fn fits(map: &Map) -> bool {
        map.value_size == size_of::<Numbers>()
    }

    /// `numbers` is what the program sees so far.
    pub(super) fn new(map: Map, numbers: Numbers) -> Self {
        Self { map, numbers }
    }

    /// Has the rule `index` of `--netns` mean the namespace `inum` from now on.
    ///
    /// # Errors
    /// When the kernel refuses; nothing has changed then.
    pub fn set(&mut self, index: usize, inum: u32) -> io::Result<()> {
        let mut numbers = self.numbers;
        let Some(number) = numbers.get_mut(index) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        *number = inum;
        // The kernel copies words, so the program sees the old or the new number, and the others as
        // they are.
        self.map.set(numbers.as_bytes())?;
        self.numbers = numbers;
        Ok(())
    }
}
