//! `cargo xtask dist --check`: the packages are what they should be.

use std::{
    fmt, fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use super::{Made, NAME, VERSION, archive, epoch::Epoch};
use crate::{
    process::{CommandExt, quote},
    project::{Project, cargo, find_command},
    setup,
};

/// What is done with the package in a Debian of its own.
const SCRIPT: &str = include_str!("clean_root.sh");
/// What that Debian has besides its essential packages: the other dropwatch, shells, man.
const INCLUDED: &str = "--include=dropwatch,fish,man-db,zsh";

/// Builds the packages and holds them against what they promise. Ends with `N passed, M failed`.
pub(super) fn run(project: &Project, folder: &Path) -> Result<ExitCode> {
    setup::install(project, setup::For::Dist)?;
    let epoch = Epoch::find(project)?;
    let work = folder.join("check");
    archive::empty(&work)?;
    let mut checks = Checks::default();
    let made = checks.attempt("builds", || super::build(project, folder, &project.target(), epoch));
    if let Some(made) = &made {
        twice(project, made, &work, epoch, &mut checks);
        if let Err(error) = clean_root(made, &work, &mut checks) {
            checks.failed("a Debian of its own");
            eprintln!("error: {error:#}");
        }
    }
    checks.attempt("crates could be published", || super::crates::check(project));
    checks.attempt("cargo install", || install(project, &work));
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    println!("{checks}");
    Ok(if checks.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What passed and failed so far.
#[derive(Default)]
struct Checks {
    passed: u64,
    failed: u64,
}

impl Checks {
    fn passed(&mut self, name: &str) {
        self.passed += 1;
        println!("passed: {name}");
    }

    fn failed(&mut self, name: &str) {
        self.failed += 1;
        println!("failed: {name}");
    }

    /// Does a step; an error makes it fail and is shown.
    fn attempt<T>(&mut self, name: &str, step: impl FnOnce() -> Result<T>) -> Option<T> {
        match step() {
            Ok(value) => {
                self.passed(name);
                Some(value)
            }
            Err(error) => {
                self.failed(name);
                eprintln!("error: {error:#}");
                None
            }
        }
    }

    /// Takes a line that the script prints; true for its last.
    fn line(&mut self, line: &str) -> bool {
        if let Some(name) = line.strip_prefix("passed: ") {
            self.passed(name);
        } else if let Some(name) = line.strip_prefix("failed: ") {
            self.failed(name);
        } else if line != "end" {
            println!("{line}");
        }
        line == "end"
    }

    fn is_success(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }
}

impl fmt::Display for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Builds once more, from a copy of the sources in another folder and with another umask: not a
/// byte may differ.
fn twice(project: &Project, made: &Made, work: &Path, epoch: Epoch, checks: &mut Checks) {
    let again = checks.attempt("builds in another folder", || {
        let sources = work.join("elsewhere/and/deeper");
        copy(&project.root, &sources, &project.target())?;
        pack_commit(made, &sources)?;
        let folder = work.join("again");
        let umask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
        let again = super::build(
            &Project { root: sources, packaged: None },
            &folder,
            &work.join("target"),
            epoch,
        );
        nix::sys::stat::umask(umask);
        again
    });
    for (one, other) in made.files.iter().zip(again.iter().flat_map(|again| &again.files)) {
        let name = one.file_name().unwrap_or_default().to_string_lossy();
        checks.attempt(&format!("{name} is the same, byte for byte"), || same(one, other));
    }
}

fn same(one: &Path, other: &Path) -> Result<()> {
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let (one, other) = (read(one)?, read(other)?);
    let differs = one.iter().zip(&other).position(|(a, b)| a != b);
    match differs {
        Some(at) => bail!("they differ from byte {at} on"),
        None => ensure!(one.len() == other.len(), "{} bytes, and {}", one.len(), other.len()),
    }
    Ok(())
}

/// Has the copied sources say which commit they are of, as cargo has those that it packs: the one
/// that the first build names.
fn pack_commit(made: &Made, sources: &Path) -> Result<()> {
    let printed = Command::new(&made.binary).arg("--version").read()?;
    let commit = printed.lines().find_map(|line| line.strip_prefix("commit "));
    let commit = commit.context("the program tells no commit")?;
    if commit == "unknown" {
        return Ok(());
    }
    let (commit, dirty) = match commit.strip_suffix("-modified") {
        Some(commit) => (commit, true),
        None => (commit, false),
    };
    let info = format!("{{\"git\":{{\"sha1\":\"{commit}\",\"dirty\":{dirty}}}}}\n");
    let path = sources.join(NAME).join(".cargo_vcs_info.json");
    archive::write(&path, info.as_bytes(), 0o644)
}

/// Copies the sources, without history and what was built.
fn copy(from: &Path, to: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in archive::files(from)? {
        let (path, to) = (&entry.path, to.join(&entry.name));
        if path.is_dir() {
            let left_out = [".git", ".tools", "target"].contains(&entry.name.as_str());
            if !left_out && path != target {
                copy(path, &to, target)?;
            }
        } else if entry.name != ".git" {
            fs::copy(path, &to).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}

/// Installs the package in a small Debian, which mmdebstrap makes and takes away, whatever happens.
fn clean_root(made: &Made, work: &Path, checks: &mut Checks) -> Result<()> {
    eprintln!("==> a Debian of its own (a minute)");
    let package = made.deb().context("no package was built")?;
    let place = work.join("package.deb");
    fs::copy(package, &place).with_context(|| format!("cannot copy {}", package.display()))?;
    let source = Source::find()?;

    let program = find_command("mmdebstrap").context("no program `mmdebstrap`")?;
    let mut command = Command::new(program);
    command.args(["--quiet", "--variant=essential", INCLUDED]);
    command.arg(format!("--components={}", source.components.join(",")));
    command.arg(format!("--customize-hook=copy-in {} /tmp", quote(place.as_os_str())));
    // With a line feed at its end, mmdebstrap takes it for a file name gone wrong, and says so.
    command.arg(format!("--customize-hook={}", SCRIPT.trim_end()));
    // Nothing is kept of it.
    command.args([&source.suite, "/dev/null", &source.mirror]);
    // Standard output is for the archive that it makes at other times; hooks have the other.
    let mut child = command.stderr(Stdio::piped()).spawn().context("cannot run mmdebstrap")?;
    let output = child.stderr.take().context("a child without the output asked for")?;
    let mut ended = false;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read what mmdebstrap prints")?;
        ended |= checks.line(&String::from_utf8_lossy(&line));
    }
    let status = child.wait().context("cannot wait for mmdebstrap")?;
    ensure!(status.success(), "mmdebstrap failed: {status}");
    ensure!(ended, "the script broke off");
    Ok(())
}

/// Where this machine gets the packages of its own release from.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    suite: String,
    mirror: String,
    components: Vec<String>,
}

impl Source {
    fn find() -> Result<Self> {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        let suite = suite.context("/etc/os-release names no release")?.trim_matches('"');
        // The lists are not whole while another apt reads them.
        setup::apt::wait()?;
        let format = "$(CODENAME) $(COMPONENT) $(REPO_URI)";
        let mut command = Command::new("apt-get");
        let listed =
            command.args(["indextargets", "--format", format, "Created-By: Packages"]).read()?;
        Self::choose(suite, &listed)
            .with_context(|| format!("apt has no source of {suite} that it has read the lists of"))
    }

    /// Reads lines of release, component and address. The archive itself calls its release as the
    /// system does; updates of it have an ending.
    fn choose(suite: &str, listed: &str) -> Option<Self> {
        let lines = listed.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mut found: Option<Self> = None;
        for line in lines {
            let &[codename, component, mirror] = line.as_slice() else { continue };
            if codename != suite {
                continue;
            }
            let found = found.get_or_insert_with(|| Self {
                suite: suite.to_owned(),
                mirror: mirror.to_owned(),
                components: Vec::new(),
            });
            if found.mirror == mirror {
                found.components.push(component.to_owned());
            }
        }
        found
    }
}

/// `cargo install`, as somebody without packages gets the program.
fn install(project: &Project, work: &Path) -> Result<()> {
    eprintln!("==> cargo install (minutes)");
    let root = work.join("installed");
    let mut command = Command::new(cargo());
    command.current_dir(&project.root).args(["install", "--quiet", "--locked", "--no-track"]);
    command.arg("--path").arg(project.package()).arg("--root").arg(&root);
    command.arg("--target-dir").arg(project.target()).check()?;
    let printed = Command::new(root.join("bin").join(NAME)).arg("--version").read()?;
    let expected = format!("{NAME} {VERSION}\ncommit ");
    ensure!(printed.starts_with(&expected), "it says {printed:?}, not {expected:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::debian, *};

    #[test]
    fn the_script_is_valid_shell() {
        Command::new("sh").args(["-n", "-c", SCRIPT]).check().unwrap();
        let name = format!("\nname={}\n", debian::NAME);
        assert!(SCRIPT.contains(&name));
    }

    #[test]
    fn lines_of_the_script_are_counted() {
        let mut checks = Checks::default();
        let ends: Vec<bool> = ["passed: a", "failed: b", "    why", "passed: c", "end"]
            .iter()
            .map(|line| checks.line(line))
            .collect();
        assert_eq!(ends, [false, false, false, false, true]);
        assert_eq!(checks.to_string(), "2 passed, 1 failed");
        assert!(!checks.is_success() && !Checks::default().is_success());
    }

    #[test]
    fn the_archive_is_chosen_not_its_updates() {
        let listed = "\
bookworm-updates main http://mirror/debian/
 main https://other/
bookworm main http://mirror/debian/
bookworm contrib http://mirror/debian/
bookworm extra https://vendor/
bookworm-security main http://mirror/debian-security/
";
        let source = Source::choose("bookworm", listed).unwrap();
        assert_eq!(source.mirror, "http://mirror/debian/");
        assert_eq!(source.components, ["main", "contrib"]);
        assert_eq!(Source::choose("trixie", listed), None);
    }

    #[test]
    fn differences_are_found() {
        let folder = std::env::temp_dir().join(format!("xtask-same-{}", std::process::id()));
        archive::empty(&folder).unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let one = file("one", "abc");
        same(&one, &file("two", "abc")).unwrap();
        let printed = |path: &Path| same(&one, path).unwrap_err().to_string();
        assert_eq!(printed(&file("three", "aXc")), "they differ from byte 1 on");
        assert_eq!(printed(&file("four", "abcd")), "3 bytes, and 4");
        fs::remove_dir_all(folder).unwrap();
    }
}
