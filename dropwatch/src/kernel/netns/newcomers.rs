//! Namespaces that get a name while dropwatch runs, each looked into at once.
//!
//! A namespace may be gone before the next report, and its inode number another's. So its cookie is
//! read as soon as it has a name, which proves the name of its drops for good.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dropwatch_common as common;
use nix::sys::inotify::AddWatchFlags;

use super::{FOLDERS, find::network_at, folders::Folders, unlike_words};
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
        let folders = Folders::watch(root, AddWatchFlags::IN_CREATE)?;
        let (shared, fresh) = (Arc::new(Shared::default()), VecDeque::new());
        let look = Look { root: root.clone(), folders, fresh, shared: shared.clone() };
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
    folders: Folders,
    /// Files of which nothing is known yet, and since when.
    fresh: VecDeque<(PathBuf, &'static str, Instant)>,
    shared: Arc<Shared>,
}

impl Look {
    fn run(mut self) {
        while !self.shared.over.load(Ordering::Relaxed) {
            self.folders.wait(if self.fresh.is_empty() { IDLE } else { EVERY });
            self.find();
            for _ in 0..self.fresh.len() {
                let Some((path, prefix, since)) = self.fresh.pop_front() else { break };
                if !self.look_into(&path, prefix) && since.elapsed() < PATIENCE {
                    self.fresh.push_back((path, prefix, since));
                }
            }
        }
    }

    /// Adds the files that were made since the last call.
    fn find(&mut self) {
        let Self { folders, fresh, .. } = self;
        for event in folders.events() {
            if let (Some((folder, prefix)), Some(name)) = (folders.of(&event), &event.name)
                && fresh.len() < MOST
            {
                fresh.push_back((folder.join(name), *prefix, Instant::now()));
            }
        }
        for (folder, prefix) in folders.watch_new() {
            let files = super::files(&folder).into_iter().take(MOST);
            fresh.extend(files.map(|file| (file, prefix, Instant::now())));
        }
    }

    /// Whether it is known which namespace the file is, or that it cannot be known.
    fn look_into(&self, path: &Path, prefix: &str) -> bool {
        let Some(inum) = network_at(&self.root, path) else { return !path.exists() };
        let name = path.file_name().map(|name| clean(&name.to_string_lossy()));
        if let (Ok(Some(cookie)), Some(name)) = (inside(path, inum, || Ok(cookie())), name) {
            let mut named = self.shared.named.lock().unwrap_or_else(PoisonError::into_inner);
            if named.len() < MOST {
                let folder = FOLDERS
                    .iter()
                    .find(|(folder, _)| path.parent() == Some(&self.root.path(folder)));
                let name = format!("{prefix}{name}");
                let name = match folder {
                    Some((folder, _)) => unlike_words(folder, name),
                    None => name,
                };
                named.push((common::Netns { inum, cookie }, name));
            }
        }
        true
    }
}
