//! Keeps names from steering the terminal that shows them.

use std::borrow::Cow;

/// `text` with every character that could move a cursor, start an escape sequence or reorder the
/// line replaced by U+FFFD.
///
/// Also line ends: what goes through here is part of one line.
pub fn clean(text: &str) -> Cow<'_, str> {
    if text.contains(is_unsafe) {
        Cow::Owned(text.replace(is_unsafe, "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Control characters (C0, DEL, C1), line and paragraph separators, marks that change the direction
/// of text (Unicode Standard Annex 9, section 2), and characters that show nothing at all.
pub(super) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
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
