//! What the words of dropwatch's own outputs mean: fields of JSON, headings and whole lines of text,
//! names of metrics.

use serde::{Deserialize, Serialize};

/// One word, or some that mean one thing.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WordEntry {
    pub names: Vec<String>,
    /// Lines that it explains, word by word: `#` stands for one that begins with a digit, `#n` for a
    /// whole number, `#%` for a share, `#/s` for a rate, `*` for any number of words and `*:` for some up to a colon.
    #[serde(default, skip_serializing)]
    pub(super) lines: Vec<String>,
    /// Lines that it explains where they hold no name of anything.
    #[serde(default, skip_serializing)]
    pub(super) other_lines: Vec<String>,
    /// Outputs and parts of them that have it.
    pub place: String,
    pub meaning: String,
}

impl WordEntry {
    /// Whether `typed` is one of its names, or a line of its kind.
    pub(super) fn is(&self, typed: &str) -> bool {
        let bare = typed.trim_matches(['"', ':', ',', ' ', '{', '[', '(', ')']);
        self.names
            .iter()
            .any(|name| name.eq_ignore_ascii_case(typed) || name.eq_ignore_ascii_case(bare))
            || self.lines.iter().any(|line| fits(line, typed))
    }

    /// Whether `typed` is a line of its kind, if it is no name of anything.
    pub(super) fn is_like(&self, typed: &str) -> bool {
        self.other_lines.iter().any(|line| fits(line, typed))
    }
}

/// Whether the words of `text` are those of `pattern`.
fn fits(pattern: &str, text: &str) -> bool {
    let pattern: Vec<&str> = pattern.split(' ').collect();
    let words: Vec<&str> = text.split_whitespace().collect();
    are(&pattern, &words)
}

fn are(pattern: &[&str], words: &[&str]) -> bool {
    let Some((expected, pattern)) = pattern.split_first() else { return words.is_empty() };
    let mut rests = (0..=words.len()).map(|index| words.split_at(index));
    match *expected {
        "*" => pattern.is_empty() || rests.any(|(_, rest)| are(pattern, rest)),
        "*:" => rests.any(|(begin, rest)| {
            begin.last().is_some_and(|word| word.ends_with(':')) && are(pattern, rest)
        }),
        expected => words
            .split_first()
            .is_some_and(|(word, words)| is_word(expected, word) && are(pattern, words)),
    }
}

fn is_word(expected: &str, word: &str) -> bool {
    let bare = word.trim_end_matches([',', ';']);
    let number = || bare.trim_start_matches(['(', '<']).starts_with(|c: char| c.is_ascii_digit());
    match expected {
        "#" => number(),
        // The end of a parenthesis stands for itself.
        "#n)" => bare.strip_suffix(')').is_some_and(|number| is_word("#n", number)),
        "#n" => !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_digit()),
        "#%" => number() && bare.ends_with('%'),
        "#/s" => number() && bare.ends_with("/s"),
        expected => bare.eq_ignore_ascii_case(expected) || word.eq_ignore_ascii_case(expected),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_compared_word_by_word() {
        let header = "07:35:10 10707 drops in 5.0s (2141/s) at 2 locations, none lost";
        assert!(fits("# # drops in *", header));
        for text in ["10707 drops in 5.0s", "many lost drops in it", "07:35:10 12 drops", ""] {
            assert!(!fits("# # drops in *", text), "{text}");
        }
        assert!(fits("sources, # of #", "sources, 2 of 3"));
        assert!(!fits("sources, # of #", "sources, 2 of 3 of 4"));
        assert!(!fits("# undecided", "7 undecided packets"));
        assert!(fits("# #% *", "28    6.2%  unknown") && fits("# #% *", "1  <0.1%  lo"));
        assert!(!fits("# #% *", "28 6.2 unknown"));
        assert!(fits("#n #/s *", "12 0/s invalid") && !fits("#n #/s *", "12/s 0/s tcp_v4_rcv"));
        assert!(fits("*: exit status # after #", "sh -c 'a: b': exit status 0 after 0.5s"));
        assert!(!fits("*: not run", "it was not run") && fits("*: not run", "ab -c 9: not run"));
        assert!(fits("* → *", "tcp a:* → b:80 SYN") && !fits("* → *", "tcp a:*"));
        let long = "a: ".repeat(5000);
        assert!(!fits("*: # of # entries *", &long) && !fits("* → *", &long));
    }

    #[test]
    fn a_name_is_known_as_json_quotes_it() {
        let word = WordEntry {
            names: vec!["map_full".to_owned()],
            lines: Vec::new(),
            other_lines: Vec::new(),
            place: String::new(),
            meaning: String::new(),
        };
        for typed in ["map_full", "Map_Full", "\"map_full\":", "map_full,"] {
            assert!(word.is(typed), "{typed}");
        }
        for typed in ["map", "full", "map full", "map_fulls", ""] {
            assert!(!word.is(typed), "{typed}");
        }
    }
}
