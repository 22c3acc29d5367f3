//! Where things are.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// The repository at hand.
pub(crate) struct Project {
    pub(crate) root: PathBuf,
    /// The dropwatch to be tested, where there is one already: static, so good for guests, too.
    pub(crate) packaged: Option<PathBuf>,
}

impl Project {
    /// Cargo tells where this package is, when it runs it as well as when it built it.
    pub(crate) fn find() -> Result<Self> {
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package.parent().context("xtask has no folder above it")?;
        Ok(Self { root: root.to_owned(), packaged: None })
    }

    pub(crate) fn package(&self) -> PathBuf {
        self.root.join("dropwatch")
    }

    pub(crate) fn ebpf(&self) -> PathBuf {
        self.root.join("dropwatch-ebpf")
    }

    /// The project's own tools; `DROPWATCH_TOOLS` puts them elsewhere, for instance where a CI
    /// machine keeps them between runs.
    pub(crate) fn tools(&self) -> PathBuf {
        env::var_os("DROPWATCH_TOOLS")
            .filter(|path| !path.is_empty())
            .map_or_else(|| self.root.join(".tools"), |path| absolute(path.into()))
    }

    pub(crate) fn target(&self) -> PathBuf {
        env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| self.root.join("target"), |path| absolute(path.into()))
    }
}

/// The cargo that runs this program, or the one on PATH.
pub(crate) fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Cargo's own folder, where it keeps what it fetched; nothing where nobody has a home.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    let named = env::var_os("CARGO_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    named.or_else(|| env::home_dir().map(|home| home.join(".cargo")))
}

/// The folders of PATH, those where distributions keep what root runs, and last the one for what
/// could not be installed.
pub(crate) fn path_folders() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from);
    let own = Project::find().map(|project| project.tools().join("bin"));
    env::split_paths(&path).chain(system).chain(own).collect()
}

pub(crate) fn find_command(name: &str) -> Option<PathBuf> {
    path_folders().into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

pub(crate) fn is_root() -> bool {
    // Effective user of this process, `Uid:` line of proc_pid_status(5): real, effective, …
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        uids.and_then(|uids| uids.split_whitespace().nth(1)) == Some("0")
    })
}

/// As seen from the current folder, since cargo is started in others.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(Path::new(&path)).unwrap_or(path)
}
