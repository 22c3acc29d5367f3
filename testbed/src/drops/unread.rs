//! A socket that is closed with packets that nobody has read: housekeeping, and no loss.

use std::{
    io,
    net::UdpSocket,
    os::fd::{FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};

use super::Cause;
use crate::netns::Netns;

/// A protocol for experiments (RFC 3692), which no kernel handles.
const PROTOCOL: libc::c_int = 253;

/// A raw IP socket that fills its own queue, and is closed.
#[derive(Debug)]
pub struct Unread {
    netns: Netns,
}

impl Unread {
    /// # Errors
    /// As [`Netns::new`].
    pub fn new() -> Result<Self> {
        Ok(Self { netns: Netns::new("unread")? })
    }
}

impl Cause for Unread {
    fn netns(&self) -> &Netns {
        &self.netns
    }

    /// At most a hundred: more may find no room in the queue.
    fn send(&self, packets: u64) -> Result<u64> {
        self.netns.enter(|| {
            // SAFETY: no pointers; the descriptor is checked before it is owned.
            let fd = unsafe {
                libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, PROTOCOL)
            };
            if fd == -1 {
                return Err(io::Error::last_os_error()).context("cannot open a raw socket");
            }
            // SAFETY: `fd` is a fresh descriptor that nothing else owns. What is sent by address
            // and received whole is the same for a raw socket, whose addresses have no port.
            let socket = UdpSocket::from(unsafe { OwnedFd::from_raw_fd(fd) });
            for _ in 0..packets {
                socket.send_to(b"unread", "127.0.0.1:0").context("cannot send")?;
            }
            // Loopback delivers before a call to send returns.
            drop(socket);
            Ok(packets)
        })
    }
}
