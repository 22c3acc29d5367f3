//! A network card loses packets before the kernel sees them.
//!
//! No drop event shows these: the driver reads them off the card's own counters into the link's
//! (`struct rtnl_link_stats64`, include/uapi/linux/if_link.h). A ring without a free descriptor or
//! a card whose buffer overflows is a limit; frames with a wrong checksum are a bad cable or port.

use super::{Draft, Facts, Makes, Rule, draft::quote};
use crate::{
    diagnose::facts::{LinkFacts, NetnsFacts},
    report::{
        finding::{Finding, Severity},
        object::Object,
    },
};

/// Counters of packets that found no room.
const NO_ROOM: [&str; 3] = ["rx_missed_errors", "rx_fifo_errors", "rx_over_errors"];
/// Counter of frames that came in damaged.
const DAMAGED: &str = "rx_crc_errors";

pub(super) const RULE: Rule = Rule {
    findings: &[
        Makes {
            name: "nic_no_room",
            severity: "critical",
            says: "a network card lost packets; no drop event",
            rests_on: "`rx_missed_errors`, `rx_fifo_errors`, `rx_over_errors`",
        },
        Makes {
            name: "nic_damaged",
            severity: "warning",
            says: "frames arrive damaged; no drop event",
            rests_on: "`rx_crc_errors`",
        },
    ],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let links = facts
        .namespaces()
        .flat_map(|namespace| namespace.links().map(move |link| (namespace, link)));
    links
        .flat_map(|(namespace, link)| {
            [no_room(facts, namespace, link), damaged(facts, namespace, link)].into_iter().flatten()
        })
        .collect()
}

fn no_room(facts: &Facts<'_>, namespace: NetnsFacts<'_>, link: LinkFacts<'_>) -> Option<Finding> {
    // The largest of them, not the sum: drivers count one packet in more than one.
    let lost = NO_ROOM.map(|name| link.delta(name)).into_iter().max().filter(|lost| *lost > 0)?;
    let name = link.now.name.as_str();
    let title = format!(
        "{name} in {} lost {lost} packets: the card had no room for them",
        namespace.name()
    );
    let mut draft = Draft::new(facts, "nic_no_room", Severity::Critical, name, title)
        .at(namespace)
        .names(Object::interface(name, None));
    for counter in NO_ROOM.into_iter().filter(|counter| link.delta(counter) > 0) {
        draft = draft.counted(counter, link.delta(counter), "rtnetlink");
    }
    let device = quote(name);
    let finding = draft
        .run(
            &format!("ethtool -g {device}"),
            "size of the receive ring, and the most that it can be; a larger one (ethtool -G) takes \
             longer bursts; some memory, and on many cards a short link down",
        )
        .run(&format!("ethtool -S {device}"), "the card's own counters, queue by queue")
        .done();
    Some(finding)
}

fn damaged(facts: &Facts<'_>, namespace: NetnsFacts<'_>, link: LinkFacts<'_>) -> Option<Finding> {
    let lost = link.delta(DAMAGED);
    if lost == 0 {
        return None;
    }
    let name = link.now.name.as_str();
    let title = format!("{name} in {} received {lost} damaged frames", namespace.name());
    let finding = Draft::new(facts, "nic_damaged", Severity::Warning, name, title)
        .at(namespace)
        .names(Object::interface(name, None))
        .counted(DAMAGED, lost, "rtnetlink")
        .run(
            &format!("ethtool -m {}", quote(name)),
            "light levels of its module; try another cable, module or port",
        )
        .done();
    Some(finding)
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::evidence::Link;

    fn link() -> Link {
        Link { name: "eth0".into(), ..Link::default() }
    }

    #[test]
    fn losses_that_no_event_shows_explain_no_drops() {
        let found = TestHost::new().link(&link(), "rx_missed_errors", 7).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.severity, Severity::Critical);
        assert_eq!(finding.explains, None);
        assert_eq!(finding.title, "eth0 in gw lost 7 packets: the card had no room for them");
        assert_eq!(finding.evidence.len(), 1, "the others counted nothing");
    }

    #[test]
    fn a_driver_that_counts_twice_lost_once() {
        let host =
            TestHost::new().link(&link(), "rx_missed_errors", 7).link(&link(), "rx_fifo_errors", 5);
        let found = host.run(&RULE);
        assert!(found[0].title.contains("lost 7 packets"), "{found:?}");
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn a_card_at_rest_and_packets_without_a_handler() {
        assert_eq!(TestHost::new().link(&link(), "rx_missed_errors", 0).run(&RULE), []);
        assert_eq!(TestHost::new().link(&link(), "rx_dropped", 100).run(&RULE), []);
    }

    #[test]
    fn damaged_frames_are_a_cable() {
        let found = TestHost::new().link(&link(), "rx_crc_errors", 3).run(&RULE);
        assert_eq!((found[0].rule.as_str(), found[0].severity), ("nic_damaged", Severity::Warning));
    }
}
