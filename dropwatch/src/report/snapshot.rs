//! What the kernel has counted so far, as read at one moment.

use std::{collections::HashMap, time::Duration};

use dropwatch_common::{DropKey, Undecided, filter::Group};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::number::is_zero;

/// Cumulative counters since the program was attached. Counters never fall: user space subtracts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DropCounters {
    /// Drops per location and reason, summed over CPUs.
    pub drops: HashMap<DropKey, u64>,
    pub folded: Folded,
    pub lost: Lost,
    /// Drops of which the packet filter could not be decided; not in `drops`.
    pub undecided: UndecidedBy,
    /// Drops once more, by group and, where asked for, by CPU.
    pub groups: HashMap<(Group, Option<u32>), u64>,
    /// Drops for whose group there was no room.
    pub ungrouped: u64,
}

/// Drops that filters could not decide, by the option that could not; where several could not, by the
/// first of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UndecidedBy {
    #[serde(skip_serializing_if = "is_zero")]
    pub netns: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub iface: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub proto: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub host: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub port: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub tcp_flags: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub direction: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub expression: u64,
}

impl UndecidedBy {
    /// The count of one option.
    pub fn of(&mut self, option: Undecided) -> &mut u64 {
        match option {
            Undecided::Netns => &mut self.netns,
            Undecided::Iface => &mut self.iface,
            Undecided::Proto => &mut self.proto,
            Undecided::Host => &mut self.host,
            Undecided::Port => &mut self.port,
            Undecided::TcpFlags => &mut self.tcp_flags,
            Undecided::Direction => &mut self.direction,
            Undecided::Expression => &mut self.expression,
        }
    }

    /// What each option could not decide, by its name on the command line.
    pub fn by_option(&self) -> [(&'static str, u64); Undecided::ALL.len()] {
        let Self { netns, iface, proto, host, port, tcp_flags, direction, expression } = *self;
        [
            ("--netns", netns),
            ("--iface", iface),
            ("--proto", proto),
            ("--host", host),
            ("--port", port),
            ("--tcp-flags", tcp_flags),
            ("--direction", direction),
            ("--filter", expression),
        ]
    }

    /// Drops of all options.
    pub fn sum(&self) -> u64 {
        self.by_option().iter().fold(0, |sum: u64, (_, count)| sum.saturating_add(*count))
    }

    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Combines two option by option.
    pub fn zip(&self, other: &Self, mut with: impl FnMut(u64, u64) -> u64) -> Self {
        let (mut one, mut other, mut both) = (*self, *other, Self::default());
        for option in Undecided::ALL {
            *both.of(option) = with(*one.of(option), *other.of(option));
        }
        both
    }
}

/// What namespaces that have ended had, and is summed with others from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// Keys whose drops are among those of no namespace.
    pub drops: Vec<DropKey>,
    /// Groups whose drops are among those that are in none.
    pub groups: Vec<(Group, Option<u32>)>,
}

/// Everything that was not counted at its location, by cause.
///
/// `map_full`, `map_busy` and `recursion` are drops whose location is unknown; `samples`, `stacks`,
/// `pcap` and `unsampled` are details that are missing, while the drops themselves are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The counter map had no room for another location.
    pub map_full: u64,
    /// The counter map refused an insertion for another cause (`EBUSY`, `ENOMEM`).
    pub map_busy: u64,
    /// The kernel skipped the program because it was already running on that CPU
    /// (`bpf_prog_info.recursion_misses`, Linux 6.0 and later).
    pub recursion: u64,
    /// Sample records that found the ring buffer full.
    pub samples: u64,
    /// Samples whose call path could not be read.
    pub stacks: u64,
    /// Sampled packets that could not be written to the capture; absent from a recording where
    /// there are none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pcap: u64,
    /// Drops that were to be sampled, as all are with `--every`, and came when the second's samples
    /// were used up; absent from a recording where there are none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unsampled: u64,
}

impl Lost {
    /// Drops that happened but have no location.
    pub fn unknown_location(&self) -> u64 {
        self.map_full.saturating_add(self.map_busy).saturating_add(self.recursion)
    }

    /// Combines two blocks cause by cause.
    pub fn zip(&self, other: &Self, mut with: impl FnMut(u64, u64) -> u64) -> Self {
        Self {
            map_full: with(self.map_full, other.map_full),
            map_busy: with(self.map_busy, other.map_busy),
            recursion: with(self.recursion, other.recursion),
            samples: with(self.samples, other.samples),
            stacks: with(self.stacks, other.stacks),
            pcap: with(self.pcap, other.pcap),
            unsampled: with(self.unsampled, other.unsampled),
        }
    }
}

/// [`DropCounters`] with the moment they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Monotonic time since attach. Intervals and rates come from this alone.
    pub since_attach: Duration,
    /// Wall-clock time: a label, never subtracted.
    pub wall: Timestamp,
    pub counters: DropCounters,
}
