//! Names for everything a report shows: the host behind [`Names`].
//!
//! Starting is split in two. [`HostNames::open`] opens what needs privileges, on the caller's
//! thread, and returns at once; reading and parsing, some tens of milliseconds, happens on a
//! thread of its own, which is joined when the first name is asked for. After `open` the caller
//! may drop its capabilities: what is opened later (BTF of modules) is readable by everyone.

mod known;

use std::{
    fs::File,
    io, panic,
    sync::mpsc::{self, Receiver, Sender},
    thread::{self, JoinHandle},
};

use dropwatch_common::{
    NO_REASON,
    offsets::{NONE, Offsets},
};

pub use self::known::{Known, reasons};
use super::{
    btf::{Btf, BtfError},
    live::LiveSymbols,
    netns::{Namespaces, Unfound},
    offsets,
    owner::Owners,
    processes::Process,
    reasons::Reasons,
    root::{self, HostRoot, Tracefs},
    status::{self, Status, failure},
    tracefs::EventFormat,
};
use crate::report::{
    Names,
    facts::{Netns, Owner},
    model::{Reason, Symbol},
};

/// Why the running kernel's types are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTypes {
    /// The kernel has none, or does not show them.
    #[error("no BTF: {0}")]
    Absent(String),
    #[error(transparent)]
    Malformed(#[from] BtfError),
    #[error("its BTF was not read")]
    Unread,
}

/// Names of a host's functions and drop reasons.
pub struct HostNames {
    namespaces: Namespaces,
    owners: Owners,
    root: HostRoot,
    loading: Option<JoinHandle<Loaded>>,
    loaded: Option<Loaded>,
    /// The offsets of fields, which come before all other names, since attaching waits for them.
    offsets: Receiver<Result<Offsets, NoTypes>>,
}

impl HostNames {
    /// Opens the host's files and starts reading them. Never fails: what cannot be had is in
    /// [`HostNames::status`].
    pub fn open(root: &HostRoot) -> Self {
        let opened = Opened::new(root);
        let of = root.clone();
        let (sender, offsets) = mpsc::channel();
        let load = {
            let sender = sender.clone();
            move || opened.load(&of, &sender)
        };
        let (loading, loaded) = match thread::Builder::new().name("names".into()).spawn(load) {
            Ok(thread) => (Some(thread), None),
            // Where a limit on tasks allows no thread, the files are read here, while the caller
            // still has its privileges.
            Err(_) => (None, Some(Opened::new(root).load(root, &sender))),
        };
        let (namespaces, owners) = (Namespaces::new(root), Owners::new(root));
        Self { namespaces, owners, root: root.clone(), loading, loaded, offsets }
    }

    /// Where this kernel keeps the fields of a packet. Waits for its BTF to be read, and no longer;
    /// to be called once.
    ///
    /// # Errors
    /// Why there is no BTF to read them from.
    pub fn offsets(&mut self) -> Result<Offsets, NoTypes> {
        self.offsets.recv().unwrap_or(Err(NoTypes::Unread))
    }

    /// Begins a report: call it before the first name of the report is asked for.
    pub fn begin_report(&mut self) {
        self.namespaces.begin_report();
        self.owners.begin_report();
    }

    /// Allows one new search for the processes that hold sockets, between two reports.
    pub fn forget_owners(&mut self) {
        self.owners.begin_report();
    }

    /// Notes whether modules came or went, and allows one new reading of the kernel's symbols. Call
    /// it once for each report, after its counters were read and before their locations are named:
    /// a module that is loaded between an earlier call and the reading may have dropped packets,
    /// and of older readings only the last is kept, which names what an unloaded module dropped.
    pub fn counted(&mut self) {
        if let Ok(symbols) = &mut self.loaded().symbols {
            symbols.begin_report();
        }
    }

    /// Looks for the processes that hold these sockets, in one pass for all of them.
    pub fn find_owners(&mut self, sockets: impl IntoIterator<Item = u64>) {
        self.owners.find(sockets);
    }

    /// The inode number of the network namespace that people call `name`.
    ///
    /// # Errors
    /// Why it is none.
    pub fn find_netns(&mut self, name: &str) -> Result<u32, Unfound> {
        self.namespaces.find(name)
    }

    /// The namespace with this number in the run, as the kernel knows it.
    pub fn known(&self, number: u32) -> dropwatch_common::Netns {
        self.namespaces.known(number)
    }

    /// The host's network namespaces.
    pub fn namespaces(&mut self) -> &mut Namespaces {
        &mut self.namespaces
    }

    /// What could not be named in this report for lack of a capability: namespaces, and owners of
    /// sockets.
    pub fn notices(&self) -> [Option<String>; 2] {
        [self.namespaces.notice(), self.owners.notice()]
    }

    /// What this host lets be named. Waits for the first reading to end.
    pub fn status(&mut self) -> Status {
        self.loaded().status()
    }

