//! Which compiler and linker can build the kernel side.
//!
//! Facts are gathered by asking every compiler and linker on the machine ([`Facts::gather`]); the
//! choice among them is a pure function ([`choose`]), whose refusals say what each one lacks.

use std::{
    collections::HashSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{
    process::CommandExt,
    project::{Project, path_folders},
    provenance, setup,
    version::Version,
};

pub(crate) const TARGET: &str = "bpfel-unknown-none";
/// The oldest compiler that builds the kernel side, as the workspace's `rust-version`.
const MIN_RUSTC: Version = Version::new(1, 88, 0);
/// The linker's release line (major, minor): its output is compared byte for byte.
const LINKER_LINE: (u32, u32) = (0, 13);

/// One compiler of this machine.
#[derive(Clone, Debug)]
pub(crate) struct Rustc {
    pub(crate) path: PathBuf,
    /// First line of `rustc -Vv`.
    pub(crate) name: String,
    pub(crate) version: Version,
    pub(crate) llvm: Version,
    pub(crate) nightly: bool,
    /// A cargo in the same folder, and how it names its version.
    pub(crate) cargo: Option<String>,
    /// `core` for the BPF target, prebuilt (Debian: libstd-rust-web-dev-bpf).
    pub(crate) bpf_core: bool,
    /// The sources of `core` (rustup's component rust-src).
    pub(crate) source: bool,
}

/// One bpf-linker of this machine.
#[derive(Clone, Debug)]
pub(crate) struct Linker {
    pub(crate) path: PathBuf,
    pub(crate) version: Version,
    /// The LLVM it generates code with; it cannot read what a later one wrote.
    pub(crate) llvm: Version,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) rustcs: Vec<Rustc>,
    /// In order of preference.
    pub(crate) linkers: Vec<Linker>,
}

/// Where the BPF target's `core` comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Core {
    Shipped,
    /// Built along with the program, `-Z build-std=core`.
    Source,
}

#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    pub(crate) rustc: Rustc,
    pub(crate) core: Core,
    pub(crate) linker: Linker,
}

impl Toolchain {
    pub(crate) fn find(project: &Project) -> Result<Self> {
        choose(&Facts::gather(project))
            .map_err(|missing| anyhow::anyhow!("{missing}; run `cargo xtask setup`"))
    }

    /// A program in the compiler's folder.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.rustc.path.with_file_name(name)
    }

    pub(crate) fn record(&self) -> provenance::Toolchain {
        provenance::Toolchain {
            rustc: self.rustc.name.clone(),
            cargo: self.rustc.cargo.clone().unwrap_or_default(),
            bpf_linker: self.linker.version.to_string(),
            llvm: self.linker.llvm.to_string(),
        }
    }
}

/// The first compiler that ships `core` for the target, else the first nightly that can build it;
/// and the first linker that understands that compiler. Errors say what is missing, and why each
/// candidate was refused.
pub(crate) fn choose(facts: &Facts) -> Result<Toolchain, String> {
    let (rustc, core) = choose_rustc(&facts.rustcs)?;
    let linker = choose_linker(&facts.linkers, rustc.llvm)?;
    Ok(Toolchain { rustc: rustc.clone(), core, linker: linker.clone() })
}

pub(crate) fn choose_rustc(rustcs: &[Rustc]) -> Result<(&Rustc, Core), String> {
    let usable = || rustcs.iter().filter(|r| r.cargo.is_some() && r.version >= MIN_RUSTC);
    let shipped = usable().find(|r| r.bpf_core).map(|r| (r, Core::Shipped));
    let source = || usable().find(|r| r.nightly && r.source).map(|r| (r, Core::Source));
    shipped.or_else(source).ok_or_else(|| {
        let refused = rustcs.iter().map(|r| {
            let lack = if r.version < MIN_RUSTC {
                format!("older than {MIN_RUSTC}")
            } else if r.cargo.is_none() {
                "no cargo beside it".to_owned()
            } else if r.nightly {
                "no `core` for the target, no rust-src to build it from".to_owned()
            } else {
                "no `core` for the target".to_owned()
            };
            format!("{} ({}): {lack}", r.path.display(), r.version)
        });
        list(format!("no Rust compiler here can build for {TARGET}"), refused)
    })
}

