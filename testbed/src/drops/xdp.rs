//! A program at the receiving link, before the packet has come to the protocols: XDP, in the mode
//! that needs no driver (generic), so that a drop is one of a packet and has an event.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;

use super::{
    Cause, PORT,
    network::{CLIENT, LINK, Network, SERVER},
};
use crate::netns::Netns;

/// `BPF_PROG_TYPE_XDP`, `BPF_XDP` and `XDP_FLAGS_SKB_MODE` (include/uapi/linux/bpf.h, if_link.h).
const XDP: u32 = 6;
const XDP_LINK: u32 = 37;
const SKB_MODE: u32 = 2;

/// A server whose link has an XDP program that drops datagrams to [`PORT`].
#[derive(Debug)]
pub struct Xdp {
    network: Network,
    /// The program is attached as long as this is open.
    link: Option<OwnedFd>,
}

impl Xdp {
    /// # Errors
    /// As [`Network::direct`], and when the kernel refuses the program or the link (before 5.9).
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        let link = network.server().enter(|| {
            let program = load(XDP, "refuse", &program()).context("cannot load an XDP program")?;
            let index = if_nametoindex(LINK)?;
            attach(&program, index, XDP_LINK, SKB_MODE).context("cannot attach an XDP program")
        })?;
        network.listen(SERVER)?;
        Ok(Self { network, link: Some(link) })
    }

    /// The program is taken off.
    pub fn open(&mut self) {
        self.link = None;
    }
}

impl Cause for Xdp {
    fn netns(&self) -> &Netns {
        self.network.server()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        self.network.datagrams(&self.network.source(CLIENT)?, (SERVER, PORT), packets)
    }
}

/// One instruction (`struct bpf_insn`): operation, registers (source, destination), jump, number.
fn instruction(code: u8, source: u8, destination: u8, offset: i16, number: i32) -> u64 {
    u64::from(code)
        | u64::from(source << 4 | destination) << 8
        | u64::from(offset as u16) << 16
        | u64::from(number as u32) << 32
}

/// Returns 1 (XDP_DROP) for UDP over IPv4 to [`PORT`], else 2 (XDP_PASS). Offsets are from the
/// Ethernet header on, of an IPv4 packet without options.
fn program() -> [u64; 12] {
    let port = PORT.to_be().to_ne_bytes();
    [
        instruction(0x61, 1, 2, 0, 0),  // r2 = packet (xdp_md.data)
        instruction(0x61, 1, 3, 4, 0),  // r3 = its end (xdp_md.data_end)
        instruction(0xb7, 0, 0, 0, 2),  // r0 = XDP_PASS
        instruction(0xbf, 2, 4, 0, 0),  // r4 = r2
        instruction(0x07, 0, 4, 0, 38), // r4 += 38, the end of the port
        instruction(0x2d, 3, 4, 5, 0),  // r4 > r3, beyond the end: exit
        instruction(0x71, 2, 5, 23, 0), // r5 = the protocol
        instruction(0x55, 0, 5, 3, 17), // not UDP: exit
        instruction(0x69, 2, 5, 36, 0), // r5 = the port, as it is on the wire
        instruction(0x55, 0, 5, 1, i32::from(u16::from_ne_bytes(port))), // another: exit
        instruction(0xb7, 0, 0, 0, 1),  // r0 = XDP_DROP
        instruction(0x95, 0, 0, 0, 0),  // exit
    ]
}

/// Loads a program of this kind (`enum bpf_prog_type`).
pub(super) fn load(kind: u32, name: &str, program: &[u64]) -> io::Result<OwnedFd> {
    let licence = CString::default();
    let mut called = [0_u8; 16];
    called[..name.len()].copy_from_slice(name.as_bytes());
    let (first, second) = called.split_at(8);
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
    // union bpf_attr (include/uapi/linux/bpf.h) of BPF_PROG_LOAD: type and number of instructions,
    // where they are, the licence; nothing is logged, no version, no flags; the name.
    let attributes = [
        u64::from(kind) | (program.len() as u64) << 32,
        program.as_ptr() as u64,
        licence.as_ptr() as u64,
        0,
        0,
        0,
        word(first),
        word(second),
    ];
    // SAFETY: the kernel reads the instructions and the licence, which live beyond the call.
    unsafe { bpf(5, &attributes) }
}

/// Attaches a program to a device, by index, or to an open control group, as long as the result is open.
pub(super) fn attach(program: &OwnedFd, target: u32, kind: u32, flags: u32) -> io::Result<OwnedFd> {
    // For BPF_LINK_CREATE: program and target, kind of attachment and flags.
    let attributes = [
        program.as_raw_fd() as u64 | u64::from(target) << 32,
        u64::from(kind) | u64::from(flags) << 32,
    ];
    // SAFETY: there is nothing in it that points anywhere.
    unsafe { bpf(28, &attributes) }
}

/// The system call, for commands that return a descriptor.
///
/// # Safety
/// What `attributes` point to must be what the command expects.
unsafe fn bpf(command: libc::c_int, attributes: &[u64]) -> io::Result<OwnedFd> {
    // SAFETY: pointer and length describe `attributes`, which the kernel only reads for these
    // commands; what they point to is the caller's promise.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            size_of_val(attributes) as libc::c_uint,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(result as libc::c_int) })
}
