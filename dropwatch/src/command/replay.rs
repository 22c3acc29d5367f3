//! Renders a recording of `--json` again, without root and without a kernel to watch.
//!
//! A recording is foreign input: lines are bounded, every number is checked, and the first line that
//! is not one of ours ends the replay with an error that names it. What came before it is rendered.
//! None is ever held in memory as a whole: compressed, a small file may be a recording of any length.

use std::{
    fs::File,
    future::pending,
    io::{self, BufRead, BufWriter, Read as _, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, anyhow};
use thiserror::Error;
use tokio::{runtime::Builder, sync::mpsc, time::sleep};

use crate::{
    exit::Failure,
    notify,
    recording::open,
    render::{self, Beside, Renderer, clean, json_line, pcapng::Pcapng},
    report::{
        compare,
        decode::{DecodeError, decode},
        model::Line,
        number::each_of,
        runs::{Gap, RecordedRuns, WrongEnd},
        summary::Summing,
        view::View,
    },
    settings::{Metrics, Pcap, Replay, Show, Target},
    sink::{
        capture,
        output::{append, ended_by_reader},
        serve::Exporter,
    },
    supervise::signals::Stop,
    verbose,
};

/// Longest accepted line, bytes: room for 50,000 locations.
pub const MAX_LINE: usize = 16 << 20;

#[derive(Debug, Error)]
pub enum ReplayError {
    #[error("cannot read line {line}: {source}")]
    Read { line: u64, source: io::Error },
    #[error("cannot write: {0}")]
    Write(#[source] io::Error),
    #[error("cannot write packets: {0}")]
    Packets(#[source] io::Error),
    #[error("line {line} is longer than {MAX_LINE} bytes: not a dropwatch recording")]
    TooLong { line: u64 },
    #[error("{MAX_LINE} bytes of blank lines end at line {line}: not a dropwatch recording")]
    Blank { line: u64 },
    #[error("line {line} is not UTF-8 text (byte {byte}): not a dropwatch recording")]
    NotUtf8 { line: u64, byte: usize },
    #[error("line {line} {}", clean(&cause.to_string()))]
    Line { line: u64, cause: DecodeError },
    #[error("line {line} {cause}")]
    Sums { line: u64, cause: WrongEnd },
    #[error("holds no lines; record with `dropwatch --json > FILE`")]
    Empty,
}

/// Replays the recording at `path` (`-` is standard input) to standard output, and its packets to a
/// capture where that is asked for.
pub fn file(path: &Path, settings: &Replay) -> Result<(), Failure> {
    let name = path.display();
    let recording = open(path)?;
    let Replay { pcap, show } = settings;
    let out: Box<dyn Write> = match pcap {
        Some(Pcap { target: Target::Stdout, .. }) => Box::new(io::stderr().lock()),
        _ => Box::new(io::stdout().lock()),
    };
    let mut out = BufWriter::new(out);
    let renderer = show.renderer();
    let mut packets = pcap.as_ref().map(RecordedPackets::open).transpose()?;
    let mut beside = Beside::new(show.format, show.each);
    let mut samples = 0;
    let mut gaps = Gaps::default();
    let replayed = each_line(recording, &mut gaps, |line| {
        if let Some(packets) = &mut packets {
            packets.line(&line).map_err(ReplayError::Packets)?;
        }
        samples += u64::from(matches!(line, Line::Sample(_)));
        let said = beside.line(&line);
        if show.shows(&line) {
            renderer.line(&show.view.line(line), &mut out).map_err(ReplayError::Write)?;
        }
        say(said, &mut out)
    });
    let replayed = match replayed {
        Err(ReplayError::Write(error)) => Err(ReplayError::Write(error)),
        replayed => say(beside.end(), &mut out).and(replayed),
    };
    let replayed = replayed.and_then(|()| out.flush().map_err(ReplayError::Write));
    gaps.say(&name.to_string());
    if show.each && samples == 0 && replayed.is_ok() {
        verbose::to_stderr(&format!(
            "{name} holds no single drops; record them with `dropwatch --json --each`, or a part of \
             them with `dropwatch --json --samples`"
        ));
    }
    if packets.is_some_and(|packets| packets.number == 0) {
        verbose::to_stderr(&format!(
            "{name} holds no packets; record them with `dropwatch --json --samples`"
        ));
    }
    match replayed {
        // A reader that has seen enough is no failure.
        Err(ReplayError::Write(error) | ReplayError::Packets(error))
            if error.kind() == io::ErrorKind::BrokenPipe =>
        {
            Ok(())
        }
        Err(error) => Err(anyhow!("cannot replay {name}: {error}").into()),
        Ok(()) => Ok(()),
    }
}

/// Writes lines to standard error, behind what was rendered before them.
fn say(lines: impl IntoIterator<Item = String>, out: &mut impl Write) -> Result<(), ReplayError> {
    for line in lines {
        out.flush().map_err(ReplayError::Write)?;
        verbose::to_stderr(&line);
    }
    Ok(())
}

/// Compares the runs of two recordings, on standard output.
pub fn compare(before: &Path, after: &Path, show: &Show) -> Result<(), Failure> {
    let summary = |path: &Path| {
        let mut summing = Summing::default();
        let mut gaps = Gaps::default();
        let read = each_line(open(path)?, &mut gaps, |line| {
            if let Line::Report(report) = line {
                summing.add(&report);
            }
            Ok(())
        });
        gaps.say(&path.display().to_string());
        read.map_err(|error| anyhow!("cannot compare {}: {error}", path.display()))?;
        Ok::<_, Failure>(summing.summary())
    };
    let (was, is) = (summary(before)?, summary(after)?);
    let names = [before, after].map(|path| path.display().to_string());
    let comparison = compare::compare([&names[0], &names[1]], &was, &is);
    let mut page = Vec::new();
    let rendered = if show.format.is_lines() {
        json_line(&comparison, &mut page)
    } else {
        render::compare::text(&comparison, show.view.top, show.medium, &mut page)
    };
    rendered.context("cannot render the comparison")?;
    ended_by_reader(io::stdout().lock().write_all(&page)).map(drop)
}

/// Serves the metrics of a recording until Ctrl-C, each report as late as it was in the run.
///
/// # Errors
/// When the address is taken, or the recording is not one; where it holds something else further
/// on, once what comes before that was served in its time.
pub fn serve(path: &Path, metrics: Metrics) -> Result<(), Failure> {
    let mut reader = RecordingReader::start(path);
    let (mut host, mut version, mut interval_s) = (None, String::new(), None);
    // The next run of a file that a log rotation began has no start line.
    let first = loop {
        match reader.lines.blocking_recv() {
            Some(Line::Start(start)) => {
                (host, version) = (Some(start.host), start.dropwatch);
                interval_s = Some(start.interval_s);
            }
            Some(Line::Report(report)) => break Some(report),
            Some(Line::Sample(_) | Line::End(_)) => {}
            None => break None,
        }
    };
    if first.is_none() {
        reader.ended()?;
    }
    let nominal = first.as_ref().map(|report| each_of(report.interval_s, report.intervals));
    let interval = interval_s.or(nominal).unwrap_or_default();
    let exporter = Exporter::bind(metrics, Duration::from_secs_f64(interval))?;
    exporter.update(|totals| {
        totals.host = host.unwrap_or_default();
        totals.version = version;
    });
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the event loop")?.block_on(async {
        let mut stop = Stop::new().context("cannot listen to signals")?;
        exporter.serve()?;
        notify::ready();
        let play = async {
            let mut next = first.map(Line::Report);
            while let Some(line) = next {
                if let Line::Report(report) = line {
                    sleep(Duration::from_secs_f64(report.interval_s)).await;
                    exporter.update(|totals| totals.add(&report, Vec::new()));
                }
                next = reader.lines.recv().await;
            }
            reader.ended()?;
            pending().await
        };
        tokio::select! {
            () = stop.requested() => Ok(()),
            played = play => played,
        }
    })
}

/// A recording that is read on a thread of its own, no further ahead than a line.
struct RecordingReader {
    path: PathBuf,
    lines: mpsc::Receiver<Line>,
    thread: Option<thread::JoinHandle<Result<(), Failure>>>,
}

impl RecordingReader {
    fn start(path: &Path) -> Self {
        let (sender, lines) = mpsc::channel(1);
        let (path, from) = (path.to_owned(), path.to_owned());
        let thread = thread::spawn(move || {
            let mut gaps = Gaps::default();
            let read = each_line(open(&from)?, &mut gaps, |line| {
                // Nobody is there to take it once the process ends.
                sender
                    .blocking_send(line)
                    .map_err(|_| ReplayError::Write(io::ErrorKind::BrokenPipe.into()))
            });
            gaps.say(&from.display().to_string());
            read.map_err(|error| anyhow!("cannot replay {}: {error}", from.display()).into())
        });
        Self { path, lines, thread: Some(thread) }
    }

    /// Why there are no more lines.
    ///
    /// # Errors
    /// When something else than the end of the recording comes next.
    fn ended(&mut self) -> Result<(), Failure> {
        match self.thread.take().map(thread::JoinHandle::join) {
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(anyhow!("cannot replay {}", self.path.display()).into()),
            None => Ok(()),
        }
    }
}

/// Reads `recording` to its end and writes what `view` shows of it through `renderer`.
///
/// Recordings of several runs, one after the other, are fine. Blank lines are passed over.
pub fn replay(
    recording: impl BufRead,
    view: &View,
    renderer: &dyn Renderer,
    out: &mut dyn Write,
) -> Result<(), ReplayError> {
    each_line(recording, &mut Gaps::default(), |line| {
        renderer.line(&view.line(line), out).map_err(ReplayError::Write)
    })
}

/// Where a recording lacks reports.
#[derive(Debug, Default)]
struct Gaps {
    /// The first one, and the line that it is before.
    first: Option<(u64, Gap)>,
    number: u64,
}

impl Gaps {
    fn note(&mut self, line: u64, gap: Gap) {
        self.first.get_or_insert((line, gap));
        self.number += 1;
    }

    /// Says on standard error, in one line however many they are, that the recording lacks reports.
    fn say(&self, name: &str) {
        let Some((line, gap)) = self.first else { return };
        let more = match self.number - 1 {
            0 => String::new(),
            more => format!(" ({more} more of such gaps further on)"),
        };
        verbose::to_stderr(&format!("{name} is not complete: at line {line}, {gap}{more}"));
    }
}

/// The packets of a recording.
struct RecordedPackets {
    pcapng: Pcapng,
    file: File,
    number: u64,
}

impl RecordedPackets {
    fn open(pcap: &Pcap) -> Result<Self, Failure> {
        let file = capture::open(&pcap.target)?;
        Ok(Self { pcapng: Pcapng::new(pcap.snaplen), file, number: 0 })
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        let mut page = Vec::new();
        self.pcapng.line(line, &mut page);
        self.number += u64::from(matches!(line, Line::Sample(_)));
        append(&self.file, &page)
    }
}

/// Hands every line of `recording` to `each`, and notes in `gaps` where lines are missing.
fn each_line(
    mut recording: impl BufRead,
    gaps: &mut Gaps,
    mut each: impl FnMut(Line) -> Result<(), ReplayError>,
) -> Result<(), ReplayError> {
    let mut bytes = Vec::new();
    let (mut lines, mut blank) = (0, 0);
    let mut runs = RecordedRuns::default();
    for line in 1.. {
        bytes.clear();
        // One byte more than allowed, to tell a full line from one that is too long.
        let mut bounded = recording.by_ref().take(MAX_LINE as u64 + 1);
        let read = bounded.read_until(b'\n', &mut bytes);
        if read.map_err(|source| ReplayError::Read { line, source })? == 0 {
            break;
        }
        if bytes.len() > MAX_LINE {
            return Err(ReplayError::TooLong { line });
        }
        if bytes.trim_ascii().is_empty() {
            // A few kilobytes of an archive may be gigabytes of them.
            blank += bytes.len();
            if blank > MAX_LINE {
                return Err(ReplayError::Blank { line });
            }
            continue;
        }
        (lines, blank) = (lines + 1, 0);
        let text = utf8(&bytes, line)?;
        let decoded = decode(text).map_err(|cause| ReplayError::Line { line, cause })?;
        let gap = runs.add(&decoded).map_err(|cause| ReplayError::Sums { line, cause })?;
        gap.iter().for_each(|gap| gaps.note(line, *gap));
        each(decoded)?;
    }
    if lines == 0 { Err(ReplayError::Empty) } else { Ok(()) }
}

fn utf8(bytes: &[u8], line: u64) -> Result<&str, ReplayError> {
    str::from_utf8(bytes).map_err(|error| match error.error_len() {
        // Incomplete at the very end: cut off within a character.
        None => ReplayError::Line { line, cause: DecodeError::Truncated },
        Some(_) => ReplayError::NotUtf8 { line, byte: error.valid_up_to() + 1 },
    })
}