pub(crate) fn choose_linker(linkers: &[Linker], rustc_llvm: Version) -> Result<&Linker, String> {
    let right_line = |l: &&Linker| (l.version.major, l.version.minor) == LINKER_LINE;
    // LLVM reads the bitcode of its own major version and of older ones.
    let reads = |l: &&Linker| l.llvm.major >= rustc_llvm.major;
    linkers.iter().find(|l| right_line(l) && reads(l)).ok_or_else(|| {
        let (major, minor) = LINKER_LINE;
        let missing = format!("no bpf-linker {major}.{minor} with LLVM {} here", rustc_llvm.major);
        let refused = linkers
            .iter()
            .map(|l| format!("{} is {} with LLVM {}", l.path.display(), l.version, l.llvm));
        list(missing, refused)
    })
}

fn list(head: String, items: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = items.collect();
    if items.is_empty() { head } else { format!("{head} ({})", items.join("; ")) }
}

impl Facts {
    pub(crate) fn gather(project: &Project) -> Self {
        let linkers = std::iter::once(project.tools().join("bin"))
            .chain(path_folders())
            .map(|folder| folder.join("bpf-linker"));
        Self {
            rustcs: unique(rustc_paths()).iter().filter_map(|path| ask_rustc(path)).collect(),
            linkers: unique(linkers).iter().filter_map(|path| ask_linker(path)).collect(),
        }
    }
}

/// Every compiler on PATH, and every toolchain of rustup's.
fn rustc_paths() -> impl Iterator<Item = PathBuf> {
    let rustup = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".rustup")));
    let mut toolchains: Vec<_> = rustup
        .and_then(|home| fs::read_dir(home.join("toolchains")).ok())
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    // The pinned nightly before others.
    toolchains.sort_by_key(|path| {
        let pinned = path.to_string_lossy().contains(setup::NIGHTLY);
        (!pinned, path.clone())
    });
    path_folders().into_iter().chain(toolchains).map(|folder| folder.join("rustc"))
}

/// Existing files, each once; rustup's proxies are not compilers.
fn unique(paths: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    paths
        .filter(|path| match path.canonicalize() {
            Ok(real) => real.file_name() != Some("rustup".as_ref()) && seen.insert(real),
            Err(_) => false,
        })
        .collect()
}

fn ask_rustc(path: &Path) -> Option<Rustc> {
    let verbose = Command::new(path).arg("-Vv").read().ok()?;
    let target = ["--print", "sysroot", "--print", "target-libdir", "--target", TARGET];
    let places = Command::new(path).args(target).read().unwrap_or_default();
    let mut places = places.lines().map(PathBuf::from);
    let (sysroot, libdir) = (places.next(), places.next());
    let name = verbose.lines().next()?.to_owned();
    let llvm = verbose.lines().find_map(|line| line.strip_prefix("LLVM version:"))?;
    Some(Rustc {
        path: path.to_owned(),
        version: Version::find(&name)?,
        llvm: Version::find(llvm)?,
        nightly: name.contains("-nightly") || name.contains("-dev"),
        cargo: Command::new(path.with_file_name("cargo"))
            .arg("--version")
            .read()
            .ok()
            .map(|line| line.trim().to_owned()),
        bpf_core: libdir.is_some_and(|folder| has_core(&folder)),
        source: sysroot.is_some_and(|root| {
            root.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file()
        }),
        name,
    })
}

fn has_core(libdir: &Path) -> bool {
    fs::read_dir(libdir).into_iter().flatten().flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libcore-") && name.ends_with(".rlib")
    })
}

