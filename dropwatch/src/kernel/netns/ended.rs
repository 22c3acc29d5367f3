//! The proof that a namespace has ended.
//!
//! A namespace lives as long as a process is in it, something keeps its file mounted, or a descriptor
//! of it is open. The first two are looked at, of every process and in every mount namespace: a name
//! of `ip netns` in another container keeps one alive, too.

use std::{
    collections::HashSet,
    io::{self, Read},
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
    /// Whether it is proved that the namespace `inum` has ended. Nothing is proved where part of
    /// the machine is hidden: in a container, or without `CAP_SYS_PTRACE`.
    ///
    /// Looks at every process, which takes some ten microseconds each. So ask it only about a
    /// namespace in which packets were dropped and which cannot be found.
    pub fn has_ended(&mut self, inum: u32) -> bool {
        if !self.all_processes {
            return false;
        }
        let mounted = self.mounted(inum).map(|mounted| mounted.path.clone());
        let is_there =
            |path: PathBuf| path.metadata().is_ok_and(|file| file.ino() == u64::from(inum));
        !mounted.is_some_and(is_there) && self.nobody_keeps(inum) == Some(true)
    }

    /// `None` where a process cannot be looked at.
    fn nobody_keeps(&self, inum: u32) -> Option<bool> {
        let mut seen = HashSet::new();
        for pid in processes::pids(&self.root) {
            match of_process(&self.root, &pid.to_string()) {
                Ok(lives) if lives == inum => return Some(false),
                Ok(_) => {}
                // Some hardened kernels hide those of PID 1 even from root.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    if !self.is_in_ours(pid) {
                        return None;
                    }
                }
                Err(_) => continue, // gone
            }
            let mounts = read_link(&self.root.path(format!("proc/{pid}/ns/mnt")), "mnt");
            let is_new = mounts.ok().flatten().is_none_or(|mounts| seen.insert(mounts));
            if seen.len() > MAX_MOUNT_NAMESPACES {
                return None;
            }
            if is_new && self.is_mounted_for(pid, inum) {
                return Some(false);
            }
        }
        Some(true)
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

    /// Whether the process `pid` has the namespace's file mounted: `/proc/PID/mountinfo` calls it
    /// `net:[4026532123]` (proc_pid_mountinfo(5), the fourth field).
    fn is_mounted_for(&self, pid: u32, inum: u32) -> bool {
        let Ok(file) = self.root.open(format!("proc/{pid}/mountinfo")) else { return false };
        let file_of = format!("net:[{inum}]");
        let mut found = false;
        let each = |line: &[u8]| {
            let root = line.split(|byte| *byte == b' ').nth(3);
            found |= root == Some(file_of.as_bytes());
        };
        let _unreadable = for_each_line(file.take(MAX_MOUNTS), MAX_LINE, each);
        found
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
    }
}
