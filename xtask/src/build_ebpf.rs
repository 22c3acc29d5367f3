//! `cargo xtask build-ebpf`: the kernel object that ships, from source.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

use crate::{
    object,
    process::CommandExt,
    project::{Project, cargo_home},
    provenance::{self, OBJECT, Provenance, RECORD, hash_sources, sha256},
    test,
    toolchain::{Core, TARGET, Toolchain},
};

/// Build the kernel object that ships in dropwatch/bpf/, with its provenance.
///
/// The object depends on the sources and the toolchain alone, not on where they are. Commit both
/// files together with the change of the sources.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rebuild and compare with what is there, byte for byte; write nothing
    #[arg(long)]
    check: bool,
    /// With --check: accept another toolchain than the recorded one; if it gives other bytes, run
    /// the host tests on them
    #[arg(long, requires = "check")]
    allow_other_toolchain: bool,
}

impl Args {
    /// As continuous integration checks: byte for byte where the machine has the recorded
    /// toolchain; where it has a newer one, by running the host tests on what that one builds.
    pub(crate) fn for_ci() -> Self {
        Self { check: true, allow_other_toolchain: true }
    }
}

pub(crate) fn run(project: &Project, args: &Args) -> Result<ExitCode> {
    let toolchain = Toolchain::find(project)?;
    if args.check {
        return check(project, &toolchain, args.allow_other_toolchain);
    }
    let built = build(project, &toolchain)?;
    let record = Provenance {
        sources: hash_sources(&project.root)?,
        object: sha256(&built.bytes),
        toolchain: toolchain.record(),
    };
    write(&project.package().join(OBJECT), &built.bytes)?;
    write(&project.package().join(RECORD), record.to_string().as_bytes())?;
    eprintln!("wrote dropwatch/{OBJECT}, {} bytes, and dropwatch/{RECORD}", built.bytes.len());
    Ok(ExitCode::SUCCESS)
}

fn check(project: &Project, toolchain: &Toolchain, allow_other: bool) -> Result<ExitCode> {
    let shipped = provenance::read(&project.package().join(OBJECT))?;
    let record = provenance::read(&project.package().join(RECORD))?;
    let record: Provenance = String::from_utf8_lossy(&record)
        .parse()
        .map_err(|error| anyhow::anyhow!("dropwatch/{RECORD} {error}"))?;

    let found = differences(
        &record,
        &hash_sources(&project.root)?,
        &sha256(&shipped),
        &toolchain.record(),
        allow_other,
    );
    if !found.is_empty() {
        bail!("{}", found.join("\n       "));
    }
    let built = build(project, toolchain)?;
    if built.bytes == shipped {
        eprintln!("dropwatch/{OBJECT} is what the sources give, byte for byte");
        return Ok(ExitCode::SUCCESS);
    }
    if record.toolchain == toolchain.record() {
        bail!(
            "dropwatch/{OBJECT} is not what the sources give: shipped {} bytes, rebuilt {}, {}",
            shipped.len(),
            built.bytes.len(),
            first_difference(&shipped, &built.bytes)
        );
    }
    eprintln!(
        "the other toolchain gives another object ({}); its worth must be shown by the host tests: \
         running them on the rebuilt object",
        built.path.display()
    );
    test::host_alone(project, &built.path)
}

/// What keeps the shipped object from being checked, one line each.
fn differences(
    record: &Provenance,
    sources: &str,
    object: &str,
    toolchain: &provenance::Toolchain,
    allow_other_toolchain: bool,
) -> Vec<String> {
    let mut found = Vec::new();
    if record.sources != sources {
        found.push(
            "sources: dropwatch-ebpf or dropwatch-common changed since the object was built; run \
             `cargo xtask build-ebpf`"
                .to_owned(),
        );
    }
    if record.object != object {
        found.push(format!(
            "object: dropwatch/{OBJECT} is not the one that dropwatch/{RECORD} describes; run \
             `cargo xtask build-ebpf`"
        ));
    }
    if !allow_other_toolchain {
        let pairs = record.toolchain.entries().into_iter().zip(toolchain.entries());
        found.extend(pairs.filter(|(recorded, here)| recorded != here).map(
            |((name, recorded), (_, here))| {
                format!(
                    "toolchain: {name} is `{here}` here, `{recorded}` in the record; install that \
                     one, or pass --allow-other-toolchain"
                )
            },
        ));
    }
    found
}

fn first_difference(a: &[u8], b: &[u8]) -> String {
    match a.iter().zip(b).position(|(a, b)| a != b) {
        Some(offset) => format!("first difference at byte {offset}"),
        None => "the one begins like the other".to_owned(),
    }
}

struct Built {
    path: PathBuf,
    bytes: Vec<u8>,
}

