//! The proof that a namespace has ended, and the list that proves that one has begun since.
//!
//! A namespace lives as long as a process is in it, something keeps its file mounted, or a descriptor
//! of it is open. The first two are looked at, of every process and in every mount namespace: a name
//! of `ip netns` in another container keeps one alive, too. The last is not: it would be one look for
//! each descriptor of the machine.

use std::{
    collections::HashSet,
    io::{self, Read},
    ops::ControlFlow,
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use super::{Namespaces, of_process};
use crate::kernel::{
    lines::for_each_line,
    processes::{self, read_link},
};

/// Most mount namespaces looked into for one answer.
const MAX_MOUNT_NAMESPACES: usize = 1024;
/// Most bytes read of one list of mounts, and of a line of it: two paths, each up to `PATH_MAX`.
const MAX_MOUNTS: u64 = 16 << 20;
const MAX_LINE: usize = 3 * 4096;

impl Namespaces {
    /// Whether it is proved that the namespace with this number in the run has ended: another one has
    /// its inode number, or nothing leads there any more. The latter proves nothing where part of the
    /// machine is hidden: in a container, or without `CAP_SYS_PTRACE`.
    ///
    /// Looks at every process, which takes some ten microseconds each. So ask it only about a
    /// namespace in which packets were dropped and which cannot be found.
    pub fn has_ended(&mut self, number: u32) -> bool {
        if self.numbers.is_succeeded(number) {
            return true;
        }
        if !self.all_processes {
            return false;
        }
        let inum = self.inum(number);
        let mounted = self.mounted(inum).map(|mounted| mounted.path.clone());
        let is_there =
            |path: PathBuf| path.metadata().is_ok_and(|file| file.ino() == u64::from(inum));
        !mounted.is_some_and(is_there) && self.nobody_keeps(inum) == Some(true)
    }

    /// The inode numbers of all network namespaces of this machine; `None` where part of it is
    /// hidden, as for [`Namespaces::has_ended`].
    ///
    /// Looks at every process and at every mount namespace.
    pub fn listing(&mut self) -> Option<HashSet<u32>> {
        if !self.all_processes {
            return None;
        }
        let mut listing: HashSet<u32> = self.own.into_iter().chain(self.host).collect();
        let found = |inum| {
            listing.insert(inum);
            ControlFlow::Continue(())
        };
        self.each_kept(found).then_some(listing)
    }

    /// `None` where a process cannot be looked at.
    fn nobody_keeps(&self, inum: u32) -> Option<bool> {
        let mut is_kept = false;
        let complete = self.each_kept(|kept| {
            is_kept |= kept == inum;
            if is_kept { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if is_kept { Some(false) } else { complete.then_some(true) }
    }

    /// Calls `found` with the number of each namespace that a process lives in or that is mounted
    /// anywhere, until it breaks. Some come several times. Returns whether all could be looked at.
    fn each_kept(&self, mut found: impl FnMut(u32) -> ControlFlow<()>) -> bool {
        let mut seen = HashSet::new();
        let pids = processes::pids(&self.root);
        let all = pids.len() < processes::MAX_PROCESSES;
        for pid in pids {
            let lives = match of_process(&self.root, &pid.to_string()) {
                Ok(lives) => Some(lives),
                // Some hardened kernels hide those of PID 1 even from root.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    if !self.is_in_ours(pid) {
                        return false;
                    }
                    self.own
                }
                Err(_) => continue, // gone
            };
            if lives.is_some_and(|inum| found(inum).is_break()) {
                return true;
            }
            let mounts = read_link(&self.root.path(format!("proc/{pid}/ns/mnt")), "mnt");
            let is_new = mounts.ok().flatten().is_none_or(|mounts| seen.insert(mounts));
            if seen.len() > MAX_MOUNT_NAMESPACES {
                return false;
            }
            if !is_new {
                continue;
            }
            match self.each_mounted(pid, &mut found) {
                Ok(flow) if flow.is_break() => return true,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return false,
                Ok(_) | Err(_) => {} // the process is gone
            }
        }
        all
    }

    /// Whether the process `pid` is in dropwatch's own namespace, as far as everyone may know: each
    /// has files of its own below `/proc/PID/net`, and no two files of `/proc` have one inode number
    /// (`proc_alloc_inum`, fs/proc/generic.c).
    fn is_in_ours(&self, pid: u32) -> bool {
        let file = |process: &str| {
            self.root.path(format!("proc/{process}/net/dev")).metadata().map(|file| file.ino()).ok()
        };
        file(&pid.to_string()).is_some_and(|theirs| file("self") == Some(theirs))
    }

    /// Calls `found` with the number of each namespace whose file the process `pid` has mounted:
    /// `/proc/PID/mountinfo` calls it `net:[4026532123]` (proc_pid_mountinfo(5), the fourth field).
    fn each_mounted(
        &self,
        pid: u32,
        found: &mut impl FnMut(u32) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        let file = self.root.open(format!("proc/{pid}/mountinfo"))?;
        let mut flow = ControlFlow::Continue(());
        let each = |line: &[u8]| {
            let root = line.split(|byte| *byte == b' ').nth(3);
            let inum = root.and_then(|root| root.strip_prefix(b"net:[")?.strip_suffix(b"]"));
            let inum = inum.and_then(|inum| std::str::from_utf8(inum).ok()?.parse().ok());
            if let (Some(inum), true) = (inum, flow.is_continue()) {
                flow = found(inum);
            }
        };
        for_each_line(file.take(MAX_MOUNTS), MAX_LINE, each)?;
        Ok(flow)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::super::processes::fixture::FakeHost, *};

    fn host(pid_namespace: &str) -> FakeHost {
        let host = FakeHost::new();
        host.process(1, "init", 10);
        host.process(30, "web", 30);
        host.link("proc/1/ns/pid", format!("pid:[{pid_namespace}]"));
        host.link("proc/1/ns/mnt", "mnt:[5]");
        host.link("proc/30/ns/mnt", "mnt:[6]");
        host
    }

    #[test]
    fn a_namespace_has_ended_when_nothing_of_the_machine_leads_there() {
        let host = host("4026531836");
        let mut namespaces = Namespaces::new(&host.root());
        assert!(!namespaces.has_ended(30));
        assert!(namespaces.has_ended(31));
        host.remove("proc/30");
        assert!(namespaces.has_ended(30));
    }

    #[test]
    fn a_name_in_another_mount_namespace_keeps_it() {
        let host = host("4026531836");
        let mount = "90 84 0:4 net:[31] /run/netns/inner rw shared:7 - nsfs nsfs rw\n";
        host.write("proc/30/mountinfo", mount);
        let mut namespaces = Namespaces::new(&host.root());
        assert!(!namespaces.has_ended(31));
        assert!(namespaces.has_ended(3), "part of a number is another number");
    }

    #[test]
    fn a_container_proves_nothing_about_what_is_outside() {
        let host = host("4026532246");
        assert!(!Namespaces::new(&host.root()).has_ended(31));
        assert_eq!(Namespaces::new(&host.root()).listing(), None);
    }

    #[test]
    fn all_namespaces_are_listed_of_processes_and_of_mounts() {
        let host = host("4026531836");
        let mount = "90 84 0:4 net:[31] /run/netns/inner rw shared:7 - nsfs nsfs rw\n\
                     91 84 0:4 mnt:[32] /run/mounts/inner rw - nsfs nsfs rw\n\
                     92 84 0:4 net:[33] /run/netns/other rw - nsfs nsfs rw\n";
        host.write("proc/30/mountinfo", mount);
        let listing = Namespaces::new(&host.root()).listing();
        assert_eq!(listing, Some([10, 30, 31, 33].into()));
    }
}
