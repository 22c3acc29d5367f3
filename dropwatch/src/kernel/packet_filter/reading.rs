//! Reads what of a namespace's rules drops, with counters, by the host's own programs.
//!
//! Which tables there are is asked first, of the kernel, which loads nothing for the answer. A program
//! is run only where it finds some: alone, iptables would make them. Programs get no more than the
//! two capabilities that reading rules takes.

use std::{
    collections::hash_map::RandomState,
    fs,
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, Instant},
};

use caps::Capability;
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{
    BRIDGE_MODULES,
    arptables::ArptablesList,
    iptables::IptablesSave,
    is_of_nft,
    map::MapElements,
    nft::{NamedMap, NftRuleset},
    table_names,
    tally::{Counts, Tallied, Tally, clean},
};
use crate::{
    kernel::{
        HostRoot,
        netlink::{Netlink, NetlinkError, attributes},
    },
    programs::{
        Bounds, Ended, are_host_files_elsewhere, confine, enter_host_files, find, read_lines,
    },
    report::{
        evidence::TableFamily,
        filter_rules::{Dropper, Family, Gap, is_word},
    },
};

/// What one program may take: some times what 50,000 rules do.
const BOUNDS: Bounds = Bounds { patience: Duration::from_secs(5), bytes: 32 << 20 };
/// `iptables-save` opens a raw socket, and the kernel shows rules to who may change them
/// (`do_ipt_get_ctl`, net/ipv4/netfilter/ip_tables.c; `nfnetlink_rcv`, net/netfilter/nfnetlink.c).
const NEEDED: &[Capability] = &[Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];
/// Most tables of a namespace that are asked for.
const MOST_TABLES: usize = 64;

/// `NFT_MSG_GETTABLE` of `NFNL_SUBSYS_NFTABLES` (include/uapi/linux/netfilter/nfnetlink.h).
const GET_TABLES: u16 = 10 << 8 | 1;
/// `NFTA_TABLE_NAME` (include/uapi/linux/netfilter/nf_tables.h).
const NFTA_TABLE_NAME: u16 = 1;
/// What programs of iptables call their tables.
const TABLES: [&str; 5] = ["filter", "mangle", "nat", "raw", "security"];

/// What was read.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) tallied: Tallied,
    pub(super) gaps: Vec<Gap>,
}

