//! A sampled drop, as the kernel side writes it into the ring buffer.

use crate::DropKey;

/// Deepest call path kept, frames.
pub const STACK_DEPTH: usize = 32;
/// Most bytes of a packet kept.
pub const PACKET_BYTES: usize = 256;
/// Bytes of a `struct nf_conntrack_tuple` (include/net/netfilter/nf_conntrack_tuple.h, 2.6.16 to 7.2).
pub const TUPLE: usize = 40;
/// Bytes of a task's name, its final zero included (`TASK_COMM_LEN`, include/linux/sched.h).
pub const COMM: usize = 16;

/// Absent from a record: an offset that does not apply, a header that is not there.
pub const ABSENT: u16 = u16::MAX;

/// What of a [`Record`] is proved. What is not flagged is zero and means nothing.
pub mod flag {
    /// `netns` is the namespace of the packet's device, whose pointer was proved to be one.
    pub const DEVICE: u16 = 1 << 0;
    /// `netns` is the namespace of the packet's socket (the device was none, or not proved).
    pub const SOCKET_NETNS: u16 = 1 << 1;
    /// The kernel says whether the packet has a connection-tracking entry…
    pub const CONNTRACK_KNOWN: u16 = 1 << 2;
    /// …and it has one (`skb->_nfct`).
    pub const CONNTRACK: u16 = 1 << 3;
    /// `packet` begins with the link-layer header; otherwise with the network header.
    pub const LINK_HEADER: u16 = 1 << 4;
    /// `packet`, or part of what was asked for, could not be read.
    pub const UNREADABLE: u16 = 1 << 5;
    /// `iif` was read: 0 means that the packet was sent from here.
    pub const IIF: u16 = 1 << 6;
    /// `vlan` is the tag that the kernel took off the packet.
    pub const VLAN: u16 = 1 << 7;
    /// `tuples` are those of the packet's connection.
    pub const TUPLES: u16 = 1 << 8;
}

/// One sampled drop.
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Record {
    /// Monotonic time, nanoseconds (`bpf_ktime_get_ns`).
    pub time: u64,
    pub key: DropKey,
    /// [`Netns::cookie`](crate::Netns::cookie) of the key's namespace.
    pub cookie: u64,
    /// Drops at this key on this CPU since the previous sample there, this one included.
    pub weight: u64,
    /// Inode of the socket that the packet belongs to; 0 where there is none or it is not proved.
    pub socket: u64,
    /// Inode number of the network namespace; see [`flag`]. 0 where it is not proved.
    pub netns: u32,
    /// Index of the packet's device, in that namespace; 0 where it is not proved.
    pub ifindex: u32,
    /// Index of the device that the packet came in by (`skb->skb_iif`); 0 for one sent from here.
    pub iif: u32,
    pub cpu: u32,
    /// Length of the packet, bytes (`skb->len` as it was when dropped).
    pub length: u32,
    /// `skb->protocol`, in host byte order: an ethertype.
    pub protocol: u16,
    /// Bits of [`flag`].
    pub flags: u16,
    /// Bytes of `packet` that are filled.
    pub packet_len: u16,
    /// Where the network header begins in `packet`; [`ABSENT`] where it is not in it.
    pub network: u16,
    /// Frames of `stack` that are filled; 0 where it could not be read.
    pub stack_len: u16,
    /// Tag control information, host byte order; see [`flag::VLAN`].
    pub vlan: u16,
    pub spare: [u16; 4],
    /// Process of the task that ran on the CPU (`tgid`), as the initial PID namespace numbers it; 0 is
    /// the idle task.
    pub pid: u32,
    /// `skb->mark`, as rules of the packet filter and of routing see it; 0 where there is none, or it could
    /// not be read.
    pub mark: u32,
    /// The task's own name, zeros behind it; all zeros where it could not be read.
    pub comm: [u8; COMM],
    /// How connection tracking knows the packet's connection, by its first packet and by the answers;
    /// see [`flag::TUPLES`].
    pub tuples: [[u8; TUPLE]; 2],
    /// Return addresses, innermost first; begins with frames of the tracing itself.
    pub stack: [u64; STACK_DEPTH],
    /// The packet's first bytes.
    pub packet: [u8; PACKET_BYTES],
}

const _: () = assert!(size_of::<Record>() == 192 + STACK_DEPTH * 8 + PACKET_BYTES);
const _: () = assert!(align_of::<Record>() == 8);
