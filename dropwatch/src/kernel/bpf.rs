//! BPF programs: which are attached, and what they are called (bpf(2)).
//!
//! What is attached takes `CAP_NET_ADMIN` to ask, a program's name `CAP_SYS_ADMIN`.

use std::{
    ffi::CStr,
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use super::clean;
use crate::report::device::Program;

/// Commands (`enum bpf_cmd`, include/uapi/linux/bpf.h).
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
/// Where programs are attached (`enum bpf_attach_type` of the same).
const CGROUP_INET_INGRESS: u32 = 0;
const CGROUP_INET_EGRESS: u32 = 1;
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
/// Those of the groups above, too (`BPF_F_QUERY_EFFECTIVE`).
const EFFECTIVE: u32 = 1;
/// Most programs of one place; the kernel allows as many for a control group and for a device
/// (`BPF_CGROUP_MAX_PROGS`, kernel/bpf/cgroup.c; `BPF_MPROG_MAX`, include/linux/bpf_mprog.h).
const MOST: usize = 64;
/// `struct bpf_prog_info` up to its name, and the name.
const NAME_AT: usize = 64;
const NAME: usize = 16;

/// Room for any `union bpf_attr` that is used here: the kernel writes into it beyond what it is told that
/// it may read, and takes zeros for what is not said.
#[repr(C, align(8))]
struct Attributes([u32; 32]);

/// What a query is about.
pub(super) enum AttachedTo<'a> {
    /// A control group, by its folder.
    Group { folder: &'a File, effective: bool },
    /// The device with this index, in the calling thread's namespace.
    Device(u32),
}

/// Numbers of the programs that decide over packets on their way out (`egress`) or in.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`; `EINVAL` where the kernel has no such programs.
pub(super) fn attached(to: &AttachedTo<'_>, egress: bool) -> io::Result<Vec<u32>> {
    let (target, kind, flags) = match to {
        AttachedTo::Group { folder, effective } => {
            let kind = if egress { CGROUP_INET_EGRESS } else { CGROUP_INET_INGRESS };
            (folder.as_raw_fd().cast_unsigned(), kind, if *effective { EFFECTIVE } else { 0 })
        }
        AttachedTo::Device(index) => (*index, if egress { TCX_EGRESS } else { TCX_INGRESS }, 0),
    };
    let mut ids = [0_u32; MOST];
    let [low, high] = halves(ids.as_mut_ptr() as u64);
    let mut attributes = Attributes([0; 32]);
    // target, attach_type, query_flags, attach_flags, prog_ids, prog_cnt.
    attributes.0[..7].copy_from_slice(&[target, kind, flags, 0, low, high, MOST as u32]);
    // SAFETY: `ids` has room for as many numbers as the kernel is told, and lives beyond the call.
    unsafe { bpf(PROG_QUERY, &mut attributes)? };
    let count = (attributes.0[6] as usize).min(MOST);
    Ok(ids[..count].to_vec())
}

/// The program with this number; without a name where that may not be read.
pub(super) fn program(id: u32) -> Program {
    Program { id, name: name(id).ok().filter(|name| !name.is_empty()) }
}

fn name(id: u32) -> io::Result<String> {
    let mut attributes = Attributes([0; 32]);
    attributes.0[0] = id;
    // SAFETY: there is nothing in it that points anywhere.
    let fd = unsafe { bpf(PROG_GET_FD_BY_ID, &mut attributes)? };
    // SAFETY: the kernel has just opened it for us alone.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut info = [0_u8; NAME_AT + NAME];
    let [low, high] = halves(info.as_mut_ptr() as u64);
    let mut attributes = Attributes([0; 32]);
    // bpf_fd, info_len, info.
    attributes.0[..4].copy_from_slice(&[
        program.as_raw_fd().cast_unsigned(),
        info.len() as u32,
        low,
        high,
    ]);
    // SAFETY: `info` has as many bytes as the kernel is told, lives beyond the call, and asks with zeros
    // for nothing that would be written elsewhere.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attributes)? };
    let text = CStr::from_bytes_until_nul(&info[NAME_AT..]).map_err(io::Error::other)?;
    Ok(clean(&text.to_string_lossy()))
}

/// A 64-bit number as two fields of 32 bits hold it.
fn halves(number: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

/// The system call; returns its result, which for some commands is a descriptor.
///
/// # Safety
/// What `attributes` point to must be what the command expects. Neither nix nor rustix has this call, and
/// aya, which has, belongs to the probe.
unsafe fn bpf(command: libc::c_long, attributes: &mut Attributes) -> io::Result<RawFd> {
    let size = size_of::<Attributes>() as libc::c_uint;
    // SAFETY: pointer and length describe `attributes`; what they point to is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.0.as_mut_ptr(), size) };
    match RawFd::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_halves_in_order() {
        let [low, high] = halves(0x0102_0304_0506_0708);
        let bytes = [low.to_ne_bytes(), high.to_ne_bytes()].concat();
        assert_eq!(bytes, 0x0102_0304_0506_0708_u64.to_ne_bytes());
    }

    #[test]
    fn a_program_that_is_not_there_has_no_name() {
        assert_eq!(program(u32::MAX), Program { id: u32::MAX, name: None });
    }

    #[test]
    fn what_is_no_control_group_has_no_programs() {
        let folder = File::open("/").expect("a folder");
        let query = |effective| attached(&AttachedTo::Group { folder: &folder, effective }, true);
        assert!(query(false).is_err() && query(true).is_err());
    }
}
