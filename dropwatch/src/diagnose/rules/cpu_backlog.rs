//! Packets find the input queue of a CPU full.
//!
//! What veth, loopback, tunnels and receive packet steering hand to a CPU waits in a queue of its
//! own. Above `netdev_max_backlog` packets are freed and counted as dropped in `softnet_stat`; from
//! half of that on, a flow that has most of the queue is, too, where flow limits are on
//! (`enqueue_to_backlog` and `skb_flow_limit`, net/core/dev.c). CPUs belong to no namespace.

use std::borrow::Cow;

use super::{Counts, Draft, Facts, Kept, LEAST_DROPS, Makes, Rule};
use crate::report::finding::{Finding, Severity};

const BACKLOG: &str = "net.core.netdev_max_backlog";
const FLOW_LIMIT: &str = "net.core.flow_limit_cpu_bitmap";
/// What kernels start with (net/core/hotdata.c).
const LEAST: u64 = 1000;

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "cpu_backlog",
        severity: "critical",
        says: "the input queue of a CPU is full",
        rests_on: "`softnet_stat`",
    }],
    host_losses: &["softnet.dropped"],
    host_settings: &["net.core.netdev_max_backlog", "net.core.flow_limit_cpu_bitmap"],
    counts: &[
        Counts::of(Kept::Host(&["softnet.dropped"]), &["CPU_BACKLOG"], &[]),
        Counts::of(Kept::Host(&["softnet.dropped"]), &[], &["enqueue_to_backlog"]),
    ],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let (dropped, limited) = (facts.delta("softnet.dropped"), facts.delta("softnet.flow_limit"));
    // On older kernels the counter is also for packets of a device that was just taken down.
    let least = if facts.rows(&["CPU_BACKLOG"], &[]).is_empty() { LEAST_DROPS } else { 1 };
    if dropped < least {
        return Vec::new();
    }
    let rows = facts.rows_or_unspecified(&["CPU_BACKLOG"], &["enqueue_to_backlog"]);
    // The kernel counts the packets of the flow limit among the dropped, too.
    let by_flow = limited > dropped / 2;
    let cause =
        if by_flow { "flow limit of a CPU's input queue" } else { "input queue of a CPU full" };
    let title = format!("{cause}: {dropped} packets dropped");
    let mut draft = Draft::new(facts, "cpu_backlog", Severity::Critical, cause, title)
        .explains(dropped.min(rows.count()), &rows)
        .counted("softnet.dropped", dropped, "softnet_stat")
        .counted_too("softnet.flow_limit", limited, "softnet_stat")
        .counted_too("softnet.time_squeeze", facts.delta("softnet.time_squeeze"), "softnet_stat")
        .setting(BACKLOG);
    if limited > 0 {
        draft = draft.setting(FLOW_LIMIT);
    }
    if by_flow {
        draft = draft.set(FLOW_LIMIT, 0, "0: on no CPU");
    }
    let note = match rows.device() {
        Some(device) => Cow::Owned(format!(
            "where one CPU alone is at its limit, receive packet steering spreads the flows of \
             {device} over more (rps_cpus)"
        )),
        None => Cow::Borrowed(""),
    };
    vec![draft.double(BACKLOG, LEAST, &note).done()]
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    fn host() -> TestHost {
        TestHost::new()
            .row(300, "enqueue_to_backlog", "CPU_BACKLOG")
            .interface("eth0")
            .host_setting(BACKLOG, "1000")
            .host_setting(FLOW_LIMIT, "3")
    }

    fn commands(finding: &Finding) -> Vec<&str> {
        finding.actions.iter().map(|action| action.command.as_str()).collect()
    }

    #[test]
    fn a_full_queue_is_the_hosts() {
        let found = host().host_counted("softnet.dropped", 301).run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.title, "input queue of a CPU full: 301 packets dropped");
        assert_eq!((finding.severity, &finding.netns), (Severity::Critical, &None));
        assert_eq!(finding.explains.map(|e| e.drops), Some(300));
        let [action] = &finding.actions[..] else { panic!("{finding:?}") };
        assert_eq!(action.command, "sysctl -w net.core.netdev_max_backlog=2000");
        assert!(action.note.contains("the flows of eth0 over more (rps_cpus)"), "{}", action.note);
    }

    #[test]
    fn a_flow_limit_is_told_apart() {
        let limited = |count| {
            let host = host().host_counted("softnet.dropped", 300);
            host.host_counted("softnet.flow_limit", count).run(&RULE)
        };
        let found = limited(151);
        assert_eq!(found[0].title, "flow limit of a CPU's input queue: 300 packets dropped");
        assert_eq!(commands(&found[0])[0], "sysctl -w net.core.flow_limit_cpu_bitmap=0");
        let found = limited(150);
        assert_eq!(found[0].title, "input queue of a CPU full: 300 packets dropped");
        assert!(found[0].evidence.iter().any(|e| e.name == FLOW_LIMIT), "it has a part in it");
    }

    #[test]
    fn a_busy_cpu_that_drops_nothing_is_healthy() {
        assert_eq!(host().host_counted("softnet.time_squeeze", 90).run(&RULE), []);
    }

    #[test]
    fn a_device_that_went_down_is_no_full_queue() {
        let host = |dropped| {
            let host = TestHost::new().row(dropped, "enqueue_to_backlog", "NOT_SPECIFIED");
            host.host_counted("softnet.dropped", dropped).run(&RULE)
        };
        assert_eq!(host(2), []);
        assert_eq!(host(3)[0].explains.map(|e| e.drops), Some(3));
    }

    #[test]
    fn a_short_queue_is_made_as_long_as_kernels_start_with() {
        let host = host().host_counted("softnet.dropped", 1).host_setting(BACKLOG, "5");
        assert_eq!(commands(&host.run(&RULE)[0])[0], "sysctl -w net.core.netdev_max_backlog=1000");
    }
}
