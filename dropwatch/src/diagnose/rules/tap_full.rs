//! A process does not read a tap or tun device as fast as packets are sent to it.
//!
//! Between the device and its process is a ring, as long as the device's transmit queue
//! (`tun_queue_resize`, drivers/net/tun.c). What finds it full is dropped and counted as `tx_dropped`
//! (`tun_net_xmit`, of the same file). The process is a virtual machine whose processors are not run, or
//! a VPN that has too much to do.

use super::{Counts, Draft, Facts, Kept, Makes, Rule, Verdict, matters, quote};
use crate::{
    diagnose::facts::{Rows, name},
    report::{
        cgroup::unit,
        facts::{Netns, Owner},
        finding::{Finding, Severity},
        object::Object,
        question::Ask,
    },
};

const REASON: &str = "FULL_RING";
/// Shortest queue that is recommended: what the kernel begins with (`TUN_READQ_SIZE` was 500,
/// `DEFAULT_TX_QUEUE_LEN` is 1000).
const LEAST: u32 = 1000;

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "tap_full",
        severity: "critical",
        says: "a process does not read its tap or tun device in time",
        rests_on: "`tx_dropped` of the device, rows with `FULL_RING`",
    }],
    counts: &[Counts::of(Kept::Devices("tx_dropped"), &[REASON], &[])],
    check_or_ask,
    ..Rule::NONE
};

fn check_or_ask(facts: &Facts<'_>) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (netns, rows) in facts.rows(&[REASON], &[]).by_netns() {
        let Some(netns) = netns else { continue };
        let devices = rows.devices();
        for index in devices {
            verdicts.extend(Verdict::of(full(facts, netns, index, &rows)));
        }
    }
    verdicts
}

fn full(
    facts: &Facts<'_>,
    netns: &Netns,
    index: u32,
    rows: &Rows<'_>,
) -> Result<Option<Finding>, Ask> {
    let link = facts.namespace(netns.number()).and_then(|namespace| namespace.link(index));
    let Some(link) = link else { return Ok(None) };
    let counted = link.delta("tx_dropped");
    let drops = counted.min(rows.count());
    if !matters(drops, facts) {
        return Ok(None);
    }
    let Ok(device) = facts.device(netns.number(), index)? else { return Ok(None) };
    if device.kind.as_deref() != Some("tun") {
        return Ok(None);
    }
    let readers = facts.readers(netns.number(), index)?.unwrap_or_default();
    let who = match &readers[..] {
        [Owner { comm, pid, .. }] => format!("{comm} ({pid}) does"),
        [] => "its process does".to_owned(),
        several => format!("its {} processes do", several.len()),
    };
    let on = &device.name;
    let title = format!(
        "the ring of {on} in {} is full: {drops} packets dropped, {who} not read in time",
        name(Some(netns))
    );
    let mut draft = Draft::new(facts, "tap_full", Severity::Critical, on.as_str(), title)
        .somewhere(Some(netns))
        .explains(drops, rows)
        .names(Object::device(&device, if let [only] = &readers[..] { Some(only) } else { None }))
        .counted(&format!("tx_dropped of {on}"), counted, "rtnetlink")
        .counted(REASON, rows.count(), "kfree_skb")
        .state(&format!("txqueuelen of {on}"), u64::from(device.queue_length), "rtnetlink");
    for Owner { comm, pid, cgroup } in readers.iter().take(3) {
        let within = cgroup.as_deref().and_then(unit).map(|unit| format!(" in {unit}"));
        let reader = format!("{comm} ({pid}){}", within.unwrap_or_default());
        draft = draft.state("open in", reader, "/proc");
    }
    let longer = device.queue_length.saturating_mul(2).max(LEAST);
    let finding = draft
        .run(
            &format!("ip link set dev {} txqueuelen {longer}", quote(on)),
            "a longer ring takes longer bursts and longer pauses of the process; packets may wait as \
             long",
        )
        .run(&format!("ip -s link show dev {}", quote(on)), "TX dropped: it rises as long as this goes on")
        .done();
    Ok(Some(finding))
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::{
        device::Device,
        evidence::Link,
        question::{Answer, Question},
    };

    fn host(counted: u64, kind: &str, readers: Vec<Owner>) -> TestHost {
        let link = Link { name: "tap8".into(), ..Link::default() };
        let device = Device {
            index: 2,
            name: "tap8".into(),
            kind: Some(kind.into()),
            queue_length: 50,
            ..Device::default()
        };
        TestHost::new()
            .row(300, "tun_net_xmit", REASON)
            .interface("tap8")
            .link(&link, "tx_dropped", counted)
            .answer(Question::Device(2), Answer::Device(Box::new(device)))
            .answer(Question::Readers(2), Answer::Readers(readers))
    }

    fn qemu() -> Owner {
        Owner { comm: "qemu".into(), pid: 812, cgroup: Some("/vm.service".into()) }
    }

    #[test]
    fn the_process_that_does_not_read_is_named() {
        let found = host(300, "tun", vec![qemu()]).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        let says =
            "the ring of tap8 in gw is full: 300 packets dropped, qemu (812) does not read in time";
        assert_eq!(finding.title, says);
        let first = "ip netns exec gw ip link set dev tap8 txqueuelen 1000";
        assert_eq!(finding.actions[0].command, first);
        assert_eq!(finding.evidence.last().map(|it| it.name.as_str()), Some("open in"));
    }

    #[test]
    fn a_process_that_is_not_known_is_not_named() {
        for (readers, says) in
            [(vec![], "its process does not"), (vec![qemu(); 2], "its 2 processes do")]
        {
            let found = host(300, "tun", readers).run(&RULE);
            assert!(found[0].title.contains(says), "{found:?}");
        }
    }

    #[test]
    fn what_the_device_did_not_count_is_not_its_ring() {
        assert_eq!(host(0, "tun", vec![qemu()]).run(&RULE), []);
        assert_eq!(host(300, "veth", vec![qemu()]).run(&RULE), []);
    }
}
