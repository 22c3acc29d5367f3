//! `dropwatch explain`: entries of the knowledge table with this host's values, as a page.

use std::{collections::BTreeMap, fmt::Write as _, io};

use anstyle::Style;
use serde::Serialize;

use super::{
    clean,
    medium::Medium,
    palette::{STRONG, WEAK, paint},
    wrap::{columns, wrap, wrap_command, wrap_hanging},
};
use crate::diagnose::knowledge::{
    Benign, Check, Counted, CounterEntry, DropEntry, Knob, KnobAction, KnowledgeTable, RuleEntry,
    WordEntry, blanks,
};

/// Indent of what stands beside the labels.
const BESIDE: usize = 10;
/// Width of the names of numbers, so that their values stand in a column.
const NAME: usize = 38;
/// Width of the names in lists.
const LISTED: usize = 29;

/// What is known about a name.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainPage<'a> {
    /// What words of the outputs mean.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<&'a WordEntry>,
    /// Counters of the kernel.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub counters: Vec<Numbered<'a>>,
    /// Topics, as they were typed: what follows has to do with them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<String>,
    /// Rules of findings shown in full, with what can be changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Explained<'a>>,
    /// Entries shown in full.
    pub explained: Vec<&'a DropEntry>,
    /// Rules that have to do with it, shown as a list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related_rules: Vec<&'a RuleEntry>,
    /// Entries that have to do with it, shown as a list.
    pub related: Vec<&'a DropEntry>,
    /// Functions of rows, with their module, of which no more is known than what is said of the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<String>,
    /// What of the text typed is not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_known: Vec<String>,
    /// Values on this host of the numbers that the former name.
    pub values: BTreeMap<String, HostValue>,
}

/// A rule, and everything that changes what it finds.
#[derive(Clone, Debug, Serialize)]
pub struct Explained<'a> {
    #[serde(flatten)]
    pub rule: &'a RuleEntry,
    pub change: Vec<&'a Knob>,
}

/// A counter, by those of its names that were asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Numbered<'a> {
    pub names: Vec<String>,
    /// Null for one that the host has, and of which nothing more is known.
    pub meaning: Option<&'a str>,
    pub source: &'a [String],
}

impl<'a> From<Counted<'a>> for Numbered<'a> {
    fn from(Counted { names, known }: Counted<'a>) -> Self {
        let meaning = known.map(|counter| counter.meaning.as_str());
        Self { names, meaning, source: known.map_or(&[], |counter| &counter.source) }
    }
}

/// A number on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum HostValue {
    Counter(u64),
    Sysctl(String),
    /// Not there, and what it would need, where that is known.
    Absent {
        needs: Option<String>,
    },
}

/// Writes what is known about one name.
pub fn page(page: &ExplainPage<'_>, medium: Medium, out: &mut dyn io::Write) -> io::Result<()> {
    let mut text = ExplainText { page: String::new(), medium };
    // Names of the kernel come before words of dropwatch.
    for counter in &page.counters {
        text.gap();
        text.counter(counter, &page.values);
    }
    for word in &page.words {
        text.gap();
        text.word(word);
    }
    if !page.topics.is_empty() {
        text.gap();
        let topics = page.topics.iter().map(|topic| clean(topic));
        let topics = format!("What has to do with: {}", topics.collect::<Vec<_>>().join(", "));
        text.wrapped(&topics, 0, WEAK);
    }
    for rule in &page.rules {
        text.gap();
        text.rule(rule, &page.values);
    }
    for entry in &page.explained {
        text.gap();
        text.entry(entry, &page.values);
    }
    for function in &page.functions {
        text.gap();
        text.function(function);
    }
    if !page.related_rules.is_empty() {
        text.gap();
        text.heading("Findings about it");
        text.rules(page.related_rules.iter().copied());
    }
    if !page.related.is_empty() {
        text.gap();
        text.heading("More about it, by place or reason");
        text.list(page.related.iter().copied());
    }
    if !page.not_known.is_empty() {
        text.gap();
        let names = page.not_known.iter().map(|name| format!("`{}`", clean(name)));
        let names = names.collect::<Vec<_>>().join(", ");
        text.wrapped(&format!("Not known, of what was typed: {names}"), 0, STRONG);
    }
    if !page.values.is_empty() {
        text.line("");
        let now = "Now, in this process's network namespace (softnet: all CPUs of the host).";
        text.wrapped(now, 0, WEAK);
    }
    text.flush(out)
}

