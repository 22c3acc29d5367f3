//! Processes of a host, as far as names need them: numbers, command names, and the links below
//! `/proc/PID` that name what a process holds.

use std::{
    fmt,
    io::{self, Read},
    path::Path,
};

use super::{HostRoot, clean, lines::for_each_line};
use crate::report::cgroup::unit;

/// Most processes looked at in one pass.
pub(super) const MAX_PROCESSES: usize = 64 << 10;
/// Most bytes read of `/proc/PID/cgroup`, and of a line there: a path ends at `PATH_MAX`, and
/// version 1 has a dozen hierarchies.
const MAX_CGROUP: u64 = 64 << 10;
const MAX_LINE: usize = 4096 + 64;

/// A process by number and by the name it gave itself, cleaned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub comm: String,
    pub pid: u32,
    /// Path of its control group, cleaned; `None` in the root, where everything is that nobody
    /// put elsewhere.
    pub cgroup: Option<String>,
}

/// `nginx (pid 812)`, and the container or service that it belongs to, where there is one.
impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.comm, self.pid)?;
        match self.cgroup.as_deref().and_then(unit) {
            Some(unit) => write!(f, " in {unit}"),
            None => Ok(()),
        }
    }
}

impl Process {
    /// The process `pid` as it is now; `None` where it is gone. `/proc/PID/comm` and
    /// `/proc/PID/cgroup` are open to everyone.
    pub(super) fn read(root: &HostRoot, pid: u32) -> Option<Self> {
        let comm = root.read_word(format!("proc/{pid}/comm")).ok()?;
        Some(Self { comm, pid, cgroup: cgroup(root, pid) })
    }
}

/// Path of a process's control group: in the unified hierarchy, else in systemd's own of version 1
/// (`proc_cgroup_show()`, kernel/cgroup/cgroup.c: `0::/path`, `1:name=systemd:/path`).
fn cgroup(root: &HostRoot, pid: u32) -> Option<String> {
    let file = root.open(format!("proc/{pid}/cgroup")).ok()?;
    let (mut unified, mut systemd) = (None, None);
    let each = |line: &[u8]| {
        let line = clean(&String::from_utf8_lossy(line));
        let parts: Vec<&str> = line.splitn(3, ':').collect();
        match parts.as_slice() {
            ["0", "", path] => unified = Some((*path).to_owned()),
            [_, "name=systemd", path] => systemd = Some((*path).to_owned()),
            _ => {}
        }
    };
    for_each_line(file.take(MAX_CGROUP), MAX_LINE, each).ok()?;
    [unified, systemd].into_iter().flatten().find(|path| path != "/")
}

/// Numbers of the running processes, ascending; empty where there is no `/proc`.
pub(super) fn pids(root: &HostRoot) -> Vec<u32> {
    let Ok(entries) = root.path("proc").read_dir() else { return Vec::new() };
    let mut pids: Vec<u32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .take(MAX_PROCESSES)
        .collect();
    pids.sort_unstable();
    pids
}

/// The number in a link such as `net:[4026531840]` or `socket:[1234]`; `None` where the link is to
/// something else than a `kind`.
pub(super) fn read_link(path: &Path, kind: &str) -> io::Result<Option<u64>> {
    let target = path.read_link()?;
    Ok(target.to_str().and_then(|target| {
        target.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok()
    }))
}

#[cfg(test)]
pub(crate) mod fixture {
    //! A folder that looks like a host's `/proc`.

    use std::{
        fs,
        os::unix::fs::symlink,
        path::{Path, PathBuf},
        sync::atomic::{AtomicU32, Ordering},
    };

    use super::HostRoot;

    /// A host of files that is removed when dropped.
    pub(crate) struct FakeHost(PathBuf);

    impl FakeHost {
        pub(crate) fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("dropwatch-host-{}-{n}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(path.join("proc")).unwrap();
            Self(path)
        }

        pub(crate) fn root(&self) -> HostRoot {
            HostRoot::new(&self.0)
        }

        pub(crate) fn write(&self, path: &str, content: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        pub(crate) fn link(&self, path: &str, target: impl AsRef<Path>) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, path).unwrap();
        }

        pub(crate) fn remove(&self, path: &str) {
            let path = self.0.join(path);
            if path.is_symlink() || path.is_file() {
                fs::remove_file(path).unwrap();
            } else {
                fs::remove_dir_all(path).unwrap();
            }
        }

        /// A process that lives in the network namespace `netns`.
        pub(crate) fn process(&self, pid: u32, comm: &str, netns: u32) {
            self.write(&format!("proc/{pid}/comm"), &format!("{comm}\n"));
            self.link(&format!("proc/{pid}/ns/net"), format!("net:[{netns}]"));
        }
    }

    impl Drop for FakeHost {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{fixture::FakeHost, *};

    #[test]
    fn processes_are_told_from_other_files() {
        let host = FakeHost::new();
        host.process(20, "web", 1);
        host.process(3, "a\x1b[2J", 1);
        host.write("proc/net", "");
        host.write("proc/20x/comm", "no");
        assert_eq!(pids(&host.root()), [3, 20]);
        let shown = |pid| Process::read(&host.root(), pid).map(|process| process.to_string());
        assert_eq!(shown(20).as_deref(), Some("web (pid 20)"));
        assert_eq!(shown(3).as_deref(), Some("a\u{fffd}[2J (pid 3)"));
        assert_eq!(shown(4), None);
    }

    #[test]
    fn a_process_is_named_with_its_container() {
        let host = FakeHost::new();
        let id = "8f3ab1c2d4e5f60718293a4b5c6d7e8f8f3ab1c2d4e5f60718293a4b5c6d7e8f";
        host.process(20, "web", 1);
        host.write("proc/20/cgroup", &format!("0::/system.slice/docker-{id}.scope\n"));
        let process = Process::read(&host.root(), 20).unwrap();
        assert_eq!(process.to_string(), "web (pid 20) in docker-8f3ab1c2d4e5");
        let group = |text: &str| {
            host.write("proc/20/cgroup", text);
            cgroup(&host.root(), 20)
        };
        assert_eq!(group("2:cpu:/a\n1:name=systemd:/b\n0::/\n").as_deref(), Some("/b"));
        assert_eq!(group("1:name=systemd:/b\n0::/c:/d\n").as_deref(), Some("/c:/d"));
        assert_eq!(group("0::/\n"), None);
        assert_eq!(group("odd"), None);
    }

    #[test]
    fn links_are_read_by_kind() {
        let host = FakeHost::new();
        for (name, target) in [("a", "net:[7]"), ("b", "socket:[7]"), ("c", "net:[x]")] {
            host.link(name, target);
        }
        let read = |name: &str| read_link(&host.root().path(name), "net");
        assert_eq!(read("a").unwrap(), Some(7));
        assert_eq!(read("b").unwrap(), None);
        assert_eq!(read("c").unwrap(), None);
        assert!(read("d").is_err());
    }
}
