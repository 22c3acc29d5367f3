//! bpf(2): the few commands that are needed, each as a function that cannot be misused.
//!
//! Numbers and structures: `enum bpf_cmd` and `union bpf_attr` (include/uapi/linux/bpf.h). Nothing
//! here is newer than Linux 5.8, except for what a caller tries and does without.

use std::{
    ffi::{CStr, c_long},
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr::{self, NonNull},
};

use zerocopy::{FromBytes, Immutable, IntoBytes};

const MAP_CREATE: c_long = 0;
const MAP_LOOKUP_ELEM: c_long = 1;
const MAP_UPDATE_ELEM: c_long = 2;
const PROG_LOAD: c_long = 5;
const RAW_TRACEPOINT_OPEN: c_long = 17;
const MAP_FREEZE: c_long = 22;
const MAP_LOOKUP_BATCH: c_long = 24;

/// Memory of an array's values can be shared with user space (Linux 5.5).
pub(super) const F_MMAPABLE: u32 = 1 << 10;

const PROG_TYPE_RAW_TRACEPOINT: u32 = 17;

/// An instruction, `struct bpf_insn`.
pub(super) type Instruction = [u8; 8];

/// What a map is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct MapSpec<'a> {
    pub(super) name: &'a str,
    /// `enum bpf_map_type`.
    pub(super) kind: u32,
    /// Bytes.
    pub(super) key_size: u32,
    /// Bytes, for one CPU.
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) flags: u32,
}

pub(super) fn create_map(spec: &MapSpec<'_>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        kind: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        flags: u32,
        inner_map: u32,
        numa_node: u32,
        name: [u8; 16],
    }
    let mut attributes = Attributes {
        kind: spec.kind,
        key_size: spec.key_size,
        value_size: spec.value_size,
        max_entries: spec.max_entries,
        flags: spec.flags,
        inner_map: 0,
        numa_node: 0,
        name: name(spec.name),
    };
    // SAFETY: no pointers; the command answers with a descriptor.
    unsafe { bpf_fd(MAP_CREATE, &mut attributes) }
}

/// Loads a program of a raw tracepoint. Its code may name the descriptors of maps. What the verifier
/// says of it goes into `log`, as text with a zero behind it, if there is room for any.
pub(super) fn load_raw_tracepoint(
    program_name: &str,
    code: &[Instruction],
    license: &CStr,
    log: &mut [u8],
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        kind: u32,
        instructions: u32,
        code: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
    }
    let mut attributes = Attributes {
        kind: PROG_TYPE_RAW_TRACEPOINT,
        instructions: u32::try_from(code.len()).map_err(io::Error::other)?,
        code: address(code.as_ptr()),
        license: address(license.as_ptr()),
        log_level: u32::from(!log.is_empty()),
        log_size: u32::try_from(log.len()).map_err(io::Error::other)?,
        log: if log.is_empty() { 0 } else { address(log.as_mut_ptr()) },
        kernel_version: 0,
        flags: 0,
        name: name(program_name),
    };
    // SAFETY: the kernel reads that many instructions and the license, and writes as much of a log
    // as there is room for; all outlive the call.
    unsafe { bpf_fd(PROG_LOAD, &mut attributes) }
}

/// Attaches a program, until the descriptor that this returns is closed.
pub(super) fn attach_raw_tracepoint(
    tracepoint: &CStr,
    program: BorrowedFd<'_>,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        name: u64,
        program: u32,
        padding: u32,
    }
    let mut attributes =
        Attributes { name: address(tracepoint.as_ptr()), program: number(program), padding: 0 };
    // SAFETY: the kernel reads the name, which outlives the call.
    unsafe { bpf_fd(RAW_TRACEPOINT_OPEN, &mut attributes) }
}

/// `union bpf_attr` for commands on one element.
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Reads the value of a key into `value`.
///
/// # Safety
///
/// The map has keys of this type and values that take no more room than `value`.
pub(super) unsafe fn lookup<K: IntoBytes + Immutable, V: FromBytes>(
    map: BorrowedFd<'_>,
    key: &K,
    value: &mut [MaybeUninit<V>],
) -> io::Result<()> {
    let mut attributes = Element {
        map: number(map),
        padding: 0,
        key: address(key),
        value: address(value.as_mut_ptr()),
        flags: 0,
    };
    // SAFETY: the caller's promise.
    unsafe { bpf(MAP_LOOKUP_ELEM, &mut attributes) }.map(drop)
}

