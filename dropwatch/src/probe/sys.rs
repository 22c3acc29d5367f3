//! bpf(2): the few commands that are needed, each as a function that cannot be misused.
//!
//! Numbers and structures are the kernel's own (include/uapi/linux/bpf.h), as aya-obj has generated
//! bindings of them. Nothing here is newer than Linux 5.8, except for what a caller tries and does
//! without: an older kernel takes the longer structure of a newer one where the rest of it is zero
//! (`bpf_check_uarg_tail_zero`, kernel/bpf/syscall.c).

use std::{
    ffi::{CStr, c_char, c_long},
    io,
    num::NonZero,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr::NonNull,
};

use aya_obj::generated::{
    BPF_F_MMAPABLE, bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn, bpf_prog_type,
};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Memory of an array's values can be shared with user space (Linux 5.5).
pub(super) const F_MMAPABLE: u32 = BPF_F_MMAPABLE;
/// Times that a program is loaded where a signal comes between.
const LOADS: u32 = 5;

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
    let mut attributes = no_attributes();
    attributes.__bindgen_anon_1.map_type = spec.kind;
    attributes.__bindgen_anon_1.key_size = spec.key_size;
    attributes.__bindgen_anon_1.value_size = spec.value_size;
    attributes.__bindgen_anon_1.max_entries = spec.max_entries;
    attributes.__bindgen_anon_1.map_flags = spec.flags;
    attributes.__bindgen_anon_1.map_name = name(spec.name);
    // SAFETY: no pointers; the command answers with a descriptor.
    unsafe { bpf_fd(bpf_cmd::BPF_MAP_CREATE, &mut attributes) }
}

/// What the verifier knows of a tracepoint's arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arguments {
    /// They are numbers.
    Raw,
    /// They have the types of that typedef, by its number in the kernel's BTF (Linux 5.5).
    Typed(u32),
}

/// A program of a tracepoint, as it is to be loaded.
#[derive(Clone, Copy)]
pub(super) struct Code<'a> {
    pub(super) name: &'a str,
    pub(super) arguments: Arguments,
    /// May name the descriptors of maps.
    pub(super) instructions: &'a [bpf_insn],
    pub(super) license: &'a CStr,
}

/// Loads a program. What the verifier says of it goes into `log`, as text with a zero behind it, if
/// there is room for any.
///
/// The verifier gives up with `EAGAIN` where a signal waits (`do_check()`, kernel/bpf/verifier.c), which
/// says nothing of the program: so it is asked again, a few times.
pub(super) fn load(program: &Code<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    let Code { name: program_name, arguments, instructions: code, license } = *program;
    let mut attributes = no_attributes();
    let kind = match arguments {
        Arguments::Raw => bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT,
        Arguments::Typed(typedef) => {
            attributes.__bindgen_anon_3.expected_attach_type =
                bpf_attach_type::BPF_TRACE_RAW_TP as u32;
            attributes.__bindgen_anon_3.attach_btf_id = typedef;
            bpf_prog_type::BPF_PROG_TYPE_TRACING
        }
    };
    attributes.__bindgen_anon_3.prog_type = kind as u32;
    attributes.__bindgen_anon_3.insn_cnt = u32::try_from(code.len()).map_err(io::Error::other)?;
    attributes.__bindgen_anon_3.insns = address(code.as_ptr());
    attributes.__bindgen_anon_3.license = address(license.as_ptr());
    if !log.is_empty() {
        attributes.__bindgen_anon_3.log_level = 1;
        attributes.__bindgen_anon_3.log_size =
            u32::try_from(log.len()).map_err(io::Error::other)?;
        attributes.__bindgen_anon_3.log_buf = address(log.as_mut_ptr());
    }
    attributes.__bindgen_anon_3.prog_name = name(program_name);
    let mut tries = LOADS;
    loop {
        tries -= 1;
        // SAFETY: the kernel reads that many instructions and the license, and writes as much of a log
        // as there is room for; all outlive the call.
        let loaded = unsafe { bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attributes) };
        match loaded {
            Err(error) if tries > 0 && error.kind() == io::ErrorKind::WouldBlock => {}
            loaded => return loaded,
        }
    }
}

/// Attaches a program, until the descriptor that this returns is closed. One with typed arguments
/// knows its tracepoint, and takes no name.
pub(super) fn attach_tracepoint(
    tracepoint: Option<&CStr>,
    program: BorrowedFd<'_>,
) -> io::Result<OwnedFd> {
    let mut attributes = no_attributes();
    attributes.raw_tracepoint.name = tracepoint.map_or(0, |name| address(name.as_ptr()));
    attributes.raw_tracepoint.prog_fd = number(program);
    // SAFETY: the kernel reads the name, which outlives the call.
    unsafe { bpf_fd(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attributes) }
}

