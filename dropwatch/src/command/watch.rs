//! A live run: attach, report on every tick; end on a signal, after the requested time or number of
//! reports, or with a command.

mod incidents;
mod sums;

use std::{
    future::pending,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use tokio::{runtime, time::sleep_until};

use self::{
    incidents::{Incident, Incidents},
    sums::Sums,
};
use crate::{
    exit::Failure,
    notify, privilege,
    probe::KernelLog,
    report::model::{End, Line, Report},
    session::{Session, awaited::Awaited, reading::Reading},
    settings::{Reported, Sinks, Watch, WatchedCommand},
    sink::{outputs::Outputs, serve::Exporter},
    supervise::{
        Supervised,
        launch::Launcher,
        signals::{Hangup, Stop},
        user::Caller,
    },
    verbose,
};

/// Longer than any run: the end of one that has no set duration.
const FOREVER: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);
/// How often to look whether a recording that holds reports back can be written at all.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How often samples are collected where every drop is one: soon enough for whoever watches them
/// come, and for the ring buffer, which has room for those of a second.
const COLLECT: Duration = Duration::from_millis(50);

/// Watches drops until a signal, the count or the duration ends the run.
///
/// # Errors
/// Why it ended early, or a limit that was exceeded.
pub fn watch(settings: Watch) -> Result<(), Failure> {
    let Watch { attached, reported, sinks } = settings;
    let attached = Session::attach(attached, &reported)?;
    live(&reported, &sinks, attached, None).map(drop)
}

/// Watches drops while a command runs; returns the status that stands for the command's.
///
/// # Errors
/// Why dropwatch failed; a command that was started has ended by then. Or a limit that was exceeded.
pub fn run(settings: Watch, command: &WatchedCommand) -> Result<u8, Failure> {
    let Watch { attached, reported, sinks } = settings;
    let attached = Session::attach(attached, &reported)?;
    // It keeps the privileges of this moment, to become another user with.
    let launcher = Launcher::new(command)?;
    let ended = live(&reported, &sinks, attached, Some((command, launcher)))?;
    Ok(ended.unwrap_or_default())
}

fn live(
    reported: &Reported,
    sinks: &Sinks,
    (mut session, awaited): (Session, Awaited),
    command: Option<(&WatchedCommand, Launcher)>,
) -> Result<Option<u8>, Failure> {
    // While the capabilities are there: files may lie in someone else's folder, ports may be low.
    let outputs = Outputs::open(sinks)?;
    let bind = |metrics| Exporter::bind(metrics, reported.interval);
    let exporter = sinks.metrics.map(bind).transpose()?;
    // Log rotation has the recording go on in a new file; a command's run has none.
    let reopens = sinks.record.is_some() && command.is_none();
    let for_sudo = reopens && Caller::of_sudo()?.is_some();
    let kept = match command {
        Some(_) => privilege::FOR_SIGNALS,
        None if for_sudo => privilege::FOR_FILES,
        None => &[],
    };
    session.give_up_privileges(kept)?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let result = runtime.block_on(async {
        let sums = Sums::new(reported, command.is_some());
        let command = command.map(|(command, launcher)| Supervised::new(command, launcher));
        let command = command.transpose().context("cannot listen to signals")?;
        let hangup = reopens.then(Hangup::new).transpose().context("cannot listen to signals")?;
        let incidents = Incidents { command, hangup, awaited };
        if let Some(exporter) = &exporter {
            exporter.serve()?;
        }
        let collect = session.samples_all().then(Instant::now);
        let session = Reading::new(session);
        let shown = 0;
        let run =
            Run { reported, sinks, session, outputs, exporter, incidents, sums, collect, shown };
        run.watch().await
    });
    // A write that a stalled reader holds up must not hold up the end.
    runtime.shutdown_background();
    result
}

/// Everything that a run holds.
struct Run<'a> {
    reported: &'a Reported,
    sinks: &'a Sinks,
    session: Reading<Session>,
    outputs: Outputs<'a>,
    exporter: Option<Exporter>,
    incidents: Incidents<'a>,
    sums: Sums,
    /// When to collect samples, where every drop is one.
    collect: Option<Instant>,
    /// Samples that were handed on, each by itself.
    shown: u64,
}

/// What the loop woke up for.
enum Wake {
    Tick,
    Stop,
    Written(Result<(), Failure>),
    Incident(Incident),
    /// Every drop is sampled, and it is time to see which there were.
    Collect,
}

