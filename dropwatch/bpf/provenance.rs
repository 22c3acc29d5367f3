//! What the kernel object beside this file was built from, and how to tell whether it still is.
//!
//! One piece of code for its two users, which include it by path: `cargo xtask build-ebpf` writes
//! the record, `build.rs` refuses to build when the sources have moved on. Sources are hashed byte
//! for byte; the kernel side builds on Linux only, so line endings are never rewritten.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use sha2::{Digest, Sha256};

/// The object and its record, relative to the `dropwatch` package.
pub(crate) const OBJECT: &str = "bpf/dropwatch.bpf.o";
pub(crate) const RECORD: &str = "bpf/provenance.toml";

/// What goes into the object, relative to the repository: files, and folders of Rust sources.
pub(crate) const SOURCES: [&str; 5] = [
    "dropwatch-common/Cargo.toml",
    "dropwatch-common/src",
    "dropwatch-ebpf/Cargo.lock",
    "dropwatch-ebpf/Cargo.toml",
    "dropwatch-ebpf/src",
];

/// The record of one build of the kernel object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Provenance {
    /// SHA-256 over [`SOURCES`], see [`hash_sources`].
    pub(crate) sources: String,
    /// SHA-256 of the object.
    pub(crate) object: String,
    pub(crate) toolchain: Toolchain,
}

/// Whatever has a say in the bytes of the object, as each program names its own version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    pub(crate) rustc: String,
    /// Cargo too: it derives the identity of every crate, and with it the names of symbols.
    pub(crate) cargo: String,
    pub(crate) bpf_linker: String,
    /// The LLVM that the linker generates code with.
    pub(crate) llvm: String,
}

impl Toolchain {
    /// Names and values, in the order of the record.
    pub(crate) fn entries(&self) -> [(&'static str, &str); 4] {
        [
            ("rustc", &self.rustc),
            ("cargo", &self.cargo),
            ("bpf_linker", &self.bpf_linker),
            ("llvm", &self.llvm),
        ]
    }
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Written by `cargo xtask build-ebpf`, checked by dropwatch/build.rs.")?;
        writeln!(f, "sources_sha256 = \"{}\"", self.sources)?;
        writeln!(f, "object_sha256 = \"{}\"", self.object)?;
        for (name, value) in self.toolchain.entries() {
            writeln!(f, "{name} = \"{value}\"")?;
        }
        Ok(())
    }
}

impl FromStr for Provenance {
    type Err = String;

    /// Reads what [`fmt::Display`] writes: a flat TOML of plain strings.
    fn from_str(text: &str) -> Result<Self, String> {
        let value = |name: &str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find(|(key, _)| key.trim() == name)
                .and_then(|(_, value)| value.trim().strip_prefix('"')?.strip_suffix('"'))
                .map(str::to_owned)
                .ok_or_else(|| format!("has no line `{name} = \"…\"`"))
        };
        Ok(Self {
            sources: value("sources_sha256")?,
            object: value("object_sha256")?,
            toolchain: Toolchain {
                rustc: value("rustc")?,
                cargo: value("cargo")?,
                bpf_linker: value("bpf_linker")?,
                llvm: value("llvm")?,
            },
        })
    }
}

/// SHA-256 in lower-case hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).as_slice())
}

/// SHA-256 over every source file below `root`, the repository: for each, in order of its relative
/// path, that path, a zero byte, the length (64 bits, little endian) and the content.
pub(crate) fn hash_sources(root: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(root, Path::new(source), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let content = read(&root.join(&file))?;
        hash.update(file.to_string_lossy().as_bytes());
        hash.update([0]);
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(content);
    }
    Ok(hex(hash.finalize().as_slice()))
}

/// Adds `path` if it is a file, or the `.rs` files below it: an editor's own files do not count.
fn collect(root: &Path, path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let full = root.join(path);
    if !full.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(&full).map_err(|error| named(&full, &error))? {
        let entry = entry?;
        let name = path.join(entry.file_name());
        if entry.file_type()?.is_dir() || name.extension().is_some_and(|ext| ext == "rs") {
            collect(root, &name, files)?;
        }
    }
    Ok(())
}

/// Reads a file; the error names it.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| named(path, &error))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Provenance {
        Provenance {
            sources: "s".into(),
            object: "o".into(),
            toolchain: Toolchain {
                rustc: "rustc 1.96.0 (ac68faa20 2026-05-25)".into(),
                cargo: "cargo 1.96.0".into(),
                bpf_linker: "0.13.0".into(),
                llvm: "22.1.8".into(),
            },
        }
    }

    #[test]
    fn the_record_survives_writing_and_reading() {
        let text = record().to_string();
        assert_eq!(text.parse(), Ok(record()));
        let cut = text.replace("llvm", "lvm");
        assert_eq!(cut.parse::<Provenance>().unwrap_err(), "has no line `llvm = \"…\"`");
    }

    #[test]
    fn the_hash_covers_names_and_contents_of_sources_only() {
        let root = std::env::temp_dir().join(format!("xtask-hash-{}", std::process::id()));
        let file = |name: &str, content: &str| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        for folder in ["dropwatch-common", "dropwatch-ebpf"] {
            file(&format!("{folder}/Cargo.toml"), "[package]");
            file(&format!("{folder}/src/main.rs"), "fn main() {}");
        }
        file("dropwatch-ebpf/Cargo.lock", "");
        let first = hash_sources(&root).unwrap();
        assert_eq!(first.len(), 64);
        file("dropwatch-ebpf/src/.main.rs.swp", "an editor's");
        assert_eq!(hash_sources(&root).unwrap(), first);
        file("dropwatch-ebpf/src/deep/more.rs", "");
        let second = hash_sources(&root).unwrap();
        assert_ne!(second, first);
        fs::rename(
            root.join("dropwatch-ebpf/src/deep/more.rs"),
            root.join("dropwatch-ebpf/src/deep/most.rs"),
        )
        .unwrap();
        let third = hash_sources(&root).unwrap();
        assert_ne!(third, second);
        file("dropwatch-ebpf/Cargo.lock", "x");
        assert_ne!(hash_sources(&root).unwrap(), third);
        fs::remove_file(root.join("dropwatch-ebpf/Cargo.lock")).unwrap();
        let error = hash_sources(&root).unwrap_err().to_string();
        assert!(error.contains("dropwatch-ebpf/Cargo.lock"), "{error}");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_known_digest() {
        assert_eq!(
            sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
