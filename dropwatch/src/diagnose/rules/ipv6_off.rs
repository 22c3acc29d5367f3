//! IPv6 packets at an interface where IPv6 is off.
//!
//! `ip6_rcv_core` (net/ipv6/ip6_input.c) refuses them where `disable_ipv6` is set, and where the interface has
//! no IPv6 at all, since its MTU is too small for that (`addrconf_notify`, net/ipv6/addrconf.c);
//! `ip6_output` refuses what should leave. Neighbours tell everybody of themselves, so multicast is no
//! trouble: somebody has to send to this very host.

use super::{Draft, Facts, Makes, Rule, matters, quote};
use crate::{
    diagnose::facts::NetnsFacts,
    report::{
        finding::{Finding, Severity},
        object::Object,
    },
};

const REASON: &str = "IPV6DISABLED";
/// Bytes that an interface has to take for IPv6 (RFC 8200, section 5).
const LEAST_MTU: u32 = 1280;

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "ipv6_off",
        severity: "warning",
        says: "packets to an interface where IPv6 is off",
        rests_on: "rows with `IPV6DISABLED`; `disable_ipv6`, MTU",
    }],
    device_settings: &["net/ipv6/conf/DEV/disable_ipv6"],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    facts.namespaces().filter_map(|namespace| refused(facts, namespace)).collect()
}

fn refused(facts: &Facts<'_>, namespace: NetnsFacts<'_>) -> Option<Finding> {
    let rows = facts.rows(&[REASON], &[]).within(namespace);
    let to_one = rows.destinations().into_iter().filter(|(to, _)| !to.is_multicast());
    let part: f64 = to_one.map(|(_, drops)| drops).sum();
    let drops = if rows.is_nearly_all(part) { rows.count() } else { part as u64 };
    if !matters(drops, facts) {
        return None;
    }
    let device = rows.device()?;
    let link = namespace.now.links.values().find(|link| link.name == device)?;
    let setting = format!("net/ipv6/conf/{device}/disable_ipv6");
    let is_small = link.mtu < LEAST_MTU;
    if namespace.setting(&setting) != Some("1") && !is_small {
        return None;
    }
    let name = namespace.name();
    let why = if is_small { format!(", whose MTU is {}", link.mtu) } else { String::new() };
    let title = format!("IPv6 is off on {device}{why} in {name}: {drops} packets dropped");
    let mut draft = Draft::new(facts, "ipv6_off", Severity::Warning, device, title)
        .at(namespace)
        .explains(drops, &rows)
        .names(Object::interface(device, None))
        .counted(REASON, drops, "kfree_skb");
    if let Some(to) = rows.destination() {
        draft = draft.state("to", to.to_string(), "samples");
    }
    let draft = if is_small {
        draft.state("MTU", u64::from(link.mtu), "rtnetlink").run(
            &format!("ip link set dev {} mtu {LEAST_MTU}", quote(device)),
            "the least that IPv6 takes, if the link takes that much",
        )
    } else {
        draft.setting(&setting).set(&setting, 0, "then its addresses are to be given anew")
    };
    Some(draft.done())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{super::testing::*, *};
    use crate::report::flow::Flow;

    fn host(to: &str, mtu: u32, setting: &str) -> Vec<Finding> {
        let to: IpAddr = to.parse().unwrap();
        TestHost::new()
            .row(50, "ip6_rcv_core", REASON)
            .interface("eth0")
            .flow(Flow { dst: Some(to), ..Flow::default() })
            .device(2, "eth0", mtu)
            .setting("net/ipv6/conf/eth0/disable_ipv6", setting)
            .run(&RULE)
    }

    #[test]
    fn the_interface_is_named_with_what_turns_it_on() {
        let found = host("2001:2::1", 1500, "1");
        assert_eq!(found[0].title, "IPv6 is off on eth0 in gw: 50 packets dropped");
        let command = "ip netns exec gw sysctl -w net/ipv6/conf/eth0/disable_ipv6=0";
        assert_eq!(found[0].actions[0].command, command);
        let small = host("2001:2::1", 1200, "0");
        assert_eq!(
            small[0].title,
            "IPv6 is off on eth0, whose MTU is 1200 in gw: 50 packets dropped"
        );
        assert_eq!(small[0].actions[0].command, "ip netns exec gw ip link set dev eth0 mtu 1280");
    }

    #[test]
    fn what_neighbours_tell_everybody_is_no_trouble() {
        assert_eq!(host("ff02::1", 1500, "1"), []);
        assert_eq!(host("2001:2::1", 1500, "0"), [], "it is on by now");
    }
}
