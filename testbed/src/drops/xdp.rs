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

/// A server whose link has an XDP program that drops datagrams to [`PORT`].
#[derive(Debug)]
pub struct Xdp {
    network: Network,
    /// The program is attached as long as this is open.
    _link: OwnedFd,
}

impl Xdp {
    /// # Errors
    /// As [`Network::direct`], and when the kernel refuses the program or the link (before 5.9).
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        let link = network.server().enter(|| {
            let program = load(&program()).context("cannot load an XDP program")?;
            attach(&program, LINK).context("cannot attach an XDP program")
        })?;
        Ok(Self { network, _link: link })
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

fn load(program: &[u64]) -> io::Result<OwnedFd> {
    const XDP: u32 = 6;
    let licence = CString::default();
    // union bpf_attr (include/uapi/linux/bpf.h) of BPF_PROG_LOAD: type and number of instructions,
    // where they are, the licence.
    let attributes = [
        u64::from(XDP) | (program.len() as u64) << 32,
        program.as_ptr() as u64,
        licence.as_ptr() as u64,
    ];
    // SAFETY: the kernel reads the instructions and the licence, which live beyond the call.
    unsafe { bpf(5, &attributes) }
}

fn attach(program: &OwnedFd, link: &str) -> io::Result<OwnedFd> {
    const XDP: u32 = 37;
    const SKB_MODE: u64 = 2; // XDP_FLAGS_SKB_MODE
    let index = if_nametoindex(link)?;
    // For BPF_LINK_CREATE: program and link, kind of attachment and flags.
    let attributes =
        [program.as_raw_fd() as u64 | u64::from(index) << 32, u64::from(XDP) | SKB_MODE << 32];
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
