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
const WAY_OUT: &str = "run `cargo xtask build-ebpf`";

fn main() -> ExitCode {
    match object() {
        Ok(object) => {
            println!("cargo::rustc-env={OVERRIDE}={}", object.path.display());
            println!("cargo::rerun-if-env-changed={OVERRIDE}");
            for path in object.made_from {
                println!("cargo::rerun-if-changed={}", path.display());
            }
            ExitCode::SUCCESS
        }
        // Cargo runs a script that failed again in any case.
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

struct Object {
    path: PathBuf,
    /// The files and folders whose change may call for another verdict.
    made_from: Vec<PathBuf>,
}

fn object() -> Result<Object, String> {
    if let Some(path) = env::var_os(OVERRIDE).map(PathBuf::from) {
        println!("cargo::warning=embedding {} instead of the shipped {OBJECT}", path.display());
        return Ok(Object { made_from: vec![path.clone()], path });
    }
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("run this by cargo")?);
    let path = package.join(OBJECT);
    let mut made_from = vec![package.join("build.rs"), package.join("bpf")];
    let record = check_object(&package).map_err(|error| format!("{error}; {WAY_OUT}"))?;
    // A packaged crate ships the object without its sources: nothing to compare with.
    let root = package.parent().filter(|root| root.join("dropwatch-ebpf/Cargo.toml").exists());
    if let Some(root) = root {
        made_from.extend(SOURCES.map(|source| root.join(source)));
        let sources = hash_sources(root).map_err(|error| error.to_string())?;
        if sources != record.sources {
            return Err(format!(
                "dropwatch-ebpf or dropwatch-common changed since {OBJECT} was built; {WAY_OUT}"
            ));
        }
    }
    Ok(Object { path, made_from })
}

fn check_object(package: &Path) -> Result<Provenance, String> {
    let text = read(&package.join(RECORD)).map_err(|error| error.to_string())?;
    let record: Provenance =
        String::from_utf8_lossy(&text).parse().map_err(|error| format!("{RECORD} {error}"))?;
    let object = read(&package.join(OBJECT)).map_err(|error| error.to_string())?;
    if sha256(&object) != record.object {
        return Err(format!("{OBJECT} is not the object that {RECORD} describes"));
    }
    Ok(record)
}
