//! Network namespaces that the packet filter waits for.

use std::io;

use dropwatch_common::filter::{LATER as NOT_YET, MOST, NetnsValue};
use zerocopy::IntoBytes as _;

use super::maps::Map;

/// The section of the kernel side's list, which is the name of its map.
pub(super) const LATER: &str = ".bss.later";

/// The namespaces to come, each at the index of its rule; of number [`NOT_YET`] while there is none.
pub type Awaited = [NetnsValue; MOST];

/// None has come.
pub const NONE: Awaited = [NetnsValue::any(NOT_YET); MOST];

/// The list that the program looks at. It is of no use once that is detached.
pub struct Later {
    map: Map,
    all: Awaited,
}

impl Later {
    /// Whether the map has the layout of the list.
    pub(super) fn fits(map: &Map) -> bool {
        map.value_size == size_of::<Awaited>()
    }

    /// `all` is what the program sees so far.
    pub(super) fn new(map: Map, all: Awaited) -> Self {
        Self { map, all }
    }

    /// Has the rule `index` of `--netns` mean the namespace `netns` from now on.
    ///
    /// # Errors
    /// When the kernel refuses; the rule means the old one, or none.
    pub fn set(&mut self, index: usize, netns: NetnsValue) -> io::Result<()> {
        let old = *self.all.get(index).ok_or(io::ErrorKind::InvalidInput)?;
        // The kernel copies words, one after the other, while the program may look: it must not see the
        // number of one namespace beside the cookie of another.
        let [mut without, mut hidden] = [old, netns];
        (without.inum, hidden.inum) = (NOT_YET, NOT_YET);
        for value in [without, hidden, netns] {
            let mut all = self.all;
            if let Some(it) = all.get_mut(index) {
                *it = value;
            }
            self.map.set(all.as_bytes())?;
            self.all = all;
        }
        Ok(())
    }
}