    fn loaded(&mut self) -> &mut Loaded {
        let Self { root, loading, loaded, .. } = self;
        loaded.get_or_insert_with(|| match loading.take().map(JoinHandle::join) {
            Some(Ok(loaded)) => loaded,
            Some(Err(panic)) => panic::resume_unwind(panic),
            None => Opened::new(root).load(root, &mpsc::channel().0),
        })
    }
}

impl Names for HostNames {
    fn symbol(&mut self, location: u64) -> Option<Symbol> {
        self.loaded().symbols.as_mut().ok()?.symbol(location)
    }

    fn reason(&mut self, reason: u32) -> Option<Reason> {
        if reason == NO_REASON {
            return None;
        }
        let loaded = self.loaded();
        if !loaded.reasons.is_named(reason) && loaded.reasons.declares(reason) {
            loaded.search_modules(); // the subsystem can be a module's
        }
        loaded.reasons.name(reason)
    }

    fn netns(&mut self, number: u32) -> Netns {
        self.namespaces.numbered(number)
    }

    fn interface(&mut self, netns: u32, index: u32) -> Option<String> {
        self.namespaces.interface(netns, index)
    }

    fn owner(&mut self, socket: u64) -> Option<Owner> {
        let Process { comm, pid, cgroup } = self.owners.owner(socket)?;
        Some(Owner { comm, pid, cgroup })
    }
}

/// Files that are opened while dropwatch has its privileges, since the kernel decides at that
/// moment who may see addresses.
struct Opened {
    kallsyms: Result<File, String>,
    /// `None` in kernels without module support.
    modules: Result<Option<File>, String>,
    kptr_restrict: Option<u32>,
    perf_event_paranoid: Option<i32>,
    bpf_jit_kallsyms: Option<u32>,
    tracefs: Tracefs,
    /// Description of `skb:kfree_skb`, or why it cannot be had.
    format: Result<Vec<u8>, String>,
}

