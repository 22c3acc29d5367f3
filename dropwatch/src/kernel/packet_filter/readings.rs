//! Rules of namespaces in which packets were dropped at hooks: which are read when, and what they
//! counted from one reading to the next.
//!
//! Rules are read by one thread, namespace after namespace. A report waits for it no longer than a part of
//! its interval ([`patience`]), the last one [`LAST_PATIENCE`]; what comes later is of the next report. Counters only
//! rise between two readings, so those of the namespaces that are there at the start are read then, once
//! counting has begun; from then on a namespace is read where packets were dropped, and not again
//! before [`REST`] has passed.

use std::{
    collections::{BTreeMap, BTreeSet, hash_map::RandomState},
    io,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    reading::{self, Reading},
    tally::Counts,
};
use crate::{
    kernel::{HostRoot, inside::cookie, netns::ReachableNetns},
    report::filter_rules::{FilterReading, Since},
};

/// How long the rules of a namespace are left alone: ten seconds, less what a report may be late.
const REST: Duration = Duration::from_millis(9_900);
/// How long a report waits at least, and at most, for all readings together.
const PATIENCE: RangeInclusive<Duration> = Duration::from_millis(250)..=Duration::from_secs(1);
/// How long the last one does: no other comes that could be late.
const LAST_PATIENCE: Duration = Duration::from_secs(2);
/// How long the readings of one report may take, until those that are left are given up.
const LIMIT: Duration = Duration::from_secs(5);
/// The same at the start, where nobody needs them yet.
const FIRST_LIMIT: Duration = Duration::from_secs(5);
/// Most namespaces that are read for one report: each costs some milliseconds.
const MOST: usize = 8;
/// Most at the start.
const MOST_FIRST: usize = 64;
/// Most namespaces, and most counters of all of them together, of which a reading is kept.
const MOST_KEPT: usize = 256;
const MOST_COUNTERS: usize = 1 << 18;

/// What is known of each namespace, by number in the run.
pub struct FilterReadings {
    root: HostRoot,
    hasher: Arc<RandomState>,
    known: BTreeMap<u32, Known>,
    /// What began since the run did, and its counters with it.
    born: BTreeSet<u32>,
    began: Instant,
    /// What is read at the start, and what a report has asked for.
    first: Option<Receiver<Answer>>,
    work: Option<Receiver<Answer>>,
    busy: Arc<AtomicBool>,
}

/// What was dropped at hooks since the counters of the report were read, by number in the run.
pub(in crate::kernel) type Late<'a> = &'a mut dyn FnMut() -> BTreeMap<u32, u64>;

/// A namespace, and what was read there.
type Answer = (u32, Option<Read>);

#[derive(Default)]
struct Known {
    /// Counters at the last reading; `None` where there was none.
    counts: Option<Arc<Counts>>,
    /// When it began.
    at: Option<Instant>,
    /// How long after the counters of drops those of rules were read.
    behind: Duration,
    /// It was made before any packet was dropped.
    at_start: bool,
    /// That one is still to come.
    begins: bool,
    /// Packets that rules had counted then beyond those that were known to be dropped.
    ahead: u64,
    /// Packets dropped since.
    dropped: u64,
    /// A report has asked, whose counters were read then and say that so much was dropped since.
    asked: Option<(Instant, u64)>,
    last: Option<(Instant, FilterReading)>,
    /// Whether a report has had it.
    is_known: bool,
}

/// What the thread has read.
struct Read {
    began: Instant,
    ended: Instant,
    reading: Option<Reading>,
}

/// A namespace whose rules may be read.
#[derive(Clone, Debug)]
pub(in crate::kernel) struct NetnsToRead {
    pub(in crate::kernel) netns: ReachableNetns,
    pub(in crate::kernel) cookie: Option<u64>,
}

/// What the thread is to read.
struct Work {
    number: u32,
    netns: NetnsToRead,
    before: Option<Arc<Counts>>,
}

impl FilterReadings {
    pub(in crate::kernel) fn new(root: &HostRoot) -> Self {
        Self {
            root: root.clone(),
            hasher: Arc::default(),
            known: BTreeMap::new(),
            born: BTreeSet::new(),
            began: Instant::now(),
            first: None,
            work: None,
            busy: Arc::default(),
        }
    }

    /// Has the rules of these namespaces read, without waiting for it.
    pub(in crate::kernel) fn begin(
        &mut self,
        namespaces: impl Iterator<Item = (u32, NetnsToRead)>,
    ) {
        let work = namespaces.take(MOST_FIRST).map(|(number, netns)| {
            self.known.entry(number).or_default().begins = true;
            Work { number, netns, before: None }
        });
        let work = work.collect();
        // None of it is worth a word where no thread can be started.
        self.first = self.start(work, FIRST_LIMIT, None);
    }

