//! Packets that should leave by a device at whose other end nobody is.
//!
//! Without a carrier the kernel takes the device's queue away: what is sent is dropped by one that takes
//! nothing (`noop_enqueue`, net/sched/sch_generic.c), with the reason of a full queue, and no discipline
//! counts it. Packets whose next hop would be asked for there wait until the kernel gives up, since
//! nobody hears the question (`neigh_invalidate`, net/core/neighbour.c).
//!
//! Whether the device has a carrier the host is asked, and who is to be at its other end: the other end
//! of a veth, the process of a tap.

use std::net::IpAddr;

use super::{Draft, Facts, Makes, Rule, Verdict, by_device, matters, quote};
use crate::{
    diagnose::facts::{NetnsFacts, Rows, name},
    report::{
        device::{Device, Peer},
        evidence::QDISC_DROPS,
        facts::Netns,
        finding::{Finding, Severity},
        object::Object,
        question::Ask,
    },
};

/// The reason of a queue that is full, or is none.
const QUEUE: &str = "QDISC_DROP";
const REASONS: &[&str] = &[QUEUE, "NEIGH_FAILED"];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "no_carrier",
        severity: "warning",
        says: "packets should leave by a device without carrier",
        rests_on: "rows with `QDISC_DROP` or `NEIGH_FAILED`, the device's state",
    }],
    check_or_ask,
    ..Rule::NONE
};

fn check_or_ask(facts: &Facts<'_>) -> Vec<Verdict> {
    by_device(&facts.rows(REASONS, &[]), |netns, index, rows, drops| {
        unheard(facts, netns, index, rows, drops)
    })
}

fn unheard(
    facts: &Facts<'_>,
    netns: &Netns,
    index: u32,
    rows: &Rows<'_>,
    drops: u64,
) -> Result<Option<Finding>, Ask> {
    let namespace = facts.namespace(netns.number());
    // What a discipline has counted was dropped while there was one.
    let link = namespace.and_then(|namespace| namespace.link(index));
    let drops = drops.saturating_sub(link.map_or(0, |link| link.delta(QDISC_DROPS)));
    if !matters(drops, facts) {
        return Ok(None);
    }
    let Ok(device) = facts.device(netns.number(), index)? else { return Ok(None) };
    if device.carrier {
        return Ok(None);
    }
    let unread = match device.kind.as_deref() {
        Some("tun") => facts.readers(netns.number(), index)?.is_ok_and(|all| all.is_empty()),
        _ => false,
    };
    let why = if device.up { "has no carrier" } else { "is switched off" };
    let on = &device.name;
    let title = format!(
        "{on} in {} {why}: {drops} packets that should leave by it dropped",
        name(Some(netns))
    );
    let mut draft = Draft::new(facts, "no_carrier", Severity::Warning, on.as_str(), title)
        .somewhere(Some(netns))
        .explains(drops, rows)
        .names(Object::device(&device, None));
    for reason in REASONS {
        let of_reason = |row: &&&_| is_for(row, reason);
        let counted = rows.0.iter().filter(of_reason).map(|row| row.count).sum();
        draft = draft.counted_too(reason, counted, "kfree_skb");
    }
    if let Some(link) = link {
        draft = draft.counted_too(
            &format!("tx_dropped of {on}"),
            link.delta("tx_dropped"),
            "rtnetlink",
        );
    }
    draft = draft.state(&format!("state of {on}"), state(&device), "rtnetlink");
    if unread {
        draft = draft.state("processes that have it open", 0, "/proc");
    }
    draft = mend(draft, facts, &device);
    draft = draft.run(
        &format!("ip -details link show dev {}", quote(on)),
        "NO-CARRIER: its cable, the port of the switch, or who is to be at its other end",
    );
    let family = match rows.destination() {
        Some(IpAddr::V4(_)) => "ipv4",
        Some(IpAddr::V6(_)) => "ipv6",
        None => return Ok(Some(draft.done())),
    };
    let setting = format!("net/{family}/conf/{on}/ignore_routes_with_linkdown=1");
    let note = "routes out of it are passed over as long as there is no carrier, where another one \
                leads there, too";
    Ok(Some(draft.run(&format!("sysctl -w {}", quote(&setting)), note).done()))
}

