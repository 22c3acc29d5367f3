//! The rules: each decides from [`Facts`] alone whether one cause is at work, and proves it.
//!
//! A rule speaks only of what was counted in the interval, and only where it can show the counter,
//! the table or the rows that it rests on. Where two causes look alike (a full conntrack table and
//! an iptables rule, say), each takes what its own counter proves and leaves the rest. What packets
//! are refused in small numbers on every healthy host is [`matters`]' business.
//!
//! What to change and what that costs comes from the knowledge table, so that findings and
//! `dropwatch explain` never differ.

mod accept_queue;
mod closed_port;
mod conntrack_full;
mod conntrack_insert;
mod cpu_backlog;
mod draft;
mod forwarding;
mod netfilter;
mod nic;
mod program;
mod qdisc;
mod socket_filter;
mod syn_queue;
mod tcp_backlog;
mod tcp_receive_memory;
#[cfg(test)]
mod testing;
mod udp_memory;
mod udp_receive_buffer;

use std::{cmp::Reverse, collections::HashSet, sync::LazyLock};

use self::draft::Draft;
use super::{evidence::Evidence, facts::Facts};
use crate::report::{
    finding::Finding,
    model::{Report, share},
};

/// Decides about one cause.
type Rule = fn(&Facts<'_>) -> Vec<Finding>;

const RULES: &[Rule] = &[
    conntrack_full::check,
    conntrack_insert::check,
    netfilter::check,
    program::check,
    forwarding::check,
    qdisc::check,
    nic::check,
    udp_receive_buffer::check,
    udp_memory::check,
    accept_queue::check,
    syn_queue::check,
    tcp_receive_memory::check,
    tcp_backlog::check,
    cpu_backlog::check,
    closed_port::check,
    socket_filter::check,
];

/// Counters of a namespace that some rule looks at, or that stand beside one that does.
const COUNTERS: &[&str] = &[
    "Ip.InAddrErrors",
    "Ip6.InAddrErrors",
    "Udp.NoPorts",
    "Udp6.NoPorts",
    "Udp.RcvbufErrors",
    "Udp6.RcvbufErrors",
    "Udp.MemErrors",
    "Udp6.MemErrors",
    "Ip.OutNoRoutes",
    "Tcp.OutRsts",
    LISTEN_OVERFLOWS,
    "TcpExt.ListenDrops",
    "TcpExt.TCPReqQFullDrop",
    "TcpExt.TCPRcvQDrop",
    "TcpExt.TCPOFODrop",
    "TcpExt.OfoPruned",
    "TcpExt.RcvPruned",
    "TcpExt.TCPMemoryPressures",
    "TcpExt.TCPBacklogDrop",
];

/// Settings of a namespace that some rule quotes.
pub const SETTINGS: &[&str] = &[
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.core.somaxconn",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_rmem",
];

/// Settings of a device, whose name stands in for `DEV`; slashes keep its dots apart.
pub const DEVICE_SETTINGS: &[&str] = &["net/ipv4/conf/DEV/rp_filter"];

/// Where this has counted, listening sockets are looked at.
pub use accept_queue::OVERFLOWS as LISTEN_OVERFLOWS;

/// Losses of the whole host that some rule looks at, in whatever namespace they are.
pub const HOST_LOSSES: &[&str] = &["softnet.dropped"];

/// Settings of the whole host that some rule quotes.
pub use draft::HOST_WIDE as HOST_SETTINGS;

/// Whether some rule looks at a counter of a namespace, by its group and name. Asked some hundred
/// times for each namespace and report.
pub fn is_wanted(group: &str, name: &str) -> bool {
    static WANTED: LazyLock<HashSet<(&str, &str)>> =
        LazyLock::new(|| COUNTERS.iter().filter_map(|name| name.split_once('.')).collect());
    WANTED.contains(&(group, name))
}

/// Drops below this part of all are not worth a finding that rests on drops alone.
const LEAST_SHARE: f64 = 0.01;
/// Nor are fewer than so many in an interval.
const LEAST_DROPS: u64 = 3;

/// What is wrong on a host whose evidence was `before` at the begin of `report` and is `now` at
/// its end: the most severe first, then what explains the most.
pub fn findings(report: &Report, before: &Evidence, now: &Evidence) -> Vec<Finding> {
    let facts = Facts::new(report, before, now);
    let mut findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&facts)).collect();
    findings.sort_by_key(|finding| {
        (finding.severity, Reverse(finding.explains.map_or(0, |explains| explains.drops)))
    });
    findings
}

/// Whether so many drops are more than what is usual on a healthy host.
fn matters(drops: u64, facts: &Facts<'_>) -> bool {
    drops >= LEAST_DROPS && share(drops, facts.report.drops) >= LEAST_SHARE
}
