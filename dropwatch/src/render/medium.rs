//! What text is written to: how wide it is, which characters and colours it shows.
//!
//! Renderers write styled Unicode; what the reader cannot show is taken out here, at the edge, so
//! that there is one set of texts. JSON, metrics and captures do not come this way.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use anstream::adapter::strip_str;

use super::{
    ascii::{ascii, ascii_command},
    wrap::wrap_hanging,
};

/// Columns of lines that nobody said a width for.
const USUAL: usize = 80;

/// What text is written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Medium {
    /// Columns of the screen; `None` where none is known of, such as a file or a pipe.
    pub columns: Option<usize>,
    /// Show colours, and what else makes text stand out.
    pub color: bool,
    /// Write no character but those of ASCII.
    pub ascii: bool,
}

impl Medium {
    /// Columns that lines fit.
    pub fn width(self) -> usize {
        self.columns.unwrap_or(USUAL)
    }

    /// Columns that a line with `indent` before it fits; no bound where lines are not broken, so that
    /// whoever searches a file for a word gets the whole sentence.
    pub(super) fn room(self, indent: usize) -> usize {
        self.columns.map_or(usize::MAX, |columns| columns.saturating_sub(indent))
    }

    /// A line that programs read, too, such as a row or a notice: broken only for a screen, with `indent`
    /// columns before what does not fit.
    pub(super) fn row(self, line: String, indent: usize) -> Vec<String> {
        match self.columns {
            Some(columns) => wrap_hanging(&line, indent, columns),
            None => vec![line],
        }
    }

    /// A command to be copied, whole, in characters that this shows.
    pub(super) fn command(self, command: &str) -> Cow<'_, str> {
        if self.ascii { ascii_command(command) } else { Cow::Borrowed(command) }
    }

    /// Writes `text` as this shows it.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(self, text: &str, out: &mut dyn Write) -> io::Result<()> {
        let mut text = Cow::Borrowed(text);
        if !self.color && text.contains('\x1b') {
            text = Cow::Owned(strip_str(&text).to_string());
        }
        let text = if self.ascii { ascii(&text) } else { Cow::Borrowed(&*text) };
        out.write_all(text.as_bytes())
    }

    /// A message of this program as one line; on a screen, as many as it takes.
    pub fn message(self, text: &str) -> String {
        let lines = self.row(format!("dropwatch: {}", super::clean(text)), 2);
        let mut message = Vec::new();
        // Writing to a Vec cannot fail, and what is written is text.
        let _infallible = self.write(&(lines.join("\n") + "\n"), &mut message);
        String::from_utf8_lossy(&message).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::palette::{ALARM, paint};

    fn written(medium: Medium) -> String {
        let mut out = Vec::new();
        medium.write(&format!("{} → b", paint(ALARM, "a\u{fffd}")), &mut out).expect("writes");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn what_cannot_be_shown_is_taken_out() {
        let all = Medium { color: true, ..Medium::default() };
        assert_eq!(written(all), "\x1b[1m\x1b[31ma\u{fffd}\x1b[0m → b");
        assert_eq!(written(Medium::default()), "a\u{fffd} → b");
        assert_eq!(written(Medium { ascii: true, ..all }), "\x1b[1m\x1b[31ma?\x1b[0m > b");
        assert_eq!(written(Medium { ascii: true, ..Medium::default() }), "a? > b");
    }

    #[test]
    fn a_message_is_one_line_for_programs() {
        let long = format!("cannot attach: {}", "word ".repeat(30));
        assert_eq!(Medium::default().message(&long).lines().count(), 1);
        let screen = Medium { columns: Some(60), ..Medium::default() };
        let message = screen.message(&long);
        assert!(message.lines().all(|line| line.len() <= 60), "{message}");
        assert!(message.starts_with("dropwatch: cannot attach: word "), "{message}");
    }
}
