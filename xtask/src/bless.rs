//! `cargo xtask bless`: accept what the program prints now as what it should print.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{
    process::CommandExt,
    project::{Project, cargo},
};

/// Rewrites the golden files (insta's snapshots, trycmd's transcripts); look at the diff after.
pub(crate) fn run(project: &Project) -> Result<ExitCode> {
    let mut tests = Command::new(cargo());
    tests.current_dir(&project.root).args(["test", "--workspace", "--locked", "--no-fail-fast"]);
    tests.env("INSTA_UPDATE", "always").env("TRYCMD", "overwrite");
    tests.check()?;
    Command::new("git").current_dir(&project.root).args(["status", "--short"]).check()?;
    Ok(ExitCode::SUCCESS)
}
