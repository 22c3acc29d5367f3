//! The kernel side is a workspace of its own, and its lints are still those of the workspace.

use std::{fs, path::Path};

use toml::Table;

/// Manifests that cannot inherit the workspace's lints.
const APART: [&str; 2] = ["dropwatch-common", "dropwatch-ebpf"];

fn manifest(folder: &str) -> Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder).join("Cargo.toml");
    let text = fs::read_to_string(path).expect("a manifest");
    text.parse().expect("TOML")
}

#[test]
fn every_crate_has_the_same_lints() {
    let root = manifest("");
    let workspace = &root["workspace"];
    let lints = workspace["lints"].as_table().unwrap();
    assert!(lints["clippy"].as_table().is_some_and(|clippy| !clippy.is_empty()));
    for crate_apart in APART {
        let own = manifest(crate_apart);
        assert_eq!(own.get("lints").and_then(|own| own.as_table()), Some(lints), "{crate_apart}");
    }
    let members = workspace["members"].as_array().unwrap();
    for member in members.iter().filter_map(|member| member.as_str()) {
        let inherits = manifest(member)
            .get("lints")
            .and_then(|lints| lints.get("workspace"))
            .and_then(toml::Value::as_bool);
        assert!(inherits == Some(true) || APART.contains(&member), "{member} inherits no lints");
    }
}