/// Writes a list of all that is known.
pub fn list(table: &KnowledgeTable, medium: Medium, out: &mut dyn io::Write) -> io::Result<()> {
    let mut text = ExplainText { page: String::new(), medium };
    let mut topic = "";
    for entry in &table.entries {
        if entry.topic != topic {
            if !topic.is_empty() {
                text.line("");
            }
            topic = &entry.topic;
            text.heading(topic);
            text.list(table.entries.iter().filter(|entry| entry.topic == topic));
        }
    }
    text.line("");
    text.heading("Findings, by rule");
    text.rules(table.rules.iter());
    if !table.not_yet_explained.is_empty() {
        text.line("");
        text.heading("Not explained yet");
        text.wrapped(&table.not_yet_explained.join(" "), 2, Style::new());
    }
    text.line("");
    text.heading("Counters of the kernel");
    let counters: Vec<&str> =
        table.counters.iter().flat_map(|counter| &counter.names).map(String::as_str).collect();
    text.wrapped(&counters.join(" "), 2, Style::new());
    text.line("");
    let more = "dropwatch explain NAME tells more. A setting, a topic such as mtu, a row of a \
                report, a finding's headline, a field of the JSON and a heading will do, too.";
    text.wrapped(more, 0, Style::new());
    text.flush(out)
}

/// Writes `value` as one line of JSON.
pub fn json(value: &impl Serialize, out: &mut dyn io::Write) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()
}

/// A page under construction.
struct ExplainText {
    page: String,
    medium: Medium,
}

impl ExplainText {
    /// What a word of an output means.
    fn word(&mut self, word: &WordEntry) {
        for line in wrap(&word.names.join(", "), self.medium.width()) {
            self.heading(&line);
        }
        self.wrapped(&format!("in dropwatch's output: {}", word.place), 2, Style::new());
        self.line("");
        self.wrapped(&word.meaning, 2, Style::new());
    }

    /// That nothing is known of a function but its name, with its module behind it.
    fn function(&mut self, function: &str) {
        let (name, module) = function.split_once(" [").unwrap_or((function, ""));
        let whose = match module.trim_end_matches(']') {
            "" => "a function".to_owned(),
            module => format!("a function of the module {}", clean(module)),
        };
        self.heading(&clean(name));
        let said = format!(
            "{whose} of which nothing more is known: what is said of the reason holds wherever it is \
             given, and the function tells where that was."
        );
        self.wrapped(&said, 2, Style::new());
    }

    /// What a counter counts.
    fn counter(&mut self, counter: &Numbered<'_>, values: &BTreeMap<String, HostValue>) {
        // Groups of devices are dropwatch's own words.
        let bare = |name: &String| {
            let bare = name.strip_prefix("link.").or_else(|| name.strip_prefix("driver."));
            bare.unwrap_or(name).to_owned()
        };
        let names: Vec<String> = counter.names.iter().map(bare).collect();
        for line in wrap(&names.join(", "), self.medium.width()) {
            self.heading(&line);
        }
        self.wrapped("a counter of the kernel", 2, Style::new());
        self.line("");
        let unknown = "Nothing more exact is known of it here.";
        self.wrapped(counter.meaning.unwrap_or(unknown), 2, Style::new());
        self.line("");
        let command = counter.names.iter().find_map(|name| CounterEntry::shown_by(name));
        self.labelled("Check", |text| match command {
            Some(command) => text.command(command),
            None => counter.names.iter().for_each(|name| text.number(name, values)),
        });
        self.blanks(command.into_iter());
        if !counter.source.is_empty() {
            self.sources(counter.source);
        }
    }

    fn entry(&mut self, entry: &DropEntry, values: &BTreeMap<String, HostValue>) {
        for line in wrap(&entry.name(), self.medium.width()) {
            self.heading(&line);
        }
        self.wrapped(&entry.title, 2, Style::new());
        self.line("");
        self.wrapped(&entry.meaning, 2, Style::new());
        self.line("");
        let benign = match &entry.benign {
            Benign::Never => "never".to_owned(),
            Benign::When(when) => format!("when {when}"),
            Benign::Always(why) => format!("always: {why}"),
        };
        self.labelled("Benign", |text| text.wrapped(&benign, BESIDE, Style::new()));
        self.checks(&entry.check, values);
        self.knobs(entry.knobs.iter(), values);
        self.blanks(entry.commands());
        self.sources(&entry.source);
    }

    /// What a finding of a rule means.
    fn rule(&mut self, explained: &Explained<'_>, values: &BTreeMap<String, HostValue>) {
        let rule = explained.rule;
        self.heading(&rule.rule);
        self.wrapped(&format!("a finding: {}", rule.title), 2, Style::new());
        self.line("");
        self.wrapped(&rule.meaning, 2, Style::new());
        self.line("");
        self.checks(&rule.check, values);
        self.knobs(explained.change.iter().copied(), values);
        self.blanks(rule.commands());
        self.sources(&rule.source);
    }

    fn checks(&mut self, check: &[Check], values: &BTreeMap<String, HostValue>) {
        if check.is_empty() {
            return;
        }
        self.labelled("Check", |text| {
            for check in check {
                match check {
                    Check::Number(quantity) => text.number(quantity.name(), values),
                    Check::Command(command) => text.command(command),
                }
            }
        });
    }

