//! `cargo xtask dist`: the packages, `docs/packages.md`.
//!
//! All are made of one static binary, its manual pages and its completions, and of nothing that
//! another machine, folder or day would make otherwise.

mod archive;
mod binary;
mod check;
mod control;
mod crates;
mod debian;
mod epoch;
mod licences;
mod name;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};

use crate::{
    process::CommandExt,
    project::{Project, cargo, find_command},
    setup,
};
use binary::Binary;
use epoch::Epoch;

pub(crate) use crates::check as check_crates;
pub(crate) use debian::NAME as PACKAGED;

/// What the program is called where nothing else has that name.
const NAME: &str = "dropwatch";
/// Whose work else is in the binary.
const THIRD_PARTY: &str = "THIRD-PARTY.txt";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Build the packages: a static binary, a tar.gz and a .deb with manual pages and completions.
///
/// They are in target/dist, with SHA256SUMS, and the same bytes whoever builds them where, with the
/// same compiler and C library. Needs no root.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Hold them against what they promise, too: build again elsewhere, install in a clean Debian,
    /// remove (ten minutes)
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(project: &Project, args: &Args) -> Result<ExitCode> {
    let folder = project.target().join("dist");
    if args.check {
        return check::run(project, &folder);
    }
    build_all(project)?;
    Ok(ExitCode::SUCCESS)
}

/// Builds all packages into target/dist, and names them; returns the program that is in them.
///
/// # Errors
/// When one cannot be built.
pub(crate) fn build_all(project: &Project) -> Result<PathBuf> {
    let folder = project.target().join("dist");
    let made = build(project, &folder, &project.target(), Epoch::find(project)?)?;
    for file in &made.files {
        println!("{}", file.display());
    }
    Ok(made.binary)
}

/// What a build has made, in the order of `SHA256SUMS`, itself last.
struct Made {
    binary: PathBuf,
    files: Vec<PathBuf>,
}

impl Made {
    fn deb(&self) -> Option<&PathBuf> {
        self.files.iter().find(|path| path.extension().is_some_and(|ending| ending == "deb"))
    }
}

/// Builds everything into `folder`; cargo makes the binary in `build` below it, what writes the
/// pages in `target`.
fn build(project: &Project, folder: &Path, target: &Path, epoch: Epoch) -> Result<Made> {
    for (program, package) in setup::PACKING_PROGRAMS {
        ensure!(find_command(program).is_some(), "no program `{program}` (Debian: {package})");
    }
    let binary = Binary::build(project, &folder.join("build"), epoch)?;

    // Packed from a folder of its own, so that nothing of an earlier build gets in.
    let work = folder.join("work");
    archive::empty(&work)?;
    eprintln!("==> manual pages and completions");
    for name in [NAME, debian::NAME] {
        pages(project, target, name, epoch, &work.join("pages").join(name))?;
    }
    let licences = licences::third_party(project, &binary.target)?;
    archive::write(&work.join(THIRD_PARTY), licences.as_bytes(), 0o644)?;
    let files = vec![
        archive::build(project, &binary, &work, folder, epoch)?,
        debian::build(project, &binary, &work, folder, epoch)?,
    ];
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    let sums = archive::sums(&files, folder)?;
    Ok(Made { binary: binary.path, files: files.into_iter().chain([sums]).collect() })
}

/// Has `manual` write the pages and completions of a command called `name`.
fn pages(project: &Project, target: &Path, name: &str, epoch: Epoch, folder: &Path) -> Result<()> {
    let mut command = Command::new(cargo());
    command.current_dir(&project.root);
    command.args(["run", "--quiet", "--locked", "--package", "manual", "--target-dir"]);
    command.arg(target).args(["--", "--name", name, "--date", &epoch.date()]).arg(folder);
    command.check()
}
