//! Output that may stall: the run goes on while a reader does not read.
//!
//! Writes happen on a thread of their own, one at a time. While one is under way the loop makes no
//! report; the counters stay in the kernel, so the next report covers the longer time.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::anyhow;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::exit::Failure;

/// How long to wait before trying again where the descriptor was made non-blocking by whoever
/// shares it.
const RETRY: Duration = Duration::from_millis(5);

/// Writes all of some bytes.
type Write = dyn Fn(&[u8]) -> io::Result<()> + Send + Sync;

pub struct Output {
    write: Arc<Write>,
    pending: Option<JoinHandle<io::Result<()>>>,
}

impl Output {
    /// Writes by `write`, unbuffered: one report is one write.
    pub fn new(write: impl Fn(&[u8]) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { write: Arc::new(write), pending: None }
    }

    pub fn stdout() -> io::Result<Self> {
        Self::shared(io::stdout().as_fd())
    }

    pub fn stderr() -> io::Result<Self> {
        Self::shared(io::stderr().as_fd())
    }

    fn shared(descriptor: BorrowedFd<'_>) -> io::Result<Self> {
        let file = File::from(descriptor.try_clone_to_owned()?);
        Ok(Self::new(move |bytes| write_all(&file, bytes)))
    }

    /// True while the reader has not taken the last write.
    pub fn is_busy(&self) -> bool {
        self.pending.is_some()
    }

    /// Starts to write; waits for the previous write first.
    ///
    /// # Errors
    /// That of the previous write.
    pub async fn write(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.flushed().await?;
        let write = Arc::clone(&self.write);
        self.pending = Some(spawn_blocking(move || write(&bytes)));
        Ok(())
    }

    /// Writes, and waits until it is done.
    ///
    /// # Errors
    /// That of this write, or of the previous one.
    pub async fn write_whole(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.write(bytes).await?;
        self.flushed().await
    }

    /// Waits until the last write is done. May be dropped and called again.
    pub async fn flushed(&mut self) -> io::Result<()> {
        let Some(pending) = &mut self.pending else { return Ok(()) };
        let result = pending.await;
        self.pending = None;
        result.map_err(io::Error::other)?
    }
}

/// Whether the reader has gone. That ends the run and is no failure.
///
/// # Errors
/// Any other failure to write.
pub fn ended_by_reader(result: io::Result<()>) -> Result<bool, Failure> {
    match result {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(anyhow!(error).context("cannot write the output").into()),
    }
}

/// Writes all of `bytes`, and waits where `file` has no room for them.
///
/// # Errors
/// When not all could be written.
pub fn write_all(mut file: impl io::Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of `bytes`, which end with a whole block, or nothing where the file can be cut: a
/// part of a block at its end is an error to whoever reads it.
///
/// # Errors
/// When not all could be written.
pub fn append(file: &File, bytes: &[u8]) -> io::Result<()> {
    let before = file.metadata().ok().filter(|file| file.is_file()).map(|file| file.len());
    let result = write_all(file, bytes);
    if let (Err(_), Some(before)) = (&result, before) {
        // Where this fails too, readers of the file find that it was cut short.
        let _uncut = file.set_len(before);
    }
    result
}
