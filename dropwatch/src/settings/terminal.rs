//! What the streams of this process are written to.

use std::{io, os::fd::AsFd};

use anstream::{AutoStream, ColorChoice, stream::RawStream};

use crate::render::Medium;

/// Screens are taken as no narrower: the first line and the last take as much, and nothing readable
/// fits on less.
const NARROWEST: usize = 32;
/// Lines are no longer on wider screens: nobody reads such text.
const WIDEST: usize = 120;

every! {
    /// Whether to show colours.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Color {
        /// Where the reader shows them.
        Auto,
        Always,
        Never,
    }
}

/// Standard output or standard error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stream {
    pub is_terminal: bool,
    /// Shows colours, unless an option says otherwise.
    pub color: bool,
    /// Columns of its screen, within reason; `None` where none is known of.
    pub columns: Option<usize>,
}

/// What the environment says about the reader of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terminal {
    pub stdout: Stream,
    pub stderr: Stream,
    /// `TERM` is `dumb`.
    pub dumb: bool,
    /// The locale's characters are not those of UTF-8.
    pub ascii: bool,
}

impl Terminal {
    /// Asks the environment.
    pub fn detect() -> Self {
        let variable = |name| std::env::var(name).ok();
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].map(variable);
        Self {
            stdout: Stream::of(&io::stdout()),
            stderr: Stream::of(&io::stderr()),
            dumb: variable("TERM").is_some_and(|term| term == "dumb"),
            ascii: !is_utf8(locale.iter().map(Option::as_deref)),
        }
    }

    /// The terminal to write text for: with `aside`, that of standard error, where standard output is not
    /// for text.
    #[must_use]
    pub fn aside(self, aside: bool) -> Self {
        if aside { Self { stdout: self.stderr, ..self } } else { self }
    }

    /// What text on standard output is written to, with colours as an option says.
    pub fn medium(self, color: Color) -> Medium {
        let color = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => self.stdout.color,
        };
        Medium { columns: self.stdout.columns, color, ascii: self.ascii }
    }
}

/// A message of this program as a line of standard error, which may be a screen of another width by
/// now.
pub fn message(text: &str) -> String {
    Terminal::detect().aside(true).medium(Color::Never).message(text)
}

impl Stream {
    /// `NO_COLOR`, `CLICOLOR_FORCE`, `CLICOLOR` and `TERM` decide about colours, in that order.
    fn of(stream: &(impl AsFd + RawStream)) -> Self {
        let screen = terminal_size::terminal_size_of(stream);
        let wish = std::env::var("COLUMNS").ok();
        Self {
            is_terminal: stream.is_terminal(),
            color: AutoStream::choice(stream) != ColorChoice::Never,
            columns: columns(wish.as_deref(), screen.map(|(width, _)| width.0.into())),
        }
    }
}

/// Columns to write for. `COLUMNS` is the reader's wish and comes before the width of the screen, if
/// it is a width at all (POSIX.1-2024, XBD 8.3).
fn columns(wish: Option<&str>, screen: Option<usize>) -> Option<usize> {
    let wish = wish.and_then(|wish| wish.parse().ok()).filter(|columns| *columns >= NARROWEST);
    // A serial line has the size 0 until somebody sets one.
    let screen = screen.filter(|columns| *columns > 0);
    wish.or(screen).map(|columns| columns.clamp(NARROWEST, WIDEST))
}

/// Whether the locale's characters are those of UTF-8, by the name of the first that is set: the
/// values of `LC_ALL`, `LC_CTYPE` and `LANG`, in this order (POSIX.1-2024, XBD 8.2). Where none is,
/// the locale is POSIX, whose characters are those of ASCII.
fn is_utf8<'a>(locale: impl IntoIterator<Item = Option<&'a str>>) -> bool {
    let name = locale.into_iter().flatten().find(|value| !value.is_empty()).unwrap_or_default();
    let codeset = name.split_once('.').map_or("", |(_, codeset)| codeset);
    let codeset = codeset.split('@').next().unwrap_or_default();
    codeset.eq_ignore_ascii_case("UTF-8") || codeset.eq_ignore_ascii_case("UTF8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_comes_before_the_screen_if_it_is_sensible() {
        for (wish, screen, width) in [
            (None, None, None),
            (None, Some(80), Some(80)),
            (None, Some(100), Some(100)),
            (None, Some(250), Some(120)),
            (None, Some(7), Some(32)),
            (None, Some(0), None),
            (Some("60"), Some(100), Some(60)),
            (Some("60"), None, Some(60)),
            (Some("999"), None, Some(120)),
            (Some("0"), Some(100), Some(100)),
            (Some("3"), Some(100), Some(100)),
            (Some("-80"), None, None),
            (Some("wide"), None, None),
            (Some(""), Some(90), Some(90)),
            (Some("99999999999999999999999"), Some(90), Some(90)),
        ] {
            assert_eq!(columns(wish, screen), width, "{wish:?} {screen:?}");
        }
    }

    #[test]
    fn the_first_locale_that_is_set_decides() {
        for (locale, utf8) in [
            ([None, None, None], false),
            ([None, None, Some("C.UTF-8")], true),
            ([None, None, Some("de_DE.utf8")], true),
            ([None, None, Some("de_DE.UTF-8@euro")], true),
            ([None, None, Some("de_DE@euro")], false),
            ([None, None, Some("en_US.ISO-8859-1")], false),
            ([Some("C"), None, Some("en_US.UTF-8")], false),
            ([Some("POSIX"), Some("C.UTF-8"), None], false),
            ([Some(""), None, Some("en_US.UTF-8")], true),
            ([None, Some("C"), Some("en_US.UTF-8")], false),
            ([None, Some("C.UTF-8"), Some("C")], true),
            ([Some("C.UTF-8"), Some("C"), Some("C")], true),
        ] {
            assert_eq!(is_utf8(locale), utf8, "{locale:?}");
        }
    }
}
