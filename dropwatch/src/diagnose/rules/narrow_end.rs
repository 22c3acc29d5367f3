//! Frames that are larger than the device takes that they are handed to.
//!
//! The two ends of a veth have an MTU each, and so do the ports of a bridge. What is larger than the
//! receiver's is dropped without an answer to the sender, since nobody routes there
//! (`____dev_forward_skb`, include/linux/netdevice.h; `br_dev_queue_push_xmit`, net/bridge/br_forward.c).
//! Small packets pass, so a connection begins, and hangs as soon as it carries data.
//!
//! The functions drop for no other reason but a receiver that is off, so the MTUs decide, for which the
//! host is asked. The receiver counts each in `rx_dropped`, those of a bridge's port nobody counts.

use super::{Draft, Facts, Makes, Rule, Verdict, by_device, matters, quote};
use crate::{
    diagnose::{
        facts::{NetnsFacts, Rows, name},
        knowledge::NOT_SPECIFIED,
    },
    report::{
        device::{Device, Peer},
        facts::Netns,
        finding::{Finding, Severity},
        object::Object,
        question::Ask,
    },
};

/// Where a frame is handed to the other end of a pair; compilers inline some of these.
const PAIR: &[&str] =
    &["__dev_forward_skb2", "__dev_forward_skb", "____dev_forward_skb", "dev_forward_skb"];
/// Where a bridge hands a frame to the port that it leaves by.
const PORT: &[&str] = &["br_dev_queue_push_xmit", "br_nf_dev_queue_xmit", "br_forward_finish"];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "narrow_end",
        severity: "warning",
        says: "frames larger than the other end, or a bridge's port, takes",
        rests_on: "rows of the function that hands them on, the MTUs of both",
    }],
    check_or_ask,
    ..Rule::NONE
};

fn check_or_ask(facts: &Facts<'_>) -> Vec<Verdict> {
    let decided = |(functions, decide): (&[&str], Decide)| {
        by_device(&facts.rows(&[NOT_SPECIFIED], functions), |netns, index, rows, drops| {
            match matters(drops, facts) {
                true => decide(facts, netns, index, rows, drops),
                false => Ok(None),
            }
        })
    };
    [(PAIR, pair as Decide), (PORT, port)].into_iter().flat_map(decided).collect()
}

type Decide = fn(&Facts<'_>, &Netns, u32, &Rows<'_>, u64) -> Result<Option<Finding>, Ask>;

fn pair(
    facts: &Facts<'_>,
    netns: &Netns,
    index: u32,
    rows: &Rows<'_>,
    drops: u64,
) -> Result<Option<Finding>, Ask> {
    let Ok(device) = facts.device(netns.number(), index)? else { return Ok(None) };
    let object = Object::device(&device, None);
    let Device { name: on, mtu, peer: Some(peer), .. } = *device else { return Ok(None) };
    let Peer { name: end, mtu: takes, up, netns: there, .. } = peer;
    if !up || takes >= mtu {
        return Ok(None);
    }
    let there: Option<NetnsFacts<'_>> = there.and_then(|number| facts.namespace(number));
    let at = there.map(|there| format!(" in {}", there.name())).unwrap_or_default();
    let title = format!(
        "{on} in {} sends up to {mtu} bytes, its other end {end}{at} takes {takes}: {drops} packets \
         dropped",
        name(Some(netns))
    );
    let mut draft = Draft::new(facts, "narrow_end", Severity::Warning, on.as_str(), title)
        .somewhere(Some(netns))
        .explains(drops, rows)
        .names(object)
        .counted(place(rows), drops, "kfree_skb");
    let counter = format!("rx_dropped of {end}{at}");
    // A namespace without drops of its own is looked into less often; the total is of now.
    let link = there.and_then(|there| there.link(peer.index));
    draft = match link.map(|link| link.delta("rx_dropped")).filter(|counted| *counted > 0) {
        Some(counted) => draft.counted(&counter, counted, "rtnetlink"),
        None => draft.state(&counter, peer.rx_dropped, "rtnetlink"),
    };
    draft = draft
        .state(&format!("MTU of {on}"), u64::from(mtu), "rtnetlink")
        .state(&format!("MTU of {end}"), u64::from(takes), "rtnetlink")
        .run(
            &format!("ip link set dev {} mtu {takes}", quote(&on)),
            "nothing larger is sent any more: it is cut, or its sender learns the size",
        );
    if let Some(there) = there {
        draft = draft.run_in(
            there,
            &format!("ip link set dev {} mtu {mtu}", quote(&end)),
            "or the other end takes as much, if all behind it do",
        );
    }
    Ok(Some(draft.done()))
}

