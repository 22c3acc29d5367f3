//! Lines on standard error, beside the output: with `-v`, what happens while loading and in the
//! kernel; otherwise only what the output's format has no place for.

use std::io::Write;

use log::{LevelFilter, Log, Metadata, Record};

use crate::render::clean;

struct Stderr;

static STDERR: Stderr = Stderr;

/// Turns the lines on, for the rest of the process. Only this program's own lines and those of its
/// kernel side: libraries keep silent.
pub fn enable() {
    if log::set_logger(&STDERR).is_ok() {
        log::set_max_level(LevelFilter::Debug);
    }
}

/// Writes one line, marked as this program's.
pub fn to_stderr(text: &str) {
    let line = format!("dropwatch: {}\n", clean(text));
    // What cannot be written here has nowhere else to go.
    let _unwritable = std::io::stderr().write_all(line.as_bytes());
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().split("::").next() == Some("dropwatch")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            to_stderr(&record.args().to_string());
        }
    }

    fn flush(&self) {}
}
