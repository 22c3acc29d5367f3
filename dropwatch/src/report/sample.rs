//! One dropped packet in detail, decoded from what the kernel side wrote.
//!
//! Counts never come from samples: a sample says who and on which path, for the `weight` drops
//! that it stands for.

use std::{collections::HashSet, time::Duration};

use dropwatch_common::{
    DropKey, NO_COOKIE, Netns,
    sample::{ABSENT, COMM, Record, STACK_DEPTH, TUPLE, flag},
};
use jiff::Timestamp;
use zerocopy::FromBytes;

/// A sampled drop. What the kernel side could not prove is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Monotonic time of the drop, nanoseconds (`CLOCK_MONOTONIC`).
    pub time: u64,
    pub key: DropKey,
    /// Drops that this sample stands for, itself included; at least 1.
    pub weight: u64,
    /// Of these, those of the interval before, after the last sample there.
    pub carried: u64,
    /// Number of the network namespace in this run.
    pub netns: Option<u32>,
    /// Index of the device, in that namespace.
    pub ifindex: Option<u32>,
    /// Whether the packet was sent from this host: it came in by no device.
    pub outgoing: Option<bool>,
    pub cpu: u32,
    /// Length of the packet, bytes.
    pub length: u32,
    /// Ethertype.
    pub protocol: u16,
    /// Whether connection tracking has an entry for it; `None` where the kernel does not say.
    pub conntrack: Option<bool>,
    /// How connection tracking knows its connection, by its first packet and by the answers, as the
    /// kernel has it (`struct nf_conntrack_tuple`).
    pub tuples: Option<[[u8; TUPLE]; 2]>,
    /// Inode of its socket.
    pub socket: Option<u64>,
    /// VLAN that the kernel took off the packet and keeps beside it (12 bits).
    pub vlan: Option<u16>,
    /// Its mark, by which rules choose (`skb->mark`); 0 where it has none.
    pub mark: u32,
    /// The task that ran on the CPU; `None` where it could not be read.
    pub task: Option<RunningTask>,
    /// Return addresses, innermost first, beginning at the drop location; empty if unreadable.
    pub stack: Vec<u64>,
    /// First bytes of the packet.
    pub packet: Vec<u8>,
    /// Whether `packet` begins with an Ethernet header.
    pub link_header: bool,
    /// Where the network header begins in `packet`.
    pub network: Option<usize>,
}

/// The task that ran on a CPU when a packet was dropped there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunningTask {
    /// Its own name (`task_struct.comm`), which may be that of a thread.
    pub comm: String,
    /// Its process, as the initial PID namespace numbers it; 0 is the idle task.
    pub pid: u32,
}

impl RunningTask {
    fn decode(comm: [u8; COMM], pid: u32) -> Option<Self> {
        let end = comm.iter().position(|byte| *byte == 0).unwrap_or(COMM);
        let comm = String::from_utf8_lossy(comm.get(..end)?).into_owned();
        (!comm.is_empty()).then_some(Self { comm, pid })
    }
}

/// Two clocks read at one moment, which give the wall-clock time of what happened in the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// When the run began (`CLOCK_MONOTONIC`, nanoseconds, as in [`Sample::time`]).
    pub attached: u64,
    /// Monotonic time since then.
    pub since_attach: Duration,
    /// Wall-clock time of the same moment.
    pub wall: Timestamp,
}

impl Clock {
    /// Monotonic time from the beginning of the run to `time` of the kernel's clock.
    pub fn since_attach(&self, time: u64) -> Duration {
        Duration::from_nanos(time.saturating_sub(self.attached))
    }

    /// Wall-clock time at `time` of the kernel's clock, as the wall clock is set at this moment.
    pub fn wall(&self, time: u64) -> Timestamp {
        let now = i128::try_from(self.since_attach.as_nanos()).unwrap_or(i128::MAX);
        let then = i128::from(time) - i128::from(self.attached);
        let nanos = self.wall.as_nanosecond().saturating_sub(now).saturating_add(then);
        Timestamp::from_nanosecond(nanos).unwrap_or(self.wall)
    }
}

impl Sample {
    /// Marks what the first samples of an interval stand for beyond themselves: the first drop of a key on
    /// a CPU in an interval is always sampled, so that is what was left of the interval before.
    pub fn settle_carried(samples: &mut [Self]) {
        let mut seen = HashSet::new();
        for sample in samples.iter_mut().filter(|sample| seen.insert((sample.key, sample.cpu))) {
            sample.carried = sample.weight.saturating_sub(1);
        }
    }

    /// Drops of its interval that it stands for.
    pub fn within_interval(&self) -> u64 {
        self.weight.saturating_sub(self.carried)
    }

