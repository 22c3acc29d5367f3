//! Version numbers as the tools print them.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) patch: u32,
}

impl Version {
    pub(crate) const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// The first word that looks like a version: `bpf-linker 0.13.0`, `rustc 1.97.0-nightly (…)`,
    /// `Debian LLVM version 22.1.8`.
    pub(crate) fn find(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(Self::parse)
    }

    fn parse(word: &str) -> Option<Self> {
        let mut numbers = word.split(['-', '+']).next()?.split('.').map(|part| part.parse().ok());
        let (major, minor) = (numbers.next()??, numbers.next()??);
        let patch = numbers.next().unwrap_or(Some(0))?;
        Some(Self::new(major, minor, patch))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_printed() {
        for (text, version) in [
            ("bpf-linker 0.13.0", Some(Version::new(0, 13, 0))),
            ("rustc 1.97.0-nightly (e50aa6fba 2026-05-19)", Some(Version::new(1, 97, 0))),
            ("rustc 1.96.0 (ac68faa20 2026-05-25) (built from …)", Some(Version::new(1, 96, 0))),
            ("Debian LLVM version 22.1.8\n  Optimized build.", Some(Version::new(22, 1, 8))),
            ("22.1", Some(Version::new(22, 1, 0))),
            ("rustc 2026-05-25 1.x 1.2.x", None),
            ("", None),
        ] {
            assert_eq!(Version::find(text), version, "{text}");
        }
        assert!(Version::new(1, 100, 0) > Version::new(1, 99, 9));
    }
}
