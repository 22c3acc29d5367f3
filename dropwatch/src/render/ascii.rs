//! Text for a reader whose characters are ASCII alone.

use std::{borrow::Cow, fmt::Write};

use super::wrap::columns;

/// `text` with every other character replaced by ASCII of as many columns, so that what lines up
/// does so afterwards, and what fits still fits.
pub(super) fn ascii(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            _ if c.is_ascii() => plain.push(c),
            '←' => plain.push('<'),
            '→' => plain.push('>'),
            '↑' => plain.push('^'),
            '↓' | '▼' => plain.push('v'),
            // The key of the live view that does the same.
            '⏎' => plain.push('>'),
            '×' => plain.push('x'),
            '·' => plain.push('|'),
            '…' => plain.push('~'),
            '–' | '—' | '‐' | '‑' | '─' => plain.push('-'),
            '│' | '▏' => plain.push('|'),
            '‘' | '’' => plain.push('\''),
            '“' | '”' => plain.push('"'),
            '\u{a0}' | '\u{202f}' => plain.push(' '),
            '▁' => plain.push('.'),
            '▂' => plain.push(':'),
            '▃' => plain.push('-'),
            '▄' => plain.push('='),
            '▅' => plain.push('+'),
            '▆' => plain.push('*'),
            '▇' => plain.push('#'),
            '█' => plain.push('@'),
            _ => {
                let width = columns(c.encode_utf8(&mut [0; 4]));
                plain.extend(std::iter::repeat_n('?', width));
            }
        }
    }
    Cow::Owned(plain)
}

/// A shell command that does the same and is ASCII: other characters are made by `printf`, which
/// every POSIX shell has, from their bytes.
///
/// Knows as much of a shell's quotes as [`quote`](crate::report::shell::quote) uses: single ones,
/// and a backslash before one outside of them.
pub(super) fn ascii_command(command: &str) -> Cow<'_, str> {
    if command.is_ascii() {
        return Cow::Borrowed(command);
    }
    let mut plain = String::with_capacity(command.len());
    let (mut quoted, mut escaped) = (false, false);
    let mut rest = command;
    while let Some(c) = rest.chars().next() {
        if c.is_ascii() {
            quoted ^= c == '\'' && !escaped;
            escaped = c == '\\' && !quoted && !escaped;
            plain.push(c);
            rest = &rest[1..];
            continue;
        }
        let end = rest.find(|c: char| c.is_ascii()).unwrap_or(rest.len());
        let (other, after) = rest.split_at(end);
        let quote = if quoted { "'" } else { "" };
        let bytes = other.bytes().fold(String::new(), |mut bytes, byte| {
            // Writing to a String cannot fail.
            let _infallible = write!(bytes, "\\{byte:o}");
            bytes
        });
        plain += &format!("{quote}\"$(printf '{bytes}')\"{quote}");
        rest = after;
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::report::shell::quote;

    #[test]
    fn as_many_columns_as_before() {
        assert_eq!(ascii("gw · tcp a:* → b:80"), "gw | tcp a:* > b:80");
        assert_eq!(ascii("Zürich 東京"), "Z?rich ????");
        assert_eq!(ascii("▁▂▃▄▅▆▇█ –"), ".:-=+*#@ -");
        assert_eq!(ascii("plain\x1b[1m"), "plain\x1b[1m");
        assert_eq!(ascii("a\u{301}"), "a", "an accent takes no column");
    }

    #[test]
    fn a_shell_makes_the_same_words_of_a_command() {
        for word in ["Zürich", "it's 東京; §", "plain", "ü", "a 'b' ç"] {
            let command = format!("printf '%s\\n' {} end", quote(word));
            let plain = ascii_command(&command);
            assert!(plain.is_ascii(), "{plain}");
            let printed = Command::new("sh").args(["-c", &plain]).output().expect("a shell");
            assert_eq!(String::from_utf8_lossy(&printed.stdout), format!("{word}\nend\n"));
        }
        assert_eq!(ascii_command("cat ü"), r#"cat "$(printf '\303\274')""#);
    }
}
