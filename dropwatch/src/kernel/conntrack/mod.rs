//! Connection tracking of a network namespace: its numbers, settings and entries, read inside it.
//!
//! | read | needs |
//! |---|---|
//! | entries, limit, counters, the table (ctnetlink) | `CAP_NET_ADMIN` over the namespace |
//! | limit, buckets, timeouts (`/proc/sys/net/netfilter`) | nothing |
//! | memory of an entry (`/sys/kernel/slab`, `/proc/slabinfo`) | root's files |
//! | any of it in another namespace | `CAP_SYS_ADMIN`, to enter it |
//!
//! Where connection tracking is not in use, ctnetlink is not asked at all: the question alone
//! would have the kernel load it.

mod lookup;
mod message;
mod slab;

use std::{collections::BTreeMap, io};

use netlink_sys::protocols::NETLINK_NETFILTER;

pub(super) use self::lookup::{by_reply, connection};
use super::{HostRoot, ReachableNetns, netlink};
use crate::report::conntrack::{ConntrackCounters, ConntrackStats, ConntrackTally};

/// The upper half of a message type.
const CTNETLINK: u16 = (libc::NFNL_SUBSYS_CTNETLINK as u16) << 8;
/// `enum cntl_msg_types`
pub(super) const GET: u16 = CTNETLINK | 1;
const GET_STATS_CPU: u16 = CTNETLINK | 4;
const GET_STATS: u16 = CTNETLINK | 5;
/// `struct nfgenmsg` of a question: every family, version 0, no resource.
const ANYTHING: [u8; 4] = [0; 4];

/// Settings of the calling thread's namespace.
const SETTINGS: &str = "proc/sys/net/netfilter";

/// Whether connections are tracked at all on this host, which no question may begin.
pub(super) fn is_used(root: &HostRoot) -> bool {
    root.path(format!("{SETTINGS}/nf_conntrack_count")).exists()
}

/// Why a namespace's connection tracking cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// The namespace has ended, which is no failure of the host.
    #[error("the namespace is gone")]
    Gone,
    #[error("missing CAP_SYS_ADMIN, needed to enter the namespace: run with sudo")]
    Enter,
    #[error("missing CAP_SYS_PTRACE, needed to find the way into the namespace: run with sudo")]
    Hidden,
    /// The capability counts in the user namespace that the network namespace belongs to.
    #[error(
        "missing CAP_NET_ADMIN over the namespace, needed to read connection tracking: run with \
         sudo, on the host itself"
    )]
    Refused,
    #[error(
        "connection tracking is not in use: nf_conntrack is not loaded, or this kernel was built \
         without it (CONFIG_NF_CONNTRACK); a rule that needs it, such as NAT, loads it"
    )]
    Absent,
    #[error(
        "this kernel does not show its connections: it lacks nf_conntrack_netlink \
         (CONFIG_NF_CT_NETLINK)"
    )]
    NoNetlink,
    #[error("cannot read connection tracking: {0}")]
    Io(String),
}

/// A namespace's connection tracking with all its entries, summed up.
#[derive(Debug)]
pub struct ConntrackReading {
    pub stats: ConntrackStats,
    pub tally: ConntrackTally,
    /// Settings that say how long the entries are kept, seconds.
    pub timeouts: BTreeMap<&'static str, u32>,
}

/// The numbers alone: cheap, whatever the table holds.
///
/// # Errors
/// [`ConntrackError::Gone`] where the namespace has ended; see [`ConntrackError`] for the others.
pub fn stats(root: &HostRoot, netns: &ReachableNetns) -> Result<ConntrackStats, ConntrackError> {
    within(netns, || stats_here(root))
}

/// The numbers of the calling thread's namespace.
pub(super) fn stats_here(root: &HostRoot) -> Result<ConntrackStats, ConntrackError> {
    Inside::open(root)?.stats()
}

/// The numbers and the whole table, entry by entry, in memory that does not grow with it.
///
/// # Errors
/// As [`stats`].
pub fn read(root: &HostRoot, netns: &ReachableNetns) -> Result<ConntrackReading, ConntrackError> {
    within(netns, || {
        let mut inside = Inside::open(root)?;
        let stats = inside.stats()?;
        let tally = inside.table()?;
        let timeouts = tally
            .timeouts()
            .filter_map(|name| Some((name, root.read_number(format!("{SETTINGS}/{name}"))?)))
            .collect();
        Ok(ConntrackReading { stats, tally, timeouts })
    })
}

