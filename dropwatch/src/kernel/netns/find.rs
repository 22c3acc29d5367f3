//! From what people call a network namespace to its number.

use std::{
    fs::OpenOptions,
    io::{self, ErrorKind},
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use dropwatch_common::{self as common, NO_COOKIE};

use super::{
    CONTAINER, HOST, Namespaces, link,
    mounted::{FOLDERS, mounted},
};
use crate::{
    kernel::{HostRoot, inside},
    report::{
        near::{did_you_mean, near},
        shell::can_be_typed,
    },
};

/// Why a name is no network namespace's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfound {
    /// There is nothing of that name.
    #[error(
        "there is no network namespace {name}{alike}{} there are {known}; for a process or a \
         container use /proc/PID/ns/net",
        if alike.is_empty() { ":" } else { "" }
    )]
    Absent {
        name: String,
        /// The names that look like it, as a question; empty where none does.
        alike: String,
        /// Some that there are, with commas between them.
        known: String,
    },
    /// No namespace can ever have that name.
    #[error("no network namespace can have that name: {0}")]
    Impossible(&'static str),
    /// A path leads to something else than a namespace.
    #[error("{path} is no namespace")]
    NoNamespace { path: String },
    /// A path leads to a namespace of another kind, or to one that does not say.
    #[error("{path} is no network namespace: {cause}")]
    OtherKind { path: String, cause: String },
    #[error("cannot look at {path}: {cause}")]
    Unreadable { path: String, cause: String },
    /// The namespace exists, but neither a mount nor a process leads into it.
    #[error("there is no way into the network namespace {name}")]
    NoWayIn { name: String },
}

impl Namespaces {
    /// The inode number of the namespace that people call `name`: `host`, a mounted name, a path
    /// such as `/proc/812/ns/net`, or the number itself.
    ///
    /// # Errors
    /// There is no such namespace; the error names those that there are.
    pub fn find(&mut self, name: &str) -> Result<u32, Unfound> {
        if name == HOST
            && let Some(host) = self.host
        {
            return Ok(host);
        }
        if name == CONTAINER
            && let Some(container) = self.container
        {
            return Ok(container);
        }
        if name.contains('/') {
            match Path::new(name).metadata() {
                Ok(file) if nsfs(&self.root).is_some_and(|nsfs| nsfs == file.dev()) => {
                    return network(Path::new(name)).map_err(|error| Unfound::OtherKind {
                        path: name.to_owned(),
                        cause: error.to_string(),
                    });
                }
                Ok(_) => return Err(Unfound::NoNamespace { path: name.to_owned() }),
                // A name such as `docker/1a2b3c4d5e6f` is no path.
                Err(error) if is_absent(&error) => {}
                Err(error) => {
                    let (path, cause) = (name.to_owned(), error.to_string());
                    return Err(Unfound::Unreadable { path, cause });
                }
            }
        }
        let mounted = self.now.mounted.get_or_insert_with(|| mounted(&self.root));
        let is_called = |called: &str| mounted.iter().find(|(_, mounted)| mounted.name == called);
        // One that is called by its path, as its name is a word of the reports, has that name all the
        // same; what is proved to have such a name itself was found above.
        let by_path =
            || FOLDERS.iter().find_map(|(folder, _)| is_called(&format!("/{folder}/{name}")));
        let is_own = [HOST, CONTAINER].contains(&name);
        if let Some((inum, _)) = is_called(name).or_else(|| by_path().filter(|_| !is_own)) {
            return Ok(*inum);
        }
        if let Some(why) = impossible(name) {
            return Err(Unfound::Impossible(why));
        }
        name.parse().map_err(|_| {
            let mut names: Vec<_> = mounted.values().map(|mounted| mounted.name.as_str()).collect();
            names.retain(|name| can_be_typed(name));
            names.sort_unstable();
            let alike = did_you_mean(&near(name, names.iter().copied()));
            names.truncate(10);
            let first = if self.host.is_some() { HOST } else { CONTAINER };
            let known = [&[first], names.as_slice()].concat().join(", ");
            Unfound::Absent { name: name.to_owned(), alike, known }
        })
    }
}

/// Returns the inode number of the namespace that is mounted by that name, or is at that path, at
/// this moment. Nothing that was read earlier is used.
pub fn netns_named(root: &HostRoot, name: &str) -> Option<u32> {
    netns_file(root, name).map(|file| file.inum)
}

/// The file of the network namespace that is called so at this moment; see [`netns_named`].
pub fn netns_file(root: &HostRoot, name: &str) -> Option<NetnsFile> {
    let nsfs = nsfs(root)?;
    if name.contains('/')
        && let Some(file) = NetnsFile::at(nsfs, Path::new(name))
    {
        return Some(file);
    }
    FOLDERS.iter().find_map(|(folder, prefix)| {
        let name = name.strip_prefix(prefix)?;
        let is_name = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
        NetnsFile::at(nsfs, &root.path(folder).join(name)).filter(|_| is_name)
    })
}

