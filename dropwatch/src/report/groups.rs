//! The drops of an interval once more, by namespace, interface, protocol or CPU.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use dropwatch_common::filter::{Group, part};
use serde::{Deserialize, Serialize};

use super::{
    Names,
    build::rate,
    delta::Delta,
    details,
    facts::{Interface, Netns},
    model::share,
    protocol::{self, Word},
};

every! {
    /// What drops can be counted by.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum By {
        Netns,
        Iface,
        Protocol,
        Cpu,
    }
}

impl By {
    /// What of a packet has to be read to tell it, as bits of [`part`].
    pub fn parts(self) -> u32 {
        match self {
            Self::Netns => part::NETNS,
            Self::Iface => part::IFACE,
            Self::Protocol => part::HEADERS,
            Self::Cpu => 0,
        }
    }

    /// Whether its names are those of namespaces or of what is in them, which takes privileges.
    pub fn names_places(self) -> bool {
        match self {
            Self::Netns | Self::Iface => true,
            Self::Protocol | Self::Cpu => false,
        }
    }

    /// The word of the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Netns => "netns",
            Self::Iface => "iface",
            Self::Protocol => "protocol",
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
    /// With its namespace, since names of interfaces repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<Interface>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Word>,
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
    /// The groups of an interval. `seen` are the sums up to its end, `unlocated` the drops that the
    /// kernel side never came to group.
    pub(super) fn between(
        by: &[By],
        delta: &Delta,
        seen: &HashMap<(Group, Option<u32>), u64>,
        unlocated: u64,
        interval: Duration,
        names: &mut dyn Names,
    ) -> Self {
        let mut groups =
            Self { by: by.to_vec(), unknown: unlocated, other: delta.ungrouped, ..Self::default() };
        let sum = delta.groups.values().fold(0, |sum: u64, count| sum.saturating_add(*count));
        groups.drops = sum.saturating_add(unlocated).saturating_add(delta.ungrouped);
        let mut known: Vec<_> = Vec::new();
        for ((group, cpu), count) in &delta.groups {
            match group.known {
                0 => groups.unknown = groups.unknown.saturating_add(*count),
                _ => known.push((*group, *cpu, *count)),
            }
        }
        known.sort_unstable_by_key(|(group, cpu, count)| (Reverse(*count), *group, *cpu));
        let asked = |what| by.contains(&what);
        let row = |(group, cpu, count): (Group, Option<u32>, u64)| GroupRow {
            netns: (asked(By::Netns) || asked(By::Iface))
                .then(|| details::netns(group.netns, names)),
            interface: asked(By::Iface)
                .then(|| details::interface(group.netns, group.ifindex, names)),
            protocol: asked(By::Protocol)
                .then(|| protocol::of_group(group.network, group.transport)),
            cpu,
            count,
            rate: rate(count, interval),
            share: share(count, groups.drops),
            total: seen.get(&(group, cpu)).copied().unwrap_or(count),
        };
        groups.rows = known.into_iter().map(row).collect();
        groups
    }

    /// Keeps the first `rows` rows and sums the rest.
    pub(super) fn truncate(&mut self, rows: usize) {
        let rest = self.rows.split_off(rows.min(self.rows.len()));
        let sum = rest.iter().fold(0, |sum: u64, row| sum.saturating_add(row.count));
        self.other = self.other.saturating_add(sum);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::model::{Reason, Symbol},
        *,
    };

    struct Hosts;

    impl Names for Hosts {
        fn symbol(&mut self, _: u64) -> Option<Symbol> {
            None
        }

        fn reason(&mut self, _: u32) -> Option<Reason> {
            None
        }

        fn netns(&mut self, inum: u32) -> Option<String> {
            (inum == 7).then(|| "gw".to_owned())
        }
    }

    fn group(netns: u32, transport: u16) -> Group {
        Group { known: 1, netns, ifindex: 3, network: 0, transport }
    }

    fn groups(by: &[By]) -> Groups {
        let delta = Delta {
            groups: HashMap::from([
                ((group(7, 6), None), 60),
                ((group(8, 17), None), 20),
                ((Group::default(), None), 5),
            ]),
            ungrouped: 10,
            ..Delta::default()
        };
        let seen = HashMap::from([((group(7, 6), None), 100)]);
        Groups::between(by, &delta, &seen, 5, Duration::from_secs(2), &mut Hosts)
    }

    #[test]
    fn rows_unknown_and_other_are_all_drops() {
        let mut groups = groups(&[By::Netns, By::Protocol]);
        assert_eq!((groups.drops, groups.unknown, groups.other), (100, 10, 10));
        let [gw, other] = groups.rows.as_slice() else { panic!("{groups:?}") };
        let netns = gw.netns.as_ref().unwrap();
        assert_eq!((netns.name.as_deref(), netns.inum), (Some("gw"), 7));
        assert_eq!((gw.protocol.as_deref(), gw.interface.as_ref()), (Some("tcp"), None));
        assert_eq!((gw.count, gw.rate, gw.share, gw.total), (60, 30.0, 0.6, 100));
        assert_eq!((other.netns.as_ref().unwrap().name.as_deref(), other.total), (None, 20));

        groups.truncate(1);
        assert_eq!((groups.rows.len(), groups.other), (1, 30));
        groups.truncate(5);
        assert_eq!((groups.rows.len(), groups.other), (1, 30));
    }

    #[test]
    fn an_interface_comes_with_its_namespace_and_nothing_else() {
        let groups = groups(&[By::Iface]);
        let row = &groups.rows[0];
        assert!(row.netns.is_some() && row.protocol.is_none() && row.cpu.is_none(), "{row:?}");
        assert_eq!(row.interface.as_ref().unwrap().index, 3);
    }
}
