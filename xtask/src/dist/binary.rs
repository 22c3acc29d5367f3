//! The static binary.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use object::{
    Endianness, FileKind,
    elf::{FileHeader64, PT_DYNAMIC, PT_INTERP},
    read::elf::{Dyn, FileHeader, ProgramHeader},
};

use super::{
    NAME,
    epoch::{Epoch, VARIABLE},
};
use crate::{
    process::CommandExt,
    project::{Project, cargo, cargo_home},
};

/// A static binary, checked.
pub(super) struct Binary {
    pub(super) path: PathBuf,
    /// `x86_64-unknown-linux-gnu`
    pub(super) target: String,
}

impl Binary {
    /// Builds it below `target`, apart from other builds: its flags are not theirs.
    ///
    /// # Errors
    /// When it does not build, needs a loader or libraries, or tells where it was built.
    pub(super) fn build(project: &Project, target: &Path, epoch: Epoch) -> Result<Self> {
        let host = host()?;
        eprintln!("==> static binary for {host} (minutes)");
        let cargo_home = cargo_home().unwrap_or_default();
        // The order counts: the last prefix that fits wins.
        let places = [
            (&cargo_home, "/cargo"),
            (&project.root, "/dropwatch"),
            (&target.to_owned(), "/target"),
        ];
        let mut flags = vec![OsString::from("-Ctarget-feature=+crt-static")];
        for (from, to) in places {
            let mut flag = OsString::from("--remap-path-prefix=");
            flag.push(from);
            flag.push(format!("={to}"));
            flags.push(flag);
        }
        let mut command = Command::new(cargo());
        command.current_dir(&project.root);
        command.args(["build", "--release", "--locked", "--package", NAME]);
        // Named, even though it is the host's: otherwise the flags would hold for build scripts
        // and procedural macros, too, and those cannot be static.
        command.args(["--target", &host, "--target-dir"]).arg(target);
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f".as_ref()));
        command.env(VARIABLE, epoch.seconds().to_string());
        command.check()?;

        let path = target.join(&host).join("release").join(NAME);
        let data = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let secret: Vec<String> = [&cargo_home, &project.root, target]
            .iter()
            .map(|path| path.to_string_lossy().into_owned())
            .collect();
        check(&data, &secret).with_context(|| path.display().to_string())?;
        Ok(Self { path, target: host })
    }
}

/// Refuses what needs anything of the system that it runs on, is not stripped, or has one of the
/// paths `forbidden` in it.
fn check(data: &[u8], forbidden: &[String]) -> Result<()> {
    ensure!(FileKind::parse(data).is_ok_and(|kind| kind == FileKind::Elf64), "not a 64-bit ELF");
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    for segment in header.program_headers(endian, data)? {
        ensure!(segment.p_type(endian) != PT_INTERP, "not static: it asks for a loader");
        if segment.p_type(endian) == PT_DYNAMIC {
            let needed = object::elf::DT_NEEDED;
            let entries = segment.dynamic(endian, data)?.unwrap_or_default();
            let libraries = entries.iter().any(|entry| entry.d_tag(endian) == needed);
            ensure!(!libraries, "not static: it needs libraries");
        }
    }
    let sections = header.sections(endian, data)?;
    for section in sections.iter() {
        let name = String::from_utf8_lossy(sections.section_name(endian, section)?);
        ensure!(!name.starts_with(".debug") && name != ".symtab", "section {name}: not stripped");
    }
    for path in forbidden.iter().filter(|path| !path.is_empty()) {
        let found = data.windows(path.len()).any(|window| window == path.as_bytes());
        ensure!(!found, "contains the path {path}: it would differ from machine to machine");
    }
    Ok(())
}

/// The target that rustc builds for unless asked for another.
fn host() -> Result<String> {
    let printed = Command::new(cargo()).args(["--version", "--verbose"]).read()?;
    let host = printed.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("cargo does not tell the host's target")?;
    if !host.ends_with("-linux-gnu") {
        bail!("{host} is not a GNU/Linux target; packages are built for that alone");
    }
    Ok(host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_static_or_not_stripped_is_refused() {
        // This program: dynamic, with its symbols.
        let own = fs::read("/proc/self/exe").unwrap();
        let error = check(&own, &[]).unwrap_err().to_string();
        assert!(error.contains("not static"), "{error}");
        for (data, why) in [(&b""[..], "not a 64-bit ELF"), (b"#!/bin/sh\n", "not a 64-bit ELF")] {
            assert_eq!(check(data, &[]).unwrap_err().to_string(), why);
        }
        // A cut-off file must not panic.
        for length in [17, 64, 100, 1000] {
            assert!(check(&own[..length], &[]).is_err());
        }
    }
}
