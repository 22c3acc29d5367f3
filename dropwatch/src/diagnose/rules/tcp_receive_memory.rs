//! TCP throws away data that it has no memory to keep.
//!
//! A sender that keeps to its window rarely meets this: the window promises room, but packets take
//! more memory than their data, and a buffer can shrink after the promise. Then data in order is
//! refused (`TCPRcvQDrop`), data out of order, too (`TCPOFODrop`), or given up after it was queued
//! (`OfoPruned`) (`tcp_data_queue`, `tcp_data_queue_ofo`, `tcp_prune_ofo_queue`,
//! net/ipv4/tcp_input.c). No data is lost, since the sender transmits it again, but time: a warning.
//! When TCP as a whole came to its limit (`TCPMemoryPressures`), every connection of the host has
//! to pay: critical.
//!
//! Data for a closed window (`TCP_ZEROWINDOW`) is none of this: that is flow control at work, and
//! usual wherever a reader is slower than its sender.

use super::{Counts, Draft, Facts, Kept, LEAST_DROPS, Makes, Rule};
use crate::{
    diagnose::facts::NetnsFacts,
    report::finding::{Finding, Severity},
};

const RMEM: &str = "net.ipv4.tcp_rmem";
const MEM: &str = "net.ipv4.tcp_mem";

/// Where TCP drops for lack of memory, or who called that (before 5.18 these are no events).
const FUNCTIONS: &[&str] = &[
    "tcp_data_queue",
    "tcp_data_queue_ofo",
    "tcp_drop_reason",
    "tcp_rcv_established",
    "tcp_rcv_state_process",
];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "tcp_receive_memory",
        severity: "warning, critical under memory pressure",
        says: "TCP data finds no room",
        rests_on: "`TCPRcvQDrop`, `OfoPruned`, `RcvPruned`",
    }],
    counters: &[
        "TcpExt.OfoPruned",
        "TcpExt.RcvPruned",
        "TcpExt.TCPMemoryPressures",
        "TcpExt.TCPOFODrop",
        "TcpExt.TCPRcvQDrop",
    ],
    settings: &["net.ipv4.tcp_rmem"],
    host_settings: &["net.ipv4.tcp_mem"],
    counts: &[Counts::of(
        Kept::Netns(&["TcpExt.TCPRcvQDrop", "TcpExt.TCPOFODrop"]),
        &["PROTO_MEM"],
        FUNCTIONS,
    )],
    check,
    ..Rule::NONE
};

fn check(facts: &Facts<'_>) -> Vec<Finding> {
    facts.namespaces().filter_map(|namespace| short(facts, namespace)).collect()
}

fn short(facts: &Facts<'_>, namespace: NetnsFacts<'_>) -> Option<Finding> {
    let in_order = namespace.delta("TcpExt.TCPRcvQDrop");
    let out_of_order = namespace.delta("TcpExt.TCPOFODrop");
    let prunes = namespace.delta("TcpExt.OfoPruned");
    // One that prunes frees several packets; the counter says that it was here.
    let pruned = match prunes {
        0 => 0,
        _ => facts.rows(&["TCP_OFO_QUEUE_PRUNE"], &[]).count().max(prunes),
    };
    let refused = in_order + out_of_order;
    let lost = refused + pruned;
    if lost < LEAST_DROPS {
        return None;
    }
    let mut rows = facts.rows(&["PROTO_MEM"], FUNCTIONS);
    let seen = rows.count().min(refused);
    let pruned_rows = facts.rows(&["TCP_OFO_QUEUE_PRUNE"], &[]);
    let explained = seen + pruned_rows.count().min(pruned);
    rows.0.extend(pruned_rows.0);
    let pressures = namespace.delta("TcpExt.TCPMemoryPressures");
    let name = namespace.name();
    let (severity, subject, title) = match pressures {
        0 => (
            Severity::Warning,
            "receive buffers",
            format!("TCP receive buffers full in {name}: {lost} segments thrown away"),
        ),
        _ => (
            Severity::Critical,
            "tcp_mem",
            format!("TCP is short of memory (tcp_mem): {lost} segments thrown away in {name}"),
        ),
    };
    let mut draft = Draft::new(facts, "tcp_receive_memory", severity, subject, title)
        .at(namespace)
        .explains(explained, &rows)
        .counted_too("TcpExt.TCPRcvQDrop", in_order, "netstat")
        .counted_too("TcpExt.TCPOFODrop", out_of_order, "netstat")
        .counted_too("TcpExt.OfoPruned", prunes, "netstat")
        .counted_too("TcpExt.RcvPruned", namespace.delta("TcpExt.RcvPruned"), "netstat")
        .counted_too("TcpExt.TCPMemoryPressures", pressures, "netstat")
        .setting(RMEM);
    draft = match pressures {
        0 => raise_tcp_rmem(draft),
        _ => draft.setting(MEM).double(MEM, 0, "in pages"),
    };
    Some(draft.run("ss -tmn", "Recv-Q: bytes that a program has not read; rb: its buffer").done())
}