/// Replaces the only value of an array. Values have the length of `value`.
///
/// # Safety
///
/// The map is an array whose values have that length.
pub(super) unsafe fn update_only(map: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
    let index = 0_u32;
    let mut attributes = Element {
        map: number(map),
        padding: 0,
        key: address(&raw const index),
        value: address(value.as_ptr()),
        flags: 0,
    };
    // SAFETY: the caller's promise; the kernel reads an index and a value.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
}

/// Makes a map read-only for user space, for good. The verifier then knows its contents.
pub(super) fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut map = number(map);
    // SAFETY: no pointers.
    unsafe { bpf(MAP_FREEZE, &mut map) }.map(drop)
}

/// Memory of a map that the kernel shares: some values of one type, which it may change at any time.
pub(super) struct Shared<T> {
    address: NonNull<T>,
    count: usize,
}

impl<T: FromBytes> Shared<T> {
    /// # Safety
    ///
    /// The map is an array of one value that is as long as `count` of this type.
    pub(super) unsafe fn new(map: BorrowedFd<'_>, count: usize) -> io::Result<Self> {
        // SAFETY: a new place in memory, which the kernel chooses.
        let address = unsafe {
            let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
            libc::mmap(
                ptr::null_mut(),
                size_of::<T>() * count,
                protection,
                flags,
                map.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { address, count })
    }

    /// Where the values are: readable as long as this lives, and changing.
    pub(super) fn each(&self) -> impl Iterator<Item = *const T> {
        // SAFETY: within the memory.
        (0..self.count).map(|index| unsafe { self.address.add(index) }.as_ptr().cast_const())
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with that length; who had an address had it from here.
        unsafe { libc::munmap(self.address.as_ptr().cast(), size_of::<T>() * self.count) };
    }
}

// SAFETY: only reads memory, which no thread of this process changes.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

/// What a batch has read.
pub(super) struct Batch {
    /// Entries, at most what there was room for.
    pub(super) count: usize,
    /// Where the next one goes on; `None` after the last.
    pub(super) next: Option<u64>,
}

/// Reads entries of a hash map: keys, and values one after the other, from a place on.
///
/// # Errors
///
/// `ENOSPC` where one bucket has more entries than there is room for.
///
/// # Safety
///
/// The map has keys of this type, and `values` has room for the value of every key that `keys` has
/// room for.
pub(super) unsafe fn lookup_batch<K: FromBytes, V: FromBytes>(
    map: BorrowedFd<'_>,
    from: Option<u64>,
    keys: &mut [MaybeUninit<K>],
    values: &mut [MaybeUninit<V>],
) -> io::Result<Batch> {
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
    // In the kernel's own terms: four bytes, for a hash map.
    let mut next = 0_u64;
    let mut attributes = Attributes {
        from: from.as_ref().map_or(0, |from| address(from)),
        next: address(&raw mut next),
        keys: address(keys.as_mut_ptr()),
        values: address(values.as_mut_ptr()),
        count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
        map: number(map),
        element_flags: 0,
        flags: 0,
    };
    // SAFETY: the caller's promise; the kernel also writes its place.
    let result = unsafe { bpf(MAP_LOOKUP_BATCH, &mut attributes) };
    let last = match result {
        Ok(_) => false,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
        Err(error) => return Err(error),
    };
    let count = (attributes.count as usize).min(keys.len());
    Ok(Batch { count, next: (!last).then_some(next) })
}

/// Bytes of a page: the least that a ring buffer can have.
pub(super) fn page_size() -> u32 {
    // SAFETY: no pointers.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u32::try_from(size).unwrap_or(4096)
}

/// A name as the kernel keeps it: cut to 15 bytes.
fn name(text: &str) -> [u8; 16] {
    let mut name = [0; 16];
    for (to, from) in name[..15].iter_mut().zip(text.bytes()) {
        *to = from;
    }
    name
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

/// # Safety
///
/// `attributes` are those of the command, and the memory that they point to is what it needs.
unsafe fn bpf<T>(command: c_long, attributes: &mut T) -> io::Result<c_long> {
    // SAFETY: the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The same for commands that answer with a descriptor.
///
/// # Safety
///
/// As for [`bpf`], and the command answers with a new descriptor.
unsafe fn bpf_fd<T>(command: c_long, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attributes) }?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: new, and nobody else's. The kernel sets close-on-exec on it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
