//! Packets that are larger than the next link takes and must not be cut.
//!
//! A router drops them and reports to the sender how large they may be (`ip_forward`,
//! net/ipv4/ip_forward.c; `ip6_forward`, net/ipv6/ip6_output.c). That is how senders learn the
//! path's MTU, once for each destination, so that a few are usual. Where that answer is filtered on
//! its way, connections hang as soon as they carry data.

use super::{Draft, Facts, Makes, Proof, Rule, by_rate, matters, quote};
use crate::{
    diagnose::facts::NetnsFacts,
    report::{evidence::Link, finding::Finding, question::Packet},
};

struct MtuFamily {
    counter: &'static str,
    source: &'static str,
    functions: &'static [&'static str],
    clamp: &'static str,
}

const FAMILIES: [MtuFamily; 2] = [
    MtuFamily {
        counter: "Ip.FragFails",
        source: "snmp",
        functions: &["ip_forward", "ip_fragment"],
        clamp: "iptables",
    },
    MtuFamily {
        counter: "Ip6.InTooBigErrors",
        source: "snmp6",
        functions: &["ip6_forward"],
        clamp: "ip6tables",
    },
];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "mtu",
        severity: "warning, notice below 10/s",
        says: "packets larger than the next link takes",
        rests_on: "`FragFails`, `InTooBigErrors`",
    }],
    counters: &["Ip.FragFails", "Ip6.InTooBigErrors"],
    proofs: &[
        Proof::of(&["Ip.FragFails"], "PKT_TOO_BIG", &["ip_forward", "ip_fragment"]),
        Proof::of(&["Ip6.InTooBigErrors"], "PKT_TOO_BIG", &["ip6_forward"]),
    ],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let found = facts.namespaces().flat_map(|namespace| {
        FAMILIES.iter().filter_map(move |family| too_big(facts, namespace, family))
    });
    found.collect()
}

fn too_big(facts: &Facts<'_>, namespace: NetnsFacts<'_>, family: &MtuFamily) -> Option<Finding> {
    let rows = facts.rows_for("PKT_TOO_BIG", family.functions);
    let counted = namespace.delta(family.counter);
    let drops = counted.min(rows.count());
    if !matters(drops, facts) {
        return None;
    }
    let here = rows.within(namespace);
    let to = here.destination();
    let what = to.map(|to| format!(" to {to}")).unwrap_or_default();
    let title = format!(
        "{} cannot forward {drops} packets{what}: larger than the next link's MTU",
        namespace.name()
    );
    let mut draft = Draft::new(facts, "mtu", by_rate(drops, facts), family.counter, title)
        .at(namespace)
        .explains(drops, &rows)
        .counted(family.counter, counted, family.source)
        .counted("PKT_TOO_BIG", rows.count(), "kfree_skb");
    let came_by = here.device();
    let (from, narrow) = links(namespace, came_by);
    for link in from.into_iter().chain(narrow) {
        draft = draft.state(&format!("MTU of {}", link.name), u64::from(link.mtu), "rtnetlink");
    }
    if let (Some(from), Some(narrow)) = (from, narrow) {
        let command = format!("ip link set dev {} mtu {}", quote(&narrow.name), from.mtu);
        draft = draft.run(&command, "if every station on that link takes as much");
    } else if let Some(to) = to {
        draft = draft
            .run(&Packet::command(to, here.mark_to(to)), "the next link, and the route's own MTU");
    }
    let clamp = format!(
        "{} -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
        family.clamp
    );
    Some(draft.run(&clamp, "TCP asks for segments that fit; other protocols go on as now").done())
}

/// The device that the packets came in by, and the one with a smaller MTU, if there is but one.
fn links<'a>(
    namespace: NetnsFacts<'a>,
    came_by: Option<&str>,
) -> (Option<&'a Link>, Option<&'a Link>) {
    let all = || namespace.now.links.values().filter(|link| link.up);
    let from = all().find(|link| Some(link.name.as_str()) == came_by);
    let mut narrow = all().filter(|link| from.is_some_and(|from| link.mtu < from.mtu));
    (from, narrow.next().filter(|_| narrow.next().is_none()))
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::{finding::Severity, flow::Flow};

    fn router(drops: u64, counted: u64) -> TestHost {
        TestHost::new()
            .row(drops, "ip_forward", "PKT_TOO_BIG")
            .interface("port0")
            .counted("Ip.FragFails", counted)
            .device(2, "port0", 1500)
    }

    fn first(host: TestHost) -> String {
        host.run(&RULE)[0].actions[0].command.clone()
    }

    #[test]
    fn the_only_narrow_link_is_widened() {
        let found = router(50, 50).device(3, "port1", 1280).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.title, "gw cannot forward 50 packets: larger than the next link's MTU");
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(finding.actions[0].command, "ip netns exec gw ip link set dev port1 mtu 1500");
    }

    #[test]
    fn of_several_narrow_links_none_is_blamed() {
        let to = Flow { dst: Some([203, 0, 113, 9].into()), ..Flow::default() };
        let host = router(50, 50).flow(to).device(3, "port1", 1280).device(4, "tun0", 1400);
        assert_eq!(first(host), "ip netns exec gw ip route get 203.0.113.9");
        assert!(first(router(50, 50)).starts_with("ip netns exec gw iptables -t mangle"));
    }

    #[test]
    fn senders_that_find_out_the_path_are_a_notice() {
        assert_eq!(router(5, 5).run(&RULE)[0].severity, Severity::Notice);
        assert_eq!(router(2, 2).run(&RULE), []);
    }

    #[test]
    fn nothing_counted_is_nothing_found() {
        assert_eq!(router(50, 0).run(&RULE), []);
        assert_eq!(TestHost::new().counted("Ip.FragFails", 50).run(&RULE), []);
    }
}
