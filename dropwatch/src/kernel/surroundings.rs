//! What of the machine can be seen from where dropwatch runs.
//!
//! The kernel side counts the drops of the whole machine, wherever it was loaded from. Names and
//! evidence come from `/proc` and from mounted files, and a container has its own of these. What is
//! there is asked of the kernel, never guessed from environment variables or control groups.

use std::os::unix::fs::MetadataExt;

use super::{HostRoot, processes::read_link};

/// Inode number of the machine's first PID namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h;
/// the same on every kernel, and part of the user interface since 6.18: `PID_NS_INIT_INO`,
/// include/uapi/linux/nsfs.h).
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
/// A setting that the machine's first network namespace has, and no other: CPUs belong to none
/// (`net_core_table`, net/core/sysctl_net_core.c, is registered for `init_net` alone). The folder is
/// that of the calling thread's network namespace.
const FIRST_NETNS_ALONE: &str = "proc/sys/net/core/netdev_max_backlog";
/// Where `ip netns` keeps names.
const NAMES: &str = "run/netns";

/// What of the machine can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// Whether `/proc` shows every process of the machine; `None` where that cannot be found out.
    pub all_processes: Option<bool>,
    /// Whether the calling thread is in the machine's first network namespace.
    pub first_netns: bool,
    /// Whether the names of `ip netns` are those that PID 1 has; `None` where that cannot be found out.
    pub names_of_host: Option<bool>,
}

impl Surroundings {
    pub fn look(root: &HostRoot) -> Self {
        Self {
            all_processes: sees_all_processes(root),
            first_netns: in_first_netns(root),
            names_of_host: sees_names_of_host(root),
        }
    }

    /// Whether this is a container, as far as that matters here: processes of the machine are
    /// hidden.
    pub fn is_container(&self) -> bool {
        self.all_processes == Some(false)
    }

    /// One sentence for each thing that is out of sight: what, what it costs, the way out. Empty
    /// where nothing is.
    pub fn notices(&self) -> Vec<String> {
        let mut notices = Vec::new();
        if self.is_container() {
            let own = match self.first_netns {
                true => "the host's own network namespace, which this container shares",
                false => "its own network namespace",
            };
            notices.push(format!(
                "this is a container with a PID namespace of its own: drops of the whole machine \
                 are counted, but processes are those of this container; names and findings are \
                 those of {own}, and of what has a name in its /run/netns; other network \
                 namespaces are shown as numbers: run on the host, or with its PID namespace \
                 (--pid=host, hostPID)"
            ));
        } else if self.names_of_host == Some(false) {
            notices.push(
                "the names of `ip netns` are not those of the host, since /run is another one \
                 here: network namespaces are shown by their processes: mount the host's \
                 /run/netns"
                    .to_owned(),
            );
        }
        notices
    }
}

/// Whether the calling thread is in the machine's first network namespace.
pub(super) fn in_first_netns(root: &HostRoot) -> bool {
    root.path(FIRST_NETNS_ALONE).exists()
}

/// Whether `/proc` was mounted in the machine's first PID namespace: then PID 1 of it is there.
/// Where PID 1 hides its namespaces (no `CAP_SYS_PTRACE`): a process that is in the first one can
/// only be shown by a `/proc` that shows all.
fn sees_all_processes(root: &HostRoot) -> Option<bool> {
    let of = |process: &str| {
        let link = read_link(&root.path(format!("proc/{process}/ns/pid")), "pid");
        link.ok().flatten().map(|inum| inum == FIRST_PID_NAMESPACE)
    };
    of("1").or_else(|| of("self").filter(|is_first| *is_first || numbers(root) == Some(1)))
}

/// How many numbers this process has, counted from the PID namespace of `/proc` inwards
/// (proc_pid_status(5)): one where `/proc` is that of its own.
fn numbers(root: &HostRoot) -> Option<usize> {
    let status = root.read_word("proc/self/status").ok()?;
    let (_, rest) = status.split_once("NSpid:")?;
    let (line, _) = rest.split_once("NSpgid:")?;
    Some(line.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty()).count())
}

/// Whether the folder of names is the one that PID 1 sees, if that has one.
fn sees_names_of_host(root: &HostRoot) -> Option<bool> {
    let identity = |path: String| {
        root.path(path).metadata().map(|folder| (folder.dev(), folder.ino())).map_err(|e| e.kind())
    };
    match (identity(format!("proc/1/root/{NAMES}")), identity(NAMES.to_owned())) {
        (Ok(theirs), ours) => Some(ours == Ok(theirs)),
        (Err(_), _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::processes::fixture::FakeHost, *};

    #[test]
    fn a_host_that_shows_everything_needs_no_word() {
        let host = FakeHost::new();
        host.link("proc/1/ns/pid", "pid:[4026531836]");
        host.write("proc/sys/net/core/netdev_max_backlog", "1000");
        let all = Surroundings::look(&host.root());
        assert_eq!((all.all_processes, all.first_netns), (Some(true), true));
        assert_eq!(all.notices(), [""; 0]);
    }

    #[test]
    fn a_container_says_what_it_does_not_see() {
        let host = FakeHost::new();
        host.link("proc/1/ns/pid", "pid:[4026532246]");
        let container = Surroundings::look(&host.root());
        assert!(container.is_container() && !container.first_netns);
        let [notice] = &container.notices()[..] else { panic!("{container:?}") };
        assert!(notice.contains("drops of the whole machine are counted"), "{notice}");
        host.write("proc/sys/net/core/netdev_max_backlog", "1000");
        let [shared] = &Surroundings::look(&host.root()).notices()[..] else { panic!() };
        assert!(shared.contains("which this container shares"), "{shared}");
    }

    #[test]
    fn where_pid_1_hides_its_namespaces_ones_own_tell() {
        let look = |pid_namespace: &str, numbers: &str| {
            let host = FakeHost::new();
            host.link("proc/self/ns/pid", format!("pid:[{pid_namespace}]"));
            host.write("proc/self/status", &format!("Name:\tx\nNSpid:\t{numbers}\nNSpgid:\t1\n"));
            Surroundings::look(&host.root()).all_processes
        };
        assert_eq!(look("4026531836", "812"), Some(true));
        assert_eq!(look("4026532246", "7"), Some(false));
        assert_eq!(look("4026532246", "812\t7"), None, "/proc is that of a namespace outside");
        assert_eq!(Surroundings::look(&FakeHost::new().root()).all_processes, None);
    }

    #[test]
    fn names_in_another_folder_are_not_the_hosts() {
        let host = FakeHost::new();
        host.link("proc/1/ns/pid", "pid:[4026531836]");
        host.write("proc/1/root/run/netns/gw", "");
        let look = || Surroundings::look(&host.root());
        assert_eq!(look().names_of_host, Some(false), "there is none here");
        host.write("run/netns/web", "");
        assert_eq!(look().names_of_host, Some(false));
        assert!(look().notices()[0].contains("mount the host's"), "{:?}", look());
    }
}
