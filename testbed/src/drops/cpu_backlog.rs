//! A burst that is longer than the input queue of a CPU.
//!
//! The answer to a long ping is sent while the CPU empties its input queue: all fragments of it go
//! through the veth pair into that same queue, which is not looked at meanwhile.

use std::{
    net::SocketAddrV4,
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use nix::{
    sched::sched_getcpu,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, socket,
    },
};

use super::{
    frame::internet_checksum,
    network::{Network, SERVER},
};
use crate::{flood::pin, host_value::HostValue};

/// A host whose CPUs take in no more than a few packets at once.
#[derive(Debug)]
pub struct ShortQueue {
    network: Network,
    _limit: HostValue,
}

impl ShortQueue {
    const SHORT: &str = "5";
    /// An echo request with so many bytes of data is 14 fragments over links of 1,500.
    const DATA: usize = 20_000;

    /// # Errors
    /// As [`Network::direct`], and when another run has changed the host's limit.
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        let limit = HostValue::set("net/core/netdev_max_backlog", Self::SHORT)?;
        Ok(Self { network, _limit: limit })
    }

    /// Sends so many long pings from the client, and returns how many were answered.
    ///
    /// # Errors
    /// When they cannot be sent.
    pub fn ping(&self, times: u64) -> Result<u64> {
        let request = echo_request(Self::DATA);
        self.network.client().enter(|| {
            pin(sched_getcpu()?)?;
            let socket: OwnedFd = socket(
                AddressFamily::Inet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::Icmp,
            )
            .context("cannot open a raw socket")?;
            let server = SockaddrIn::from(SocketAddrV4::new(SERVER, 0));
            let mut answer = vec![0; 2 * Self::DATA];
            let mut answered = 0;
            for _ in 0..times {
                sendto(socket.as_raw_fd(), &request, &server, MsgFlags::empty())
                    .context("cannot send a ping")?;
                // The answer is there before the system call returns, or never comes.
                while recv(socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT).is_ok() {
                    answered += 1;
                }
            }
            Ok(answered)
        })
    }
}

/// RFC 792: type 8, code 0, checksum, identifier, sequence number.
fn echo_request(data: usize) -> Vec<u8> {
    let mut message = vec![0; 8];
    message[0] = 8;
    message.resize(8 + data, 7);
    let checksum = internet_checksum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_request_sums_up() {
        let message = echo_request(4);
        assert_eq!((message[0], message.len()), (8, 12));
        assert_eq!(internet_checksum(&message), 0);
    }
}
