//! Names of namespaces that came and went between two looks, so that nobody read their counters.

use std::collections::BTreeSet;

use nix::sys::inotify::AddWatchFlags;

use super::folders::Folders;
use crate::{
    kernel::{HostRoot, clean},
    report::facts::Netns,
};

/// Watches the folders of names. Needs no capability.
pub(in crate::kernel) struct Passing {
    /// `None` where the kernel refuses.
    folders: Option<Folders>,
}

impl Passing {
    /// Watches from now on.
    pub(in crate::kernel) fn new(root: &HostRoot) -> Self {
        let events = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE;
        Self { folders: Folders::watch(root, events) }
    }

    /// The names that were made since the last look and are gone again. A folder that was made since
    /// and is empty stands for those that nobody saw.
    pub(in crate::kernel) fn names(&mut self) -> BTreeSet<String> {
        let (mut made, mut gone) = (BTreeSet::new(), BTreeSet::new());
        let Some(folders) = &mut self.folders else { return gone };
        for event in folders.events() {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                gone.insert("others".to_owned());
            }
            let (Some((_, prefix)), Some(name)) = (folders.of(&event), &event.name) else {
                continue;
            };
            let name = format!("{prefix}{}", clean(&name.to_string_lossy()));
            if event.mask.contains(AddWatchFlags::IN_CREATE) {
                made.insert(name);
            } else if made.remove(&name) {
                gone.insert(name);
            }
        }
        for (folder, _) in folders.watch_new() {
            if folder.read_dir().is_ok_and(|mut files| files.next().is_none()) {
                gone.insert(format!("one of {}", folder.display()));
            }
        }
        gone
    }
}

/// Namespaces that ended before their counters could be read.
#[derive(Debug, Default)]
pub struct Unread {
    pub known: BTreeSet<Netns>,
    /// Names of those that came and went unseen.
    pub passed: BTreeSet<String>,
}

impl Unread {
    /// Of those that came and went, samples know the number at most, and the names say no number: what
    /// has but one of the two is counted once.
    pub(in crate::kernel) fn of(mut known: BTreeSet<Netns>, passed: BTreeSet<String>) -> Self {
        let mut named = passed.len();
        known.retain(|netns| {
            let is_named = netns.name.is_some() || named == 0;
            named -= usize::from(!is_named);
            is_named
        });
        Self { known, passed }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::super::processes::fixture::FakeHost, *};

    fn names(passing: &mut Passing) -> Vec<String> {
        passing.names().into_iter().collect()
    }

    #[test]
    fn a_name_that_comes_and_goes_between_two_looks_is_seen() {
        let host = FakeHost::new();
        host.write("run/netns/old", "");
        let mut passing = Passing::new(&host.root());
        host.write("run/netns/brief", "");
        host.write("run/netns/stays", "");
        fs::remove_file(host.root().path("run/netns/old")).unwrap();
        fs::remove_file(host.root().path("run/netns/brief")).unwrap();
        assert_eq!(names(&mut passing), ["brief"]);
        assert!(names(&mut passing).is_empty(), "once");
        fs::remove_file(host.root().path("run/netns/stays")).unwrap();
        assert!(names(&mut passing).is_empty(), "it was there at a look");
        host.write("run/netns/again", "");
        fs::remove_file(host.root().path("run/netns/again")).unwrap();
        host.write("run/netns/again", "");
        assert_eq!(names(&mut passing), ["again"], "the first of that name");
    }

    #[test]
    fn the_folder_may_come_later() {
        let host = FakeHost::new();
        let mut passing = Passing::new(&host.root());
        assert!(names(&mut passing).is_empty());
        host.write("run/netns/first", "");
        assert!(names(&mut passing).is_empty(), "it is there to be read");
        let docker = host.root().path("run/docker/netns");
        fs::create_dir_all(&docker).unwrap();
        assert_eq!(names(&mut passing), [format!("one of {}", docker.display())]);
        host.write("run/docker/netns/1a2b", "");
        fs::remove_file(docker.join("1a2b")).unwrap();
        assert_eq!(names(&mut passing), ["docker/1a2b"]);
    }

    #[test]
    fn a_namespace_of_which_samples_know_the_number_and_a_folder_the_name_is_one() {
        let netns = |name: Option<&str>, inum| Netns::new(name.map(str::to_owned), inum);
        let known = || [netns(None, 7), netns(None, 8), netns(Some("gw"), 9)].into();
        let passed = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let count = |unread: &Unread| (unread.known.len(), unread.passed.len());
        assert_eq!(count(&Unread::of(known(), passed(&[]))), (3, 0));
        assert_eq!(count(&Unread::of(known(), passed(&["a"]))), (2, 1));
        let more = Unread::of(known(), passed(&["a", "b", "c"]));
        assert_eq!(count(&more), (1, 3));
        assert_eq!(more.known.first().unwrap().name.as_deref(), Some("gw"));
    }
}
