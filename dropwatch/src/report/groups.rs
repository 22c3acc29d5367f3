//! Makes groups of the counters: the drops of an interval once more, by what was asked for.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use dropwatch_common::filter::{Group, direction};

use super::{
    delta::Delta,
    details,
    model::groups::{By, GroupRow, Groups},
    names::Names,
    number::{rate, share},
    protocol::{self, Term},
};

/// The groups of an interval. `seen` are the sums up to its end, `unlocated` the drops that the
/// kernel side never came to group.
pub(super) fn between(
    by: &[By],
    delta: &Delta,
    seen: &HashMap<(Group, Option<u32>), u64>,
    unlocated: u64,
    interval: Duration,
    names: &mut dyn Names,
) -> Groups {
    let mut groups =
        Groups { by: by.to_vec(), unknown: unlocated, other: delta.ungrouped, ..Groups::default() };
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
    let row = |(group, cpu, count): (Group, Option<u32>, u64)| {
        let mut row = GroupRow {
            count,
            rate: rate(count, interval),
            share: share(count, groups.drops),
            total: seen.get(&(group, cpu)).copied().unwrap_or(count),
            ..GroupRow::default()
        };
        for by in by {
            match by {
                By::Netns => row.netns = Some(details::netns(group.netns, names)),
                By::Iface => {
                    // Names of interfaces repeat.
                    row.netns = Some(details::netns(group.netns, names));
                    row.interface = Some(details::interface(group.netns, group.ifindex, names));
                }
                By::Protocol => {
                    row.protocol = Some(protocol::of_group(group.network, group.transport));
                }
                By::Direction => row.direction = Some(way(group.direction)),
                By::Cpu => row.cpu = cpu,
            }
        }
        row
    };
    groups.rows = known.into_iter().map(row).collect();
    groups
}

/// A direction as the kernel side numbers it; it has no other where a group is known.
fn way(number: u16) -> Term {
    match u32::from(number) {
        direction::IN => "in",
        direction::OUT => "out",
        _ => "unknown",
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            facts::Netns,
            place::{Reason, Symbol},
        },
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

        fn netns(&mut self, inum: u32) -> Netns {
            Netns::new((inum == 7).then(|| "gw".to_owned()), inum)
        }
    }

    fn group(netns: u32, transport: u16) -> Group {
        Group { known: 1, netns, ifindex: 3, transport, ..Group::NONE }
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
        between(by, &delta, &seen, 5, Duration::from_secs(2), &mut Hosts)
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
