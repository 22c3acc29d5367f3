//! Opens recordings, compressed or not.
//!
//! How a recording is compressed is decided by its content and never by its name: gzip (RFC 1952),
//! Zstandard (RFC 8878), or not at all. It may be several of these one behind the other, as `cat`
//! joins what a log rotation has compressed.
//!
//! A compressed recording is foreign input, and a kilobyte of it may stand for gigabytes. So it is
//! decoded while it is read, into a window of bounded size ([`ruzstd::decoding::DEFAULT_MAX_WINDOW_SIZE`],
//! which is what zstd itself uses without `--long`, and 32 KiB for gzip); a bound on lines is up to
//! whoever reads them. What came before the place where it is cut off or damaged is read, and then
//! reading fails.

use std::{
    error::Error,
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::Path,
};

use anyhow::Context;
use flate2::bufread::GzDecoder;
use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};

use crate::exit::Failure;

/// First bytes of a recording or of a part of it, which say how it is compressed.
const MAGIC: usize = 4;
/// What editors of some systems write before UTF-8; it is no text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// A last block without content, and a checksum: the end of a frame that has lost its own.
const END_OF_FRAME: [u8; 7] = [1, 0, 0, 0, 0, 0, 0];
/// How other compressed files begin, and the program that reads them.
const FOREIGN: [(&[u8], &str); 3] =
    [(b"\xfd7zX", "xz"), (b"BZh", "bzip2"), (b"\x04\x22\x4d\x18", "lz4")];

/// Opens the recording at `path`; `-` is standard input.
///
/// # Errors
/// When there is none, or it may not be read.
pub fn open(path: &Path) -> Result<impl BufRead + use<>, Failure> {
    if path == Path::new("-") {
        return Ok(decompressed(Box::new(BufReader::new(io::stdin()))));
    }
    let file = File::open(path);
    let file = file.with_context(|| format!("cannot open the recording {}", path.display()))?;
    Ok(decompressed(Box::new(BufReader::new(file))))
}

/// The text of a recording. Reading ends with an error where the rest cannot be decompressed.
pub fn decompressed(recording: Box<dyn BufRead + Send>) -> impl BufRead {
    BufReader::new(Recording::Between(Source { ahead: Cursor::default(), rest: recording }))
}

/// A recording, by what is being read of it.
enum Recording {
    /// At its begin, or behind a compressed part.
    Between(Source),
    Text(Source),
    Gzip(Box<GzDecoder<Source>>),
    Zstd(Box<ZstdFrame>),
    /// Behind its end, or where it cannot be read.
    Over,
}

impl Recording {
    /// Finds out what comes next.
    fn begin(mut source: Source) -> io::Result<Self> {
        if source.peek()?.starts_with(BYTE_ORDER_MARK) {
            source.read_exact(&mut [0; BYTE_ORDER_MARK.len()])?;
        }
        let magic = source.peek()?;
        if let Some((_, program)) = FOREIGN.iter().find(|(begin, _)| magic.starts_with(begin)) {
            return Err(io::Error::other(format!(
                "it is compressed by {program}, which is not read here: \
                 `{program} -dc FILE | dropwatch replay -`"
            )));
        }
        match *magic {
            [] => Ok(Self::Over),
            [0x1f, 0x8b, ..] => Ok(Self::Gzip(Box::new(GzDecoder::new(source)))),
            // The second are frames to be skipped: parallel compressors store sizes in them.
            [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => ZstdFrame::begin(source),
            // The begin of one of these, and no more.
            [0x1f] | [0x28] | [0x28, 0xb5] | [0x28, 0xb5, 0x2f] => Err(cut_off("compressed")),
            [0x50..=0x5f] | [0x50..=0x5f, 0x2a] | [0x50..=0x5f, 0x2a, 0x4d] => {
                Err(cut_off("compressed"))
            }
            _ => Ok(Self::Text(source)),
        }
    }
}

impl Read for Recording {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            let read = match self {
                Self::Between(_) => 0,
                Self::Text(source) => return source.read(into),
                Self::Gzip(decoder) => decoder.read(into).map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => cut_off("gzip"),
                    _ => damaged("gzip", &error),
                })?,
                Self::Zstd(frame) => frame.read(into)?,
                Self::Over => return Ok(0),
            };
            if read > 0 {
                return Ok(read);
            }
            *self = match std::mem::replace(self, Self::Over) {
                Self::Between(source) => Self::begin(source)?,
                Self::Gzip(decoder) => Self::Between(decoder.into_inner()),
                Self::Zstd(frame) => Self::Between(frame.source),
                text @ (Self::Text(_) | Self::Over) => text,
            };
        }
    }
}

