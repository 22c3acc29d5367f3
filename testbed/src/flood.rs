//! A flood of frames that the receiving side cannot use.
//!
//! Raw frames of an ethertype that no protocol handles go through a veth pair, past the queueing
//! discipline (`PACKET_QDISC_BYPASS`), at full speed. Each dies in the peer's receive path
//! (`__netif_receive_skb_core`, UNHANDLED_PROTO), and the peer's `rx_dropped` counts it there.
//! A frame that finds the CPU's backlog full dies earlier (`enqueue_to_backlog`, CPU_BACKLOG) and
//! is in the same counter.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    net::if_::if_nametoindex,
    sched::{CpuSet, sched_setaffinity},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
    unistd::Pid,
};

use crate::{
    link::{self, LinkStats},
    netns::Netns,
    socket::set_int,
};

/// IEEE 802 local experimental ethertype 1 (RFC 9542): no protocol of the kernel handles it.
pub const ETHERTYPE: u16 = 0x88b5;

/// Frames handed to the kernel in one system call.
const BATCH: usize = 256;
/// Shortest Ethernet frame without its checksum, bytes.
const FRAME_LEN: usize = 60;
/// No flood takes longer; a machine that needs more than this is in trouble.
const PATIENCE: Duration = Duration::from_secs(60);

const OUT: &str = "out0";
const IN: &str = "in0";

/// Two namespaces joined by a veth pair, the wire of a flood.
#[derive(Debug)]
pub struct Wire {
    pub(crate) sender: Netns,
    pub(crate) receiver: Netns,
}

impl Wire {
    /// Makes the namespaces and brings both links up.
    ///
    /// # Errors
    /// Without root or `ip`, and when interrupted.
    pub fn new() -> Result<Self> {
        let wire = Self { sender: Netns::new("out")?, receiver: Netns::new("in")? };
        link::veth(&wire.sender, OUT, &wire.receiver, IN)?;
        wire.receiver.ip(&format!("link set {IN} up"))?;
        wire.sender.ip(&format!("link set {OUT} up"))?;
        Ok(wire)
    }

    /// Takes the receiving end down: what is sent from now on has no carrier and dies in the
    /// sender's own context.
    pub fn cut(&self) -> Result<()> {
        self.receiver.ip(&format!("link set {IN} down")).map(drop)
    }

    /// Has the receiving link hand its frames to `cpu` (receive packet steering).
    pub fn steer_to(&self, cpu: usize) -> Result<()> {
        let file = format!("/sys/class/net/{IN}/queues/rx-0/rps_cpus");
        let mask = format!("{:x}", 1_u64 << cpu);
        // `ip netns exec` shows the namespace's own links under /sys.
        let mut command = self.receiver.command("sh");
        command.args(["-c", &format!("echo {mask} > {file}")]);
        crate::command::output(&mut command).map(drop)
    }

    /// Sends `frames` frames from one thread on `cpu` (any CPU when `None`), as fast as it can.
    ///
    /// # Errors
    /// When the socket fails, or the frames are not out after a minute.
    pub fn flood(&self, frames: u64, cpu: Option<usize>) -> Result<Sent> {
        self.flood_of(&mut frame(SOURCE, ETHERTYPE), frames, cpu)
    }

    /// As [`Wire::flood`], of another frame.
    pub(crate) fn flood_of(
        &self,
        frame: &mut [u8],
        frames: u64,
        cpu: Option<usize>,
    ) -> Result<Sent> {
        self.sender.enter(|| {
            if let Some(cpu) = cpu {
                pin(cpu)?;
            }
            PacketSocket::open(OUT)?.send(frame, frames)
        })
    }

    /// As [`Wire::flood`], frames of these ethertypes in turn.
    ///
    /// # Errors
    /// As [`Wire::flood`].
    pub fn flood_in_turn(&self, ethertypes: &[u16], frames: u64) -> Result<Sent> {
        let mut each: Vec<_> = ethertypes.iter().map(|of| frame(SOURCE, *of)).collect();
        let mut each: Vec<&mut [u8]> = each.iter_mut().map(|frame| frame.as_mut_slice()).collect();
        self.sender.enter(|| PacketSocket::open(OUT)?.send_in_turn(&mut each, frames))
    }

    /// As [`Wire::flood`], from another source address.
    ///
    /// # Errors
    /// As [`Wire::flood`].
    pub fn flood_from(&self, source: [u8; 6], frames: u64) -> Result<Sent> {
        self.sender.enter(|| PacketSocket::open(OUT)?.send(&mut frame(source, ETHERTYPE), frames))
    }

    /// The link where the frames arrive.
    pub const RECEIVER_LINK: &str = IN;

    /// The namespace that the frames come from.
    pub fn sender(&self) -> &Netns {
        &self.sender
    }

    /// The namespace where the frames arrive.
    pub fn receiver(&self) -> &Netns {
        &self.receiver
    }

    /// Makes the receiving end a port of a bridge in its namespace.
    pub fn enslave(&self, bridge: &str) -> Result<()> {
        self.receiver.ip(&format!("link set {IN} master {bridge}")).map(drop)
    }

