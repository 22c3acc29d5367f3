//! A live run: attach, report on every tick, end on a signal or when told to.

use std::{future::pending, io, time::Duration};

use anyhow::{Context, anyhow};
use caps::Capability;
use jiff::Timestamp;
use log::{debug, info};
use tokio::{
    runtime,
    time::{sleep_until, timeout},
};

use crate::{
    capture::Capture,
    cost::Meter,
    diagnose::{self, knowledge},
    doctor,
    exit::Failure,
    kernel::{self, HostNames, HostRoot, evidence::Collector},
    output::{Output, ended_by_reader},
    pace::Pace,
    privilege,
    probe::{self, KernelLog, Prepared, Probe, Wanted},
    render::{Format, Renderer, losses},
    report::{
        build::Reporter,
        groups::By,
        model::{Line, Report},
        options::Options,
        sample::{Clock, Sample},
        snapshot::Snapshot,
    },
    settings::{Pcap, Target, Watch},
    stop::Stop,
    verbose,
    wanted::wanted,
};

/// How long the end of a run waits for a reader that does not read.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// Longer than any run: the end of one that has no set duration.
const FOREVER: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// Watches drops until a signal, the count or the duration ends the run.
pub fn watch(settings: &Watch) -> Result<(), Failure> {
    if settings.verbose {
        verbose::enable();
    }
    privilege::preflight()?;
    // While the capabilities are there: the kernel decides what symbols show when they are opened.
    let root = HostRoot::default();
    let mut names = HostNames::open(&root);
    // Meanwhile the kernel's types are read.
    let prepared = Prepared::new()?;
    let probe = attach(prepared, &wanted(settings, &mut names)?)?;
    if settings.keys.need_reasons() && !probe.has_reason() {
        return Err(Failure::Kernel(format!("--reason cannot work: {}", doctor::NO_REASONS)));
    }
    // While the capabilities are there, too: the file may lie in someone else's folder.
    let capture = match &settings.pcap {
        Some(_) if !probe.has_samples() => {
            return Err(Failure::Kernel(
                "--pcap cannot work: this kernel refuses the program that takes samples \
                 (`dropwatch doctor` shows why)"
                    .to_owned(),
            ));
        }
        Some(pcap) => Some(Capture::open(pcap)?),
        None => None,
    };
    let meter = if settings.verbose { Meter::start() } else { None };
    let names_places = settings.by.iter().any(|by| matches!(by, By::Netns | By::Iface));
    let kept = match settings.findings {
        true => privilege::FOR_FINDINGS,
        false if probe.has_samples() || names_places => privilege::FOR_PLACES,
        false => &[],
    };
    privilege::keep_only(kept, || probe.is_readable())?;
    // Who is permitted all needs no advice to be: what stays hidden then, no user can see.
    let permitted = [&[Capability::CAP_SYS_PTRACE][..], privilege::FOR_PLACES]
        .map(|needed| needed.iter().all(|capability| privilege::may_use(*capability)));
    let host = kernel::host(&root);
    // What was counted before the first interval is none of its business.
    let evidence = settings.findings.then(|| Collector::new(&root, names.namespaces()));

    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let options = Options {
        addresses: settings.show.addresses,
        stacks: settings.stacks,
        keys: settings.keys.clone(),
        packets_filtered: settings.packets.parts() != 0,
        by: settings.by.clone(),
    };
    let result = runtime.block_on(async {
        let run = Run {
            reporter: Reporter::new(host, options, knowledge::is_benign),
            renderer: settings.show.renderer(),
            output: match &settings.pcap {
                Some(Pcap { target: Target::Stdout, .. }) => Output::stderr(),
                _ => Output::stdout(),
            }
            .context("cannot use the output")?,
            capture,
            pace: Pace::new(settings.interval),
            names,
            told: permitted,
            meter,
            evidence,
            probe,
            settings,
        };
        run.watch().await
    });
    // A write that a stalled reader holds up must not hold up the end.
    runtime.shutdown_background();
    result
}

fn attach(prepared: Prepared, wanted: &Wanted) -> Result<Probe, Failure> {
    let probe = prepared.attach(wanted)?;
    for attempt in probe.attempts() {
        match &attempt.refusal {
            Some(refusal) => info!("attaching {}: {refusal}", attempt.candidate),
            None => info!("attaching {}: attached", attempt.candidate),
        }
    }
    Ok(probe)
}

