//! A tap device, as of a virtual machine, and what is sent to it.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read as _},
    net::UdpSocket,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
};

use anyhow::{Context, Result};

use super::{Cause, PORT};
use crate::netns::Netns;

/// `TUNSETIFF` (include/uapi/linux/if_tun.h), with `IFF_TAP | IFF_NO_PI`.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TAP: libc::c_short = 0x1002;

/// A host with a tap that this process has open.
#[derive(Debug)]
pub struct Tap {
    netns: Netns,
    source: UdpSocket,
    device: File,
    reads: bool,
}

impl Tap {
    pub const NAME: &str = "tap8";
    /// Packets that wait for the process.
    pub const QUEUE: u64 = 50;
    /// The host's own, and the machine's behind the tap.
    const ADDRESSES: [&str; 2] = ["198.18.8.1", "198.18.8.2"];

    /// Nobody reads what comes.
    ///
    /// # Errors
    /// As [`Netns::new`], and without tun in the kernel.
    pub fn unread() -> Result<Self> {
        let netns = Netns::new("host")?;
        let device = netns.enter(|| open(Self::NAME))?;
        let [own, machine] = Self::ADDRESSES;
        netns.ip(&format!("address add {own}/24 dev {}", Self::NAME))?;
        netns.ip(&format!("link set {} txqueuelen {} up", Self::NAME, Self::QUEUE))?;
        netns.ip(&format!("neigh add {machine} lladdr 02:00:00:00:00:08 dev {}", Self::NAME))?;
        let source = netns.enter(|| UdpSocket::bind((own, 0)).context("cannot bind"))?;
        Ok(Self { netns, source, device, reads: false })
    }

    /// The process reads each packet before the next one is sent.
    ///
    /// # Errors
    /// As [`Tap::unread`].
    pub fn read() -> Result<Self> {
        Ok(Self { reads: true, ..Self::unread()? })
    }

    fn drain(&self) -> Result<()> {
        let mut packet = [0; 2048];
        loop {
            match (&self.device).read(&mut packet) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("cannot read the tap"),
            }
        }
    }
}

/// Makes a tap in the calling thread's namespace, which goes when the file is closed.
fn open(name: &str) -> Result<File> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .context("cannot open /dev/net/tun")?;
    // struct ifreq: a name of 16 bytes, flags.
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&TAP.to_ne_bytes());
    // SAFETY: the kernel reads and writes a `struct ifreq`, which is not larger than `request`.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
    if result != 0 {
        return Err(std::io::Error::last_os_error()).context("cannot make a tap");
    }
    Ok(device)
}

impl Cause for Tap {
    fn netns(&self) -> &Netns {
        &self.netns
    }

    fn send(&self, packets: u64) -> Result<u64> {
        for _ in 0..packets {
            self.source
                .send_to(&[0; 100], (Self::ADDRESSES[1], PORT))
                .context("cannot send a datagram")?;
            if self.reads {
                self.drain()?;
            }
        }
        Ok(packets)
    }
}