    /// What the receiving link counts.
    pub fn received(&self) -> Result<LinkStats> {
        link::stats(&self.receiver, IN)
    }

    /// What the sending link counts.
    pub fn sent(&self) -> Result<LinkStats> {
        link::stats(&self.sender, OUT)
    }
}

/// What became of the frames of one flood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Put on the wire.
    pub accepted: u64,
    /// Refused by the link (ENOBUFS), so freed in the sender's own context.
    pub refused: u64,
    /// For the sending alone. Entering the namespace and leaving it takes a few grace periods of RCU
    /// besides, milliseconds each.
    pub elapsed: Duration,
}

/// Keeps the calling thread on one CPU.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cpus))
        .with_context(|| format!("cannot stay on CPU {cpu}"))
}

/// A raw packet socket that sends on one link and receives nothing.
#[derive(Debug)]
pub(crate) struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens the socket in the calling thread's network namespace.
    pub(crate) fn open(link: &str) -> Result<Self> {
        let name = CString::new(link)?;
        let index = if_nametoindex(name.as_c_str()).with_context(|| format!("no link {link}"))?;
        // Without a protocol the socket never joins the receive path, where it would be a handler.
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None);
        let socket = Self(socket.context("cannot open a packet socket")?);
        socket.bypass_qdisc()?;
        socket.bind(index)?;
        Ok(socket)
    }

    /// No queue between the socket and the link, so nothing can be dropped in one.
    fn bypass_qdisc(&self) -> Result<()> {
        set_int(&self.0, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)
            .context("cannot bypass the qdisc")
    }

    fn bind(&self, index: u32) -> Result<()> {
        // SAFETY: sockaddr_ll is plain integers, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = index.try_into().context("link index out of range")?;
        // SAFETY: pointer and length describe `address`, which is of the socket's family.
        let result = unsafe {
            libc::bind(
                self.0.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        ensure!(result == 0, "cannot bind to the link: {}", io::Error::last_os_error());
        Ok(())
    }

    /// Sends one frame many times.
    pub(crate) fn send(&self, frame: &mut [u8], frames: u64) -> Result<Sent> {
        self.send_in_turn(&mut [frame], frames)
    }

    /// Sends as many frames, `each` of these in turn. A refused one is skipped.
    fn send_in_turn(&self, each: &mut [&mut [u8]], frames: u64) -> Result<Sent> {
        ensure!((1..=BATCH).contains(&each.len()), "{} kinds of frames", each.len());
        let start = Instant::now();
        let part = |frame: &mut &mut [u8]| libc::iovec {
            iov_base: frame.as_mut_ptr().cast(),
            iov_len: frame.len(),
        };
        let mut parts: Vec<libc::iovec> = each.iter_mut().map(part).collect();
        // SAFETY: mmsghdr is integers and pointers, for which zero (null) is a value.
        let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
        message.msg_hdr.msg_iovlen = 1;
        let mut batch = [message; BATCH];
        for (message, kind) in batch.iter_mut().zip((0..parts.len()).cycle()) {
            message.msg_hdr.msg_iov = &raw mut parts[kind];
        }
        // Whole turns, so that each batch begins with the first kind.
        let whole = BATCH - BATCH % parts.len();

        let mut sent = Sent::default();
        while sent.accepted + sent.refused < frames {
            let left = frames - sent.accepted - sent.refused;
            let begin = ((sent.accepted + sent.refused) % parts.len() as u64) as usize;
            let count = left.min((whole - begin) as u64) as libc::c_uint;
            let first = batch[begin..].as_mut_ptr();
            // SAFETY: `batch` holds at least `count` headers from there; each points at one of `parts`,
            // that at one of `each`, and all outlive the call. The kernel writes msg_len alone.
            let result = unsafe { libc::sendmmsg(self.0.as_raw_fd(), first, count, 0) };
            match u64::try_from(result) {
                Ok(accepted) => sent.accepted += accepted,
                // The call reports an error only for the first frame of a batch.
                Err(_) => match io::Error::last_os_error().raw_os_error() {
                    Some(libc::ENOBUFS) => sent.refused += 1,
                    Some(libc::EINTR | libc::EAGAIN) => {}
                    _ => return Err(io::Error::last_os_error()).context("cannot send frames"),
                },
            }
            sent.elapsed = start.elapsed();
            if sent.elapsed > PATIENCE {
                bail!("{sent:?} of {frames} frames after {PATIENCE:?}");
            }
        }
        Ok(sent)
    }
}

/// A locally administered address.
pub(crate) const SOURCE: [u8; 6] = [0x02, 0, 0, 0, 0, 1];

/// Broadcast, from `source`, then the ethertype and zeros.
pub(crate) fn frame(source: [u8; 6], ethertype: u16) -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&source);
    frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_carries_the_ethertype_in_network_order() {
        assert_eq!(frame(SOURCE, ETHERTYPE)[12..14], [0x88, 0xb5]);
    }
}