    /// A namespace is proved to have begun since the run did.
    pub(in crate::kernel) fn is_born(&mut self, number: u32) {
        if self.born.len() < 4 * MOST_KEPT {
            self.born.insert(number);
        }
    }

    /// Returns what is known of the rules of the namespaces in which packets were `dropped` at hooks, by
    /// number in the run; those counters were read at `counted`. `find` is the way into a namespace, and
    /// `late` what was dropped since they were read.
    pub(in crate::kernel) fn read(
        &mut self,
        dropped: &BTreeMap<u32, u64>,
        counted: Instant,
        patience: Duration,
        find: impl Fn(u32) -> Option<NetnsToRead>,
        late: Late<'_>,
    ) -> Vec<(u32, FilterReading)> {
        let deadline = Instant::now() + patience;
        for (number, drops) in dropped {
            if self.known.contains_key(number) || self.known.len() < MOST_KEPT {
                let known = self.known.entry(*number).or_default();
                known.dropped = known.dropped.saturating_add(*drops);
            }
        }
        self.take_first(dropped, deadline);
        self.take(if dropped.is_empty() { Instant::now() } else { deadline }, late);
        let mut due: Vec<u32> = dropped.keys().copied().filter(|it| self.is_due(*it)).collect();
        // The longest unread first, then where most was dropped.
        due.sort_by_key(|number| {
            let known = self.known.get(number);
            let at = known.and_then(|known| known.at.filter(|_| !known.at_start));
            (at, std::cmp::Reverse(known.map_or(0, |known| known.dropped)))
        });
        let mut work = Vec::new();
        for number in due.into_iter().take(MOST) {
            if let (Some(netns), Some(known)) = (find(number), self.known.get_mut(&number)) {
                known.asked = Some((counted, std::mem::take(&mut known.dropped)));
                work.push(Work { number, netns, before: known.counts.clone() });
            }
        }
        if !work.is_empty() {
            self.work = self.start(work, LIMIT, Some(Arc::clone(&self.busy)));
            // Another thread may be late still: then all that was asked is given up.
            self.take(deadline, late);
            if self.work.is_none() {
                self.give_up_all();
            }
        }
        self.forget();
        let now = Instant::now();
        let mut found = Vec::new();
        for (number, known) in &mut self.known {
            let Some((at, reading)) = &known.last else { continue };
            let is_fresh = *at >= counted;
            let is_late = !is_fresh && !known.is_known;
            if is_late || dropped.contains_key(number) {
                known.is_known = true;
                let age = now.saturating_duration_since(*at);
                found.push((*number, FilterReading { is_fresh, is_late, age, ..reading.clone() }));
            }
        }
        found
    }

    fn is_due(&self, number: u32) -> bool {
        let Some(known) = self.known.get(&number) else { return false };
        // That of the start was read for nothing in particular.
        let rested = known.at_start || known.at.is_none_or(|at| at.elapsed() >= REST);
        known.asked.is_none() && rested && self.work.is_none()
    }

    /// Has a thread read; `busy` keeps a second one from it.
    fn start(
        &self,
        work: Vec<Work>,
        limit: Duration,
        busy: Option<Arc<AtomicBool>>,
    ) -> Option<Receiver<Answer>> {
        if busy.as_ref().is_some_and(|busy| busy.swap(true, Ordering::AcqRel)) {
            return None;
        }
        let (sender, receiver) = mpsc::channel();
        let (root, hasher) = (self.root.clone(), Arc::clone(&self.hasher));
        let flag = busy.clone();
        let reading = thread::Builder::new().name("rules".into()).spawn(move || {
            read_all(&root, &hasher, work, limit, &sender);
            if let Some(flag) = flag {
                flag.store(false, Ordering::Release);
            }
        });
        match (reading, busy) {
            (Ok(_), _) => Some(receiver),
            (Err(_), Some(busy)) => {
                busy.store(false, Ordering::Release);
                None
            }
            (Err(_), None) => None,
        }
    }

    /// What was asked is not answered: what was dropped up to now counts for the next reading.
    fn give_up_all(&mut self) {
        for known in self.known.values_mut() {
            if let Some((_, dropped)) = known.asked.take() {
                known.dropped = known.dropped.saturating_add(dropped);
            }
        }
    }

