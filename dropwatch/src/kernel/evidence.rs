//! Reads what findings rest on: counters, tables and settings of the host and of its namespaces.
//!
//! Everything is read anew for each report and nothing is held between two: a descriptor would keep
//! a dying namespace alive. A namespace that has ended is left out; what cannot be read (no
//! `CAP_SYS_ADMIN` to enter it, no `CAP_NET_ADMIN` for connection tracking) is missing, and then the
//! rules that would need it find nothing.
//!
//! Counters are read of every namespace, since a loss is known by what its counter did in the
//! interval. One that has been quiet (no samples, no losses) is looked into every five seconds, also
//! where reports come more often: each costs some tenths of a millisecond, mostly of the kernel's,
//! and what is counted there without a drop event is then reported up to so much later, once. The few that
//! track the most connections are never left alone, since what they do to packets is dropped elsewhere. One that
//! is new is looked into at once: where it is proved to have begun since, all that it has counted is
//! of this report. Settings
//! are read only where there are losses or sampled drops; the contents of a conntrack table only
//! when it is full, by a thread of its own; listening sockets only where an accept queue has
//! overflowed.

mod tables;

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use self::tables::{TableReading, take};
pub use super::netns::passing::Unread;
use super::{
    HostRoot, Namespaces, ReachableNetns, addresses,
    answers::{self, Busy, HostToAsk, Inquiry, NetnsToAsk, sockets::connected},
    births::Births,
    conntrack, counters,
    inside::cookie,
    links, listeners,
    netns::passing::Passing,
    packet_filter::{
        self,
        readings::{FilterReadings, Late, NetnsToRead, patience},
    },
    queues, trackers,
};
use crate::report::{
    conntrack::{ConntrackCounter, ConntrackStats},
    evidence::{HostEvidence, NetnsEvidence, SettingValues, WatchList},
    facts::Netns,
    question::{Answers, Ask},
};

/// Most namespaces looked into: those that samples name come first.
const MAX_NAMESPACES: usize = 256;
/// How long a namespace where nothing happens is left alone; a little less than the default
/// interval.
const QUIET: Duration = Duration::from_millis(4_500);
/// A search of all processes for namespaces is made again once so many times its own length has
/// passed. Those that samples name and those that are mounted are known at once.
const SEARCH: u32 = 100;
/// Most namespaces of a report of which it is proved that they have ended: each proof looks at every
/// process.
const MAX_MISSING: usize = 16;
/// Most devices of a namespace whose own settings are read.
const MAX_DEVICES: usize = 32;
/// How long the listing of a full table is used before the table is listed again.
const TABLE_AGE: Duration = Duration::from_secs(60);
/// How long a report waits for the listings of full tables, for all of them together, since nothing
/// else is read meanwhile.
const PATIENCE: Duration = Duration::from_millis(200);
/// Reads evidence, report by report.
pub struct Collector {
    root: HostRoot,
    watch: WatchList,
    /// By inode number. What was read is by number in the run.
    known: BTreeMap<u32, KnownNetns>,
    births: Births,
    /// When all processes are searched again.
    search_due: Option<Instant>,
    /// The next reading looks into quiet namespaces, too.
    everywhere: bool,
    before: HostEvidence,
    now: HostEvidence,
    passing: Passing,
    /// What ended before its counters could be read now: names, or numbers.
    unread: Unread,
    tables: BTreeMap<u32, TableReading>,
    answering: Busy,
    filters: FilterReadings,
    /// When the counters of the last report were read.
    counted: Instant,
    is_last: bool,
}

/// A namespace, and when it was looked into.
struct KnownNetns {
    reachable: ReachableNetns,
    read: Option<Instant>,
    /// What it was found to be then, in this run.
    number: Option<u32>,
}

impl KnownNetns {
    fn new(reachable: ReachableNetns) -> Self {
        Self { reachable, read: None, number: None }
    }
}

impl Collector {
    /// Reads every namespace for the first time, as far as `watch` lists what to read. Each costs
    /// the start of a thread.
    pub fn new(root: &HostRoot, namespaces: &mut Namespaces, watch: WatchList) -> Self {
        let mut collector = Self {
            root: root.clone(),
            watch,
            known: BTreeMap::new(),
            births: Births::default(),
            search_due: None,
            everywhere: true,
            before: HostEvidence::default(),
            now: HostEvidence::default(),
            // From before the first look, so that no name comes unseen.
            passing: Passing::new(root),
            unread: Unread::default(),
            tables: BTreeMap::new(),
            answering: Busy::default(),
            filters: FilterReadings::new(root),
            counted: Instant::now(),
            is_last: false,
        };
        // Before the first look, or one that begins between the two would be taken for an old one.
        let listing = namespaces.listing();
        collector.read(namespaces, &BTreeSet::new());
        collector.births.begin(listing);
        let Self { filters, known, now, .. } = &mut collector;
        let there = now.namespaces.keys().filter_map(|it| Some((*it, to_read(known, now, *it)?)));
        filters.begin(there);
        collector
    }

