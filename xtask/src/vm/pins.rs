//! Which packages the guests are made of, as `kernels.toml` pins them.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

const PINS: &str = include_str!("kernels.toml");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pins {
    #[serde(rename = "kernel")]
    pub(super) kernels: Vec<Kernel>,
    /// The tool that dropwatch replaces, with its libraries.
    pub(super) peer: Set,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kernel {
    pub(super) name: String,
    /// Why this one is in the matrix.
    pub(super) about: String,
    suite: String,
    #[serde(rename = "package")]
    packages: Vec<Package>,
}

impl Kernel {
    pub(super) fn set(&self) -> Set {
        Set { suite: self.suite.clone(), packages: self.packages.clone() }
    }
}

/// Packages that belong together.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Set {
    pub(super) suite: String,
    #[serde(rename = "package")]
    pub(super) packages: Vec<Package>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Package {
    /// Name, with one `*` at most, of the packages that may take this one's place.
    pub(super) series: String,
    /// Path below the mirror.
    pub(super) file: String,
    pub(super) sha256: String,
}

impl Package {
    /// What `*` stands for in `name`, where the series matches it.
    pub(super) fn stem<'a>(&self, name: &'a str) -> Option<&'a str> {
        match self.series.split_once('*') {
            Some((before, after)) => name.strip_prefix(before)?.strip_suffix(after),
            None => (name == self.series).then_some(""),
        }
    }

    /// The series' package for that stem.
    pub(super) fn named(&self, stem: &str) -> String {
        self.series.replace('*', stem)
    }
}

impl Pins {
    pub(super) fn read() -> Result<Self> {
        toml::from_str(PINS).context("kernels.toml")
    }

    /// The kernels named, or all; without those excluded.
    pub(super) fn choose(&self, names: &[String], excluded: &[String]) -> Result<Vec<Kernel>> {
        for name in names.iter().chain(excluded) {
            if !self.kernels.iter().any(|kernel| kernel.name == *name) {
                let known: Vec<_> =
                    self.kernels.iter().map(|kernel| kernel.name.as_str()).collect();
                bail!("no kernel {name}; there is: {}", known.join(", "));
            }
        }
        let selected = |kernel: &&Kernel| {
            (names.is_empty() || names.contains(&kernel.name)) && !excluded.contains(&kernel.name)
        };
        let chosen: Vec<_> = self.kernels.iter().filter(selected).cloned().collect();
        if chosen.is_empty() {
            bail!("no kernel is left to boot");
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pin_is_whole_and_of_its_own_series() {
        let pins = Pins::read().unwrap();
        let sets = pins.kernels.iter().map(Kernel::set).chain([pins.peer.clone()]);
        for package in sets.flat_map(|set| set.packages) {
            assert_eq!(package.sha256.len(), 64, "{}", package.file);
            let name = package.file.rsplit_once('/').unwrap().1.split_once('_').unwrap().0;
            assert!(package.stem(name).is_some(), "{name} is not of {}", package.series);
        }
    }

    #[test]
    fn a_split_kernel_is_one_version() {
        let package = |series: &str| Package {
            series: series.into(),
            file: String::new(),
            sha256: String::new(),
        };
        let (image, modules) = (package("linux-binary-7.2.*-cloud"), package("modules-7.2.*-x"));
        let stem = image.stem("linux-binary-7.2.14+deb14-cloud").unwrap();
        assert_eq!(modules.named(stem), "modules-7.2.14+deb14-x");
        assert_eq!(image.stem("linux-binary-7.3.1-cloud"), None);
    }

    #[test]
    fn kernels_are_chosen_by_name() {
        let pins = Pins::read().unwrap();
        let choose = |names: &[&str], excluded: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
            pins.choose(&owned(names), &owned(excluded))
                .map(|kernels| kernels.into_iter().map(|kernel| kernel.name).collect::<Vec<_>>())
        };
        assert_eq!(choose(&[], &[]).unwrap(), ["5.10", "6.1", "6.12", "7.2"]);
        assert_eq!(choose(&["6.1"], &[]).unwrap(), ["6.1"]);
        assert_eq!(choose(&[], &["5.10", "7.2"]).unwrap(), ["6.1", "6.12"]);
        assert!(choose(&["4.19"], &[]).unwrap_err().to_string().contains("5.10, 6.1"));
        assert!(choose(&["6.1"], &["6.1"]).is_err());
    }
}
