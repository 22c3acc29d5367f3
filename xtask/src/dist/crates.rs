//! The crates: what a registry and docs.rs ask of them.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::archive;
use crate::{
    process::CommandExt,
    project::{Project, cargo, cargo_home},
};

/// The crates that are published, and no others.
const PUBLISHED: [&str; 2] = ["dropwatch", "dropwatch-common"];
/// Fields of a manifest that a registry shows.
const FIELDS: [&str; 7] =
    ["description", "documentation", "homepage", "license", "readme", "repository", "rust_version"];
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

/// That every published crate can be published: fields, licences, documentation without a warning,
/// and cargo's own verdict, which builds each from what is packed.
///
/// # Errors
/// With the crate and what it lacks.
pub(crate) fn check(project: &Project) -> Result<()> {
    let mut metadata = command(project);
    let printed =
        metadata.args(["metadata", "--no-deps", "--format-version=1", "--locked"]).read()?;
    let printed: Metadata = serde_json::from_str(&printed).context("cargo prints no metadata")?;
    printed.check()?;
    for name in PUBLISHED {
        let mut list = command(project);
        let files = list.args(["package", "--list", "--allow-dirty", "--package", name]).read()?;
        for licence in LICENCES {
            ensure!(files.lines().any(|file| file == licence), "crate {name} lacks {licence}");
        }
    }
    let mut documentation = command(project);
    documentation.args(["doc", "--workspace", "--no-deps", "--locked"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings").check()?;
    // Cargo takes a version, once unpacked or compiled, for the same for ever. These change with
    // every commit, so nothing of them may be left from the last time.
    forget_unpacked(&cargo_home().context("no CARGO_HOME and no home")?.join("registry/src"))?;
    let target = project.target().join("crates");
    archive::empty(&target)?;
    // In the order of their dependencies: one finds the other in a registry of cargo's own, a folder
    // below the target's.
    let mut publish = command(project);
    publish.args(["publish", "--dry-run", "--workspace", "--locked", "--allow-dirty"]);
    publish.arg("--target-dir").arg(&target).env("CARGO_PROFILE_DEV_DEBUG", "false").check()
}

/// Removes what cargo has unpacked of the published crates from registries that are folders: those
/// have no host, so that the names of their folders, `HOST-HASH`, begin with the hyphen.
fn forget_unpacked(sources: &Path) -> Result<()> {
    let folders = |within: &Path| -> Result<Vec<PathBuf>> {
        let error = || format!("cannot list {}", within.display());
        match fs::read_dir(within) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries
                .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
                .with_context(error),
        }
    };
    let begins = |path: &Path, with: &str| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(with.as_bytes()))
    };
    for registry in folders(sources)?.iter().filter(|path| begins(path, "-")) {
        for unpacked in folders(registry)? {
            if PUBLISHED.iter().any(|name| begins(&unpacked, &format!("{name}-"))) {
                fs::remove_dir_all(&unpacked)
                    .with_context(|| format!("cannot remove {}", unpacked.display()))?;
            }
        }
    }
    Ok(())
}

fn command(project: &Project) -> Command {
    let mut command = Command::new(cargo());
    command.current_dir(&project.root);
    command
}

/// What `cargo metadata` tells of this repository's packages.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    /// The registries that it may go to; none at all where the manifest says `publish = false`.
    publish: Option<Vec<String>>,
    #[serde(flatten)]
    fields: serde_json::Map<String, Value>,
}

impl Metadata {
    fn check(&self) -> Result<()> {
        let published =
            |package: &&Package| package.publish.as_ref().is_none_or(|to| !to.is_empty());
        let published: Vec<&Package> = self.packages.iter().filter(published).collect();
        let names: BTreeSet<&str> = published.iter().map(|package| package.name.as_str()).collect();
        ensure!(names == BTreeSet::from(PUBLISHED), "{names:?} would be published");
        for Package { name, fields, .. } in published {
            for field in FIELDS {
                let value = fields.get(field).and_then(Value::as_str).unwrap_or_default();
                ensure!(!value.is_empty(), "crate {name} says nothing of its {field}");
            }
        }
        // One of them is no member of the other's workspace everywhere, and repeats its fields.
        for field in ["homepage", "license", "repository", "rust_version", "version"] {
            let values =
                self.packages.iter().filter(|package| names.contains(package.name.as_str()));
            let values: BTreeSet<String> =
                values.filter_map(|package| Some(package.fields.get(field)?.to_string())).collect();
            ensure!(values.len() == 1, "the crates differ in their {field}: {values:?}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn metadata(change: impl Fn(&mut Value)) -> Result<()> {
        let package = |name: &str| {
            serde_json::json!({
                "name": name, "publish": null, "version": "1", "description": "d",
                "documentation": "https://docs", "homepage": "https://home", "license": "MIT",
                "readme": "README.md", "repository": "https://home", "rust_version": "1.88",
            })
        };
        let mut all = serde_json::json!({"packages": [
            package("dropwatch"),
            package("dropwatch-common"),
            {"name": "xtask", "publish": [], "version": "7", "homepage": null},
        ]});
        change(&mut all["packages"]);
        serde_json::from_value::<Metadata>(all)?.check()
    }

    #[test]
    fn what_was_unpacked_of_an_older_commit_is_forgotten_and_nothing_else() {
        let sources = Scratch::new("unpacked");
        let paths = [
            "-22c3/dropwatch-common-0.1.0",
            "-22c3/dropwatch-0.1.0",
            "-22c3/aya-0.14.0",
            "index.example-1949/dropwatch-common-0.1.0",
        ];
        let paths = paths.map(|path| sources.0.join(path));
        for path in &paths {
            fs::create_dir_all(path).unwrap();
        }
        forget_unpacked(&sources.0).unwrap();
        assert_eq!(paths.map(|path| path.exists()), [false, false, true, true]);
        forget_unpacked(&sources.0.join("nothing here")).unwrap();
    }

    #[test]
    fn what_a_registry_asks_for_is_there() {
        metadata(|_| ()).unwrap();
        for field in FIELDS {
            let error = metadata(|all| all[1][field] = Value::Null).unwrap_err().to_string();
            assert_eq!(error, format!("crate dropwatch-common says nothing of its {field}"));
        }
        metadata(|all| all[0]["version"] = "2".into()).unwrap_err();
        metadata(|all| all[0]["repository"] = "https://elsewhere".into()).unwrap_err();
        metadata(|all| all[2]["publish"] = Value::Null).unwrap_err();
        metadata(|all| all[0]["publish"] = serde_json::json!([])).unwrap_err();
    }
}
