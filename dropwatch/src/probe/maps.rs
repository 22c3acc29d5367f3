//! Reading the counter maps whole, with few system calls: aya asks twice for each key.

use std::{
    ffi::c_int,
    io,
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd},
};

use aya::{
    Pod,
    maps::{MapData, MapError},
};

/// `enum bpf_cmd` (include/uapi/linux/bpf.h).
const LOOKUP_ELEM: c_int = 1;
/// Linux 5.6.
const LOOKUP_BATCH: c_int = 24;
/// Memory for the values of one batch, bytes.
const BATCH_BYTES: usize = 1 << 20;
/// Entries of a batch at least, however many CPUs there are.
const BATCH_LEAST: usize = 64;
/// Room for entries that no bucket can exceed: maps here have fewer.
const BATCH_MOST: usize = 1 << 16;

/// A map with a value for each possible CPU.
pub(super) struct PerCpuMap<K, V> {
    map: MapData,
    /// Possible CPUs: the kernel writes that many values for a key.
    cpus: usize,
    types: PhantomData<(K, V)>,
}

impl<K: Pod, V: Pod> PerCpuMap<K, V> {
    /// # Errors
    ///
    /// Where the map's keys or values do not have the size of these types, which the kernel would
    /// write beyond.
    pub(super) fn new(map: MapData, cpus: usize) -> Result<Self, MapError> {
        // The kernel rounds the value of each CPU up to eight bytes.
        const { assert!(size_of::<V>().is_multiple_of(8), "values without gaps") };
        let info = map.info()?;
        let (key, value) = (info.key_size() as usize, info.value_size() as usize);
        if key != size_of::<K>() {
            return Err(MapError::InvalidKeySize { size: size_of::<K>(), expected: key });
        }
        if value != size_of::<V>() {
            return Err(MapError::InvalidValueSize { size: size_of::<V>(), expected: value });
        }
        Ok(Self { map, cpus, types: PhantomData })
    }

    fn fd(&self) -> u32 {
        self.map.fd().as_fd().as_raw_fd().cast_unsigned()
    }

    /// The values of one entry, in the order of the CPUs.
    pub(super) fn entry(&self, key: K) -> io::Result<Vec<V>> {
        #[repr(C)]
        struct Attributes {
            map: u32,
            padding: u32,
            key: u64,
            value: u64,
            flags: u64,
        }
        let mut values = Vec::<V>::with_capacity(self.cpus);
        let mut attributes = Attributes {
            map: self.fd(),
            padding: 0,
            key: address(&raw const key),
            value: address(values.as_mut_ptr()),
            flags: 0,
        };
        // SAFETY: the kernel reads a key and writes a value for each possible CPU; there is room
        // for them, and both outlive the call.
        unsafe { bpf(LOOKUP_ELEM, &mut attributes) }?;
        // SAFETY: written now, and any bytes are a valid value.
        unsafe { values.set_len(self.cpus) };
        Ok(values)
    }

    /// Calls `each` with every key of a hash map and its values, in the order of the CPUs.
    ///
    /// Entries must not be removed meanwhile. Buckets are read whole, one after the other, so an
    /// entry that was there at the start comes exactly once.
    pub(super) fn each(&self, mut each: impl FnMut(K, &[V])) -> io::Result<()> {
        /// `struct { … } batch` of `union bpf_attr`.
        #[repr(C)]
        struct Attributes {
            from: u64,
            next: u64,
            keys: u64,
            values: u64,
            count: u32,
            map: u32,
            element_flags: u64,
            flags: u64,
        }
        let fitting = BATCH_BYTES / (size_of::<V>() * self.cpus);
        let mut room = fitting.clamp(BATCH_LEAST, BATCH_MOST);
        // Where the kernel is, in its own terms: four bytes, for a hash map.
        let mut from: Option<u64> = None;
        loop {
            let mut next = 0_u64;
            let mut keys = Vec::<K>::with_capacity(room);
            let mut values = Vec::<V>::with_capacity(room * self.cpus);
            let mut attributes = Attributes {
                from: from.as_ref().map_or(0, |from| address(from)),
                next: address(&raw mut next),
                keys: address(keys.as_mut_ptr()),
                values: address(values.as_mut_ptr()),
                count: room as u32,
                map: self.fd(),
                element_flags: 0,
                flags: 0,
            };
            // SAFETY: the kernel writes at most `count` keys and their values, for which there is
            // room, and its place; it reads `from` and changes `count`. All outlive the call.
            let result = unsafe { bpf(LOOKUP_BATCH, &mut attributes) };
            let last = match result.as_ref().map_err(io::Error::raw_os_error) {
                Ok(()) => false,
                Err(Some(libc::ENOENT)) => true,
                // One bucket has more entries than there was room for.
                Err(Some(libc::ENOSPC)) if room < BATCH_MOST => {
                    room *= 2;
                    continue;
                }
                Err(_) => return result,
            };
            let count = (attributes.count as usize).min(room);
            // SAFETY: the kernel has written that many, and any bytes are a valid key or value.
            unsafe {
                keys.set_len(count);
                values.set_len(count * self.cpus);
            }
            for (key, values) in keys.iter().zip(values.chunks_exact(self.cpus)) {
                each(*key, values);
            }
            if last {
                return Ok(());
            }
            from = Some(next);
        }
    }
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

/// bpf(2), for commands that answer with zero.
///
/// # Safety
///
/// `attributes` are those of the command, and the memory that they point to is what it needs.
unsafe fn bpf<T>(command: c_int, attributes: &mut T) -> io::Result<()> {
    // SAFETY: the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
