//! `cargo xtask ci`: all that must hold before a change goes in.

use std::{
    fmt,
    ops::Add,
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::{
    build_ebpf, dist, least_rust, packaging, process::CommandExt, project, project::Project, setup,
    test, vm,
};

/// Run all that must hold before a change goes in: setup, formatting, the kernel object, clippy,
/// crates and their documentation, packages, tests here and on other kernels
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out the other kernels (cargo xtask vm)
    #[arg(long)]
    without_vm: bool,
}

/// `.ci/run` calls this; it stops at the first step that fails, and ends with the tests.
pub(crate) fn run(project: &Project, args: &Args) -> Result<ExitCode> {
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
    step("least supported Rust", || least_rust::check(project))?;
    step("clippy, kernel side", || {
        if !build_ebpf::clippy(project)? {
            eprintln!("left out: the compiler for the kernel side comes without clippy");
        }
        Ok(())
    })?;
    step("crates", || dist::check_crates(project))?;
    // What ships is what is tested.
    let mut packaged = None;
    step("packages", || {
        packaged = Some(dist::build_all(project)?);
        Ok(())
    })?;
    let project = &Project { root: project.root.clone(), packaged };
    let host = test::all(project);
    eprintln!("==> packaging");
    setup::install(project, setup::For::Packaging)?;
    let packaging = packaging::strict(project);
    println!("host: {host}");
    println!("packaging: {packaging}");
    let here = host + packaging;
    if args.without_vm {
        return Ok(conclude(here));
    }
    eprintln!("==> other kernels");
    let guests = vm::all(project)?;
    println!("other kernels: {guests}");
    Ok(conclude(here + guests))
}

/// Tests that passed, failed, and did not run or proved nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sum {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Add for Sum {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

/// `12 passed, 0 failed`, and `, 1 skipped` where there is one.
impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        match self.skipped {
            0 => Ok(()),
            skipped => write!(f, ", {skipped} skipped"),
        }
    }
}

fn conclude(sum: Sum) -> ExitCode {
    println!("{sum}");
    if sum.failed == 0 && sum.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
