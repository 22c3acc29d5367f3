//! The file of `--output`: JSON lines, for log collectors and for `replay`.
//!
//! A line is in the file whole or not at all. While it cannot be written (a full disk, a pipe that
//! nobody reads) no new report is made, as with every reader that stalls: the counters stay in the
//! kernel, and the next report covers the longer time.

mod fifo;

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context;

use self::fifo::Sent;
use crate::{
    exit::Failure,
    render::{Json, Renderer, words::count},
    report::model::Line,
    sink::{
        create::Creator,
        output::{Output, append},
        outputs::Unwaited,
    },
    verbose,
};

/// How long to wait before trying again to write.
const RETRY: Duration = Duration::from_millis(500);
/// Mode of a new file with packets in it: they are their owner's business.
const PRIVATE: u32 = 0o600;
/// Mode of others, less what the umask takes away.
const USUAL: u32 = 0o666;

/// A recording under way.
pub struct RecordingFile {
    name: String,
    output: Output,
    /// Set by log rotation, cleared by the writer.
    reopen: Arc<AtomicBool>,
    /// Why the last attempt to write has failed; nothing once one succeeds.
    failure: Arc<Mutex<Option<String>>>,
    /// What the write under way holds.
    under_way: Reports,
    /// What waits for its end.
    waiting: Reports,
}

/// Reports, and the drops in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reports {
    number: u64,
    drops: u64,
}

impl Reports {
    fn of(lines: &[Line]) -> Self {
        lines.iter().fold(Self::default(), |sum, line| match line {
            Line::Report(report) => sum.and(Self { number: 1, drops: report.drops }),
            Line::Start(_) | Line::Sample(_) | Line::End(_) => sum,
        })
    }

    fn and(self, more: Self) -> Self {
        let number = self.number.saturating_add(more.number);
        Self { number, drops: self.drops.saturating_add(more.drops) }
    }
}

impl RecordingFile {
    /// Opens `path` to append to it. Waits for the reader of a FIFO.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path, with_packets: bool) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let mode = if with_packets { PRIVATE } else { USUAL };
        let creator = Creator::new(mode)?;
        // Kept until the file is open: a reader takes it for the end where the last writer goes.
        let _reader = await_reader(path, &name);
        let file =
            OpenFile::open(path, creator).with_context(|| format!("cannot write to {name}"))?;
        let (reopen, failure) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let writer = Writer {
            path: path.to_owned(),
            creator,
            target: Mutex::new(Some(file)),
            reopen: Arc::clone(&reopen),
            failure: Arc::clone(&failure),
        };
        let output = Output::new(move |bytes| writer.write(bytes));
        let none = Reports::default();
        Ok(Self { name, output, reopen, failure, under_way: none, waiting: none })
    }

    /// Has the next lines go to a new file of the same name, since this one was moved away.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }

    /// True while the last lines are not written.
    pub fn is_busy(&self) -> bool {
        self.output.is_busy()
    }

    /// Starts to write lines; waits for the previous ones first.
    ///
    /// # Errors
    /// Never, but while the program is ending.
    pub async fn write(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut page = Vec::new();
        lines.iter().try_for_each(|line| Json.render(line, &mut page))?;
        self.waiting = Reports::of(lines);
        self.output.write(page).await?;
        self.under_way = std::mem::take(&mut self.waiting);
        Ok(())
    }

    /// Writes lines, and waits until they are written.
    ///
    /// # Errors
    /// As [`RecordingFile::write`].
    pub async fn write_whole(&mut self, lines: &[Line]) -> io::Result<()> {
        self.write(lines).await?;
        self.flushed().await
    }

    /// Waits until the last lines are written. May be dropped and called again.
    ///
    /// # Errors
    /// As [`RecordingFile::write`].
    pub async fn flushed(&mut self) -> io::Result<()> {
        self.output.flushed().await?;
        self.under_way = Reports::default();
        Ok(())
    }

    /// Name and cause, while it cannot be written.
    pub fn failing(&self) -> Option<String> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().map(|cause| format!("{}: {cause}", self.name))
    }

    /// What the recording lacks, and why, where nobody waits for it any longer.
    pub fn lacks(&self, unwaited: Unwaited) -> String {
        let Reports { number, drops } = self.under_way.and(self.waiting);
        let lacks = format!("lacks {}, {drops} drops", count(number, "report"));
        match self.failing() {
            Some(cause) => format!("cannot write to {cause}; it {lacks}"),
            None => {
                format!("{}; it {lacks}", unwaited.of(&format!("the reader of {}", self.name)))
            }
        }
    }
}

/// Says so where opening will wait, since a FIFO has no reader yet; returns it where it has one.
fn await_reader(path: &Path, name: &str) -> Option<File> {
    if !path.metadata().is_ok_and(|file| file.file_type().is_fifo()) {
        return None;
    }
    let flags = libc::O_NONBLOCK;
    let opened = OpenOptions::new().write(true).custom_flags(flags).open(path);
    // fifo(7): ENXIO is said of a FIFO that nobody reads.
    if opened.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ENXIO)) {
        verbose::to_stderr(&format!("waiting for a reader of {name}"));
    }
    opened.ok()
}