    /// Decodes a record of the ring buffer. `number` is what a namespace is called in this run. `None`
    /// where the length or a field cannot be: the
    /// bytes are the kernel's, yet nothing here trusts them.
    pub fn decode(bytes: &[u8], mut number: impl FnMut(Netns) -> u32) -> Option<Self> {
        // Every field by its name: one that the record gains cannot be passed over in silence.
        let Record {
            time,
            key,
            cookie,
            weight,
            socket,
            netns,
            ifindex,
            iif,
            cpu,
            length,
            protocol,
            flags,
            packet_len,
            network,
            stack_len,
            vlan,
            spare: _,
            pid,
            mark,
            comm,
            tuples,
            stack,
            packet,
        } = Record::read_from_bytes(bytes).ok()?;
        let packet = packet.get(..usize::from(packet_len))?;
        let stack = &stack[..usize::from(stack_len).min(STACK_DEPTH)];
        let has = |bit| flags & bit != 0;
        let begins = usize::from(network);
        // The cookie is that of the namespace in the key.
        let mut number = |inum| {
            let cookie = if inum == key.netns { cookie } else { NO_COOKIE };
            number(Netns { inum, cookie })
        };
        Some(Self {
            time,
            key: key.within(number(key.netns)),
            weight: weight.max(1),
            carried: 0,
            netns: (netns != 0).then(|| number(netns)),
            ifindex: (has(flag::DEVICE) && ifindex != 0).then_some(ifindex),
            outgoing: has(flag::IIF).then_some(iif == 0),
            cpu,
            length,
            protocol,
            tuples: has(flag::TUPLES).then_some(tuples),
            conntrack: has(flag::CONNTRACK_KNOWN).then(|| has(flag::CONNTRACK)),
            vlan: has(flag::VLAN).then_some(vlan & 0x0fff),
            socket: (socket != 0).then_some(socket),
            mark,
            task: RunningTask::decode(comm, pid),
            stack: from_location(stack, key.location).to_vec(),
            link_header: has(flag::LINK_HEADER),
            network: (network != ABSENT && begins < packet.len()).then_some(begins),
            packet: packet.to_vec(),
        })
    }
}

/// The call path from the drop location on: what lies above it is the tracing itself, whose depth
/// depends on the kernel. Unchanged where the location is not in it.
fn from_location(stack: &[u64], location: u64) -> &[u64] {
    let first = stack.iter().position(|&frame| frame == location).unwrap_or_default();
    &stack[first..]
}

#[cfg(test)]
mod tests {
    use dropwatch_common::sample::PACKET_BYTES;
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    use super::*;

    fn number(netns: Netns) -> u32 {
        netns.cookie as u32
    }

    /// Every field with a value of its own.
    fn record(flags: u16, stack: &[u64], packet: &[u8]) -> Vec<u8> {
        let mut record = Record {
            time: 7,
            key: DropKey::new(0xffff_ffff_8100_0010, 2).within(4026531840),
            cookie: 5,
            weight: 40,
            socket: 99,
            netns: 4026531840,
            ifindex: 3,
            iif: 4,
            cpu: 1,
            length: 1500,
            protocol: 0x800,
            flags,
            packet_len: packet.len() as u16,
            network: 14,
            stack_len: stack.len() as u16,
            vlan: 0xf123,
            spare: [0; 4],
            pid: 812,
            mark: 0x17,
            comm: *b"nginx\0rubbish\0\0\0",
            tuples: [[1; TUPLE], [2; TUPLE]],
            stack: [0; STACK_DEPTH],
            packet: [0; PACKET_BYTES],
        };
        record.stack[..stack.len()].copy_from_slice(stack);
        record.packet[..packet.len()].copy_from_slice(packet);
        record.as_bytes().to_vec()
    }

    #[test]
    fn a_record_is_decoded_field_by_field() {
        let flags = flag::DEVICE
            | flag::CONNTRACK_KNOWN
            | flag::LINK_HEADER
            | flag::IIF
            | flag::VLAN
            | flag::TUPLES;
        let stack = [0xffff_ffff_8200_0001, 0xffff_ffff_8100_0010, 0xffff_ffff_8100_0400];
        let sample = Sample::decode(&record(flags, &stack, &[0x55; 60]), number).unwrap();
        let expected = Sample {
            time: 7,
            key: DropKey::new(0xffff_ffff_8100_0010, 2).within(5),
            weight: 40,
            carried: 0,
            netns: Some(5),
            ifindex: Some(3),
            outgoing: Some(false),
            cpu: 1,
            length: 1500,
            protocol: 0x800,
            conntrack: Some(false),
            tuples: Some([[1; TUPLE], [2; TUPLE]]),
            socket: Some(99),
            vlan: Some(0x123),
            mark: 0x17,
            task: Some(RunningTask { comm: "nginx".to_owned(), pid: 812 }),
            // Frames of the tracing are gone.
            stack: stack[1..].to_vec(),
            packet: vec![0x55; 60],
            link_header: true,
            network: Some(14),
        };
        assert_eq!(sample, expected);
    }

    #[test]
    fn what_is_not_proved_is_absent() {
        let sample = Sample::decode(&record(0, &[], &[]), number).unwrap();
        assert_eq!((sample.ifindex, sample.conntrack), (None, None));
        assert_eq!((sample.network, sample.packet.len()), (None, 0));
    }

    #[test]
    fn the_wall_clock_of_a_drop_is_told_by_the_monotonic_one() {
        let wall: Timestamp = "2026-11-22T07:35:05Z".parse().unwrap();
        let clock = Clock { attached: 1_000, since_attach: Duration::from_secs(5), wall };
        assert_eq!(clock.wall(1_000).to_string(), "2026-11-22T07:35:00Z");
        assert_eq!(clock.wall(204_519_123).to_string(), "2026-11-22T07:35:00.204518123Z");
        assert_eq!(clock.since_attach(204_519_123), Duration::from_nanos(204_518_123));
        // A drop between the first reading of the clock and the end of attaching.
        assert_eq!(clock.since_attach(0), Duration::ZERO);
        assert_eq!(clock.wall(0).to_string(), "2026-11-22T07:34:59.999999Z");
        let _never_panics = clock.wall(u64::MAX);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            let _ = Sample::decode(&bytes, number);
        }
    }
}
