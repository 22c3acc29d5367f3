//! Counters of the network stack, as `/proc/net` shows them: one network namespace's, and those of
//! the CPUs.

use std::io::{self, Read};

use super::{HostRoot, lines::for_each_line};
use crate::report::evidence::Counters;

/// Longest line read, bytes: more than ten times today's longest, that of `TcpExt`.
const MAX_LINE: usize = 32 << 10;

/// Groups of `snmp6`, which glues them to the names that follow; the longer first.
const IPV6_GROUPS: [&str; 4] = ["UdpLite6", "Icmp6", "Udp6", "Ip6"];

/// The group of `xfrm_stat`, glued to the names, too.
const XFRM: &str = "Xfrm";

/// Columns of `softnet_stat` that are reported, by their place (`softnet_seq_show()` in
/// `net/core/net-procfs.c`); columns are only ever added at the end.
const SOFTNET: [(&str, usize); 4] =
    [("processed", 0), ("dropped", 1), ("time_squeeze", 2), ("flow_limit", 10)];

/// Neighbour tables, which all namespaces share; their files are in the first one's folder
/// (`neigh_table_init()` in `net/core/neighbour.c`).
const NEIGHBOURS: [&str; 2] = ["arp_cache", "ndisc_cache"];

/// Whether to keep a counter, by its group and name. Most are of no use to any rule, and keeping
/// one costs more than reading it.
type Selected<'a> = &'a dyn Fn(&str, &str) -> bool;

/// Counters of the namespace of this process, and of all CPUs together. What a host lacks (IPv6
/// may be off) is missing.
pub fn read(root: &HostRoot) -> Counters {
    let mut reader = CounterReader::of(&|_, _| true);
    reader.read_namespace(root, "proc/net");
    reader.read_host(root);
    reader.counters
}

/// Reads the counters of the calling thread's namespace for which `selected` returns true.
pub(super) fn of_namespace(root: &HostRoot, selected: Selected<'_>) -> Counters {
    let mut reader = CounterReader::of(selected);
    reader.read_namespace(root, "proc/thread-self/net");
    reader.counters
}

/// Reads the gauges of the calling thread's namespace: sockets, and memory for fragments.
pub(super) fn gauges_of_namespace(root: &HostRoot) -> Counters {
    let mut reader = CounterReader::of(&|_, _| true);
    for name in ["sockstat", "sockstat6"] {
        let file = root.open(format!("proc/thread-self/net/{name}"));
        let _skipped = file.and_then(|file| reader.add_sockstat(file));
    }
    reader.counters
}

/// Counters that belong to no namespace: of CPUs and neighbour tables.
pub(super) fn of_host(root: &HostRoot) -> Counters {
    let mut reader = CounterReader::of(&|_, _| true);
    reader.read_host(root);
    reader.counters
}

/// Reads files into counters. What was read of one before an error is still true.
struct CounterReader<'a> {
    counters: Counters,
    selected: Selected<'a>,
}

impl<'a> CounterReader<'a> {
    fn of(selected: Selected<'a>) -> Self {
        Self { counters: Counters::default(), selected }
    }

    fn read_namespace(&mut self, root: &HostRoot, folder: &str) {
        let open = |name| root.open(format!("{folder}/{name}"));
        let _skipped = open("snmp").and_then(|file| self.add_pairs(file));
        let _skipped = open("netstat").and_then(|file| self.add_pairs(file));
        let _skipped = open("snmp6").and_then(|file| self.add_snmp6(file));
        let _skipped = open("xfrm_stat").and_then(|file| self.add_xfrm(file));
    }

