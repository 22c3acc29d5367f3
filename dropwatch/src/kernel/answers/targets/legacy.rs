//! Legacy tables of iptables, read by `IPT_SO_GET_ENTRIES` and `IP6T_SO_GET_ENTRIES`
//! (`do_ipt_get_ctl`, net/ipv4/netfilter/ip_tables.c), which ask for `CAP_NET_ADMIN` in the namespace.
//!
//! A table is one block: chains one after the other, each of entries that say where the next one is. A
//! chain of the kernel's begins where the table's description says, one of a person's with an entry whose
//! target is `ERROR` and has its name.

use std::{
    fs, io,
    net::UdpSocket,
    os::fd::{AsFd, AsRawFd},
};

use super::{
    super::{Unanswered, unanswered},
    info,
};
use crate::report::{
    evidence::TableFamily,
    question::{RulePlace, RuleTarget, Sought},
};

/// `IPT_SO_GET_INFO`, `IPT_SO_GET_ENTRIES`; those of IPv6 have the same numbers.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
/// Bytes of a name in either (`XT_TABLE_MAXNAMELEN`).
const NAME: usize = 32;
/// `struct ipt_getinfo`: a name, which hooks have chains, where these begin and where each one's policy
/// is, the number of entries, the size of all.
const INFO: usize = NAME + 4 + 5 * 4 + 5 * 4 + 4 + 4;
/// `struct ipt_get_entries` before the entries: a name and their size, aligned.
const BEFORE_ENTRIES: usize = 40;
/// Largest table read, bytes: some 30,000 rules of kube-proxy.
const LARGEST: u32 = 16 << 20;
/// Bytes of a target before what it is to do (`struct xt_entry_target`): size, name, revision.
const TARGET: usize = 32;

/// Chains of the hooks, by their numbers (`enum nf_inet_hooks`).
const CHAINS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// A family's tables.
struct Family {
    family: TableFamily,
    names: &'static str,
    level: libc::c_int,
    /// What a socket of the family is bound to.
    anywhere: &'static str,
    /// Size of an entry before its matches (`struct ipt_entry`, `struct ip6t_entry`).
    entry: usize,
    /// Where it says where its target begins.
    target_at: usize,
}

const FAMILIES: [Family; 2] = [
    Family {
        family: TableFamily::Ipv4,
        names: "/proc/thread-self/net/ip_tables_names",
        level: libc::IPPROTO_IP,
        anywhere: "0.0.0.0:0",
        entry: 112,
        target_at: 88,
    },
    Family {
        family: TableFamily::Ipv6,
        names: "/proc/thread-self/net/ip6_tables_names",
        level: libc::IPPROTO_IPV6,
        anywhere: "[::]:0",
        entry: 168,
        target_at: 140,
    },
];

/// The rules of the calling thread's namespace that do what is sought.
pub(super) fn targets(sought: Sought) -> Result<Vec<RuleTarget>, Unanswered> {
    let mut found = Vec::new();
    for family in &FAMILIES {
        let names = match fs::read_to_string(family.names) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(unanswered(&error)),
        };
        let socket = match names.trim() {
            "" => continue,
            _ => UdpSocket::bind(family.anywhere).map_err(|error| unanswered(&error))?,
        };
        let is_asked = |table: &&str| match sought {
            Sought::Queue => true,
            Sought::SourceNat | Sought::To(_) => *table == "nat",
        };
        for table in names.lines().filter(is_asked) {
            let (info, block) = read(&socket, family, table).map_err(|error| unanswered(&error))?;
            found.extend(of_table(family, table, &info, &block, sought));
        }
    }
    Ok(found)
}

/// Reads a table's description and its entries. One that changes in between is refused by the kernel.
fn read(socket: &UdpSocket, family: &Family, table: &str) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut info = vec![0; INFO];
    named(&mut info, table)?;
    get(socket, family.level, GET_INFO, &mut info)?;
    let size = word(&info, INFO - 4).filter(|size| *size <= LARGEST);
    let size = size.ok_or_else(|| io::Error::other("the table is too large"))?;
    let mut block = vec![0; BEFORE_ENTRIES + size as usize];
    named(&mut block, table)?;
    block[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
    get(socket, family.level, GET_ENTRIES, &mut block)?;
    block.drain(..BEFORE_ENTRIES);
    Ok((info, block))
}

/// Writes a table's name, which ends with a zero.
fn named(buffer: &mut [u8], table: &str) -> io::Result<()> {
    let room = buffer.get_mut(..table.len()).filter(|_| table.len() < NAME);
    room.ok_or_else(|| io::Error::other("no table has such a name"))?
        .copy_from_slice(table.as_bytes());
    Ok(())
}

