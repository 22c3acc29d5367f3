//! Streaming of line-based kernel files in constant memory.

use std::io::{self, Read};

/// Kernel sequence files return a page at a time; larger reads cost nothing.
const BUFFER: usize = 64 << 10;

/// Calls `each` with every complete line of `reader`, without its newline.
///
/// Returns the number of lines that were skipped: those longer than `longest` bytes, and a last
/// line without a newline, because a truncated name is a wrong name.
pub fn for_each_line(
    mut reader: impl Read,
    longest: usize,
    mut each: impl FnMut(&[u8]),
) -> io::Result<u64> {
    let mut buffer = vec![0; BUFFER.max(longest + 1)];
    let (mut filled, mut skipped, mut overlong) = (0, 0, false);
    loop {
        let read = match reader.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(skipped + u64::from(filled > 0 || overlong)),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        // Bytes before `filled` are known to hold no newline.
        let (mut start, mut scan) = (0, filled);
        filled += read;
        while let Some(length) = buffer[scan..filled].iter().position(|&byte| byte == b'\n') {
            let end = scan + length;
            if overlong || end - start > longest {
                skipped += 1;
                overlong = false;
            } else {
                each(&buffer[start..end]);
            }
            start = end + 1;
            scan = start;
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
        if filled > longest {
            (filled, overlong) = (0, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte a read: every line crosses a read boundary.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(1);
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn lines(reader: impl Read, longest: usize) -> (Vec<String>, u64) {
        let mut seen = Vec::new();
        let skipped = for_each_line(reader, longest, |line| {
            seen.push(String::from_utf8_lossy(line).into_owned());
        })
        .unwrap();
        (seen, skipped)
    }

    #[test]
    fn skips_overlong_and_unfinished_lines() {
        let text = b"one\nfar too long\n\ntwo\ncut";
        let expected = (vec!["one".to_owned(), String::new(), "two".to_owned()], 2);
        assert_eq!(lines(&text[..], 3), expected);
        assert_eq!(lines(Trickle(text), 3), expected);
    }

    #[test]
    fn an_endless_line_takes_constant_memory() {
        let endless = io::repeat(b'x').take(10 << 20);
        assert_eq!(lines(endless.chain(&b"\nok\n"[..]), 8), (vec!["ok".to_owned()], 1));
    }
}
