//! Names of namespaces that came and went between two looks, so that nobody read their counters.
//!
//! The kernel tells of files that are made and removed in the folders of names (inotify(7)). A namespace
//! without a name comes and goes unseen.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor},
};

use super::FOLDERS;
use crate::{
    kernel::{HostRoot, clean},
    report::facts::Netns,
};

/// Most events read at one look: a name takes two, and the kernel keeps 16,384
/// (`fs.inotify.max_queued_events`).
const MAX_EVENTS: usize = 32 << 10;

/// Watches the folders of names. Needs no capability.
pub(in crate::kernel) struct Passing {
    /// `None` where the kernel refuses.
    inotify: Option<Inotify>,
    /// What is put before the names of a watched folder.
    watched: HashMap<WatchDescriptor, &'static str>,
    /// Folders that are not there yet: the first namespace that gets a name makes one.
    awaited: Vec<(PathBuf, &'static str)>,
}

impl Passing {
    /// Watches from now on.
    pub(in crate::kernel) fn new(root: &HostRoot) -> Self {
        let flags = InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC;
        let awaited = FOLDERS.map(|(folder, prefix)| (root.path(folder), prefix)).into();
        let inotify = Inotify::init(flags).ok();
        let mut passing = Self { inotify, watched: HashMap::new(), awaited };
        passing.watch();
        passing
    }

    /// The names that were made since the last look and are gone again. A folder that was made since
    /// and is empty stands for those that nobody saw.
    pub(in crate::kernel) fn names(&mut self) -> BTreeSet<String> {
        let (mut made, mut gone) = (BTreeSet::new(), BTreeSet::new());
        for InotifyEvent { wd, mask, name, .. } in self.events() {
            if mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                gone.insert("others".to_owned());
            }
            let (Some(prefix), Some(name)) = (self.watched.get(&wd), name) else { continue };
            let name = format!("{prefix}{}", clean(&name.to_string_lossy()));
            if mask.contains(AddWatchFlags::IN_CREATE) {
                made.insert(name);
            } else if made.remove(&name) {
                gone.insert(name);
            }
        }
        for folder in self.watch() {
            if folder.read_dir().is_ok_and(|mut files| files.next().is_none()) {
                gone.insert(format!("one of {}", folder.display()));
            }
        }
        gone
    }

    fn events(&self) -> Vec<InotifyEvent> {
        let mut events = Vec::new();
        while let Some(inotify) = &self.inotify
            && events.len() < MAX_EVENTS
        {
            match inotify.read_events() {
                Ok(more) => events.extend(more),
                Err(Errno::EINTR) => {}
                Err(_) => break, // there are no more
            }
        }
        events
    }

    /// Watches the folders that are there by now, and returns those that were not watched before.
    fn watch(&mut self) -> Vec<PathBuf> {
        let Self { inotify: Some(inotify), watched, awaited } = self else { return Vec::new() };
        let events =
            AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_ONLYDIR;
        let mut new = Vec::new();
        awaited.retain(|(folder, prefix)| match inotify.add_watch(folder, events) {
            Ok(watch) => {
                // `/var/run` is `/run` on most hosts, which is one watch then.
                if watched.insert(watch, prefix).is_none() {
                    new.push(folder.clone());
                }
                false
            }
            Err(_) => true,
        });
        new
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
