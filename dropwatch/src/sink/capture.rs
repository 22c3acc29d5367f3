//! The capture that `--pcap` asks for: sampled packets on their way to a file, a pipe, or standard
//! output.
//!
//! Reports come first. When a capture cannot be written, it ends with the last whole packet; the
//! run goes on, and counts the packets that the capture lacks.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::AsFd,
};

use anyhow::{Context, anyhow};

use crate::{
    exit::Failure,
    render::pcapng::Pcapng,
    report::model::Line,
    settings::{Pcap, Target},
    sink::{
        create::Creator,
        output::{Output, append},
        outputs::Unwaited,
    },
    verbose,
};

/// Mode of a new file: packets are their owner's business.
const PRIVATE: u32 = 0o600;

/// The capture of a live run.
pub struct Capture {
    pcapng: Pcapng,
    output: Output,
    name: String,
    /// Packets handed over to be written.
    handed_over: u64,
    /// Packets that the write under way holds.
    under_way: u64,
    /// Packets that are in the file.
    written: u64,
    state: CaptureState,
}

enum CaptureState {
    Open,
    /// Its reader has gone: nothing more is written, and nothing is missing.
    Closed,
    /// Why nothing more can be written.
    Failed(String),
}

impl Capture {
    /// Opens what `pcap` names. A file that exists is overwritten. Waits for the reader of a FIFO.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(pcap: &Pcap) -> Result<Self, Failure> {
        let file = open(&pcap.target)?;
        Ok(Self {
            pcapng: Pcapng::new(pcap.snaplen),
            output: Output::new(move |bytes| append(&file, bytes)),
            name: pcap.target.to_string(),
            handed_over: 0,
            under_way: 0,
            written: 0,
            state: CaptureState::Open,
        })
    }

    /// True while the reader has not taken the last write.
    pub fn is_busy(&self) -> bool {
        self.output.is_busy()
    }

    /// True once the reader has gone.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, CaptureState::Closed)
    }

    /// Packets that the capture lacks.
    pub fn lost(&self) -> u64 {
        match self.state {
            CaptureState::Open | CaptureState::Closed => 0,
            CaptureState::Failed(_) => self.handed_over - self.written,
        }
    }

    /// Starts to write what the capture has of `lines`; waits for the previous write first.
    pub async fn write(&mut self, lines: &[Line]) {
        let packets = lines.iter().filter(|line| matches!(line, Line::Sample(_))).count() as u64;
        self.handed_over += packets;
        self.flushed().await;
        if !matches!(self.state, CaptureState::Open) {
            return;
        }
        let mut page = Vec::new();
        lines.iter().for_each(|line| self.pcapng.line(line, &mut page));
        if !page.is_empty() {
            self.under_way = packets;
            let started = self.output.write(page).await;
            self.settle(started);
        }
    }

    /// Waits until the last write is done. May be dropped and called again.
    pub async fn flushed(&mut self) {
        if self.output.is_busy() {
            let result = self.output.flushed().await;
            if result.is_ok() {
                self.written += self.under_way;
            }
            self.settle(result);
        }
    }

    /// Waits no longer for a reader that does not read.
    pub fn give_up(&mut self, unwaited: Unwaited) {
        if let CaptureState::Open = self.state {
            self.state = CaptureState::Failed(unwaited.of("its reader"));
        }
    }

    /// Fails if packets are missing.
    pub fn end(&self) -> Result<(), Failure> {
        match &self.state {
            CaptureState::Open | CaptureState::Closed => Ok(()),
            CaptureState::Failed(cause) => {
                let (lost, name) = (self.lost(), &self.name);
                Err(anyhow!("{name} lacks {lost} sampled packets: {cause}").into())
            }
        }
    }

    fn settle(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.state = CaptureState::Closed;
            }
            Err(error) => self.fail(error.to_string()),
        }
    }

    fn fail(&mut self, cause: String) {
        let name = &self.name;
        verbose::to_stderr(&format!(
            "cannot write packets to {name}: {cause}; the run goes on without them"
        ));
        self.state = CaptureState::Failed(cause);
    }
}

/// Opens a capture for writing. A file that exists is overwritten.
///
/// # Errors
/// When it cannot be opened.
pub fn open(target: &Target) -> Result<File, Failure> {
    let opened = match target {
        Target::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
        Target::File(path) => {
            Creator::new(PRIVATE)?.open(path, OpenOptions::new().write(true).truncate(true))
        }
    };
    Ok(opened.with_context(|| format!("cannot write packets to {target}"))?)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::report::model::{Sampled, Start};

    fn capture(path: &str) -> Capture {
        let target = Target::File(PathBuf::from(path));
        Capture::open(&Pcap { target, snaplen: 128 }).unwrap()
    }

    fn packets(n: usize) -> Vec<Line> {
        vec![Line::Sample(Box::new(Sampled { weight: 1, ..Sampled::default() })); n]
    }

    fn block_on(future: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(future);
    }

    #[test]
    fn a_full_disk_is_reported_with_what_is_missing() {
        block_on(async {
            let mut capture = capture("/dev/full");
            capture.write(&[Line::Start(Start::default())]).await;
            capture.write(&packets(3)).await;
            capture.flushed().await;
            capture.write(&packets(4)).await;
            assert_eq!((capture.lost(), capture.is_closed()), (7, false));
            let failure = capture.end().unwrap_err();
            assert_eq!(failure.code(), crate::exit::RUNTIME);
            let text = failure.to_string();
            assert!(text.starts_with("/dev/full lacks 7 sampled packets: No space left"), "{text}");
        });
    }

    #[test]
    fn what_is_written_is_not_lost() {
        block_on(async {
            let mut capture = capture("/dev/null");
            capture.write(&packets(3)).await;
            capture.write(&packets(4)).await;
            capture.flushed().await;
            assert_eq!((capture.lost(), capture.written), (0, 7));
            capture.end().unwrap();
            capture.give_up(Unwaited::Stalled);
            capture.write(&packets(2)).await;
            assert_eq!(capture.lost(), 2);
        });
    }
}
