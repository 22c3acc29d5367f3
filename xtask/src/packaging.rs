//! `cargo xtask packaging`: whether what stands in `packaging/` works with the programs it is for.

mod booted;
mod cgroups;
mod checks;
mod dashboard;
mod exporter;
mod fleet;
mod http;
mod live;
mod manifests;
mod prometheus;
mod recording;
mod rules;
mod unit;
mod yaml;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;

use crate::{ci::Sum, project::Project};
use checks::Checks;

/// Test what stands in packaging/: alerts, dashboard, unit, manifests.
///
/// Rules are tested by promtool, queries are asked of a Prometheus server of its own on a loopback
/// port, the unit is judged by systemd-analyze and run by a systemd in a container. Only what counts
/// real drops needs root. Ends with one line, `N passed, M failed`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What cannot be tested here is a failure, not a skip
    #[arg(long)]
    strict: bool,
    /// Run only tests whose name contains this
    filter: Option<String>,
}

pub(crate) fn run(project: &Project, args: &Args) -> Result<ExitCode> {
    let checks = all(project, Checks::new(args.strict, args.filter.as_deref()));
    println!("{checks}");
    Ok(if checks.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All of them, none left out: what passed and what failed.
pub(crate) fn strict(project: &Project) -> Sum {
    all(project, Checks::new(true, None)).sum()
}

fn all(project: &Project, mut checks: Checks) -> Checks {
    let packaging = Packaging { root: project.root.join("packaging"), project };
    rules::check(&packaging, &mut checks);
    dashboard::check(&packaging, &mut checks);
    unit::check(&packaging, &mut checks);
    booted::check(&packaging, &mut checks);
    manifests::check(&packaging, &mut checks);
    fleet::check(&packaging, &mut checks);
    live::check(&packaging, &mut checks);
    checks
}

/// The folder at hand.
struct Packaging<'a> {
    root: PathBuf,
    project: &'a Project,
}

impl Packaging<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A folder for what tests write, empty at first.
    ///
    /// # Errors
    /// If it cannot be emptied or made.
    fn scratch(&self, name: &str) -> Result<PathBuf> {
        use anyhow::Context;
        let folder = self.project.target().join("packaging").join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }
}
