//! Frames whose protocol has no handler here.
//!
//! Nothing handles the frame's ethertype, so that its way ends where protocols take over
//! (`__netif_receive_skb_core`, net/core/dev.c), and the device counts it as dropped. Switches that
//! announce themselves are usual, a few frames a second; many come from a sender that takes this
//! host for another, or from a handler that is missing here.

use super::{Draft, Facts, Makes, Rule, by_rate, matters, quote};
use crate::{
    diagnose::facts::Rows,
    report::{facts::Netns, finding::Finding, object::Object},
};

const FUNCTION: &str = "__netif_receive_skb_core";
/// Most protocols that a title names.
const MOST_NAMED: usize = 4;
const COUNTERS: [&str; 2] = ["rx_dropped", "rx_nohandler"];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "unhandled_protocol",
        severity: "warning, notice below 10/s",
        says: "frames that nothing handles",
        rests_on: "rows with `UNHANDLED_PROTO`",
    }],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let rows = facts.rows_or_unspecified(&["UNHANDLED_PROTO"], &[FUNCTION]).by_netns();
    rows.iter().filter_map(|(netns, rows)| unhandled(facts, *netns, rows)).collect()
}

fn unhandled(facts: &Facts<'_>, netns: Option<&Netns>, rows: &Rows<'_>) -> Option<Finding> {
    let (device, counted) = device(facts, netns, rows)?;
    let drops = counted.min(rows.count());
    if !matters(drops, facts) {
        return None;
    }
    // What is counted is one device's.
    let protocols = rows.device().map(|_| rows.protocols()).unwrap_or_default();
    let name = netns.and_then(|netns| netns.name.as_deref());
    let at = name.map(|name| format!(" in {name}")).unwrap_or_default();
    let of = match &protocols[..] {
        [] => String::new(),
        [only] => format!(" of protocol {only}"),
        several if several.len() <= MOST_NAMED => {
            format!(" of {} protocols ({})", several.len(), several.join(", "))
        }
        many => format!(" of {} protocols", many.len()),
    };
    let title = format!("{drops} frames{of} came in by {device}{at}, where nothing handles them");
    let finding = Draft::new(
        facts,
        "unhandled_protocol",
        by_rate(drops, facts),
        format!("{device}{of}"),
        title,
    )
    .somewhere(netns)
    .explains(drops, rows)
    .names(Object::interface(device, None))
    .counted(&format!("{} of {device}", COUNTERS.join(" + ")), counted, "rtnetlink")
    .counted(&format!("UNHANDLED_PROTO at {FUNCTION}"), rows.count(), "kfree_skb")
    .run(
        &format!(
            "timeout 30 tcpdump -e -n -c 10 -i {} not ip and not ip6 and not arp",
            quote(device)
        ),
        "who sends them; while it runs they are received, and no drops",
    );
    Some(finding.done())
}

/// The device that most of them came in by, and what it counted: the one that samples name, else
/// the one that counted the most.
fn device<'a>(facts: &Facts<'a>, netns: Option<&Netns>, rows: &Rows<'a>) -> Option<(&'a str, u64)> {
    let sampled = rows.interfaces().first().map(|(name, _)| *name);
    let here = facts.namespaces().filter(|namespace| netns.is_none() || namespace.netns() == netns);
    here.flat_map(|namespace| namespace.links())
        .map(|link| (link.now.name.as_str(), COUNTERS.map(|name| link.delta(name)).iter().sum()))
        .filter(|(name, _)| sampled.is_none_or(|sampled| sampled == *name))
        .max_by_key(|(_, counted)| *counted)
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::{
        report::evidence::Link,
        report::{finding::Severity, flow::Flow},
    };

    fn host(drops: u64, counted: u64) -> TestHost {
        let link = Link { name: "in0".into(), ..Link::default() };
        TestHost::new().row(drops, "__netif_receive_skb_core", "UNHANDLED_PROTO").link(
            &link,
            "rx_dropped",
            counted,
        )
    }

    #[test]
    fn ethertype_and_device_are_named() {
        let flow = Flow { protocol: Some("0x88b5".into()), ..Flow::default() };
        let found = host(500, 500).interface("in0").flow(flow).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.title,
            "500 frames of protocol 0x88b5 came in by in0 in gw, where nothing handles them"
        );
        assert_eq!(finding.severity, Severity::Warning);
        assert!(
            finding.actions[0]
                .command
                .starts_with("ip netns exec gw timeout 30 tcpdump -e -n -c 10")
        );
    }

    #[test]
    fn several_protocols_are_all_named() {
        let of =
            |protocol: &str| Flow { protocol: Some(protocol.to_owned().into()), ..Flow::default() };
        let found = host(196, 196).interface("in0").flows(&[of("0x88b6"), of("0x88b7")]).run(&RULE);
        assert_eq!(
            found[0].title,
            "196 frames of 2 protocols (0x88b6, 0x88b7) came in by in0 in gw, where nothing handles them"
        );
    }

    #[test]
    fn what_a_switch_announces_is_a_notice() {
        assert_eq!(host(5, 5).run(&RULE)[0].severity, Severity::Notice);
        assert_eq!(host(2, 2).run(&RULE), []);
    }

    #[test]
    fn harmless_drops_hide_nothing() {
        let purged = |host: TestHost| host.row(100_000, "inet_sock_destruct", "QUEUE_PURGE");
        assert_eq!(purged(host(50, 50)).benign().run(&RULE).len(), 1);
        assert_eq!(purged(host(50, 50)).run(&RULE), [], "less than one in a hundred");
    }

    #[test]
    fn without_samples_the_device_is_the_one_that_counted() {
        let found = host(50, 60).unsampled().run(&RULE);
        assert!(found[0].title.starts_with("50 frames came in by in0, where"), "{found:?}");
    }

    #[test]
    fn drops_that_no_device_counted_are_a_filters() {
        assert_eq!(host(50, 0).run(&RULE), []);
        assert_eq!(host(50, 50).interface("eth9").run(&RULE), []);
    }
}
