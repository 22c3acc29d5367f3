//! The folders of names, watched: the kernel tells of files that are made and removed there (inotify(7)).
//! A namespace without a name comes and goes unseen.

use std::{collections::HashMap, os::fd::AsFd, path::PathBuf, time::Duration};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor},
};

use super::mounted::FOLDERS;
use crate::kernel::HostRoot;

/// Most events read at one look: a name takes two, and the kernel keeps 16,384
/// (`fs.inotify.max_queued_events`).
const MAX_EVENTS: usize = 32 << 10;

/// A folder, and what is put before its names.
pub(super) type Folder = (PathBuf, &'static str);

/// Watches the folders. Needs no capability.
pub(super) struct Folders {
    inotify: Inotify,
    events: AddWatchFlags,
    watched: HashMap<WatchDescriptor, Folder>,
    /// Those that are not there yet: the first namespace that gets a name makes one.
    awaited: Vec<Folder>,
}

impl Folders {
    /// Watches from now on for `events`. `None` where the kernel refuses.
    pub(super) fn watch(root: &HostRoot, events: AddWatchFlags) -> Option<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok()?;
        let awaited = FOLDERS.map(|(folder, prefix)| (root.path(folder), prefix)).into();
        let mut folders = Self { inotify, events, watched: HashMap::new(), awaited };
        folders.watch_new();
        Some(folders)
    }

    /// Watches the folders that are there by now, and returns those that were not watched before.
    pub(super) fn watch_new(&mut self) -> Vec<Folder> {
        let Self { inotify, events, watched, awaited } = self;
        let mut new = Vec::new();
        awaited.retain(|folder| {
            let Ok(watch) = inotify.add_watch(&folder.0, *events | AddWatchFlags::IN_ONLYDIR)
            else {
                return true;
            };
            // `/var/run` is `/run` on most hosts, which is one watch then.
            if watched.insert(watch, folder.clone()).is_none() {
                new.push(folder.clone());
            }
            false
        });
        new
    }

    /// The folder that an event is of.
    pub(super) fn of(&self, event: &InotifyEvent) -> Option<&Folder> {
        self.watched.get(&event.wd)
    }

    /// What has happened since the last call.
    pub(super) fn events(&self) -> Vec<InotifyEvent> {
        let mut events = Vec::new();
        while events.len() < MAX_EVENTS {
            match self.inotify.read_events() {
                Ok(more) => events.extend(more),
                Err(Errno::EINTR) => {}
                Err(_) => break, // there are no more
            }
        }
        events
    }

    /// Waits until something has happened, and no longer than that.
    pub(super) fn wait(&self, most: Duration) {
        let most = PollTimeout::try_from(most).unwrap_or(PollTimeout::MAX);
        // An error is an interruption, after which it is looked all the same.
        let _ = poll(&mut [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)], most);
    }
}
