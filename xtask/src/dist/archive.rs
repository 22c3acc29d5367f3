//! Files that are the same bytes each time: the tar.gz, what is compressed, the sums.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::{NAME, THIRD_PARTY, VERSION, binary::Binary, epoch::Epoch};
use crate::{process::CommandExt, project::Project};

/// Text files of the project that go along.
const TEXTS: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// Packs the binary with what belongs to it, for any distribution.
pub(super) fn build(
    project: &Project,
    binary: &Binary,
    work: &Path,
    folder: &Path,
    epoch: Epoch,
) -> Result<PathBuf> {
    let top = format!("{NAME}-{VERSION}-{}", binary.target);
    eprintln!("==> {top}.tar.gz");
    let tree = work.join("tar");
    let root = tree.join(&top);
    let pages = work.join("pages").join(NAME);
    place(&binary.path, &root.join("bin").join(NAME), 0o755)?;
    for (from, to) in [("man1", "share/man/man1"), ("completions", "completions")] {
        for file in files(&pages.join(from))? {
            place(&file.path, &root.join(to).join(&file.name), 0o644)?;
        }
    }
    for text in TEXTS {
        place(&project.root.join(text), &root.join(text), 0o644)?;
    }
    place(&work.join(THIRD_PARTY), &root.join(THIRD_PARTY), 0o644)?;
    for below in ["docs", "packaging"] {
        tree_of(&project.root.join(below), &root.join(below))?;
    }
    let mut tar = Command::new("tar");
    tar.current_dir(&tree).env("LC_ALL", "C");
    tar.args(["--create", "--format=gnu", "--sort=name", "--owner=0", "--group=0"]);
    tar.args(["--numeric-owner", "--mode=go=rX,u=rwX"]);
    tar.arg(format!("--mtime=@{}", epoch.seconds()));
    let output = folder.join(format!("{top}.tar"));
    tar.arg("--file").arg(&output).arg(&top).check()?;
    gzip(&output)?;
    Ok(output.with_extension("tar.gz"))
}

/// Copies the files of a folder and of those in it.
fn tree_of(from: &Path, to: &Path) -> Result<()> {
    for Entry { name, path } in files(from)? {
        let to = to.join(name);
        if path.is_dir() {
            tree_of(&path, &to)?;
        } else {
            place(&path, &to, 0o644)?;
        }
    }
    Ok(())
}

/// Writes `SHA256SUMS` into `folder`, as sha256sum(1) checks it.
pub(super) fn sums(files: &[PathBuf], folder: &Path) -> Result<PathBuf> {
    let mut text = String::new();
    for path in files {
        let data = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        text += &sum(&data, &name);
    }
    let path = folder.join("SHA256SUMS");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn sum(data: &[u8], name: &str) -> String {
    let hex: String = Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}  {name}\n")
}

/// A file of a folder.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) path: PathBuf,
}

/// The files of a folder, by name.
pub(super) fn files(folder: &Path) -> Result<Vec<Entry>> {
    let listed = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()));
    let mut found = Vec::new();
    for entry in listed? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        found.push(Entry { name, path: entry.path() });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Makes `folder` anew, empty.
pub(super) fn empty(folder: &Path) -> Result<()> {
    let error = || format!("cannot make the folder {} anew", folder.display());
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(error)?;
    }
    fs::create_dir_all(folder).with_context(error)
}

/// Copies a file, with its folders. The mode is set, whatever the umask is.
pub(super) fn place(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let data = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    write(to, &data, mode)
}

/// Writes a file, with its folders. The mode is set, whatever the umask is.
pub(super) fn write(path: &Path, data: &[u8], mode: u32) -> Result<()> {
    let error = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(error)?;
    }
    fs::write(path, data).with_context(error)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(error)
}

/// Gives all folders below and including `folder` the mode that they have where they are installed,
/// whatever the umask is.
pub(super) fn folders(folder: &Path) -> Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    for entry in files(folder)?.iter().filter(|entry| entry.path.is_dir()) {
        folders(&entry.path)?;
    }
    Ok(())
}

/// Puts `PATH.gz` in the place of a file: as small as gzip gets it, without name and time in it.
pub(super) fn gzip(path: &Path) -> Result<()> {
    Command::new("gzip").args(["-9n", "--force"]).arg(path).check()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_sha256sum() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sum(b"", "a.deb"), format!("{empty}  a.deb\n"));
    }

    #[test]
    fn gzip_has_neither_name_nor_time() {
        let path = std::env::temp_dir().join(format!("xtask-gzip-{}", std::process::id()));
        fs::write(&path, vec![7; 1 << 20]).unwrap();
        gzip(&path).unwrap();
        assert!(!path.exists());
        let path = path.with_extension("gz");
        let packed = fs::read(&path).unwrap();
        fs::remove_file(path).unwrap();
        // RFC 1952: magic, deflate, no flags, no time, slowest.
        assert_eq!(packed[..9], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2]);
        assert!(packed.len() < 1 << 12);
    }
}
