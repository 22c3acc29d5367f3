//! Names of network namespaces and of the interfaces in them.
//!
//! A namespace has no name of its own, only the inode number of its file in nsfs. It is called
//! after, in this order: the host, if it is proved to be the machine's first; the container that
//! dropwatch runs in, if it is that one's; the file that `ip netns` or a container runtime keeps it
//! mounted at; a process that lives there. What has none of these has no name.
//!
//! | looked up | needs |
//! |---|---|
//! | mounted names, interfaces of dropwatch's own namespace | nothing |
//! | a process that lives there (`/proc/PID/ns/net`) | `CAP_SYS_PTRACE` |
//! | interfaces of another namespace, by entering it | `CAP_SYS_ADMIN`, and a mounted name or `CAP_SYS_PTRACE` to find it |
//! | interfaces of another namespace, from a process's tables, without those that have no address | `CAP_SYS_PTRACE` |
//!
//! Being root stands in for none of these: the kernel compares capabilities where a process holds
//! any (`__ptrace_may_access`, kernel/ptrace.c; `cap_ptrace_access_check`, security/commoncap.c).
//!
//! Nothing stays open between calls: a descriptor would keep a dying namespace alive. Inode numbers are
//! given again once a namespace is gone, so a name is that of a namespace only where its cookie was read
//! there. Where the kernel has no cookies, no name outlives the report after the one that last proved
//! it.

mod devices;
mod ended;
mod find;
mod folders;
mod mounted;
mod newcomers;
mod numbers;
pub(super) mod passing;
mod reachable;

use std::{
    collections::{HashMap, HashSet},
    io,
};

use dropwatch_common::{self as common, NO_COOKIE};

use self::{
    devices::Devices,
    mounted::{Mounted, mounted},
    newcomers::{Named, Newcomers},
    numbers::Numbers,
};
pub use self::{
    find::{NetnsFile, Unfound, netns_file, netns_named, short_name},
    reachable::{Interfaces, ReachableNetns},
};
use super::{
    HostRoot, Surroundings, inside, interfaces, links,
    processes::{self, Process},
};
use crate::report::facts::Netns;

/// Most names, of namespaces and of interfaces, looked up in one report.
const MAX_NAMES: usize = 4096;
/// Most names that are remembered of a run's namespaces, those that have ended among them.
const MAX_PROVED: usize = 4096;
/// Reports after which a namespace without any process is looked for again: a pass takes some ten
/// microseconds a process.
const VAIN_REPORTS: u8 = 12;
/// Name of the namespace that the host itself lives in.
const HOST: &str = "host";
/// Name of the namespace of the container's first process, where that hides the host.
const CONTAINER: &str = "this container";

/// The network namespaces of a host.
pub struct Namespaces {
    root: HostRoot,
    /// The namespace of dropwatch itself.
    own: Option<u32>,
    /// The machine's first namespace, where it can be found.
    host: Option<u32>,
    /// Where `/proc` hides the host, the namespace of the container's PID 1, unless it is the
    /// host's.
    container: Option<u32>,
    /// Whether `/proc` shows every process of the machine.
    all_processes: bool,
    /// dropwatch's own number, as `/proc` counts.
    own_pid: Option<u32>,
    /// A process found in each; may have moved or gone since.
    residents: HashMap<u32, u32>,
    /// Namespaces in which none was found, with the reports until the next attempt.
    vain: HashMap<u32, u8>,
    /// Processes whose namespace could not be read in the last pass.
    hidden: usize,
    /// Whether a name was not found while some were hidden.
    missed: bool,
    now: LookedUp,
    before: Proved,
    numbers: Numbers,
    /// Names of namespaces whose cookie was read where the name leads, by number in the run.
    proved: HashMap<u32, String>,
    /// Names of interfaces that were read together with the cookie.
    devices: Devices,
    /// `None` as long as nobody watches.
    newcomers: Option<Newcomers>,
}