    /// Reads everything anew; what was read before becomes [`Collector::before`]. `sampled` are the
    /// namespaces in which packets of the interval were dropped, by number in the run.
    pub fn read(&mut self, namespaces: &mut Namespaces, sampled: &BTreeSet<u32>) {
        self.counted = Instant::now();
        let inums: BTreeSet<u32> = sampled.iter().map(|number| namespaces.inum(*number)).collect();
        self.find_namespaces(namespaces, &inums);
        let everywhere = std::mem::take(&mut self.everywhere);
        self.is_last = everywhere;
        let tracking = trackers::of(&self.now);
        let (mut read, mut born) = (BTreeMap::new(), BTreeMap::new());
        let (mut ended, mut lost) = (BTreeSet::new(), Vec::new());
        for (inum, known) in &mut self.known {
            let before = known.number.and_then(|number| self.now.namespaces.get(&number));
            let sampled = inums.contains(inum);
            let quiet = known.read.filter(|read| read.elapsed() < QUIET);
            if let (false, false, Some(before), Some(_), Some(number)) =
                (everywhere, sampled, before, quiet, known.number)
                && before.settings.is_empty()
                && !tracking.contains(&number)
            {
                read.insert(number, NetnsEvidence { filter: None, ..before.clone() });
                continue;
            }
            known.read = Some(Instant::now());
            let births = &self.births;
            let begins = |now: &NetnsEvidence| {
                births.is_new(*inum, now.cookie)
                    || before.is_some_and(|before| now.is_another_than(before))
            };
            let read_at = |netns: &ReachableNetns| {
                read_namespace(&self.root, &self.watch, netns, before, begins, sampled)
            };
            let reading = read_at(&known.reachable).or_else(|error| {
                // The process or file that led there may be gone, while another one still does.
                let other = namespaces.reach(*inum).filter(|it| *it != known.reachable);
                known.reachable = other.ok_or(error)?;
                read_at(&known.reachable)
            });
            match reading {
                Ok((mut namespace, birth)) => {
                    // The one that had its number before has ended.
                    let other = before.filter(|before| namespace.is_another_than(before));
                    ended.extend(other.and_then(|other| other.netns.clone()));
                    let number = match namespace.cookie {
                        Some(cookie) => {
                            let links = namespace.links.iter();
                            let names = links.map(|(index, link)| (*index, link.name.clone()));
                            namespaces.met(&known.reachable, cookie, names)
                        }
                        None => *inum,
                    };
                    let name = known.reachable.netns.name.clone();
                    namespace.netns = Some(Netns::numbered(name, *inum, number, false));
                    known.number = Some(number);
                    if let Some(birth) = birth {
                        self.filters.is_born(number);
                        born.insert(number, birth);
                    }
                    self.births.saw(*inum, namespace.cookie);
                    read.insert(number, namespace);
                }
                // It has ended or may not be entered, so no thread is started for it until it is
                // found again.
                Err(error) => {
                    log::debug!("not looking into namespace {inum}: {error}");
                    lost.push(known.number.take().unwrap_or(*inum));
                }
            }
        }
        lost.extend(sampled.iter().filter(|number| !read.contains_key(number)));
        lost.sort_unstable();
        lost.dedup();
        let mut looked_for = 0;
        lost.retain(|number| {
            looked_for += usize::from(!namespaces.is_succeeded(*number));
            looked_for <= MAX_MISSING && namespaces.has_ended(*number)
        });
        let sampled_lost = lost.iter().filter(|it| sampled.contains(it)).copied().collect();
        ended.extend(lost.into_iter().map(|number| namespaces.numbered(number)));
        self.unread = Unread::of(ended, self.passing.names());
        self.known.retain(|_, known| known.number.is_some());
        let host = counters::of_host(&self.root);
        let lossy = read.values().any(|namespace| !namespace.settings.is_empty())
            || self.watch.host_losses.iter().any(|loss| host.get(loss) != self.now.host.get(loss));
        let (settings, rule_programs) = if lossy {
            (settings(&self.root, &self.watch.host_settings), packet_filter::programs())
        } else {
            Default::default()
        };
        let host_prefix = namespaces.host_prefix();
        let now = HostEvidence {
            host,
            settings,
            namespaces: read,
            ended: sampled_lost,
            host_prefix,
            rule_programs,
        };
        self.before = std::mem::replace(&mut self.now, now);
        self.before.namespaces.extend(born);
        self.read_tables();
    }

