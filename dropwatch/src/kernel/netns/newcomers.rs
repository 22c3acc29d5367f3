//! Namespaces that get a name while dropwatch runs, each looked into at once.
//!
//! A namespace may be gone before the next report, and its inode number another's. So its cookie is
//! read as soon as it has a name, which proves the name of its drops for good; and the names of its
//! interfaces. These come after the namespace itself, one by one: it is looked into again, less and less
//! often.

use std::{
    collections::{BTreeMap, VecDeque},
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

use super::{
    find::network_at,
    folders::Folders,
    mounted::{self, FOLDERS, unlike_words},
};
use crate::kernel::{
    HostRoot, clean,
    inside::{cookie, inside},
    links,
};

/// Most that wait to be taken; what comes then is named as if nobody had looked.
const MOST: usize = 4096;
/// Most interfaces of one that are kept until they are taken.
const MOST_DEVICES: usize = 64;
/// How long a file may be none of a namespace yet: who makes the name makes the file first, and mounts
/// the namespace there next.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two looks at such files.
const EVERY: Duration = Duration::from_millis(1);
/// Between two looks whether a folder is there, and whether anybody still wants to know.
const IDLE: Duration = Duration::from_millis(250);

/// When a namespace is looked into for its interfaces, after it got its name. What comes later is read
/// with its counters and for reports.
const LOOKS: [Duration; 5] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// A namespace, a name of it, and the names of its interfaces by their index.
#[derive(Debug)]
pub(super) struct Named {
    pub netns: common::Netns,
    pub name: String,
    pub devices: BTreeMap<u32, String>,
}

/// A namespace that is to be looked into again.
struct Young {
    path: PathBuf,
    prefix: &'static str,
    inum: u32,
    /// When its name was found.
    since: Instant,
    /// How often it was looked into for its interfaces.
    looks: usize,
}

impl Young {
    /// How long until it is to be looked into again.
    fn due_in(&self) -> Duration {
        let after = LOOKS.get(self.looks).copied().unwrap_or_default();
        after.saturating_sub(self.since.elapsed())
    }
}

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
        let young = Vec::new();
        let look = Look { root: root.clone(), folders, fresh, young, shared: shared.clone() };
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
    young: Vec<Young>,
    shared: Arc<Shared>,
}

impl Look {
    fn run(mut self) {
        while !self.shared.over.load(Ordering::Relaxed) {
            let due_in = self.young.iter().map(Young::due_in).min().unwrap_or(IDLE);
            let waits = if self.fresh.is_empty() { IDLE } else { EVERY };
            self.folders.wait(waits.min(due_in).max(EVERY));
            self.find();
            for _ in 0..self.fresh.len() {
                let Some((path, prefix, since)) = self.fresh.pop_front() else { break };
                if !self.look_into(&path, prefix) && since.elapsed() < PATIENCE {
                    self.fresh.push_back((path, prefix, since));
                }
            }
            self.look_again();
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
            let files = mounted::files(&folder).into_iter().take(MOST);
            fresh.extend(files.map(|file| (file, prefix, Instant::now())));
        }
    }

    /// Whether it is known which namespace the file is, or that it cannot be known.
    fn look_into(&mut self, path: &Path, prefix: &'static str) -> bool {
        let Some(inum) = network_at(&self.root, path) else { return !path.exists() };
        if self.read(path, prefix, inum) && self.young.len() < MOST {
            let since = Instant::now();
            self.young.push(Young { path: path.to_owned(), prefix, inum, since, looks: 0 });
        }
        true
    }

    /// Looks for interfaces of namespaces that are young; one that cannot be entered has ended, or another
    /// has its name.
    fn look_again(&mut self) {
        let mut young = std::mem::take(&mut self.young);
        young.retain_mut(|it| {
            if it.due_in().is_zero() {
                it.looks += 1;
                return self.read(&it.path, it.prefix, it.inum) && it.looks < LOOKS.len();
            }
            true
        });
        self.young = young;
    }

    /// Reads the cookie of the namespace `inum`, which the file is, and the names of its interfaces, both by
    /// one thread inside: they are of one namespace, even if another has got the inode number meanwhile.
    fn read(&self, path: &Path, prefix: &str, inum: u32) -> bool {
        let Some(name) = path.file_name() else { return false };
        let Ok((Some(cookie), devices)) = inside(path, inum, || Ok((cookie(), links::by_index())))
        else {
            return false;
        };
        let name = format!("{prefix}{}", clean(&name.to_string_lossy()));
        let folder = FOLDERS.iter().find(|(it, _)| path.parent() == Some(&self.root.path(it)));
        let name = match folder {
            Some((folder, _)) => unlike_words(folder, name),
            None => name,
        };
        let netns = common::Netns { inum, cookie };
        let mut named = self.shared.named.lock().unwrap_or_else(PoisonError::into_inner);
        let devices = devices.into_iter().take(MOST_DEVICES);
        // The names of last time, where they are not taken yet, are out of date.
        let known = named.iter_mut().rev().find(|it| it.netns == netns && it.name == name);
        if let Some(known) = known {
            known.devices.extend(devices);
            while known.devices.len() > MOST_DEVICES {
                known.devices.pop_last();
            }
        } else if named.len() < MOST {
            named.push(Named { netns, name, devices: devices.collect() });
        }
        true
    }
}