fn build(project: &Project, toolchain: &Toolchain) -> Result<Built> {
    // Cargo does not see a new linker, so the last step is never taken from an earlier build.
    let cargo = || command(project, toolchain, &toolchain.beside("cargo"));
    let mut clean = cargo();
    clean.args(["clean", "--quiet", "--package", "dropwatch-ebpf"]);
    clean.args(arguments(project, toolchain)).check()?;
    let mut cargo = cargo();
    cargo.arg("build").args(arguments(project, toolchain));
    cargo.check()?;

    let path = target(project).join(TARGET).join("release/dropwatch");
    let bytes = provenance::read(&path)?;
    let paths = [Some(project.root.clone()), cargo_home()];
    let paths: Vec<_> =
        paths.into_iter().flatten().map(|path| path.display().to_string()).collect();
    object::check(&bytes, &paths).with_context(|| format!("{} cannot ship", path.display()))?;
    Ok(Built { path, bytes })
}

/// Clippy over the kernel side; false where the toolchain has none.
pub(crate) fn clippy(project: &Project) -> Result<bool> {
    let toolchain = Toolchain::find(project)?;
    let clippy = toolchain.beside("cargo-clippy");
    if !clippy.exists() || !toolchain.beside("clippy-driver").exists() {
        return Ok(false);
    }
    let mut cargo = command(project, &toolchain, &clippy);
    cargo.env("CARGO", toolchain.beside("cargo"));
    cargo.arg("clippy").args(arguments(project, &toolchain)).args(["--", "-D", "warnings"]);
    cargo.check()?;
    Ok(true)
}

/// `program` (the toolchain's cargo, or its clippy) in the kernel side's folder, with an
/// environment that makes its output the same everywhere.
fn command(project: &Project, toolchain: &Toolchain, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(project.ebpf());
    for (name, _) in env::vars_os() {
        if changes_the_object(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    let mut flags = vec![format!("--remap-path-prefix={}=/dropwatch", project.root.display())];
    if let Some(home) = cargo_home() {
        flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
    }
    flags.extend(["-Clink-arg=-O3".to_owned(), "-Cdebuginfo=0".to_owned()]);
    command
        .env("RUSTC", &toolchain.rustc.path)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker.path)
        .env("CARGO_INCREMENTAL", "0");
    if !toolchain.rustc.nightly {
        // aya-ebpf enables an unstable feature, `asm_experimental_arch`.
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    command
}

/// What a user may have set for other builds.
fn changes_the_object(name: &str) -> bool {
    ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_BPFEL"].iter().any(|p| name.starts_with(p))
        || ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTUP_TOOLCHAIN"]
            .contains(&name)
}

fn arguments(project: &Project, toolchain: &Toolchain) -> Vec<String> {
    let mut arguments: Vec<_> =
        ["--locked", "--release", "--target", TARGET, "--target-dir"].map(str::to_owned).into();
    arguments.push(target(project).display().to_string());
    if toolchain.core == Core::Source {
        arguments.extend(["-Z", "build-std=core"].map(str::to_owned));
    }
    arguments
}

fn target(project: &Project) -> PathBuf {
    project.target().join("ebpf")
}

/// Whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, bytes)
        .and_then(|()| fs::rename(&unfinished, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Provenance {
        Provenance {
            sources: "s".into(),
            object: "o".into(),
            toolchain: provenance::Toolchain {
                rustc: "rustc 1.96.0 (ac68faa20 2026-05-25)".into(),
                cargo: "cargo 1.96.0".into(),
                bpf_linker: "0.13.0".into(),
                llvm: "22.1.8".into(),
            },
        }
    }

    #[test]
    fn what_differs_is_named() {
        let record = record();
        let same = record.toolchain.clone();
        let other = provenance::Toolchain { llvm: "23.1.0".into(), ..same.clone() };
        assert!(differences(&record, "s", "o", &same, false).is_empty());
        assert!(differences(&record, "s", "o", &other, true).is_empty());
        let all = differences(&record, "S", "O", &other, false);
        assert_eq!(all.len(), 3);
        assert!(all[0].starts_with("sources: "));
        assert!(all[1].starts_with("object: "));
        assert!(all[2].starts_with("toolchain: llvm is `23.1.0` here, `22.1.8` in the record"));
        assert_eq!(differences(&record, "S", "o", &other, true).len(), 1);
    }

    #[test]
    fn the_environment_of_other_builds_is_dropped() {
        assert!(changes_the_object("CARGO_PROFILE_RELEASE_OPT_LEVEL"));
        assert!(changes_the_object("RUSTFLAGS"));
        assert!(!changes_the_object("CARGO_HOME"));
        assert!(!changes_the_object("CARGO_TARGET_DIR"));
    }
}
