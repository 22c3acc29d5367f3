//! A live run: attach, report on every tick, end on a signal, when told to, or with a command.

use std::{future::pending, time::Duration};

use anyhow::Context;
use tokio::{
    runtime,
    time::{Instant, sleep_until},
};

use crate::{
    exit::Failure,
    notify, privilege,
    probe::KernelLog,
    report::{
        model::{End, Line, Report},
        number::exact_per_second,
        summary::Summing,
    },
    session::{
        Session, Taken,
        reading::{Reading, meanwhile},
    },
    settings::{Command, Limits, Reported, Sinks, Watch},
    sink::{outputs::Outputs, serve::Exporter},
    supervise::{
        Event, Supervised,
        launch::Launcher,
        signals::{Hangup, Stop},
        user::Caller,
    },
    verbose,
};

/// Longer than any run: the end of one that has no set duration.
const FOREVER: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// Watches drops until a signal, the count or the duration ends the run.
///
/// # Errors
/// Why it ended early, or a limit that was exceeded.
pub fn watch(settings: Watch) -> Result<(), Failure> {
    let Watch { attached, reported, sinks } = settings;
    let session = Session::attach(attached, &reported)?;
    live(&reported, &sinks, session, None).map(drop)
}

/// Watches drops while a command runs; returns the status that stands for the command's.
///
/// # Errors
/// Why dropwatch failed; a command that was started has ended by then. Or a limit that was exceeded.
pub fn run(settings: Watch, command: &Command) -> Result<u8, Failure> {
    let Watch { attached, reported, sinks } = settings;
    let session = Session::attach(attached, &reported)?;
    // It keeps the privileges of this moment, to become another user with.
    let launcher = Launcher::new(command)?;
    let ended = live(&reported, &sinks, session, Some((command, launcher)))?;
    Ok(ended.unwrap_or_default())
}

fn live(
    reported: &Reported,
    sinks: &Sinks,
    mut session: Session,
    command: Option<(&Command, Launcher)>,
) -> Result<Option<u8>, Failure> {
    // While the capabilities are there: files may lie in someone else's folder, ports may be low.
    let outputs = Outputs::open(sinks)?;
    let bind = |address| Exporter::bind(address, reported.interval);
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
        let command = command.map(|(command, launcher)| Supervised::new(command, launcher));
        let command = command.transpose().context("cannot listen to signals")?;
        if let Some(exporter) = &exporter {
            exporter.serve()?;
        }
        let sums = Sums::new(reported, command.is_some());
        let session = Reading::new(session);
        let run = Run { reported, sinks, session, outputs, exporter, command, sums };
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
    command: Option<Supervised<'a>>,
    sums: Sums,
}

/// What the loop woke up for.
enum Wake {
    Tick,
    Stop,
    Written(Result<(), Failure>),
    Reopen,
    Command(Event),
    /// For namespaces that are still to come.
    Look,
}

