//! What is attached to the kernel, and what is read from it for each report.
//!
//! Knows nothing of where reports go: the loops that own one do.

mod asked;
pub mod awaited;
mod followed;
pub mod meter;
pub mod pace;
pub mod reading;
mod requested;
mod tcpdump;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use caps::Capability;
use jiff::Timestamp;
use log::{debug, info};

use self::{
    asked::ResolvedNames,
    awaited::{Awaited, Interval, Selected},
    followed::Followed,
    meter::Meter,
    pace::Pace,
    requested::requested,
};
use crate::{
    diagnose::{self, knowledge},
    exit::Failure,
    kernel::{
        self, HostNames, HostRoot, Surroundings,
        evidence::{Collector, Unread},
        status::NO_REASONS,
    },
    privilege,
    probe::{self, KernelLog, Prepared, Probe, Requested},
    programs::are_host_files_elsewhere,
    render::words::Bytes,
    report::{
        build::Reporter,
        conntrack::ConntrackStats,
        facts::Netns,
        model::{End, Line, Report, Start},
        options::Options,
        sample::{Clock, Sample},
        snapshot::Snapshot,
        totals::Tracked,
        weighed::thin,
    },
    settings::{Attached, Reported, Samples},
    verbose,
};

/// Most namespaces of a run that are remembered as having ended unread.
const MAX_UNREAD: usize = 1024;

/// Samples for a report, from which number on those are forgotten that it would not look at.
const MOST_KEPT: usize = 16 << 10;
/// How long processes that were found for sockets are not looked for again, between two reports.
const OWNERS_KEPT: Duration = Duration::from_secs(1);

/// A program in the kernel that counts, and the names and the evidence of this host.
pub struct Session {
    probe: Probe,
    names: HostNames,
    /// Which notices of [`HostNames::notices`] were shown, or would help nobody.
    shown: [bool; 2],
    /// Of `--symbol`, the values about whose offsets something was shown.
    mistyped: BTreeSet<usize>,
    /// With `-v`, where it is permitted.
    meter: Option<Meter>,
    /// Whether to look for the causes of drops.
    findings: bool,
    /// Absent where findings are not requested, and until privileges were given up.
    evidence: Option<Collector>,
    /// What the reports to come need.
    capabilities: &'static [Capability],
    /// Whether filters leave out packets for anything but their namespace, or rows.
    narrowed: bool,
    /// Which network namespaces `--netns` selects.
    selected: Selected,
    followed: Followed,
    /// Namespaces that ended before their counters could be read.
    unread: BTreeSet<String>,
    /// Every drop is sampled.
    all: bool,
    /// Samples since the last report, as many as that needs.
    kept: Vec<Sample>,
    /// Samples of drops that came behind the last reading of the counters.
    early: Vec<Sample>,
    /// What was read for the next report.
    counted: Option<Counted>,
    /// When owners of sockets were looked for, and names of namespaces, with how long these hold
    /// between two reports.
    owners_at: Instant,
    names_at: Instant,
    names_kept: Duration,
    /// For the first lines, which also give the filters as typed.
    notices: Vec<String>,
    filters: Vec<String>,
    reporter: Reporter,
    pace: Pace,
}

/// The counters, as they were read for a report.
struct Counted {
    snapshot: Snapshot,
    /// The namespaces that were selected until then.
    selected: Interval,
}

