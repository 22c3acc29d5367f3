//! The least supported Rust, `rust-version` of the workspace, as far as a newer one can prove it.
//!
//! Whether the code compiles with it is proved by a job of `.github/workflows/ci.yml`, which has
//! that compiler; here clippy's `incompatible_msrv` looks for what the standard library got later.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{
    process::CommandExt,
    project::{Project, cargo},
    version::Version,
};

/// The least supported Rust, as cargo read it from the workspace.
const LEAST: &str = env!("CARGO_PKG_RUST_VERSION");

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    rust_version: Option<String>,
}

/// Looks whether every locked dependency takes the least supported Rust.
///
/// # Errors
/// With those that do not.
pub(crate) fn check(project: &Project) -> Result<()> {
    let mut command = Command::new(cargo());
    command.current_dir(&project.root);
    let text = command.args(["metadata", "--locked", "--format-version", "1"]).read()?;
    let metadata: Metadata = serde_json::from_str(&text).context("cargo metadata")?;
    let newer = newer(&metadata.packages, LEAST);
    ensure!(newer.is_empty(), "these need a newer Rust than {LEAST}: {}", newer.join(", "));
    Ok(())
}

fn newer(packages: &[Package], least: &str) -> Vec<String> {
    let least = Version::find(least);
    let needs = |package: &Package| {
        let needed = package.rust_version.as_deref()?;
        let text = format!("{} {} ({needed})", package.name, package.version);
        (Version::find(needed) > least).then_some(text)
    };
    packages.iter().filter_map(needs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_that_needs_a_newer_rust_is_found() {
        let package = |name: &str, rust_version: Option<&str>| Package {
            name: name.into(),
            version: "1.0.0".into(),
            rust_version: rust_version.map(str::to_owned),
        };
        let packages = [
            package("old", Some("1.63")),
            package("same", Some("1.88.0")),
            package("patch", Some("1.88.1")),
            package("new", Some("1.100")),
            package("silent", None),
        ];
        assert_eq!(newer(&packages, "1.88"), ["patch 1.0.0 (1.88.1)", "new 1.0.0 (1.100)"]);
    }

    #[test]
    fn ci_and_the_pages_name_the_same_rust() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let read = |file: &str| std::fs::read_to_string(format!("{root}/{file}")).unwrap();
        let image = format!("image: rust:{LEAST}-bookworm");
        assert!(read(".github/workflows/ci.yml").contains(&image), "{image}");
        assert!(read("README.md").contains(&format!("({LEAST} or later)")));
    }
}
