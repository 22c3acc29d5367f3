//! Programs and the shared libraries that they load.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::cpio::Cpio;
use crate::process::CommandExt;

/// Adds a program of this machine at its own path, with its libraries at theirs. One that is
/// unpacked below `root` comes to where it would have been installed.
pub(super) fn add_program(cpio: &mut Cpio, path: &Path, root: Option<&Path>) -> Result<()> {
    cpio.copy(&installed(path, root), path)?;
    for library in libraries(path, root)? {
        cpio.copy(&installed(&library, root), &library)?;
    }
    Ok(())
}

/// The path of a file in a guest.
pub(super) fn installed(path: &Path, root: Option<&Path>) -> String {
    let below = root.and_then(|root| path.strip_prefix(root).ok());
    below.map_or_else(|| path.to_string_lossy().into(), |path| format!("/{}", path.display()))
}

/// Adds a program that is unpacked below `root` as `name`. Libraries that came with it go into
/// `NAME.lib`, where LD_LIBRARY_PATH finds them; those of this machine serve for the rest.
pub(super) fn add_program_of(cpio: &mut Cpio, path: &Path, name: &str, root: &Path) -> Result<()> {
    cpio.copy(name, path)?;
    for library in libraries(path, Some(root))? {
        match (library.starts_with(root), library.file_name()) {
            (true, Some(file)) => {
                cpio.copy(&format!("{name}.lib/{}", file.to_string_lossy()), &library)?;
            }
            _ => cpio.copy(&library.to_string_lossy(), &library)?,
        }
    }
    Ok(())
}

/// All libraries, the loader included, as ldd(1) finds them.
fn libraries(path: &Path, root: Option<&Path>) -> Result<Vec<PathBuf>> {
    let mut command = Command::new("ldd");
    command.arg(path);
    if let Some(root) = root {
        let folders = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
        let folders = folders.map(|folder| root.join(folder).display().to_string());
        command.env("LD_LIBRARY_PATH", folders.join(":"));
    }
    let text = command.read()?;
    parse(&text).with_context(|| format!("libraries of {}", path.display()))
}

/// `NAME => PATH (ADDRESS)`, `PATH (ADDRESS)` for the loader, `NAME (ADDRESS)` for what the kernel
/// itself maps.
fn parse(text: &str) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for line in text.lines().map(str::trim) {
        let path = line.split_once(" => ").map_or(line, |(_, path)| path);
        if path == "not found" {
            bail!("{line}");
        }
        if let Some(path) = path.split(" (").next().filter(|path| path.starts_with('/')) {
            paths.push(path.into());
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unpacked_comes_to_where_it_belongs() {
        let (root, path) = (Path::new("/t/unpacked/x"), Path::new("/t/unpacked/x/usr/bin/x"));
        assert_eq!(installed(path, Some(root)), "/usr/bin/x");
        assert_eq!(installed(Path::new("/lib/libc.so.6"), Some(root)), "/lib/libc.so.6");
        assert_eq!(installed(path, None), "/t/unpacked/x/usr/bin/x");
    }

    #[test]
    fn ldd_lines() {
        let text = "\tlinux-vdso.so.1 (0x7ffd)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x7f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        let paths = parse(text).unwrap();
        assert_eq!(
            paths,
            [Path::new("/lib/x/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]
        );
        assert!(parse("\tlibnl-3.so.200 => not found\n").is_err());
    }
}
