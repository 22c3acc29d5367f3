//! Namespaces that can be entered, and the way into each.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use super::{HOST, MAX_NAMES, Namespaces, Unfound, link};
use crate::{
    kernel::{HostRoot, Surroundings, inside::inside, links, surroundings::in_first_netns},
    report::{facts::Netns, shell::quote},
};

/// A network namespace, and the file to enter it by. Holds nothing open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReachableNetns {
    pub netns: Netns,
    /// What a command starts with that is to run there, for a shell: `ip netns exec gw `; nothing for
    /// the one that commands run in anyway. `None` where nothing but dropwatch itself keeps the
    /// namespace alive, so that a command would come too late.
    pub prefix: Option<String>,
    /// `None` for dropwatch's own, which needs no entering.
    path: Option<PathBuf>,
}

impl ReachableNetns {
    /// Does `work` in the namespace; see [`crate::kernel`] for what the thread it runs on sees.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN`; `NotFound` where the namespace is gone; those of `work`.
    pub(in crate::kernel) fn enter<T: Send>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        match &self.path {
            Some(path) => inside(path, self.netns.inum, work),
            None => work(),
        }
    }

    /// The file that stands for the namespace.
    pub(in crate::kernel) fn file(&self, root: &HostRoot) -> PathBuf {
        self.path.clone().unwrap_or_else(|| root.path("proc/self/ns/net"))
    }
}

/// What a command starts with that is to run in the namespace whose file is at `path`.
fn prefix(path: &Path) -> String {
    let folder = |name: &str| path.parent().is_some_and(|folder| folder.ends_with(name));
    if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
        if folder("run/netns") && quote(name) == name {
            return format!("ip netns exec {name} ");
        }
        if folder("ns")
            && let Some(pid) = path.iter().rev().nth(2).and_then(|pid| pid.to_str())
            && pid.parse::<u32>().is_ok()
        {
            return format!("nsenter -t {pid} -n ");
        }
    }
    format!("nsenter --net={} ", quote(&path.to_string_lossy()))
}

/// Returns the machine's first network namespace, if it is dropwatch's own or that of PID 1. It is
/// known by the settings that no other one has; where that of PID 1 may not be entered (no
/// `CAP_SYS_ADMIN`), by PID 1 being that of the machine.
pub(super) fn host(
    root: &HostRoot,
    own: Option<u32>,
    first: Option<u32>,
    surroundings: &Surroundings,
) -> Option<u32> {
    if surroundings.first_netns && own.is_some() {
        return own;
    }
    let is_host = |inum: &u32| {
        own != Some(*inum)
            && inside(&root.path(link("1")), *inum, || Ok(in_first_netns(root)))
                .unwrap_or(surroundings.all_processes == Some(true))
    };
    first.filter(is_host)
}

/// The interfaces that there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    pub names: BTreeSet<String>,
    /// Further names that people gave some of them, which packets do not have.
    pub aliases: BTreeMap<String, String>,
    /// Whether all known namespaces were looked into.
    pub complete: bool,
}

impl Namespaces {
    /// What people can call a namespace by: the host's, and those that are mounted.
    pub fn names(&mut self) -> Vec<String> {
        let mounted = self.now.mounted.get_or_insert_with(|| super::mounted(&self.root));
        let mounted = mounted.values().map(|mounted| mounted.name.clone());
        self.host.map(|_| HOST.to_owned()).into_iter().chain(mounted).collect()
    }

    /// The interfaces of the namespaces `inums`, or of all where there are none.
    pub fn interfaces(&mut self, inums: &[u32]) -> Interfaces {
        let reachable: Vec<Option<ReachableNetns>> = match inums {
            [] => self.all().into_iter().map(Some).collect(),
            inums => inums.iter().map(|inum| self.reach(*inum)).collect(),
        };
        let mut found =
            Interfaces { complete: reachable.len() < MAX_NAMES, ..Interfaces::default() };
        for netns in reachable {
            let links = netns.ok_or(io::ErrorKind::PermissionDenied.into()).and_then(|netns| {
                netns.enter(|| links::names().map_err(|error| io::Error::other(error.to_string())))
            });
            match links {
                Ok(links) => {
                    found.complete &= links.len() < links::MAX_LINKS;
                    for (name, aliases) in links {
                        found.aliases.extend(aliases.into_iter().map(|it| (it, name.clone())));
                        found.names.insert(name);
                    }
                }
                // A namespace that has ended meanwhile has no interfaces to miss.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => found.complete = false,
            }
        }
        found
    }

