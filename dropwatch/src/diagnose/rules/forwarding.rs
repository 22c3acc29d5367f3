//! Packets that are not for this host, which does not pass them on.
//!
//! The route lookup finds that a packet is not for this host, and forwarding is off on the device
//! that it came in by (`ip_error` with `-EHOSTUNREACH`, net/ipv4/route.c; of IPv6 on the host,
//! `ip6_forward`, net/ipv6/ip6_output.c). Either somebody uses this host as a router, or the packets
//! should not have come here at all: the address is on the very link that they came in by, so whoever sends
//! them takes this host for the one that has it. The host is asked which. An IPv6 address may be its
//! own, and not in use, since somebody else has it, too.

use std::net::IpAddr;

use super::{Counts, Draft, Facts, Kept, Makes, Rule, Verdict, matters, quote};
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

const IPV4: &[&str] = &["ip_error"];
const IPV6: &[&str] = &["ip6_pkt_drop", "ip6_forward"];

const FAMILIES: [ForwardingFamily; 3] = [
    ForwardingFamily {
        name: "IPv4",
        switch: "net.ipv4.ip_forward",
        device_switch: Some("net/ipv4/conf/DEV/forwarding"),
        counter: "Ip.InAddrErrors",
        reason: REASON,
        functions: IPV4,
    },
    ForwardingFamily {
        name: "IPv6",
        switch: "net.ipv6.conf.all.forwarding",
        device_switch: None,
        counter: "Ip6.InAddrErrors",
        reason: REASON,
        functions: IPV6,
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
    counts: &[
        Counts::of(Kept::Netns(&["Ip.InAddrErrors"]), &[REASON], IPV4),
        Counts::of(Kept::Netns(&["Ip6.InAddrErrors"]), &[REASON], IPV6),
    ],
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
                "and a route is missing, too: none of these leads there, or it shows nothing",
            );
        }
        draft.done()
    }
}

#[cfg(test)]
mod tests;
