//! The project's binaries for the guests: static, since a guest has no library that would fit.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{
    project::{Project, cargo},
    test,
};

/// An explicit target, or the flags would reach procedural macros, which cannot be static.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The release build, as users have it.
pub(super) fn dropwatch(project: &Project) -> Result<PathBuf> {
    if let Some(packaged) = &project.packaged {
        return Ok(packaged.clone());
    }
    eprintln!("==> dropwatch, static");
    let mut command = cargo_for_guests(project);
    command.args(["build", "--release", "--package", "dropwatch", "--bin", "dropwatch"]);
    test::built(command, "dropwatch")
}

/// The host tests, without debug information: it is most of their size.
pub(super) fn host_tests(project: &Project) -> Result<PathBuf> {
    eprintln!("==> host tests, static");
    let mut command = cargo_for_guests(project);
    command.args(["test", "--workspace", "--no-run", "--test", test::HOST]);
    command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_PROFILE_DEV_STRIP", "true");
    test::built(command, test::HOST)
}

fn cargo_for_guests(project: &Project) -> Command {
    let mut command = Command::new(cargo());
    command.current_dir(&project.root);
    // A variable replaces what configuration files say for this target, and only there.
    command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    command.env("CARGO_BUILD_TARGET", TARGET);
    command
}