fn within<T: Send>(
    netns: &ReachableNetns,
    work: impl FnOnce() -> Result<T, ConntrackError> + Send,
) -> Result<T, ConntrackError> {
    netns.enter(|| Ok(work())).unwrap_or_else(|error| {
        Err(match error.raw_os_error() {
            Some(libc::EPERM) => ConntrackError::Enter,
            // Of `/proc/PID/ns/net`.
            Some(libc::EACCES) => ConntrackError::Hidden,
            _ if error.kind() == io::ErrorKind::NotFound => ConntrackError::Gone,
            // A process that ended in between has no namespace any more.
            Some(libc::ESRCH | libc::EINVAL) => ConntrackError::Gone,
            _ => ConntrackError::Io(error.to_string()),
        })
    })
}

/// The calling thread's namespace.
struct Inside<'a> {
    root: &'a HostRoot,
    /// `nf_conntrack_count`, which is there wherever connection tracking is.
    count: u32,
    netlink: netlink::Netlink,
}

impl<'a> Inside<'a> {
    fn open(root: &'a HostRoot) -> Result<Self, ConntrackError> {
        let count = root.read_number(format!("{SETTINGS}/nf_conntrack_count"));
        let count = count.ok_or(ConntrackError::Absent)?;
        let netlink =
            netlink::Netlink::open(NETLINK_NETFILTER).map_err(|error| meaning(error.into()))?;
        Ok(Self { root, count, netlink })
    }

    fn stats(&mut self) -> Result<ConntrackStats, ConntrackError> {
        let mut totals = message::EntryCounts::default();
        self.netlink
            .ask(GET_STATS, &ANYTHING, |answer| totals = message::totals(answer))
            .map_err(meaning)?;
        let mut counters = ConntrackCounters::default();
        self.netlink
            .ask_all(GET_STATS_CPU, &ANYTHING, |answer| {
                message::counters(answer).for_each(|(counter, count)| counters.add(counter, count));
            })
            .map_err(meaning)?;
        let setting = |name| self.root.read_number(format!("{SETTINGS}/{name}"));
        Ok(ConntrackStats {
            entries: totals.entries.unwrap_or(self.count).into(),
            limit: totals.limit.or_else(|| setting("nf_conntrack_max")).map(u64::from),
            buckets: setting("nf_conntrack_buckets").map(u64::from),
            object_bytes: slab::object_bytes(self.root),
            counters,
        })
    }

    fn table(&mut self) -> Result<ConntrackTally, ConntrackError> {
        let mut tally = ConntrackTally::default();
        self.netlink
            .ask_all(GET, &ANYTHING, |answer| match message::entry(answer) {
                Some(entry) => tally.add(&entry),
                None => tally.skip(),
            })
            .map_err(meaning)?;
        Ok(tally)
    }
}

/// What a failure of ctnetlink means.
fn meaning(error: netlink::NetlinkError) -> ConntrackError {
    match error {
        netlink::NetlinkError::Io(error) => match error.raw_os_error() {
            // nfnetlink asks for the capability before anything else (`nfnetlink_rcv`,
            // net/netfilter/nfnetlink.c).
            Some(libc::EPERM) => ConntrackError::Refused,
            // The kernel has no nfnetlink, has no ctnetlink behind it (`nfnetlink_rcv_msg`), or
            // does not know the question.
            Some(libc::EPROTONOSUPPORT | libc::EINVAL | libc::EOPNOTSUPP) => {
                ConntrackError::NoNetlink
            }
            _ => ConntrackError::Io(error.to_string()),
        },
        malformed => ConntrackError::Io(malformed.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Namespaces, processes::fixture::FakeHost},
        *,
    };

    #[test]
    fn a_host_that_tracks_nothing_is_not_asked() {
        let host = FakeHost::new();
        host.process(1, "init", 10);
        host.link("proc/self/ns/net", "net:[10]");
        let netns = Namespaces::new(&host.root()).reach(10).unwrap();
        assert!(matches!(stats(&host.root(), &netns), Err(ConntrackError::Absent)));
        assert!(matches!(read(&host.root(), &netns), Err(ConntrackError::Absent)));
    }

    #[test]
    fn refusals_have_a_meaning() {
        let of = |code| meaning(io::Error::from_raw_os_error(code).into());
        assert!(matches!(of(libc::EPERM), ConntrackError::Refused));
        assert!(matches!(of(libc::EPROTONOSUPPORT), ConntrackError::NoNetlink));
        assert!(matches!(of(libc::EINVAL), ConntrackError::NoNetlink));
        assert!(matches!(of(libc::ENOBUFS), ConntrackError::Io(_)));
        assert!(matches!(meaning(netlink::NetlinkError::Malformed), ConntrackError::Io(_)));
    }
}