/// Reads the rules of the calling thread's namespace, and leaves the thread with no privilege for
/// anything else. `None` where there is no table at all.
///
/// # Errors
/// What tables there are may not be known.
pub(super) fn read(
    root: &HostRoot,
    before: Option<&Counts>,
    hasher: &RandomState,
    until: Instant,
) -> io::Result<Option<Reading>> {
    let legacy = table_names(root)?;
    let nft = if has_nftables(root) { nft_tables()? } else { Vec::new() };
    if legacy.is_empty() && nft.is_empty() {
        return Ok(None);
    }
    let is_missing = |it: &(TableFamily, Vec<String>)| {
        matches!(it.0, TableFamily::Ipv4 | TableFamily::Ipv6) && save(it.0, false).is_none()
    };
    if (legacy.iter().any(is_missing) || !nft.is_empty() && find("nft").is_none())
        && are_host_files_elsewhere()
        && let Err(error) = enter_host_files()
    {
        log::debug!("the host's programs cannot be run: {error}");
    }
    confine(NEEDED)?;
    let mut tally = Tally::new(before, hasher);
    let mut gaps = Vec::new();
    let mut gap = |family, why: String| gaps.push(Gap { family, why });
    for (family, names) in legacy {
        if let (TableFamily::Arp, Some(program)) = (family, arptables()) {
            for name in names.iter().take(MOST_TABLES) {
                let mut parser = ArptablesList::new(&mut tally, "arptables-legacy", name);
                let arguments = ["-t", name, "-vnxL"];
                let ended = run(&program, &arguments, until, |line| parser.line(line));
                match failure(&program, ended) {
                    None => parser.end(),
                    Some(why) => gap(Some(Family::Arp), why),
                }
            }
            continue;
        }
        let Some((family, save)) = save(family, false) else {
            gap(kept_by(family), missing(family).to_owned());
            continue;
        };
        let mut parser = IptablesSave::new(&mut tally, &save.program, family, true);
        let mut is_shown = true;
        for name in names.iter().take(MOST_TABLES) {
            let each = |line: &[u8]| parser.line(line);
            let ended = run(&save.path, &["-c", "-t", name], until, each);
            if let Some(why) = failure(&save.path, ended) {
                gap(Some(family), why);
                is_shown = false;
            }
        }
        let whole = parser.end();
        if is_shown && names.iter().take(MOST_TABLES).any(|name| !whole.contains(name)) {
            gap(Some(family), format!("not all of what {}-save shows is understood", save.program));
        }
    }
    // What programs of iptables have put there, they show as they were told it.
    let mut shown: Vec<(Family, String)> = Vec::new();
    for family in [TableFamily::Ipv4, TableFamily::Ipv6] {
        let Some((family, save)) = save(family, true) else { continue };
        let is_theirs = |it: &&(Option<Family>, String)| {
            it.0 == Some(family) && TABLES.contains(&it.1.as_str())
        };
        for (_, name) in nft.iter().filter(is_theirs) {
            let mut parser = IptablesSave::new(&mut tally, &save.program, family, false);
            let ended = run(&save.path, &["-c", "-t", name], until, |line| parser.line(line));
            // One that it does not understand it leaves out, saying so in a comment.
            let whole = parser.end();
            if failure(&save.path, ended).is_none() && whole.contains(name) {
                shown.extend(whole.into_iter().map(|name| (family, name)));
            }
        }
    }
    let skips = |family: Family, name: &str| shown.iter().any(|it| it.0 == family && it.1 == name);
    let mut maps = Vec::new();
    if nft.iter().any(|(family, name)| family.is_none_or(|family| !skips(family, name))) {
        match find("nft") {
            None => gap(None, "nft is not installed: the package nftables brings it".to_owned()),
            Some(path) => {
                let mut parser = NftRuleset::new(&mut tally, skips);
                let ended = run(&path, &["-a", "-t", "list", "ruleset"], until, |line| {
                    parser.line(line);
                });
                let (is_whole, named) = parser.end();
                maps = named;
                let cut =
                    || (!is_whole).then(|| "nft ended within a table or a comment".to_owned());
                if let Some(why) = failure(&path, ended).or_else(cut) {
                    gap(None, why);
                }
            }
        }
    }
    if BRIDGE_MODULES.iter().any(|it| root.path(format!("sys/module/{it}")).exists()) {
        gap(Some(Family::Bridge), "legacy tables of bridges are not read".to_owned());
    }
    let mut tallied = tally.end();
    maps.iter().for_each(|map| look_up(map, &mut tallied, until));
    if tallied.cut {
        gap(None, "there are more rules that drop than are counted here".to_owned());
    }
    Ok(Some(Reading { tallied, gaps }))
}