/// What was looked up in this report.
#[derive(Default)]
struct LookedUp {
    mounted: Option<HashMap<u32, Mounted>>,
    /// Whether all processes were looked at.
    searched: bool,
    /// Inode numbers whose namespace was looked into, or cannot be.
    entered: HashSet<u32>,
    proved: Proved,
    /// Namespaces that were looked for in vain, or found in the report before.
    unproved: Proved,
}

/// Names by number of the namespace in the run, and by that and interface index.
#[derive(Default)]
struct Proved {
    netns: HashMap<u32, Option<String>>,
    interfaces: HashMap<(u32, u32), Option<String>>,
}

impl Namespaces {
    /// Reads which namespaces are the host's and dropwatch's own, and the mounted names.
    ///
    /// Never fails; to be called while capabilities are still there, since that of PID 1 is read
    /// here alone.
    pub fn new(root: &HostRoot) -> Self {
        let own = of_process(root, "self").ok();
        let surroundings = Surroundings::look(root);
        let first = of_process(root, "1").ok();
        let host = reachable::host(root, own, first, &surroundings);
        let own_pid = root.path("proc/self").read_link().ok();
        let mut namespaces = Self {
            root: root.clone(),
            own,
            host,
            container: first.filter(|first| surroundings.is_container() && host != Some(*first)),
            all_processes: surroundings.all_processes == Some(true),
            own_pid: own_pid.and_then(|link| link.to_str()?.parse().ok()),
            residents: HashMap::new(),
            vain: HashMap::new(),
            hidden: 0,
            missed: false,
            now: LookedUp::default(),
            before: Proved::default(),
            numbers: Numbers::default(),
            proved: HashMap::new(),
            devices: Devices::default(),
            newcomers: None,
        };
        namespaces.now.mounted = Some(mounted(root));
        namespaces
    }

    /// Has the names of short-lived namespaces known, too, from now on. To be called with the
    /// capabilities that entering one takes.
    pub fn watch_newcomers(&mut self) {
        self.newcomers = Newcomers::watch(&self.root);
    }

    fn meet_newcomers(&mut self) {
        let named = self.newcomers.as_ref().map(Newcomers::take).unwrap_or_default();
        for Named { netns, name, devices } in named {
            let number = self.numbers.of(netns);
            self.prove(number, &name);
            self.devices.keep(number, devices);
        }
    }

    fn prove(&mut self, number: u32, name: &str) {
        if self.proved.len() < MAX_PROVED || self.proved.contains_key(&number) {
            self.proved.insert(number, name.to_owned());
        }
    }

    /// Begins a report: what was found before is proved anew. Folders and processes are looked at
    /// once each, and only if a name is asked for.
    pub fn begin_report(&mut self) {
        let last = std::mem::take(&mut self.now);
        self.before = last.proved;
        for (inum, Mounted { name, .. }) in last.mounted.unwrap_or_default() {
            self.before.netns.entry(self.numbers.bearer(inum)).or_insert(Some(name));
        }
        self.missed = false;
        self.vain.retain(|_, reports| {
            *reports -= 1;
            *reports > 0
        });
    }

    /// What a namespace whose packet was dropped is called in this run.
    pub fn number(&mut self, netns: common::Netns) -> u32 {
        self.numbers.of(netns)
    }

    /// The number in this run of the namespace that has this inode number now.
    pub fn look_up(&mut self, inum: u32) -> u32 {
        self.look_into(inum);
        self.numbers.bearer(inum)
    }

    /// The namespace that has this inode number now, with its cookie where that can be read.
    pub fn having(&mut self, inum: u32) -> common::Netns {
        let number = self.look_up(inum);
        let cookie = self.known(number).cookie;
        common::Netns { inum, cookie }
    }

    /// The namespace with this number in the run, as the kernel knows it.
    pub fn known(&self, number: u32) -> common::Netns {
        self.numbers.netns(number)
    }

    /// Its inode number.
    pub fn inum(&self, number: u32) -> u32 {
        self.known(number).inum
    }

