//! `cargo xtask ci`: all that must hold before a change goes in.

use std::{
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::{build_ebpf, process::CommandExt, project, project::Project, setup, test};

/// `.ci/run` calls this; it stops at the first step that fails, and ends with the tests.
pub(crate) fn run(project: &Project) -> Result<ExitCode> {
    step("setup", || setup::install(project, setup::For::All))?;
    step("formatting", || {
        cargo(project, &["fmt", "--all", "--check"])?;
        cargo(project, &["fmt", "--check", "--manifest-path", "dropwatch-ebpf/Cargo.toml"])
    })?;
    step("object is what the sources give", || {
        match build_ebpf::run(project, &build_ebpf::Args::for_ci())? {
            ExitCode::SUCCESS => Ok(()),
            _ => bail!("see above"),
        }
    })?;
    step("clippy", || {
        let lints = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
        cargo(project, &lints)
    })?;
    step("clippy, kernel side", || {
        if !build_ebpf::clippy(project)? {
            eprintln!("left out: the compiler for the kernel side comes without clippy");
        }
        Ok(())
    })?;
    test::run(project, &test::Args::default())
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("==> {name}");
    let start = Instant::now();
    work().with_context(|| format!("step `{name}`"))?;
    eprintln!("    {name}: fine after {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn cargo(project: &Project, arguments: &[&str]) -> Result<()> {
    Command::new(project::cargo()).current_dir(&project.root).args(arguments).check()
}