    fn knobs<'a>(
        &mut self,
        knobs: impl Iterator<Item = &'a Knob>,
        values: &BTreeMap<String, HostValue>,
    ) {
        let mut knobs = knobs.peekable();
        if knobs.peek().is_none() {
            return;
        }
        self.labelled("Change", |text| {
            for knob in knobs {
                match &knob.action {
                    KnobAction::Set(sysctl) => text.number(sysctl, values),
                    KnobAction::Run(command) => text.command(command),
                }
                text.wrapped(&knob.effect, BESIDE + 4, Style::new());
                if let Some(cost) = &knob.cost {
                    text.wrapped(&format!("cost: {cost}"), BESIDE + 4, Style::new());
                }
            }
        });
    }

    /// What the words of `commands` stand for that are to be filled in.
    fn blanks<'a>(&mut self, commands: impl Iterator<Item = &'a str>) {
        let blanks = blanks(commands);
        if !blanks.is_empty() {
            let blanks: Vec<String> =
                blanks.iter().map(|(word, what)| format!("{word}: {what}")).collect();
            self.labelled("Fill in", |text| {
                text.wrapped(&blanks.join("; "), BESIDE, Style::new());
            });
        }
    }

    fn sources(&mut self, source: &[String]) {
        self.labelled("Source", |text| {
            text.wrapped(&source.join(" "), BESIDE, WEAK);
        });
    }

    /// What `beside` writes, with a label left of its first line.
    fn labelled(&mut self, label: &str, beside: impl FnOnce(&mut Self)) {
        let start = self.page.len();
        beside(self);
        let blank = format!("  {label}").len();
        let label = format!("  {}", paint(STRONG, label));
        self.page.replace_range(start..start + blank, &label);
    }

    fn number(&mut self, name: &str, values: &BTreeMap<String, HostValue>) {
        let value = match values.get(name) {
            Some(HostValue::Counter(count)) => count.to_string(),
            Some(HostValue::Sysctl(value)) => clean(value).into_owned(),
            Some(HostValue::Absent { needs: Some(needs) }) => format!("absent (needs {needs})"),
            Some(HostValue::Absent { needs: None }) | None => "absent here".to_owned(),
        };
        let line = format!("{:BESIDE$}{name:NAME$} {}", "", paint(STRONG, value));
        self.hanging(&line, BESIDE + NAME + 1);
    }

    /// A command, with its remark; what does not fit goes on as a shell would read it.
    fn command(&mut self, command: &str) {
        let (command, remark) = command.split_once("  # ").unwrap_or((command, ""));
        let room = self.medium.width().saturating_sub(BESIDE + 2);
        let lines = wrap_command(&self.medium.command(command), 6, room);
        for (index, line) in lines.iter().enumerate() {
            let prompt = if index == 0 { "$ " } else { "  " };
            self.line(&format!("{:BESIDE$}{prompt}{line}", ""));
        }
        if remark.is_empty() {
            return;
        }
        let used = self.page.lines().last().map_or(0, columns);
        if used + 4 + columns(remark) <= self.medium.width() {
            self.page.pop();
            self.line(&format!("  {}", paint(WEAK, format!("# {remark}"))));
        } else {
            self.wrapped(&format!("# {remark}"), BESIDE + 4, WEAK);
        }
    }

    /// Rules with their titles.
    fn rules<'a>(&mut self, rules: impl Iterator<Item = &'a RuleEntry>) {
        for rule in rules {
            self.hanging(&format!("  {:LISTED$} {}", rule.rule, rule.title), LISTED + 3);
        }
    }

    /// Entries with their titles: a line for each reason, or for the first of the functions that
    /// an entry is about.
    fn list<'a>(&mut self, entries: impl Iterator<Item = &'a DropEntry>) {
        for entry in entries {
            let names = entry.at.get(..1).unwrap_or(&entry.reasons);
            for name in names {
                self.hanging(&format!("  {name:LISTED$} {}", entry.title), LISTED + 3);
            }
        }
    }

    fn wrapped(&mut self, text: &str, indent: usize, style: Style) {
        for line in wrap(text, self.medium.width().saturating_sub(indent)) {
            self.line(&format!("{:indent$}{}", "", paint(style, line)));
        }
    }

    /// A line of a list, `indent` columns in where it goes on.
    fn hanging(&mut self, line: &str, indent: usize) {
        wrap_hanging(line, indent, self.medium.width()).iter().for_each(|line| self.line(line));
    }

    fn heading(&mut self, text: &str) {
        self.line(&paint(STRONG, text));
    }

    /// An empty line between what stands there and what comes.
    fn gap(&mut self) {
        if !self.page.is_empty() {
            self.line("");
        }
    }

    fn line(&mut self, line: &str) {
        // Writing to a String cannot fail.
        let _infallible = writeln!(self.page, "{line}");
    }

    fn flush(self, out: &mut dyn io::Write) -> io::Result<()> {
        self.medium.write(&self.page, out)?;
        out.flush()
    }
}
