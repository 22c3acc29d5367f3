//! Names of real namespaces, interfaces and sockets, with and without the capabilities that they
//! need.

use std::{
    fs,
    net::UdpSocket,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use caps::{CapSet, Capability, CapsHashSet};
use dropwatch::kernel::{HostRoot, Namespaces, Owners, Process};
use dropwatch_common::{self as common, NO_COOKIE};
use testbed::{link::veth, netns::Netns, unproved::unproved};

use crate::harness::wait_until;

/// `nobody`, on every distribution.
const USER: &str = "65534";
/// No state of the kernel takes longer to change.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `work` as root that holds exactly `capabilities`.
fn with<T: Send>(capabilities: &[Capability], work: impl FnOnce() -> T + Send) -> T {
    let set: CapsHashSet = capabilities.iter().copied().collect();
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            // Capabilities are a thread's.
            caps::set(None, CapSet::Effective, &set).unwrap();
            work()
        });
        inside.join().unwrap()
    })
}

/// A child process that ends with the test.
struct Resident(Child);

impl Resident {
    /// Starts `command`, which becomes `sleep`.
    fn start(command: &mut Command) -> Self {
        let child = Self(command.spawn().unwrap());
        wait_until(PATIENCE, "sleep runs", || child.comm() == "sleep\n");
        child
    }

    fn comm(&self) -> String {
        fs::read_to_string(format!("/proc/{}/comm", self.0.id())).unwrap()
    }

    fn process(&self) -> Process {
        let pid = self.0.id();
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let group = groups.lines().find_map(|line| line.strip_prefix("0::"));
        let cgroup = group.filter(|path| *path != "/").map(str::to_owned);
        Process { comm: "sleep".into(), pid, cgroup }
    }

