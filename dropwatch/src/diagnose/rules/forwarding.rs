//! Packets that are not for this host, which does not pass them on.
//!
//! The route lookup finds that a packet is not for this host, and forwarding is off on the device
//! that it came in by (`ip_error` with `-EHOSTUNREACH`, net/ipv4/route.c; of IPv6 on the host,
//! `ip6_forward`, net/ipv6/ip6_output.c). Either somebody uses this host as a router, or the packets
//! should not have come here at all: the address is on the very link that they came in by, so whoever sends
//! them takes this host for the one that has it. The host is asked which. An IPv6 address may be its
//! own, and not in use, since somebody else has it, too.

use std::net::IpAddr;

use super::{Draft, Facts, Makes, Rule, Verdict, matters, quote};
use crate::{
    diagnose::{
        facts::{NetnsFacts, Rows},
        knowledge::NOT_SPECIFIED,
    },
    report::{
        evidence::UnusableAddress,
        finding::{Finding, Severity},
        object::Object,
        question::{Ask, Leads, Packet, Route},
    },
};

/// A family's switch, counter, and the functions that drop.
struct ForwardingFamily {
    name: &'static str,
    switch: &'static str,
    /// That of a device, which decides for IPv4.
    device_switch: Option<&'static str>,
    counter: &'static str,
    reason: &'static str,
    functions: &'static [&'static str],
}

const FAMILIES: [ForwardingFamily; 3] = [
    ForwardingFamily {
        name: "IPv4",
        switch: "net.ipv4.ip_forward",
        device_switch: Some("net/ipv4/conf/DEV/forwarding"),
        counter: "Ip.InAddrErrors",
        reason: REASON,
        functions: &["ip_error"],
    },
    ForwardingFamily {
        name: "IPv6",
        switch: "net.ipv6.conf.all.forwarding",
        device_switch: None,
        counter: "Ip6.InAddrErrors",
        reason: REASON,
        functions: &["ip6_pkt_drop", "ip6_forward"],
    },
    // IPv6 looks for a route first, and refuses what has none before it asks whether to forward.
    ForwardingFamily {
        name: "IPv6",
        switch: "net.ipv6.conf.all.forwarding",
        device_switch: None,
        counter: "Ip6.InNoRoutes",
        reason: "IP_INNOROUTES",
        functions: &["ip6_pkt_drop", "ip6_pkt_discard"],
    },
];
const REASON: &str = "IP_INADDRERRORS";
/// Most addresses of a namespace and a family that the host is asked about.
const MOST: usize = 6;

pub(super) const RULE: Rule = Rule {
    findings: &[
        Makes {
            name: "forwarding_disabled",
            severity: "warning",
            says: "packets for others, and no router",
            rests_on: "`InAddrErrors`, of IPv6 `InNoRoutes`, too; `ip_forward`",
        },
        Makes {
            name: "address_elsewhere",
            severity: "warning",
            says: "packets for an address that another host of the link has",
            rests_on: "`InAddrErrors`; the host's own look-up",
        },
        Makes {
            name: "address_unusable",
            severity: "warning",
            says: "packets for an IPv6 address that failed duplicate address detection",
            rests_on: "`Ip6.InAddrErrors`; the address's flags",
        },
    ],
    counters: &["Ip.InAddrErrors", "Ip6.InAddrErrors", "Ip6.InNoRoutes"],
    settings: &["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"],
    device_settings: &["net/ipv4/conf/DEV/forwarding"],
    check_or_ask,
    ..Rule::NONE
};

fn check_or_ask(facts: &Facts<'_>) -> Vec<Verdict> {
    let each = facts.namespaces().flat_map(|namespace| {
        FAMILIES.iter().flat_map(move |family| decided(facts, namespace, family))
    });
    each.collect()
}

