//! Words for a shell.

use std::borrow::Cow;

/// `word` as a POSIX shell takes it for one word, whatever is in it.
pub fn quote(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=".contains(c);
    if !word.is_empty() && !word.starts_with('-') && word.chars().all(plain) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
    }
}

/// Whether people can type `text` as it is shown: nothing in it moves a cursor, shows nothing, or stands
/// for bytes that are no text (U+FFFD).
pub fn can_be_typed(text: &str) -> bool {
    !text.contains(|c| c == '\u{fffd}' || is_hidden(c))
}

/// Control characters (C0, DEL, C1), line and paragraph separators, marks that change the direction
/// of text (Unicode Standard Annex 9, section 2), and characters that show nothing at all.
pub fn is_hidden(c: char) -> bool {
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
    fn what_cannot_be_seen_cannot_be_typed() {
        for text in ["ip netns exec gw ss -uln", "Zürich", "it's", ""] {
            assert!(can_be_typed(text), "{text}");
        }
        for text in ["a\nb", "a\x1b[2J", "\u{fffd}", "a\u{202e}b", "a\u{200b}b", "\x7f"] {
            assert!(!can_be_typed(text), "{text:?}");
        }
    }

    #[test]
    fn what_a_shell_would_take_apart_is_quoted() {
        assert_eq!(quote("/run/netns/gw-1.2"), "/run/netns/gw-1.2");
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("x;reboot"), "'x;reboot'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("-n"), "'-n'");
    }
}