/// Reads the values of a key into `values`.
///
/// # Safety
///
/// The map has keys of this type and values that take no more room than `values`.
pub(super) unsafe fn lookup<K: IntoBytes + Immutable, V: FromBytes>(
    map: BorrowedFd<'_>,
    key: &K,
    values: &mut [V],
) -> io::Result<()> {
    let mut attributes = no_attributes();
    attributes.__bindgen_anon_2.map_fd = number(map);
    attributes.__bindgen_anon_2.key = address(key);
    attributes.__bindgen_anon_2.__bindgen_anon_1.value = address(values.as_mut_ptr());
    // SAFETY: the caller's promise.
    unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attributes) }.map(drop)
}

/// Replaces the only value of an array.
///
/// # Safety
///
/// The map is an array whose values have the length of `value`.
pub(super) unsafe fn update_only(map: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
    let index = 0_u32;
    let mut attributes = no_attributes();
    attributes.__bindgen_anon_2.map_fd = number(map);
    attributes.__bindgen_anon_2.key = address(&raw const index);
    attributes.__bindgen_anon_2.__bindgen_anon_1.value = address(value.as_ptr());
    // SAFETY: the caller's promise; the kernel reads an index and a value.
    unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
}

/// Makes a map read-only for user space, for good. The verifier then knows its contents.
pub(super) fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = no_attributes();
    // The kernel's own words for this command: `map_fd` alone, which is where it always is.
    attributes.__bindgen_anon_2.map_fd = number(map);
    // SAFETY: no pointers.
    unsafe { bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attributes) }.map(drop)
}

/// Memory of a map that the kernel shares: some values of one type, which it may change at any time.
pub(super) struct Shared<T> {
    address: NonNull<T>,
    count: NonZero<usize>,
}

impl<T: FromBytes> Shared<T> {
    /// # Safety
    ///
    /// The map is an array of one value that is as long as `count` of this type.
    pub(super) unsafe fn new(map: BorrowedFd<'_>, count: NonZero<usize>) -> io::Result<Self> {
        const { assert!(size_of::<T>() > 0) };
        let length = count.checked_mul(const { NonZero::new(size_of::<T>()).unwrap() });
        let length = length.ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: new memory, at an address that the kernel chooses.
        let address =
            unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self { address: address.cast(), count })
    }

    /// Where the values are: readable as long as this lives, and changing.
    pub(super) fn each(&self) -> impl Iterator<Item = *const T> {
        // SAFETY: within the memory.
        (0..self.count.get()).map(|index| unsafe { self.address.add(index) }.as_ptr().cast_const())
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with that length; who had an address had it from here.
        let unmapped = unsafe { munmap(self.address.cast(), size_of::<T>() * self.count.get()) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}

// SAFETY: only reads memory, which no thread of this process changes.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

/// Whether entries that are read stay.
#[derive(Clone, Copy, Debug)]
pub(super) enum BatchRead {
    Keep,
    Remove,
}

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
pub(super) unsafe fn read_batch<K: FromBytes, V: FromBytes>(
    map: BorrowedFd<'_>,
    read: BatchRead,
    from: Option<u64>,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<Batch> {
    // In the kernel's own terms: four bytes, for a hash map.
    let mut next = 0_u64;
    let mut attributes = no_attributes();
    attributes.batch.in_batch = from.as_ref().map_or(0, |from| address(from));
    attributes.batch.out_batch = address(&raw mut next);
    attributes.batch.keys = address(keys.as_mut_ptr());
    attributes.batch.values = address(values.as_mut_ptr());
    attributes.batch.count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
    attributes.batch.map_fd = number(map);
    let command = match read {
        BatchRead::Keep => bpf_cmd::BPF_MAP_LOOKUP_BATCH,
        BatchRead::Remove => bpf_cmd::BPF_MAP_LOOKUP_AND_DELETE_BATCH,
    };
    // SAFETY: the caller's promise; the kernel also writes its place.
    let result = unsafe { bpf(command, &mut attributes) };
    let last = match result {
        Ok(_) => false,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
        Err(error) => return Err(error),
    };
    // SAFETY: integers, which this command has read and written.
    let count = unsafe { attributes.batch.count } as usize;
    Ok(Batch { count: count.min(keys.len()), next: (!last).then_some(next) })
}

/// A name as the kernel keeps it: cut to 15 bytes.
fn name(text: &str) -> [c_char; 16] {
    let mut name = [0; 16];
    for (to, from) in name[..15].iter_mut().zip(text.bytes()) {
        *to = from as c_char;
    }
    name
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

/// Attributes that are all zero: the kernel refuses a command where a field is set that it does not
/// have, or does not know.
fn no_attributes() -> bpf_attr {
    // SAFETY: a union of structures of integers.
    unsafe { std::mem::zeroed() }
}

/// # Safety
///
/// `attributes` are those of the command, and the memory that they point to is what it needs.
unsafe fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<c_long> {
    let (command, size) = (command as c_long, size_of::<bpf_attr>());
    // SAFETY: the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Gives a command that answers with a descriptor.
///
/// # Safety
///
/// As for [`bpf`], and the command answers with a new descriptor.
unsafe fn bpf_fd(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attributes) }?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: new, and nobody else's. The kernel sets close-on-exec on it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
