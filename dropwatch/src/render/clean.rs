//! Keeps names from steering the terminal that shows them.

use std::borrow::Cow;

use crate::report::shell::is_hidden;

/// `text` with every character that could move a cursor, start an escape sequence or reorder the
/// line replaced by U+FFFD.
///
/// Line ends are replaced, too: a name is always part of one line.
pub fn clean(text: &str) -> Cow<'_, str> {
    if text.contains(is_hidden) {
        Cow::Owned(text.replace(is_hidden, "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_get_no_orders() {
        assert_eq!(clean("tcp_v4_rcv.isra.0"), "tcp_v4_rcv.isra.0");
        assert_eq!(clean("Zürich · 東京"), "Zürich · 東京");
        assert_eq!(clean("a\x1b[2Jb"), "a\u{fffd}[2Jb");
        assert_eq!(clean("a\r\nb\tc\x7f"), "a\u{fffd}\u{fffd}b\u{fffd}c\u{fffd}");
        assert_eq!(clean("c1\u{9b}31m"), "c1\u{fffd}31m");
        assert_eq!(clean("\u{202e}drow\u{2066}s"), "\u{fffd}drow\u{fffd}s");
    }
}
