//! Lines on standard error, beside the output: with `-v`, what happens while loading and in the
//! kernel; otherwise only what the output's format has no place for.

use std::{
    io::Write,
    sync::{Mutex, OnceLock, PoisonError},
};

use log::{LevelFilter, Log, Metadata, Record};

/// Most lines that are kept back.
const MOST_HELD: usize = 1_000;

struct Stderr;

static STDERR: Stderr = Stderr;

/// Makes a message a line.
static LINE: OnceLock<fn(&str) -> String> = OnceLock::new();

/// Has `line` make a line of each message: it marks it as this program's, and leaves in it what the
/// reader can show. To be called first of all.
pub fn start(line: fn(&str) -> String) {
    // The first call counts: all lines of a process then look alike.
    let _started = LINE.set(line);
}

/// Turns the lines on, for the rest of the process. Only this program's own lines and those of its
/// kernel side: libraries keep silent.
pub fn enable() {
    if log::set_logger(&STDERR).is_ok() {
        log::set_max_level(LevelFilter::Debug);
    }
}

/// Lines that wait for the end of a full-screen view.
static HELD: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// Keeps lines back until [`release`].
pub fn hold() {
    *HELD.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
}

/// Writes what was kept back.
pub fn release() {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner).take();
    held.into_iter().flatten().for_each(|line| write(&line));
}

/// Writes a message as one line; before [`start`], with whatever a terminal might obey escaped.
pub fn to_stderr(text: &str) {
    let line = LINE.get().map_or_else(|| format!("{}\n", text.escape_debug()), |line| line(text));
    match &mut *HELD.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(held) if held.len() < MOST_HELD => held.push(line),
        Some(_) => {}
        None => write(&line),
    }
}

fn write(line: &str) {
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
