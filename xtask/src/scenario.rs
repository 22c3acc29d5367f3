//! `cargo xtask scenario`: a known trouble in namespaces, and dropwatch telling its cause.

use std::{fs, io::stdout, process::ExitCode};

use anyhow::{Context, Result, ensure};

use crate::{project::Project, root};

/// What is found in which scenario.
const PAGE: &str = "docs/scenarios.md";

/// Show dropwatch at work: build a known trouble in network namespaces and watch its drops.
///
/// With `all`, each scenario is run (some minutes), and a matrix of scenarios and findings ends it.
///
/// Needs root, and asks for sudo where it is not run as root. Whatever it changes is put back,
/// Ctrl-C included.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which one, or all; see --list
    #[arg(required_unless_present = "list")]
    name: Option<String>,
    /// Show the scenarios there are
    #[arg(long)]
    list: bool,
    /// With all: write docs/scenarios.md, if nothing is off the diagonal
    #[arg(long, conflicts_with = "list")]
    write_docs: bool,
}

pub(crate) fn run(project: &Project, args: &Args) -> Result<ExitCode> {
    let name = match &args.name {
        Some(name) if !args.list => name,
        _ => {
            for (name, about) in testbed::scenario::list() {
                println!("{name:<22}{about}");
            }
            return Ok(ExitCode::SUCCESS);
        }
    };
    ensure!(!args.write_docs || name == "all", "--write-docs goes with all: {PAGE} is about all");
    root::with_dropwatch(project, |binary| {
        testbed::scenario::run(name, &binary, &mut stdout())?;
        if !args.write_docs {
            return Ok(());
        }
        fs::write(project.root.join(PAGE), testbed::scenario::page())
            .with_context(|| format!("cannot write {PAGE}"))
    })
}
