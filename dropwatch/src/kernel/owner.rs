//! Which process holds a socket, by the socket's inode number.
//!
//! The kernel shows it only through the links in `/proc/PID/fd`. Reading them needs `CAP_SYS_PTRACE`
//! for a process that holds capabilities or belongs to another user, and `CAP_DAC_READ_SEARCH` to
//! list the folders of other users (`proc_fd_permission`, fs/proc/fd.c). All processes are looked
//! at once a report at most, for all sockets that were asked about.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::PathBuf,
};

use super::{
    HostRoot,
    processes::{self, Process},
};

/// Most descriptors looked at in one pass; each costs about a microsecond.
const MAX_DESCRIPTORS: usize = 256 << 10;
/// Most sockets remembered.
const MAX_SOCKETS: usize = 4096;

/// Owners of sockets, as they are asked for.
pub struct Owners {
    root: HostRoot,
    known: HashMap<u64, KnownSocket>,
    /// Whether all processes were looked at in this report.
    searched: bool,
    /// Processes whose descriptors could not be read in the last pass.
    hidden: usize,
    /// Whether an owner was not found while some processes were hidden.
    missed: bool,
    /// Most descriptors looked at in one pass.
    most: usize,
}

/// What is known of one socket.
struct KnownSocket {
    /// `None` where no process was found: it is gone, or hidden.
    holder: Option<Holder>,
    /// Looked at in this report.
    fresh: bool,
}

/// A process, and the link that proves that it holds a socket.
struct Holder {
    process: Process,
    link: PathBuf,
}

impl Owners {
    /// Opens nothing yet.
    pub fn new(root: &HostRoot) -> Self {
        Self::looking_at(root, MAX_DESCRIPTORS)
    }

    /// Looks at no more than `most` descriptors in one pass.
    pub(super) fn looking_at(root: &HostRoot, most: usize) -> Self {
        Self {
            root: root.clone(),
            known: HashMap::new(),
            searched: false,
            hidden: 0,
            missed: false,
            most,
        }
    }

    /// Begins a report: call it before the first owner of the report is asked for. Forgets sockets
    /// that nothing asked about in the last one.
    pub fn begin_report(&mut self) {
        self.known.retain(|_, known| std::mem::take(&mut known.fresh));
        (self.searched, self.missed) = (false, false);
    }

    /// Looks for the owners of all `inodes` together, which takes one pass over the processes;
    /// [`Owners::owner`] then returns each.
    pub fn find(&mut self, inodes: impl IntoIterator<Item = u64>) {
        let mut sought = HashSet::new();
        let room = MAX_SOCKETS.saturating_sub(self.known.len());
        for inode in inodes {
            match self.known.get_mut(&inode) {
                Some(known) => {
                    if !known.fresh && known.holder.as_ref().is_some_and(|it| !it.holds(inode)) {
                        sought.insert(inode); // closed there, perhaps open elsewhere
                    }
                    known.fresh = true;
                }
                None if sought.len() < room => {
                    sought.insert(inode);
                }
                None => {}
            }
        }
        if sought.is_empty() || std::mem::replace(&mut self.searched, true) {
            return;
        }
        let found = self.search(sought.clone());
        self.missed |= self.hidden > 0 && found.len() < sought.len();
        for inode in sought {
            self.known.entry(inode).or_insert(KnownSocket { holder: None, fresh: true });
        }
        for (inode, holder) in found {
            self.known.insert(inode, KnownSocket { holder: Some(holder), fresh: true });
        }
    }

    /// The process that holds the socket `inode`, or held it when last seen. `None` where none was
    /// found, and where the pass of this report is over and did not look for it.
    pub fn owner(&mut self, inode: u64) -> Option<Process> {
        self.find([inode]);
        Some(self.known.get(&inode)?.holder.as_ref()?.process.clone())
    }

    /// What this report could not say for lack of a capability, why, and the way out.
    pub fn notice(&self) -> Option<String> {
        self.missed.then(|| {
            format!(
                "the processes behind some sockets are not known ({} processes hide theirs): run \
                 as root, with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
                self.hidden
            )
        })
    }

