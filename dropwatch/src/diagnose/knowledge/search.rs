//! Finds what a person types: a drop reason, a function, a finding's rule, a setting or counter, a
//! topic; or pastes: a row, a headline, a label.

use super::{
    KnowledgeTable,
    answer::Explanation,
    entry::{CORE, DropEntry},
    function_name,
    near::Unknown,
    pasted::{self, Labelled},
    rule::RuleEntry,
    subject::{self, subjects},
    word::WordEntry,
};
/// Bytes of a text that is no JSON and no series: a whole report of many rows with their details is
/// shorter. Every word of it is looked for, which takes time.
const MOST: usize = 16 * 1024;
/// Bytes of what may be the begin of a headline.
const LONGEST_BEGIN: usize = 256;
/// Prefix of reasons in the kernel's sources.
const ENUMERATOR: &str = "SKB_DROP_REASON_";

impl KnowledgeTable {
    /// What is known about `typed`:
    /// - a reason in any case, with or without the kernel's prefix or a subsystem before a colon;
    /// - a function, with or without offset, module and the compiler's suffixes;
    /// - a row of any output, whatever its colours, and also if it was cut;
    /// - a finding's rule or headline, also as a label of a metric;
    /// - a setting or counter in any spelling, a word or line of an output, or a topic;
    /// - several of these.
    ///
    /// # Errors
    /// Nothing is known; the error suggests names that look like it.
    pub fn find(&self, typed: &str) -> Result<Explanation<'_>, Unknown> {
        self.find_all(&[typed], &[])
    }

    /// What is known about what the `arguments` of a command line say together or, where that is
    /// nothing, each of them. `counters` are all that the host has, by group and name: of some of them
    /// nothing more is known.
    ///
    /// # Errors
    /// As [`Self::find`], and of a text that is too long. An answer leaves nothing out silently: what of
    /// it is not known, it says.
    pub fn find_all(
        &self,
        arguments: &[impl AsRef<str>],
        counters: &[String],
    ) -> Result<Explanation<'_>, Unknown> {
        let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
        let answer = self.find_some(&arguments, counters)?;
        Ok(answer.and(self.left_out(&arguments.join(" "), counters)))
    }

    /// As [`Self::find_all`], of what the arguments are as a whole.
    fn find_some(
        &self,
        arguments: &[&str],
        counters: &[String],
    ) -> Result<Explanation<'_>, Unknown> {
        let text = pasted::plain(&arguments.join(" "));
        if let Some(answer) = self.find_labelled(&text) {
            return Ok(answer);
        }
        if text.len() > MOST {
            return Err(Unknown::TooLong { bytes: text.len(), most: MOST });
        }
        let whole = |text: &str| match self.only_counted(text, counters) {
            Some(answer) => Ok(Some(answer)),
            None => self.find_whole(text),
        };
        if let Some(answer) = whole(&text)? {
            return Ok(answer);
        }
        if arguments.len() > 1 {
            let each = arguments.iter().map(|typed| whole(&pasted::plain(typed)));
            if let Ok(Some(answer)) = each.collect::<Result<Option<Explanation<'_>>, _>>() {
                return Ok(answer);
            }
        }
        let listed = self.find_listed(&text, counters);
        if let Ok(Some(answer)) = listed {
            return Ok(answer);
        }
        // What is no list of names may be a line that has none.
        if let Some(answer) = self.find_line(&text) {
            return Ok(answer);
        }
        listed?;
        let reason = bare_reason(&text).unwrap_or_default();
        if self.not_yet_explained.contains(&reason) {
            return Err(Unknown::NotYet(reason));
        }
        Err(self.unknown(&text, &reason, bare_function(&text)))
    }

    /// One name, row, headline, series or topic.
    pub(super) fn find_whole(&self, text: &str) -> Result<Option<Explanation<'_>>, Unknown> {
        if let Some(answer) = self.find_name(text) {
            return Ok(Some(answer));
        }
        match (self.find_rows(text), self.find_headline(text)) {
            // What stands in parentheses in a headline is a name of somebody's choice.
            (Err(_), Some(answer)) => return Ok(Some(answer)),
            (Ok(None), answer) if answer.is_some() => return Ok(answer),
            (Ok(None), _) => {}
            (rows, _) => return rows,
        }
        Ok(self
            .find_label(text)
            .or_else(|| subject::about(self, text).map(|all| Explanation::about(text, all)))
            .or_else(|| self.find_begin(text)))
    }

    /// The rows in a text: mostly one, whatever stands beside it.
    fn find_rows(&self, text: &str) -> Result<Option<Explanation<'_>>, Unknown> {
        let mut all: Option<Explanation<'_>> = None;
        let mut not_known = Vec::new();
        let mut unknown = None;
        for row in pasted::rows(text) {
            match (self.find_row(row), row.reason) {
                (Some(answer), _) => all = Some(all.unwrap_or_default().and(answer)),
                (None, Some(reason)) => {
                    unknown.get_or_insert((reason.text, row.function.text));
                    not_known.push(format!("{} ({})", row.place(), reason.text));
                }
                (None, None) => not_known.push(row.function.text.to_owned()),
            }
        }
        if let (None, Some((reason, function))) = (&all, unknown) {
            return Err(self.unknown(text, reason, function));
        }
        // A reason beside a row, which is not its own.
        let Some(all) = all else {
            let itself = pasted::row(text).filter(|row| row.is_said);
            return Ok(itself.map(|row| self.find_row_itself(row)));
        };
        let mut all = all.and(Explanation { not_known, ..Explanation::default() });
        for word in pasted::reasons(text) {
            if let Some(answer) = self.find_reason(word)
                && !pasted::rows(text).any(|row| row.reason.is_some_and(|it| it.text == word))
            {
                all = all.and(answer);
            }
        }
        Ok(Some(all))
    }

    /// All drops and findings of a line of JSON or of some series, where there are several.
    fn find_labelled(&self, text: &str) -> Option<Explanation<'_>> {
        let all: Vec<Labelled<'_>> = pasted::labelled(text).collect();
        if all.len() < 2 {
            return None;
        }
        let one = |labelled: &Labelled<'_>| {
            let (found, name) = match *labelled {
                Labelled::Rule(rule) => (self.find_rule(rule), rule.to_owned()),
                Labelled::Drops { function: Some(function), reason: Some(reason) } => (
                    self.find_row(pasted::PastedRow::new(function, reason)),
                    format!("{function} ({reason})"),
                ),
                Labelled::Drops { function, reason } => {
                    let name = function.or(reason)?;
                    (self.find_name(name), name.to_owned())
                }
            };
            let unknown = || Explanation { not_known: vec![name], ..Explanation::default() };
            Some(found.unwrap_or_else(unknown))
        };
        let answer: Explanation<'_> = all.iter().filter_map(one).collect();
        (!answer.is_empty()).then_some(answer)
    }

    /// All names that [`KnowledgeTable::find`] knows, in order, each once: rules, drop reasons,
    /// functions, settings, counters and words of the outputs.
    pub fn names(&self) -> Vec<String> {
        let rules = self.rules.iter().map(|rule| rule.rule.clone());
        let reasons = self.entries.iter().flat_map(|entry| entry.reasons.iter().cloned());
        let functions = self.functions().map(str::to_owned);
        let of_rules = self.rules.iter().flat_map(RuleEntry::quantities);
        let of_entries = self.entries.iter().flat_map(DropEntry::quantities);
        let numbers = of_rules.chain(of_entries).map(|quantity| quantity.name().to_owned());
        let counters = self.counters.iter().flat_map(|counter| counter.names.iter());
        let words = self.words.iter().flat_map(|word| word.names.iter());
        let mut names: Vec<String> = rules.chain(reasons).chain(functions).chain(numbers).collect();
        names.extend(counters.chain(words).cloned());
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The entry that says the most about drops at `function` for `reason` of `subsystem`.
    pub fn lookup(
        &self,
        function: Option<&str>,
        subsystem: &str,
        reason: &str,
    ) -> Option<&DropEntry> {
        let speaks = |entry: &&DropEntry| entry.has_reason(subsystem, reason);
        let exact = |entry: &&DropEntry| function.is_some_and(|name| entry.is_about(name));
        self.entries
            .iter()
            .filter(speaks)
            .find(exact)
            .or_else(|| self.entries.iter().filter(speaks).find(|entry| entry.at.is_empty()))
    }

    /// One name by itself, whatever it is the name of: of several things, all of them.
    pub(super) fn find_name(&self, name: &str) -> Option<Explanation<'_>> {
        let found = [
            self.find_rule(name),
            self.find_qualified(name),
            self.find_function(bare_function(name)),
            self.find_setting(name),
            self.find_counter(name),
            self.find_evidence(name),
            self.find_word(name),
            self.find_unnamed(name),
        ];
        found.into_iter().flatten().reduce(Explanation::and)
    }

    /// Whether the kernel or a rule calls something so: no word of a sentence alone.
    pub(super) fn is_identifier(&self, name: &str) -> bool {
        self.find_qualified(name).is_some()
            || self.find_rule(name).is_some()
            || self.find_function(bare_function(name)).is_some()
            || self.is_counter(name)
            || self.find_setting(name).is_some()
    }

    /// A rule by its name, and the drops that it speaks of.
    pub(super) fn find_rule(&self, name: &str) -> Option<Explanation<'_>> {
        let name = name.replace(['-', ' '], "_");
        let rule = self.rules.iter().find(|rule| rule.rule.eq_ignore_ascii_case(&name))?;
        Some(self.about_rule(rule))
    }

    fn about_rule<'a>(&'a self, rule: &'a RuleEntry) -> Explanation<'a> {
        let mut brief: Vec<&DropEntry> = Vec::new();
        for entry in rule.drops.iter().filter_map(|drops| self.drops(drops)) {
            if !brief.contains(&entry) {
                brief.push(entry);
            }
        }
        Explanation { rules: vec![rule], brief, ..Explanation::default() }
    }

    /// The entry that a rule calls `function (REASON)`, `REASON` or `function`.
    pub fn drops(&self, name: &str) -> Option<&DropEntry> {
        if let Some((function, reason)) = name.split_once(" (") {
            let reason = reason.trim_end_matches(')');
            return self.lookup(Some(function), self.subsystem_of(reason), reason);
        }
        let general = self.entries.iter().filter(|entry| entry.at.is_empty());
        let here = self.entries.iter().filter(|entry| entry.is_about(name));
        general.filter(|entry| entry.reasons.iter().any(|reason| reason == name)).chain(here).next()
    }

    /// What a row is about. Of a name that was cut, the beginning decides, if it is that of one
    /// alone.
    pub(super) fn find_row(&self, row: pasted::PastedRow<'_>) -> Option<Explanation<'_>> {
        let typed = bare_function(row.function.text);
        let function = match row.function.is_cut {
            true => alone(self.functions().filter(|name| name.starts_with(typed)))?,
            false => typed,
        };
        let Some(reason) = row.reason else { return self.find_function(function) };
        if let Some(unnamed) = self.find_unnamed(reason.text) {
            return Some(self.find_function(function).unwrap_or_default().and(unnamed));
        }
        let typed = bare_reason(reason.text).unwrap_or_default();
        let whole = if reason.is_cut { self.completed(function, &typed) } else { Some(typed) };
        let unclear = |name: &str| {
            let answer = self.find_function(function)?;
            Some(Explanation { not_known: vec![name.to_owned()], ..answer })
        };
        let Some(reason) = whole else { return unclear(reason.text) };
        let found = match self.lookup(Some(function), self.subsystem_of(&reason), &reason) {
            Some(entry) => Some(Explanation { full: vec![entry], ..Explanation::default() }),
            None => self.find_reason(&reason),
        };
        let Some(found) = found else { return unclear(&reason) };
        // The reason alone is known then.
        let is_known = self.find_function(function).is_some() || row.has_no_name();
        let functions = if is_known { Vec::new() } else { vec![row.place()] };
        Some(Explanation { functions, ..found })
    }

    /// The reason that begins with `cut`: the only one, or the only one that is known of `function`.
    fn completed(&self, function: &str, cut: &str) -> Option<String> {
        let entries = || self.entries.iter();
        let begins = |reason: &&String| reason.starts_with(cut);
        let here = entries().filter(|entry| entry.is_about(function) || entry.is_seen_at(function));
        alone(here.flat_map(|entry| &entry.reasons).filter(begins))
            .or_else(|| alone(entries().flat_map(|entry| &entry.reasons).filter(begins)))
            .cloned()
    }

    /// The rule that writes such headlines; of several, the one that says more of them.
    fn find_headline(&self, text: &str) -> Option<Explanation<'_>> {
        let headline = pasted::headline(text);
        let fits = |rule: &'_ RuleEntry| rule.headline(headline);
        let rule = self.rules.iter().filter(|rule| fits(rule).is_some()).max_by_key(|r| fits(r))?;
        Some(self.about_rule(rule))
    }

    /// Whether a line is a headline, whatever of it looks like a row.
    pub(super) fn is_headline(&self, line: &str) -> bool {
        self.find_headline(line).is_some() && !matches!(self.find_rows(line), Ok(Some(_)))
    }

    /// The rules whose headlines begin so; of several, those that say more of it.
    fn find_begin(&self, text: &str) -> Option<Explanation<'_>> {
        let begin = pasted::headline(text);
        if begin.len() > LONGEST_BEGIN {
            return None;
        }
        let most = self.rules.iter().filter_map(|rule| rule.begins(begin)).max()?;
        let rules = self.rules.iter().filter(|rule| rule.begins(begin) == Some(most));
        let rules: Vec<&RuleEntry> = rules.collect();
        match rules[..] {
            [] => None,
            [rule] => Some(self.about_rule(rule)),
            _ => {
                let all = rules.into_iter().map(subject::Subject::Rule).collect();
                Some(Explanation::about(text, all))
            }
        }
    }

    /// What a series of a metric or a line of JSON is about.
    fn find_label(&self, text: &str) -> Option<Explanation<'_>> {
        if let Some(rule) = pasted::label(text, "rule") {
            return self.find_rule(rule);
        }
        let reason = pasted::label(text, "reason");
        let symbol = pasted::label(text, "symbol");
        match (symbol, reason) {
            (Some(symbol), Some(reason)) => self.find_row(pasted::PastedRow::new(symbol, reason)),
            (Some(name), None) | (None, Some(name)) => self.find_name(name),
            (None, None) => None,
        }
    }

    /// A reason, of the subsystem that stands before its colon, if one does.
    fn find_qualified(&self, name: &str) -> Option<Explanation<'_>> {
        let reason = bare_reason(name)?;
        let subsystem = name.rsplit_once(':').map(|(subsystem, _)| subsystem);
        let theirs = self.subsystem_of(&reason);
        let is_theirs = subsystem.is_none_or(|given| given.eq_ignore_ascii_case(theirs));
        if is_theirs { self.find_reason(&reason) } else { None }
    }

    fn find_reason(&self, reason: &str) -> Option<Explanation<'_>> {
        let entries = self.entries.iter().filter(|entry| entry.reasons.iter().any(|r| r == reason));
        let (full, brief) = entries.partition(|entry| entry.at.is_empty());
        Explanation::new(Vec::new(), full, Vec::new(), brief)
    }

    fn find_function(&self, function: &str) -> Option<Explanation<'_>> {
        let full = self.entries.iter().filter(|entry| entry.is_about(function)).collect();
        let brief = self.entries.iter().filter(|entry| entry.is_seen_at(function)).collect();
        Explanation::new(Vec::new(), full, Vec::new(), brief)
    }

    /// What a setting has to do with.
    fn find_setting(&self, name: &str) -> Option<Explanation<'_>> {
        let [first, rest] = subject::of_setting(self, name);
        let ((rules, full), (brief_rules, brief)) = (subjects(first), subjects(rest));
        Explanation::new(rules, full, brief_rules, brief)
    }

    /// Rules that are known by such a name, although it is neither theirs nor that of a setting that
    /// they show: `SO_RCVBUF`, `net.core.netdev_budget_usecs`.
    fn find_evidence(&self, name: &str) -> Option<Explanation<'_>> {
        let last = name.rsplit('.').next().filter(|last| last.contains('_'))?;
        let rests =
            |rule: &&RuleEntry| rule.words.iter().any(|word| word.eq_ignore_ascii_case(last));
        let rules = self.rules.iter().filter(rests).collect();
        if name.contains(' ') {
            None
        } else {
            Explanation::new(rules, Vec::new(), Vec::new(), Vec::new())
        }
    }

    /// What a word or line of an output means.
    fn find_word(&self, typed: &str) -> Option<Explanation<'_>> {
        let words: Vec<&WordEntry> = self.words.iter().filter(|word| word.is(typed)).collect();
        (!words.is_empty()).then(|| Explanation { words, ..Explanation::default() })
    }

    /// What reports print where nothing gives a reason a name: `MAC80211_UNUSABLE:0x0005`.
    fn find_unnamed(&self, typed: &str) -> Option<Explanation<'_>> {
        let (subsystem, number) = typed.trim_matches(['(', ')']).rsplit_once(":0x")?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_unnamed = !subsystem.is_empty()
            && subsystem.chars().all(is_name)
            && (1..=8).contains(&number.len())
            && number.chars().all(|c| c.is_ascii_hexdigit());
        if is_unnamed { self.find_word("reason without a name") } else { None }
    }

    /// Subsystem of a reason that an entry has; names are unique among them.
    fn subsystem_of(&self, reason: &str) -> &str {
        let has = |entry: &&DropEntry| entry.reasons.iter().any(|name| name == reason);
        self.entries.iter().find(has).map_or(CORE, |entry| &entry.subsystem)
    }
}

/// What all are, if they are the same.
fn alone<T: PartialEq>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}

/// `SKB_DROP_REASON_NO_SOCKET`, `CORE:no_socket` → `NO_SOCKET`; `None` for what is no name.
pub(super) fn bare_reason(name: &str) -> Option<String> {
    let name = name.trim().trim_start_matches('(').trim_end_matches(')');
    let (subsystem, name) = name.split_once(':').unwrap_or((CORE, name));
    let is_name = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix(ENUMERATOR).map_or(name.clone(), str::to_owned);
    (is_name(subsystem) && is_name(&name)).then_some(name)
}

/// `nft_do_chain.constprop.0+0x7d/0x120 [nf_tables]` → `nft_do_chain`; empty for what is no name.
fn bare_function(name: &str) -> &str {
    let mut words = name.split_whitespace();
    let (Some(name), module, None) = (words.next(), words.next(), words.next()) else { return "" };
    if module.is_some_and(|module| !module.starts_with('[')) {
        return "";
    }
    match name.split_once('+') {
        Some((name, offset)) if offset.starts_with("0x") => function_name(name),
        Some(_) => "",
        None => function_name(name),
    }
}

#[cfg(test)]
mod tests;
