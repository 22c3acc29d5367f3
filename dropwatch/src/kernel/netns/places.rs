//! Namespaces that can be entered, and the way into each.

use std::{io, path::PathBuf};

use super::{MAX_NAMES, Namespaces, link};
use crate::{
    kernel::inside::inside,
    report::{facts::Netns, shell::quote},
};

/// A network namespace, and the file to enter it by. Holds nothing open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub netns: Netns,
    /// `None` for dropwatch's own, which needs no entering.
    path: Option<PathBuf>,
}

impl Place {
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

    /// What a command starts with that is to run in the namespace, for a shell: `ip netns exec gw `;
    /// nothing for dropwatch's own.
    pub fn prefix(&self) -> String {
        let Some(path) = &self.path else { return String::new() };
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
}

impl Namespaces {
    /// Every namespace that this host names: dropwatch's own, that of the host, those that are
    /// mounted, and those that a process lives in. The host's comes first, then by name.
    pub fn all(&mut self) -> Vec<Place> {
        self.search_processes();
        self.now.mounted.get_or_insert_with(|| super::mounted(&self.root));
        let mounted = self.now.mounted.iter().flat_map(|mounted| mounted.keys());
        let mut inums: Vec<u32> =
            self.own.iter().chain(mounted).chain(self.residents.keys()).copied().collect();
        inums.sort_unstable();
        inums.dedup();
        inums.truncate(MAX_NAMES);
        let mut places: Vec<Place> =
            inums.into_iter().filter_map(|inum| self.place(inum)).collect();
        places.sort_by_cached_key(|Place { netns, .. }| {
            (self.host != Some(netns.inum), netns.name.clone(), netns.inum)
        });
        places
    }

    /// The namespace that people call `wanted`; see [`Namespaces::find`].
    ///
    /// # Errors
    /// Why it is none, or cannot be entered.
    pub fn place_of(&mut self, wanted: &str) -> Result<Place, String> {
        let inum = self.find(wanted)?;
        if let Some(place) = self.place(inum) {
            return Ok(place);
        }
        if !wanted.contains('/') {
            return Err(format!("there is no way into the network namespace {wanted}"));
        }
        let netns = Netns { name: self.netns(inum), inum };
        Ok(Place { netns, path: Some(PathBuf::from(wanted)) })
    }

    /// Processes whose namespace is not known, for lack of `CAP_SYS_PTRACE`.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// The namespace `inum`; `None` where there is no way into it.
    pub fn place(&mut self, inum: u32) -> Option<Place> {
        let path = if self.own == Some(inum) {
            None
        } else if let Some(mounted) = self.mounted(inum) {
            Some(mounted.path.clone())
        } else {
            let pid = self.resident(inum)?.pid;
            Some(self.root.path(link(&pid.to_string())))
        };
        Some(Place { netns: Netns { name: self.netns(inum), inum }, path })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::super::processes::fixture::Host, *};

    #[test]
    fn all_that_have_a_name_and_the_hosts_first() {
        let host = Host::new();
        host.process(1, "init", 10);
        host.link("proc/self/ns/net", "net:[10]");
        host.process(30, "zebra", 30);
        host.process(31, "ant", 31);
        host.process(32, "zebra", 30);
        let mut namespaces = Namespaces::new(&host.root());
        let all = namespaces.all();
        let names: Vec<_> = all.iter().map(|place| place.netns.name.as_deref().unwrap()).collect();
        assert_eq!(names, ["host", "ant (pid 31)", "zebra (pid 30)"]);
        assert_eq!(all[0].path, None, "dropwatch is there already");
        assert_eq!(all[2].path, Some(host.root().path("proc/30/ns/net")));
        assert_eq!(namespaces.place_of("host"), Ok(all[0].clone()));
        assert_eq!(namespaces.place_of("31"), Ok(all[1].clone()));
        assert!(namespaces.place_of("99").unwrap_err().contains("no way into"));
        assert!(namespaces.place_of("gw").unwrap_err().contains("there are host"));
    }

    #[test]
    fn commands_find_their_way_into_a_namespace() {
        let prefix = |path: Option<&str>| {
            let netns = Netns { name: None, inum: 1 };
            Place { netns, path: path.map(PathBuf::from) }.prefix()
        };
        assert_eq!(prefix(None), "");
        assert_eq!(prefix(Some("/run/netns/gw")), "ip netns exec gw ");
        assert_eq!(prefix(Some("/var/run/netns/gw")), "ip netns exec gw ");
        assert_eq!(prefix(Some("/proc/812/ns/net")), "nsenter -t 812 -n ");
        assert_eq!(prefix(Some("/run/docker/netns/8f")), "nsenter --net=/run/docker/netns/8f ");
        assert_eq!(prefix(Some("/run/netns/a;b")), "nsenter --net='/run/netns/a;b' ");
    }
}
