//! Sent packets that their driver frees as if it dropped them, where the function alone does not
//! show which they are.
//!
//! A driver that frees in an interrupt leaves it to `net_tx_action` (net/core/dev.c), sent packets
//! and dropped ones alike, and some functions of drivers free both. The devices decide: each counts
//! what it has sent. Where those that the samples of a row name sent as many packets as the row
//! counts, and counted neither an error nor a drop, the row is transmit completion.

use std::collections::BTreeSet;

use super::{
    facts::{Facts, LinkFacts},
    knowledge::{CORE, NOT_SPECIFIED, function_name},
};
use crate::report::{
    details::Device,
    evidence::HostEvidence,
    model::{Location, Report},
    place::Place,
};

/// Where drivers free what they have sent, and other packets, too.
const FUNCTIONS: [&str; 4] = ["net_tx_action", "bnx2x_free_tx_pkt", "alx_poll", "alx_free_txbuf"];
/// Losses of a device that sends.
const LOSSES: [&str; 2] = ["tx_dropped", "tx_errors"];
/// Largest difference between the packets sent and the drops, as a part of the drops and at least:
/// counters are read one after the other, and a packet is counted and freed at two moments.
const SLACK: f64 = 0.1;
const LEAST_SLACK: u64 = 2;
/// Part of the sampled drops whose device has to be known.
const KNOWN: f64 = 0.9;

/// Marks what was sent as harmless in `report`, of whose rows samples name these `devices`, on a host
/// whose evidence was `before` at its begin and is `now` at its end. Returns how many drops that are.
pub fn settle(
    report: &mut Report,
    devices: &[(Place, Vec<Device>)],
    before: &HostEvidence,
    now: &HostEvidence,
) -> u64 {
    let facts = Facts::new(report, before, now);
    let named = |row: &Location| {
        let place = row.place.clone();
        devices.iter().find(|(known, _)| *known == place).map(|(_, devices)| devices.as_slice())
    };
    let is_sent = |row: &Location| {
        !row.benign
            && is_of_kind(row)
            && named(row).is_some_and(|devices| was_sent(&facts, row, devices))
    };
    let sent: Vec<bool> = report.locations.iter().map(is_sent).collect();
    let mut drops: u64 = 0;
    for (row, _) in report.locations.iter_mut().zip(sent).filter(|(_, sent)| *sent) {
        row.benign = true;
        drops = drops.saturating_add(row.count);
    }
    drops
}

fn is_of_kind(row: &Location) -> bool {
    let function = row.place.symbol.as_deref().map(function_name);
    let subsystem = row.place.subsystem.as_deref().unwrap_or(CORE);
    // Before Linux 5.17 no caller gave a reason.
    let reason = row.place.reason.as_deref().unwrap_or(NOT_SPECIFIED);
    subsystem == CORE
        && reason == NOT_SPECIFIED
        && function.is_some_and(|function| FUNCTIONS.contains(&function))
}