    /// The namespace with this number in the run.
    pub fn numbered(&mut self, number: u32) -> Netns {
        let name = self.netns(number);
        Netns::numbered(name, self.inum(number), number, self.numbers.is_succeeded(number))
    }

    /// Whether another namespace has got the inode number of the one with this number since.
    pub fn is_succeeded(&self, number: u32) -> bool {
        self.numbers.is_succeeded(number)
    }

    /// What the namespace with this number in the run is called, cleaned of control characters.
    pub fn netns(&mut self, number: u32) -> Option<String> {
        let common::Netns { inum, cookie } = self.numbers.netns(number);
        if self.host == Some(inum) {
            return Some(HOST.to_owned());
        }
        if self.container == Some(inum) {
            return Some(CONTAINER.to_owned());
        }
        let LookedUp { proved, unproved, .. } = &self.now;
        if let Some(known) = proved.netns.get(&number).or_else(|| unproved.netns.get(&number)) {
            return known.clone();
        }
        if cookie != NO_COOKIE {
            self.look_into(inum);
        }
        let name = if self.numbers.is_succeeded(number) { None } else { self.name_now(inum) };
        self.missed |= name.is_none() && self.hidden > 0;
        let (name, names) = match name {
            Some(name) => (Some(name), &mut self.now.proved.netns),
            None => {
                self.meet_newcomers();
                let before = self.before.netns.get(&number).cloned().flatten();
                let known = self.proved.get(&number).cloned().or(before);
                (known, &mut self.now.unproved.netns)
            }
        };
        if names.len() < MAX_NAMES {
            names.insert(number, name.clone());
        }
        name
    }

    /// The namespace that has this inode number now, as far as was seen.
    fn bearer(&mut self, inum: u32) -> Netns {
        let name = match inum {
            inum if self.host == Some(inum) => Some(HOST.to_owned()),
            inum if self.container == Some(inum) => Some(CONTAINER.to_owned()),
            inum => self.name_now(inum),
        };
        Netns::numbered(name, inum, self.numbers.bearer(inum), false)
    }

    /// What the namespace that has this inode number now is called where it is mounted, or after whom
    /// lives there.
    fn name_now(&mut self, inum: u32) -> Option<String> {
        let mounted = self.mounted(inum).map(|mounted| mounted.name.clone());
        mounted.or_else(|| self.resident(inum).map(|process| process.to_string()))
    }

    /// Finds out, once a report, which namespace has this inode number now.
    fn look_into(&mut self, inum: u32) {
        // Its own is there for as long as dropwatch is, and may have thousands.
        let (own, names) = (self.own == Some(inum), links::by_index);
        if self.now.entered.insert(inum)
            && let Some(reachable) = self.reach(inum)
            && let Ok((Some(cookie), devices)) =
                reachable.enter(|| Ok((inside::cookie(), if own { Vec::new() } else { names() })))
        {
            self.met(&reachable, cookie, devices);
        }
    }

    /// Notes that a namespace which was entered has this cookie, and its interfaces these names by their
    /// index. Returns its number in the run.
    pub(super) fn met(
        &mut self,
        reachable: &ReachableNetns,
        cookie: u64,
        devices: impl IntoIterator<Item = (u32, String)>,
    ) -> u32 {
        let Netns { name, inum, .. } = &reachable.netns;
        let number = self.numbers.meet(common::Netns { inum: *inum, cookie });
        self.now.entered.insert(*inum);
        if let Some(name) = name {
            self.prove(number, name);
        }
        self.devices.keep(number, devices);
        number
    }

