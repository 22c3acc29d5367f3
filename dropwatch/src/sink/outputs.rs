//! Everyone who reads what a run reports: whoever looks at the reports, a recording, a capture.
//!
//! While one of them has not taken the last lines no new report is made; see [`output`](crate::sink::output).

use std::{io, time::Duration};

use anyhow::{Context, anyhow};
use tokio::time::sleep;

use crate::{
    exit::Failure,
    render::{Beside, Renderer},
    report::model::Line,
    settings::Sinks,
    sink::{
        capture::Capture,
        output::{Output, ended_by_reader},
        record::RecordingFile,
    },
    verbose,
};

/// How long the end of a run waits for a reader that does not read.
const LAST_WRITE: Duration = Duration::from_secs(2);
/// How long it still does after another signal, which is long enough for one that does read: a signal
/// that comes right behind the first one must not cost the last report.
const HURRIED: Duration = Duration::from_millis(200);

/// Why the end of a run waits for a reader no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwaited {
    /// It has not read for so long.
    Stalled,
    /// A signal asked to end at once, and it had not read all by then.
    Hurried,
}

impl Unwaited {
    /// What came of it, `of` whom.
    pub fn of(self, whose: &str) -> String {
        match self {
            Self::Stalled => format!("{whose} has stalled"),
            Self::Hurried => format!("another signal ended the run before {whose} had read all"),
        }
    }
}

/// Waits for `last`, for as long as the end of a run does; `hurry` ends with a signal to end at once.
async fn wait(last: impl Future<Output = ()>, hurry: impl Future<Output = ()>) -> Option<Unwaited> {
    let hurried = async {
        hurry.await;
        sleep(HURRIED).await;
    };
    tokio::select! {
        biased;
        () = last => None,
        () = sleep(LAST_WRITE) => Some(Unwaited::Stalled),
        () = hurried => Some(Unwaited::Hurried),
    }
}

pub struct Outputs<'a> {
    sinks: &'a Sinks,
    renderer: Box<dyn Renderer>,
    reports: Output,
    /// Whoever read the reports has gone.
    unread: bool,
    /// What they are told on standard error.
    beside: Beside,
    record: Option<RecordingFile>,
    capture: Option<Capture>,
}

impl<'a> Outputs<'a> {
    /// Opens what `sinks` name. To be called while the capabilities are there: files may lie in
    /// someone else's folder.
    ///
    /// # Errors
    /// What cannot be opened.
    pub fn open(sinks: &'a Sinks) -> Result<Self, Failure> {
        let reports = if sinks.aside { Output::stderr() } else { Output::stdout() };
        let record = sinks.record.as_deref();
        let record =
            record.map(|path| RecordingFile::open(path, sinks.sample_lines)).transpose()?;
        Ok(Self {
            sinks,
            renderer: sinks.show.renderer(),
            reports: reports.context("cannot use the output")?,
            unread: false,
            beside: Beside::new(sinks.show.format, sinks.show.each),
            record,
            capture: sinks.pcap.as_ref().map(Capture::open).transpose()?,
        })
    }

    /// Whether any output has each sample as a line of its own.
    pub fn list_samples(&self) -> bool {
        self.sinks.sample_lines || self.capture.is_some()
    }

    /// True once nobody reads the reports, or whoever had enough packets has gone.
    pub fn are_over(&self) -> bool {
        self.unread || self.capture.as_ref().is_some_and(Capture::is_closed)
    }

    /// Packets that a capture lacks.
    pub fn not_captured(&self) -> u64 {
        self.capture.as_ref().map_or(0, Capture::lost)
    }

    /// True while a reader has not taken what was last written for it.
    pub fn are_busy(&self) -> bool {
        self.reports.is_busy()
            || self.record.as_ref().is_some_and(RecordingFile::is_busy)
            || self.capture.as_ref().is_some_and(Capture::is_busy)
    }

    /// Makes the recording go on in a new file, for log rotation.
    pub fn reopen(&self) {
        self.record.iter().for_each(RecordingFile::reopen);
    }

    /// Waits until the readers have taken what was written. May be dropped and called again.
    ///
    /// # Errors
    /// When reports cannot be written.
    pub async fn flushed(&mut self) -> Result<(), Failure> {
        // Packets are waited for first: a reader of reports that has gone ends the run, which must
        // not leave a part of a packet behind.
        if let Some(capture) = &mut self.capture {
            capture.flushed().await;
        }
        if let Some(record) = &mut self.record {
            record.flushed().await.context("cannot write the recording")?;
        }
        let flushed = self.reports.flushed().await;
        self.heed(flushed)
    }

    /// Hands sampled packets to the capture.
    pub async fn capture(&mut self, lines: &[Line]) {
        if let Some(capture) = &mut self.capture {
            capture.write(lines).await;
        }
    }

