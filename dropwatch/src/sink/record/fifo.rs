//! What a FIFO's reader has left unread when it goes away.
//!
//! The pipe holds bytes that are written and not read, and its reader may have stopped within a
//! line. Whoever comes next is to begin with a whole line, and to get all that the first has not
//! read to its end. So the last lines are kept, as many as the pipe can hold.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
};

use nix::fcntl::{FcntlArg, fcntl};
use rustix::io::ioctl_fionread;

use crate::sink::output::write_all;

/// The last bytes that were written, from the beginning of a line on.
#[derive(Debug, Default)]
pub(super) struct Sent(Vec<u8>);

impl Sent {
    /// Writes all of `page`, which is whole lines. Where the reader has gone, `page` becomes what
    /// the next one is to get.
    ///
    /// # Errors
    /// As [`write_all`].
    pub(super) fn write(&mut self, fifo: &File, page: &mut Vec<u8>) -> io::Result<()> {
        let capacity = fcntl(fifo.as_fd(), FcntlArg::F_GETPIPE_SZ)?;
        let mut noted = Noted { fifo, sent: self, written: 0 };
        let result = write_all(&mut noted, page);
        let written = noted.written;
        match &result {
            Ok(()) => self.forget(usize::try_from(capacity).unwrap_or(usize::MAX)),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                let mut owed = self.left(unread(fifo)?).to_vec();
                owed.extend(&page[written..]);
                *page = owed;
                self.0.clear();
            }
            // What is written is not written again.
            Err(_) => drop(page.drain(..written)),
        }
        result
    }

    /// The lines that are not read to their end, if `unread` bytes are not.
    fn left(&self, unread: usize) -> &[u8] {
        let read = self.0.len().saturating_sub(unread);
        &self.0[end_of_lines(&self.0[..read])..]
    }

    /// Forgets lines that cannot be in the pipe any more.
    fn forget(&mut self, capacity: usize) {
        let surplus = self.0.len().saturating_sub(capacity);
        self.0.drain(..end_of_lines(&self.0[..surplus]));
    }
}

/// Where the last whole line ends.
fn end_of_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1)
}

/// Bytes that are in the pipe.
fn unread(fifo: &File) -> io::Result<usize> {
    usize::try_from(ioctl_fionread(fifo)?).map_err(io::Error::other)
}

/// Takes down what is written.
struct Noted<'a> {
    fifo: &'a File,
    sent: &'a mut Sent,
    written: usize,
}

impl Write for Noted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.fifo.write(bytes)?;
        self.sent.0.extend(&bytes[..written]);
        self.written += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.fifo.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, thread};

    use super::*;

    /// A pipe as small as they are.
    fn pipe() -> (File, File) {
        let (reader, writer) = io::pipe().unwrap();
        fcntl(writer.as_fd(), FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        let file = |end: std::os::fd::OwnedFd| File::from(end);
        (file(reader.into()), file(writer.into()))
    }

    #[test]
    fn what_is_left_begins_with_a_line() {
        let sent = Sent(b"one\ntwo\nthr".to_vec());
        for (unread, left) in [
            (0, "thr"),
            (1, "thr"),
            (3, "thr"),
            (4, "two\nthr"),
            (7, "two\nthr"),
            (11, "one\ntwo\nthr"),
        ] {
            assert_eq!(sent.left(unread), left.as_bytes(), "{unread}");
        }
        assert_eq!(Sent(b"one\n".to_vec()).left(0), b"");
    }

    #[test]
    fn whole_lines_are_forgotten_and_enough_is_kept() {
        let mut sent = Sent(b"one\ntwo\nthree\n".to_vec());
        sent.forget(14);
        assert_eq!(sent.0.len(), 14);
        sent.forget(7);
        assert_eq!(sent.0, b"two\nthree\n");
    }

    #[test]
    fn a_reader_that_goes_within_a_line_leaves_it_whole() {
        let (mut reader, fifo) = pipe();
        let mut sent = Sent::default();
        sent.write(&fifo, &mut b"first\nsecond\n".to_vec()).unwrap();
        let long = format!("{}\n", "x".repeat(9000));
        let mut page = long.clone().into_bytes();
        let written = thread::scope(|scope| {
            let writing = scope.spawn(|| sent.write(&fifo, &mut page));
            let mut taken = [0; 8];
            reader.read_exact(&mut taken).unwrap();
            assert_eq!(&taken, b"first\nse");
            drop(reader);
            writing.join().unwrap()
        });
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(String::from_utf8(page).unwrap(), format!("second\n{long}"));
    }
}
