//! Several names in one text: a list of them, a command, a line of counters, the text of an alert.
//!
//! None is left out silently: what looks like a name and is none is said beside the answer, or by
//! itself where there is no other.

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
    /// It is a list of names, and none of them is known.
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
                let found = self.find_counter(&name);
                let found = found.or_else(|| self.only_counted(&name, counters));
                found.unwrap_or_else(|| Explanation {
                    not_known: vec![name],
                    ..Explanation::default()
                })
            };
            if let Some(found) = names.map(counter).reduce(Explanation::and)
                && !found.is_empty()
            {
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
                None if is_list || is_name => {
                    all.get_or_insert_default().not_known.push((*token).to_owned());
                }
                // So few words are no sentence.
                None if is_short && token.len() > 1 && !subject::is_small(token) => {
                    let found = self.find_name(token).unwrap_or_else(|| Explanation {
                        not_known: vec![(*token).to_owned()],
                        ..Explanation::default()
                    });
                    all = Some(all.unwrap_or_default().and(found));
                }
                None => {}
            }
        }
        match all {
            Some(answer) if !answer.is_empty() => Ok(Some(answer)),
            Some(Explanation { not_known, .. }) if is_list => Err(not_known.first().map_or_else(
                || self.unknown(text, "", text),
                |name| self.unknown(name, &bare_reason(name).unwrap_or_default(), name),
            )),
            _ => Ok(None),
        }
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
