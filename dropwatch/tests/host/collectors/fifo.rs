//! A pipe whose reader stops, goes on, and goes away.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use dropwatch::report::model::Line;
use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::stat::Mode,
    unistd::mkfifo,
};
use testbed::{
    drops::{
        Cause,
        closed::{Closed, Transport},
    },
    udp::Family,
};

use super::{
    begin,
    setting::{Folder, soon, wait_for},
};
use crate::harness::{UDP4, decoded, is_at};

/// The reading end of a FIFO.
struct Reader {
    file: File,
    taken: Vec<u8>,
}

impl Reader {
    /// Does not wait for a writer.
    fn open(path: &Path) -> Self {
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap();
        Self { file, taken: Vec::new() }
    }

    /// Makes it as small as the kernel can, to be full soon. Nothing may be written before: what is
    /// in it does not get out of the way.
    fn shrink(&self) {
        fcntl(self.file.as_fd(), FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    }

    /// Takes what is there, at most `most` bytes.
    fn take(&mut self, most: usize) -> usize {
        let mut bytes = vec![0; most];
        match self.file.read(&mut bytes) {
            Ok(read) => {
                self.taken.extend(&bytes[..read]);
                read
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        }
    }

    /// Closes the FIFO; returns all that was read.
    fn leave(self) -> Vec<u8> {
        self.taken
    }

    /// Bytes that are there to be read.
    fn waiting(&self) -> usize {
        let mut bytes: libc::c_int = 0;
        // SAFETY: FIONREAD writes one int, which `bytes` is.
        let done = unsafe {
            libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&self.file), libc::FIONREAD, &mut bytes)
        };
        assert_eq!(done, 0);
        usize::try_from(bytes).unwrap()
    }

    /// Waits until nothing more comes.
    fn wait_until_full(&self) {
        let mut before = 0;
        wait_for("a full pipe", || {
            std::thread::sleep(soon(500));
            let now = self.waiting();
            std::mem::replace(&mut before, now) == now && now > 0
        });
    }

    fn has_line(&self, part: &str) -> bool {
        whole_lines(&self.taken).iter().any(|line| line.contains(part))
    }
}

/// What a collector makes of what it has read: the rest behind the last line end is no line.
fn whole_lines(bytes: &[u8]) -> Vec<String> {
    let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    String::from_utf8(bytes[..end].to_vec()).unwrap().lines().map(str::to_owned).collect()
}

/// Reads on a thread of its own until it hears that all is written.
fn read_on(mut reader: Reader, over: Arc<AtomicBool>) -> JoinHandle<Reader> {
    std::thread::spawn(move || {
        loop {
            let last = over.load(Ordering::Relaxed);
            if reader.take(65_536) == 0 {
                if last {
                    return reader;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    })
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_fifo_gets_every_line_whatever_its_readers_do() {
    let folder = Folder::new("fifo");
    let path = folder.path("dropwatch.ndjson");
    mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
    let mut first = Reader::open(&path);
    first.shrink();
    let closed = Closed::new(Transport::Udp, Family::V4).unwrap();
    // Samples make writes longer than the pipe, so that it is full within a line.
    let run = begin(closed.netns(), &["--samples", "--output", path.to_str().unwrap()]);
    let mut sent = 0;
    let mut drop_some = || {
        for _ in 0..5 {
            sent += closed.send(50).unwrap();
            std::thread::sleep(soon(100));
        }
    };

    drop_some();
    wait_for("a report", || first.take(65_536) == 0 && first.has_line(r#""type":"report""#));
    // It stops: reports are held back.
    first.wait_until_full();
    drop_some();
    drop_some();
    // It goes on: the next report tells of the time.
    wait_for("a late report", || {
        first.take(65_536);
        whole_lines(&first.taken).iter().any(|line| intervals(line) > 5)
    });
    // It stops again, and goes away in the middle of a line, with others unread behind it.
    drop_some();
    first.wait_until_full();
    assert_eq!(first.take(100), 100);
    let first = whole_lines(&first.leave());
    drop_some();

    let second = Reader::open(&path);
    let over = Arc::new(AtomicBool::new(false));
    let thread = read_on(second, Arc::clone(&over));
    drop_some();
    let ended = run.0.stop();
    over.store(true, Ordering::Relaxed);
    let second = whole_lines(&thread.join().unwrap().leave());
    let ended = ended.unwrap();

    assert!(ended.status.success() && !second.is_empty(), "{}", ended.stderr);
    let read: Vec<String> = first.into_iter().chain(second).collect();
    // Every line whole and once, in order.
    for (number, (read, printed)) in read.iter().zip(&ended.lines).enumerate() {
        assert_eq!(read, printed, "line {number}");
    }
    assert_eq!(read.len(), ended.lines.len());
    let (mut sum, mut refused, mut end) = (0, 0, None);
    for line in decoded(read.iter().map(String::as_str)) {
        match line {
            Line::Report(report) => {
                sum += report.drops;
                let datagrams = report.locations.iter().filter(|row| is_at(row, UDP4));
                refused += datagrams.map(|row| row.count).sum::<u64>();
            }
            Line::End(line) => end = Some(line),
            Line::Start(_) | Line::Sample(_) => {}
        }
    }
    let end = end.unwrap();
    assert_eq!((sum, refused), (end.drops, sent));
}

/// Intervals that a report covers; 0 of another line.
fn intervals(line: &str) -> u64 {
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    value["intervals"].as_u64().unwrap_or_default()
}
