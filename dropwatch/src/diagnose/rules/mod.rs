//! The rules: each decides from [`Facts`] alone whether one cause is at work, and proves it.
//!
//! A rule speaks only of what was counted in the interval, and only where it can show the counter,
//! the table or the rows that it rests on. Where two causes look alike (a full conntrack table and
//! an iptables rule, say), each takes what its own counter proves and leaves the rest. What packets
//! are refused in small numbers on every healthy host is the business of `matters`.
//!
//! What to change and what that costs comes from the knowledge table, so that findings and
//! `dropwatch explain` never differ.

mod accept_queue;
mod checksums;
mod closed_port;
mod conntrack_full;
mod conntrack_insert;
mod cpu_backlog;
mod draft;
mod forwarding;
mod fragments;
mod hops;
mod martian;
mod mtu;
mod neighbour_failed;
mod neighbour_queue;
mod neighbour_table;
mod netfilter;
mod nic;
mod no_route;
mod program;
mod qdisc;
#[cfg(test)]
mod reach;
mod reverse_path;
mod socket_filter;
mod syn_queue;
mod tcp_backlog;
mod tcp_receive_memory;
#[cfg(test)]
pub(super) mod testing;
mod udp_memory;
mod udp_receive_buffer;
mod unhandled;

use std::{cmp::Reverse, collections::HashSet, sync::LazyLock};

use self::draft::{Draft, quote};
use super::{evidence::Evidence, facts::Facts};
use crate::report::{
    finding::{Finding, Severity},
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
    reverse_path::check,
    no_route::check,
    neighbour_failed::check,
    neighbour_queue::check,
    neighbour_table::check,
    unhandled::check,
    mtu::check,
    checksums::check,
    fragments::check,
    hops::check,
    martian::check,
];

/// Counters of a namespace that some rule looks at, or that stand beside one that does.
const COUNTERS: &[&str] = &[
    "Icmp.InCsumErrors",
    "Icmp6.InCsumErrors",
    "Ip.FragFails",
    "Ip.InAddrErrors",
    "Ip.InHdrErrors",
    "Ip.OutNoRoutes",
    "Ip.ReasmFails",
    "Ip.ReasmTimeout",
    "Ip6.InAddrErrors",
    "Ip6.InHdrErrors",
    "Ip6.InNoRoutes",
    "Ip6.InTooBigErrors",
    "Ip6.OutNoRoutes",
    "Ip6.ReasmFails",
    "Ip6.ReasmTimeout",
    "IpExt.InCsumErrors",
    "IpExt.InNoRoutes",
    "Tcp.InCsumErrors",
    "Tcp.OutRsts",
    "TcpExt.IPReversePathFilter",
    "TcpExt.ListenDrops",
    "TcpExt.OfoPruned",
    "TcpExt.RcvPruned",
    "TcpExt.TCPBacklogDrop",
    "TcpExt.TCPMemoryPressures",
    "TcpExt.TCPOFODrop",
    "TcpExt.TCPRcvQDrop",
    "TcpExt.TCPReqQFullDrop",
    "Udp.InCsumErrors",
    "Udp.MemErrors",
    "Udp.NoPorts",
    "Udp.RcvbufErrors",
    "Udp6.InCsumErrors",
    "Udp6.MemErrors",
    "Udp6.NoPorts",
    "Udp6.RcvbufErrors",
    LISTEN_OVERFLOWS,
];

/// Settings of a namespace that some rule quotes.
pub const SETTINGS: &[&str] = &[
    "net.core.somaxconn",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.ip_forward",
    "net.ipv4.ipfrag_high_thresh",
    "net.ipv4.ipfrag_time",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.ip6frag_high_thresh",
    "net.ipv6.ip6frag_time",
];

/// Settings of a device, whose name stands in for `DEV`; slashes keep its dots apart.
pub const DEVICE_SETTINGS: &[&str] = &[
    "net/ipv4/conf/DEV/accept_local",
    "net/ipv4/conf/DEV/route_localnet",
    "net/ipv4/conf/DEV/rp_filter",
    "net/ipv4/neigh/DEV/unres_qlen_bytes",
    "net/ipv6/neigh/DEV/unres_qlen_bytes",
];

/// Where this has counted, listening sockets are looked at.
pub use accept_queue::OVERFLOWS as LISTEN_OVERFLOWS;

/// Losses of the whole host that some rule looks at, in whatever namespace they are.
pub const HOST_LOSSES: &[&str] = &[
    "arp_cache.table_fulls",
    "arp_cache.unresolved_discards",
    "ndisc_cache.table_fulls",
    "ndisc_cache.unresolved_discards",
    "softnet.dropped",
];

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
/// More a second of what is usual in small numbers (announcements of switches, traceroute, senders
/// that find out an MTU) mean something.
const USUAL_PER_SECOND: f64 = 10.0;

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
    // What no drop event shows is part of no report's drops, and what is harmless hides nothing.
    let all = facts.report.harmful().max(drops);
    drops >= LEAST_DROPS && share(drops, all) >= LEAST_SHARE
}

/// How severe drops are of a kind that every healthy host has a few of.
fn by_rate(drops: u64, facts: &Facts<'_>) -> Severity {
    match drops as f64 > USUAL_PER_SECOND * facts.report.interval_s {
        true => Severity::Warning,
        false => Severity::Notice,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::knowledge;

    #[test]
    fn what_rules_rest_on_can_be_asked_for() {
        let table = knowledge::table().expect("table");
        let names = [COUNTERS, SETTINGS, DEVICE_SETTINGS, HOST_LOSSES, HOST_SETTINGS].concat();
        for name in names {
            let answer = table.find(name);
            assert!(answer.is_ok(), "{answer:?}");
        }
    }
}
