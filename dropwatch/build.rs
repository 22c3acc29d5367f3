//! Embeds the kernel object that ships in `bpf/`, and refuses to when it is not what the sources
//! beside it give. The path of the object reaches the code as `env!("DROPWATCH_OBJECT")`.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

#[path = "bpf/provenance.rs"]
mod provenance;

use provenance::{OBJECT, Provenance, RECORD, SOURCES, hash_sources, read, sha256};

/// Set from outside, it names another object to embed: `cargo xtask build-ebpf --check
/// --allow-other-toolchain` tests a rebuilt one that way.
const OVERRIDE: &str = "DROPWATCH_OBJECT";

fn main() -> ExitCode {
    match object() {
        Ok(path) => {
            println!("cargo::rustc-env={OVERRIDE}={}", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn object() -> Result<PathBuf, String> {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    if let Some(path) = env::var_os(OVERRIDE) {
        let path = PathBuf::from(path);
        println!("cargo::warning=embedding {} instead of the shipped {OBJECT}", path.display());
        println!("cargo::rerun-if-changed={}", path.display());
        return Ok(path);
    }
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("run this by cargo")?);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=bpf");
    let record = read(&package.join(RECORD))
        .map_err(|error| format!("{error}; run `cargo xtask build-ebpf`"))?;
    let record: Provenance = String::from_utf8_lossy(&record)
        .parse()
        .map_err(|error| format!("{RECORD} {error}; run `cargo xtask build-ebpf`"))?;
    let path = package.join(OBJECT);
    let object = read(&path).map_err(|error| format!("{error}; run `cargo xtask build-ebpf`"))?;
    if sha256(&object) != record.object {
        return Err(format!(
            "{OBJECT} is not the object that {RECORD} describes; run `cargo xtask build-ebpf`"
        ));
    }
    if let Some(root) = package.parent().filter(|root| has_sources(root)) {
        check_sources(root, &record)?;
    }
    Ok(path)
}

/// A packaged crate ships the object without its sources: nothing to compare with.
fn has_sources(root: &Path) -> bool {
    root.join("dropwatch-ebpf/Cargo.toml").exists()
}

fn check_sources(root: &Path, record: &Provenance) -> Result<(), String> {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let sources = hash_sources(root).map_err(|error| error.to_string())?;
    if sources == record.sources {
        return Ok(());
    }
    Err(format!(
        "dropwatch-ebpf or dropwatch-common changed since {OBJECT} was built; run `cargo xtask build-ebpf`"
    ))
}