    /// Makes the next reading look into every namespace, however quiet, since it is the last one of
    /// the run or of a baseline.
    pub fn look_everywhere(&mut self) {
        self.everywhere = true;
    }

    /// The namespaces that ended before their counters could be read at the end of this report, as far
    /// as is known.
    pub fn unread(&self) -> &Unread {
        &self.unread
    }

    /// The host at the end of the report before, or when the run began.
    pub fn before(&self) -> &HostEvidence {
        &self.before
    }

    pub fn now(&self) -> &HostEvidence {
        &self.now
    }

    /// The host at the end of the report before, and now: counters that have counted more than the report
    /// has may be set back, for the next one to begin there.
    pub fn both(&mut self) -> (&HostEvidence, &mut HostEvidence) {
        (&self.before, &mut self.now)
    }

    /// Returns what answers the questions of rules about the namespaces that were read last. Make
    /// one for each report: its bound of time, as a report may wait that is made every `interval`, holds
    /// for all of its calls together.
    pub fn answerer(&self, interval: Duration) -> impl FnMut(&[Ask], &mut Answers) + '_ {
        let all = OnceCell::new();
        let patience = answers::patience(interval, self.is_last);
        let mut inquiry = Inquiry::new(self.answering.clone(), patience, move |number| {
            let NetnsToRead { netns, cookie } = to_read(&self.known, &self.now, number)?;
            let namespaces: &Arc<[(u32, PathBuf)]> = all.get_or_init(|| self.files());
            let (root, namespaces) = (self.root.clone(), namespaces.clone());
            let host = HostToAsk { root, number, inum: netns.netns.inum, namespaces };
            Some(NetnsToAsk { netns, cookie, host })
        });
        move |asks, answers| inquiry.answer(asks, answers)
    }

    /// The files of the namespaces that were read last, by number in the run.
    fn files(&self) -> Arc<[(u32, PathBuf)]> {
        let known = self.known.values();
        known.filter_map(|it| Some((it.number?, it.reachable.file(&self.root)))).collect()
    }

    /// Reads what of the packet filter drops in the namespaces in which so many packets were `dropped` at
    /// its hooks, by number in the run: for as long as a report may wait that is made every `interval`.
    pub fn read_filters(
        &mut self,
        dropped: &BTreeMap<u32, u64>,
        interval: Duration,
        late: Late<'_>,
    ) {
        let patience = patience(interval, self.is_last);
        let Self { filters, known, now, .. } = self;
        let find = |number| to_read(known, now, number);
        let read = filters.read(dropped, self.counted, patience, find, late);
        for (number, reading) in read {
            if let Some(namespace) = self.now.namespaces.get_mut(&number) {
                namespace.filter = Some(reading);
            }
        }
    }

    /// The way into a namespace that was read last.
    fn way(&self, number: u32) -> Option<&KnownNetns> {
        way(&self.known, &self.now, number)
    }

    fn find_namespaces(&mut self, namespaces: &mut Namespaces, sampled: &BTreeSet<u32>) {
        for inum in sampled {
            if self.known.len() < MAX_NAMESPACES
                && !self.known.contains_key(inum)
                && let Some(reachable) = namespaces.reach(*inum)
            {
                self.known.insert(*inum, KnownNetns::new(reachable));
            }
        }
        let is_due = self.search_due.is_none_or(|due| Instant::now() >= due);
        let found = if self.everywhere || is_due {
            let begin = Instant::now();
            let all = namespaces.all();
            self.search_due = Some(Instant::now() + begin.elapsed() * SEARCH);
            all
        } else {
            let known = |inum: &u32| self.known.contains_key(inum);
            namespaces.mounted_but(known)
        };
        for reachable in found {
            if self.known.len() < MAX_NAMESPACES {
                let inum = reachable.netns.inum;
                self.known.entry(inum).or_insert_with(|| KnownNetns::new(reachable));
            }
        }
    }

    /// Starts to list the tables that refuse packets, and takes the listings that are done.
    fn read_tables(&mut self) {
        let refusing = |inum: &u32, namespace: &NetnsEvidence| {
            let before = self.before.namespaces.get(inum).and_then(|before| before.conntrack);
            let drops = |stats: &ConntrackStats| stats.counters.get(ConntrackCounter::Drop);
            namespace.conntrack.zip(before).is_some_and(|(now, then)| drops(&now) != drops(&then))
        };
        self.tables.retain(|number, _| self.now.namespaces.contains_key(number));
        let full: Vec<u32> = self
            .now
            .namespaces
            .iter()
            .filter(|(inum, namespace)| refusing(inum, namespace))
            .map(|(inum, _)| *inum)
            .collect();
        // All listings are started before the first is waited for, so that they share one deadline.
        for inum in &full {
            let fresh =
                self.tables.get(inum).is_some_and(|known| known.since.elapsed() < TABLE_AGE);
            if let (false, Some(KnownNetns { reachable, .. })) = (fresh, self.way(*inum)) {
                let reading = TableReading::read(&self.root, reachable);
                self.tables.insert(*inum, reading);
            }
        }
        for (inum, table) in take(&mut self.tables, &full, Instant::now() + PATIENCE) {
            if let Some(namespace) = self.now.namespaces.get_mut(&inum) {
                namespace.table = table;
            }
        }
    }
}

