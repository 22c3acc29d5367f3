//! Whose work is in a static binary: it takes along what a dynamic one leaves to the system.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::NAME;
use crate::{
    process::CommandExt,
    project::{Project, cargo},
};

/// Beginnings of the names of files that tell licences, in capitals.
const FILES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
const MIT: &str = "LICENSE-MIT";

/// Names every crate in the binary for `target`, with the licence it is under and its text.
///
/// # Errors
/// When cargo does not tell, or a file cannot be read.
pub(super) fn third_party(project: &Project, target: &str) -> Result<String> {
    let mut command = Command::new(cargo());
    command.current_dir(&project.root).args(["metadata", "--format-version", "1", "--locked"]);
    let printed = command.args(["--filter-platform", target]).read()?;
    let printed: Metadata = serde_json::from_str(&printed).context("cargo prints no metadata")?;
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut list = String::new();
    for package in printed.linked() {
        let Package { name, version, license, authors, .. } = package;
        let license = license.as_deref().unwrap_or("no licence told");
        list += &format!("{name} {version}: {license}");
        let found = package.texts()?;
        if found.is_empty() && !authors.is_empty() {
            list += &format!(" ({})", authors.join(", "));
        }
        list.push('\n');
        for text in found {
            texts.entry(text).or_default().push(format!("{name} {version}"));
        }
    }
    let mut result = format!(
        "The program {NAME} has the work of others in it. Besides the GNU C library (LGPL-2.1 or\n\
         later) and Rust's standard library (MIT or Apache-2.0), these crates:\n\n{list}"
    );
    // By their first crate: the texts themselves are in no order that means anything.
    let mut texts: Vec<_> = texts.into_iter().map(|(text, crates)| (crates, text)).collect();
    texts.sort();
    for (crates, text) in texts {
        result += &format!("\n{}\n{}:\n\n{}\n", "-".repeat(72), crates.join(", "), text.trim_end());
    }
    Ok(result)
}

/// What `cargo metadata` tells, as far as it matters.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    authors: Vec<String>,
    /// None for those of this repository.
    source: Option<String>,
    manifest_path: String,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// None for what is linked, else `dev` or `build`.
    kind: Option<String>,
}

impl Metadata {
    /// The crates of others that end up in the binary, by name: not what only builds it, such as
    /// procedural macros.
    fn linked(&self) -> Vec<&Package> {
        let packages: BTreeMap<&str, &Package> =
            self.packages.iter().map(|package| (package.id.as_str(), package)).collect();
        let nodes: BTreeMap<&str, &Node> =
            self.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
        let own = |package: &&Package| package.source.is_none() && package.name == NAME;
        let mut open: Vec<&str> =
            self.packages.iter().filter(own).map(|package| package.id.as_str()).collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            let Some(package) = packages.get(id) else { continue };
            let macros =
                package.targets.iter().any(|target| target.kind.contains(&"proc-macro".into()));
            if macros || !seen.insert(id) {
                continue;
            }
            let needed = nodes.get(id).into_iter().flat_map(|node| &node.deps);
            let linked = needed.filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind.is_none()));
            open.extend(linked.map(|dep| dep.pkg.as_str()));
        }
        let mut found: Vec<&Package> =
            seen.iter().filter_map(|id| packages.get(id).copied()).collect();
        found.retain(|package| package.source.is_some());
        found.sort_by_key(|package| (&package.name, &package.version));
        found
    }
}

impl Package {
    /// The texts that come with it; where there is a choice, MIT's alone.
    fn texts(&self) -> Result<Vec<String>> {
        let folder = Path::new(&self.manifest_path).parent().context("a crate without a folder")?;
        let mut names = Vec::new();
        let listed = fs::read_dir(folder);
        for entry in listed.with_context(|| format!("cannot list {}", folder.display()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_file()
                && FILES.iter().any(|file| name.to_uppercase().starts_with(file))
            {
                names.push(name);
            }
        }
        names.sort();
        if mit_will_do(self.license.as_deref().unwrap_or_default())
            && names.iter().any(|name| name == MIT)
        {
            names = vec![MIT.to_owned()];
        }
        let read = |name: &String| {
            let path = folder.join(name);
            let text =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(String::from_utf8_lossy(&text).replace('\r', ""))
        };
        names.iter().map(read).collect()
    }
}

/// Whether a licence expression lets one choose MIT, and nothing besides.
fn mit_will_do(expression: &str) -> bool {
    let mut choices = expression.split(" OR ").flat_map(|part| part.split('/'));
    !expression.contains(['(', ')']) && choices.any(|choice| choice.trim() == "MIT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mit_is_chosen_only_where_it_is_enough() {
        for (expression, enough) in [
            ("MIT OR Apache-2.0", true),
            ("MIT/Apache-2.0", true),
            ("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", true),
            ("Unlicense OR MIT", true),
            ("MIT", true),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", false),
            ("MIT AND Zlib", false),
            ("Zlib", false),
            ("", false),
        ] {
            assert_eq!(mit_will_do(expression), enough, "{expression}");
        }
    }

    #[test]
    fn what_only_builds_is_not_in_it() {
        let package = |name: &str, kind: &str, source: &str| {
            format!(
                r#"{{"id":"{name}","name":"{name}","version":"1","license":"MIT","authors":[],
                "source":{source},"manifest_path":"/","targets":[{{"kind":["{kind}"]}}]}}"#
            )
        };
        let dep = |name: &str, kind: &str| {
            format!(r#"{{"pkg":"{name}","dep_kinds":[{{"kind":{kind}}}]}}"#)
        };
        let node = |name: &str, deps: &[String]| {
            format!(r#"{{"id":"{name}","deps":[{}]}}"#, deps.join(","))
        };
        let packages = [
            package(NAME, "lib", "null"),
            package("own", "lib", "null"),
            package("z", "lib", r#""r""#),
            package("linked", "lib", r#""r""#),
            package("macros", "proc-macro", r#""r""#),
            package("of-macros", "lib", r#""r""#),
            package("tests", "lib", r#""r""#),
        ];
        let nodes = [
            node(
                NAME,
                &[
                    dep("z", "null"),
                    dep("own", "null"),
                    dep("macros", "null"),
                    dep("tests", r#""dev""#),
                ],
            ),
            node("own", &[dep("linked", "null")]),
            node("macros", &[dep("of-macros", "null")]),
        ];
        let text = format!(
            r#"{{"packages":[{}],"resolve":{{"nodes":[{}]}}}}"#,
            packages.join(","),
            nodes.join(",")
        );
        let printed: Metadata = serde_json::from_str(&text).unwrap();
        let names: Vec<&str> =
            printed.linked().iter().map(|package| package.name.as_str()).collect();
        assert_eq!(names, ["linked", "z"]);
    }
}
