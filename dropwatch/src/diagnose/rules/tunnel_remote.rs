//! A VXLAN device that knows no host to send a frame to.
//!
//! It sends a frame to the remote that its forwarding database has for the station, else to the one for
//! unknown stations: a default of the device (`remote`, `group`), or an entry for 00:00:00:00:00:00. Where
//! there is neither, `vxlan_xmit` drops it (drivers/net/vxlan/vxlan_core.c), since Linux 6.13 as
//! `NO_TX_TARGET`, before without a reason. Other things die there without one, so the host is asked.

use super::{Draft, Facts, Makes, Rule, Verdict, by_device, matters, quote};
use crate::{
    diagnose::{
        facts::{Rows, name},
        knowledge::NOT_SPECIFIED,
    },
    report::{
        device::{Frame, written},
        facts::Netns,
        finding::{Finding, Severity},
        object::Object,
        question::Ask,
    },
};

const FUNCTIONS: &[&str] = &["vxlan_xmit"];
const REASONS: &[&str] = &["NO_TX_TARGET", NOT_SPECIFIED];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "tunnel_without_remote",
        severity: "warning",
        says: "a VXLAN device knows no host to send frames to",
        rests_on: "rows at `vxlan_xmit`, the device's forwarding database",
    }],
    check_or_ask,
    ..Rule::NONE
};

fn check_or_ask(facts: &Facts<'_>) -> Vec<Verdict> {
    by_device(&facts.rows(REASONS, FUNCTIONS), |netns, index, rows, drops| {
        unknown(facts, netns, index, rows, drops)
    })
}

fn unknown(
    facts: &Facts<'_>,
    netns: &Netns,
    index: u32,
    rows: &Rows<'_>,
    drops: u64,
) -> Result<Option<Finding>, Ask> {
    let Some((station, _)) = rows.stations().filter(|_| matters(drops, facts)) else {
        return Ok(None);
    };
    let Ok(device) = facts.device(netns.number(), index)? else { return Ok(None) };
    if device.kind.as_deref() != Some("vxlan") {
        return Ok(None);
    }
    let frame = Frame { port: index, to: station };
    if facts.has_remote(netns.number(), frame)? != Ok(false) {
        return Ok(None);
    }
    let (on, to) = (&device.name, written(station));
    let title = format!(
        "{on} in {} has no remote for {to}, and none for unknown stations: {drops} frames dropped",
        name(Some(netns))
    );
    let mut draft =
        Draft::new(facts, "tunnel_without_remote", Severity::Warning, format!("{on} {to}"), title)
            .somewhere(Some(netns))
            .explains(drops, rows)
            .names(Object::tunnel(&device, Some(station)))
            .counted("drops at vxlan_xmit", drops, "kfree_skb");
    let link = facts.namespace(netns.number()).and_then(|namespace| namespace.link(index));
    if let Some(link) = link {
        let counter = format!("tx_dropped of {on}");
        draft = draft.counted_too(&counter, link.delta("tx_dropped"), "rtnetlink");
    }
    let finding = draft
        .run(
            &format!("bridge fdb show dev {}", quote(on)),
            "which host (`dst`) has which station; 00:00:00:00:00:00 stands for all others; it \
             shows nothing where the table is empty. Whoever fills it (flannel, Calico, EVPN) has left \
             this one out, or `bridge fdb append` adds it",
        )
        .run(
            &format!("ip -details link show dev {}", quote(on)),
            "its default, `remote` or `group`: none here",
        )
        .done();
    Ok(Some(finding))
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::{
        device::Device,
        question::{Answer, Question},
    };

    const POD: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn found(reason: &str, kind: &str, known: bool) -> Vec<Finding> {
        let kind = Some(kind.to_owned());
        let device = Device { index: 2, name: "vx0".into(), kind, ..Device::default() };
        let frame = Frame { port: 2, to: POD };
        TestHost::new()
            .row(50, "vxlan_xmit", reason)
            .interface("vx0")
            .stations(POD, [2, 0, 0, 0, 0, 7])
            .answer(Question::Device(2), Answer::Device(Box::new(device)))
            .answer(Question::Remote(frame), Answer::Remote(known))
            .run(&RULE)
    }

    #[test]
    fn a_station_without_a_remote_is_named() {
        for reason in ["NO_TX_TARGET", NOT_SPECIFIED, ""] {
            let found = found(reason, "vxlan", false);
            let [finding] = &found[..] else { panic!("{reason}: {found:?}") };
            let says = "vx0 in gw has no remote for 02:00:00:00:00:09, and none for unknown stations: 50 \
                        frames dropped";
            assert_eq!(finding.title, says);
            let object = finding.object.as_ref().expect("the device");
            assert_eq!((object.kind.as_str(), object.name.as_str()), ("tunnel", "vx0"));
            assert_eq!(finding.actions[0].command, "ip netns exec gw bridge fdb show dev vx0");
        }
    }

    #[test]
    fn one_that_has_a_remote_died_of_something_else() {
        assert_eq!(found(NOT_SPECIFIED, "vxlan", true), []);
        assert_eq!(found(NOT_SPECIFIED, "geneve", false), []);
    }
}
