//! Packets for a next hop that does not answer.
//!
//! They wait while the kernel asks for the link-layer address, and are dropped when it gives up
//! (`neigh_invalidate`, net/core/neighbour.c, through `arp_error_report`, net/ipv4/arp.c, and
//! `ndisc_error_report`, net/ipv6/ndisc.c). The sender gets an ICMP error: the host is unreachable.
//!
//! Which next hop that is, and what is known of it by now, the host is asked. On a link without carrier nobody
//! can answer; routes out of it count nevertheless, unless `ignore_routes_with_linkdown` is set.

use std::net::IpAddr;

use super::{Draft, Facts, Makes, Rule, Verdict, matters, quote};
use crate::{
    diagnose::facts::Rows,
    report::{
        facts::Netns,
        finding::{Finding, Severity},
        object::Object,
        question::{Ask, Leads, Neighbour, NextHop, Packet, Route},
    },
};

const FUNCTIONS: &[&str] = &["arp_error_report", "ndisc_error_report", "neigh_invalidate"];
/// Neighbours that were given up, of both families and of all namespaces.
const FAILURES: [&str; 2] = ["arp_cache.res_failed", "ndisc_cache.res_failed"];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "neighbour_failed",
        severity: "warning",
        says: "a next hop does not answer",
        rests_on: "rows with `NEIGH_FAILED`",
    }],
    device_settings: &[
        "net/ipv4/conf/DEV/ignore_routes_with_linkdown",
        "net/ipv6/conf/DEV/ignore_routes_with_linkdown",
    ],
    check_or_ask,
    ..Rule::NONE
};

fn check_or_ask(facts: &Facts<'_>) -> Vec<Verdict> {
    let rows = facts.rows_for("NEIGH_FAILED", FUNCTIONS).by_netns();
    rows.iter().filter_map(|(netns, rows)| Verdict::of(silent(facts, *netns, rows))).collect()
}

fn silent(
    facts: &Facts<'_>,
    netns: Option<&Netns>,
    rows: &Rows<'_>,
) -> Result<Option<Finding>, Ask> {
    let drops = rows.count();
    if !matters(drops, facts) {
        return Ok(None);
    }
    // Nobody can answer where the device has no carrier, which is a finding of its own.
    if let (Some(netns), Some(index)) = (netns, rows.device_index())
        && facts.device(netns.number(), index)?.is_ok_and(|device| !device.carrier)
    {
        return Ok(None);
    }
    let hop = match (netns, rows.packet(false).filter(|it| Some(it.to) == rows.destination())) {
        (Some(netns), Some(packet)) => {
            next_hop(facts, netns.number(), packet, rows.device_index())?
        }
        _ => None,
    };
    let is_back = matches!(hop, Some((_, Neighbour::Answers, _)));
    let name = netns.and_then(|netns| netns.name.as_deref());
    let device = rows.device();
    let is_down = !is_back && device.is_some_and(|device| has_no_carrier(facts, netns, device));
    let destination = rows.destination();
    let to = destination.map(|dst| dst.to_string());
    let at = name.map(|name| format!(" in {name}")).unwrap_or_default();
    let on = device.map(|device| format!(" on {device}")).unwrap_or_default();
    let what = to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
    let (cause, why) = match (is_back, is_down) {
        (true, _) => ("did not answer, and does now", ""),
        (_, true) => ("cannot answer", ", which has no carrier"),
        _ => ("does not answer", ""),
    };
    let subject = format!("{}{on}", to.as_deref().unwrap_or_default());
    let title = format!("a neighbour {cause}{on}{at}{why}: {drops} packets{what} dropped");
    let mut draft = Draft::new(facts, "neighbour_failed", Severity::Warning, subject, title)
        .somewhere(netns)
        .explains(drops, rows)
        .counted("NEIGH_FAILED", drops, "kfree_skb");
    for name in FAILURES {
        let failed = facts.delta(name);
        if failed > 0 {
            draft = draft.counted(name, failed, "all namespaces");
        }
    }
    let mut shows = None;
    if let Some((hop, state, command)) = hop {
        shows = Some(command);
        let object = Object::neighbour(hop, device, state);
        let state = format!("{} ({})", hop.address, state.name());
        draft = draft.state("next hop", state, "rtnetlink").names(object);
    }
    if let (true, Some(device)) = (is_down, device) {
        draft = without_carrier(draft, device, rows.destination());
    }
    if let Some(command) = shows {
        draft = draft.run(&command, "the next hop: `via`, else the host itself");
    }
    let on = device.map(|device| format!(" dev {}", quote(device))).unwrap_or_default();
    let finding = draft.run(
        &format!("ip neigh show{on}"),
        "FAILED: down, in another VLAN, or not in the network that the address says",
    );
    Ok(Some(finding.done()))
}

