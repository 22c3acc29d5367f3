//! Network namespaces that a file stands for, and what they are called after it.

use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{CONTAINER, HOST, link};
use crate::{
    kernel::{HostRoot, clean},
    report::totals::{OTHER, UNKNOWN},
};

/// Folders in which namespaces are mounted, and what is put before their names: those of
/// `ip netns` and of container runtimes that follow it (containerd, CRI-O), and Docker's.
pub(super) const FOLDERS: [(&str, &str); 4] = [
    ("run/netns", ""),
    ("var/run/netns", ""),
    ("run/docker/netns", "docker/"),
    ("var/run/docker/netns", "docker/"),
];
/// Most files looked at in one folder.
const MAX_MOUNTED: usize = 16 << 10;

/// A namespace that something keeps mounted.
pub(super) struct Mounted {
    pub(super) name: String,
    pub(super) path: PathBuf,
}

/// Every mounted namespace by its number; of several names the first in the order of the folders
/// and the alphabet.
pub(super) fn mounted(root: &HostRoot) -> HashMap<u32, Mounted> {
    let mut found = HashMap::new();
    // All of nsfs is one device. A file on another one is what a mount left behind, and its inode
    // number means nothing.
    let Ok(nsfs) = root.path(link("self")).metadata().map(|file| file.dev()) else {
        return found;
    };
    for (folder, prefix) in FOLDERS {
        for path in files(&root.path(folder)) {
            let Some(inum) = path.metadata().ok().filter(|file| file.dev() == nsfs) else {
                continue;
            };
            let (Ok(inum), Some(name)) = (inum.ino().try_into(), path.file_name()) else {
                continue;
            };
            let name = format!("{prefix}{}", clean(&name.to_string_lossy()));
            let name = unlike_words(folder, name);
            found.entry(inum).or_insert(Mounted { name, path });
        }
    }
    found
}

/// The name of what is mounted in `folder`, or its path where the name is one that dropwatch itself gives
/// to another namespace, or to what is of none: two things would be called so.
pub(super) fn unlike_words(folder: &str, name: String) -> String {
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    let is_numbered = name.strip_prefix("netns ").is_some_and(is_number);
    let is_process = || {
        let pid = name.strip_suffix(')').and_then(|name| name.rsplit_once(" (pid "));
        pid.is_some_and(|(_, pid)| is_number(pid))
    };
    let is_taken = [HOST, CONTAINER, UNKNOWN, OTHER].contains(&name.as_str());
    match is_taken || is_numbered || is_process() {
        true => format!("/{folder}/{name}"),
        false => name,
    }
}

/// The files of a folder in alphabetical order; none where it cannot be read.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let mut files: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).take(MAX_MOUNTED).collect();
    files.sort_unstable();
    files
}
