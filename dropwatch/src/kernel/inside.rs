//! Work inside another network namespace.
//!
//! Sockets and `/proc/sys/net` belong to the namespace of the calling thread, so the work is done
//! by a thread of its own, which ends with the answer: nothing keeps a dying namespace alive, and
//! the rest of the program stays where it is. On such a thread `/proc/net` still shows the main
//! thread's namespace and `/sys/class/net` that of the mount; `/proc/thread-self/net` is right.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::Path,
    thread,
};

/// Does `work` in the namespace `inum`, whose file is at `path`.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` (setns(2)). Where the namespace is gone: that the file is
/// another's, or is not there. Those of `work`.
pub(super) fn inside<T: Send>(
    path: &Path,
    inum: u32,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".into());
        let inside = thread.spawn_scoped(scope, || {
            enter(path, inum)?;
            work()
        })?;
        inside.join().unwrap_or_else(|_| Err(io::Error::other("the thread inside failed")))
    })
}

/// Moves the calling thread into the namespace `inum` for the rest of its life.
fn enter(path: &Path, inum: u32) -> io::Result<()> {
    let file = File::open(path)?;
    if file.metadata()?.ino() != u64::from(inum) {
        return Err(io::ErrorKind::NotFound.into()); // another namespace has taken its place
    }
    // SAFETY: no pointers, and the descriptor is open.
    if unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
