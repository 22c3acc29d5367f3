//! `dropwatch doctor`: findings about a host, as a page.

use std::{fmt::Write as _, io};

use super::{clean, paint::Paint, words::wrap};

/// How one check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// As it should be.
    Fine,
    /// Missing; dropwatch works without it, at a cost.
    Lack,
    /// Missing; dropwatch does not work without it.
    Fatal,
    /// Neither: a fact, or something that was not needed.
    Note,
}

/// One line of the examination, with what its absence costs and the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub mark: Mark,
    pub what: String,
    pub detail: String,
    /// What is lost, and how to get it; empty when nothing is.
    pub cost: String,
}

impl Check {
    pub fn new(mark: Mark, what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { mark, what: what.into(), detail: detail.into(), cost: String::new() }
    }

    #[must_use]
    pub fn costs(mut self, cost: impl Into<String>) -> Self {
        self.cost = cost.into();
        self
    }
}

/// A titled group of checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    pub title: &'static str,
    pub checks: Vec<Check>,
}

/// Width of the column that names the checks.
const WHAT: usize = 27;

/// Width of the lines that tell a cost, so that the page fits 80 columns.
const COST: usize = 70;

/// Writes the page: title, sections, verdict.
pub fn doctor(
    title: &str,
    sections: &[Section],
    verdict: &str,
    color: bool,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let mut page = format!("{}\n", clean(title));
    for section in sections {
        // Writing to a String cannot fail.
        let _infallible = write!(page, "\n{}\n", section.title);
        for check in &section.checks {
            let (word, paint) = match check.mark {
                Mark::Fine => ("ok  ", Paint::Green),
                Mark::Lack => ("lack", Paint::Yellow),
                Mark::Fatal => ("FAIL", Paint::Red),
                Mark::Note => ("-   ", Paint::Dim),
            };
            let mark = paint.on(word, color);
            let what = clean(&check.what);
            let line = format!("  {mark}  {what:WHAT$} {}", clean(&check.detail));
            page.push_str(line.trim_end());
            page.push('\n');
            if !check.cost.is_empty() {
                for (index, line) in wrap(&clean(&check.cost), COST).into_iter().enumerate() {
                    let arrow = if index == 0 { "→" } else { " " };
                    let _infallible = writeln!(page, "        {arrow} {line}");
                }
            }
        }
    }
    page.push('\n');
    for line in wrap(&clean(verdict), COST + 10) {
        page.push_str(&line);
        page.push('\n');
    }
    out.write_all(page.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(color: bool) -> String {
        let checks = vec![
            Check::new(Mark::Fine, "ring buffer", "supported"),
            Check::new(Mark::Lack, "symbols", "hidden").costs("addresses; use sudo\u{1b}[2J"),
        ];
        let mut out = Vec::new();
        let sections = [Section { title: "kernel", checks }];
        doctor("dropwatch on gw", &sections, "works", color, &mut out).expect("writes");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn plain_page() {
        assert_eq!(
            page(false),
            "dropwatch on gw\n\nkernel\n  ok    ring buffer                 supported\n  \
             lack  symbols                     hidden\n        → addresses; use sudo\u{fffd}[2J\n\n\
             works\n"
        );
    }

    #[test]
    fn colours_mark_the_outcome() {
        assert!(page(true).contains("\u{1b}[33mlack\u{1b}[0m"));
        assert!(!page(false).contains('\u{1b}'));
    }
}