/// What is open for writing.
struct OpenFile {
    file: File,
    /// What a FIFO may hold; nothing for other files.
    sent: Option<Sent>,
}

impl OpenFile {
    fn open(path: &Path, creator: Creator) -> io::Result<Self> {
        let file = creator.open(path, OpenOptions::new().append(true))?;
        let sent = file.metadata()?.file_type().is_fifo().then(Sent::default);
        Ok(Self { file, sent })
    }

    /// Writes `page`, or leaves in it what is still to be written.
    fn write(&mut self, page: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.sent {
            Some(sent) => sent.write(&self.file, page),
            None => append(&self.file, page),
        }
    }
}

/// Writes until it succeeds.
struct Writer {
    path: PathBuf,
    creator: Creator,
    /// Nothing while the reader of a FIFO has gone.
    target: Mutex<Option<OpenFile>>,
    reopen: Arc<AtomicBool>,
    failure: Arc<Mutex<Option<String>>>,
}

impl Writer {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        let mut page = bytes.to_vec();
        let mut reported = false;
        while let Err(error) = self.attempt(&mut target, &mut page) {
            self.note(Some(error.to_string()));
            if !reported {
                self.report(&format!("{error}; reports are held back until it works"));
                reported = true;
            }
            thread::sleep(RETRY);
        }
        if reported {
            self.note(None);
            self.report("it works again");
        }
        Ok(())
    }

    fn attempt(&self, target: &mut Option<OpenFile>, page: &mut Vec<u8>) -> io::Result<()> {
        let asked = self.reopen.swap(false, Ordering::Relaxed);
        let current = match target.take() {
            Some(old) if asked => target.insert(self.renew(old)),
            Some(old) => target.insert(old),
            None => target.insert(OpenFile::open(&self.path, self.creator)?),
        };
        let result = current.write(page);
        // The reader of a pipe has gone: the next one reads what is opened anew. The pipe must be
        // closed first: only then does the kernel forget what is in it, and `page` has that.
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            *target = None;
        }
        result
    }

    /// What the path stands for now, or the old file where it cannot be opened.
    fn renew(&self, old: OpenFile) -> OpenFile {
        match OpenFile::open(&self.path, self.creator) {
            // A FIFO that is still the same has lines in it that nobody has read.
            Ok(new) => OpenFile { sent: new.sent.map(|sent| old.sent.unwrap_or(sent)), ..new },
            Err(error) => {
                self.report(&format!("{error}; the old file is written on"));
                old
            }
        }
    }

    fn note(&self, failure: Option<String>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    fn report(&self, what: &str) {
        verbose::to_stderr(&format!("cannot write to {}: {what}", self.path.display()));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::report::model::{Report, Start};

    fn block_on(future: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(future);
        runtime.shutdown_background();
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("record-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn lines(path: &Path) -> usize {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.ends_with('\n'), "{text}");
        text.lines().count()
    }

    #[test]
    fn rotation_begins_a_new_file_and_loses_no_line() {
        let folder = folder("rotation");
        let (path, old) = (folder.join("a.ndjson"), folder.join("a.ndjson.1"));
        block_on(async {
            let mut record = RecordingFile::open(&path, false).unwrap();
            record.write(&[Line::Start(Start::default())]).await.unwrap();
            record.flushed().await.unwrap();
            fs::rename(&path, &old).unwrap();
            record.write(&[Line::Start(Start::default())]).await.unwrap();
            record.flushed().await.unwrap();
            record.reopen();
            record.write(&[Line::Start(Start::default())]).await.unwrap();
            record.flushed().await.unwrap();
        });
        assert_eq!((lines(&old), lines(&path)), (2, 1));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_written_stalls_like_any_reader() {
        // Asserted once the event loop has let go of the writer, which never ends.
        let (mut stalled, mut failing, mut lacks) = (false, None, String::new());
        block_on(async {
            let mut record = RecordingFile::open(Path::new("/dev/full"), false).unwrap();
            record.write(&[Line::Start(Start::default())]).await.unwrap();
            let waited = tokio::time::timeout(RETRY * 3, record.flushed()).await;
            stalled = waited.is_err() && record.is_busy();
            failing = record.failing();
            let last = [Line::Report(Report { drops: 7, ..Report::default() })];
            stalled &= tokio::time::timeout(RETRY, record.write(&last)).await.is_err();
            lacks = record.lacks(Unwaited::Stalled);
        });
        assert!(stalled);
        let full = "/dev/full: No space left on device (os error 28)";
        assert_eq!(failing.as_deref(), Some(full));
        assert_eq!(lacks, format!("cannot write to {full}; it lacks 1 report, 7 drops"));
        assert!(RecordingFile::open(Path::new("/nonexistent/x"), false).is_err());
    }

    #[test]
    fn packets_are_their_owners_business() {
        use std::os::unix::fs::MetadataExt;
        let folder = folder("mode");
        let path = folder.join("p.ndjson");
        RecordingFile::open(&path, true).map(drop).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::remove_dir_all(folder).unwrap();
    }
}
