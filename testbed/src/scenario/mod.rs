//! Demonstrations: a known trouble is built in namespaces, and dropwatch tells its cause.
//!
//! Each prints what it does in words for people who see dropwatch for the first time, at most 80
//! columns wide where the text is its own.

mod gateway;
mod matrix;
pub mod nat;
mod page;
pub mod rules;

use std::{io::Write, path::Path};

use anyhow::{Result, bail, ensure};

pub use self::page::page;
use self::{matrix::Matrix, rules::Outcome};
use crate::unproved;

/// One demonstration, told as a story.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// What goes wrong in it, in one line.
    pub about: &'static str,
    /// Runs it with the given dropwatch binary.
    tell: fn(&Path, &mut dyn Write) -> Result<()>,
}

const ALL: [Scenario; 1] = [Scenario {
    name: "nat",
    about: "a NAT gateway is slow: its conntrack table is full",
    tell: nat::tell,
}];

/// Stands for every scenario.
const EVERY: &str = "all";

/// Every scenario there is, with what goes wrong in it.
pub fn list() -> impl Iterator<Item = (&'static str, &'static str)> {
    let stories = ALL.iter().map(|story| (story.name, story.about));
    stories.chain(rules::list().map(|scenario| (scenario.name, scenario.about)))
}

/// Runs the scenario `name`, or `all`, with the dropwatch binary at `dropwatch` and tells it on
/// `out`. What a kernel lacks for one is said there, and proves nothing.
///
/// # Errors
/// When there is no such scenario, the host is not fit for it (the message says why), a program it
/// needs is missing, or dropwatch did not find what is wrong, or found what is not.
pub fn run(name: &str, dropwatch: &Path, out: &mut dyn Write) -> Result<()> {
    if let Some(story) = ALL.iter().find(|story| story.name == name) {
        return (story.tell)(dropwatch, out);
    }
    let selected: Vec<_> = rules::list().filter(|s| name == EVERY || s.name == name).collect();
    if selected.is_empty() {
        let names: Vec<_> = list().map(|(name, _)| name).collect();
        bail!("no scenario {name}; there are: {EVERY}, {}", names.join(", "));
    }
    let mut matrix = Matrix::default();
    let all = selected.len();
    for (number, scenario) in (1..).zip(selected) {
        writeln!(out, "[{number}/{all}] {}: {}", scenario.name, scenario.about)?;
        out.flush()?;
        let ran = scenario.run(dropwatch, out);
        match &ran.outcome {
            Ok(Outcome::Proved) => {}
            Ok(Outcome::Unproved(why)) => write!(out, "{}", unproved::line(scenario.name, why))?,
            Err(error) => writeln!(out, "    FAILED: {error:#}")?,
        }
        matrix.add(scenario, ran);
    }
    if name == EVERY {
        write!(out, "\n{matrix}")?;
    }
    let off = matrix.off_diagonal();
    for cell in &off {
        writeln!(out, "off the diagonal: {cell}")?;
    }
    let (failed, unproved) = (matrix.failed(), matrix.unproved());
    let skipped = if unproved > 0 { format!(", {unproved} skipped") } else { String::new() };
    let diagonal = if off.is_empty() { "; nothing is off the diagonal" } else { "" };
    writeln!(out, "\n{} passed, {failed} failed{skipped}{diagonal}", matrix.proved())?;
    ensure!(failed == 0, "{failed} scenarios did not go as they should");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = run("natt", Path::new("dropwatch"), &mut Vec::new()).unwrap_err();
        assert!(
            error.to_string().starts_with("no scenario natt; there are: all, nat, "),
            "{error}"
        );
    }

    #[test]
    fn the_list_fits_eighty_columns() {
        for (name, about) in list() {
            assert!(name.len() <= 20 && about.len() <= 58, "{name}: {about}");
        }
    }
}
