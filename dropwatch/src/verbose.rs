//! `-v`: what happens while loading and in the kernel, as lines on standard error.

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

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().split("::").next() == Some("dropwatch")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = format!("dropwatch: {}\n", clean(&record.args().to_string()));
            // Diagnostics that cannot be written have nowhere else to go.
            let _unwritable = std::io::stderr().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}
