//! What the words of dropwatch's own outputs mean: fields of JSON, headings and whole lines of text,
//! names of metrics.

use serde::{Deserialize, Serialize};

/// One word, or some that mean one thing.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WordEntry {
    pub names: Vec<String>,
    /// Lines that it explains, word by word: `#` stands for one that begins with a digit, a last
    /// `*` for any more.
    #[serde(default, skip_serializing)]
    pub(super) lines: Vec<String>,
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
}

/// Whether the words of `text` are those of `pattern`.
fn fits(pattern: &str, text: &str) -> bool {
    let mut words = text.split_whitespace();
    for expected in pattern.split(' ') {
        if expected == "*" {
            return true;
        }
        let fits = words.next().is_some_and(|word| match expected {
            "#" => word.trim_start_matches('(').starts_with(|c: char| c.is_ascii_digit()),
            expected => {
                word.trim_end_matches([',', ';']).eq_ignore_ascii_case(expected)
                    || word.eq_ignore_ascii_case(expected)
            }
        });
        if !fits {
            return false;
        }
    }
    words.next().is_none()
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
    }

    #[test]
    fn a_name_is_known_as_json_quotes_it() {
        let word = WordEntry {
            names: vec!["map_full".to_owned()],
            lines: Vec::new(),
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
