//! Lines that fit: text is broken between words, never within one. What is wider than a line by
//! itself sticks out.

use textwrap::{
    core::{Fragment, display_width},
    wrap_algorithms::wrap_first_fit,
};

/// Columns that `text` takes on a terminal; escape sequences take none.
pub(super) fn columns(text: &str) -> usize {
    display_width(text)
}

/// What is never broken, with what separates it from the next if that stands on the same line.
#[derive(Clone, Copy, Debug)]
struct Unit<'a> {
    text: &'a str,
    separator: &'a str,
    /// What ends the line if the next unit does not fit.
    at_break: &'static str,
}

impl Fragment for Unit<'_> {
    fn width(&self) -> f64 {
        columns(self.text) as f64
    }

    fn whitespace_width(&self) -> f64 {
        columns(self.separator) as f64
    }

    fn penalty_width(&self) -> f64 {
        columns(self.at_break) as f64
    }
}

/// Splits text between words into lines of at most `width` columns, where words allow it.
///
/// What stands between backquotes is one word: a command that is there to be copied.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    lines(&units(text), width, width)
}

/// Breaks a text between words into lines of at most `width` columns, with `indent` columns before every line but the first, at most half of the width.
pub(crate) fn wrap_hanging(text: &str, indent: usize, width: usize) -> Vec<String> {
    let indent = indent.min(width / 2);
    let mut lines = lines(&units(text), width, width.saturating_sub(indent));
    lines.iter_mut().skip(1).for_each(|line| line.insert_str(0, &" ".repeat(indent)));
    lines
}

/// Joins pieces, each with what separates it from the one before, to lines of at most `width`
/// columns. Only a piece that is wider than a line is broken, between its words.
pub(super) fn wrap_pieces<'a>(
    pieces: impl IntoIterator<Item = (&'a str, String)>,
    width: usize,
) -> Vec<String> {
    let pieces: Vec<(&str, String)> = pieces.into_iter().collect();
    let mut all: Vec<Unit<'_>> = Vec::new();
    for (separator, piece) in &pieces {
        if let Some(before) = all.last_mut() {
            before.separator = separator;
        }
        if columns(piece) <= width {
            all.push(Unit { text: piece, separator: "", at_break: "" });
        } else {
            all.extend(units(piece));
        }
    }
    lines(&all, width, width)
}

/// A command in lines of at most `width` columns that a POSIX shell reads as one: broken between its
/// words, never inside quotes, each line but the last ending in a backslash, each but the first
/// `indent` columns in.
pub(crate) fn wrap_command(command: &str, indent: usize, width: usize) -> Vec<String> {
    let mut all = Vec::new();
    let (mut start, mut quote, mut escaped) = (0, None, false);
    let mut push = |text| all.push(Unit { text, separator: " ", at_break: " \\" });
    for (at, c) in command.char_indices() {
        match (c, quote) {
            _ if escaped => escaped = false,
            ('\\', None | Some('"')) => escaped = true,
            ('\'' | '"', None) => quote = Some(c),
            (_, Some(open)) if c == open => quote = None,
            (' ', None) => {
                push(&command[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    push(&command[start..]);
    if let Some(last) = all.last_mut() {
        last.at_break = "";
    }
    let mut lines = lines(&all, width, width.saturating_sub(indent));
    lines.iter_mut().skip(1).for_each(|line| line.insert_str(0, &" ".repeat(indent)));
    lines
}

/// The words of `text`, each with the spaces behind it.
fn units(text: &str) -> Vec<Unit<'_>> {
    let mut units = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        // Spaces at the beginning are an indent of the first word, so no line is broken there.
        let word = rest.find(|c| c != ' ').unwrap_or(0);
        let mut end = rest[word..].find(' ').map_or(rest.len(), |space| word + space);
        // An opened quotation is part of the word, unless it never ends.
        while rest[..end].matches('`').count() % 2 == 1 {
            let Some(close) = rest[end..].find('`') else { break };
            let closed = end + close + 1;
            end = rest[closed..].find(' ').map_or(rest.len(), |space| closed + space);
        }
        let next = rest[end..].find(|c| c != ' ').map_or(rest.len(), |word| end + word);
        units.push(Unit { text: &rest[..end], separator: &rest[end..next], at_break: "" });
        rest = &rest[next..];
    }
    if units.is_empty() {
        units.push(Unit { text: "", separator: "", at_break: "" });
    }
    units
}

/// Puts units on as few lines as they fit on.
fn lines(units: &[Unit<'_>], first: usize, others: usize) -> Vec<String> {
    let set = |units: &[Unit<'_>], is_last: bool| {
        let mut line = String::new();
        for (index, unit) in units.iter().enumerate() {
            line += unit.text;
            line += match index + 1 < units.len() {
                true => unit.separator,
                false if is_last => "",
                false => unit.at_break,
            };
        }
        line
    };
    let wrapped = wrap_first_fit(units, &[first as f64, others as f64]);
    let count = wrapped.len();
    wrapped.iter().enumerate().map(|(index, units)| set(units, index + 1 == count)).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn long_text_wraps_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("unbreakable word", 4), ["unbreakable", "word"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(wrap("  two  spaces", 40), ["  two  spaces"]);
        assert_eq!(wrap("    set in", 5), ["    set", "in"]);
        assert_eq!(wrap("time-to-live netns/gw", 8), ["time-to-live", "netns/gw"]);
        assert_eq!(wrap("東京 東京", 8), ["東京", "東京"], "a wide character takes two columns");
        assert_eq!(wrap("\x1b[1mone two\x1b[0m", 7), ["\x1b[1mone two\x1b[0m"]);
    }

    #[test]
    fn a_quoted_command_is_one_word() {
        assert_eq!(wrap("run `nstat -az` now", 8), ["run", "`nstat -az`", "now"]);
        assert_eq!(wrap("see (`ip -s l`, `ss -u`)", 10), ["see", "(`ip -s l`,", "`ss -u`)"]);
        assert_eq!(wrap("a ` never ends", 7), ["a `", "never", "ends"]);
    }

    #[test]
    fn further_lines_hang() {
        assert_eq!(wrap_hanging("Note: one two three", 6, 13), ["Note: one two", "      three"]);
    }

    #[test]
    fn pieces_stay_whole_where_they_fit() {
        let wrapped = |width| {
            let pieces = [("", "drop +1"), (" · ", "early drop +2"), ("  ", "(3)")];
            wrap_pieces(pieces.map(|(separator, piece)| (separator, piece.to_owned())), width)
        };
        assert_eq!(wrapped(80), ["drop +1 · early drop +2  (3)"]);
        assert_eq!(wrapped(18), ["drop +1", "early drop +2  (3)"]);
        assert_eq!(wrapped(9), ["drop +1", "early", "drop +2", "(3)"]);
    }

    #[test]
    fn a_shell_reads_a_wrapped_command_as_one() {
        let command = r#"printf '%s|' 'one  two' "three \" four" fi\ ve 'it'\''s six' seven"#;
        let shell = |script: &str| {
            let output = Command::new("sh").args(["-c", script]).output().expect("a shell");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert_eq!(shell(command), "one  two|three \" four|fi ve|it's six|seven|");
        for width in 1..80 {
            let lines = wrap_command(command, 4, width);
            assert_eq!(shell(&lines.join("\n")), shell(command), "{lines:#?}");
            for line in &lines {
                let words = line.trim_start().trim_end_matches(" \\");
                let single = wrap_command(words, 0, 0).len() == 1;
                assert!(columns(line) <= width || single, "{width}: {line}");
            }
        }
    }
}