/// A frame of Zstandard.
struct ZstdFrame {
    decoder: FrameDecoder,
    source: Source,
    /// What comes after all that could be decoded.
    error: Option<io::Error>,
}

impl ZstdFrame {
    fn begin(mut source: Source) -> io::Result<Recording> {
        let mut decoder = FrameDecoder::new();
        match decoder.reset(&mut source) {
            Ok(()) => Ok(Recording::Zstd(Box::new(Self { decoder, source, error: None }))),
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                let length = u64::from(length);
                let skipped = io::copy(&mut source.by_ref().take(length), &mut io::sink())?;
                if skipped < length { Err(cut_off("zstd")) } else { Ok(Recording::Between(source)) }
            }
            Err(error) => Err(undecodable(&error)),
        }
    }

    /// Decodes until there is something to read. The decoder holds a whole window back as long as
    /// its frame goes on; so where it cannot go on, the frame is ended for it.
    fn decode(&mut self) {
        while self.error.is_none() && !self.decoder.is_finished() && self.decoder.can_collect() == 0
        {
            let one = || BlockDecodingStrategy::UptoBlocks(1);
            if let Err(error) = self.decoder.decode_blocks(&mut self.source, one()) {
                self.error = Some(undecodable(&error));
                // There is nothing in it to fail at.
                let _ended = self.decoder.decode_blocks(&END_OF_FRAME[..], one());
            }
        }
    }
}

impl Read for ZstdFrame {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.decode();
        let read = self.decoder.read(into)?;
        if read > 0 {
            return Ok(read);
        }
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let (stored, computed) =
            (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum());
        match stored.is_some() && stored != computed {
            true => Err(damaged("zstd", &"its checksum is another")),
            false => Ok(0),
        }
    }
}

fn undecodable(error: &FrameDecoderError) -> io::Error {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let ended = error.downcast_ref().map(io::Error::kind) == Some(io::ErrorKind::UnexpectedEof);
        if ended {
            return cut_off("zstd");
        }
        cause = error.source();
    }
    damaged("zstd", error)
}

fn cut_off(format: &str) -> io::Error {
    io::Error::other(format!(
        "the {format} data ends in the middle: the recording was cut off there"
    ))
}

fn damaged(format: &str, cause: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("the {format} data is damaged or not supported ({cause})"))
}

/// Input, of which the next bytes can be looked at before they are read.
struct Source {
    ahead: Cursor<Vec<u8>>,
    rest: Box<dyn BufRead + Send>,
}

impl Source {
    /// The next bytes, fewer only at the end.
    fn peek(&mut self) -> io::Result<&[u8]> {
        let mut bytes = Vec::with_capacity(MAGIC);
        self.by_ref().take(MAGIC as u64).read_to_end(&mut bytes)?;
        // What lay ahead before is among them: it was never more.
        self.ahead = Cursor::new(bytes);
        Ok(self.ahead.get_ref())
    }
}

impl Read for Source {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.ahead.read(into)? {
            0 => self.rest.read(into),
            read => Ok(read),
        }
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.ahead.position() < self.ahead.get_ref().len() as u64 {
            true => self.ahead.fill_buf(),
            false => self.rest.fill_buf(),
        }
    }

    fn consume(&mut self, amount: usize) {
        match self.ahead.position() < self.ahead.get_ref().len() as u64 {
            true => self.ahead.consume(amount),
            false => self.rest.consume(amount),
        }
    }
}
