//! Commands that watch the kernel: built as the user, run as root.

use std::{
    env,
    ffi::OsString,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

use crate::{
    locks::Machine,
    process::CommandExt,
    project::{Project, cargo, find_command, is_root},
};

/// Names the dropwatch binary, for the run as root: cargo belongs to the user.
pub(crate) const BINARY: &str = "DROPWATCH_BIN";

/// Builds dropwatch, then runs `work` with its path as root: here, or in this same program under
/// sudo with the same arguments. No other run of tests or measurements goes on meanwhile.
pub(crate) fn with_dropwatch(
    project: &Project,
    work: impl FnOnce(PathBuf) -> Result<()>,
) -> Result<ExitCode> {
    let binary = match env::var_os(BINARY) {
        Some(binary) => binary.into(),
        None => build(project)?,
    };
    if is_root() {
        // Not before sudo: that starts this program once more.
        let _machine = Machine::take()?;
        work(binary)?;
        return Ok(ExitCode::SUCCESS);
    }
    let sudo = find_command("sudo").context("this needs root, and there is no sudo")?;
    let mut assignment = OsString::from(format!("{BINARY}="));
    assignment.push(&binary);
    let mut command = Command::new(sudo);
    command.arg("env").arg(assignment);
    command.arg(env::current_exe().context("cannot find this program")?);
    command.args(env::args_os().skip(1));
    command.check()?;
    Ok(ExitCode::SUCCESS)
}

fn build(project: &Project) -> Result<PathBuf> {
    let mut command = Command::new(cargo());
    command.current_dir(&project.root);
    command.args(["build", "--release", "--locked", "--package", "dropwatch"]);
    command.check()?;
    let binary = project.target().join("release/dropwatch");
    if !binary.exists() {
        bail!("`{}` has not made {}", command.quoted(), binary.display());
    }
    Ok(binary)
}
