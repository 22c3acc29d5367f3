//! The kernel's own counters of a namespace, which know nothing of tracing.

use anyhow::{Context, Result};

use crate::{command::output, netns::Netns};

/// One value of `/proc/net/snmp`, for example `("Udp", "NoPorts")`.
///
/// # Errors
/// When the file cannot be read or has no such counter.
pub fn snmp(netns: &Netns, protocol: &str, name: &str) -> Result<u64> {
    find_snmp(&netns.proc_net("snmp")?, protocol, name)
        .with_context(|| format!("/proc/net/snmp has no {protocol} {name}"))
}

/// One value of `/proc/net/snmp6`, for example `Udp6NoPorts`.
///
/// # Errors
/// When the file cannot be read (no IPv6) or has no such counter.
pub fn snmp6(netns: &Netns, name: &str) -> Result<u64> {
    find_snmp6(&netns.proc_net("snmp6")?, name)
        .with_context(|| format!("/proc/net/snmp6 has no {name}"))
}

/// A counter of the namespace's connection tracking, summed over CPUs, for example `drop`.
///
/// # Errors
/// When `conntrack -S` fails or has no such counter.
pub fn conntrack(netns: &Netns, name: &str) -> Result<u64> {
    sum_conntrack(&output(netns.command("conntrack").arg("-S"))?, name)
        .with_context(|| format!("`conntrack -S` has no counter {name}"))
}

/// Two lines a protocol: names, then values in the same order.
fn find_snmp(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let mut rows = text
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter_map(|(key, rest)| (key == protocol).then_some(rest));
    let (names, values) = (rows.next()?, rows.next()?);
    let column = names.split_whitespace().position(|candidate| candidate == name)?;
    values.split_whitespace().nth(column)?.parse().ok()
}

/// One line a counter: name and value.
fn find_snmp6(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(char::is_whitespace)?;
        (key == name).then(|| value.trim().parse().ok())?
    })
}

/// One line a CPU: `cpu=0 found=0 … drop=0 …`.
fn sum_conntrack(text: &str, name: &str) -> Option<u64> {
    let values: Vec<u64> = text
        .lines()
        .filter_map(|line| {
            line.split_whitespace()
                .filter_map(|field| field.split_once('='))
                .find_map(|(key, value)| (key == name).then(|| value.parse().ok())?)
        })
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNMP: &str = "Icmp: InMsgs\nIcmp: 5\n\
        Udp: InDatagrams NoPorts InErrors\nUdp: 11 22 33\n\
        UdpLite: InDatagrams NoPorts\nUdpLite: 0 9\n";

    #[test]
    fn snmp_value_stands_under_its_name() {
        assert_eq!(find_snmp(SNMP, "Udp", "NoPorts"), Some(22));
        assert_eq!(find_snmp(SNMP, "UdpLite", "NoPorts"), Some(9));
        assert_eq!(find_snmp(SNMP, "Udp", "Nothing"), None);
        assert_eq!(find_snmp(SNMP, "Tcp", "InSegs"), None);
        assert_eq!(find_snmp("Udp: NoPorts\n", "Udp", "NoPorts"), None);
    }

    #[test]
    fn snmp6_matches_whole_names() {
        let text = "Udp6InDatagrams  \t1\nUdp6NoPorts                     \t42\n";
        assert_eq!(find_snmp6(text, "Udp6NoPorts"), Some(42));
        assert_eq!(find_snmp6(text, "Udp6No"), None);
    }

    #[test]
    fn conntrack_is_summed_over_cpus_and_early_drop_is_not_drop() {
        let text = "cpu=0   \tfound=3 insert_failed=0 drop=7 early_drop=100\n\
                    cpu=1   \tfound=1 insert_failed=0 drop=5 early_drop=200\n";
        assert_eq!(sum_conntrack(text, "drop"), Some(12));
        assert_eq!(sum_conntrack(text, "early_drop"), Some(300));
        assert_eq!(sum_conntrack(text, "chaintoolong"), None);
        assert_eq!(sum_conntrack("", "drop"), None);
    }
}