impl Session {
    /// Attaches, and returns which namespaces to filter by are still to be looked for, by whoever
    /// owns the session. What else needs the capabilities of the caller comes next, then
    /// [`Session::give_up_privileges`].
    ///
    /// # Errors
    /// Why nothing can be counted.
    pub fn attach(attached: Attached, reported: &Reported) -> Result<(Self, Awaited), Failure> {
        if attached.verbose {
            verbose::enable();
        }
        privilege::preflight()?;
        // While the capabilities are there: the kernel decides what symbols show when they are
        // opened.
        let root = HostRoot::default();
        let mut names = HostNames::open(&root);
        // Meanwhile the kernel's types are read.
        let prepared = Prepared::new()?;
        let ResolvedNames { mut notices, netns } = asked::check(&attached, &root, &mut names)?;
        let requested = requested(&attached, &netns, &mut names)?;
        let probe = attach(prepared, &requested)?;
        let Attached { packets, keys, filters, by, samples, verbose, every, .. } = attached;
        notices.extend(every.map(|rate| {
            format!(
                "every drop is sampled, at most {rate} a second: what comes beyond is counted, and \
                 said to be not sampled"
            )
        }));
        if keys.need_reasons() && !probe.has_reason() {
            return Err(Failure::Kernel(format!("--reason cannot work: {}", NO_REASONS)));
        }
        let sampled = [(samples == Samples::Packets, "--pcap"), (every.is_some(), "--every")];
        let refused = sampled.into_iter().find(|(asked, _)| *asked && !probe.has_samples());
        if let Some((_, option)) = refused {
            return Err(Failure::Kernel(format!(
                "{option} cannot work: this kernel refuses the program that takes samples \
                 (`dropwatch doctor` shows why)"
            )));
        }
        let selected = Selected::new(requested.filter.0.netns);
        let mut later = probe.later().context("cannot filter by what is to come")?;
        let set = move |index, inum| later.set(index, inum);
        let host = kernel::host(&root);
        let followed = Followed::new(&root, &packets, &netns, names.namespaces());
        let awaited = Awaited::new(root, &packets, &netns, set, selected.clone());
        let narrowed = keys.are_set() || packets.are_within_netns();
        let names_places = by.iter().any(|by| by.names_places());
        let capabilities = match reported.findings {
            true => privilege::FOR_FINDINGS,
            false if probe.has_samples() || names_places || !awaited.is_empty() => {
                privilege::FOR_NAMESPACES
            }
            false => &[],
        };
        let options = Options {
            namespaces: probe.has_namespaces(),
            addresses: reported.addresses,
            stacks: reported.stacks,
            keys,
            packets_filtered: packets.parts() != 0,
            by,
        };
        let session = Self {
            probe,
            names,
            shown: [false; 2],
            mistyped: BTreeSet::new(),
            meter: if verbose { Meter::start() } else { None },
            findings: reported.findings,
            evidence: None,
            capabilities,
            narrowed,
            selected,
            followed,
            unread: BTreeSet::new(),
            all: every.is_some(),
            kept: Vec::new(),
            early: Vec::new(),
            counted: None,
            owners_at: Instant::now(),
            names_at: Instant::now(),
            names_kept: reported.names_kept,
            notices,
            filters,
            reporter: Reporter::new(host, options, knowledge::is_benign),
            pace: Pace::new(reported.interval),
        };
        Ok((session, awaited))
    }

    /// Keeps what the reports to come need, of the calling thread; call it before other threads
    /// are started. Then looks at the host for the first time: what was counted before the first
    /// interval is none of its business. `others` are those that whoever owns this needs besides.
    ///
    /// # Errors
    /// When they cannot be given up.
    pub fn give_up_privileges(&mut self, others: &[Capability]) -> Result<(), Failure> {
        let host_programs = match self.findings && are_host_files_elsewhere() {
            true => privilege::FOR_HOST_PROGRAMS,
            false => &[],
        };
        let kept = [self.capabilities, host_programs, others].concat();
        privilege::keep_only(&kept, || self.probe.is_readable())?;
        // Who is permitted all needs no advice to be: what stays hidden then, no user can see.
        self.shown = [&[Capability::CAP_SYS_PTRACE][..], privilege::FOR_NAMESPACES]
            .map(|needed| needed.iter().all(|capability| privilege::may_use(*capability)));
        if self.probe.has_namespaces() {
            self.names.namespaces().watch_newcomers();
        }
        if self.findings {
            let root = HostRoot::default();
            self.evidence =
                Some(Collector::new(&root, self.names.namespaces(), diagnose::watch_list()));
        }
        Ok(())
    }

