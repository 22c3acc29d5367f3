//! How much memory the kernel's allocator takes for one tracked connection.

use std::io::Read;

use super::super::{HostRoot, lines::for_each_line};

/// Allocator's own name for the cache (`nf_conntrack_init_start`,
/// net/netfilter/nf_conntrack_core.c).
const CACHE: &str = "nf_conntrack";
const SLABINFO: &str = "proc/slabinfo";
/// Longest line of `/proc/slabinfo` that is looked at, and most of the file, bytes.
const MAX_LINE: usize = 512;
const MAX_FILE: u64 = 1 << 20;

/// Bytes of one object with its padding; `None` where the host does not say.
///
/// Both files are for root alone: `slab_size` where the allocator shows itself in sysfs (Linux
/// with `CONFIG_SLUB` and `CONFIG_SYSFS`), else `/proc/slabinfo`.
pub(super) fn object_bytes(root: &HostRoot) -> Option<u64> {
    let sysfs = root.read_number(format!("sys/kernel/slab/{CACHE}/slab_size")).map(u64::from);
    sysfs.or_else(|| slabinfo(root.open(SLABINFO).ok()?)).filter(|bytes| *bytes > 0)
}

/// `nf_conntrack   128   192   256   16   1 : tunables …`: name, active and all objects, size.
fn slabinfo(file: impl Read) -> Option<u64> {
    let mut found = None;
    for_each_line(file.take(MAX_FILE), MAX_LINE, |line| {
        let line = String::from_utf8_lossy(line);
        let mut fields = line.split_ascii_whitespace();
        if found.is_none() && fields.next() == Some(CACHE) {
            found = fields.nth(2).and_then(|size| size.parse().ok());
        }
    })
    .ok()?;
    found
}

#[cfg(test)]
mod tests {
    use super::{super::super::processes::fixture::FakeHost, *};

    const SLABINFO_TEXT: &str = "slabinfo - version: 2.1\n\
        # name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>\n\
        nf_conntrack_expect      0      0    208   19    1 : tunables    0    0    0\n\
        nf_conntrack         128    192    320   16    1 : tunables    0    0    0\n";

    #[test]
    fn sysfs_first_then_slabinfo_then_unknown() {
        let host = FakeHost::new();
        assert_eq!(object_bytes(&host.root()), None);
        host.write("proc/slabinfo", SLABINFO_TEXT);
        assert_eq!(object_bytes(&host.root()), Some(320));
        host.write("sys/kernel/slab/nf_conntrack/slab_size", "256\n");
        assert_eq!(object_bytes(&host.root()), Some(256));
        host.write("sys/kernel/slab/nf_conntrack/slab_size", "0\n");
        assert_eq!(object_bytes(&host.root()), None, "nothing takes no room");
        assert_eq!(slabinfo(&b"nf_conntrack 1\n"[..]), None);
    }
}