    /// Takes what was read at the start by now, and waits until `deadline` for what of it is about
    /// namespaces in which packets were `dropped`.
    fn take_first(&mut self, dropped: &BTreeMap<u32, u64>, deadline: Instant) {
        let Some(first) = self.first.take() else { return };
        loop {
            let begins = |it: &u32| self.known.get(it).is_some_and(|known| known.begins);
            let left = match dropped.keys().any(begins) {
                true => deadline.saturating_duration_since(Instant::now()),
                false => Duration::ZERO,
            };
            match first.recv_timeout(left) {
                Ok((number, read)) => self.began_with(number, read),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.first = Some(first);
                    return;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        self.known.values_mut().for_each(|known| known.begins = false);
    }

    fn began_with(&mut self, number: u32, read: Option<Read>) {
        let Some(known) = self.known.get_mut(&number) else { return };
        known.begins = false;
        // One that a report has asked for meanwhile is newer.
        if let (Some(Read { began, ended, reading }), None, None) = (read, known.at, known.asked) {
            known.counts = Some(Arc::new(reading.map(|it| it.tallied.now).unwrap_or_default()));
            known.behind = ended.saturating_duration_since(self.began);
            (known.at, known.at_start) = (Some(began), true);
        }
    }

    /// Takes what was read for a report by `deadline`.
    fn take(&mut self, deadline: Instant, late: Late<'_>) {
        let Some(work) = self.work.take() else { return };
        loop {
            match work.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok((number, Some(read))) => self.took(number, read, late),
                Ok((_, None)) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.work = Some(work);
                    return;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        // Whatever it has left out.
        self.give_up_all();
    }

    fn took(&mut self, number: u32, Read { began, ended, reading }: Read, late: Late<'_>) {
        let is_born = self.born.contains(&number);
        let Some(known) = self.known.get_mut(&number) else { return };
        let Some((counted, drops)) = known.asked.take() else { return };
        let since = match (known.at, &known.counts) {
            (Some(at), Some(_)) => Since::Read(began.saturating_duration_since(at)),
            _ if is_born => Since::Birth,
            _ => Since::Ever,
        };
        let behind = ended.saturating_duration_since(counted);
        // Where there is no table there is no counter, and the next one will be new.
        let Reading { mut tallied, gaps } = reading.unwrap_or_default();
        let ahead = tallied.counted().saturating_sub(drops);
        if since != Since::Ever && ahead > 0 {
            // Packets dropped behind the drops that were counted, and before the rules were read: no
            // rule can have counted more too early.
            let since_report = late().get(&number).copied().unwrap_or(0);
            tallied.leave(ahead.min(known.dropped.saturating_add(since_report)));
        }
        let reading = FilterReading {
            since,
            drops,
            is_fresh: true,
            is_late: false,
            age: Duration::ZERO,
            took: known.behind + behind,
            ahead: known.ahead,
            is_first: known.at_start,
            earlier: tallied.earlier,
            counting: tallied.counting,
            more: tallied.more,
            silent: tallied.silent,
            more_silent: tallied.more_silent,
            changed: tallied.changed,
            unsure: tallied.unsure,
            gaps,
        };
        let now = tallied.now;
        known.ahead = match since {
            Since::Read(_) | Since::Birth => reading.counted().saturating_sub(drops),
            Since::Ever => 0,
        };
        (known.at_start, known.is_known) = (false, false);
        known.last = Some((counted, reading));
        (known.counts, known.at, known.behind) = (Some(Arc::new(now)), Some(began), behind);
    }

    /// Keeps the counters of as many namespaces as there is room for, those that were read last.
    fn forget(&mut self) {
        let count = |known: &Known| known.counts.as_ref().map_or(0, |counts| counts.len());
        let mut all: usize = self.known.values().map(count).sum();
        while all > MOST_COUNTERS {
            let with = self.known.iter_mut().filter(|(_, known)| known.counts.is_some());
            let Some((_, known)) = with.min_by_key(|(_, known)| known.at) else { return };
            all -= known.counts.take().map_or(0, |counts| counts.len());
        }
    }
}

/// How long a report may wait that is made every `interval`, or that is the last one.
pub(in crate::kernel) fn patience(interval: Duration, is_last: bool) -> Duration {
    match is_last {
        true => LAST_PATIENCE,
        false => (interval / 4).clamp(*PATIENCE.start(), *PATIENCE.end()),
    }
}

/// Reads namespace after namespace, until `limit` has passed.
fn read_all(
    root: &HostRoot,
    hasher: &RandomState,
    work: Vec<Work>,
    limit: Duration,
    to: &Sender<Answer>,
) {
    let until = Instant::now() + limit;
    for Work { number, netns: NetnsToRead { netns, cookie: then }, before } in work {
        let began = Instant::now();
        if began >= until {
            return;
        }
        // A thread of its own for each: it gives up its privileges.
        let read = thread::scope(|scope| {
            let read = || {
                netns.enter(|| {
                    if let (Some(then), Some(now)) = (then, cookie())
                        && then != now
                    {
                        return Err(io::ErrorKind::NotFound.into());
                    }
                    reading::read(root, before.as_deref(), hasher, until)
                })
            };
            thread::Builder::new()
                .name("rules".into())
                .spawn_scoped(scope, read)
                .and_then(|it| it.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())))
        });
        let read = match read {
            Ok(reading) => Some(Read { began, ended: Instant::now(), reading }),
            Err(error) => {
                log::debug!("not reading the rules of namespace {number}: {error}");
                None
            }
        };
        // Nobody waits any more when the run has ended.
        if to.send((number, read)).is_err() {
            return;
        }
    }
}