    fn read_host(&mut self, root: &HostRoot) {
        let _skipped = root.open("proc/net/softnet_stat").and_then(|file| self.add_softnet(file));
        for table in NEIGHBOURS {
            let file = root.open(format!("proc/net/stat/{table}"));
            let _skipped = file.and_then(|file| self.add_neighbours(table, file));
        }
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
            self.add(group, name, value, 10);
        }
    }

    /// `snmp6`: a name and a value in each line.
    fn add_snmp6(&mut self, reader: impl Read) -> io::Result<u64> {
        each_text(reader, |line| {
            let mut words = line.split_whitespace();
            let (Some(name), Some(value)) = (words.next(), words.next()) else { return };
            let group = IPV6_GROUPS.iter().find(|group| name.starts_with(**group));
            if let Some(group) = group {
                self.add(group, &name[group.len()..], value, 10);
            }
        })
    }

    /// `xfrm_stat`: as `snmp6`, one group (`xfrm_statistics_seq_show()`, net/xfrm/xfrm_proc.c).
    fn add_xfrm(&mut self, reader: impl Read) -> io::Result<u64> {
        each_text(reader, |line| {
            let mut words = line.split_whitespace();
            let (Some(name), Some(value)) = (words.next(), words.next()) else { return };
            if let Some(name) = name.strip_prefix(XFRM) {
                self.add(XFRM, name, value, 10);
            }
        })
    }

    /// `sockstat`: a group and its names, each before its value: `FRAG: inuse 2 memory 1536`.
    fn add_sockstat(&mut self, reader: impl Read) -> io::Result<u64> {
        each_text(reader, |line| {
            let Some((group, rest)) = line.split_once(':') else { return };
            let words: Vec<&str> = rest.split_whitespace().collect();
            for [name, value] in words.as_chunks().0 {
                self.add(group, name, value, 10);
            }
        })
    }

    /// `softnet_stat`: a line of hexadecimal columns for each CPU.
    fn add_softnet(&mut self, reader: impl Read) -> io::Result<u64> {
        each_text(reader, |line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            for (name, column) in SOFTNET {
                if let Some(value) = columns.get(column) {
                    self.add("softnet", name, value, 16);
                }
            }
        })
    }

    /// `arp_cache` and `ndisc_cache`: a line of names, then hexadecimal values of each CPU. The
    /// first, `entries`, is the table's and the same in each line.
    fn add_neighbours(&mut self, table: &str, reader: impl Read) -> io::Result<u64> {
        let (mut names, mut first) = (None, true);
        each_text(reader, |line| {
            let Some(names) = &names else {
                names = Some(line.to_owned());
                return;
            };
            for (name, value) in names.split_whitespace().zip(line.split_whitespace()) {
                if first || name != "entries" {
                    self.add(table, name, value, 16);
                }
            }
            first = false;
        })
    }

    /// Adds a value that is written to the base `radix`; what is no number, or below zero, is no
    /// count.
    fn add(&mut self, group: &str, name: &str, value: &str, radix: u32) {
        if (self.selected)(group, name)
            && let Ok(value) = u64::from_str_radix(value, radix)
        {
            self.counters.add(format!("{group}.{name}"), value);
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
        let mut reader = CounterReader::of(&|_, _| true);
        let text = "Tcp: MaxConn InErrs\nTcp: -1 7\nUdp: NoPorts Odd\nUdp: 3\nIp: A\nIcmp: 9\n";
        reader.add_pairs(text.as_bytes()).expect("reads");
        assert_eq!(reader.counters.get("Tcp.InErrs"), Some(7));
        assert_eq!(reader.counters.get("Tcp.MaxConn"), None, "a limit of -1 is no count");
        assert_eq!(reader.counters.get("Udp.NoPorts"), Some(3));
        assert_eq!(reader.counters.get("Udp.Odd"), None);
        assert_eq!(reader.counters.get("Ip.A"), None);
    }

    #[test]
    fn ipv6_names_are_taken_apart() {
        let mut reader = CounterReader::of(&|_, _| true);
        let text = "Ip6InNoRoutes    \t4\nUdpLite6InErrors 5\nIcmp6InErrors x\nodd\n\n";
        reader.add_snmp6(text.as_bytes()).expect("reads");
        assert_eq!(reader.counters.get("Ip6.InNoRoutes"), Some(4));
        assert_eq!(reader.counters.get("UdpLite6.InErrors"), Some(5));
        assert_eq!(reader.counters.get("Icmp6.InErrors"), None);
    }

    #[test]
    fn counters_of_ipsec_are_of_one_group() {
        let mut reader = CounterReader::of(&|group, name| (group, name) != ("Xfrm", "InError"));
        let text = "XfrmInError  \t1\nXfrmInTmplMismatch      \t50\nIn 3\nXfrmOutError x\n";
        reader.add_xfrm(text.as_bytes()).expect("reads");
        assert_eq!(reader.counters, [("Xfrm.InTmplMismatch", 50)].into_iter().collect());
    }

    #[test]
    fn gauges_stand_beside_their_names() {
        let mut reader = CounterReader::of(&|_, _| true);
        let text = "sockets: used 9\nFRAG: inuse 2 memory 1536\nodd\nTCP: inuse x mem\n";
        reader.add_sockstat(text.as_bytes()).expect("reads");
        let expected = [("sockets.used", 9), ("FRAG.inuse", 2), ("FRAG.memory", 1536)];
        assert_eq!(reader.counters, expected.into_iter().collect());
    }

    #[test]
    fn cpus_are_added_up() {
        let mut reader = CounterReader::of(&|_, _| true);
        let text = "ff 2 3 0 0 0 0 0 0 0 a 0\n1 1 1\n";
        reader.add_softnet(text.as_bytes()).expect("reads");
        assert_eq!(reader.counters.get("softnet.processed"), Some(256));
        assert_eq!(reader.counters.get("softnet.dropped"), Some(3));
        assert_eq!(reader.counters.get("softnet.flow_limit"), Some(10));
    }

    #[test]
    fn neighbour_tables_have_a_size_and_counters_of_each_cpu() {
        let mut reader = CounterReader::of(&|_, _| true);
        let text = "entries,allocs destroys\nentries  res_failed table_fulls\n";
        reader.add_neighbours("t", text.as_bytes()).expect("reads");
        assert_eq!(reader.counters, Counters::default(), "names alone");
        let text = "entries  res_failed table_fulls\n0000000a  00000001 00000000\n\
                    0000000a  00000010 00000002\n";
        reader.add_neighbours("arp_cache", text.as_bytes()).expect("reads");
        assert_eq!(reader.counters.get("arp_cache.entries"), Some(10));
        assert_eq!(reader.counters.get("arp_cache.res_failed"), Some(17));
        assert_eq!(reader.counters.get("arp_cache.table_fulls"), Some(2));
    }

    #[test]
    fn what_is_not_requested_is_left_out() {
        let mut reader = CounterReader::of(&|group, name| (group, name) == ("Udp", "NoPorts"));
        reader.add_pairs("Udp: InErrors NoPorts\nUdp: 1 2\n".as_bytes()).expect("reads");
        assert_eq!(reader.counters, [("Udp.NoPorts", 2)].into_iter().collect());
    }
}
