//! The project's own chores, run as `cargo xtask …`. One variant, one module.

mod bench;
mod bless;
mod build_ebpf;
#[cfg(test)]
mod cargo_config;
mod ci;
mod dist;
mod figures;
mod least_rust;
mod locks;
mod measure;
mod object;
mod packaging;
mod picture;
mod process;
mod project;
#[path = "../../dropwatch/bpf/provenance.rs"]
mod provenance;
mod root;
mod scenario;
#[cfg(test)]
mod scratch;
mod setup;
mod test;
mod toolchain;
mod version;
mod vm;

use std::process::ExitCode;

use clap::Parser;

use crate::project::Project;

/// Chores of the dropwatch repository.
///
/// A newcomer needs one: `cargo xtask test`. Whoever changes the kernel side also needs
/// `cargo xtask setup` once, and `cargo xtask build-ebpf` after each change.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    BuildEbpf(build_ebpf::Args),
    Setup(setup::Args),
    Test(test::Args),
    Scenario(scenario::Args),
    Figures(figures::Args),
    Picture(picture::Args),
    Bench(bench::Args),
    Vm(vm::Args),
    Packaging(packaging::Args),
    Ci(ci::Args),
    Dist(dist::Args),
    /// Accept what the program prints now as what it should print (golden files)
    Bless,
}

fn main() -> ExitCode {
    let task = Task::parse();
    let result = Project::find().and_then(|project| match task {
        Task::BuildEbpf(args) => build_ebpf::run(&project, &args),
        Task::Setup(args) => setup::run(&project, &args),
        Task::Test(args) => test::run(&project, &args),
        Task::Scenario(args) => scenario::run(&project, &args),
        Task::Figures(args) => figures::run(&project, &args),
        Task::Picture(args) => picture::run(&project, &args),
        Task::Bench(args) => bench::run(&project, &args),
        Task::Vm(args) => vm::run(&project, &args),
        Task::Packaging(args) => packaging::run(&project, &args),
        Task::Ci(args) => ci::run(&project, &args),
        Task::Dist(args) => dist::run(&project, &args),
        Task::Bless => bless::run(&project),
    });
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
