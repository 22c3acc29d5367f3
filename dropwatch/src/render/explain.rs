//! `dropwatch explain`: entries of the knowledge table with this host's values, as a page.

use std::{collections::BTreeMap, fmt::Write as _, io};

use serde::Serialize;

use super::{clean, paint::Paint, words::wrap};
use crate::diagnose::knowledge::{Action, Benign, Check, Entry, Table};

/// Widest line of the page, in characters.
const WIDTH: usize = 80;
/// Indent of what stands beside the labels.
const BESIDE: usize = 10;
/// Width of the names of numbers, so that their values stand in a column.
const NAME: usize = 38;
/// Width of the names in lists.
const LISTED: usize = 29;

/// What is known about a name.
#[derive(Clone, Debug, Serialize)]
pub struct Page<'a> {
    /// Entries shown in full.
    pub explained: Vec<&'a Entry>,
    /// Entries that have to do with it, shown as a list.
    pub related: Vec<&'a Entry>,
    /// Values on this host of the numbers that the former name.
    pub values: BTreeMap<String, Value>,
}

/// A number on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    Counter(u64),
    Sysctl(String),
    /// Not there, and what it would need, where that is known.
    Absent {
        needs: Option<String>,
    },
}

/// Writes what is known about one name.
pub fn page(page: &Page<'_>, color: bool, out: &mut dyn io::Write) -> io::Result<()> {
    let mut text = Text { page: String::new(), color };
    for (index, entry) in page.explained.iter().enumerate() {
        if index > 0 {
            text.line("");
        }
        text.entry(entry, &page.values);
    }
    if !page.related.is_empty() {
        if !page.explained.is_empty() {
            text.line("");
        }
        text.heading("More about it, by place or reason");
        text.list(page.related.iter().copied());
    }
    if !page.values.is_empty() {
        text.line("");
        let now = "Now, in this process's network namespace (softnet: all CPUs of the host).";
        text.wrapped(now, 0, Some(Paint::Dim));
    }
    text.flush(out)
}

/// Writes a list of all that is known.
pub fn list(table: &Table, color: bool, out: &mut dyn io::Write) -> io::Result<()> {
    let mut text = Text { page: String::new(), color };
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
    if !table.not_yet_explained.is_empty() {
        text.line("");
        text.heading("Not explained yet");
        text.wrapped(&table.not_yet_explained.join(" "), 2, None);
    }
    text.line("");
    text.line("dropwatch explain NAME tells more.");
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
struct Text {
    page: String,
    color: bool,
}

impl Text {
    fn entry(&mut self, entry: &Entry, values: &BTreeMap<String, Value>) {
        for line in wrap(&entry.name(), WIDTH) {
            self.heading(&line);
        }
        self.line(&format!("  {}", entry.title));
        self.line("");
        self.wrapped(&entry.meaning, 2, None);
        self.line("");
        let benign = match &entry.benign {
            Benign::Never => "never".to_owned(),
            Benign::When(when) => format!("when {when}"),
            Benign::Always(why) => format!("always: {why}"),
        };
        self.labelled("Benign", |text| text.wrapped(&benign, BESIDE, None));
        if !entry.check.is_empty() {
            self.labelled("Check", |text| {
                for check in &entry.check {
                    match check {
                        Check::Number(quantity) => text.number(quantity.name(), values),
                        Check::Command(command) => text.command(command),
                    }
                }
            });
        }
        if !entry.knobs.is_empty() {
            self.labelled("Change", |text| {
                for knob in &entry.knobs {
                    match &knob.action {
                        Action::Set(sysctl) => text.number(sysctl, values),
                        Action::Run(command) => text.command(command),
                    }
                    text.wrapped(&knob.effect, BESIDE + 4, None);
                    if let Some(cost) = &knob.cost {
                        text.wrapped(&format!("cost: {cost}"), BESIDE + 4, None);
                    }
                }
            });
        }
        self.labelled("Source", |text| {
            text.wrapped(&entry.source.join(" "), BESIDE, Some(Paint::Dim));
        });
    }

    /// What `beside` writes, with a label left of its first line.
    fn labelled(&mut self, label: &str, beside: impl FnOnce(&mut Self)) {
        let start = self.page.len();
        beside(self);
        let blank = format!("  {label}").len();
        let label = format!("  {}", self.painted(label, Paint::Cyan));
        self.page.replace_range(start..start + blank, &label);
    }

    fn number(&mut self, name: &str, values: &BTreeMap<String, Value>) {
        let value = match values.get(name) {
            Some(Value::Counter(count)) => count.to_string(),
            Some(Value::Sysctl(value)) => clean(value).into_owned(),
            Some(Value::Absent { needs: Some(needs) }) => format!("absent (needs {needs})"),
            Some(Value::Absent { needs: None }) | None => "absent here".to_owned(),
        };
        let value = self.painted(&value, Paint::Bold);
        self.line(&format!("{:BESIDE$}{name:NAME$} {value}", ""));
    }

    /// A command, with its remark; what does not fit goes on as a shell would read it.
    fn command(&mut self, command: &str) {
        let (command, remark) = command.split_once("  # ").unwrap_or((command, ""));
        let lines = wrap(command, WIDTH - BESIDE - 10);
        let last = lines.len().saturating_sub(1);
        for (index, line) in lines.into_iter().enumerate() {
            let (prompt, more) = (if index == 0 { "$ " } else { "        " }, index < last);
            self.line(&format!("{:BESIDE$}{prompt}{line}{}", "", if more { " \\" } else { "" }));
        }
        if remark.is_empty() {
            return;
        }
        let width = self.page.lines().last().map_or(0, |line| line.chars().count());
        if width + 4 + remark.chars().count() <= WIDTH {
            self.page.pop();
            let remark = self.painted(&format!("# {remark}"), Paint::Dim);
            self.line(&format!("  {remark}"));
        } else {
            self.wrapped(&format!("# {remark}"), BESIDE + 4, Some(Paint::Dim));
        }
    }

    /// Entries with their titles: a line for each reason, or for the first of the functions that
    /// an entry is about.
    fn list<'a>(&mut self, entries: impl Iterator<Item = &'a Entry>) {
        for entry in entries {
            let names = entry.at.get(..1).unwrap_or(&entry.reasons);
            for name in names {
                self.line(&format!("  {name:LISTED$} {}", entry.title));
            }
        }
    }

    fn wrapped(&mut self, text: &str, indent: usize, paint: Option<Paint>) {
        for line in wrap(text, WIDTH - indent) {
            let line = paint.map_or(line.clone(), |paint| self.painted(&line, paint));
            self.line(&format!("{:indent$}{line}", ""));
        }
    }

    fn heading(&mut self, text: &str) {
        let text = self.painted(text, Paint::Bold);
        self.line(&text);
    }

    fn line(&mut self, line: &str) {
        // Writing to a String cannot fail.
        let _infallible = writeln!(self.page, "{line}");
    }

    fn painted(&self, text: &str, paint: Paint) -> String {
        paint.on(text, self.color)
    }

    fn flush(self, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(self.page.as_bytes())?;
        out.flush()
    }
}
