//! Tests that can prove nothing where they run: the kernel lacks what they are about.
//!
//! Such a test ends well, but it must not be counted as passed. It says so with [`unproved`], and
//! whoever runs tests counts it as skipped: `cargo xtask test`, `cargo xtask vm`.

use std::{
    env,
    fs::File,
    io::{Write, stdout},
    thread,
};

/// Names the file that takes the lines, one for each test; libtest swallows what tests print.
pub const FILE: &str = "DROPWATCH_TEST_UNPROVED";
const MARKER: &str = "unproved: ";

/// A test that has proved nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unproved {
    pub test: String,
    pub why: String,
}

/// Says that the test that calls this proves nothing here; it should return next. To be called by
/// the test's own thread, which has its name.
///
/// Without a file in [`FILE`] the line goes to standard output, past libtest.
///
/// # Panics
/// When the line cannot be written: the test would count as passed.
pub fn unproved(why: &str) {
    let name = thread::current().name().unwrap_or("a test without a name").to_owned();
    let line = line(&name, why);
    let written = match env::var_os(FILE) {
        Some(path) => File::options()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes())),
        // libtest has begun a line with the test's name.
        None => stdout().write_all(format!("\n{line}").as_bytes()),
    };
    written.unwrap_or_else(|error| panic!("cannot say that this proves nothing: {error}"));
}

/// `unproved: NAME: WHY`, in one line, with its end.
pub fn line(test: &str, why: &str) -> String {
    let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{MARKER}{test}: {why}\n")
}

/// Reads a line that [`unproved`] has written; `None` for any other.
pub fn parse(line: &str) -> Option<Unproved> {
    let (test, why) = line.strip_prefix(MARKER)?.split_once(": ")?;
    Some(Unproved { test: test.to_owned(), why: why.trim_end().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let text = line("details::links::vlan", "no 8021q: it is\na module");
        let expected = Unproved {
            test: "details::links::vlan".into(),
            why: "no 8021q: it is a module".into(),
        };
        assert_eq!(parse(&text), Some(expected));
        assert_eq!(text.lines().count(), 1);
        assert_eq!(parse("test a::b ... ok"), None);
        assert_eq!(parse("unproved: "), None);
    }
}
