//! Where a host's files are opened: `/`, or a folder that looks like one.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::clean;

pub(crate) const KALLSYMS: &str = "proc/kallsyms";
pub(crate) const MODULES: &str = "proc/modules";
pub(crate) const OSRELEASE: &str = "proc/sys/kernel/osrelease";
pub(crate) const HOSTNAME: &str = "proc/sys/kernel/hostname";
pub(crate) const KPTR_RESTRICT: &str = "proc/sys/kernel/kptr_restrict";
pub(crate) const PERF_EVENT_PARANOID: &str = "proc/sys/kernel/perf_event_paranoid";
pub(crate) const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";
pub(crate) const BPF_JIT_KALLSYMS: &str = "proc/sys/net/core/bpf_jit_kallsyms";

const BTF: &str = "sys/kernel/btf";
const VMLINUX: &str = "vmlinux";
/// Mount points of tracefs: its own since Linux 4.1, below debugfs before and still.
const TRACEFS: [&str; 2] = ["sys/kernel/tracing", "sys/kernel/debug/tracing"];

/// Longest single value read by [`HostRoot::read_word`], bytes.
const MAX_WORD: u64 = 4096;
/// Largest BTF read, bytes: ten times that of a distribution kernel.
const MAX_BTF: u64 = 64 << 20;
/// Largest tracefs event description read, bytes: a hundred times today's.
const MAX_FORMAT: u64 = 1 << 20;
/// Most module BTF files looked at.
const MAX_BTF_MODULES: usize = 4096;

/// Root folder of a host's files.
#[derive(Clone, Debug)]
pub struct HostRoot(PathBuf);

impl Default for HostRoot {
    /// The running host.
    fn default() -> Self {
        Self::new("/")
    }
}

/// Where tracefs is, if anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tracefs {
    Mounted(PathBuf),
    NotMounted,
    /// Mounted, or perhaps mounted, at `path`, and closed to this process.
    Unreadable {
        path: PathBuf,
        error: String,
    },
}

impl HostRoot {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// Full path of `path`, which is relative to the root.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.join(path)
    }

    /// Opens a file for reading.
    pub(crate) fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        File::open(self.path(path))
    }

    /// A file's single value, trimmed and cleaned of control characters.
    pub(crate) fn read_word(&self, path: impl AsRef<Path>) -> io::Result<String> {
        let bytes = read_bounded(self.open(path)?, MAX_WORD)?;
        Ok(clean(String::from_utf8_lossy(&bytes).trim()))
    }

    /// A setting by its name, `net.ipv4.ip_forward`, or `net/ipv4/conf/eth0.100/rp_filter` where
    /// dots are to stay; its values separated by single spaces; of the network namespace of the
    /// calling thread.
    pub fn sysctl(&self, name: &str) -> io::Result<String> {
        let name = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
        let file = self.open(Path::new("proc/sys").join(name))?;
        let bytes = read_bounded(file, MAX_WORD)?;
        let values = String::from_utf8_lossy(&bytes);
        Ok(clean(&values.split_whitespace().collect::<Vec<_>>().join(" ")))
    }

    /// A file's single number; `None` where it is absent, unreadable or not a number.
    pub(crate) fn read_number(&self, path: impl AsRef<Path>) -> Option<u32> {
        self.read_word(path).ok()?.parse().ok()
    }

    /// The kernel's own type information (Linux 4.18 with `CONFIG_DEBUG_INFO_BTF`). The file is
    /// readable by everyone.
    pub fn vmlinux_btf(&self) -> io::Result<Vec<u8>> {
        self.module_btf(VMLINUX)
    }

    /// Type information of one loaded module (Linux 5.11), split from the kernel's own.
    pub fn module_btf(&self, module: &str) -> io::Result<Vec<u8>> {
        read_bounded(self.open(Path::new(BTF).join(module))?, MAX_BTF)
    }

    /// Names of the loaded modules that have type information, sorted.
    pub fn btf_modules(&self) -> io::Result<Vec<String>> {
        let mut modules: Vec<String> = self
            .path(BTF)
            .read_dir()?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name != VMLINUX)
            .take(MAX_BTF_MODULES)
            .collect();
        modules.sort_unstable();
        Ok(modules)
    }

    /// Where tracefs is mounted. Mounts nothing.
    pub fn tracefs(&self) -> Tracefs {
        for path in TRACEFS.map(|path| self.path(path)) {
            match path.join("events").symlink_metadata() {
                Ok(_) => return Tracefs::Mounted(path),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Tracefs::Unreadable { path, error: error.to_string() };
                }
                Err(_) => {}
            }
        }
        Tracefs::NotMounted
    }

    /// Description of the event `skb:kfree_skb` in the tracefs mounted at `tracefs`.
    pub fn kfree_skb_format(&self, tracefs: &Path) -> io::Result<Vec<u8>> {
        read_bounded(File::open(tracefs.join("events/skb/kfree_skb/format"))?, MAX_FORMAT)
    }
}

/// The whole of `reader`; an error where it holds more than `limit` bytes.
fn read_bounded(mut reader: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.by_ref().take(limit).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == limit && reader.read(&mut [0])? != 0 {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than {limit} bytes"),
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_bounded() {
        assert_eq!(read_bounded(&b"abc"[..], 3).unwrap(), b"abc");
        let error = read_bounded(&b"abcd"[..], 3).unwrap_err();
        assert_eq!(error.to_string(), "larger than 3 bytes");
    }
}