impl Opened {
    fn new(root: &HostRoot) -> Self {
        let tracefs = root.tracefs();
        let format = match &tracefs {
            Tracefs::Mounted(path) => {
                root.kfree_skb_format(path).map_err(|error| failure(path, error))
            }
            Tracefs::NotMounted => Err("tracefs is not mounted".to_owned()),
            Tracefs::Unreadable { path, error } => Err(failure(path, error)),
        };
        Self {
            kallsyms: root
                .open(root::KALLSYMS)
                .map_err(|error| failure(&root.path(root::KALLSYMS), error)),
            modules: match root.open(root::MODULES) {
                Ok(file) => Ok(Some(file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(failure(&root.path(root::MODULES), error)),
            },
            kptr_restrict: root.read_number(root::KPTR_RESTRICT),
            // -1 opens perf events to all, so it is no plain number.
            perf_event_paranoid: root
                .read_word(root::PERF_EVENT_PARANOID)
                .ok()
                .and_then(|level| level.parse().ok()),
            bpf_jit_kallsyms: root.read_number(root::BPF_JIT_KALLSYMS),
            tracefs,
            format,
        }
    }

    fn load(self, root: &HostRoot, offsets: &Sender<Result<Offsets, NoTypes>>) -> Loaded {
        // One after the other: the BTF's megabytes are free again before the symbols take theirs.
        let vmlinux = Vmlinux::read(root);
        // The receiver may have gone: not every run needs them.
        let _ = offsets.send(vmlinux.as_ref().map(|vmlinux| vmlinux.offsets).map_err(Clone::clone));
        let (reasons, source, kfree_skb_args) = match vmlinux {
            Ok(Vmlinux { reasons: Some(reasons), args, .. }) => {
                let subsystems = reasons.subsystems().map(str::to_owned).collect();
                let source = status::ReasonSource::Btf { core: reasons.core(), subsystems };
                (reasons, source, args)
            }
            Ok(Vmlinux { reasons: None, args, .. }) => {
                let btf = "the kernel's BTF has no enum skb_drop_reason".to_owned();
                let (reasons, source) = from_tracefs(&self.format, btf, true);
                (reasons, source, args)
            }
            Err(btf) => {
                let (reasons, source) = from_tracefs(&self.format, btf.to_string(), false);
                (reasons, source, None)
            }
        };
        let (modules, modules_error) = match self.modules {
            Ok(modules) => (modules, None),
            Err(error) => (None, Some(error)),
        };
        let path = root.path(root::KALLSYMS);
        let symbols = self.kallsyms.and_then(|kallsyms| {
            let symbols =
                LiveSymbols::read(kallsyms, modules).map_err(|error| failure(&path, error))?;
            if symbols.table().is_empty() && !symbols.table().is_restricted() {
                return Err(failure(&path, "it lists no functions"));
            }
            Ok(symbols)
        });
        Loaded {
            root: root.clone(),
            symbols,
            modules_error,
            kptr_restrict: self.kptr_restrict,
            perf_event_paranoid: self.perf_event_paranoid,
            bpf_jit_kallsyms: self.bpf_jit_kallsyms,
            tracefs: self.tracefs,
            reasons,
            source,
            kfree_skb_args,
            searched: None,
        }
    }
}

/// What the kernel's own BTF says.
struct Vmlinux {
    reasons: Option<Reasons>,
    /// Arguments of `skb:kfree_skb`.
    args: Option<usize>,
    offsets: Offsets,
}

impl Vmlinux {
    fn read(root: &HostRoot) -> Result<Self, NoTypes> {
        let data = root.vmlinux_btf().map_err(|error| NoTypes::Absent(error.to_string()))?;
        let vmlinux = Btf::parse(&data)?;
        Ok(Self {
            reasons: Reasons::from_btf(&vmlinux),
            args: vmlinux.tracepoint_args("kfree_skb"),
            offsets: with_conntrack(root, &vmlinux),
        })
    }
}

/// Where fields are, also those of connection tracking, which may be a module's.
fn with_conntrack(root: &HostRoot, vmlinux: &Btf<'_>) -> Offsets {
    let offsets = offsets::with_conntrack(offsets::offsets(vmlinux), vmlinux);
    if offsets.ct_original != NONE {
        return offsets;
    }
    // Where it is not loaded, nothing is tracked yet.
    let Ok(data) = root.module_btf("nf_conntrack") else { return offsets };
    match Btf::parse_split(&data, vmlinux) {
        Ok(module) => offsets::with_conntrack(offsets, &module),
        Err(_) => offsets,
    }
}

/// Reasons from tracefs, where BTF has not given them for the cause `btf`. `absent`: BTF proved
/// that there are none.
fn from_tracefs(
    format: &Result<Vec<u8>, String>,
    btf: String,
    absent: bool,
) -> (Reasons, status::ReasonSource) {
    let none = |source| (Reasons::default(), source);
    match format.as_ref().map(|text| Reasons::from_tracefs(&EventFormat::parse(text))) {
        Ok(Some(reasons)) if reasons.core() > 0 => {
            let source = status::ReasonSource::Tracefs { core: reasons.core(), btf };
            (reasons, source)
        }
        Ok(Some(_)) => {
            let tracefs = "tracefs does not list them".to_owned();
            none(status::ReasonSource::Unnamed { btf, tracefs })
        }
        Ok(None) => none(status::ReasonSource::Absent),
        Err(_) if absent => none(status::ReasonSource::Absent),
        Err(tracefs) => none(status::ReasonSource::Unnamed { btf, tracefs: tracefs.clone() }),
    }
}

/// What was read.
struct Loaded {
    root: HostRoot,
    symbols: Result<LiveSymbols<File>, String>,
    modules_error: Option<String>,
    kptr_restrict: Option<u32>,
    perf_event_paranoid: Option<i32>,
    bpf_jit_kallsyms: Option<u32>,
    tracefs: Tracefs,
    reasons: Reasons,
    source: status::ReasonSource,
    kfree_skb_args: Option<usize>,
    /// Modules that were loaded when their BTF was last searched for reasons.
    searched: Option<u64>,
}

impl Loaded {
    /// Adds the reasons that loaded modules define; once for each set of modules. A module whose
    /// BTF cannot be read leaves its reasons as numbers.
    fn search_modules(&mut self) {
        let modules = self.symbols.as_ref().map_or(0, LiveSymbols::modules_seen);
        if self.searched.replace(modules) == Some(modules) {
            return;
        }
        let Ok(data) = self.root.vmlinux_btf() else { return };
        let Ok(vmlinux) = Btf::parse(&data) else { return };
        for module in self.root.btf_modules().unwrap_or_default() {
            let Ok(data) = self.root.module_btf(&module) else { continue };
            if let Ok(btf) = Btf::parse_split(&data, &vmlinux) {
                self.reasons.add_module(&btf);
            }
        }
    }

    fn status(&self) -> Status {
        let symbols = match &self.symbols {
            Err(error) => status::Symbols::Unreadable { error: error.clone() },
            Ok(live) if live.table().is_restricted() => {
                let Self { kptr_restrict, perf_event_paranoid, .. } = *self;
                status::Symbols::Restricted { kptr_restrict, perf_event_paranoid }
            }
            Ok(live) => status::Symbols::Known {
                functions: live.table().len(),
                modules: live.table().modules(),
                skipped: live.table().skipped(),
                reads: live.reads(),
                error: live.error().or(self.modules_error.as_deref()).map(str::to_owned),
            },
        };
        let reported = |has: bool| match &self.source {
            status::ReasonSource::Btf { .. } | status::ReasonSource::Tracefs { .. } => Some(has),
            status::ReasonSource::Absent => Some(false),
            status::ReasonSource::Unnamed { .. } => None,
        };
        let events = status::Events {
            tcp: reported(self.reasons.has_tcp_own()),
            listen_overflow: reported(self.reasons.has_core("TCP_LISTEN_OVERFLOW")),
        };
        Status {
            symbols,
            events,
            bpf_jit_kallsyms: self.bpf_jit_kallsyms,
            reasons: self.source.clone(),
            tracefs: self.tracefs.clone(),
            kfree_skb_args: self.kfree_skb_args,
        }
    }
}
