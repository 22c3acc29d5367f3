//! A port of a bridge takes no frames in, or may not send them on.
//!
//! A port that is not in the state *forwarding* takes nothing in (`br_handle_frame`,
//! `br_handle_frame_finish`, net/bridge/br_input.c), and nothing leaves by it. No frame leaves by the port
//! that it came in by, unless that is in hairpin mode, and none goes from one isolated port to another
//! (`should_deliver`, net/bridge/br_forward.c). The kernel gives these the same place, so the host is asked:
//! in what state the port is, and by which port the frame would leave.
//!
//! Frames between two stations behind one port are no business of a bridge, which drops them: every switch
//! sends it some. One from a station to itself is: it went out to an address that leads back.

use super::{Draft, Facts, Makes, Rule, Verdict, matters, quote};
use crate::{
    diagnose::{
        facts::{Rows, name},
        knowledge::NOT_SPECIFIED,
    },
    report::{
        device::{BridgePort, Device, Frame, PortState},
        facts::Netns,
        finding::{Finding, Severity},
        object::Object,
        question::Ask,
    },
};

/// Linux 6.14; before, such frames have none.
const STATE: &str = "BRIDGE_INGRESS_STP_STATE";
const FUNCTIONS: &[&str] = &["br_handle_frame", "br_handle_frame_finish", "br_forward"];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "bridge_port",
        severity: "warning, notice where spanning tree blocks",
        says: "a bridge's port is not forwarding, isolated, or may not send back",
        rests_on: "rows of the bridge, the state of its ports",
    }],
    check_or_ask,
    ..Rule::NONE
};

fn check_or_ask(facts: &Facts<'_>) -> Vec<Verdict> {
    let mut rows = facts.rows(&[NOT_SPECIFIED], FUNCTIONS);
    rows.0.extend(facts.rows(&[STATE], &[]).0);
    let mut verdicts = Vec::new();
    for (netns, rows) in rows.by_netns() {
        let Some(netns) = netns else { continue };
        // Each row alone: frames of one port may die of two causes.
        for row in &rows.0 {
            for (index, (rows, drops)) in Rows(vec![row]).by_device() {
                verdicts.extend(Verdict::of(refused(facts, netns, index, &rows, drops)));
            }
        }
    }
    verdicts
}