/// Adds the elements of a map to the rules that decide by it. One none of whose elements drops is no rule
/// that does.
fn look_up(map: &NamedMap, tallied: &mut Tallied, until: Instant) {
    // Other names nft would take for more than one word, or for a command of its own.
    let Some(path) = find("nft").filter(|_| is_word(&map.table) && is_word(&map.map)) else {
        return;
    };
    let mut elements = MapElements::default();
    let arguments = ["list", "map", map.family.name(), &map.table, &map.map];
    let ended = run(&path, &arguments, until, |line| elements.line(line));
    let (None, Some(keys)) = (failure(&path, ended), elements.end()) else { return };
    let named = format!("vmap @{}", map.map);
    let is_its = |it: &Dropper| {
        let at = (it.family, it.table.as_str()) == (map.family, map.table.as_str());
        let mut after = it.text.split(&named).skip(1);
        it.by_map && at && after.any(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    tallied.silent.retain(|it| !(is_its(it) && keys.is_empty()));
    for dropper in tallied.silent.iter_mut().filter(|it| is_its(it)) {
        dropper.elements.clone_from(&keys);
    }
}

/// The program for tables of ARP of its own.
fn arptables() -> Option<PathBuf> {
    let of_legacy = |path: &PathBuf| fs::canonicalize(path).is_ok_and(|file| !is_of_nft(&file));
    find("arptables-legacy").filter(of_legacy)
}

/// A program that shows the rules of a family.
struct Save {
    path: PathBuf,
    /// What shows one rule: its name without `-save`.
    program: String,
}

/// The program for tables of its own, or for those in nftables.
fn save(family: TableFamily, nft: bool) -> Option<(Family, Save)> {
    let (family, begin) = match family {
        TableFamily::Ipv4 => (Family::Ip, "iptables"),
        TableFamily::Ipv6 => (Family::Ip6, "ip6tables"),
        TableFamily::Arp | TableFamily::Bridge => return None,
    };
    let kind = if nft { "-nft" } else { "-legacy" };
    // The usual name first, which people know, where it is the program that is looked for.
    let programs = [begin.to_owned(), format!("{begin}{kind}")];
    let names: Vec<String> = match nft {
        true => programs.into(),
        false => programs.into_iter().rev().collect(),
    };
    names.into_iter().find_map(|program| {
        let path = find(&format!("{program}-save"))?;
        let is_nft = is_of_nft(&fs::canonicalize(&path).ok()?);
        (is_nft == nft).then_some((family, Save { path, program }))
    })
}

fn kept_by(family: TableFamily) -> Option<Family> {
    Some(match family {
        TableFamily::Ipv4 => Family::Ip,
        TableFamily::Ipv6 => Family::Ip6,
        TableFamily::Arp => Family::Arp,
        TableFamily::Bridge => Family::Bridge,
    })
}

fn missing(family: TableFamily) -> &'static str {
    match family {
        TableFamily::Ipv4 => {
            "iptables-legacy-save is not installed: the package iptables brings it"
        }
        TableFamily::Ipv6 => {
            "ip6tables-legacy-save is not installed: the package iptables brings it"
        }
        TableFamily::Arp => "arptables-legacy is not installed: the package arptables brings it",
        TableFamily::Bridge => "legacy tables of bridges are not read",
    }
}

fn run(
    program: &Path,
    arguments: &[&str],
    until: Instant,
    each: impl FnMut(&[u8]),
) -> io::Result<Ended> {
    let patience = BOUNDS.patience.min(until.saturating_duration_since(Instant::now()));
    read_lines(program, arguments, Bounds { patience, ..BOUNDS }, each)
}

/// What went wrong.
fn failure(program: &Path, ended: io::Result<Ended>) -> Option<String> {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    Some(match ended {
        Ok(Ended::Well) => return None,
        Ok(Ended::Failed) => format!("{name} fails"),
        Ok(Ended::TooLate) => format!("{name} takes too long"),
        Ok(Ended::TooMuch) => format!("{name} shows more than is read here"),
        Err(error) => format!("{name} cannot be run ({error})"),
    })
}

/// Whether nftables is part of this kernel or loaded: else the question alone would load it.
pub(in crate::kernel) fn has_nftables(root: &HostRoot) -> bool {
    /// A kernel's own code stays, so once it is enough.
    static BUILT_IN: OnceLock<bool> = OnceLock::new();
    let built_in = || {
        let Ok(symbols) = fs::File::open(root.path("proc/kallsyms")) else { return false };
        let mut symbols = BufReader::with_capacity(64 << 10, symbols).split(b'\n');
        // Those of modules have their name behind it.
        symbols.any(|line| line.is_ok_and(|line| line.ends_with(b" nft_do_chain")))
    };
    root.path("sys/module/nf_tables").exists() || *BUILT_IN.get_or_init(built_in)
}

/// The tables of nftables in the calling thread's namespace; of a family that is not known, too.
pub(super) fn nft_tables() -> io::Result<Vec<(Option<Family>, String)>> {
    let mut netlink = Netlink::open(NETLINK_NETFILTER)?;
    let mut tables = Vec::new();
    // `struct nfgenmsg`: all families, version 0.
    let asked = netlink.ask_all(GET_TABLES, &[0; 4], |message| {
        let (Some(family), Some(content)) = (message.first(), message.get(4..)) else { return };
        for (kind, value) in attributes(content).filter(|(kind, _)| *kind == NFTA_TABLE_NAME) {
            debug_assert_eq!(kind, NFTA_TABLE_NAME);
            let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
            tables.push((family_of(*family), clean(&String::from_utf8_lossy(name))));
        }
    });
    match asked {
        Ok(()) => Ok(tables),
        Err(NetlinkError::Io(error)) => Err(error),
        Err(error @ NetlinkError::Malformed) => Err(io::Error::other(error)),
    }
}

/// `NFPROTO_…` (include/uapi/linux/netfilter.h).
fn family_of(number: u8) -> Option<Family> {
    Some(match number {
        1 => Family::Inet,
        2 => Family::Ip,
        3 => Family::Arp,
        5 => Family::Netdev,
        7 => Family::Bridge,
        10 => Family::Ip6,
        _ => return None,
    })
}