    /// Every namespace that this host names: dropwatch's own, that of the host, those that are
    /// mounted, and those that a process lives in. The host's comes first, then by name.
    pub fn all(&mut self) -> Vec<ReachableNetns> {
        self.search_processes();
        self.now.mounted.get_or_insert_with(|| super::mounted(&self.root));
        let mounted = self.now.mounted.iter().flat_map(|mounted| mounted.keys());
        let mut inums: Vec<u32> =
            self.own.iter().chain(mounted).chain(self.residents.keys()).copied().collect();
        inums.sort_unstable();
        inums.dedup();
        inums.truncate(MAX_NAMES);
        let mut reachable: Vec<ReachableNetns> =
            inums.into_iter().filter_map(|inum| self.reach(inum)).collect();
        reachable.sort_by_cached_key(|ReachableNetns { netns, .. }| {
            (self.host != Some(netns.inum), netns.name.clone(), netns.inum)
        });
        reachable
    }

    /// The mounted namespaces that are not `known`. Looks at no process.
    pub fn mounted_but(&mut self, known: impl Fn(&u32) -> bool) -> Vec<ReachableNetns> {
        let mounted = self.now.mounted.get_or_insert_with(|| super::mounted(&self.root));
        let new: Vec<u32> = mounted.keys().filter(|inum| !known(inum)).copied().collect();
        new.into_iter().filter_map(|inum| self.reach(inum)).collect()
    }

    /// The namespace that people call `name`; see [`Namespaces::find`].
    ///
    /// # Errors
    /// Why it is none, or cannot be entered.
    pub fn reach_by_name(&mut self, name: &str) -> Result<ReachableNetns, Unfound> {
        let inum = self.find(name)?;
        if let Some(netns) = self.reach(inum) {
            return Ok(netns);
        }
        if !name.contains('/') {
            return Err(Unfound::NoWayIn { name: name.to_owned() });
        }
        let netns = self.bearer(inum);
        let path = PathBuf::from(name);
        Ok(ReachableNetns { netns, prefix: Some(prefix(&path)), path: Some(path) })
    }

    /// Whether every process of the machine can be looked at, given the privileges: not in a
    /// container, whose packets are counted with those of the whole machine.
    pub fn are_all_in_sight(&self) -> bool {
        self.all_processes
    }

    /// Processes whose namespace is not known, for lack of `CAP_SYS_PTRACE`.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// The namespace `inum`; `None` where there is no way into it.
    pub fn reach(&mut self, inum: u32) -> Option<ReachableNetns> {
        let way = match self.mounted(inum) {
            Some(mounted) => Some(mounted.path.clone()),
            None => self
                .resident(inum)
                .map(|process| process.pid)
                .filter(|pid| self.own_pid != Some(*pid))
                .map(|pid| self.root.path(link(&pid.to_string()))),
        };
        let is_own = self.own == Some(inum);
        let prefix = if is_own && self.is_shells(inum) {
            Some(String::new())
        } else {
            way.as_deref().map(prefix)
        };
        let path = if is_own { None } else { Some(way?) };
        Some(ReachableNetns { netns: self.bearer(inum), prefix, path })
    }

    /// Whether a shell of this host, or of this container, is in dropwatch's own namespace `own`
    /// without entering it: it is that of the host, or of a container that dropwatch is not the
    /// first process of.
    fn is_shells(&self, own: u32) -> bool {
        self.host == Some(own) || (self.container == Some(own) && self.own_pid != Some(1))
    }

    /// What a command starts with that is to run in the host's own namespace; `None` where nothing
    /// leads there.
    pub fn host_prefix(&mut self) -> Option<String> {
        self.host.and_then(|host| self.reach(host))?.prefix
    }
}

