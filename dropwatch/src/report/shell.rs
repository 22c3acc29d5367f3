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

#[cfg(test)]
mod tests {
    use super::*;

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
