//! Namespaces that get a name while dropwatch runs, each looked into at once.
//!
//! A namespace may be gone before the next report, and its inode number another's. So its cookie is
//! read as soon as it has a name, which proves the name of its drops for good. The kernel tells of
//! files that are made in the folders of names (inotify(7)); one without a name comes unseen.

use std::{
    collections::{HashMap, VecDeque},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dropwatch_common as common;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor},
};

use super::{FOLDERS, find::network_at};
use crate::kernel::{
    HostRoot, clean,
    inside::{cookie, inside},
};

/// Most that wait to be taken; what comes then is named as if nobody had looked.
const MOST: usize = 4096;
/// How long a file may be none of a namespace yet: who makes the name makes the file first, and mounts
/// the namespace there next.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two looks at such files.
const EVERY: Duration = Duration::from_millis(1);
/// Between two looks whether a folder is there, and whether anybody still wants to know.
const IDLE: Duration = Duration::from_millis(250);

/// A namespace, and a name of it.
type Named = (common::Netns, String);

/// What is shared with the thread that looks.
#[derive(Debug, Default)]
struct Shared {
    named: Mutex<Vec<Named>>,
    over: AtomicBool,
}

/// Looks as long as this lives.
#[derive(Debug)]
pub(super) struct Newcomers(Arc<Shared>);

impl Newcomers {
    /// Begins to look, by a thread with the capabilities of this one: to enter a namespace takes
    /// `CAP_SYS_ADMIN`. `None` where the kernel refuses.
    pub(super) fn watch(root: &HostRoot) -> Option<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok()?;
        let shared = Arc::new(Shared::default());
        let awaited = FOLDERS.map(|(folder, prefix)| (root.path(folder), prefix)).into();
        let (watched, fresh) = (HashMap::new(), VecDeque::new());
        let mut look =
            Look { root: root.clone(), inotify, watched, awaited, fresh, shared: shared.clone() };
        look.watch_folders(false);
        thread::Builder::new().name("newcomers".into()).spawn(move || look.run()).ok()?;
        Some(Self(shared))
    }

    /// Those that were looked into since the last call.
    pub(super) fn take(&self) -> Vec<Named> {
        std::mem::take(&mut *self.0.named.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Newcomers {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

struct Look {
    root: HostRoot,
    inotify: Inotify,
    watched: HashMap<WatchDescriptor, (PathBuf, &'static str)>,
    /// Folders that are not there yet: the first namespace that gets a name makes one.
    awaited: Vec<(PathBuf, &'static str)>,
    /// Files of which nothing is known yet, and since when.
    fresh: VecDeque<(PathBuf, &'static str, Instant)>,
    shared: Arc<Shared>,
}

impl Look {
    fn run(mut self) {
        while !self.shared.over.load(Ordering::Relaxed) {
            let wait = if self.fresh.is_empty() { IDLE } else { EVERY };
            let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
            // An error is an interruption, after which it is looked all the same.
            let _ = poll(&mut [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)], wait);
            for event in self.inotify.read_events().unwrap_or_default() {
                let folder = self.watched.get(&event.wd);
                if let (Some((folder, prefix)), Some(name)) = (folder, event.name)
                    && self.fresh.len() < MOST
                {
                    self.fresh.push_back((folder.join(name), prefix, Instant::now()));
                }
            }
            self.watch_folders(true);
            for _ in 0..self.fresh.len() {
                let Some((path, prefix, since)) = self.fresh.pop_front() else { break };
                if !self.look_into(&path, prefix) && since.elapsed() < PATIENCE {
                    self.fresh.push_back((path, prefix, since));
                }
            }
        }
    }

    /// Watches the folders that are there by now. With `new`, what is in one of them has just been made.
    fn watch_folders(&mut self, new: bool) {
        let Self { inotify, watched, awaited, fresh, .. } = self;
        awaited.retain(|(folder, prefix)| {
            let events = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ONLYDIR;
            let Ok(watch) = inotify.add_watch(folder, events) else { return true };
            // `/var/run` is `/run` on most hosts, which is one watch then.
            let is_new = watched.insert(watch, (folder.clone(), prefix)).is_none();
            if new && is_new {
                let files = super::files(folder);
                fresh.extend(files.into_iter().take(MOST).map(|it| (it, *prefix, Instant::now())));
            }
            false
        });
    }

    /// Whether it is known which namespace the file is, or that it cannot be known.
    fn look_into(&self, path: &Path, prefix: &str) -> bool {
        let Some(inum) = network_at(&self.root, path) else { return !path.exists() };
        let name = path.file_name().map(|name| clean(&name.to_string_lossy()));
        if let (Ok(Some(cookie)), Some(name)) = (inside(path, inum, || Ok(cookie())), name) {
            let mut named = self.shared.named.lock().unwrap_or_else(PoisonError::into_inner);
            if named.len() < MOST {
                named.push((common::Netns { inum, cookie }, format!("{prefix}{name}")));
            }
        }
        true
    }
}
