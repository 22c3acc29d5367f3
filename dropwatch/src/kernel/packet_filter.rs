//! What shows the rules of the packet filter: which families have legacy tables, and which programs
//! there are.
//!
//! A rule of iptables is one of a legacy table or of nftables, as the program was built that made it,
//! and `iptables-save` shows the one kind or the other. Nothing is loaded by looking: a family whose
//! module is not there has no table.

mod arptables;
mod chains;
#[cfg(test)]
mod fuzz;
mod iptables;
mod lines;
mod map;
mod nft;
mod reading;
pub(super) mod readings;
#[cfg(test)]
mod reloads;
mod same;
mod tally;

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

pub(super) use self::reading::has_nftables;
use self::reading::nft_tables;
use super::HostRoot;
use crate::{
    programs::find_as_typed,
    report::evidence::{RulePrograms, TableFamily},
};

/// Lists of the tables that a namespace has: a name a line (`xt_table_seq_show`,
/// net/netfilter/x_tables.c). Only root may read them.
const LISTS: [(TableFamily, &str); 3] = [
    (TableFamily::Ipv4, "proc/thread-self/net/ip_tables_names"),
    (TableFamily::Ipv6, "proc/thread-self/net/ip6_tables_names"),
    (TableFamily::Arp, "proc/thread-self/net/arp_tables_names"),
];
/// Bridges have no such list; these modules are their legacy tables, and are loaded when one is used.
const BRIDGE_MODULES: [&str; 3] = ["ebtable_filter", "ebtable_nat", "ebtable_broute"];

/// What each family's rules are shown by: the legacy program's own name, the name that either kind has,
/// and what makes it print packet counters.
const PROGRAMS: [(TableFamily, &str, &str, &str); 4] = [
    (TableFamily::Ipv4, "iptables-legacy-save", "iptables-save", "-c"),
    (TableFamily::Ipv6, "ip6tables-legacy-save", "ip6tables-save", "-c"),
    (TableFamily::Arp, "arptables-legacy", "arptables", "-vnL"),
    (TableFamily::Bridge, "ebtables-legacy", "ebtables", "-L --Lc"),
];

/// The families that have legacy tables in the calling thread's namespace; `None` where that may not be
/// read.
pub(super) fn legacy_tables(root: &HostRoot) -> Option<BTreeSet<TableFamily>> {
    let mut families: BTreeSet<TableFamily> =
        table_names(root).ok()?.into_iter().map(|(family, _)| family).collect();
    if BRIDGE_MODULES.iter().any(|it| root.path(format!("sys/module/{it}")).exists()) {
        families.insert(TableFamily::Bridge);
    }
    Some(families)
}

/// Whether the calling thread's namespace has a table of the packet filter, legacy or of nftables.
pub(super) fn is_used(root: &HostRoot) -> bool {
    let of_ip = [TableFamily::Ipv4, TableFamily::Ipv6];
    let legacy = || legacy_tables(root).is_some_and(|it| of_ip.iter().any(|ip| it.contains(ip)));
    legacy() || (has_nftables(root) && nft_tables().is_ok_and(|tables| !tables.is_empty()))
}

/// The legacy tables in the calling thread's namespace, of the families that have such a list.
///
/// # Errors
/// That may not be read.
fn table_names(root: &HostRoot) -> io::Result<Vec<(TableFamily, Vec<String>)>> {
    let mut tables = Vec::new();
    for (family, list) in LISTS {
        let names: Vec<String> = match fs::read_to_string(root.path(list)) {
            Ok(names) => names.split_whitespace().map(str::to_owned).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if !names.is_empty() {
            tables.push((family, names));
        }
    }
    Ok(tables)
}

/// Whether a program, all of whose links were followed, works on nftables.
fn is_of_nft(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.to_string_lossy().contains("nft"))
}

/// The programs of this host, as `$PATH` finds them.
pub(super) fn programs() -> RulePrograms {
    programs_in(find_as_typed)
}

fn programs_in(find: impl Fn(&str) -> Option<PathBuf>) -> RulePrograms {
    // Each is a link to the program that does the work: `xtables-nft-multi`, `xtables-legacy-multi`.
    let find = |name: &str| fs::canonicalize(find(name)?).ok();
    let mut programs = RulePrograms { native: find("nft").is_some(), ..RulePrograms::default() };
    for (family, legacy, common, options) in PROGRAMS {
        let common_is_nft = find(common).map(|file| is_of_nft(&file));
        // On Debian, arptables-legacy may be a link to the other kind, where the real one is missing.
        if find(legacy).is_some_and(|file| !is_of_nft(&file)) {
            programs.legacy.insert(family, format!("{legacy} {options}"));
        } else if common_is_nft == Some(false) {
            programs.legacy.insert(family, format!("{common} {options}"));
        }
        if common_is_nft == Some(true) {
            programs.nft.insert(family, format!("{common} {options}"));
        }
    }
    programs
}

#[cfg(test)]
mod tests {
    use std::{env, os::unix::fs::symlink};

    use super::*;

    /// A folder with these links.
    fn folder(name: &str, links: &[(&str, &str)]) -> PathBuf {
        let folder = env::temp_dir().join(format!("packet-filter-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for (link, program) in links {
            fs::write(folder.join(program), "").unwrap();
            if link != program {
                symlink(program, folder.join(link)).unwrap();
            }
        }
        folder
    }

    fn found(name: &str, links: &[(&str, &str)]) -> RulePrograms {
        let folder = folder(name, links);
        let programs = programs_in(|name| Some(folder.join(name)));
        fs::remove_dir_all(folder).unwrap();
        programs
    }

    #[test]
    fn debian_has_a_program_for_each_kind() {
        let programs = found(
            "debian",
            &[
                ("iptables-save", "xtables-nft-multi"),
                ("iptables-legacy-save", "xtables-legacy-multi"),
                ("ebtables-legacy", "xtables-nft-multi"),
                ("nft", "nft"),
            ],
        );
        assert_eq!(programs.legacy[&TableFamily::Ipv4], "iptables-legacy-save -c");
        assert_eq!(programs.nft[&TableFamily::Ipv4], "iptables-save -c");
        assert!(programs.native);
        assert_eq!(programs.legacy.get(&TableFamily::Bridge), None, "a link to the other kind");
    }

    #[test]
    fn elsewhere_the_usual_name_is_the_legacy_program() {
        let programs = found("legacy", &[("iptables-save", "xtables-legacy-multi")]);
        assert_eq!(programs.legacy[&TableFamily::Ipv4], "iptables-save -c");
        assert!(programs.nft.is_empty() && !programs.native);
    }

    #[test]
    fn a_table_is_there_where_its_list_names_it() {
        let root = folder("tables", &[]);
        let lists = root.join("proc/thread-self/net");
        fs::create_dir_all(&lists).unwrap();
        fs::write(lists.join("ip_tables_names"), "").unwrap();
        fs::write(lists.join("ip6_tables_names"), "filter\nraw\n").unwrap();
        let tables = legacy_tables(&HostRoot::new(root.clone()));
        fs::remove_dir_all(root).unwrap();
        assert_eq!(tables, Some([TableFamily::Ipv6].into()));
    }
}
