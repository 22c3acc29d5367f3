//! What tracefs tells of `skb:kfree_skb`: an oracle that dropwatch has no part in.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Where the kernel has a mount point for tracefs (Linux 4.1), and where it is below debugfs. Programs
/// look for it here.
const USUAL: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The event, below tracefs.
const EVENT: &str = "events/skb/kfree_skb";

/// The tracepoint as the kernel describes it.
#[derive(Clone, Debug)]
pub struct Tracepoint {
    /// The number that perf knows it by.
    pub id: u64,
    /// Its fields, and the names of the reasons.
    format: String,
}

impl Tracepoint {
    /// Reads it from the tracefs that is mounted, wherever that is. Where none is, a thread of its
    /// own mounts one that nothing else sees, and that ends with it.
    ///
    /// # Errors
    /// Without tracefs in the kernel, or without root.
    pub fn read() -> Result<Self> {
        if let Some(tracefs) = mounted()?.first() {
            return Self::read_from(tracefs);
        }
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    mount_private()?;
                    Self::read_from(Path::new(USUAL[0]))
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn read_from(tracefs: &Path) -> Result<Self> {
        let read = |file: &str| {
            let path = tracefs.join(EVENT).join(file);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let id = read("id")?.trim().parse().context("tracepoint id")?;
        Ok(Self { id, format: read("format")? })
    }

    /// Whether drops have a reason on this kernel.
    pub fn has_reasons(&self) -> bool {
        self.format.contains("reason;")
    }

    /// Whether drops tell the socket that was to receive them (Linux 6.11).
    pub fn has_receiver(&self) -> bool {
        self.format.contains("rx_sk;")
    }

    /// Finds `{ 8, "NETFILTER_DROP" }` in the format's list of reasons.
    pub fn reason_number(&self, reason: &str) -> Option<u32> {
        let before = self.format.split_once(&format!(", \"{reason}\" }}"))?.0;
        before.rsplit_once("{ ")?.1.parse().ok()
    }
}

/// Sees to it that the calling thread, and programs that it starts, find tracefs in one of its usual
/// places. Where it is in neither, the thread gets a mount namespace of its own with tracefs in it.
///
/// # Errors
/// Without root, or tracefs in the kernel.
pub fn provide_tracefs() -> Result<()> {
    let found = mounted()?;
    if found.iter().any(|path| USUAL.iter().any(|usual| path == Path::new(usual))) {
        return Ok(());
    }
    mount_private()
}

fn mount_private() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("cannot make mounts private")?;
    mount(Some("tracefs"), USUAL[0], Some("tracefs"), MsFlags::empty(), none)
        .context("cannot mount tracefs")
}

/// Where tracefs is mounted and shows the event. A mount may lie below another one, which hides it.
fn mounted() -> Result<Vec<PathBuf>> {
    // Of the thread, which may have a mount namespace of its own.
    let path = "/proc/thread-self/mounts";
    let mounts = fs::read(path).with_context(|| format!("cannot read {path}"))?;
    Ok(tracefs_in(&mounts).filter(|path| path.join(EVENT).join("format").is_file()).collect())
}

/// The mount points of tracefs in a list of mounts (proc(5)): device, mount point, type, options.
fn tracefs_in(mounts: &[u8]) -> impl Iterator<Item = PathBuf> {
    mounts.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let (_device, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == b"tracefs").then(|| OsString::from_vec(unescaped(point)).into())
    })
}

/// White space and backslashes in mount points are `\` and three octal digits (`mangle()`,
/// fs/proc_namespace.c).
fn unescaped(mut field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let [first, rest @ ..] = field {
        let octal = rest
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(*first));
        field = if octal.is_some() { &rest[3..] } else { rest };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracepoint(format: &str) -> Tracepoint {
        Tracepoint { id: 1, format: format.into() }
    }

    #[test]
    fn tracefs_is_found_wherever_it_is_mounted() {
        let mounts = b"proc /proc proc rw 0 0\n\
            tracefs /sys/kernel/debug/tracing tracefs rw,nosuid 0 0\n\
            tracefs /tmp/tracefs tmpfs rw 0 0\n\
            none /mnt/a\\040b\\134 tracefs rw 0 0\n\
            broken\n";
        let found: Vec<PathBuf> = tracefs_in(mounts).collect();
        assert_eq!(found, [Path::new("/sys/kernel/debug/tracing"), Path::new("/mnt/a b\\")]);
        assert_eq!(unescaped(b"a\\04"), b"a\\04", "cut short");
    }

    #[test]
    fn reasons_are_numbered_by_the_kernels_own_list() {
        let with = tracepoint(
            "\tfield:enum skb_drop_reason reason;\toffset:28;\n\
             print fmt: \"%s\", __print_symbolic(REC->reason, { 2, \"NOT_SPECIFIED\" }, { 8, \"NETFILTER_DROP\" })",
        );
        assert!(with.has_reasons());
        assert_eq!(with.reason_number("NETFILTER_DROP"), Some(8));
        assert_eq!(with.reason_number("NETFILTER"), None);
        let without = tracepoint("\tfield:unsigned short protocol;\toffset:24;\n");
        assert!(!without.has_reasons());
        assert_eq!(without.reason_number("NETFILTER_DROP"), None);
    }
}
