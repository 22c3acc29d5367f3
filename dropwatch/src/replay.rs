//! Renders a recording of `--json` again, without root and without a kernel to watch.
//!
//! A recording is foreign input: lines are bounded, every number is checked, and the first line that
//! is not one of ours ends the replay with an error that names it. What came before it is rendered.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    path::Path,
};

use anyhow::{Context, anyhow};
use thiserror::Error;

use crate::{
    exit::Failure,
    render::{Renderer, clean},
    report::{
        decode::{DecodeError, decode},
        view::View,
    },
    settings::Show,
};

/// Longest accepted line, bytes: room for 50,000 locations.
pub const MAX_LINE: usize = 16 << 20;

#[derive(Debug, Error)]
pub enum ReplayError {
    #[error("cannot read line {line}: {source}")]
    Read { line: u64, source: io::Error },
    #[error("cannot write: {0}")]
    Write(#[source] io::Error),
    #[error("line {line} is longer than {MAX_LINE} bytes: not a dropwatch recording")]
    TooLong { line: u64 },
    #[error("line {line} is not UTF-8 text (byte {byte}): not a dropwatch recording")]
    NotUtf8 { line: u64, byte: usize },
    #[error("line {line} {}", clean(&cause.to_string()))]
    Line { line: u64, cause: DecodeError },
    #[error("holds no lines; record with `dropwatch --json > FILE`")]
    Empty,
}

/// Replays the recording at `path` (`-` is standard input) to standard output.
pub fn file(path: &Path, show: &Show) -> Result<(), Failure> {
    let name = path.display();
    let recording: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).with_context(|| format!("cannot open the recording {name}"))?)
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let replayed = replay(BufReader::new(recording), &show.view, &*show.renderer(), &mut out)
        .and_then(|()| out.flush().map_err(ReplayError::Write));
    match replayed {
        // A reader that has seen enough is no failure.
        Err(ReplayError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(anyhow!("cannot replay {name}: {error}").into()),
        Ok(()) => Ok(()),
    }
}

/// Reads `recording` to its end and writes what `view` shows of it through `renderer`.
///
/// Recordings of several runs, one after the other, are fine. Blank lines are passed over.
pub fn replay(
    mut recording: impl BufRead,
    view: &View,
    renderer: &dyn Renderer,
    out: &mut dyn Write,
) -> Result<(), ReplayError> {
    let mut bytes = Vec::new();
    let mut lines = 0;
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
            continue;
        }
        lines += 1;
        let text = utf8(&bytes, line)?;
        let decoded = decode(text).map_err(|cause| ReplayError::Line { line, cause })?;
        renderer.line(&view.line(decoded), out).map_err(ReplayError::Write)?;
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