/// Everything that a run holds.
struct Run<'a> {
    settings: &'a Watch,
    probe: Probe,
    names: HostNames,
    /// Which notices of [`HostNames::notices`] were given, or would help nobody.
    told: [bool; 2],
    /// With `-v`, where it is permitted.
    meter: Option<Meter>,
    /// Absent where nobody asks for findings.
    evidence: Option<Collector>,
    reporter: Reporter,
    pace: Pace,
    renderer: Box<dyn Renderer>,
    output: Output,
    capture: Option<Capture>,
}

/// What the loop woke up for.
enum Wake {
    Tick,
    Stop,
    Written(io::Result<()>),
}

impl Run<'_> {
    async fn watch(mut self) -> Result<(), Failure> {
        let mut stop = Stop::new().context("cannot listen to signals")?;
        let mut log = self.probe.take_log().transpose().context("cannot read diagnostics")?;
        let notices = self.notices();
        self.start(notices).await?;
        probe::give_back_memory();
        let ends_at = self.settings.duration.unwrap_or(FOREVER);
        let mut reports = 0;
        // Whoever had enough packets ends the run, too; the reports end as always.
        while !self.capture.as_ref().is_some_and(Capture::is_closed) {
            // A reader that has not taken the last report gets no new one before it has.
            let busy = self.is_busy();
            let due = if busy { ends_at } else { self.pace.due(self.now()).min(ends_at) };
            let until = self.probe.attached() + due;
            let wake = tokio::select! {
                biased;
                () = stop.requested() => Wake::Stop,
                written = self.flushed(), if busy => Wake::Written(written),
                () = sleep_until(until.into()) => Wake::Tick,
                () = next_log(&mut log) => continue,
            };
            match wake {
                Wake::Written(result) => match ended_by_reader(result)? {
                    true => return self.captured(),
                    false => continue,
                },
                Wake::Tick if due < ends_at && Some(reports + 1) != self.settings.count => {
                    reports += 1;
                    let taken = self.samples()?;
                    if let Some(capture) = &mut self.capture {
                        capture.write(&taken.lines).await;
                    }
                    let (mut lines, report) = self.report(taken)?;
                    lines.push(Line::Report(report));
                    if ended_by_reader(self.write(lines).await)? {
                        return self.captured();
                    }
                }
                Wake::Tick | Wake::Stop => break,
            }
        }
        self.finish(&mut stop, log.as_mut()).await
    }

    /// Monotonic time since attach.
    fn now(&self) -> Duration {
        self.probe.attached().elapsed()
    }

    /// What this host cannot show.
    fn notices(&mut self) -> Vec<String> {
        let mut notices = Vec::new();
        let has_reason = self.probe.has_reason();
        if !has_reason {
            notices.push(doctor::NO_REASONS.to_owned());
        }
        notices.extend(self.names.status().notices(has_reason));
        notices
    }

    async fn start(&mut self, notices: Vec<String>) -> Result<(), Failure> {
        let Watch { interval, filters, .. } = self.settings;
        let start = self.reporter.start(Timestamp::now(), *interval, notices, filters.clone());
        let lines = vec![Line::Start(start)];
        if let Some(capture) = &mut self.capture {
            capture.write(&lines).await;
        }
        self.write(lines).await.context("cannot write the output")?;
        Ok(())
    }

    /// True while a reader has not taken what was last written for it.
    fn is_busy(&self) -> bool {
        self.output.is_busy() || self.capture.as_ref().is_some_and(Capture::is_busy)
    }

    /// Waits until the readers have taken it. May be dropped and called again.
    async fn flushed(&mut self) -> io::Result<()> {
        // Packets first: reports may end the run, and must not leave a part of a packet behind.
        if let Some(capture) = &mut self.capture {
            capture.flushed().await;
        }
        self.output.flushed().await
    }

    /// What was sampled since the last report.
    fn samples(&mut self) -> Result<Taken, Failure> {
        let mut samples = self.probe.samples().context("cannot read the samples")?;
        self.names.begin_report();
        samples.retain(|sample| self.reporter.wants(sample.key, &mut self.names));
        self.names.find_owners(samples.iter().filter_map(|sample| sample.socket));
        let clock = Clock {
            attached: self.probe.attached_at(),
            since_attach: self.now(),
            wall: Timestamp::now(),
        };
        let wanted = self.settings.sample_lines || self.capture.is_some();
        let told = if wanted { samples.as_slice() } else { &[] };
        let sampled = |sample| self.reporter.sampled(sample, &clock, &mut self.names);
        let lines = told.iter().map(sampled).map(Box::new).map(Line::Sample).collect();
        Ok(Taken { samples, lines })
    }

    /// Reads the counters and reports the time since the last report: its samples, if they are to
    /// be lines of their own, and the report. What is sampled is counted already.
    fn report(&mut self, taken: Taken) -> Result<(Vec<Line>, Report), Failure> {
        let since_attach = self.now();
        let wall = Timestamp::now();
        let mut counters = self.probe.read()?;
        self.names.counted();
        debug!("read {} counters in {:?}", counters.drops.len(), self.now() - since_attach);
        if let Some(meter) = &mut self.meter {
            meter.tell(&self.probe, since_attach);
        }
        counters.lost.pcap = self.capture.as_ref().map_or(0, Capture::lost);
        // Next to each other: what is counted in between shows in one of them alone.
        if let Some(evidence) = &mut self.evidence {
            let sampled = taken.samples.iter().filter_map(|sample| sample.netns).collect();
            evidence.read(self.names.namespaces(), &sampled);
        }
        let snapshot = Snapshot { since_attach, wall, counters };
        let intervals = self.pace.advance(since_attach);
        let fallen = self.reporter.fallen();
        let mut report =
            self.reporter.report(&snapshot, intervals, &taken.samples, &mut self.names);
        if let Some(evidence) = &self.evidence {
            report.findings = diagnose::findings(&report, evidence.before(), evidence.now());
        }
        if self.reporter.fallen() > fallen {
            return Err(anyhow!("a kernel counter fell, which cannot be: not counting on").into());
        }
        for (notice, told) in self.names.notices().into_iter().zip(&mut self.told) {
            // Once: it holds for the whole run.
            if let (Some(notice), false) = (notice, *told) {
                verbose::to_stderr(&notice);
                *told = true;
            }
        }
        let lines = if self.settings.sample_lines { taken.lines } else { Vec::new() };
        Ok((lines, report))
    }

    /// Renders lines and hands them to the writer, as one write.
    async fn write(&mut self, lines: Vec<Line>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for line in lines {
            if self.settings.show.format == Format::Classic {
                self.aside(&line);
            }
            self.renderer.render(&self.settings.show.view.line(line), &mut bytes)?;
        }
        self.output.write(bytes).await
    }

    /// What the classic format has no line for goes to standard error.
    fn aside(&self, line: &Line) {
        let asides = match line {
            Line::Start(start) => start.notices.clone(),
            Line::Report(report) => losses(&report.lost).into_iter().collect(),
            Line::Sample(_) | Line::End(_) => Vec::new(),
        };
        for aside in asides {
            verbose::to_stderr(&aside);
        }
    }

    /// Detaches, reports what is left, and waits for the readers to take it.
    async fn finish(mut self, stop: &mut Stop, log: Option<&mut KernelLog>) -> Result<(), Failure> {
        self.probe.detach();
        if let Some(log) = log {
            log.flush();
        }
        if let Some(evidence) = &mut self.evidence {
            evidence.look_everywhere();
        }
        let taken = self.samples()?;
        // Before the report, which says what is missing.
        if let Some(capture) = &mut self.capture {
            let last = async {
                capture.write(&taken.lines).await;
                capture.flushed().await;
            };
            let written = tokio::select! {
                written = timeout(LAST_WRITE, last) => written.is_ok(),
                () = stop.requested() => false,
            };
            if !written {
                capture.give_up();
            }
        }
        let (mut lines, report) = self.report(taken)?;
        let unread = format!("{} drops of the last {}s", report.drops, report.interval_s);
        let end = self.reporter.end(Timestamp::now());
        let last = async {
            lines.extend([Line::Report(report), Line::End(end)]);
            self.write(lines).await?;
            self.output.flushed().await
        };
        let written = tokio::select! {
            written = timeout(LAST_WRITE, last) => written.ok(),
            () = stop.requested() => None,
        };
        match written {
            Some(result) => ended_by_reader(result)?,
            None => {
                return Err(
                    anyhow!("the reader of the output has stalled: {unread} not shown").into()
                );
            }
        };
        self.captured()
    }

    /// Fails if the capture lacks packets.
    fn captured(&self) -> Result<(), Failure> {
        self.capture.as_ref().map_or(Ok(()), Capture::end)
    }
}

/// Samples, and their lines where anyone wants them.
struct Taken {
    samples: Vec<Sample>,
    lines: Vec<Line>,
}

async fn next_log(log: &mut Option<KernelLog>) {
    match log {
        // Diagnostics that cannot be read must not end the run.
        Some(reader) => {
            if reader.log_next().await.is_err() {
                *log = None;
            }
        }
        None => pending().await,
    }
}