/// Whether the devices of a row sent as many packets as it counts, and lost none.
fn was_sent(facts: &Facts<'_>, row: &Location, devices: &[Device]) -> bool {
    let Some(details) = &row.details else { return false };
    let known = devices.iter().fold(0, |sum: u64, it| sum.saturating_add(it.weight));
    if devices.is_empty() || (known as f64) < details.weight as f64 * KNOWN {
        return false;
    }
    let named: BTreeSet<(u32, u32)> = devices.iter().map(|it| (it.netns, it.index)).collect();
    let link = |(netns, index): &(u32, u32)| facts.namespace(*netns)?.link(*index);
    let Some(links) = named.iter().map(link).collect::<Option<Vec<LinkFacts<'_>>>>() else {
        return false;
    };
    let lost = |link: &LinkFacts<'_>| LOSSES.iter().any(|loss| link.delta(loss) > 0);
    let sent = links.iter().fold(0, |sum: u64, link| sum.saturating_add(link.sent()));
    let slack = ((row.count as f64 * SLACK) as u64).max(LEAST_SLACK);
    sent > 0 && row.count.abs_diff(sent) <= slack && !links.iter().any(lost)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            knowledge::{self, Benign},
            rules::testing::TestHost,
        },
        *,
    };
    use crate::report::evidence::{Link, NetnsEvidence};

    /// Numbers of two devices of the namespace 7.
    const ETH0: u32 = 2;
    const ETH1: u32 = 3;

    /// A host whose devices sent so many packets, and lost so many.
    fn evidence(devices: &[(u32, u64, u64)]) -> HostEvidence {
        let netns = TestHost::netns();
        let link = |(index, sent, lost): &(u32, u64, u64)| {
            let counters = [("tx_dropped", *lost), ("tx_errors", 0)].into_iter().collect();
            let link =
                Link { name: format!("eth{index}"), sent: *sent, counters, ..Link::default() };
            (*index, link)
        };
        let links = devices.iter().map(link).collect();
        let inum = netns.inum;
        let namespace = NetnsEvidence { netns: Some(netns), links, ..NetnsEvidence::default() };
        HostEvidence { namespaces: [(inum, namespace)].into(), ..HostEvidence::default() }
    }

    fn device(index: u32, weight: u64) -> Device {
        Device { netns: TestHost::netns().inum, index, weight }
    }

    /// Whether so many drops at `function`, sampled at `devices`, are what the devices sent.
    fn settled(
        count: u64,
        function: &str,
        reason: &str,
        devices: &[Device],
        now: &[(u32, u64, u64)],
    ) -> bool {
        let mut report = TestHost::new().row(count, function, reason).report();
        let place = report.locations[0].place.clone();
        let before: Vec<_> = now.iter().map(|(index, ..)| (*index, 100, 0)).collect();
        let now: Vec<_> =
            now.iter().map(|(index, sent, lost)| (*index, 100 + sent, *lost)).collect();
        let devices = [(place, devices.to_vec())];
        let drops = settle(&mut report, &devices, &evidence(&before), &evidence(&now));
        let row = &report.locations[0];
        assert_eq!(drops, if row.benign { row.count } else { 0 });
        row.benign
    }

    #[test]
    fn the_table_says_of_each_function_that_counters_decide() {
        let table = knowledge::table().expect("table");
        for function in FUNCTIONS {
            let entry = table.lookup(Some(function), CORE, NOT_SPECIFIED).expect("known");
            assert!(entry.at.iter().any(|at| at == function), "{function}");
            assert!(matches!(&entry.benign, Benign::When(when) if when.contains("TX packets")));
        }
    }

    #[test]
    fn as_many_as_were_sent_are_no_drops() {
        let eth0 = [device(ETH0, 5000)];
        for reason in ["NOT_SPECIFIED", ""] {
            assert!(settled(5000, "net_tx_action", reason, &eth0, &[(ETH0, 5000, 0)]));
            assert!(settled(5000, "net_tx_action", reason, &eth0, &[(ETH0, 5012, 0)]));
        }
        assert!(settled(3, "alx_poll", "NOT_SPECIFIED", &[device(ETH0, 3)], &[(ETH0, 3, 0)]));
    }

    #[test]
    fn several_devices_are_summed_up() {
        let both = [device(ETH0, 40), device(ETH1, 60)];
        assert!(settled(100, "net_tx_action", "", &both, &[(ETH0, 40, 0), (ETH1, 60, 0)]));
        // One of them sent nothing of it, and lost instead.
        assert!(!settled(100, "net_tx_action", "", &both, &[(ETH0, 40, 0), (ETH1, 60, 1)]));
        // A third is none of them.
        assert!(settled(40, "net_tx_action", "", &both[..1], &[(ETH0, 40, 0), (ETH1, 900, 9)]));
    }

    #[test]
    fn what_was_not_sent_stays_a_drop() {
        let eth0 = [device(ETH0, 5000)];
        let check = |sent, lost| settled(5000, "net_tx_action", "", &eth0, &[(ETH0, sent, lost)]);
        assert!(!check(0, 0), "nothing was sent");
        assert!(!check(2500, 0), "half of it was lost");
        assert!(!check(90_000, 0), "a driver that frees the sent ones as it should");
        assert!(!check(5000, 1), "the device dropped, too");
        assert!(!settled(2, "net_tx_action", "", &[device(ETH0, 2)], &[(ETH0, 0, 0)]));
    }

    #[test]
    fn without_proof_it_stays_a_drop() {
        let sent = [(ETH0, 100, 0)];
        assert!(!settled(100, "net_tx_action", "", &[], &sent), "no samples");
        assert!(!settled(100, "net_tx_action", "", &[device(ETH0, 50)], &sent), "half is unknown");
        assert!(!settled(100, "net_tx_action", "", &[device(9, 100)], &sent), "no such device");
        assert!(!settled(100, "net_tx_action", "NOMEM", &[device(ETH0, 100)], &sent), "a reason");
        assert!(!settled(100, "veth_xmit", "", &[device(ETH0, 100)], &sent), "another function");
    }
}
