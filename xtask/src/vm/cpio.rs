//! Writes an initramfs: a cpio archive in the "newc" format, which the kernel unpacks at boot
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! Everything belongs to root there whoever writes it, and archives may simply follow one another.

use std::{collections::BTreeSet, fs, io::Write, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result};

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;

/// An archive under construction, in memory.
#[derive(Debug, Default)]
pub(super) struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
    names: BTreeSet<String>,
}

impl Cpio {
    /// Adds a file with the folders above it. What is already there stays.
    pub(super) fn file(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.entry(name, FILE | mode, data);
    }

    /// Adds a copy of a file, by what a symbolic link leads to.
    pub(super) fn copy(&mut self, name: &str, source: &Path) -> Result<()> {
        let reading = || format!("cannot read {}", source.display());
        let mode = fs::metadata(source).with_context(reading)?.permissions().mode() & 0o755;
        self.file(name, mode, &fs::read(source).with_context(reading)?);
        Ok(())
    }

    pub(super) fn link(&mut self, name: &str, target: &str) {
        self.entry(name, LINK, target.as_bytes());
    }

    pub(super) fn folder(&mut self, name: &str) {
        self.entry(name, FOLDER, &[]);
    }

    /// The finished archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.header("TRAILER!!!", 0, &[]);
        // The kernel looks for a following archive at multiples of 4 bytes.
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) {
        let name = name.trim_matches('/');
        if name.is_empty() || self.names.contains(name) {
            return;
        }
        if let Some((above, _)) = name.rsplit_once('/') {
            self.entry(above, FOLDER, &[]);
        }
        self.names.insert(name.to_owned());
        self.header(name, mode, data);
    }

    fn header(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.entries += 1;
        let links = if mode & 0o170_000 == FOLDER & 0o170_000 { 2 } else { 1 };
        let fields = [
            self.entries,
            mode,
            0, // user
            0, // group
            links,
            0, // time
            data.len() as u32,
            0, // device of the file, two numbers
            0,
            0, // device that the file is, two numbers
            0,
            name.len() as u32 + 1,
            0, // checksum, not used by this format
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            // Writing to a Vec cannot fail.
            let _infallible = write!(self.bytes, "{field:08X}");
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_what_is_in_them_and_once() {
        let mut cpio = Cpio::default();
        cpio.file("a/b/c", 0o755, b"hello");
        cpio.link("/a/b/d", "c");
        cpio.folder("a/b");
        let bytes = cpio.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 5, "a, a/b, two entries, trailer: {text}");
        assert!(text.find("a/b/c").unwrap() > text.find("a/b\0").unwrap());
        // Mode and length stand at fixed places behind the magic number.
        let c = text.find("a/b/c").unwrap() - 110;
        assert_eq!(&text[c + 14..c + 22], "000081ED");
        assert_eq!(&text[c + 54..c + 62], "00000005");
    }
}