    fn inum(&self) -> u32 {
        inum(Path::new(&format!("/proc/{}/ns/net", self.0.id())))
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Number of the namespace whose file is at `path`.
fn inum(path: &Path) -> u32 {
    path.metadata().unwrap().ino().try_into().unwrap()
}

fn inum_of(netns: &Netns) -> u32 {
    inum(&Path::new("/run/netns").join(netns.name()))
}

fn namespaces() -> Namespaces {
    Namespaces::new(&HostRoot::default())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn mounted_names_need_no_capability() {
    let netns = Netns::new("named").unwrap();
    let inum = inum_of(&netns);
    let name = with(&[], || namespaces().netns(inum));
    assert_eq!(name.as_deref(), Some(netns.name()));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_namespace_without_a_name_is_called_after_its_process() {
    let resident = Resident::start(Command::new("unshare").args(["--net", "sleep", "60"]));
    let inum = resident.inum();
    let name = with(&[Capability::CAP_SYS_PTRACE], || namespaces().netns(inum));
    assert_eq!(name, Some(resident.process().to_string()));

    let (name, notice) = with(&[], || {
        let mut namespaces = namespaces();
        (namespaces.netns(inum), namespaces.notice())
    });
    assert_eq!(name, None);
    assert!(notice.unwrap().contains("CAP_SYS_PTRACE"));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn interfaces_are_named_from_inside_or_from_tables() {
    let (near, far) = (Netns::new("near").unwrap(), Netns::new("far").unwrap());
    // No white space, '/' or ':', so the kernel takes it.
    let hostile = "a\x1b[2Jb";
    veth(&near, "eth0", &far, hostile).unwrap();
    near.ip("link set eth0 up").unwrap();
    let index = |netns: &Netns, link: &str| -> u32 {
        let shown = netns.ip(&format!("-o link show dev {link}")).unwrap();
        shown.split(':').next().unwrap().parse().unwrap()
    };
    let (near_inum, near_index) = (inum_of(&near), index(&near, "eth0"));
    let (far_inum, far_index) = (inum_of(&far), index(&far, hostile));

    let admin = [Capability::CAP_SYS_ADMIN];
    assert_eq!(
        with(&admin, || namespaces().interface(near_inum, near_index)).as_deref(),
        Some("eth0")
    );
    assert_eq!(
        with(&admin, || namespaces().interface(far_inum, far_index)).as_deref(),
        Some("a\u{fffd}[2Jb")
    );
    assert_eq!(with(&admin, || namespaces().interface(near_inum, 4000)), None);

    // Not to be entered: a process that lives there has tables that tell.
    let ptrace = [Capability::CAP_SYS_PTRACE];
    let from_tables = || with(&ptrace, || namespaces().interface(near_inum, near_index));
    assert_eq!(from_tables(), None, "nobody lives there");
    let _resident = Resident::start(near.command("sleep").arg("60"));
    assert_eq!(from_tables().as_deref(), Some("eth0"));
    assert_eq!(with(&[], || namespaces().interface(near_inum, near_index)), None);
}

/// Looking into a namespace must not keep it: its links go when it goes.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_namespace_that_was_looked_into_can_die() {
    let (near, far) = (Netns::new("stays").unwrap(), Netns::new("goes").unwrap());
    veth(&near, "eth0", &far, "peer0").unwrap();
    let inum = inum_of(&far);
    let mut namespaces = namespaces();
    let index =
        (1..100).find(|&index| namespaces.interface(inum, index).as_deref() == Some("peer0"));
    let index = index.expect("the far end");
    let name = far.name().to_owned();
    drop(far);
    wait_until(PATIENCE, "the near end goes with the far one", || {
        !near.ip("link show").unwrap().contains("eth0")
    });
    namespaces.begin_report();
    assert_eq!(namespaces.netns(inum), Some(name), "its last drops are still to be reported");
    assert_eq!(namespaces.interface(inum, index).as_deref(), Some("peer0"));
    namespaces.begin_report();
    assert_eq!((namespaces.netns(inum), namespaces.interface(inum, index)), (None, None));
}

/// What nobody asked for while a namespace was there is asked for when its last drops are reported.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn interfaces_of_a_namespace_that_has_ended_keep_the_names_that_were_seen() {
    let mut watching = namespaces();
    watching.watch_newcomers();
    let (near, far) = (Netns::new("stays").unwrap(), Netns::new("goes").unwrap());
    veth(&near, "eth0", &far, "peer0").unwrap();
    let inum = inum_of(&far);
    let mut looking = namespaces();
    let known = looking.having(inum);
    if known.cookie == NO_COOKIE {
        return unproved("this kernel has no cookies of network namespaces (SO_NETNS_COOKIE)");
    }
    let index = (1..100).find(|&index| looking.interface(inum, index).as_deref() == Some("peer0"));
    let index = index.expect("the far end");
    // Its interface came after its name; it is looked for again within half a second.
    thread::sleep(Duration::from_secs(1));
    drop(far);
    wait_until(PATIENCE, "the near end goes with the far one", || {
        !near.ip("link show").unwrap().contains("eth0")
    });
    for (by, namespaces) in [("a look", &mut looking), ("newcomers", &mut watching)] {
        let number = namespaces.number(known);
        for _ in 0..3 {
            namespaces.begin_report();
            let name = namespaces.interface(number, index);
            assert_eq!(name.as_deref(), Some("peer0"), "seen by {by}");
        }
        let later = namespaces.number(common::Netns { cookie: known.cookie + 1, ..known });
        assert_eq!(namespaces.interface(later, index), None, "another's, by {by}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn owners_of_sockets_need_two_capabilities() {
    let socket = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
    let inode = fs::File::from(socket.try_clone().unwrap()).metadata().unwrap().ino();
    let resident = Resident::start(
        Command::new("setpriv")
            .args(["--reuid", USER, "--regid", USER, "--clear-groups", "sleep", "60"])
            .stdin(Stdio::from(socket)),
    );
    let owner = |capabilities: &[Capability]| {
        with(capabilities, || {
            let mut owners = Owners::new(&HostRoot::default());
            (owners.owner(inode), owners.notice())
        })
    };
    let both = [Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];
    assert_eq!(owner(&both), (Some(resident.process()), None));
    for capabilities in [&both[..1], &both[1..], &[]] {
        let (found, notice) = owner(capabilities);
        assert_eq!(found, None, "{capabilities:?}");
        assert!(notice.unwrap().contains("CAP_DAC_READ_SEARCH"));
    }
}