fn decided(
    facts: &Facts<'_>,
    namespace: NetnsFacts<'_>,
    family: &ForwardingFamily,
) -> Vec<Verdict> {
    let named = facts.rows(&[family.reason], family.functions);
    let rows =
        if named.is_empty() { facts.rows(&[NOT_SPECIFIED], family.functions) } else { named };
    let here = rows.within(namespace);
    let counted = namespace.delta(family.counter);
    let drops = counted.min(rows.count());
    if !matters(drops, facts) {
        return Vec::new();
    }
    let Some(switch) = switch_that_is_off(namespace, family, here.device()) else {
        return Vec::new();
    };
    let (mut whose, mut asks) = (Whose::default(), Vec::new());
    for (packet, part) in here.packets(true, MOST) {
        match place(facts, namespace, packet) {
            Ok(place) => whose.add(place, packet.to, part),
            Err(ask) => asks.push(Verdict::Ask(ask)),
        }
    }
    if !asks.is_empty() {
        return asks;
    }
    let refused = Refused { facts, namespace, family, rows: &rows, here: &here, counted, drops };
    refused.findings(&whose, &switch).into_iter().map(Verdict::Found).collect()
}

/// The setting by which a packet that came in by `device` was not forwarded; `None` where it would be.
fn switch_that_is_off(
    namespace: NetnsFacts<'_>,
    family: &ForwardingFamily,
    device: Option<&str>,
) -> Option<String> {
    let all = namespace.setting(family.switch).map(|value| value == "0");
    let own = family.device_switch.zip(device).map(|(name, device)| name.replace("DEV", device));
    let is_off = own.as_deref().and_then(|own| namespace.setting(own)).map(|value| value == "0");
    match (is_off, all) {
        (Some(false), _) | (None, Some(false) | None) => None,
        (Some(true), Some(false) | None) => own,
        (Some(true) | None, Some(true)) => Some(family.switch.to_owned()),
    }
}

/// Where an address is, as seen from the host that got packets for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// On the link that they came in by.
    SameLink,
    /// Behind this host: it could forward them.
    Beyond,
    /// No route leads there.
    Nowhere,
    /// Here, and it may not be used.
    Unusable(UnusableAddress),
    /// Here by now, or perhaps all of a network that is smaller at the sender: forwarding has nothing to do
    /// with it.
    Here,
    /// The host did not say.
    Unknown,
}

fn place(facts: &Facts<'_>, namespace: NetnsFacts<'_>, packet: Packet) -> Result<Place, Ask> {
    let Some(netns) = namespace.netns() else { return Ok(Place::Unknown) };
    let addresses = namespace.now.addresses.as_ref();
    if let Some(address) = addresses.and_then(|it| it.unusable.get(&packet.to)) {
        return Ok(Place::Unusable(*address));
    }
    Ok(match facts.route(netns.number(), packet.sent_from_here())? {
        Err(_) => Place::Unknown,
        Ok(Route::Leads(Leads { local: true, .. })) => Place::Here,
        Ok(Route::Leads(Leads { via: None, device, .. })) if device == packet.iif => {
            if may_be_broadcast(packet.to) {
                Place::Here
            } else {
                Place::SameLink
            }
        }
        Ok(Route::Leads(_)) => Place::Beyond,
        Ok(Route::Refused(_)) => Place::Nowhere,
    })
}

/// Whether an address may mean all of a network, by its end: such packets come to everybody.
fn may_be_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.octets()[3] == u8::MAX)
}

/// Addresses by where they are, with the drops of each.
#[derive(Default)]
struct Whose(Vec<(Place, IpAddr, f64)>);

impl Whose {
    fn add(&mut self, place: Place, to: IpAddr, drops: f64) {
        self.0.push((place, to, drops));
    }

    fn at(&self, place: Place) -> (Vec<IpAddr>, f64) {
        let there = || self.0.iter().filter(|(it, ..)| *it == place);
        (there().map(|(_, to, _)| *to).collect(), there().map(|(_, _, drops)| drops).sum())
    }

    fn unusable(&self) -> impl Iterator<Item = (IpAddr, UnusableAddress, f64)> {
        self.0.iter().filter_map(|(place, to, drops)| match place {
            Place::Unusable(address) => Some((*to, *address, *drops)),
            _ => None,
        })
    }
}

/// What was refused, by one family in one namespace.
struct Refused<'a> {
    facts: &'a Facts<'a>,
    namespace: NetnsFacts<'a>,
    family: &'a ForwardingFamily,
    rows: &'a Rows<'a>,
    here: &'a Rows<'a>,
    counted: u64,
    drops: u64,
}