/// Why a bridge drops frames that came in by a port.
struct Refused {
    what: String,
    severity: Severity,
    /// The finding's second command, and what it does.
    mend: Option<(String, &'static str)>,
}

fn refused(
    facts: &Facts<'_>,
    netns: &Netns,
    index: u32,
    rows: &Rows<'_>,
    drops: u64,
) -> Result<Option<Finding>, Ask> {
    if !matters(drops, facts) {
        return Ok(None);
    }
    let Ok(device) = facts.device(netns.number(), index)? else { return Ok(None) };
    let Some(port) = &device.port else { return Ok(None) };
    let is_state = rows.0.iter().any(|row| row.place.reason.as_deref() == Some(STATE));
    let within = name(Some(netns));
    let (on, bridge) = (&device.name, &port.bridge);
    let refused = if is_state || port.state != PortState::Forwarding {
        not_forwarding(&device, port, &within, drops)
    } else {
        let Some((to, from)) = rows.stations() else { return Ok(None) };
        let frame = Frame { port: index, to };
        let Ok(Some(out)) = facts.forwarding(netns.number(), frame)? else { return Ok(None) };
        match egress(&device, port, &out, to == from, &within, drops) {
            Some(refused) => refused,
            None => return Ok(None),
        }
    };
    let reason = if is_state { STATE } else { NOT_SPECIFIED };
    let mut draft = Draft::new(facts, "bridge_port", refused.severity, on.as_str(), refused.what)
        .somewhere(Some(netns))
        .explains(drops, rows)
        .names(Object::bridge_port(&device, port, None))
        .counted(reason, drops, "kfree_skb")
        .state(&format!("state of {on} in {bridge}"), port.state.name(), "rtnetlink")
        .state(&format!("hairpin of {on}"), if port.hairpin { "on" } else { "off" }, "rtnetlink");
    if let Some((command, note)) = refused.mend {
        draft = draft.run(&command, note);
    }
    let show = format!("bridge -details link show dev {}", quote(on));
    Ok(Some(draft.run(&show, "state, hairpin, isolated and what else the port does").done()))
}

fn not_forwarding(device: &Device, port: &BridgePort, within: &str, drops: u64) -> Refused {
    let (on, BridgePort { bridge, state, .. }) = (&device.name, port);
    let what = match state {
        PortState::Forwarding => format!(
            "{on}, a port of {bridge} in {within}, was not forwarding, and is now: {drops} frames that \
             came in by it dropped"
        ),
        state => format!(
            "{on}, a port of {bridge} in {within}, is {}: {drops} frames that came in by it dropped",
            state.name()
        ),
    };
    let severity = match state {
        PortState::Blocking | PortState::Forwarding => Severity::Notice,
        _ => Severity::Warning,
    };
    let mend = match state {
        PortState::Disabled => Some((
            format!("bridge link set dev {} state 3", quote(on)),
            "makes it forward; where spanning tree runs, that decides itself",
        )),
        PortState::Listening | PortState::Learning => Some((
            format!("ip link set dev {} type bridge stp_state 0", quote(bridge)),
            "without spanning tree a port forwards at once; a second way between two bridges would then \
             be a loop. Left alone, it listens and learns for forward_delay each",
        )),
        _ => None,
    };
    Refused { what, severity, mend }
}

/// Why a frame may not leave by `out`; `None` where it may, or that is as it should be.
fn egress(
    device: &Device,
    port: &BridgePort,
    out: &Device,
    to_itself: bool,
    within: &str,
    drops: u64,
) -> Option<Refused> {
    let (on, bridge, by) = (&device.name, &port.bridge, &out.name);
    let leaves = out.port.as_ref()?;
    if out.index == device.index {
        return (to_itself && !port.hairpin).then(|| Refused {
            what: format!(
                "{on}, a port of {bridge} in {within}, may not send back what came in by it: {drops} \
                 frames of a station to itself dropped"
            ),
            severity: Severity::Warning,
            mend: Some((
                format!("bridge link set dev {} hairpin on", quote(on)),
                "frames may leave by the port that they came in by: for one station, such as a pod that \
                 calls its own service; on a port to another switch it would multiply broadcasts",
            )),
        });
    }
    if port.isolated && leaves.isolated {
        return Some(Refused {
            what: format!(
                "{on} and {by}, ports of {bridge} in {within}, are isolated from each other: {drops} \
                 frames dropped"
            ),
            severity: Severity::Warning,
            mend: Some((
                format!("bridge link set dev {} isolated off", quote(by)),
                "it exchanges frames with all ports then; whoever isolated it knows why",
            )),
        });
    }
    (leaves.state != PortState::Forwarding).then(|| Refused {
        what: format!(
            "{by}, a port of {bridge} in {within}, is {}: {drops} frames that should leave by it dropped",
            leaves.state.name()
        ),
        severity: Severity::Warning,
        mend: None,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::question::{Answer, Question};

    const POD: [u8; 6] = [2, 0, 0, 0, 0, 7];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 8];

    fn device(index: u32, change: impl FnOnce(&mut BridgePort)) -> Device {
        let mut port = BridgePort { bridge: "br0".into(), ..BridgePort::default() };
        change(&mut port);
        Device { index, name: format!("p{index}"), port: Some(port), ..Device::default() }
    }

    fn host(reason: &str, port: Device) -> TestHost {
        TestHost::new()
            .row(30, "br_handle_frame_finish", reason)
            .interface("p2")
            .answer(Question::Device(2), Answer::Device(Box::new(port)))
    }

    fn sent_on(port: Device, from: [u8; 6], out: Option<Device>) -> Vec<Finding> {
        let frame = Frame { port: 2, to: POD };
        let out = Answer::Forwarding(out.map(Box::new));
        let host = host(NOT_SPECIFIED, port).answer(Question::Forwarding(frame), out);
        host.stations(POD, from).run(&RULE)
    }

    #[test]
    fn a_station_that_calls_itself_needs_hairpin() {
        let port = |hairpin| device(2, |port| port.hairpin = hairpin);
        let found = sent_on(port(false), POD, Some(port(false)));
        let [finding] = &found[..] else { panic!("{found:?}") };
        let says = "p2, a port of br0 in gw, may not send back what came in by it: 30 frames of a \
                    station to itself dropped";
        assert_eq!(finding.title, says);
        let command = "ip netns exec gw bridge link set dev p2 hairpin on";
        assert_eq!(finding.actions[0].command, command);
        assert_eq!(sent_on(port(true), POD, Some(port(true))), []);
        assert_eq!(sent_on(port(false), OTHER, Some(port(false))), [], "two behind one port");
    }

    #[test]
    fn two_isolated_ports_are_named() {
        let isolated = |index| device(index, |port| port.isolated = true);
        let found = sent_on(isolated(2), OTHER, Some(isolated(3)));
        let [finding] = &found[..] else { panic!("{found:?}") };
        let says = "p2 and p3, ports of br0 in gw, are isolated from each other: 30 frames dropped";
        assert_eq!(finding.title, says);
        assert_eq!(sent_on(isolated(2), OTHER, Some(device(3, |_| {}))), []);
        assert_eq!(sent_on(isolated(2), OTHER, None), [], "it would be flooded");
    }

    #[test]
    fn nothing_leaves_by_a_port_that_does_not_forward() {
        let blocking = device(3, |port| port.state = PortState::Blocking);
        let found = sent_on(device(2, |_| {}), OTHER, Some(blocking));
        let says =
            "p3, a port of br0 in gw, is blocking: 30 frames that should leave by it dropped";
        assert_eq!(found[0].title, says);
    }

    #[test]
    fn a_port_that_takes_nothing_in_is_told_with_its_state() {
        for (reason, state, severity) in [
            (STATE, PortState::Disabled, Severity::Warning),
            (NOT_SPECIFIED, PortState::Listening, Severity::Warning),
            (STATE, PortState::Blocking, Severity::Notice),
        ] {
            let found = host(reason, device(2, |port| port.state = state)).run(&RULE);
            let [finding] = &found[..] else { panic!("{found:?}") };
            let says = format!(
                "p2, a port of br0 in gw, is {}: 30 frames that came in by it dropped",
                state.name()
            );
            assert_eq!((finding.title.as_str(), finding.severity), (says.as_str(), severity));
        }
        let found = host(STATE, device(2, |_| {})).run(&RULE);
        assert!(found[0].title.contains("was not forwarding, and is now: 30"), "{found:?}");
    }

    #[test]
    fn what_is_no_port_is_another_cause() {
        let port = Device { index: 2, name: "p2".into(), ..Device::default() };
        assert_eq!(host(NOT_SPECIFIED, port).run(&RULE), []);
        assert_eq!(TestHost::new().row(30, "br_forward", NOT_SPECIFIED).run(&RULE), []);
    }
}
