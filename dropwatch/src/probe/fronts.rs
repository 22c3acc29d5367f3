//! The front caches, in memory that the kernel shares with this process: no system call reads them.

use std::{io, num::NonZero, os::fd::AsFd as _};

use dropwatch_common::{
    Counter,
    count::{Front, SLOTS, Slot},
};

use super::{maps::Map, sys::Shared};

/// The front cache of every CPU that can be.
pub(super) struct Fronts {
    memory: Shared<Front>,
}

impl Fronts {
    /// `None` where the map's value has no room for so many.
    pub(super) fn new(map: &Map, cpus: usize) -> io::Result<Option<Self>> {
        if map.value_size != size_of::<Front>() * cpus {
            return Ok(None);
        }
        let Some(cpus) = NonZero::new(cpus) else { return Ok(None) };
        // SAFETY: an array of one value, which has that size.
        let memory = unsafe { Shared::new(map.fd.as_fd(), cpus) }?;
        Ok(Some(Self { memory }))
    }

    /// Every slot that has a key, with the number of its CPU and its own.
    pub(super) fn each(&self, mut each: impl FnMut(u32, u32, &Slot)) {
        for (cpu, front) in (0..).zip(self.memory.each()) {
            for (number, index) in (0..).zip(0..SLOTS) {
                // SAFETY: within the front cache. Volatile, word by word, because the kernel side
                // writes meanwhile: each word is whole, and a key is never changed.
                let slot = unsafe {
                    let slot = (&raw const (*front).slots).cast::<Slot>().add(index);
                    Slot {
                        tag: (&raw const (*slot).tag).read_volatile(),
                        location: (&raw const (*slot).location).read_volatile(),
                        // In this order: the namespace of a count is noted before it is counted.
                        counter: Counter {
                            count: (&raw const (*slot).counter.count).read_volatile(),
                            cookie: (&raw const (*slot).counter.cookie).read_volatile(),
                            ..Counter::default()
                        },
                        ..Slot::default()
                    }
                };
                if slot.tag != 0 {
                    each(cpu, number, &slot);
                }
            }
        }
    }
}
