//! Counters of the network stack, as `/proc/net` shows them: one network namespace's, and those of
//! the CPUs.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
};

use super::{HostRoot, lines::for_each_line};

/// Longest line read, bytes: more than ten times today's longest, that of `TcpExt`.
const MAX_LINE: usize = 32 << 10;

/// Groups of `snmp6`, which glues them to the names that follow; the longer first.
const IPV6_GROUPS: [&str; 4] = ["UdpLite6", "Icmp6", "Udp6", "Ip6"];

/// Columns of `softnet_stat` that are told, by their place (`softnet_seq_show()` in
/// `net/core/net-procfs.c`); columns are only ever added at the end.
const SOFTNET: [(&str, usize); 4] = [
    ("softnet.processed", 0),
    ("softnet.dropped", 1),
    ("softnet.time_squeeze", 2),
    ("softnet.flow_limit", 10),
];

/// Reads a file into counters; the number of lines that it could not read.
type Add = fn(&mut Counters, File) -> io::Result<u64>;

/// Counters by group and name: `Udp.RcvbufErrors`, `Ip6.InNoRoutes`, `softnet.dropped`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(HashMap<String, u64>);

impl Counters {
    /// Those of the namespace of this process, and of all CPUs together. What a host lacks (IPv6
    /// may be off) is missing.
    pub fn read(root: &HostRoot) -> Self {
        let mut counters = Self::default();
        let files: [(_, Add); 4] = [
            ("proc/net/snmp", Self::add_pairs),
            ("proc/net/netstat", Self::add_pairs),
            ("proc/net/snmp6", Self::add_snmp6),
            ("proc/net/softnet_stat", Self::add_softnet),
        ];
        for (path, add) in files {
            // What was read before an error is still true.
            let _skipped = root.open(path).and_then(|file| add(&mut counters, file));
        }
        counters
    }

    /// Value of a counter; `None` where the kernel does not have it.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// `snmp` and `netstat`: a line of names, then one of values, both behind the group's name.
    fn add_pairs(&mut self, reader: impl Read) -> io::Result<u64> {
        let mut names: Option<String> = None;
        each_text(reader, |line| match names.take() {
            None => names = Some(line.to_owned()),
            Some(names) => self.add_pair(&names, line),
        })
    }

    fn add_pair(&mut self, names: &str, values: &str) {
        let (Some((group, names)), Some((again, values))) =
            (names.split_once(':'), values.split_once(':'))
        else {
            return;
        };
        if group != again {
            return;
        }
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            self.add(format!("{group}.{name}"), value.parse().ok());
        }
    }

    /// `snmp6`: a name and a value in each line.
    fn add_snmp6(&mut self, reader: impl Read) -> io::Result<u64> {
        each_text(reader, |line| {
            let mut words = line.split_whitespace();
            let (Some(name), Some(value)) = (words.next(), words.next()) else { return };
            let group = IPV6_GROUPS.iter().find(|group| name.starts_with(**group));
            if let Some(group) = group {
                self.add(format!("{group}.{}", &name[group.len()..]), value.parse().ok());
            }
        })
    }

    /// `softnet_stat`: a line of hexadecimal columns for each CPU.
    fn add_softnet(&mut self, reader: impl Read) -> io::Result<u64> {
        each_text(reader, |line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            for (name, column) in SOFTNET {
                let value = columns.get(column).and_then(|text| u64::from_str_radix(text, 16).ok());
                self.add(name.to_owned(), value);
            }
        })
    }

    fn add(&mut self, name: String, value: Option<u64>) {
        if let Some(value) = value {
            let sum = self.0.entry(name).or_default();
            *sum = sum.wrapping_add(value);
        }
    }
}

fn each_text(reader: impl Read, mut each: impl FnMut(&str)) -> io::Result<u64> {
    for_each_line(reader, MAX_LINE, |line| each(&String::from_utf8_lossy(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_paired_within_their_group() {
        let mut counters = Counters::default();
        let text = "Tcp: MaxConn InErrs\nTcp: -1 7\nUdp: NoPorts Odd\nUdp: 3\nIp: A\nIcmp: 9\n";
        counters.add_pairs(text.as_bytes()).expect("reads");
        assert_eq!(counters.get("Tcp.InErrs"), Some(7));
        assert_eq!(counters.get("Tcp.MaxConn"), None, "a limit of -1 is no count");
        assert_eq!(counters.get("Udp.NoPorts"), Some(3));
        assert_eq!(counters.get("Udp.Odd"), None);
        assert_eq!(counters.get("Ip.A"), None);
    }

    #[test]
    fn ipv6_names_are_taken_apart() {
        let mut counters = Counters::default();
        let text = "Ip6InNoRoutes    \t4\nUdpLite6InErrors 5\nIcmp6InErrors x\nodd\n\n";
        counters.add_snmp6(text.as_bytes()).expect("reads");
        assert_eq!(counters.get("Ip6.InNoRoutes"), Some(4));
        assert_eq!(counters.get("UdpLite6.InErrors"), Some(5));
        assert_eq!(counters.get("Icmp6.InErrors"), None);
    }

    #[test]
    fn cpus_are_added_up() {
        let mut counters = Counters::default();
        let text = "ff 2 3 0 0 0 0 0 0 0 a 0\n1 1 1\n";
        counters.add_softnet(text.as_bytes()).expect("reads");
        assert_eq!(counters.get("softnet.processed"), Some(256));
        assert_eq!(counters.get("softnet.dropped"), Some(3));
        assert_eq!(counters.get("softnet.flow_limit"), Some(10));
    }
}