/// A file that stands for a network namespace. Those of two namespaces differ, even where the younger one
/// has got the number of the other: its inode is made anew, and has the time of that (`nsfs_init_inode`,
/// `__ns_get_path` before Linux 6.9, fs/nsfs.c).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetnsFile {
    path: PathBuf,
    pub inum: u32,
    /// Seconds and nanoseconds.
    made: (i64, i64),
}

impl NetnsFile {
    fn at(nsfs: u64, path: &Path) -> Option<Self> {
        let inum = network_of(nsfs, path)?;
        let file = path.metadata().ok()?;
        let made = (file.ctime(), file.ctime_nsec());
        (file.ino() == u64::from(inum)).then(|| Self { path: path.to_owned(), inum, made })
    }

    /// The namespace, with its cookie where it can be entered and the kernel has cookies.
    pub fn netns(&self) -> common::Netns {
        let cookie = inside::inside(&self.path, self.inum, || Ok(inside::cookie()));
        let cookie = cookie.ok().flatten().unwrap_or(NO_COOKIE);
        common::Netns { inum: self.inum, cookie }
    }
}

/// The inode number of the network namespace whose file is at `path` at this moment.
pub(super) fn network_at(root: &HostRoot, path: &Path) -> Option<u32> {
    network_of(nsfs(root)?, path)
}

fn network_of(nsfs: u64, path: &Path) -> Option<u32> {
    path.metadata().ok().filter(|file| file.dev() == nsfs)?;
    network(path).ok()
}

/// Number of the file system that namespaces are files of.
fn nsfs(root: &HostRoot) -> Option<u64> {
    Some(root.path(link("self")).metadata().ok()?.dev())
}

/// Why no namespace will ever be mounted by `name`, or be at that path. Paths from the root may come to
/// lead somewhere; how long they may be is the kernel's to say.
fn impossible(name: &str) -> Option<&'static str> {
    /// Bytes of a file's name (`NAME_MAX`, include/uapi/linux/limits.h).
    const LONGEST: usize = 255;
    if name.starts_with('/') {
        return None;
    }
    let is_kind = |(_, prefix): &(&str, &str)| !prefix.is_empty() && name.starts_with(prefix);
    let prefix = FOLDERS.iter().find(|folder| is_kind(folder)).map_or("", |(_, prefix)| *prefix);
    match &name[prefix.len()..] {
        "" | "." | ".." => Some("it stands for a folder"),
        name if name.contains('/') => Some("a slash is part of none; a path begins with one"),
        name if name.len() > LONGEST => Some("it is longer than the name of a file may be"),
        _ => None,
    }
}

/// The short name of a namespace that may be called by the path that it is mounted at:
/// `/run/netns/gw` is `gw`.
pub fn short_name(name: &str) -> String {
    let short = FOLDERS.iter().find_map(|(folder, prefix)| {
        let name = name.strip_prefix('/')?.strip_prefix(folder)?.strip_prefix('/')?;
        Some(format!("{prefix}{name}"))
    });
    short.unwrap_or_else(|| name.to_owned())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The inode number of the network namespace at `path`, which is to be a file in nsfs: namespaces of
/// all other kinds are, too.
fn network(path: &Path) -> io::Result<u32> {
    /// `_IO(0xb7, 3)` of include/uapi/linux/nsfs.h, since Linux 4.11.
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // Opened without blocking, since opening a pipe in its place would wait for a writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    // SAFETY: no pointers, and the descriptor is open.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
    match kind {
        -1 => Err(io::Error::last_os_error()),
        libc::CLONE_NEWNET => u32::try_from(file.metadata()?.ino()).map_err(io::Error::other),
        _ => Err(io::Error::other("it is one of another kind")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_file_can_have_are_told_apart() {
        let longest = "x".repeat(255);
        for name in ["gw", "...", "a b", "docker/1a2b", "/run/netns/gw", "/a/../b", "7", &longest] {
            assert_eq!(impossible(name), None, "{name}");
        }
        let longer = "x".repeat(256);
        for name in [
            "../../etc",
            "./gw",
            "a/b",
            "gw/",
            ".",
            "..",
            "",
            "docker/",
            "docker/a/b",
            "docker/..",
            &longer,
        ] {
            assert!(impossible(name).is_some(), "{name}");
        }
    }

    #[test]
    fn a_path_of_a_name_is_that_name() {
        for (called, name) in [
            ("/run/netns/gw", "gw"),
            ("/var/run/netns/gw", "gw"),
            ("/run/docker/netns/1a2b", "docker/1a2b"),
            ("gw", "gw"),
            ("run/netns/gw", "run/netns/gw"),
            ("/proc/812/ns/net", "/proc/812/ns/net"),
        ] {
            assert_eq!(short_name(called), name);
        }
    }
}