impl Run<'_> {
    async fn watch(mut self) -> Result<Option<u8>, Failure> {
        let mut stop = Stop::new().context("cannot listen to signals")?;
        let mut hangup = match self.sinks.record {
            Some(_) if self.command.is_none() => Some(Hangup::new()),
            _ => None,
        }
        .transpose()
        .context("cannot listen to signals")?;
        let mut log = self.session.held().take_log()?;
        let followed = self.follow(&mut stop, &mut hangup, &mut log).await;
        if let Err(failure) = followed {
            if let Some(command) = self.command {
                verbose::to_stderr(&format!("{failure}; waiting for the command"));
                command.outlive().await;
            }
            return Err(failure);
        }
        let status = self.command.as_ref().map(Supervised::code);
        if status.is_some() {
            // Signals so far were the command's; from here on they are for dropwatch.
            stop = Stop::new().context("cannot listen to signals")?;
        }
        self.finish(&mut stop, log.as_mut()).await?;
        self.sums.check(self.reported.limits)?;
        Ok(status)
    }

    /// Reports on every tick until the end.
    async fn follow(
        &mut self,
        stop: &mut Stop,
        hangup: &mut Option<Hangup>,
        log: &mut Option<KernelLog>,
    ) -> Result<(), Failure> {
        let start = self.session.held().start();
        self.outputs.capture(&[Line::Start(start.clone())]).await;
        self.outputs.write(vec![Line::Start(start)]).await?;
        match &self.command {
            Some(command) if command.baseline().is_none() => self.start_command().await,
            Some(_) => {}
            None => notify::ready(),
        }
        let ends_at = self.reported.duration.unwrap_or(FOREVER);
        let mut reports = 0;
        loop {
            match &self.command {
                // Its output is what counts: nobody need read the reports.
                Some(command) if command.is_over() => break,
                None if self.outputs.are_over() => break,
                _ => {}
            }
            // A reader that has not taken the last report gets no new one before it has.
            let busy = self.outputs.are_busy();
            let next = self.command.as_ref().and_then(Supervised::starts_at);
            let next = next.unwrap_or_else(|| self.session.held().due());
            let due = if busy { ends_at } else { next.min(ends_at) };
            let until = self.session.held().moment(due);
            let look_due = self.session.held().look_due();
            let alone = self.command.is_none();
            let wake = tokio::select! {
                biased;
                event = event_of(&mut self.command) => Wake::Command(event),
                // Before the end: the last lines belong into the new file then.
                () = hung_up(hangup) => Wake::Reopen,
                () = stop.requested(), if alone => Wake::Stop,
                written = self.outputs.flushed(), if busy => Wake::Written(written),
                () = look_at(look_due) => Wake::Look,
                () = sleep_until(until) => Wake::Tick,
                () = next_log(log) => continue,
            };
            match wake {
                Wake::Written(written) => written?,
                Wake::Reopen => self.outputs.reopen(),
                Wake::Look => self.session.held().look()?,
                Wake::Command(event) => heed(&mut self.command, &event),
                Wake::Tick if due < ends_at && Some(reports + 1) != self.reported.count => {
                    reports += 1;
                    let starts = self.command.as_ref().and_then(Supervised::starts_at).is_some();
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

    /// Starts the command, and the grid of reports with it.
    async fn start_command(&mut self) {
        if let Some(command) = &mut self.command {
            command.start().await;
            self.session.held().restart_pace();
            if !command.is_over() {
                notify::ready();
            }
        }
    }

    /// The lines of the time since the last report, which is the baseline or not. What happens to
    /// the command is acted on while they are read.
    async fn report(&mut self, baseline: bool) -> Result<Vec<Line>, Failure> {
        let lines = self.outputs.want_samples();
        let taken = self.session.read(move |session| session.samples(lines));
        let taken =
            meanwhile(taken, &mut self.command, event_of, |it, event| heed(it, &event)).await?;
        self.outputs.capture(&taken.lines).await;
        let not_captured = self.outputs.not_captured();
        let Taken { samples, lines } = taken;
        let report = self.session.read(move |session| session.report(&samples, not_captured));
        let mut report =
            meanwhile(report, &mut self.command, event_of, |it, event| heed(it, &event)).await?;
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
        let lines = self.outputs.want_samples();
        let taken = self.session.read(move |session| session.samples(lines)).await?;
        // Before the report, which says what is missing.
        self.outputs.capture_last(&taken.lines, stop.requested()).await;
        let not_captured = self.outputs.not_captured();
        let Taken { samples, lines } = taken;
        let report = self.session.read(move |session| session.report(&samples, not_captured));
        let mut report = report.await?;
        let baseline = self.command.as_ref().is_some_and(|it| it.starts_at().is_some());
        self.count(&mut report, baseline);
        let unread = format!("{} drops of the last {}s", report.drops, report.interval_s);
        let mut end: End = self.session.held().end();
        end.run = self.command.as_ref().map(|it| Box::new(it.ran(self.sums.summing.summary())));
        let mut lines = self.lines(lines, report);
        lines.push(Line::End(end));
        self.outputs.write_last(lines, &unread, stop.requested()).await?;
        self.outputs.end()
    }
}

/// The sums of a run, where anything rests on them.
struct Sums {
    needed: bool,
    summing: Summing,
    interval: Duration,
    /// The highest rate of what is not known to be harmless, in a full interval.
    highest: f64,
}

impl Sums {
    fn new(reported: &Reported, of_command: bool) -> Self {
        let needed = reported.limits.are_set() || of_command;
        Self { needed, summing: Summing::default(), interval: reported.interval, highest: 0.0 }
    }

    fn add(&mut self, report: &Report) {
        if !self.needed {
            return;
        }
        let before = self.summing.harmful();
        self.summing.add(report);
        // The last interval of a run may be so short that a single drop makes a high rate.
        if report.interval_s >= self.interval.as_secs_f64() * 0.9 {
            let drops = self.summing.harmful() - before;
            self.highest = self.highest.max(exact_per_second(drops, report.interval_s));
        }
    }

    fn check(&self, limits: Limits) -> Result<(), Failure> {
        limits.check(&self.summing, self.highest)
    }
}

async fn event_of(command: &mut Option<Supervised<'_>>) -> Event {
    match command {
        Some(command) => command.event().await,
        None => pending().await,
    }
}

fn heed(command: &mut Option<Supervised<'_>>, event: &Event) {
    command.iter_mut().for_each(|it| it.heed(event));
}

async fn look_at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

async fn hung_up(hangup: &mut Option<Hangup>) {
    match hangup {
        Some(hangup) => hangup.received().await,
        None => pending().await,
    }
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

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
        sync::mpsc,
        thread,
    };

    use super::*;

    /// Longer than anything here takes that does not wait for the reading.
    const BOUND: Duration = Duration::from_secs(10);

    fn event_loop() -> runtime::Runtime {
        runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_signal_reaches_the_command_while_a_reader_blocks() {
        let command = Command {
            program: "sleep".into(),
            arguments: vec!["60".into()],
            user: None,
            baseline: None,
        };
        let launcher = Launcher::new(&command).unwrap();
        event_loop().block_on(async {
            let supervised = Supervised::new(&command, launcher).unwrap();
            let mut supervised = Some(supervised);
            supervised.as_mut().unwrap().start().await;
            let (release, released) = mpsc::channel();
            let reading = Reading::new(released);
            // SAFETY: it reads and writes no memory; the event loop has a handler for this signal.
            assert_eq!(unsafe { libc::kill(libc::getpid(), libc::SIGUSR1) }, 0);
            let read = reading.read(|it| it.recv_timeout(BOUND).is_ok());
            let in_time = meanwhile(read, &mut supervised, event_of, |command, event| {
                let ended = matches!(event, Event::Ended(_));
                heed(command, &event);
                if ended {
                    release.send(()).unwrap();
                }
            });
            assert!(in_time.await, "the command did not end while the reading was under way");
            assert_eq!(supervised.unwrap().code(), 128 + libc::SIGUSR1 as u8);
        });
    }

    #[test]
    fn metrics_are_served_while_a_reader_blocks() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let exporter = Exporter::bind(address, BOUND).unwrap();
        event_loop().block_on(async {
            exporter.serve().unwrap();
            let (release, released) = mpsc::channel();
            thread::spawn(move || {
                let mut client = TcpStream::connect(address).unwrap();
                client.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
                let mut first = [0; 15];
                client.read_exact(&mut first).unwrap();
                release.send(first).unwrap();
            });
            let reading = Reading::new(released);
            let read = reading.read(|it| it.recv_timeout(BOUND));
            let answer = meanwhile(read, &mut None, event_of, |it, event| heed(it, &event)).await;
            assert_eq!(&answer.unwrap(), b"HTTP/1.1 200 OK");
        });
    }
}