fn ask_linker(path: &Path) -> Option<Linker> {
    let version = Command::new(path).arg("--version").read().ok()?;
    // `--version` says nothing of LLVM, but LLVM has an option of its own that does.
    let llvm = Command::new(path)
        .args(["--llvm-args=--version", "--target=bpfel", "--output=/dev/null", "/dev/null"])
        .read()
        .ok()?;
    Some(Linker {
        path: path.to_owned(),
        version: Version::find(&version)?,
        llvm: Version::find(&llvm)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rustc(path: &str, version: Version) -> Rustc {
        Rustc {
            path: path.into(),
            name: format!("rustc {version}"),
            version,
            llvm: Version::new(22, 1, 2),
            nightly: false,
            cargo: Some(format!("cargo {version}")),
            bpf_core: false,
            source: false,
        }
    }

    fn linker(version: Version, llvm: u32) -> Linker {
        Linker { path: "/t/bpf-linker".into(), version, llvm: Version::new(llvm, 1, 0) }
    }

    const STABLE: Version = Version::new(1, 95, 0);

    #[test]
    fn a_shipped_core_is_preferred_to_a_nightly() {
        let nightly = Rustc { nightly: true, source: true, ..rustc("/n/rustc", STABLE) };
        let shipped = Rustc { bpf_core: true, ..rustc("/usr/bin/rustc", STABLE) };
        let all = [rustc("/s/rustc", STABLE), nightly.clone(), shipped];
        let (chosen, core) = choose_rustc(&all).unwrap();
        assert_eq!((chosen.path.to_str(), core), (Some("/usr/bin/rustc"), Core::Shipped));
        let (chosen, core) = choose_rustc(&all[..2]).unwrap();
        assert_eq!((chosen.path.to_str(), core), (Some("/n/rustc"), Core::Source));
    }

    #[test]
    fn refusals_name_each_compiler_and_its_lack() {
        let all = [
            rustc("/s/rustc", STABLE),
            Rustc { nightly: true, ..rustc("/n/rustc", STABLE) },
            Rustc { bpf_core: true, cargo: None, ..rustc("/c/rustc", STABLE) },
            Rustc { bpf_core: true, ..rustc("/o/rustc", Version::new(1, 63, 0)) },
            // Sources are of no use to a compiler that refuses unstable options.
            Rustc { source: true, ..rustc("/x/rustc", STABLE) },
        ];
        assert_eq!(
            choose_rustc(&all).unwrap_err(),
            "no Rust compiler here can build for bpfel-unknown-none \
             (/s/rustc (1.95.0): no `core` for the target; \
             /n/rustc (1.95.0): no `core` for the target, no rust-src to build it from; \
             /c/rustc (1.95.0): no cargo beside it; \
             /o/rustc (1.63.0): older than 1.88.0; \
             /x/rustc (1.95.0): no `core` for the target)"
        );
        assert_eq!(
            choose_rustc(&[]).unwrap_err(),
            "no Rust compiler here can build for bpfel-unknown-none"
        );
    }

    #[test]
    fn a_linker_needs_the_release_line_and_an_llvm_that_reads_the_compilers() {
        let llvm = Version::new(22, 1, 8);
        let good = linker(Version::new(0, 13, 1), 22);
        let all = [linker(Version::new(0, 12, 0), 23), linker(Version::new(0, 13, 0), 21), good];
        assert_eq!(choose_linker(&all, llvm).unwrap().version, Version::new(0, 13, 1));
        assert_eq!(
            choose_linker(&all[..2], llvm).unwrap_err(),
            "no bpf-linker 0.13 with LLVM 22 here (/t/bpf-linker is 0.12.0 with LLVM 23.1.0; \
             /t/bpf-linker is 0.13.0 with LLVM 21.1.0)"
        );
    }

    #[test]
    fn both_are_needed() {
        let shipped = Rustc { bpf_core: true, ..rustc("/usr/bin/rustc", STABLE) };
        let mut facts = Facts { rustcs: vec![shipped], linkers: vec![] };
        assert_eq!(choose(&facts).unwrap_err(), "no bpf-linker 0.13 with LLVM 22 here");
        facts.linkers.push(linker(Version::new(0, 13, 0), 22));
        let record = choose(&facts).unwrap().record();
        assert_eq!((&*record.cargo, &*record.llvm), ("cargo 1.95.0", "22.1.0"));
    }
}
