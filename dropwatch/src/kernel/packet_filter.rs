//! What shows the rules of the packet filter: which families have legacy tables, and which programs
//! there are.
//!
//! A rule of iptables is one of a legacy table or of nftables, as the program was built that made it,
//! and `iptables-save` shows the one kind or the other. Nothing is loaded by looking: a family whose
//! module is not there has no table.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{HostRoot, netlink::Netlink};
use crate::report::evidence::{RulePrograms, TableFamily};

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

/// Where programs of administrators are, whatever `$PATH` says.
const FOLDERS: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"];

/// The families that have legacy tables in the calling thread's namespace; `None` where that may not be
/// read.
pub(super) fn legacy_tables(root: &HostRoot) -> Option<BTreeSet<TableFamily>> {
    let mut families = BTreeSet::new();
    for (family, list) in LISTS {
        match fs::read_to_string(root.path(list)) {
            Ok(tables) if tables.trim().is_empty() => {}
            Ok(_) => _ = families.insert(family),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => return None,
        }
    }
    if BRIDGE_MODULES.iter().any(|it| root.path(format!("sys/module/{it}")).exists()) {
        families.insert(TableFamily::Bridge);
    }
    Some(families)
}

/// Whether the calling thread's namespace has a table of the packet filter, legacy or of nftables.
pub(super) fn is_used(root: &HostRoot) -> bool {
    let of_ip = [TableFamily::Ipv4, TableFamily::Ipv6];
    let legacy = || legacy_tables(root).is_some_and(|it| of_ip.iter().any(|ip| it.contains(ip)));
    legacy() || (nft_is_there(root) && has_nft_table())
}

/// Whether nftables is in this kernel already, so that a question loads nothing: as a module that is
/// loaded, or built in.
pub(super) fn nft_is_there(root: &HostRoot) -> bool {
    // A kernel without modules has all that it ever has.
    let Ok(modules) = fs::read_to_string(root.path("proc/modules")) else { return true };
    modules.lines().any(|line| line.split(' ').next() == Some("nf_tables")) || {
        let release = root.read_word("proc/sys/kernel/osrelease").unwrap_or_default();
        let list = root.path(format!("lib/modules/{release}/modules.builtin"));
        let built_in = fs::read_to_string(list).unwrap_or_default();
        built_in.lines().any(|line| line.ends_with("/nf_tables.ko"))
    }
}

/// `NFT_MSG_GETTABLE` of `NFNL_SUBSYS_NFTABLES`, every family.
fn has_nft_table() -> bool {
    const GET_TABLE: u16 = (10 << 8) | 1;
    let Ok(mut netlink) = Netlink::open(NETLINK_NETFILTER) else { return false };
    let mut has = false;
    let listed = netlink.ask_all(GET_TABLE, &[0; 4], |_| has = true);
    listed.is_ok() && has
}

/// The programs of this host, as `$PATH` finds them.
pub(super) fn programs() -> RulePrograms {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).chain(FOLDERS.map(PathBuf::from)).collect();
    programs_in(&folders)
}

fn programs_in(folders: &[PathBuf]) -> RulePrograms {
    // Each is a link to the program that does the work: `xtables-nft-multi`, `xtables-legacy-multi`.
    let find = |name: &str| -> Option<PathBuf> {
        folders.iter().find_map(|folder| fs::canonicalize(folder.join(name)).ok())
    };
    let is_nft =
        |file: &Path| file.file_name().is_some_and(|name| name.to_string_lossy().contains("nft"));
    let mut programs = RulePrograms { native: find("nft").is_some(), ..RulePrograms::default() };
    for (family, legacy, common, options) in PROGRAMS {
        let common_is_nft = find(common).map(|file| is_nft(&file));
        // On Debian, arptables-legacy may be a link to the other kind, where the real one is missing.
        if find(legacy).is_some_and(|file| !is_nft(&file)) {
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
    use std::os::unix::fs::symlink;

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
        let programs = programs_in(std::slice::from_ref(&folder));
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
