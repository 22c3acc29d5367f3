//! `dropwatch doctor`: findings about a host, as a page.

use std::io;

use anstyle::Style;

use super::{
    clean,
    medium::Medium,
    palette::{ALARM, CAUTION, STRONG, WEAK, paint},
    wrap::{wrap, wrap_hanging},
};

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
pub struct DoctorCheck {
    pub mark: Mark,
    pub what: String,
    pub detail: String,
    /// What is lost, and how to get it; empty when nothing is.
    pub cost: String,
}

impl DoctorCheck {
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
    pub checks: Vec<DoctorCheck>,
}

/// Width of the column that names the checks.
const WHAT: usize = 27;

/// How far in details are, and the lines that say what something costs.
const DETAIL: usize = 2 + 4 + 2 + WHAT + 1;
const COST: usize = 10;

/// Writes the page: title, sections, verdict.
pub fn doctor(
    title: &str,
    sections: &[Section],
    verdict: &str,
    medium: Medium,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let width = medium.width();
    let mut lines = wrap(&clean(title), width);
    for section in sections {
        lines.push(String::new());
        lines.push(paint(STRONG, section.title));
        for check in &section.checks {
            let (word, style) = match check.mark {
                Mark::Fine => ("ok  ", Style::new()),
                Mark::Lack => ("lack", CAUTION),
                Mark::Fatal => ("FAIL", ALARM),
                Mark::Note => ("-   ", WEAK),
            };
            let mark = paint(style, word);
            let what = clean(&check.what);
            let line = format!("  {mark}  {what:WHAT$} {}", clean(&check.detail));
            lines.extend(medium.row(line.trim_end().to_owned(), DETAIL));
            if !check.cost.is_empty() {
                let cost = format!("        → {}", clean(&check.cost));
                lines.extend(wrap_hanging(&cost, COST, width));
            }
        }
    }
    lines.push(String::new());
    lines.extend(wrap(&clean(verdict), width));
    let page: String = lines.into_iter().map(|line| line + "\n").collect();
    medium.write(&page, out)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(color: bool) -> String {
        let checks = vec![
            DoctorCheck::new(Mark::Fine, "ring buffer", "supported"),
            DoctorCheck::new(Mark::Lack, "symbols", "hidden").costs("addresses; use sudo\u{1b}[2J"),
        ];
        let mut out = Vec::new();
        let sections = [Section { title: "kernel", checks }];
        let medium = Medium { color, ..Medium::default() };
        doctor("dropwatch on gw", &sections, "works", medium, &mut out).expect("writes");
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
        assert!(page(true).contains("\u{1b}[35mlack\u{1b}[0m"));
        assert!(!page(false).contains('\u{1b}'));
    }
}
