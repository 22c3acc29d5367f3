//! Names of network interfaces, asked for by index where they live.
//!
//! The kernel answers for the namespace of the calling thread alone. Another namespace is either
//! entered by a thread of its own, which ends with the answer, so that nothing keeps a dying
//! namespace alive; or its interfaces are read from the tables of a process that lives there,
//! which everyone may read, but which leave out interfaces without a multicast group or address.

use std::{
    io::{self, Read},
    path::Path,
};

use nix::net::if_::if_indextoname;

use super::{HostRoot, clean, inside::inside, lines::for_each_line};

/// Most bytes read of one table: far more than ten thousand interfaces take.
const MAX_TABLE: u64 = 16 << 20;
/// Longest line of a table that is looked at, bytes.
const MAX_LINE: usize = 512;

/// Index and name in one line of a table.
type Parse = fn(&str) -> Option<(u32, &str)>;

/// Name of an interface in the calling thread's namespace. Needs no capability.
pub(super) fn name(ifindex: u32) -> Option<String> {
    // nix 0.31 takes an index that nobody has for one with an empty name, which no interface can have.
    let name = if_indextoname(ifindex).ok().filter(|name| !name.is_empty())?;
    Some(clean(&name.to_string_lossy()))
}

/// Name of an interface in the namespace `inum`, whose file is at `path`.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` (setns(2)). Where the namespace is gone: that the file is
/// another's, or is not there.
pub(super) fn name_inside(path: &Path, inum: u32, ifindex: u32) -> io::Result<Option<String>> {
    inside(path, inum, || Ok(name(ifindex)))
}

/// Name of an interface in the namespace that the process `pid` lives in, from its tables.
/// Needs no capability.
pub(super) fn name_from_tables(root: &HostRoot, pid: u32, ifindex: u32) -> Option<String> {
    let open = |table: &str| root.open(format!("proc/{pid}/net/{table}")).ok();
    let from = |table, parse: Parse| find(open(table)?, ifindex, parse);
    from("dev_mcast", dev_mcast)
        .or_else(|| from("igmp", igmp))
        .or_else(|| from("if_inet6", if_inet6))
}

/// The first name that `parse` finds for `ifindex` in the lines of `table`.
fn find(table: impl Read, ifindex: u32, parse: Parse) -> Option<String> {
    let mut found = None;
    let each = |line: &[u8]| {
        // Lossy: a name can be any bytes but white space, '/' and ':' (dev_valid_name,
        // net/core/dev.c).
        let line = String::from_utf8_lossy(line);
        if found.is_none()
            && let Some((index, name)) = parse(&line)
            && index == ifindex
        {
            found = Some(clean(name));
        }
    };
    for_each_line(table.take(MAX_TABLE), MAX_LINE, each).ok()?;
    found
}

/// `2    eth0            1     0     01005e000001` (dev_mc_seq_show, net/core/dev_addr_lists.c and
/// net-procfs.c): index and name come first.
fn dev_mcast(line: &str) -> Option<(u32, &str)> {
    let mut fields = line.split_ascii_whitespace();
    Some((fields.next()?.parse().ok()?, fields.next()?))
}

/// `2<tab>eth0      :     1      V3` (igmp_mc_seq_show, net/ipv4/igmp.c); the lines of its groups
/// are indented.
fn igmp(line: &str) -> Option<(u32, &str)> {
    let (index, rest) = line.split_once('\t')?;
    let name = rest.split_once(':')?.0;
    Some((index.parse().ok()?, name.trim_ascii()))
}

/// `fe80… 02 40 20 80     eth0` (if6_seq_show, net/ipv6/addrconf.c): the index is hexadecimal.
fn if_inet6(line: &str) -> Option<(u32, &str)> {
    let mut fields = line.split_ascii_whitespace();
    let index = u32::from_str_radix(fields.nth(1)?, 16).ok()?;
    Some((index, fields.nth(3)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEV_MCAST: &str = "2    ifb0            1     0     333300000001\n\
                             14   a\x1bb             1     0     01005e000001\n";
    const IGMP: &str = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
                        1\tlo        :     1      V3\n\
                        \t\t\t\t010000E0     1 0:00000000\t\t0\n\
                        12\tlongernameof15:     1      V3\n";
    const IF_INET6: &str = "00000000000000000000000000000001 01 80 10 80       lo\n\
                            fe80000000000000a8aaaafffe000001 0c 40 20 80     eth0\n";

    #[test]
    fn tables_are_searched_by_index() {
        let mcast = |index| find(DEV_MCAST.as_bytes(), index, dev_mcast);
        assert_eq!(mcast(2).as_deref(), Some("ifb0"));
        assert_eq!(mcast(14).as_deref(), Some("a\u{fffd}b"), "cleaned");
        assert_eq!(mcast(3), None);
        let igmp = |index| find(IGMP.as_bytes(), index, igmp);
        assert_eq!(igmp(1).as_deref(), Some("lo"));
        assert_eq!(igmp(12).as_deref(), Some("longernameof15"));
        assert_eq!(igmp(0), None);
        let inet6 = |index| find(IF_INET6.as_bytes(), index, if_inet6);
        assert_eq!(inet6(12).as_deref(), Some("eth0"));
        assert_eq!(inet6(40), None);
    }

    #[test]
    fn the_loopback_interface_is_the_first_of_every_namespace() {
        assert_eq!(name(1).as_deref(), Some("lo"));
        assert_eq!(name(0), None);
        assert_eq!(name(u32::MAX), None);
    }

    #[test]
    fn a_file_that_is_another_namespaces_is_not_entered() {
        let error = name_inside(Path::new("/proc/self/ns/net"), 1, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    proptest! {
        #[test]
        fn no_table_panics(table in proptest::collection::vec(any::<u8>(), 0..300), index: u32) {
            for parse in [dev_mcast as Parse, igmp, if_inet6] {
                let _ = find(table.as_slice(), index, parse);
            }
        }
    }
}
