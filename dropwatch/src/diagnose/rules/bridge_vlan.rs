//! A bridge filters VLANs, and a port does not have that of the frames which come in by it.
//!
//! Frames without a tag are of the port's own VLAN (`pvid`), if it has one. What is refused is freed in
//! `__allowed_ingress` (net/bridge/br_vlan.c, 5.10 to 7.2), without a reason; where that is inlined, in
//! `br_allowed_ingress`. A VLAN's own spanning-tree state refuses there, too, so the host is asked which VLANs
//! the port has.

use super::{Draft, Facts, Makes, Rule, Verdict, by_device, matters, quote};
use crate::{
    diagnose::facts::{Rows, name},
    report::{
        device::PortVlans,
        facts::Netns,
        finding::{Finding, Severity},
        object::Object,
        question::Ask,
    },
};

const FUNCTIONS: &[&str] = &["__allowed_ingress", "br_allowed_ingress"];
/// Most VLANs of a port that are looked at.
const MOST: usize = 3;
/// Most sampled flows that may name one.
const FLOWS: usize = 16;

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "bridge_vlan",
        severity: "warning",
        says: "a bridge's port does not have the VLAN of what comes in by it",
        rests_on: "rows at `__allowed_ingress`, the VLANs of the port",
    }],
    check_or_ask,
    ..Rule::NONE
};

fn check_or_ask(facts: &Facts<'_>) -> Vec<Verdict> {
    let rows = facts.rows(&[], FUNCTIONS);
    let each = (0..MOST).flat_map(|nth| {
        by_device(&rows, |netns, index, rows, _| refused(facts, netns, index, rows, nth))
    });
    each.collect()
}

/// The VLANs of the rows' frames, the commonest first; `None` stands for no tag.
fn vlan(rows: &Rows<'_>, nth: usize) -> Option<Option<u16>> {
    let mut vlans: Vec<Option<u16>> = Vec::new();
    for flow in rows.flows(FLOWS) {
        if !vlans.contains(&flow.vlan) {
            vlans.push(flow.vlan);
        }
    }
    vlans.get(nth).copied()
}

fn refused(
    facts: &Facts<'_>,
    netns: &Netns,
    index: u32,
    rows: &Rows<'_>,
    nth: usize,
) -> Result<Option<Finding>, Ask> {
    // Flows of a row are those of all its devices.
    let Some(tag) = vlan(rows, nth).filter(|_| rows.device_index() == Some(index)) else {
        return Ok(None);
    };
    let drops = rows.count_of(|flow| flow.vlan == tag);
    if !matters(drops, facts) {
        return Ok(None);
    }
    let Ok(device) = facts.device(netns.number(), index)? else { return Ok(None) };
    let Some(port) = &device.port else { return Ok(None) };
    let Ok(Some(vlans)) = facts.port_vlans(netns.number(), index)? else { return Ok(None) };
    let lacks = match tag {
        Some(vlan) if !vlans.has(vlan) => format!("does not have VLAN {vlan}"),
        None if vlans.native.is_none() => "has no VLAN for untagged frames".to_owned(),
        Some(_) | None => return Ok(None),
    };
    let (on, within) = (&device.name, name(Some(netns)));
    let title = format!(
        "{on}, a port of {} in {within}, {lacks}: {drops} frames that came in by it dropped",
        port.bridge
    );
    let subject = match tag {
        Some(vlan) => format!("{on} VLAN {vlan}"),
        None => format!("{on} untagged"),
    };
    let draft = Draft::new(facts, "bridge_vlan", Severity::Warning, subject, title)
        .somewhere(Some(netns))
        .explains(drops, rows)
        .names(Object::bridge_port(&device, port, tag))
        .counted("drops at the VLAN filter", drops, "kfree_skb")
        .state(&format!("VLANs of {on}"), listed(&vlans), "rtnetlink");
    let draft = match tag {
        Some(vlan) => draft.run(
            &format!("bridge vlan add dev {} vid {vlan}", quote(on)),
            "lets the VLAN in and out by that port: whoever is behind it reaches that VLAN",
        ),
        None => draft,
    };
    let show = format!("bridge vlan show dev {}", quote(on));
    let note = "the VLANs of the port; PVID is that of frames without a tag (`bridge vlan add dev … vid N \
                pvid untagged`)";
    Ok(Some(draft.run(&show, note).done()))
}

/// `1, 10-20`
fn listed(vlans: &PortVlans) -> String {
    let each = vlans.ranges.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    let all: Vec<String> = each.collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::{
        device::{BridgePort, Device},
        flow::Flow,
        question::{Answer, Question},
    };

    fn found(tags: &[Option<u16>], vlans: Option<PortVlans>) -> Vec<Finding> {
        let port = Some(BridgePort { bridge: "br0".into(), ..BridgePort::default() });
        let device = Device { index: 2, name: "p2".into(), port, ..Device::default() };
        let flows: Vec<Flow> =
            tags.iter().map(|vlan| Flow { vlan: *vlan, ..Flow::default() }).collect();
        TestHost::new()
            .row(50, "__allowed_ingress", "NOT_SPECIFIED")
            .interface("p2")
            .flows(&flows)
            .answer(Question::Device(2), Answer::Device(Box::new(device)))
            .answer(Question::PortVlans(2), Answer::PortVlans(vlans))
            .run(&RULE)
    }

    fn with(native: Option<u16>, ranges: &[(u16, u16)]) -> Option<PortVlans> {
        Some(PortVlans { native, ranges: ranges.to_vec() })
    }

    #[test]
    fn a_vlan_that_the_port_lacks_is_named() {
        let found = found(&[Some(30)], with(Some(1), &[(1, 1), (10, 20)]));
        let [finding] = &found[..] else { panic!("{found:?}") };
        let says =
            "p2, a port of br0 in gw, does not have VLAN 30: 50 frames that came in by it dropped";
        assert_eq!(finding.title, says);
        assert_eq!(finding.evidence[1].value, "1, 10-20".into());
        let command = "ip netns exec gw bridge vlan add dev p2 vid 30";
        assert_eq!(finding.actions[0].command, command);
        let object = finding.object.as_ref().expect("the port");
        assert_eq!((object.kind.as_str(), object.name.as_str()), ("bridge-port", "p2 of br0"));
    }

    #[test]
    fn untagged_frames_need_a_vlan_of_the_port() {
        let found = found(&[None], with(None, &[]));
        assert!(found[0].title.contains("has no VLAN for untagged frames: 50"), "{found:?}");
        assert_eq!(found[0].actions.len(), 1, "which VLAN, somebody has to say");
    }

    #[test]
    fn each_vlan_has_its_part() {
        let found = found(&[Some(30), Some(40)], with(Some(1), &[(1, 1)]));
        let explained: Vec<_> = found.iter().filter_map(|it| Some(it.explains?.drops)).collect();
        assert_eq!(explained, [25, 25]);
    }

    #[test]
    fn what_the_port_has_is_another_cause() {
        assert_eq!(found(&[Some(30)], with(Some(1), &[(1, 30)])), [], "its own spanning tree");
        assert_eq!(found(&[None], with(Some(1), &[(1, 1)])), []);
        assert_eq!(found(&[Some(30)], None), [], "the bridge looks at none");
    }
}
