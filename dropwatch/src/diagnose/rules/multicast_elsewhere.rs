//! Multicast that comes in by another interface than the one on which the group was joined.
//!
//! Membership is of an interface: `ip_route_input_rcu` (net/ipv4/route.c) looks for the group on the one
//! that a packet came in by (`ip_check_mc_rcu`), and finds no route without. A program that joins
//! without naming an interface gets that of the route to the group, mostly the default route's
//! (`ip_mc_find_dev`, net/ipv4/igmp.c). What nobody has joined anywhere is harmless
//! ([`settle_multicast`](crate::diagnose::settle_multicast)).

use super::{Draft, Facts, Makes, Rule, matters, quote};
use crate::{
    diagnose::{
        facts::{NetnsFacts, Rows},
        knowledge::NOT_SPECIFIED,
    },
    report::{
        finding::{Finding, Severity},
        object::Object,
        question::Packet,
    },
};

/// Where multicast is freed for which the interface has no group.
const FUNCTIONS: &[&str] = &["ip_rcv_finish_core"];
/// Most groups of a namespace that are looked for.
const MOST: usize = 4;

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "multicast_elsewhere",
        severity: "warning",
        says: "a multicast group is joined on another interface",
        rests_on: "rows at `ip_rcv_finish_core`; `/proc/net/igmp`",
    }],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let rows = facts.rows(&[NOT_SPECIFIED], FUNCTIONS);
    let found = facts.namespaces().flat_map(|namespace| {
        let here = rows.within(namespace);
        let groups = here.packets(true, MOST);
        let found = groups
            .iter()
            .filter_map(|(packet, part)| joined_elsewhere(facts, namespace, &here, *packet, *part));
        found.collect::<Vec<_>>()
    });
    found.collect()
}

fn joined_elsewhere(
    facts: &Facts<'_>,
    namespace: NetnsFacts<'_>,
    here: &Rows<'_>,
    packet: Packet,
    part: f64,
) -> Option<Finding> {
    let drops = if here.is_nearly_all(part) { here.count() } else { part as u64 };
    if !packet.to.is_multicast() || !matters(drops, facts) {
        return None;
    }
    let addresses = namespace.now.addresses.as_ref()?;
    // A router of multicast has reasons of its own to drop.
    addresses.groups.as_ref()?;
    let name_of = |index: &u32| Some(namespace.now.links.get(index)?.name.as_str());
    let (by, group) = (here.device()?, packet.to);
    let has = |index: &u32| addresses.joined.get(index).is_some_and(|it| it.contains(&group));
    if has(&packet.iif?) {
        return None;
    }
    let elsewhere: Vec<&str> =
        addresses.joined.keys().filter(|index| has(index)).filter_map(name_of).collect();
    if elsewhere.is_empty() {
        return None;
    }
    let (on, name) = (elsewhere.join(" and "), namespace.name());
    let title = format!(
        "{drops} packets to {group} dropped in {name}: the group is joined on {on}, and they come in by \
         {by}"
    );
    let subject = format!("{group} by {by}");
    let draft = Draft::new(facts, "multicast_elsewhere", Severity::Warning, subject, title)
        .at(namespace)
        .explains(drops, here)
        .names(Object::interface(by, Some(group.to_string())))
        .counted("NOT_SPECIFIED at ip_rcv_finish_core", here.count(), "kfree_skb")
        .state("joined on", on, "igmp");
    let draft = draft
        .run(
            &format!("ip maddr show dev {}", quote(by)),
            "the groups that are joined where the packets come in: a program joins there if it names \
             that interface (IP_ADD_MEMBERSHIP)",
        )
        .run(
            &format!("ip route show table all match {group}"),
            "the interface that a program gets which names none: that of the best of these; shows nothing \
             where each has to name one. A route to the group by the other interface changes that for \
             programs that join from then on",
        );
    Some(draft.done())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    use super::{super::testing::*, *};
    use crate::report::{evidence::Addresses, flow::Flow};

    const GROUP: [u8; 4] = [239, 9, 9, 9];

    /// The packets come in by `port0`, which has the index 2; the group is joined on `joined`.
    fn host(group: [u8; 4], joined: &[u32], forwards: bool) -> TestHost {
        let flow = Flow { dst: Some(group.into()), ..Flow::default() };
        let mut host = TestHost::new()
            .row(50, "ip_rcv_finish_core", NOT_SPECIFIED)
            .interface("port0")
            .flow(flow)
            .device(2, "port0", 1500)
            .device(3, "port1", 1500);
        let groups: BTreeSet<IpAddr> = [GROUP.into()].into();
        let joined = joined.iter().map(|index| (*index, groups.clone())).collect();
        let groups = (!forwards).then_some(groups);
        let addresses = Addresses { groups, joined, ..Addresses::default() };
        host.now.namespaces.get_mut(&GW).unwrap().addresses = Some(addresses);
        host
    }

    #[test]
    fn the_interface_of_the_membership_is_named() {
        let found = host(GROUP, &[3], false).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.title,
            "50 packets to 239.9.9.9 dropped in gw: the group is joined on port1, and they come in by \
             port0"
        );
        assert_eq!(finding.explains.map(|it| it.drops), Some(50));
        let commands: Vec<_> = finding.actions.iter().map(|a| a.command.as_str()).collect();
        let expected = [
            "ip netns exec gw ip maddr show dev port0",
            "ip netns exec gw ip route show table all match 239.9.9.9",
        ];
        assert_eq!(commands, expected);
    }

    #[test]
    fn what_is_joined_there_or_nowhere_is_not_found() {
        assert_eq!(host(GROUP, &[2, 3], false).run(&RULE), [], "its source is filtered out");
        assert_eq!(host(GROUP, &[], false).run(&RULE), []);
        assert_eq!(host([239, 1, 1, 1], &[3], false).run(&RULE), [], "another group");
        assert_eq!(host([198, 18, 1, 1], &[3], false).run(&RULE), [], "no group");
        assert_eq!(host(GROUP, &[3], true).run(&RULE), [], "it routes multicast");
    }
}