fn way<'a>(
    known: &'a BTreeMap<u32, KnownNetns>,
    now: &HostEvidence,
    number: u32,
) -> Option<&'a KnownNetns> {
    known.get(&now.namespaces.get(&number)?.netns.as_ref()?.inum)
}

/// What can be asked of a namespace that was read last.
fn to_read(
    known: &BTreeMap<u32, KnownNetns>,
    now: &HostEvidence,
    number: u32,
) -> Option<NetnsToRead> {
    let netns = way(known, now, number)?.reachable.clone();
    Some(NetnsToRead { netns, cookie: now.namespaces.get(&number)?.cookie })
}

/// Reads the namespace at `reachable`; where `begins` says that it began since it was `before`, returns
/// how it began, too. Its settings only if it has losses or is `sampled`.
fn read_namespace(
    root: &HostRoot,
    watch: &WatchList,
    reachable: &ReachableNetns,
    before: Option<&NetnsEvidence>,
    begins: impl Fn(&NetnsEvidence) -> bool + Sync,
    sampled: bool,
) -> io::Result<(NetnsEvidence, Option<NetnsEvidence>)> {
    reachable.enter(|| {
        let counters = counters::of_namespace(root, &|group, name| watch.has_counter(group, name));
        let mut namespace = NetnsEvidence {
            netns: Some(reachable.netns.clone()),
            prefix: reachable.prefix.clone(),
            cookie: cookie(),
            counters,
            conntrack: conntrack::stats_here(root).ok(),
            // Without them the rules about devices find nothing.
            links: links::read().unwrap_or_default(),
            queues: queues::read(root),
            has_filter: packet_filter::is_used(root),
            ..NetnsEvidence::default()
        };
        let birth = begins(&namespace).then(|| namespace.at_birth());
        let before = birth.as_ref().or(before);
        let overflows = |namespace: &NetnsEvidence| namespace.counters.get(watch.overflows);
        if before.is_some_and(|before| overflows(before) != overflows(&namespace)) {
            namespace.fullest_listener = listeners::fullest(root);
        }
        // Right after the counters: clients close their sockets soon.
        let refused = |name: &&str| {
            before.is_some_and(|it| it.counters.get(name) != namespace.counters.get(name))
        };
        if watch.refusals.iter().any(refused) {
            namespace.connected = connected(root);
        }
        if sampled || before.is_some_and(|before| namespace.is_lossy_since(before)) {
            namespace.gauges = counters::gauges_of_namespace(root);
            namespace.addresses = addresses::read(root).ok();
            namespace.settings = settings(root, &watch.settings);
            namespace.legacy_tables = packet_filter::legacy_tables(root);
            for link in namespace.links.values().take(MAX_DEVICES) {
                let names =
                    watch.device_settings.iter().map(|name| name.replace("DEV", &link.name));
                namespace.settings.extend(values(root, names));
            }
        }
        Ok((namespace, birth))
    })
}

fn settings(root: &HostRoot, names: &[&str]) -> SettingValues {
    values(root, names.iter().map(|name| (*name).to_owned()))
}

fn values(root: &HostRoot, names: impl Iterator<Item = String>) -> SettingValues {
    names.filter_map(|name| Some((name.clone(), root.sysctl(&name).ok()?))).collect()
}

#[cfg(test)]
mod tests;
