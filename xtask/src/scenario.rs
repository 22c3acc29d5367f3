//! `cargo xtask scenario`: a known trouble in namespaces, and dropwatch telling its cause.

use std::{
    env,
    io::stdout,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

use crate::{
    process::CommandExt,
    project::{Project, cargo, find_command, is_root},
};

/// Show dropwatch at work: build a known trouble in network namespaces and watch its drops.
///
/// Needs root, and asks for sudo where it is not run as root. Whatever it changes is put back,
/// Ctrl-C included.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which one; see --list
    #[arg(required_unless_present = "list")]
    name: Option<String>,
    /// Show the scenarios there are
    #[arg(long)]
    list: bool,
}

/// Names the binary to watch with, for the run as root: cargo belongs to the user.
const BINARY: &str = "DROPWATCH_BIN";

pub(crate) fn run(project: &Project, args: &Args) -> Result<ExitCode> {
    let name = match &args.name {
        Some(name) if !args.list => name,
        _ => {
            for scenario in testbed::scenario::list() {
                println!("{:<8}{}", scenario.name, scenario.about);
            }
            return Ok(ExitCode::SUCCESS);
        }
    };
    let binary = match env::var_os(BINARY) {
        Some(binary) => binary.into(),
        None => build(project)?,
    };
    if is_root() {
        testbed::scenario::run(name, &binary, &mut stdout())?;
        return Ok(ExitCode::SUCCESS);
    }
    let sudo = find_command("sudo").context("scenarios need root, and there is no sudo")?;
    let mut assignment = std::ffi::OsString::from(format!("{BINARY}="));
    assignment.push(&binary);
    let mut command = Command::new(sudo);
    command.arg("env").arg(assignment);
    command.arg(env::current_exe().context("cannot find this program")?);
    command.args(["scenario", name]);
    command.check()?;
    Ok(ExitCode::SUCCESS)
}

fn build(project: &Project) -> Result<std::path::PathBuf> {
    let mut command = Command::new(cargo());
    command.current_dir(&project.root);
    command.args(["build", "--quiet", "--release", "--locked", "--package", "dropwatch"]);
    command.check()?;
    let binary = project.target().join("release/dropwatch");
    if !binary.exists() {
        bail!("`{}` has not made {}", command.quoted(), binary.display());
    }
    Ok(binary)
}