    /// Hands the last sampled packets to the capture and waits until they are written; the report that
    /// follows says what is missing. Gives up where the reader does not read, or when `hurry` ends.
    pub async fn capture_last(&mut self, lines: &[Line], hurry: impl Future<Output = ()>) {
        let Some(capture) = &mut self.capture else { return };
        let last = async {
            capture.write(lines).await;
            capture.flushed().await;
        };
        if let Some(unwaited) = wait(last, hurry).await {
            capture.give_up(unwaited);
        }
    }

    /// Starts to write lines, as one write for each reader; waits for the previous ones first.
    ///
    /// # Errors
    /// When reports cannot be written.
    pub async fn write(&mut self, lines: Vec<Line>) -> Result<(), Failure> {
        if let Some(record) = &mut self.record {
            record.write(&lines).await.context("cannot write the recording")?;
        }
        if self.unread {
            return Ok(());
        }
        let page = self.page(lines)?;
        let written = self.reports.write(page).await;
        self.heed(written)
    }

    /// The last lines of a run. `unread` says what is not shown if a reader does not take them. No
    /// reader waits for another one.
    ///
    /// # Errors
    /// When they cannot be written, or a reader has stalled.
    pub async fn write_last(
        &mut self,
        lines: Vec<Line>,
        unread: &str,
        hurry: impl Future<Output = ()>,
    ) -> Result<(), Failure> {
        let page = if self.unread { None } else { Some(self.page(lines.clone())?) };
        let (mut shown, mut recorded) = (None, None);
        let last = async {
            let show = async {
                shown = Some(match page {
                    Some(page) => self.reports.write_whole(page).await,
                    None => Ok(()),
                });
            };
            let record = async {
                recorded = Some(match &mut self.record {
                    Some(record) => record.write_whole(&lines).await,
                    None => Ok(()),
                });
            };
            tokio::join!(show, record);
        };
        let last = async {
            last.await;
        };
        // What is not done by then is seen by what is missing.
        let unwaited = wait(last, hurry).await.unwrap_or(Unwaited::Stalled);
        let not_shown = match shown {
            Some(shown) => self.heed(shown).err().map(|failure| failure.to_string()),
            None => {
                Some(format!("{}: {unread} not shown", unwaited.of("the reader of the output")))
            }
        };
        let not_recorded = match (recorded, &self.record) {
            (None, Some(record)) => Some(record.lacks(unwaited)),
            (Some(Err(error)), _) => Some(format!("cannot write the recording: {error}")),
            _ => None,
        };
        let causes: Vec<String> = not_shown.into_iter().chain(not_recorded).collect();
        match causes.is_empty() {
            true => Ok(()),
            false => Err(anyhow!(causes.join("; ")).into()),
        }
    }

    /// Name and cause, while the recording cannot be written.
    pub fn failing_record(&self) -> Option<String> {
        self.record.as_ref().and_then(RecordingFile::failing)
    }

    /// Fails if the capture lacks packets.
    ///
    /// # Errors
    /// What is missing.
    pub fn end(&self) -> Result<(), Failure> {
        self.capture.as_ref().map_or(Ok(()), Capture::end)
    }

    /// Lines as whoever looks at the reports sees them.
    fn page(&mut self, lines: Vec<Line>) -> Result<Vec<u8>, Failure> {
        let mut page = Vec::new();
        for line in lines {
            let show = &self.sinks.show;
            self.beside.line(&line).iter().for_each(|said| verbose::to_stderr(said));
            if !show.shows(&line) {
                continue;
            }
            let shown = self.sinks.show.view.line(line);
            self.renderer.render(&shown, &mut page).context("cannot render a report")?;
        }
        Ok(page)
    }

    /// A reader that went away is no failure.
    fn heed(&mut self, result: io::Result<()>) -> Result<(), Failure> {
        self.unread |= ended_by_reader(result)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn waited(last: impl Future<Output = ()>, hurry: impl Future<Output = ()>) -> Option<Unwaited> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(wait(last, hurry))
    }

    #[test]
    fn a_second_signal_does_not_cost_what_a_reader_takes() {
        // A write that is done by another thread, a moment later.
        let written = || async { sleep(Duration::from_millis(5)).await };
        assert_eq!(waited(written(), ready(())), None);
        assert_eq!(waited(written(), pending()), None);
    }

    #[test]
    fn why_a_reader_was_not_waited_for_is_what_happened() {
        assert_eq!(waited(pending(), ready(())), Some(Unwaited::Hurried));
        assert_eq!(waited(pending(), pending()), Some(Unwaited::Stalled));
        let hurried = Unwaited::Hurried.of("its reader");
        assert_eq!(hurried, "another signal ended the run before its reader had read all");
        assert_eq!(Unwaited::Stalled.of("its reader"), "its reader has stalled");
    }
}
