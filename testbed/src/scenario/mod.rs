//! Demonstrations: a known trouble is built in namespaces, and dropwatch tells its cause.
//!
//! Each prints what it does in words for people who see dropwatch for the first time, at most 80
//! columns wide where the text is its own.

mod gateway;
pub mod nat;

use std::{io::Write, path::Path};

use anyhow::{Context, Result};

/// One demonstration.
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
    about: "a NAT gateway refuses connections because its conntrack table is full",
    tell: nat::tell,
}];

/// Every scenario there is.
pub fn list() -> &'static [Scenario] {
    &ALL
}

/// Runs the scenario `name` with the dropwatch binary at `dropwatch` and tells it on `out`.
///
/// # Errors
/// When there is no such scenario, the host is not fit for it (the message says why), or a
/// program it needs is missing.
pub fn run(name: &str, dropwatch: &Path, out: &mut dyn Write) -> Result<()> {
    let scenario = ALL.iter().find(|scenario| scenario.name == name).with_context(|| {
        let names: Vec<_> = ALL.iter().map(|scenario| scenario.name).collect();
        format!("no scenario {name}; there is: {}", names.join(", "))
    })?;
    (scenario.tell)(dropwatch, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = run("natt", Path::new("dropwatch"), &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "no scenario natt; there is: nat");
    }

    #[test]
    fn the_list_fits_eighty_columns() {
        for scenario in list() {
            assert!(scenario.name.len() + scenario.about.len() + 4 <= 80, "{}", scenario.about);
        }
    }
}
