//! The least that a program at the tracepoint can cost: one that does nothing.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};

/// `enum bpf_cmd` and `enum bpf_prog_type` (include/uapi/linux/bpf.h).
const PROG_LOAD: libc::c_int = 5;
const RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const RAW_TRACEPOINT: u32 = 17;
/// `r0 = 0; exit`, of `struct bpf_insn`.
const INSTRUCTIONS: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// An empty program that is attached to `skb:kfree_skb`, until dropped.
pub(super) struct Empty {
    _program: OwnedFd,
    _link: OwnedFd,
}

/// The beginning of `union bpf_attr` for [`PROG_LOAD`].
#[repr(C)]
#[derive(Default)]
struct Load {
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

/// The same for [`RAW_TRACEPOINT_OPEN`].
#[repr(C)]
struct Open {
    name: u64,
    program: u32,
    zero: u32,
}

impl Empty {
    pub(super) fn attach() -> Result<Self> {
        let license = c"Dual MIT/GPL";
        let mut load = Load {
            kind: RAW_TRACEPOINT,
            instructions: INSTRUCTIONS.len() as u32,
            code: INSTRUCTIONS.as_ptr() as u64,
            license: license.as_ptr() as u64,
            ..Load::default()
        };
        load.name[..5].copy_from_slice(b"empty");
        let program = bpf(PROG_LOAD, &load).context("cannot load an empty program")?;
        let open = Open {
            name: c"kfree_skb".as_ptr() as u64,
            program: program.as_raw_fd() as u32,
            zero: 0,
        };
        let link = bpf(RAW_TRACEPOINT_OPEN, &open).context("cannot attach an empty program")?;
        Ok(Self { _program: program, _link: link })
    }
}

/// A call of bpf(2) that makes a descriptor.
fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: both commands read `attributes` for its size and the memory that it points to, all
    // of which outlives the call, and write nothing.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    let fd = i32::try_from(result).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
