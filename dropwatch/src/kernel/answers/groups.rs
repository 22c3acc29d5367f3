//! Programs of control groups that decide over packets (`cgroup_bpf_prog_query`, kernel/bpf/cgroup.c).
//!
//! Those of a process are the ones of its own group and of the groups above, as far as the kernel says
//! that they are in effect there. Where the process is gone, all groups are looked at.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
};

use super::HostToAsk;
use crate::{
    kernel::{
        HostRoot, Process,
        bpf::{self, AttachedTo},
        clean,
    },
    report::{
        device::{GroupHook, GroupProgram},
        question::Unanswered,
    },
};

/// Most groups looked at.
const MOST: usize = 2048;
/// Most bytes read of the list of mounts.
const MAX_MOUNTS: u64 = 1 << 20;

pub(super) fn ask(host: &HostToAsk, hook: &GroupHook) -> Result<Vec<GroupProgram>, Unanswered> {
    let top = mounted(&host.root).ok_or(Unanswered::Failed)?;
    let found = match hook.pid {
        Some(pid) => {
            let process = Process::read(&host.root, pid).ok_or(Unanswered::Gone)?;
            above(&top, process.cgroup.as_deref().unwrap_or("/"), hook.egress)
        }
        None => everywhere(&top, hook.egress),
    };
    found.map_err(|error| super::unanswered(&error))
}

/// Programs in effect in the group at `path`, each with the group that it is attached to.
fn above(top: &Path, path: &str, egress: bool) -> io::Result<Vec<GroupProgram>> {
    let own = top.join(path.trim_start_matches('/'));
    let folder = File::open(&own)?;
    let effective = bpf::attached(&AttachedTo::Group { folder: &folder, effective: true }, egress)?;
    let mut found = Vec::new();
    for folder in own.ancestors().take_while(|folder| folder.starts_with(top)) {
        found.extend(attached(top, folder, egress)?);
    }
    found.retain(|it| effective.contains(&it.program.id));
    Ok(found)
}

/// Every program of every group, as far as groups may be looked at.
fn everywhere(top: &Path, egress: bool) -> io::Result<Vec<GroupProgram>> {
    let mut found = attached(top, top, egress)?;
    let (mut left, mut seen) = (vec![top.to_owned()], 0);
    let mut met = BTreeSet::new();
    while let Some(folder) = left.pop() {
        for entry in folder.read_dir().into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            seen += 1;
            // An answer that leaves some out would be taken for all there is.
            if seen > MOST {
                return Err(io::ErrorKind::Other.into());
            }
            let path = entry.path();
            found.extend(attached(top, &path, egress).unwrap_or_default());
            left.push(path);
        }
    }
    found.retain(|it| met.insert((it.folder.clone(), it.program.id)));
    Ok(found)
}

/// Programs that are attached to one group itself.
fn attached(top: &Path, folder: &Path, egress: bool) -> io::Result<Vec<GroupProgram>> {
    let file = File::open(folder)?;
    let ids = bpf::attached(&AttachedTo::Group { folder: &file, effective: false }, egress)?;
    let below = folder.strip_prefix(top).unwrap_or(folder);
    let group = clean(&Path::new("/").join(below).to_string_lossy());
    let of = |id| GroupProgram {
        group: group.clone(),
        folder: folder.to_string_lossy().into_owned(),
        program: bpf::program(id),
    };
    Ok(ids.into_iter().map(of).collect())
}

/// Where the hierarchy of control groups is mounted that has programs (version 2).
fn mounted(root: &HostRoot) -> Option<PathBuf> {
    let mounts = BufReader::new(root.open("proc/self/mountinfo").ok()?.take(MAX_MOUNTS));
    mounts.lines().map_while(Result::ok).find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let path = mount.split(' ').nth(4)?;
        let is_whole = mount.split(' ').nth(3) == Some("/");
        // Names with blanks are escaped there; no distribution has such.
        (kind.starts_with("cgroup2 ") && is_whole && !path.contains('\\'))
            .then(|| root.path(path.trim_start_matches('/')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::processes::fixture::FakeHost;

    #[test]
    fn the_unified_hierarchy_is_found_wherever_it_is() {
        let host = FakeHost::new();
        assert_eq!(mounted(&host.root()), None);
        host.write(
            "proc/self/mountinfo",
            "30 1 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
             31 30 0:27 /sub /mnt rw - cgroup2 cgroup2 rw\n\
             32 30 0:27 / /sys/fs/cgroup/unified rw shared:2 - cgroup2 cgroup2 rw\n",
        );
        assert_eq!(mounted(&host.root()), Some(host.root().path("sys/fs/cgroup/unified")));
    }
}
