//! Several names in one text: a list of them, a command, a line of counters, the text of an alert.
//!
//! None is left out silently: what looks like a name and is none either makes the whole unknown, or
//! is said beside the answer.

use super::{
    KnowledgeTable,
    answer::{Counted, Explanation},
    counter::{is_counter, same_letters},
    near::Unknown,
    pasted,
    search::bare_reason,
    subject,
};

/// A text of no more words is a list of names where one of them is.
const SHORT: usize = 4;

impl KnowledgeTable {
    /// What is known about the names in `text`; `None` where there are none.
    ///
    /// # Errors
    /// It is a list of names, and one of them is not known.
    pub(super) fn find_listed(
        &self,
        text: &str,
        counters: &[String],
    ) -> Result<Option<Explanation<'_>>, Unknown> {
        let keys: Vec<&str> = pasted::keys(text).collect();
        if !keys.is_empty() {
            return Ok(keys
                .into_iter()
                .filter_map(|key| self.find_name(key))
                .reduce(Explanation::and));
        }
        let tokens: Vec<&str> = pasted::tokens(text).collect();
        let group = pasted::group(text);
        if let Some(group) = group {
            let names = tokens[1..].iter().map(|name| format!("{group}.{name}"));
            let counter = |name: String| {
                self.find_counter(&name).or_else(|| self.only_counted(&name, counters))
            };
            if let Some(found) = names.filter_map(counter).reduce(Explanation::and) {
                return Ok(Some(found));
            }
        }
        if tokens.len() < 2 && !tokens.iter().any(|token| pasted::is_name(token)) {
            return Ok(None);
        }
        let one = |token: &str| {
            let topic = || subject::about(self, token).map(|all| Explanation::about(token, all));
            let counted = || self.only_counted(token, counters);
            self.find_name(token).or_else(counted).or_else(topic)
        };
        let is_list = tokens.iter().all(|token| pasted::is_name(token) || one(token).is_some());
        let is_short = tokens.len() <= SHORT
            && tokens.iter().any(|it| pasted::is_name(it) && self.is_identifier(it));
        // Of `name=value` many are words of other things, too.
        let has_values = text.contains('=') && tokens.iter().any(|it| self.is_counter(it));
        let mut all: Option<Explanation<'_>> = None;
        for token in &tokens {
            let is_name = pasted::is_name(token)
                || pasted::is_counted(text, token)
                || (is_short && self.is_identifier(token));
            let found = match (is_list, has_values) {
                // `cpu=0` before the counters of that CPU is a heading, not asked for.
                (true, true) => self.find_counter(token).or_else(|| {
                    let other = one(token)?;
                    Some(Explanation { words: Vec::new(), ..other })
                }),
                (true, false) => one(token),
                (false, _) if is_name => {
                    self.find_name(token).or_else(|| self.only_counted(token, counters))
                }
                (false, _) => None,
            };
            match found {
                Some(answer) => all = Some(all.unwrap_or_default().and(answer)),
                None if is_list => {
                    return Err(self.unknown(
                        token,
                        &bare_reason(token).unwrap_or_default(),
                        token,
                    ));
                }
                None if is_name || (is_short && token.len() > 1 && !subject::is_small(token)) => {
                    all.get_or_insert_default().not_known.push((*token).to_owned());
                }
                None => {}
            }
        }
        Ok(all.filter(|answer| !answer.is_empty()))
    }

    /// Returns a bare entry for a name that is one of the host's `counters` and that the table does
    /// not explain.
    pub(super) fn only_counted<'a>(
        &'a self,
        typed: &str,
        counters: &[String],
    ) -> Option<Explanation<'a>> {
        let typed = pasted::plain(typed);
        let name = pasted::without_values(&typed);
        if self.is_counter(name) {
            return None;
        }
        // Without its group only a name with humps is a counter's alone.
        let has_humps = name.chars().skip(1).any(|c| c.is_ascii_uppercase());
        let is_it = |counter: &&String| {
            same_letters(name, counter) || (has_humps && is_counter(name, counter))
        };
        let mut names: Vec<String> = counters.iter().filter(is_it).cloned().collect();
        names.sort_unstable();
        (!names.is_empty()).then(|| Explanation {
            counters: vec![Counted { names, known: None }],
            ..Explanation::default()
        })
    }
}

impl Explanation<'_> {
    /// Whether it only says what is not known.
    pub(super) fn is_empty(&self) -> bool {
        let known = Self { not_known: Vec::new(), ..self.clone() };
        known == Self::default()
    }
}
