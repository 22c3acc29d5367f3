//! The drops of an interval once more, by namespace, interface, protocol, direction or CPU.

use dropwatch_common::filter::part;
use serde::{Deserialize, Serialize};

use super::super::{
    facts::{Interface, Netns},
    protocol::Term,
};

every! {
    /// What drops can be counted by.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum By {
        Netns,
        Iface,
        Protocol,
        Direction,
        Cpu,
    }
}

impl By {
    /// What of a packet has to be read for this key, as bits of [`part`].
    pub fn parts(self) -> u32 {
        match self {
            Self::Netns => part::NETNS,
            Self::Iface => part::IFACE,
            Self::Protocol => part::HEADERS,
            Self::Direction => part::DIRECTION,
            Self::Cpu => 0,
        }
    }

    /// Whether its names are those of namespaces or of what is in them, which takes privileges.
    pub fn names_places(self) -> bool {
        match self {
            Self::Netns | Self::Iface => true,
            Self::Protocol | Self::Direction | Self::Cpu => false,
        }
    }

    /// The word of the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Netns => "netns",
            Self::Iface => "iface",
            Self::Protocol => "protocol",
            Self::Direction => "direction",
            Self::Cpu => "cpu",
        }
    }
}

/// Drops by group.
///
/// Always: `sum(rows.count) + unknown + other == drops`. The counters of the groups are read a
/// moment after those of the locations, so in a single report `drops` can differ from the report's
/// own; over a whole run they are equal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Groups {
    pub by: Vec<By>,
    pub drops: u64,
    /// Highest count first.
    pub rows: Vec<GroupRow>,
    /// Drops of which not everything asked for could be proved.
    pub unknown: u64,
    /// Drops of groups that are not among the rows, or had no room in the kernel.
    pub other: u64,
}

/// Drops of one group; what was not asked for is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupRow {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<Netns>,
    /// The interface. Its namespace belongs to the key, too, since names of interfaces repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<Interface>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Term>,
    /// `in` for what came in by a device, `out` for what this host made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Term>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    pub count: u64,
    /// Drops per second.
    pub rate: f64,
    /// Part of the groups' drops.
    pub share: f64,
    /// Drops of this group since the run began.
    pub total: u64,
}

impl Groups {
    /// Keeps the first `rows` rows and sums the rest.
    pub(in crate::report) fn truncate(&mut self, rows: usize) {
        let rest = self.rows.split_off(rows.min(self.rows.len()));
        let sum = rest.iter().fold(0, |sum: u64, row| sum.saturating_add(row.count));
        self.other = self.other.saturating_add(sum);
    }
}