    /// Looks at the descriptors of all processes until every socket in `sought` is found.
    fn search(&mut self, mut sought: HashSet<u64>) -> Vec<(u64, Holder)> {
        let (mut found, mut left) = (Vec::new(), self.most);
        self.hidden = 0;
        let mut pids = processes::pids(&self.root);
        // PID 1 comes last, since systemd also holds the sockets that it opened for its services.
        pids.sort_by_key(|&pid| pid == 1);
        for pid in pids {
            if sought.is_empty() || left == 0 {
                break;
            }
            if let Err(error) = self.search_process(pid, &mut sought, &mut left, &mut found) {
                self.hidden += usize::from(error.kind() == io::ErrorKind::PermissionDenied);
            }
        }
        found
    }

    fn search_process(
        &self,
        pid: u32,
        sought: &mut HashSet<u64>,
        left: &mut usize,
        found: &mut Vec<(u64, Holder)>,
    ) -> io::Result<()> {
        for entry in self.root.path(format!("proc/{pid}/fd")).read_dir()? {
            let Some(rest) = left.checked_sub(1) else { break };
            *left = rest;
            let link = entry?.path();
            let inode = match processes::read_link(&link, "socket") {
                Ok(inode) => inode,
                // One descriptor that may not be read means that none of this process may.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
                Err(_) => continue, // closed meanwhile
            };
            if let Some(inode) = inode.filter(|inode| sought.remove(inode))
                && let Some(process) = Process::read(&self.root, pid)
            {
                found.push((inode, Holder { process, link }));
            }
        }
        Ok(())
    }
}

impl Holder {
    fn holds(&self, inode: u64) -> bool {
        processes::read_link(&self.link, "socket").is_ok_and(|found| found == Some(inode))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::processes::fixture::FakeHost, *};

    fn owner(owners: &mut Owners, inode: u64) -> Option<String> {
        owners.owner(inode).map(|process| process.to_string())
    }

    #[test]
    fn a_socket_is_found_among_other_descriptors() {
        let host = FakeHost::new();
        host.process(80, "nginx", 1);
        host.link("proc/80/fd/0", "/dev/null");
        host.link("proc/80/fd/1", "pipe:[55]");
        host.link("proc/80/fd/2", "socket:[55]");
        let mut owners = Owners::new(&host.root());
        owners.find([55, 56]);
        assert_eq!(owner(&mut owners, 55).as_deref(), Some("nginx (pid 80)"));
        assert_eq!(owner(&mut owners, 56), None);
        assert_eq!(owners.notice(), None, "nothing was hidden");
    }

    #[test]
    fn one_pass_a_report() {
        let host = FakeHost::new();
        let mut owners = Owners::new(&host.root());
        assert_eq!(owner(&mut owners, 55), None);
        host.process(80, "nginx", 1);
        host.link("proc/80/fd/3", "socket:[56]");
        assert_eq!(owner(&mut owners, 56), None, "the pass is over");
        owners.begin_report();
        assert_eq!(owner(&mut owners, 56).as_deref(), Some("nginx (pid 80)"));
    }

    #[test]
    fn the_service_is_named_rather_than_systemd() {
        let host = FakeHost::new();
        for (pid, comm) in [(1, "systemd"), (80, "sshd")] {
            host.process(pid, comm, 1);
            host.link(&format!("proc/{pid}/fd/3"), "socket:[55]");
        }
        assert_eq!(owner(&mut Owners::new(&host.root()), 55).as_deref(), Some("sshd (pid 80)"));
    }

    #[test]
    fn an_owner_that_hands_its_socket_on_is_followed() {
        let host = FakeHost::new();
        host.process(80, "old", 1);
        host.link("proc/80/fd/3", "socket:[55]");
        let mut owners = Owners::new(&host.root());
        assert_eq!(owner(&mut owners, 55).as_deref(), Some("old (pid 80)"));
        host.remove("proc/80/fd/3");
        host.process(81, "new", 1);
        host.link("proc/81/fd/9", "socket:[55]");
        owners.begin_report();
        assert_eq!(owner(&mut owners, 55).as_deref(), Some("new (pid 81)"));
        host.remove("proc/81");
        owners.begin_report();
        assert_eq!(owner(&mut owners, 55).as_deref(), Some("new (pid 81)"), "it was the last");
    }

    #[test]
    fn sockets_that_nothing_asks_about_are_forgotten() {
        let host = FakeHost::new();
        let mut owners = Owners::new(&host.root());
        owners.find(0..2 * MAX_SOCKETS as u64);
        assert_eq!(owners.known.len(), MAX_SOCKETS);
        owners.begin_report();
        assert_eq!(owner(&mut owners, 7), None);
        owners.begin_report();
        assert_eq!(owners.known.len(), 1);
    }
}