impl Refused<'_> {
    fn findings(&self, whose: &Whose, switch: &str) -> Vec<Finding> {
        let (mut found, mut left) = (Vec::new(), self.drops);
        let (same_link, part) = whose.at(Place::SameLink);
        let on_link = self.part(part);
        if matters(on_link, self.facts) {
            found.extend(self.elsewhere(&same_link, on_link));
            left = left.saturating_sub(on_link);
        }
        for (to, address, part) in whose.unusable() {
            let drops = self.part(part);
            if matters(drops, self.facts) {
                found.push(self.unusable(to, address, drops));
                left = left.saturating_sub(drops);
            }
        }
        left = left.saturating_sub(self.part(whose.at(Place::Here).1));
        if matters(left, self.facts) {
            let refused = if left == self.drops { self.counted } else { left };
            found.push(self.disabled(switch, left, refused, &whose.at(Place::Nowhere).0));
        }
        found
    }

    /// The drops that samples give to some addresses: all of them, where samples leave next to nothing.
    fn part(&self, drops: f64) -> u64 {
        if self.here.is_nearly_all(drops) { self.drops } else { self.drops.min(drops as u64) }
    }

    /// Adds where it is, how much it explains, and what has counted it.
    fn proved<'b>(&'b self, draft: Draft<'b>, drops: u64) -> Draft<'b> {
        draft.at(self.namespace).explains(drops, self.rows).counted(
            self.family.counter,
            self.counted,
            "snmp",
        )
    }

    fn elsewhere(&self, addresses: &[IpAddr], drops: u64) -> Option<Finding> {
        let (first, name) = (addresses.first()?, self.namespace.name());
        let on = self.here.device().map(|device| format!(" of {device}")).unwrap_or_default();
        let what = match addresses {
            [only] => only.to_string(),
            _ => format!("{} addresses", addresses.len()),
        };
        let title = format!(
            "{drops} packets for {what} came to {name}, which does not have it: it is on the link{on} \
             that they came in by"
        );
        let mut draft = Draft::new(
            self.facts,
            "address_elsewhere",
            Severity::Warning,
            format!("{what}{on}"),
            title,
        );
        draft = self.proved(draft, drops);
        if let (Some(device), [only]) = (self.here.device(), addresses) {
            draft = draft.names(Object::interface(device, Some(only.to_string())));
        }
        if let Some(sender) = self.here.source() {
            draft = draft.state("sender", sender.to_string(), "samples");
        }
        let note = format!(
            "on-link here: who sends them this way has the link-layer address of {name} for it, by a \
             neighbour entry that is stale or by a route. There, `ip neigh show {first}` tells, and `ip \
             neigh flush to {first}` ends it; whoever takes an address over announces it"
        );
        Some(draft.run(&Packet::command(*first, self.here.mark_to(*first)), &note).done())
    }

    fn unusable(&self, to: IpAddr, address: UnusableAddress, drops: u64) -> Finding {
        let name = self.namespace.name();
        let device = self.namespace.now.links.get(&address.device).map(|link| link.name.as_str());
        let on = device.map(|device| format!(" on {device}")).unwrap_or_default();
        let (state, flag, note) = match address.failed {
            true => (
                "failed duplicate address detection",
                "dadfailed",
                "somebody else on the link has the address: give one of the two another",
            ),
            false => (
                "is still tentative",
                "tentative",
                "duplicate address detection has not ended: it takes a second or two from when the link \
                 is up",
            ),
        };
        let title = format!("{drops} packets for {to} refused in {name}: the address {state}{on}");
        let dev = device.map(|device| format!(" dev {}", quote(device))).unwrap_or_default();
        let subject = format!("{to}{on}");
        let draft = Draft::new(self.facts, "address_unusable", Severity::Warning, subject, title);
        self.proved(draft, drops)
            .names_any(device.map(|device| Object::interface(device, Some(to.to_string()))))
            .state("address", format!("{to} {flag}"), "rtnetlink")
            .run(&format!("ip -6 address show{dev} {flag}"), note)
            .done()
    }

    fn disabled(&self, switch: &str, drops: u64, refused: u64, nowhere: &[IpAddr]) -> Finding {
        let Self { namespace, family, .. } = self;
        let title = format!(
            "{} does not forward {}: {refused} packets for other hosts refused",
            namespace.name(),
            family.name
        );
        let subject = match family.reason {
            REASON => family.name.to_owned(),
            _ => format!("{} without a route", family.name),
        };
        let draft =
            Draft::new(self.facts, "forwarding_disabled", Severity::Warning, subject, title);
        let mut draft = self.proved(draft, drops).setting(switch).set(
            switch,
            1,
            "if it is meant to be a router",
        );
        if let [first, ..] = nowhere {
            let option = if first.is_ipv6() { "-6 " } else { "" };
            draft = draft.state("no route to", first.to_string(), "rtnetlink").run(
                &format!("ip {option}route show table all match {first}"),
                "and a route is missing, too: none of these leads there",
            );
        }
        draft.done()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::{
        evidence::Addresses,
        flow::Flow,
        question::{Answer, Question, Refusal},
    };

    const TO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 2, 100));

    fn counted(drops: u64, counted: u64) -> TestHost {
        TestHost::new()
            .row(drops, "ip_error", "IP_INADDRERRORS")
            .counted("Ip.InAddrErrors", counted)
            .interface("eth0")
    }

    fn host(drops: u64, count: u64, switch: &str) -> Vec<Finding> {
        counted(drops, count).setting("net.ipv4.ip_forward", switch).run(&RULE)
    }

    fn no_router(to: IpAddr) -> TestHost {
        let flow = Flow { dst: Some(to), ..Flow::default() };
        counted(10, 10).flow(flow).setting("net.ipv4.ip_forward", "0")
    }

    fn leads(device: u32, via: Option<[u8; 4]>, local: bool) -> Answer {
        let via = via.map(Into::into);
        Answer::Route(Route::Leads(Leads { local, device: Some(device), via, ..Leads::default() }))
    }

    /// The findings' names where the host answers so.
    fn rules(answer: Answer) -> Vec<String> {
        let found = no_router(TO).answer(Question::Route(Packet::to(TO)), answer).run(&RULE);
        found.into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn a_host_that_is_no_router_is_named_with_its_switch() {
        let found = host(10, 10, "0");
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.title, "gw does not forward IPv4: 10 packets for other hosts refused");
        assert_eq!(finding.explains.map(|e| e.drops), Some(10));
        assert_eq!(finding.actions[0].command, "ip netns exec gw sysctl -w net.ipv4.ip_forward=1");
    }

    #[test]
    fn the_switch_of_the_device_decides() {
        let device = "net/ipv4/conf/eth0/forwarding";
        let with = |all: &str, own: &str| {
            let host = counted(10, 10).setting("net.ipv4.ip_forward", all).setting(device, own);
            let command = |finding: &Finding| finding.actions[0].command.clone();
            host.run(&RULE).first().map(command).unwrap_or_default()
        };
        assert_eq!(with("1", "0"), format!("ip netns exec gw sysctl -w {device}=1"));
        assert_eq!(with("0", "0"), "ip netns exec gw sysctl -w net.ipv4.ip_forward=1");
        assert_eq!(with("0", "1"), "", "it does forward");
        assert_eq!(with("1", "1"), "");
    }

    #[test]
    fn an_address_of_the_same_link_is_another_hosts() {
        let answer = leads(2, None, false);
        let found = no_router(TO).answer(Question::Route(Packet::to(TO)), answer).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.title,
            "10 packets for 198.18.2.100 came to gw, which does not have it: it is on the link of eth0 \
             that they came in by"
        );
        let commands: Vec<_> = finding.actions.iter().map(|a| a.command.as_str()).collect();
        assert_eq!(commands, ["ip netns exec gw ip route get 198.18.2.100"], "no switch helps");
    }

    #[test]
    fn what_goes_to_all_of_a_smaller_network_is_nobodys_mistake_here() {
        let to = [198, 18, 2, 255].into();
        let answer = leads(2, None, false);
        let host = no_router(to).answer(Question::Route(Packet::to(to)), answer);
        assert_eq!(host.run(&RULE), []);
    }

    #[test]
    fn ipv6_without_a_route_is_not_forwarded_either() {
        let to: IpAddr = "2001:db8::9".parse().unwrap();
        let host = |function, reason, switch: &str| {
            let flow = Flow { dst: Some(to), ..Flow::default() };
            TestHost::new()
                .row(10, function, reason)
                .flow(flow)
                .counted("Ip6.InNoRoutes", 10)
                .setting("net.ipv6.conf.all.forwarding", switch)
                .answer(
                    Question::Route(Packet::to(to)),
                    Answer::Route(Route::Refused(Refusal::NoRoute.into())),
                )
                .run(&RULE)
        };
        for (function, reason) in
            [("ip6_pkt_discard", "IP_INNOROUTES"), ("ip6_pkt_drop", NOT_SPECIFIED)]
        {
            let found = host(function, reason, "0");
            let [finding] = &found[..] else { panic!("{found:?}") };
            assert_eq!(
                finding.title,
                "gw does not forward IPv6: 10 packets for other hosts refused"
            );
            let commands: Vec<_> = finding.actions.iter().map(|it| it.command.as_str()).collect();
            let switch = "ip netns exec gw sysctl -w net.ipv6.conf.all.forwarding=1";
            let route = "ip netns exec gw ip -6 route show table all match 2001:db8::9";
            assert_eq!(commands, [switch, route]);
            assert_eq!(host(function, reason, "1"), [], "there the route is what is missing");
        }
    }

    #[test]
    fn what_lies_behind_the_host_is_for_a_router() {
        assert_eq!(rules(leads(3, None, false)), ["forwarding_disabled"], "another link");
        let router = Some([198, 18, 2, 1]);
        assert_eq!(rules(leads(2, router, false)), ["forwarding_disabled"], "behind a router");
        let refused = Answer::Route(Route::Refused(Refusal::NoRoute.into()));
        assert_eq!(rules(refused.clone()), ["forwarding_disabled"]);
        assert_eq!(rules(leads(1, None, true)), [""; 0], "it is this host's own by now");
        let found = no_router(TO).answer(Question::Route(Packet::to(TO)), refused).run(&RULE);
        let missing = "ip netns exec gw ip route show table all match 198.18.2.100";
        assert_eq!(found[0].actions[1].command, missing);
    }

    #[test]
    fn each_of_two_kinds_has_its_part() {
        let other: IpAddr = [203, 0, 113, 9].into();
        let flows = [TO, other].map(|to| Flow { dst: Some(to), ..Flow::default() });
        let found = counted(10, 10)
            .flows(&flows)
            .setting("net.ipv4.ip_forward", "0")
            .answer(Question::Route(Packet::to(TO)), leads(2, None, false))
            .answer(Question::Route(Packet::to(other)), leads(3, None, false))
            .run(&RULE);
        let explained: Vec<_> =
            found.iter().map(|f| (f.rule.as_str(), f.explains.unwrap().drops)).collect();
        assert_eq!(explained, [("address_elsewhere", 5), ("forwarding_disabled", 5)]);
    }

    #[test]
    fn an_ipv6_address_that_somebody_else_has_is_named() {
        let to: IpAddr = "2001:2::5".parse().unwrap();
        let host = |failed| {
            let flow = Flow { dst: Some(to), ..Flow::default() };
            let mut host = TestHost::new()
                .row(10, "ip6_forward", NOT_SPECIFIED)
                .interface("eth0")
                .flow(flow)
                .device(2, "eth0", 1500)
                .counted("Ip6.InAddrErrors", 10)
                .setting("net.ipv6.conf.all.forwarding", "0");
            let unusable = [(to, UnusableAddress { device: 2, failed })].into();
            let addresses = Addresses { own: [to].into(), unusable, ..Addresses::default() };
            host.now.namespaces.get_mut(&GW).unwrap().addresses = Some(addresses);
            host.run(&RULE)
        };
        let failed = host(true);
        assert_eq!(
            failed[0].title,
            "10 packets for 2001:2::5 refused in gw: the address failed duplicate address detection on \
             eth0"
        );
        let command = "ip netns exec gw ip -6 address show dev eth0 dadfailed";
        assert_eq!(failed[0].actions[0].command, command);
        assert_eq!(failed.len(), 1);
        assert!(host(false)[0].title.ends_with("the address is still tentative on eth0"));
    }

    #[test]
    fn a_router_has_another_reason_to_refuse() {
        assert_eq!(host(10, 10, "1"), []);
    }

    #[test]
    fn another_namespaces_drops_are_not_this_ones() {
        assert_eq!(host(10, 0, "0"), []);
        assert_eq!(host(2, 10, "0"), [], "a few are nothing");
    }
}
