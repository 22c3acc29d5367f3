//! Control groups that systemd-nspawn makes below this process's own, and leaves there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::checks::read;

/// What it calls them (`src/nspawn/nspawn-cgroup.c`).
const NAMES: [&str; 2] = ["payload", "supervisor"];

/// Removes those that are not there yet.
///
/// # Errors
/// When this process's control groups cannot be read.
pub(super) fn remover() -> Result<impl FnOnce() -> Result<()> + Send + 'static> {
    let folders = own(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?);
    let new = folders.iter().flat_map(|folder| NAMES.map(|name| folder.join(name)));
    let new: Vec<PathBuf> = new.filter(|path| !path.exists()).collect();
    Ok(move || {
        new.iter().for_each(|path| remove(path));
        Ok(())
    })
}

/// Removes a group and those in it. The kernel refuses where a process is in one, and rightly so.
fn remove(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _busy = fs::remove_dir(path);
}

/// The folders of the process's groups, by cgroups(7) `/proc/PID/cgroup` (`ID:CONTROLLERS:PATH`) and
/// proc_pid_mountinfo(5): fields 4 and 5 are the root within the hierarchy and the mount point; after
/// a dash come type, source and options.
fn own(groups: &str, mounts: &str) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for group in groups.lines() {
        let mut fields = group.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let mount = mounts.lines().find_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut fields = before.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            let mut kind = after.split(' ');
            let (name, options) = (kind.next()?, kind.nth(1)?);
            let fits = match controllers {
                "" => name == "cgroup2",
                _ => name == "cgroup" && options.split(',').any(|option| option == controllers),
            };
            fits.then_some((root, point))
        });
        if let Some((root, point)) = mount {
            let below = path.strip_prefix(root).unwrap_or(path).trim_start_matches('/');
            folders.push(Path::new(point).join(below));
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_where_they_are_mounted() {
        let mounts = "\
25 24 0:22 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
26 24 0:23 / /sys/fs/cgroup/systemd rw,relatime shared:5 - cgroup cgroup rw,name=systemd
27 24 0:24 /box /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
        let groups = "9:name=systemd:/a\n1:memory:/\n0::/box/b\nnonsense\n";
        let found = own(groups, mounts);
        assert_eq!(
            found,
            [Path::new("/sys/fs/cgroup/systemd/a"), Path::new("/sys/fs/cgroup/unified/b")]
        );
    }
}
