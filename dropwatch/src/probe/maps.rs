//! Reading the counter maps whole, with few system calls.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, OwnedFd},
};

use aya_obj::generated::bpf_map_type;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::sys::{self, BatchRead, MapSpec};

/// Memory for the values of one batch, bytes.
const BATCH_BYTES: usize = 1 << 20;
/// Entries of a batch at least, however many CPUs there are.
const BATCH_LEAST: usize = 64;
/// Room for entries that no bucket can exceed: maps here have fewer.
const BATCH_MOST: usize = 1 << 16;

/// A map, as it was created.
pub(super) struct Map {
    pub(super) fd: OwnedFd,
    /// `enum bpf_map_type`.
    kind: u32,
    /// Bytes.
    pub(super) key_size: usize,
    /// Bytes, for one CPU.
    pub(super) value_size: usize,
}

impl Map {
    pub(super) fn create(spec: &MapSpec<'_>) -> io::Result<Self> {
        let (key_size, value_size) = (spec.key_size as usize, spec.value_size as usize);
        Ok(Self { fd: sys::create_map(spec)?, kind: spec.kind, key_size, value_size })
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, ..*self })
    }

    /// Replaces the only value of an array.
    ///
    /// # Errors
    /// `InvalidInput` where this is no array of values with that length, or what the kernel says.
    pub(super) fn set(&self, value: &[u8]) -> io::Result<()> {
        if self.kind != bpf_map_type::BPF_MAP_TYPE_ARRAY as u32 || self.value_size != value.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: an array of values with that length.
        unsafe { sys::update_only(self.fd.as_fd(), value) }
    }
}

/// A map with a value for each possible CPU, or with one for all.
pub(super) struct PerCpuMap<K, V> {
    map: OwnedFd,
    /// Possible CPUs, or 1: the kernel writes that many values for a key.
    cpus: usize,
    types: PhantomData<(K, V)>,
}

impl<K: FromBytes + IntoBytes + Immutable + Copy, V: FromBytes> PerCpuMap<K, V> {
    /// `None` where the map's keys or values do not have the size of these types, which the kernel
    /// would write beyond.
    pub(super) fn new(map: Map, cpus: usize) -> Option<Self> {
        // The kernel rounds the value of each CPU up to eight bytes.
        const { assert!(size_of::<V>().is_multiple_of(8), "values without gaps") };
        let fits = map.key_size == size_of::<K>() && map.value_size == size_of::<V>();
        fits.then_some(Self { map: map.fd, cpus, types: PhantomData })
    }

    /// The values of one entry, in the order of the CPUs.
    pub(super) fn entry(&self, key: K) -> io::Result<Vec<V>> {
        let mut values = zeroed(self.cpus)?;
        // SAFETY: keys and values have these types, as `new` has seen, and there is room for a
        // value of each possible CPU.
        unsafe { sys::lookup(self.map.as_fd(), &key, &mut values) }?;
        Ok(values)
    }

    /// Calls `each` with every key of a hash map and its values, in the order of the CPUs.
    ///
    /// Entries must not be removed meanwhile. Buckets are read whole, one after the other, so an
    /// entry that was there at the start comes exactly once.
    pub(super) fn each(&self, each: impl FnMut(K, &[V])) -> io::Result<()> {
        self.batches(BatchRead::Keep, each)
    }

    /// Calls `each` with every key of a hash map and its values, and removes it. No entry that was
    /// there at the start is left out, whoever adds others meanwhile.
    pub(super) fn take_each(&self, each: impl FnMut(K, &[V])) -> io::Result<()> {
        self.batches(BatchRead::Remove, each)
    }

    fn batches(&self, read: BatchRead, mut each: impl FnMut(K, &[V])) -> io::Result<()> {
        let fitting = BATCH_BYTES / (size_of::<V>() * self.cpus);
        let mut room = fitting.clamp(BATCH_LEAST, BATCH_MOST);
        let (mut keys, mut values) = (zeroed::<K>(room)?, zeroed::<V>(room * self.cpus)?);
        let mut from = None;
        loop {
            // SAFETY: keys and values have these types, as `new` has seen, and there is room for the
            // values of every key.
            let batch =
                unsafe { sys::read_batch(self.map.as_fd(), read, from, &mut keys, &mut values) };
            let batch = match batch {
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && room < BATCH_MOST => {
                    room *= 2;
                    (keys, values) = (zeroed(room)?, zeroed(room * self.cpus)?);
                    continue;
                }
                batch => batch?,
            };
            for (key, values) in keys[..batch.count].iter().zip(values.chunks_exact(self.cpus)) {
                each(*key, values);
            }
            match batch.next {
                Some(next) => from = Some(next),
                None => return Ok(()),
            }
        }
    }
}

/// Room for the kernel to write into.
fn zeroed<T: FromZeros>(count: usize) -> io::Result<Vec<T>> {
    T::new_vec_zeroed(count).map_err(|_| io::ErrorKind::OutOfMemory.into())
}
