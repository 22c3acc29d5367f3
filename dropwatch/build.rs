//! Embeds the kernel object that ships in `bpf/`, and refuses to when it is not what the sources
//! beside it give. The path of the object reaches the code as `env!("DROPWATCH_OBJECT")`, its hash as
//! `DROPWATCH_OBJECT_SHA256`, and the commit that the sources are of as `DROPWATCH_COMMIT`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
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
            println!("cargo::rustc-env=DROPWATCH_OBJECT_SHA256={}", object.sha256);
            println!("cargo::rustc-env=DROPWATCH_COMMIT={}", object.commit);
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
    sha256: String,
    /// Of the sources.
    commit: String,
    /// The files and folders whose change may call for another verdict.
    made_from: Vec<PathBuf>,
}

fn object() -> Result<Object, String> {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("run this by cargo")?);
    if let Some(path) = env::var_os(OVERRIDE).map(PathBuf::from) {
        println!("cargo::warning=embedding {} instead of the shipped {OBJECT}", path.display());
        let sha256 = sha256(&read(&path).map_err(|error| error.to_string())?);
        let mut made_from = vec![path.clone()];
        let commit = commit(&package, &mut made_from);
        return Ok(Object { path, sha256, commit, made_from });
    }
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
    let commit = commit(&package, &mut made_from);
    Ok(Object { path, sha256: record.object, commit, made_from })
}

/// What else goes into the program, relative to the repository.
const PROGRAM: [&str; 4] = ["dropwatch/src", "dropwatch/Cargo.toml", "Cargo.lock", "Cargo.toml"];
/// Beside a package's sources where cargo or `cargo xtask dist` has packed them: the commit they
/// are of (`cargo help package`).
const PACKED: &str = ".cargo_vcs_info.json";

/// The commit that the sources are of, with `-modified` where they are not quite; `unknown` where
/// neither the package nor git tells. What says so is added to `made_from`.
///
/// Of the sources alone: the same ones give the same words, whenever and wherever they are built.
fn commit(package: &Path, made_from: &mut Vec<PathBuf>) -> String {
    let packed = package.join(PACKED);
    let told = match fs::read_to_string(&packed) {
        Ok(text) => {
            made_from.push(packed);
            packed_commit(&text)
        }
        Err(_) => git_commit(package, made_from),
    };
    told.unwrap_or_else(|| "unknown".to_owned())
}

fn packed_commit(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("\"sha1\"")?;
    let sha1 = rest.split('"').nth(1)?;
    let compact: String = text.split_whitespace().collect();
    named(sha1, compact.contains("\"dirty\":true"))
}

fn named(commit: &str, modified: bool) -> Option<String> {
    let is_one = commit.len() >= 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_one.then(|| format!("{commit}{}", if modified { "-modified" } else { "" }))
}

fn git_commit(package: &Path, made_from: &mut Vec<PathBuf>) -> Option<String> {
    let root = package.parent()?;
    // Not that of another repository, which these sources were copied into.
    if !root.join(".git").exists() || !root.join("dropwatch-ebpf/Cargo.toml").exists() {
        return None;
    }
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        // No lock, and nothing written: others may be at work there.
        let output = git.arg("--no-optional-locks").args(arguments).current_dir(root).output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // Both change with every commit that is made or checked out.
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", name]).map(|path| root.join(path));
        // One that is not there would have cargo build anew each time.
        made_from.extend(path.filter(|path| path.exists()));
    }
    made_from.extend(PROGRAM.map(|source| root.join(source)));
    let mut status = vec!["status", "--porcelain", "--untracked-files=no", "--", "dropwatch/bpf"];
    status.extend(PROGRAM.iter().chain(&SOURCES));
    let modified = git(&status).is_some_and(|changed| !changed.is_empty());
    named(&git(&["rev-parse", "HEAD"])?, modified)
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
