//! Rules of more than one line: a comment is anyone's choice, and a quoted text may have line ends.

use std::borrow::Cow;

/// Most bytes of a rule that goes on in other lines. The longest text that the kernel keeps for a rule is a
/// comment of 256 (`XT_MAX_COMMENT_LEN`, include/uapi/linux/netfilter/xt_comment.h).
const MOST: usize = 1 << 12;

/// Puts lines together that a quotation joins.
#[derive(Default)]
pub(super) struct Joined {
    open: Vec<u8>,
    /// A backslash takes the next letter as it is.
    escapes: bool,
    is_broken: bool,
}

impl Joined {
    /// Of a program that writes quotation marks within a text with a backslash before them.
    pub(super) fn escaped() -> Self {
        Self { escapes: true, ..Self::default() }
    }

    /// The next line; what it ends, if it ends something.
    pub(super) fn line<'a>(&mut self, line: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let whole = match self.open.is_empty() {
            true => Cow::Borrowed(line),
            false => {
                let mut open = std::mem::take(&mut self.open);
                open.push(b'\n');
                open.extend_from_slice(line);
                Cow::Owned(open)
            }
        };
        if !is_open(&whole, self.escapes) {
            return Some(whole);
        }
        match whole.len() < MOST {
            true => self.open = whole.into_owned(),
            false => self.is_broken = true,
        }
        None
    }

    /// Whether all quotations ended.
    pub(super) fn is_whole(&self) -> bool {
        self.open.is_empty() && !self.is_broken
    }
}

/// Whether a quotation is open at the end. A mark within a word, as a chain's name may have, opens none.
fn is_open(line: &[u8], escapes: bool) -> bool {
    let (mut quoted, mut escaped, mut before) = (false, false, b' ');
    for byte in line {
        match byte {
            _ if std::mem::take(&mut escaped) => {}
            b'\\' if quoted && escapes => escaped = true,
            b'"' if quoted => quoted = false,
            b'"' => quoted = matches!(before, b' ' | b'\t'),
            _ => {}
        }
        before = *byte;
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(mut lines: Joined, text: &str) -> (Vec<String>, bool) {
        let all = text.split('\n').filter_map(|line| lines.line(line.as_bytes()));
        let all = all.map(|line| String::from_utf8_lossy(&line).into_owned()).collect();
        (all, lines.is_whole())
    }

    #[test]
    fn a_quotation_joins_lines() {
        let (all, is_whole) = joined(Joined::escaped(), "a\nb \"c \\\" d\n[0:0] x\ny\" z\ne\"f\ng");
        assert_eq!(all, ["a", "b \"c \\\" d\n[0:0] x\ny\" z", "e\"f", "g"]);
        assert!(is_whole);
        let (all, is_whole) = joined(Joined::default(), "a \"b\\\" c\nd \"e\nf\" \"g\"\nh");
        assert_eq!(all, ["a \"b\\\" c", "d \"e\nf\" \"g\"", "h"]);
        assert!(is_whole);
    }

    #[test]
    fn a_quotation_without_end_is_given_up() {
        assert_eq!(joined(Joined::default(), "a \"b\nc"), (vec![], false));
        let long = format!("a \"b\n{}\nc", "x".repeat(MOST));
        assert_eq!(joined(Joined::default(), &long), (vec!["c".to_owned()], false));
    }
}