    /// Name of an interface of the namespace with this number in the run, by its index there, cleaned
    /// of control characters.
    pub fn interface(&mut self, number: u32, ifindex: u32) -> Option<String> {
        let key = (number, ifindex);
        let LookedUp { proved, unproved, .. } = &self.now;
        if let Some(known) = proved.interfaces.get(&key).or_else(|| unproved.interfaces.get(&key)) {
            return known.clone();
        }
        if proved.interfaces.len() + unproved.interfaces.len() >= MAX_NAMES {
            return None; // each costs a thread
        }
        let common::Netns { inum, cookie } = self.numbers.netns(number);
        if cookie != NO_COOKIE {
            self.look_into(inum);
        }
        let found = match self.numbers.is_succeeded(number) {
            true => None,
            false => self.look_up_interface(inum, ifindex),
        };
        let (name, names) = match found {
            Some(name) => (Some(name), &mut self.now.proved.interfaces),
            None => {
                self.meet_newcomers();
                let before = self.before.interfaces.get(&key).cloned().flatten();
                let kept = self.devices.name(number, ifindex).map(str::to_owned);
                (kept.or(before), &mut self.now.unproved.interfaces)
            }
        };
        names.insert(key, name.clone());
        name
    }

    /// What could not be named in this report for lack of a capability, why, and the way out.
    pub fn notice(&self) -> Option<String> {
        self.missed.then(|| {
            format!(
                "some network namespaces are shown as numbers ({} processes hide theirs): run as \
                 root, with CAP_SYS_PTRACE",
                self.hidden
            )
        })
    }

    fn look_up_interface(&mut self, inum: u32, ifindex: u32) -> Option<String> {
        if self.own == Some(inum) {
            return interfaces::name(ifindex);
        }
        let mounted = self.mounted(inum).map(|mounted| mounted.path.clone());
        if let Some(Ok(name)) = mounted.map(|path| interfaces::name_inside(&path, inum, ifindex)) {
            return name;
        }
        let pid = self.resident(inum)?.pid;
        let path = self.root.path(link(&pid.to_string()));
        if let Ok(name) = interfaces::name_inside(&path, inum, ifindex) {
            return name;
        }
        let name = interfaces::name_from_tables(&self.root, pid, ifindex);
        // Used only if that process is still there, since the tables were its own at that moment.
        name.filter(|_| self.lives_in(pid, inum))
    }

    fn mounted(&mut self, inum: u32) -> Option<&Mounted> {
        self.now.mounted.get_or_insert_with(|| mounted(&self.root)).get(&inum)
    }

    /// A process that lives in the namespace: the one found before, if it still does.
    fn resident(&mut self, inum: u32) -> Option<Process> {
        let known = self.residents.get(&inum).copied();
        let known = known.filter(|&pid| self.lives_in(pid, inum));
        let pid = known.or_else(|| {
            if self.vain.contains_key(&inum) {
                return None;
            }
            self.search_processes();
            let found = self.residents.get(&inum).copied();
            if found.is_none() && self.vain.len() < MAX_NAMES {
                self.vain.insert(inum, VAIN_REPORTS);
            }
            found
        })?;
        Process::read(&self.root, pid)
    }

    fn lives_in(&self, pid: u32, inum: u32) -> bool {
        of_process(&self.root, &pid.to_string()).is_ok_and(|found| found == inum)
    }

    /// Looks once a report at all processes; the one with the lowest number speaks for its
    /// namespace.
    fn search_processes(&mut self) {
        if std::mem::replace(&mut self.now.searched, true) {
            return;
        }
        self.residents.clear();
        self.hidden = 0;
        for pid in processes::pids(&self.root) {
            match of_process(&self.root, &pid.to_string()) {
                // dropwatch itself comes last, since it ends with the run.
                Ok(inum) => {
                    let known = self.residents.entry(inum).or_insert(pid);
                    if self.own_pid == Some(*known) {
                        *known = pid;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => self.hidden += 1,
                Err(_) => {} // gone
            }
        }
    }
}

/// The link that leads to the network namespace of a process, by its number or `self`.
fn link(process: &str) -> String {
    format!("proc/{process}/ns/net")
}

fn of_process(root: &HostRoot, process: &str) -> io::Result<u32> {
    let inum = processes::read_link(&root.path(link(process)), "net")?;
    inum.and_then(|inum| inum.try_into().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests;