fn has_no_carrier(facts: &Facts<'_>, netns: Option<&Netns>, device: &str) -> bool {
    let namespace = netns.and_then(|netns| facts.namespace(netns.number()));
    let mut links = namespace.into_iter().flat_map(|namespace| namespace.now.links.values());
    links.any(|link| link.name == device && link.up && !link.carrier)
}

/// Adds what shows the state of the link, and what passes its routes over.
fn without_carrier<'a>(draft: Draft<'a>, device: &str, to: Option<IpAddr>) -> Draft<'a> {
    let draft = draft.state("carrier", format!("none on {device}"), "rtnetlink").run(
        &format!("ip link show dev {}", quote(device)),
        "NO-CARRIER: the cable, the switch or the other end is down",
    );
    let family = match to {
        Some(IpAddr::V4(_)) => "ipv4",
        Some(IpAddr::V6(_)) => "ipv6",
        None => return draft,
    };
    let setting = format!("net/{family}/conf/{device}/ignore_routes_with_linkdown");
    match draft.value_of(&setting) {
        Some("0") => draft.setting(&setting).set(&setting, 1, "if another route leads on"),
        _ => draft,
    }
}

/// The next hop of a packet that was sent by the device `of`, what is known of it by now, and what shows the
/// same.
fn next_hop(
    facts: &Facts<'_>,
    netns: u32,
    packet: Packet,
    of: Option<u32>,
) -> Result<Option<(NextHop, Neighbour, String)>, Ask> {
    let route = facts.route(netns, packet.sent_from_here())?;
    let Ok(Route::Leads(Leads { local: false, device: Some(device), via, above, .. })) = route
    else {
        return Ok(None);
    };
    // Where they were sent to before the route was changed, nobody tells.
    if of.is_some_and(|of| of != device) {
        return Ok(None);
    }
    let hop = NextHop { address: via.unwrap_or(packet.to), device };
    Ok(facts.neighbour(netns, hop)?.ok().map(|state| (hop, state, packet.command_for(above))))
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::{
        flow::{AboveIp, Flow},
        question::{Answer, Question},
    };

    #[test]
    fn a_next_hop_that_answers_by_now_is_not_called_silent() {
        let to = [203, 0, 113, 9].into();
        let router = [198, 18, 2, 2].into();
        let leads = Leads { device: Some(3), via: Some(router), ..Leads::default() };
        let title = |state| {
            let hop = NextHop { address: router, device: 3 };
            let found = TestHost::new()
                .row(50, "arp_error_report", "NEIGH_FAILED")
                .flow(Flow { dst: Some(to), ..Flow::default() })
                .answer(Question::Route(Packet::to(to)), Answer::Route(Route::Leads(leads)))
                .answer(Question::Neighbour(hop), Answer::Neighbour(state))
                .run(&RULE);
            found[0].title.split(" in gw").next().map(str::to_owned)
        };
        for state in [Neighbour::Failed, Neighbour::Awaited, Neighbour::Answered] {
            assert_eq!(title(state).as_deref(), Some("a neighbour does not answer"), "{state:?}");
        }
        let back = "a neighbour did not answer, and does now";
        assert_eq!(title(Neighbour::Answers).as_deref(), Some(back));
    }

    /// What answers is another host than the packets were for, by routing rules.
    #[test]
    fn another_next_hop_is_not_called_theirs() {
        let to = [203, 0, 113, 9].into();
        let above = AboveIp { protocol: Some(17), from_port: None, to_port: Some(4000) };
        let asked = Packet { mark: 7, above, ..Packet::to(to) };
        let udp = Some("udp".into());
        let flow = Flow { protocol: udp, dst: Some(to), dst_port: Some(4000), ..Flow::default() };
        let router = [198, 18, 2, 2].into();
        let found = |packet: Packet, device| {
            let via = Some(router);
            let leads = Leads { device: Some(device), via, above: true, ..Leads::default() };
            let hop = NextHop { address: router, device };
            TestHost::new()
                .row(50, "arp_error_report", "NEIGH_FAILED")
                .interface("eth0")
                .flow(flow.clone())
                .mark(7)
                .answer(Question::Route(packet), Answer::Route(Route::Leads(leads)))
                .answer(Question::Neighbour(hop), Answer::Neighbour(Neighbour::Answers))
                .run(&RULE)
                .remove(0)
        };
        let theirs = found(asked, 2);
        assert!(theirs.title.starts_with("a neighbour did not answer, and does now"));
        assert_eq!(
            theirs.actions[0].command,
            "ip netns exec gw ip route get 203.0.113.9 mark 0x7 ipproto udp dport 4000"
        );
        for (packet, device) in [(asked, 3), (Packet { mark: 0, ..asked }, 2), (Packet::to(to), 2)]
        {
            let finding = found(packet, device);
            assert!(finding.title.starts_with("a neighbour does not answer"), "{finding:?}");
            assert_eq!(finding.object, None);
            assert!(finding.actions.iter().all(|it| !it.command.contains("route get")));
        }
    }

    #[test]
    fn the_silent_side_is_named() {
        let flow = Flow { dst: Some([198, 18, 9, 9].into()), ..Flow::default() };
        let found = TestHost::new()
            .row(50, "neigh_invalidate", "NEIGH_FAILED")
            .interface("eth0")
            .flow(flow)
            .host_counted("arp_cache.res_failed", 1)
            .run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.title,
            "a neighbour does not answer on eth0 in gw: 50 packets to 198.18.9.9 dropped"
        );
        let counted: Vec<_> = finding.evidence.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(counted, ["NEIGH_FAILED", "arp_cache.res_failed"]);
        assert_eq!(finding.actions[0].command, "ip netns exec gw ip neigh show dev eth0");
    }

    #[test]
    fn on_a_link_without_carrier_nobody_can_answer() {
        let setting = "net/ipv4/conf/eth0/ignore_routes_with_linkdown";
        let host = |carrier| {
            let flow = Flow { dst: Some([198, 18, 9, 9].into()), ..Flow::default() };
            let mut host = TestHost::new()
                .row(50, "neigh_invalidate", "NEIGH_FAILED")
                .interface("eth0")
                .flow(flow)
                .device(2, "eth0", 1500)
                .setting(setting, "0");
            let links = &mut host.now.namespaces.get_mut(&GW).unwrap().links;
            links.get_mut(&2).unwrap().carrier = carrier;
            host.run(&RULE).remove(0)
        };
        let down = host(false);
        assert_eq!(
            down.title,
            "a neighbour cannot answer on eth0 in gw, which has no carrier: 50 packets to 198.18.9.9 \
             dropped"
        );
        assert_eq!(down.actions[0].command, "ip netns exec gw ip link show dev eth0");
        assert_eq!(down.actions[1].command, format!("ip netns exec gw sysctl -w {setting}=1"));
        assert!(host(true).title.starts_with("a neighbour does not answer on eth0"));
    }

    #[test]
    fn without_samples_it_is_somewhere() {
        let found = TestHost::new().row(50, "arp_error_report", "").unsampled().run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.title, "a neighbour does not answer: 50 packets dropped");
        assert_eq!(finding.actions, [], "nor is a command for somewhere");
        assert!(finding.unreachable.is_some());
    }

    #[test]
    fn a_packet_or_two_are_usual() {
        assert_eq!(TestHost::new().row(2, "arp_error_report", "NEIGH_FAILED").run(&RULE), []);
        assert_eq!(TestHost::new().row(50, "arp_error_report", "NEIGH_DEAD").run(&RULE), []);
    }
}