fn get(
    socket: &impl AsFd,
    level: libc::c_int,
    option: libc::c_int,
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and the kernel reads and writes no more than `length` bytes, which
    // `buffer` has. Neither nix nor rustix has this option.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The rules of a table that do what is sought, up to the first entry that does not add up.
fn of_table(
    family: &Family,
    table: &str,
    info: &[u8],
    block: &[u8],
    sought: Sought,
) -> Vec<RuleTarget> {
    let hooks = word(info, NAME).unwrap_or(0);
    let begins = |at: usize| {
        let mut hook = CHAINS.iter().enumerate();
        let is_here = |(number, _): &(usize, &&str)| {
            let begin = word(info, NAME + 4 + number * 4);
            hooks & (1 << number) != 0 && begin.is_some_and(|begin| begin as usize == at)
        };
        hook.find(is_here).map(|(_, name)| (*name).to_owned())
    };
    let (mut chain, mut position, mut at) = (String::new(), 0_u32, 0_usize);
    let mut found = Vec::new();
    while let Some(entry) = entry(family, block.get(at..).unwrap_or_default()) {
        if let Some(begun) = begins(at) {
            (chain, position) = (begun, 0);
        }
        let Entry { name, revision, info, size } = entry;
        if name == "ERROR" {
            (chain, position) = (text(info), 0);
        } else {
            position = position.saturating_add(1);
            let is_ipv6 = family.family == TableFamily::Ipv6;
            if let Some(does) = info::does(&name, revision, info, is_ipv6, sought) {
                let (family, table) = (family.family, table.to_owned());
                let rule = RulePlace::Legacy { family, table, chain: chain.clone(), position };
                found.push(RuleTarget { does, rule });
            }
        }
        at += size;
    }
    found
}

/// What an entry does with what it matches.
struct Entry<'a> {
    name: String,
    revision: u8,
    info: &'a [u8],
    /// Bytes to the next one.
    size: usize,
}

/// The entry that a block begins with.
fn entry<'a>(family: &Family, block: &'a [u8]) -> Option<Entry<'a>> {
    let half = |at: usize| Some(usize::from(u16::from_ne_bytes(*block.get(at..)?.first_chunk()?)));
    let (target, size) = (half(family.target_at)?, half(family.target_at + 2)?);
    if size < family.entry + TARGET || target < family.entry {
        return None;
    }
    let target = block.get(target..size)?;
    let info = target.get(TARGET..)?;
    Some(Entry { name: text(target.get(2..31)?), revision: *target.get(31)?, info, size })
}

/// A name up to its final zero, cleaned: chains have names that anyone may choose.
fn text(value: &[u8]) -> String {
    let end = value.iter().take(NAME).position(|byte| *byte == 0).unwrap_or(value.len().min(NAME));
    crate::kernel::clean(&String::from_utf8_lossy(value.get(..end).unwrap_or_default()))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::question::Does;

    const V4: &Family = &FAMILIES[0];

    fn entry_of(name: &str, info: &[u8]) -> Vec<u8> {
        let size = V4.entry + TARGET + info.len();
        let mut entry = vec![0; size];
        entry[V4.target_at..V4.target_at + 2].copy_from_slice(&(V4.entry as u16).to_ne_bytes());
        entry[V4.target_at + 2..V4.target_at + 4].copy_from_slice(&(size as u16).to_ne_bytes());
        entry[V4.entry + 2..V4.entry + 2 + name.len()].copy_from_slice(name.as_bytes());
        entry[V4.entry + TARGET..].copy_from_slice(info);
        entry
    }

    fn chain(name: &str) -> Vec<u8> {
        let mut info = [0; 32];
        info[..name.len()].copy_from_slice(name.as_bytes());
        entry_of("ERROR", &info)
    }

    fn info(hooks: &[(usize, usize)]) -> Vec<u8> {
        let mut info = vec![0; INFO];
        for (hook, begin) in hooks {
            info[NAME] |= 1 << hook;
            let at = NAME + 4 + hook * 4;
            info[at..at + 4].copy_from_slice(&(*begin as u32).to_ne_bytes());
        }
        info
    }

    #[test]
    fn rules_stand_in_their_chains() {
        let queue = |number: u16| entry_of("NFQUEUE", &[number.to_ne_bytes(), [0; 2]].concat());
        let (accept, policy) = (entry_of("", &[0; 8]), entry_of("", &[0; 8]));
        let input = [accept, queue(5), policy.clone()].concat();
        let (begin, forward) = (input.len(), policy.clone());
        let own = [chain("mine"), queue(7), policy, chain("ERROR")].concat();
        let block = [input, forward, own].concat();
        let found = of_table(V4, "filter", &info(&[(1, 0), (2, begin)]), &block, Sought::Queue);
        let at = |chain: &str, position, queue| RuleTarget {
            does: Does::Queue { first: queue, last: queue, bypass: false },
            rule: RulePlace::Legacy {
                family: TableFamily::Ipv4,
                table: "filter".into(),
                chain: chain.into(),
                position,
            },
        };
        assert_eq!(found, [at("INPUT", 2, 5), at("mine", 1, 7)]);
        let cut = of_table(V4, "filter", &info(&[(1, 0)]), &block[..begin - 1], Sought::Queue);
        assert_eq!(cut, [at("INPUT", 2, 5)]);
    }

    #[test]
    fn names_end_where_they_may() {
        assert_eq!(text(b"filter\0rest"), "filter");
        assert_eq!(text(&[b'x'; 99]).len(), NAME);
        assert!(named(&mut [0; 99], &"x".repeat(NAME)).is_err());
        assert!(named(&mut [0; 9], "filter").is_ok());
    }

    proptest! {
        #[test]
        fn no_block_panics_or_goes_on_forever(
            info in prop::collection::vec(any::<u8>(), 0..99),
            block in prop::collection::vec(any::<u8>(), 0..999),
        ) {
            let _ = of_table(V4, "nat", &info, &block, Sought::SourceNat);
        }
    }
}
