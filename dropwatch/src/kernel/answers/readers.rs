//! Which processes have a tap or tun device open: the ones whose descriptor of `/dev/net/tun` names it
//! (`tun_chr_show_fdinfo`, drivers/net/tun.c: `iff:<tab>tap8`).
//!
//! Names are of one namespace, and a process may have a device of another one than its own. So where
//! processes of several namespaces have a device of that name, those of the device's namespace count.

use std::{
    fs::File,
    io::Read as _,
    path::Path,
    time::{Duration, Instant},
};

use super::HostToAsk;
use crate::{
    kernel::{
        HostRoot, Process, clean, interfaces,
        processes::{self, read_link},
    },
    report::{facts::Owner, question::Unanswered},
};

/// How long processes are looked at; a report does not wait any longer for all of its answers.
const PATIENCE: Duration = Duration::from_millis(80);
/// Most bytes read of a `fdinfo`: a few lines.
const MAX_INFO: u64 = 4096;

pub(super) fn ask(host: &HostToAsk, index: u32) -> Result<Vec<Owner>, Unanswered> {
    let name = interfaces::name(index).ok_or(Unanswered::Failed)?;
    readers(&host.root, &name, host.inum, Instant::now() + PATIENCE)
}

fn readers(
    root: &HostRoot,
    device: &str,
    netns: u32,
    deadline: Instant,
) -> Result<Vec<Owner>, Unanswered> {
    let mut found: Vec<(bool, Owner)> = Vec::new();
    for pid in processes::pids(root) {
        if Instant::now() > deadline {
            return Err(Unanswered::TooLate);
        }
        let folder = root.path(format!("proc/{pid}"));
        if has_open(&folder, device)
            && let Some(Process { comm, pid, cgroup }) = Process::read(root, pid)
        {
            let lives = read_link(&folder.join("ns/net"), "net").ok().flatten();
            found.push((lives == Some(netns.into()), Owner { comm, pid, cgroup }));
        }
    }
    let here = found.iter().any(|(here, _)| *here);
    if !here && found.len() > 1 {
        return Err(Unanswered::Failed);
    }
    Ok(found.into_iter().filter(|(it, _)| *it || !here).map(|(_, owner)| owner).collect())
}

/// Whether a process has the device open; false where that may not be read.
fn has_open(folder: &Path, device: &str) -> bool {
    let Ok(descriptors) = folder.join("fd").read_dir() else { return false };
    descriptors.flatten().any(|descriptor| {
        let is_tun =
            descriptor.path().read_link().is_ok_and(|target| target == Path::new("/dev/net/tun"));
        is_tun && is_of(&folder.join("fdinfo").join(descriptor.file_name()), device)
    })
}

fn is_of(info: &Path, device: &str) -> bool {
    let mut bytes = Vec::new();
    let read = File::open(info).and_then(|file| file.take(MAX_INFO).read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes);
    read.is_ok()
        && text
            .lines()
            .any(|line| line.strip_prefix("iff:").is_some_and(|name| clean(name.trim()) == device))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::processes::fixture::FakeHost;

    fn process(host: &FakeHost, pid: u32, comm: &str, netns: u32, device: &str) {
        host.process(pid, comm, netns);
        host.write(&format!("proc/{pid}/fdinfo/5"), &format!("pos:\t0\niff:\t{device}\n"));
        host.link(&format!("proc/{pid}/fd/5"), "/dev/net/tun");
        host.link(&format!("proc/{pid}/fd/6"), "socket:[3]");
    }

    fn names(host: &FakeHost) -> Result<Vec<String>, Unanswered> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let found = readers(&host.root(), "tap8", 7, deadline)?;
        Ok(found.into_iter().map(|owner| owner.comm).collect())
    }

    #[test]
    fn a_process_is_found_by_the_device_that_it_has_open() {
        let host = FakeHost::new();
        assert_eq!(names(&host), Ok(Vec::new()));
        process(&host, 3, "other", 7, "tap80");
        process(&host, 4, "qemu", 1, "tap8");
        assert_eq!(names(&host), Ok(vec!["qemu".to_owned()]), "wherever it lives");
        process(&host, 5, "vpn", 7, "tap8");
        assert_eq!(names(&host), Ok(vec!["vpn".to_owned()]), "it lives where the device is");
    }

    #[test]
    fn of_several_strangers_none_is_named() {
        let host = FakeHost::new();
        process(&host, 4, "qemu", 1, "tap8");
        process(&host, 5, "vpn", 2, "tap8");
        assert_eq!(names(&host), Err(Unanswered::Failed));
    }

    #[test]
    fn nobody_waits_for_a_long_list() {
        let host = FakeHost::new();
        process(&host, 4, "qemu", 1, "tap8");
        let late = readers(&host.root(), "tap8", 7, Instant::now() - Duration::from_millis(1));
        assert_eq!(late, Err(Unanswered::TooLate));
    }
}