#[cfg(test)]
mod tests {
    use super::{super::super::processes::fixture::FakeHost, *};

    #[test]
    fn all_that_have_a_name_and_the_hosts_first() {
        let host = FakeHost::new();
        host.process(1, "init", 10);
        host.write("proc/sys/net/core/netdev_max_backlog", "1000");
        host.link("proc/self/ns/net", "net:[10]");
        host.process(30, "zebra", 30);
        host.process(31, "ant", 31);
        host.process(32, "zebra", 30);
        let mut namespaces = Namespaces::new(&host.root());
        let all = namespaces.all();
        let names: Vec<_> = all.iter().map(|it| it.netns.name.as_deref().unwrap()).collect();
        assert_eq!(names, ["host", "ant (pid 31)", "zebra (pid 30)"]);
        assert_eq!(all[0].path, None, "dropwatch is there already");
        assert_eq!(all[2].path, Some(host.root().path("proc/30/ns/net")));
        assert_eq!(namespaces.reach_by_name("host"), Ok(all[0].clone()));
        assert_eq!(namespaces.reach_by_name("31"), Ok(all[1].clone()));
        assert_eq!(namespaces.reach_by_name("99"), Err(Unfound::NoWayIn { name: "99".to_owned() }));
        let absent = namespaces.reach_by_name("gw");
        assert!(matches!(absent, Err(Unfound::Absent { known, .. }) if known == "host"));
    }

    #[test]
    fn commands_find_their_way_into_a_namespace() {
        for (path, expected) in [
            ("/run/netns/gw", "ip netns exec gw "),
            ("/var/run/netns/gw", "ip netns exec gw "),
            ("/proc/812/ns/net", "nsenter -t 812 -n "),
            ("/run/docker/netns/8f", "nsenter --net=/run/docker/netns/8f "),
            ("/run/netns/a;b", "nsenter --net='/run/netns/a;b' "),
            ("/run/netns/-a", "nsenter --net=/run/netns/-a "),
        ] {
            assert_eq!(prefix(Path::new(path)), expected);
        }
    }

    #[test]
    fn where_commands_run_anyway_they_start_with_nothing() {
        let host = FakeHost::new();
        host.process(1, "init", 10);
        host.process(30, "web", 30);
        host.process(40, "dropwatch", 10);
        host.link("proc/1/ns/pid", "pid:[4026531836]");
        host.write("proc/sys/net/core/netdev_max_backlog", "1000");
        host.link("proc/self", "40");
        let prefix = |inum| Namespaces::new(&host.root()).reach(inum).unwrap().prefix;
        assert_eq!(prefix(10).as_deref(), Some(""));
        assert_eq!(prefix(30).as_deref(), Some("nsenter -t 30 -n "));
        assert_eq!(Namespaces::new(&host.root()).host_prefix().as_deref(), Some(""));

        // dropwatch was started inside another one, which the shell that reads it is not in.
        host.remove("proc/self");
        host.remove("proc/sys");
        host.process(50, "dropwatch", 30);
        host.link("proc/self", "50");
        assert_eq!(prefix(30).as_deref(), Some("nsenter -t 30 -n "));
        assert_eq!(prefix(10).as_deref(), Some("nsenter -t 1 -n "));
        host.remove("proc/30");
        assert_eq!(prefix(30), None, "it ends with dropwatch");
    }

    #[test]
    fn the_host_is_out_of_reach_of_a_container() {
        let host = FakeHost::new();
        host.process(1, "entry", 10);
        host.process(7, "dropwatch", 10);
        host.link("proc/1/ns/pid", "pid:[4026532246]");
        host.link("proc/self", "7");
        let mut namespaces = Namespaces::new(&host.root());
        assert_eq!(namespaces.host_prefix(), None);
        assert_eq!(namespaces.reach(10).unwrap().prefix.as_deref(), Some(""));
        host.remove("proc/self");
        host.remove("proc/7");
        host.link("proc/self", "1");
        assert_eq!(Namespaces::new(&host.root()).reach(10).unwrap().prefix, None);
    }
}