    /// Messages of the kernel side, with `-v`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn take_log(&mut self) -> Result<Option<KernelLog>, Failure> {
        Ok(self.probe.take_log().transpose().context("cannot read diagnostics")?)
    }

    /// Whether every drop is sampled.
    pub fn samples_all(&self) -> bool {
        self.all
    }

    /// Monotonic time since attach.
    pub fn now(&self) -> Duration {
        self.probe.attached().elapsed()
    }

    /// The moment that is so long after attaching.
    pub fn moment(&self, since_attach: Duration) -> tokio::time::Instant {
        (self.probe.attached() + since_attach).into()
    }

    /// When, since attach, the next report is due.
    pub fn due(&self) -> Duration {
        self.pace.due(self.now())
    }

    /// Reports that were due and could not be made, since the last one.
    pub fn unreported(&self) -> u64 {
        self.pace.unreported(self.now())
    }

    /// Begins the grid of reports anew, now, and what a gate rests on.
    pub fn restart_pace(&mut self) {
        self.pace.restart(self.now());
        // What ended before the command was started says nothing of it.
        self.unread.clear();
    }

    /// The first line of the run.
    pub fn start(&mut self) -> Start {
        let mut notices = Surroundings::look(&HostRoot::default()).notices();
        let has_reason = self.probe.has_reason();
        if !has_reason {
            notices.push(NO_REASONS.to_owned());
        }
        notices.extend(self.probe.lacks().iter().map(ToString::to_string));
        notices.extend(self.names.status().notices(has_reason));
        notices.append(&mut self.notices);
        let filters = std::mem::take(&mut self.filters);
        let start = self.reporter.start(Timestamp::now(), self.pace.interval(), notices, filters);
        probe::give_back_memory();
        start
    }

    /// Reads the counters for the report that comes next, and what was sampled of their drops; with
    /// `lines`, each of these as a line of its own, too.
    ///
    /// # Errors
    /// When they cannot be read, or make no sense.
    pub fn read(&mut self, lines: bool) -> Result<Vec<Line>, Failure> {
        self.names.begin_report();
        (self.owners_at, self.names_at) = (Instant::now(), Instant::now());
        let since_attach = self.now();
        let wall = Timestamp::now();
        let selected = self.selected.end_interval();
        let names = &mut self.names;
        let counters = self.probe.read(|netns| names.namespaces().number(netns))?;
        self.names.counted();
        debug!("read {} counters in {:?}", counters.drops.len(), self.now() - since_attach);
        let names = &mut self.names;
        // Behind the counters, or the last drops would have their samples in the next report.
        let samples = self.probe.samples(|netns| names.namespaces().number(netns));
        let mut samples = samples.context("cannot read the samples")?;
        samples.splice(0..0, self.early.drain(..));
        // And what was dropped since is that one's.
        let read_at = u64::try_from(since_attach.as_nanos()).unwrap_or(u64::MAX);
        let until = self.probe.attached_at().saturating_add(read_at);
        (samples, self.early) = samples.into_iter().partition(|sample| sample.time < until);
        if !self.all {
            Sample::settle_carried(&mut samples);
        }
        // As soon as may be: a drop in between shows in one of them alone.
        if let Some(evidence) = &mut self.evidence {
            let sampled = samples.iter().chain(&self.kept).filter_map(|it| it.netns);
            let mut lossy: BTreeSet<u32> = sampled.collect();
            lossy.extend(self.reporter.namespaces_since(&counters));
            evidence.read(self.names.namespaces(), &lossy);
        }
        self.counted =
            Some(Counted { snapshot: Snapshot { since_attach, wall, counters }, selected });
        Ok(self.take(samples, lines))
    }

    /// What was sampled since the last call, between two reports, for a run that samples every drop.
    pub fn samples_so_far(&mut self, lines: bool) -> Vec<Line> {
        let names = &mut self.names;
        let samples = self.probe.samples_so_far(|netns| names.namespaces().number(netns));
        let samples: Vec<Sample> = self.early.drain(..).chain(samples).collect();
        if samples.is_empty() {
            return Vec::new();
        }
        if self.names_at.elapsed() >= self.names_kept {
            self.names.begin_report();
            (self.owners_at, self.names_at) = (Instant::now(), Instant::now());
        } else if self.owners_at.elapsed() >= OWNERS_KEPT {
            self.names.forget_owners();
            self.owners_at = Instant::now();
        }
        self.take(samples, lines)
    }

    fn take(&mut self, mut samples: Vec<Sample>, lines: bool) -> Vec<Line> {
        samples.retain(|sample| self.reporter.selects(sample.key, &mut self.names));
        self.names.find_owners(samples.iter().filter_map(|sample| sample.socket));
        let clock = Clock {
            attached: self.probe.attached_at(),
            since_attach: self.now(),
            wall: Timestamp::now(),
        };
        let listed = if lines { samples.as_slice() } else { &[] };
        let sampled = |sample| self.reporter.sampled(sample, &clock, &mut self.names);
        let lines = listed.iter().map(sampled).map(Box::new).map(Line::Sample).collect();
        self.kept.append(&mut samples);
        if self.kept.len() >= MOST_KEPT {
            thin(&mut self.kept, MOST_KEPT / 2);
        }
        lines
    }

    /// Reports what was [`read`](Self::read) last; `not_captured` is how many of the samples' packets a
    /// capture lacks, since the run began.
    ///
    /// # Errors
    /// When the counters make no sense, or were not read.
    pub fn report(&mut self, not_captured: u64) -> Result<Report, Failure> {
        let samples = std::mem::take(&mut self.kept);
        let counted = self.counted.take().context("nothing was read for a report")?;
        let Counted { mut snapshot, selected } = counted;
        let since_attach = snapshot.since_attach;
        if let Some(meter) = &mut self.meter {
            meter.log(&self.probe, since_attach);
        }
        let counters = &mut snapshot.counters;
        counters.lost.pcap = not_captured;
        let intervals = self.pace.advance(since_attach);
        let fallen = self.reporter.fallen();
        let mut report = self.reporter.report(&snapshot, intervals, &samples, &mut self.names);
        self.diagnose(&mut report, &selected);
        if self.reporter.fallen() > fallen {
            return Err(anyhow!("a kernel counter fell, which cannot be: not counting on").into());
        }
        for (index, notice) in self.reporter.without_drops(&mut self.names) {
            if self.mistyped.insert(index) {
                verbose::to_stderr(&notice);
            }
        }
        for news in self.followed.ended(&HostRoot::default(), self.names.namespaces()) {
            verbose::to_stderr(&news);
        }
        for (notice, shown) in self.names.notices().into_iter().zip(&mut self.shown) {
            // Once: it holds for the whole run.
            if let (Some(notice), false) = (notice, *shown) {
                verbose::to_stderr(&notice);
                *shown = true;
            }
        }
        Ok(report)
    }

    /// Marks what samples and evidence show to be harmless, and has the rules make findings of the
    /// evidence that was read with the report's counters.
    fn diagnose(&mut self, report: &mut Report, selected: &Interval) {
        let now = self.evidence.as_ref().map(Collector::now);
        let unclaimed = diagnose::settle_multicast(report, self.reporter.ends(), now);
        self.reporter.add_benign(unclaimed);
        let Some(evidence) = &self.evidence else { return };
        let devices = self.reporter.devices();
        let sent = diagnose::settle(report, devices, evidence.before(), evidence.now());
        self.reporter.add_benign(sent);
        let filtered = diagnose::filtered(report, evidence.before(), evidence.now());
        if let Some(evidence) = &mut self.evidence {
            evidence.read_filters(&filtered, self.pace.interval());
        }
        let Some(evidence) = &self.evidence else { return };
        // Rules may ask this host about the packets that were sampled.
        let mut answer = evidence.answerer(self.pace.interval());
        report.findings =
            diagnose::findings(report, evidence.before(), evidence.now(), &mut answer);
        // The counters of a namespace whose drops are left out would be held against those of
        // others.
        report.findings.retain(|it| {
            it.netns.as_ref().is_none_or(|it| selected.has(self.names.known(it.number())))
        });
        if self.narrowed {
            // What rests on none of the selected drops is about other packets, or cannot be told.
            report.findings.retain(|it| it.explains.is_some_and(|explains| explains.drops > 0));
            return;
        }
        let Unread { known, passed } = evidence.unread();
        let known = known
            .iter()
            .filter(|it| selected.has(self.names.known(it.number())))
            .map(Netns::to_string);
        // What has no number any more passes where no namespace is named.
        let passed = passed.iter().filter(|_| selected.has(dropwatch_common::Netns::NONE)).cloned();
        let room = MAX_UNREAD.saturating_sub(self.unread.len());
        self.unread.extend(known.chain(passed).take(room));
    }

    /// Connection tracking at the end of the last report; nothing without findings.
    pub fn tracked(&self) -> Vec<Tracked> {
        let namespaces =
            self.evidence.iter().flat_map(|evidence| evidence.now().namespaces.values());
        let tracked = namespaces.filter_map(|namespace| {
            let (netns, stats) = (namespace.netns.clone()?, namespace.conntrack.as_ref()?);
            let ConntrackStats { entries, limit, counters, .. } = *stats;
            Some(Tracked { netns, entries, limit, counters })
        });
        tracked.collect()
    }

    /// Detaches, and waits for programs that are under way. The last report comes next.
    pub fn detach(&mut self, log: Option<&mut KernelLog>) {
        self.probe.detach();
        if let Some(log) = log {
            log.flush();
        }
        self.look_everywhere();
    }

    /// Has the next report leave out no namespace, however quiet: what it does not see, a later one
    /// would be charged with.
    pub fn look_everywhere(&mut self) {
        if let Some(evidence) = &mut self.evidence {
            evidence.look_everywhere();
        }
    }

    /// The namespaces that count and that ended before their counters could be read.
    pub fn unread(&self) -> &BTreeSet<String> {
        &self.unread
    }

    /// The last line of the run.
    pub fn end(&self) -> End {
        self.reporter.end(Timestamp::now())
    }
}

fn attach(prepared: Prepared, requested: &Requested) -> Result<Probe, Failure> {
    let probe = prepared.attach(requested)?;
    for attempt in probe.attempts() {
        match &attempt.refusal {
            Some(refusal) => info!("attaching {}: {refusal}", attempt.candidate),
            None => info!("attaching {}: attached", attempt.candidate),
        }
    }
    if let Some(memory) = probe.kernel_memory() {
        debug!("the counters take {} in the kernel", Bytes(memory));
    }
    Ok(probe)
}