impl Run<'_> {
    async fn watch(mut self) -> Result<Option<u8>, Failure> {
        let mut stop = Stop::new().context("cannot listen to signals")?;
        let mut log = self.session.held().take_log()?;
        let followed = self.follow(&mut stop, &mut log).await;
        if let Err(failure) = followed {
            let command = self.incidents.command;
            if let Some(command) = command.filter(|command| command.starts_at().is_none()) {
                verbose::to_stderr(&format!("{failure}; waiting for the command"));
                command.outlive().await;
            }
            return Err(failure);
        }
        let status = self.incidents.command.as_ref().map(Supervised::code);
        if status.is_some() {
            // Signals so far were the command's; from here on they are for dropwatch.
            stop = Stop::new().context("cannot listen to signals")?;
        }
        self.finish(&mut stop, log.as_mut()).await?;
        let unproved = self.reported.limits.unproved(self.session.held().unread());
        if let Some(unproved) = unproved {
            verbose::to_stderr(&unproved);
        }
        let never = never_came(self.incidents.awaited.never());
        let sums = self.sums.check(self.reported.limits);
        match never {
            // A gate on what was never there has let nothing pass, and refused nothing.
            Some(never) if sums.is_ok() && self.reported.limits.are_set() => {
                Err(anyhow!("{never}: the limits cannot be decided").into())
            }
            never => {
                never.iter().for_each(|never| verbose::to_stderr(never));
                sums.map(|()| status)
            }
        }
    }

    /// Reports on every tick until the end.
    async fn follow(
        &mut self,
        stop: &mut Stop,
        log: &mut Option<KernelLog>,
    ) -> Result<(), Failure> {
        let start = self.session.held().start();
        self.outputs.capture(&[Line::Start(start.clone())]).await;
        self.outputs.write(vec![Line::Start(start)]).await?;
        match &self.incidents.command {
            Some(command) if command.baseline().is_none() => self.start_command().await,
            Some(_) => {}
            None => notify::ready(),
        }
        let ends_at = self.reported.duration.unwrap_or(FOREVER);
        let mut reports = 0;
        loop {
            match &self.incidents.command {
                // Its output is what counts: nobody need read the reports.
                Some(command) if command.is_over() => break,
                None if self.outputs.are_over() => break,
                _ => {}
            }
            if self.has_shown_enough() {
                break;
            }
            // A reader that has not taken the last report gets no new one before it has.
            let busy = self.outputs.are_busy();
            let starts_at = self.incidents.command.as_ref().and_then(Supervised::starts_at);
            let next = starts_at.unwrap_or_else(|| self.session.held().due());
            // An end or a start that comes with a report is not held back with it for ever.
            let is_awaited = starts_at.is_some() || self.reported.count.is_some();
            let due = match busy {
                true if is_awaited => self.session.held().now() + LOOK_AGAIN,
                true => ends_at,
                false => next,
            };
            let due = due.min(ends_at);
            let until = self.session.held().moment(due);
            let alone = self.incidents.command.is_none();
            // While a reader is slow, the ring buffer keeps what it has room for.
            let collect = self.collect.filter(|_| !busy);
            let wake = tokio::select! {
                biased;
                // Before the end: after log rotation the last lines belong into the new file.
                incident = self.incidents.next() => Wake::Incident(incident),
                () = stop.requested(), if alone => Wake::Stop,
                written = self.outputs.flushed(), if busy => Wake::Written(written),
                () = reached(collect) => Wake::Collect,
                () = sleep_until(until) => Wake::Tick,
                () = next_log(log) => continue,
            };
            match wake {
                Wake::Written(written) => written?,
                Wake::Incident(incident) => self.incidents.act(&incident, &self.outputs)?,
                Wake::Collect => self.collect().await?,
                Wake::Tick if busy && due < ends_at => {
                    if self.is_past_writing(starts_at, reports)? {
                        break;
                    }
                }
                Wake::Tick if due < ends_at && Some(reports + 1) != self.reported.count => {
                    reports += 1;
                    let starts =
                        self.incidents.command.as_ref().and_then(Supervised::starts_at).is_some();
                    if starts {
                        // The baseline ends here: what happened in it is not the command's.
                        self.session.held().look_everywhere();
                    }
                    let lines = self.report(starts).await?;
                    if starts {
                        self.start_command().await;
                    }
                    self.outputs.write(lines).await?;
                }
                Wake::Tick | Wake::Stop => break,
            }
        }
        Ok(())
    }

    /// Whether the last report is due while the recording cannot be written: on a full disk, a run of
    /// so many reports ends when its last one is due. A reader that is slow is waited for.
    ///
    /// # Errors
    /// Why it cannot be, where the command is to start: what is dropped while it runs would be in no
    /// report of its own.
    fn is_past_writing(&self, starts_at: Option<Duration>, reports: u64) -> Result<bool, Failure> {
        let Some(cause) = self.outputs.failing_record() else { return Ok(false) };
        let session = self.session.held();
        if starts_at.is_some_and(|start| session.now() >= start) {
            return Err(anyhow!("cannot write to {cause}; the command was not started").into());
        }
        let due = reports.saturating_add(session.unreported());
        Ok(self.reported.count.is_some_and(|count| due >= count))
    }

    /// Starts the command, and the grid of reports with it.
    async fn start_command(&mut self) {
        if let Some(command) = &mut self.incidents.command {
            command.start().await;
            self.session.held().restart_pace();
            if !command.is_over() {
                notify::ready();
            }
        }
    }

    /// Reads on another thread, and acts on what happens meanwhile.
    async fn read<T: Send + 'static>(
        &mut self,
        read: impl FnOnce(&mut Session) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        self.incidents.read(&self.session, &self.outputs, read).await?
    }

    /// Whether as many drops were shown as were asked for.
    fn has_shown_enough(&self) -> bool {
        self.reported.shown.is_some_and(|most| self.shown >= most)
    }

    /// Leaves of samples as many as are to be shown.
    fn limit(&mut self, samples: &mut Vec<Line>) {
        if let Some(most) = self.reported.shown {
            let left = most.saturating_sub(self.shown);
            samples.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        }
        self.shown += samples.len() as u64;
    }

    /// Hands on what was sampled since the last time, between two reports.
    async fn collect(&mut self) -> Result<(), Failure> {
        let listed = self.outputs.list_samples();
        let mut samples = self.read(move |session| Ok(session.samples_so_far(listed))).await?;
        self.collect = Some(Instant::now() + COLLECT);
        self.limit(&mut samples);
        if samples.is_empty() {
            return Ok(());
        }
        self.outputs.capture(&samples).await;
        if self.sinks.sample_lines {
            self.outputs.write(samples).await?;
        }
        Ok(())
    }

    /// The lines of the time since the last report, which is the baseline or not.
    async fn report(&mut self, baseline: bool) -> Result<Vec<Line>, Failure> {
        let listed = self.outputs.list_samples();
        let mut lines = self.read(move |session| session.read(listed)).await?;
        self.limit(&mut lines);
        self.outputs.capture(&lines).await;
        let not_captured = self.outputs.not_captured();
        let report = self.read(move |session| session.report(not_captured));
        let mut report = report.await?;
        self.count(&mut report, baseline);
        Ok(self.lines(lines, report))
    }

    fn count(&mut self, report: &mut Report, baseline: bool) {
        if baseline {
            report.baseline = true;
            report.intervals = 1;
        }
        self.sums.add(report);
        if let Some(exporter) = &self.exporter {
            let tracked = self.session.held().tracked();
            exporter.update(|totals| totals.add(report, tracked));
        }
    }

    fn lines(&self, samples: Vec<Line>, report: Report) -> Vec<Line> {
        let mut lines = if self.sinks.sample_lines { samples } else { Vec::new() };
        lines.push(Line::Report(report));
        lines
    }

    /// Detaches, reports what is left, and waits for the readers to take it.
    async fn finish(
        &mut self,
        stop: &mut Stop,
        log: Option<&mut KernelLog>,
    ) -> Result<(), Failure> {
        notify::stopping();
        self.session.held().detach(log);
        self.incidents.awaited.give_up();
        let listed = self.outputs.list_samples();
        let mut lines = self.read(move |session| session.read(listed)).await?;
        self.limit(&mut lines);
        // Before the report, which says what is missing.
        self.outputs.capture_last(&lines, stop.requested()).await;
        let not_captured = self.outputs.not_captured();
        let report = self.read(move |session| session.report(not_captured));
        let mut report = report.await?;
        let baseline = self.incidents.command.as_ref().is_some_and(|it| it.starts_at().is_some());
        self.count(&mut report, baseline);
        let unread = format!("{} drops of the last {}s", report.drops, report.interval_s);
        let mut end: End = self.session.held().end();
        end.run =
            self.incidents.command.as_ref().map(|it| Box::new(it.ran(self.sums.summing.summary())));
        let mut lines = self.lines(lines, report);
        lines.push(Line::End(end));
        self.outputs.write_last(lines, &unread, stop.requested()).await?;
        self.outputs.end()
    }
}

/// Waits for a moment; for ever where there is none.
async fn reached(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => pending().await,
    }
}

/// That these network namespaces, which were to be counted, never came.
fn never_came(names: &[String]) -> Option<String> {
    let them = match names {
        [] => return None,
        [name] => format!("the network namespace {name}"),
        names => format!("the network namespaces {}", names.join(", ")),
    };
    Some(format!("{them} never came, so nothing was counted there"))
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
