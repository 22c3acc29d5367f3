//! The few colours in use.

use std::fmt::Display;

/// How text stands out (ECMA-48, select graphic rendition).
#[derive(Clone, Copy)]
pub(super) enum Paint {
    Bold = 1,
    Dim = 2,
    Red = 31,
    Green = 32,
    Yellow = 33,
    Cyan = 36,
}

impl Paint {
    /// `text` in this colour, or as it is where no `color` is wanted.
    pub(super) fn on(self, text: impl Display, color: bool) -> String {
        if color { format!("\x1b[{}m{text}\x1b[0m", self as u8) } else { text.to_string() }
    }
}
