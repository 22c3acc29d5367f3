//! `cargo xtask scenario`: a known trouble in namespaces, and dropwatch telling its cause.

use std::{io::stdout, process::ExitCode};

use anyhow::Result;

use crate::{project::Project, root};

/// Show dropwatch at work: build a known trouble in network namespaces and watch its drops.
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
    root::with_dropwatch(project, |binary| testbed::scenario::run(name, &binary, &mut stdout()))
}