fn is_for(row: &crate::report::model::Location, reason: &str) -> bool {
    row.place.reason.as_deref() == Some(reason)
}

fn state(device: &Device) -> &'static str {
    if device.up { "up, no carrier" } else { "down" }
}

/// Adds the other end, and the command that switches on what is off.
fn mend<'a>(draft: Draft<'a>, facts: &Facts<'a>, device: &Device) -> Draft<'a> {
    if !device.up {
        let on = format!("ip link set dev {} up", quote(&device.name));
        return draft.run(&on, "switches it on");
    }
    let Some(Peer { name: peer, up, netns, .. }) = &device.peer else { return draft };
    let there: Option<NetnsFacts<'a>> = netns.and_then(|number| facts.namespace(number));
    let at = there.map(|there| format!(" in {}", there.name())).unwrap_or_default();
    let is = if *up { "up" } else { "down" };
    let draft = draft.state("its other end", format!("{peer}{at}, {is}"), "rtnetlink");
    match there.filter(|_| !up) {
        Some(there) => {
            let on = format!("ip link set dev {} up", quote(peer));
            draft.run_in(there, &on, "switches the other end on")
        }
        None => draft,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::{
        flow::Flow,
        question::{Answer, Question},
    };

    fn rndis() -> Device {
        Device { index: 2, name: "rndis".into(), up: true, ..Device::default() }
    }

    fn host(reason: &str, device: Device) -> TestHost {
        let to = Flow { dst: Some([203, 0, 113, 9].into()), ..Flow::default() };
        TestHost::new()
            .device(2, "rndis", 1500)
            .row(50, "__dev_queue_xmit", reason)
            .interface("rndis")
            .flow(to)
            .answer(Question::Device(2), Answer::Device(Box::new(device)))
    }

    #[test]
    fn a_queue_that_is_none_is_a_device_without_carrier() {
        for reason in REASONS {
            let found = host(reason, rndis()).run(&RULE);
            let [finding] = &found[..] else { panic!("{found:?}") };
            let says = "rndis in gw has no carrier: 50 packets that should leave by it dropped";
            assert_eq!(finding.title, says);
            assert_eq!(finding.explains.map(|it| it.drops), Some(50));
            let setting = "sysctl -w net/ipv4/conf/rndis/ignore_routes_with_linkdown=1";
            assert!(finding.actions[1].command.ends_with(setting), "{finding:?}");
        }
    }

    #[test]
    fn the_other_end_is_switched_on_where_it_is() {
        let peer = Peer { index: 9, name: "eth0".into(), netns: Some(GW), ..Peer::default() };
        let found = host(QUEUE, Device { peer: Some(peer), ..rndis() }).run(&RULE);
        assert_eq!(found[0].actions[0].command, "ip netns exec gw ip link set dev eth0 up");
        assert!(found[0].evidence.iter().any(|it| it.name == "its other end"), "{found:?}");
    }

    #[test]
    fn a_device_that_is_off_is_switched_on() {
        let found = host(QUEUE, Device { up: false, ..rndis() }).run(&RULE);
        assert!(found[0].title.starts_with("rndis in gw is switched off: 50"), "{found:?}");
        assert_eq!(found[0].actions[0].command, "ip netns exec gw ip link set dev rndis up");
    }

    #[test]
    fn a_tap_that_no_process_reads_is_called_so() {
        let tap = Device { kind: Some("tun".into()), ..rndis() };
        let found = host(QUEUE, tap).answer(Question::Readers(2), Answer::Readers(Vec::new()));
        let found = found.run(&RULE);
        assert!(found[0].evidence.iter().any(|it| it.source == "/proc"), "{found:?}");
    }

    #[test]
    fn a_full_queue_is_another_cause() {
        let healthy = Device { carrier: true, ..rndis() };
        assert_eq!(host(QUEUE, healthy).run(&RULE), [], "it has a carrier");
        let unknown = TestHost::new().row(50, "__dev_queue_xmit", QUEUE).interface("rndis");
        assert_eq!(unknown.run(&RULE), [], "the host does not answer");
        let link = crate::report::evidence::Link { name: "rndis".into(), ..Default::default() };
        let counted = host(QUEUE, rndis()).link(&link, QDISC_DROPS, 50);
        assert_eq!(counted.run(&RULE), [], "a discipline counted them");
    }
}
