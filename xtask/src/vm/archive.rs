//! Packages from a Debian mirror, without touching the machine's own package state.
//!
//! A pinned package is downloaded by its path and must have its hash. One that has left the archive
//! is looked for in its suite, through apt with a configuration, lists and status of its own.

use std::{
    cmp::Ordering,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::pins::{Package, Set};
use crate::{locks, process::CommandExt, project::Project, setup::apt};

/// Names a mirror where the machine's own package sources have none of Debian.
const MIRROR: &str = "DROPWATCH_DEBIAN_MIRROR";
/// What the suites are signed with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Downloads, and where they stay.
pub(super) struct Archive {
    cache: PathBuf,
}

/// Packages at hand.
pub(super) struct Obtained {
    pub(super) files: Vec<PathBuf>,
    /// They are not the pinned ones, which are gone: their names.
    pub(super) instead: Option<String>,
}

impl Archive {
    pub(super) fn new(project: &Project) -> Self {
        Self { cache: project.tools().join("packages") }
    }

    /// The pinned packages, or else the newest of their series.
    ///
    /// # Errors
    /// When neither is to be had; the message says why for both.
    pub(super) fn obtain(&self, set: &Set) -> Result<Obtained> {
        // Clones may share the folder, and the lists of apt in it.
        let _lock = locks::folder(&self.cache)?;
        let pinned: Result<Vec<_>> =
            set.packages.iter().map(|package| self.fetch(package)).collect();
        let gone = match pinned {
            Ok(files) => return Ok(Obtained { files, instead: None }),
            Err(error) => error,
        };
        eprintln!("pinned package not to be had: {gone:#}");
        eprintln!("looking for the newest of its series in {}", set.suite);
        let newest = self.newest(set).with_context(|| format!("{gone:#}; and no other one"))?;
        let names = newest.iter().map(|package| base_name(&package.file));
        let instead = names.collect::<Vec<_>>().join(" ");
        let files = newest.iter().map(|package| self.fetch(package)).collect::<Result<_>>()?;
        Ok(Obtained { files, instead: Some(instead) })
    }

    /// Downloads one package unless it is here, and checks it either way.
    fn fetch(&self, package: &Package) -> Result<PathBuf> {
        let path = self.cache.join(base_name(&package.file));
        if matches!(sha256(&path), Ok(hash) if hash == package.sha256) {
            return Ok(path);
        }
        let uri = format!("{}/{}", mirror()?.trim_end_matches('/'), package.file);
        eprintln!("downloading {uri}");
        // apt's own downloader: it knows the machine's proxies, and refuses another hash.
        Command::new("/usr/lib/apt/apt-helper")
            .args(["-o", "Acquire::Retries=3", "-o", "APT::Sandbox::User=", "-qq"])
            .args(["download-file", &uri])
            .arg(&path)
            .arg(format!("SHA256:{}", package.sha256))
            .read()?;
        let hash = sha256(&path)?;
        if hash != package.sha256 {
            bail!("{} has the hash {hash}, not {}", path.display(), package.sha256);
        }
        Ok(path)
    }

    /// The newest version that every package of the set has in the suite.
    fn newest(&self, set: &Set) -> Result<Vec<Package>> {
        let options = self.configure(&set.suite)?;
        Command::new("apt-get").args(&options).args(["update", "-qq"]).read()?;
        let names = Command::new("apt-cache").args(&options).arg("pkgnames").read()?;
        let first = set.packages.first().context("a set without packages")?;
        let mut found = Vec::new();
        for stem in names.lines().filter_map(|name| first.stem(name)) {
            let mut packages = Vec::new();
            for package in &set.packages {
                let name = package.named(stem);
                let shown = Command::new("apt-cache").args(&options).args(["show", &name]).read();
                packages
                    .extend(shown.ok().as_deref().and_then(|text| Available::parse(text, package)));
            }
            if packages.len() == set.packages.len() {
                found.push(packages);
            }
        }
        found.sort_by(|a, b| match (a.first(), b.first()) {
            (Some(a), Some(b)) => compare(&a.version, &b.version),
            _ => Ordering::Equal,
        });
        let newest =
            found.pop().with_context(|| format!("{} has no {}", set.suite, first.series))?;
        Ok(newest.into_iter().map(|available| available.package).collect())
    }

    /// A private configuration for one suite, as options of apt's commands.
    fn configure(&self, suite: &str) -> Result<Vec<String>> {
        if !Path::new(KEYRING).exists() {
            bail!("no {KEYRING}, which proves the packages: install debian-archive-keyring");
        }
        let folder = self.cache.join("apt").join(suite);
        for part in ["lists/partial", "cache/archives/partial", "parts"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let (list, status) = (folder.join("sources.list"), folder.join("status"));
        fs::write(
            &list,
            format!("deb [arch=amd64 signed-by={KEYRING}] {} {suite} main\n", mirror()?),
        )?;
        fs::write(&status, "")?;
        let options = [
            ("Dir::Etc::sourcelist", list),
            ("Dir::Etc::sourceparts", folder.join("parts")),
            ("Dir::State::lists", folder.join("lists")),
            ("Dir::State::status", status),
            ("Dir::Cache", folder.join("cache")),
        ];
        let mut arguments: Vec<String> = options
            .iter()
            .flat_map(|(name, path)| ["-o".into(), format!("{name}={}", path.display())])
            .collect();
        // An old suite's lists are no longer renewed; translations and the like are of no use.
        for option in ["APT::Sandbox::User=", "Acquire::Check-Valid-Until=false"] {
            arguments.extend(["-o".into(), option.into()]);
        }
        arguments.extend(["-o".into(), "Acquire::Languages=none".into()]);
        Ok(arguments)
    }
}

/// One package that a suite has.
struct Available {
    version: String,
    package: Package,
}

impl Available {
    /// Reads the first paragraph of `apt-cache show`: the newest.
    fn parse(text: &str, series: &Package) -> Option<Self> {
        let paragraph = text.split("\n\n").next()?;
        let field = |name: &str| {
            paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        Some(Self {
            version: field("Version")?.to_owned(),
            package: Package {
                series: series.series.clone(),
                file: field("Filename")?.to_owned(),
                sha256: field("SHA256")?.to_owned(),
            },
        })
    }
}

/// Compares versions as Debian does.
fn compare(a: &str, b: &str) -> Ordering {
    let is = |relation| {
        let mut command = Command::new("dpkg");
        command.args(["--compare-versions", a, relation, b]);
        command.status().is_ok_and(|status| status.success())
    };
    if is("lt") {
        Ordering::Less
    } else if is("gt") {
        Ordering::Greater
    } else {
        Ordering::Equal
    }
}

/// The Debian mirror that this machine uses itself.
fn mirror() -> Result<String> {
    if let Ok(mirror) = env::var(MIRROR) {
        return Ok(mirror);
    }
    // The lists are not whole while another apt reads them.
    apt::wait()?;
    let format = "$(ORIGIN) $(REPO_URI)";
    let targets = Command::new("apt-get")
        .args(["indextargets", "--format", format, "Created-By: Packages"])
        .read()?;
    debian(&targets).with_context(|| {
        format!("no package source of this machine is Debian's: name a mirror in {MIRROR}")
    })
}

fn debian(targets: &str) -> Option<String> {
    // The security archive says Debian as well, and has the suites' updates alone.
    targets
        .lines()
        .filter_map(|line| line.strip_prefix("Debian "))
        .map(|uri| uri.trim_end_matches('/'))
        .find(|uri| !uri.ends_with("-security"))
        .map(str::to_owned)
}

fn base_name(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

/// In hexadecimal.
fn sha256(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_mirror() {
        let targets = "NodeSource https://node.example/node_20.x/\n\
            Debian http://mirror.example/debian-security/\nDebian http://mirror.example/debian/\n";
        assert_eq!(debian(targets).as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(debian("Ubuntu http://mirror.example/ubuntu/\n"), None);
    }

    #[test]
    fn versions_are_compared_as_debian_does() {
        assert_eq!(compare("6.12.9-1", "6.12.107-1"), Ordering::Less);
        assert_eq!(compare("7.2~rc1-1", "7.2-1"), Ordering::Less);
        assert_eq!(compare("1", "1"), Ordering::Equal);
    }

    #[test]
    fn the_newest_paragraph_is_read() {
        let series = Package { series: "x-*".into(), file: String::new(), sha256: String::new() };
        let text = "Package: x-2\nVersion: 2\nFilename: pool/x_2.deb\nSHA256: ab\n\nPackage: x-1\n";
        let available = Available::parse(text, &series).unwrap();
        assert_eq!((available.version.as_str(), available.package.sha256.as_str()), ("2", "ab"));
        assert!(Available::parse("", &series).is_none());
    }
}