fn port(
    facts: &Facts<'_>,
    netns: &Netns,
    index: u32,
    rows: &Rows<'_>,
    drops: u64,
) -> Result<Option<Finding>, Ask> {
    let Ok(device) = facts.device(netns.number(), index)? else { return Ok(None) };
    let object = Object::device(&device, None);
    let Device { name: on, mtu, port: Some(port), up: true, .. } = *device else { return Ok(None) };
    // A frame came from somewhere that takes more.
    let others = facts.namespace(netns.number()).map(|here| here.now.links.values());
    let widest = others.into_iter().flatten().filter(|link| link.up && link.name != "lo");
    let Some(widest) = widest.max_by_key(|link| link.mtu).filter(|link| link.mtu > mtu) else {
        return Ok(None);
    };
    let title = format!(
        "{on}, a port of {} in {}, takes {mtu} bytes: {drops} larger frames dropped",
        port.bridge,
        name(Some(netns))
    );
    let draft = Draft::new(facts, "narrow_end", Severity::Warning, on.as_str(), title)
        .somewhere(Some(netns))
        .explains(drops, rows)
        .names(object)
        .counted(place(rows), drops, "kfree_skb")
        .state(&format!("MTU of {on}"), u64::from(mtu), "rtnetlink")
        .state(&format!("MTU of {}", widest.name), u64::from(widest.mtu), "rtnetlink")
        .run(
            &format!("ip link set dev {} mtu {}", quote(&on), widest.mtu),
            "if the station behind it takes as much; all of one bridge need the same MTU",
        );
    Ok(Some(draft.done()))
}

/// The function of the rows, which is the evidence: they have no reason.
fn place<'a>(rows: &Rows<'a>) -> &'a str {
    rows.0.first().and_then(|row| row.place.symbol.as_deref()).unwrap_or(NOT_SPECIFIED)
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::{
        device::BridgePort,
        evidence::Link,
        question::{Answer, Question},
    };

    fn device(mtu: u32) -> Device {
        let (name, kind) = ("veth1".into(), Some("veth".into()));
        Device { index: 2, name, kind, up: true, carrier: true, mtu, ..Device::default() }
    }

    fn of_pair(takes: u32, up: bool) -> TestHost {
        let name = "eth0".into();
        let peer = Peer { index: 2, name, up, mtu: takes, rx_dropped: 90, netns: Some(GW) };
        let device = Device { peer: Some(peer), ..device(1500) };
        TestHost::new()
            .row(40, "__dev_forward_skb2", NOT_SPECIFIED)
            .interface("veth1")
            .answer(Question::Device(2), Answer::Device(Box::new(device)))
    }

    #[test]
    fn the_ends_of_a_pair_are_named_with_what_they_take() {
        let link = Link { name: "eth0".into(), ..Link::default() };
        let found = of_pair(1402, true).link(&link, "rx_dropped", 40).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        let says = "veth1 in gw sends up to 1500 bytes, its other end eth0 in gw takes 1402: 40 packets \
                    dropped";
        assert_eq!(finding.title, says);
        assert_eq!(finding.evidence[1].name, "rx_dropped of eth0 in gw");
        assert!(finding.evidence[1].delta && finding.evidence[1].value == 40.into());
        let late = of_pair(1402, true).run(&RULE);
        assert!(!late[0].evidence[1].delta && late[0].evidence[1].value == 90.into());
        let commands: Vec<_> = finding.actions.iter().map(|it| it.command.as_str()).collect();
        assert_eq!(
            commands,
            [
                "ip netns exec gw ip link set dev veth1 mtu 1402",
                "ip netns exec gw ip link set dev eth0 mtu 1500"
            ]
        );
    }

    #[test]
    fn ends_that_take_the_same_drop_for_another_cause() {
        assert_eq!(of_pair(1500, true).run(&RULE), []);
        assert_eq!(of_pair(1402, false).run(&RULE), [], "it is off");
        let silent = TestHost::new().row(40, "__dev_forward_skb2", NOT_SPECIFIED);
        assert_eq!(silent.interface("veth1").run(&RULE), [], "the host does not answer");
    }

    #[test]
    fn a_port_of_a_bridge_takes_less_than_another() {
        let port = BridgePort { bridge: "br0".into(), ..BridgePort::default() };
        let narrow = Device { port: Some(port), ..device(1400) };
        let host = |other| {
            TestHost::new()
                .device(2, "veth1", 1400)
                .device(3, "p0", other)
                .row(40, "br_dev_queue_push_xmit", NOT_SPECIFIED)
                .interface("veth1")
                .answer(Question::Device(2), Answer::Device(Box::new(narrow.clone())))
        };
        let found = host(1500).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        let says = "veth1, a port of br0 in gw, takes 1400 bytes: 40 larger frames dropped";
        assert_eq!(finding.title, says);
        assert_eq!(host(1400).run(&RULE), []);
    }
}
