//! Network namespaces that are named after the process that made them, and removed with it.
//!
//! The name is `dwt-<pid>-<n>-<label>`: a namespace whose process is gone is a leftover of a
//! killed run, and the next run removes it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::{
    command::{die_with_parent, output},
    undo::Undo,
};

/// Where `ip netns` keeps its namespaces.
const FOLDER: &str = "/run/netns";
const PREFIX: &str = "dwt-";

/// A network namespace with its loopback link up.
#[derive(Debug)]
pub struct Netns {
    name: String,
    _undo: Undo,
}

impl Netns {
    /// Makes an empty namespace; `label` is there for people who look at `ip netns`.
    ///
    /// Links added later have no IPv6: address configuration and multicast reports would send
    /// frames of their own, which the links would count.
    ///
    /// # Errors
    /// Without root or `ip`, and when interrupted.
    pub fn new(label: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        crate::need_root()?;
        SWEEP.call_once(remove_leftovers);

        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{n}-{label}", std::process::id());
        let undo = {
            let name = name.clone();
            Undo::new(move || remove(&name))?
        };
        output(Command::new("ip").args(["netns", "add", &name]))?;
        let netns = Self { name, _undo: undo };
        netns.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// `program`, to be run inside, with a `/sys` that shows this namespace's links.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        die_with_parent(&mut command);
        command
    }

    /// Runs `ip` on this namespace; `arguments` are split at white space.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        output(Command::new("ip").args(["-n", &self.name]).args(arguments.split_whitespace()))
    }

    /// Runs `work` on a thread of its own inside the namespace.
    ///
    /// On such a thread `/proc/net` still shows the main thread's namespace and `/sys/class/net`
    /// the mount's: read `/proc/thread-self/net` and `/proc/sys/net` instead.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        Self::enter_path(&self.path(), work)
    }

    /// As [`Netns::enter`], by the file that stands for the namespace.
    pub(crate) fn enter_path<T: Send>(
        path: &Path,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let file = File::open(path)
                        .with_context(|| format!("cannot open {}", path.display()))?;
                    // A namespace of a thread; the other threads of the process stay outside.
                    setns(file, CloneFlags::CLONE_NEWNET)
                        .with_context(|| format!("cannot enter {}", path.display()))?;
                    work()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Writes a setting of this namespace; `key` is a path below `/proc/sys`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.enter(|| {
            let path = Path::new("/proc/sys").join(key);
            fs::write(&path, value)
                .with_context(|| format!("cannot write {value} to {}", path.display()))
        })
    }

    /// Reads a file of `/proc/<thread>/net`, such as `snmp`.
    pub fn proc_net(&self, file: &str) -> Result<String> {
        self.enter(|| {
            let path = Path::new("/proc/thread-self/net").join(file);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        })
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }
}

fn remove(name: &str) -> Result<()> {
    if !Path::new(FOLDER).join(name).exists() {
        return Ok(());
    }
    output(Command::new("ip").args(["netns", "del", name])).map(drop)
}

/// Removes namespaces whose process no longer exists. Their processes died with it
/// ([`die_with_parent`]), their links go with the namespace.
///
/// The first namespace that a process makes does this by itself.
pub fn remove_leftovers() {
    let Ok(entries) = fs::read_dir(FOLDER) else {
        return; // no namespace was ever made
    };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let Some(pid) = owner(&name) else { continue };
        // One that has ended and that nobody has waited for, as in containers without an init, is
        // still there, but has no program.
        if fs::read_link(format!("/proc/{pid}/exe")).is_ok() {
            continue;
        }
        // Two runs may sweep at once: gone is as good as removed.
        if let Err(error) = remove(&name) {
            eprintln!("testbed: {}", anyhow!(error).context("a leftover namespace stays"));
        }
    }
}

/// Whether this process has made the namespace of this name.
pub(crate) fn is_own(name: &str) -> bool {
    owner(name) == Some(std::process::id())
}

/// Names of the namespaces that this process has made and not removed yet.
///
/// # Errors
/// When they cannot be listed.
pub(crate) fn own() -> Result<Vec<String>> {
    let entries = fs::read_dir(FOLDER).with_context(|| format!("cannot list {FOLDER}"))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut own: Vec<String> = names.filter(|name| is_own(name)).collect();
    own.sort_unstable();
    Ok(own)
}

/// The process that made the namespace, or `None` when it is not one of ours.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_is_read_from_own_names_only() {
        assert_eq!(owner("dwt-42-0-web"), Some(42));
        assert_eq!(owner("dwt-x-0-web"), None);
        assert_eq!(owner("web"), None);
        assert_eq!(owner("42-dwt-0"), None);
    }
}