/// Twice the most that a connection's receive buffer may grow to.
pub(super) fn raise_tcp_rmem(draft: Draft<'_>) -> Draft<'_> {
    let numbers = draft.value_of(RMEM).map(|live| live.split_whitespace().map(str::parse::<u32>));
    let Some(Ok(numbers)) = numbers.map(Iterator::collect::<Result<Vec<u32>, _>>) else {
        return draft;
    };
    let [least, initial, most] = numbers[..] else { return draft };
    let most = most.saturating_mul(2).min(i32::MAX.unsigned_abs());
    draft.set(
        RMEM,
        format_args!("'{least} {initial} {most}'"),
        "for programs that do not set SO_RCVBUF themselves",
    )
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    fn host() -> TestHost {
        TestHost::new().setting(RMEM, "4096\t131072\t6291456").host_setting(MEM, "10\t20\t30")
    }

    #[test]
    fn a_full_buffer_is_a_warning_since_tcp_sends_again() {
        let host = host().row(12, "tcp_data_queue", "PROTO_MEM").counted("TcpExt.TCPRcvQDrop", 12);
        let found = host.run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(finding.title, "TCP receive buffers full in gw: 12 segments thrown away");
        assert_eq!(finding.explains.map(|e| e.drops), Some(12));
        assert_eq!(
            finding.actions[0].command,
            "ip netns exec gw sysctl -w net.ipv4.tcp_rmem='4096 131072 12582912'"
        );
    }

    #[test]
    fn a_whole_host_without_memory_is_critical() {
        let host = host().counted("TcpExt.TCPRcvQDrop", 9).counted("TcpExt.TCPMemoryPressures", 1);
        let found = host.run(&RULE);
        assert_eq!(found[0].severity, Severity::Critical);
        assert_eq!(found[0].actions[0].command, "sysctl -w net.ipv4.tcp_mem='20 40 60'");
    }

    #[test]
    fn a_pruned_queue_is_several_packets() {
        let pruned = || host().row(30, "tcp_prune_ofo_queue", "TCP_OFO_QUEUE_PRUNE");
        let found = pruned().counted("TcpExt.OfoPruned", 2).run(&RULE);
        assert_eq!(found[0].explains.map(|e| e.drops), Some(30));
        assert_eq!(pruned().run(&RULE), [], "another namespace's");
        let unseen = host().counted("TcpExt.OfoPruned", 5).run(&RULE);
        assert_eq!(unseen[0].explains.map(|e| e.drops), Some(0), "no events before 5.18");
    }

    #[test]
    fn flow_control_is_no_lack_of_memory() {
        let zero = host().row(500, "tcp_data_queue", "TCP_ZEROWINDOW");
        assert_eq!(zero.counted("TcpExt.TCPRcvQDrop", 2).run(&RULE), []);
        assert_eq!(host().counted("TcpExt.TCPMemoryPressures", 1).run(&RULE), []);
    }
}
