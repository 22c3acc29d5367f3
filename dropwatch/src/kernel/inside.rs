//! Work inside another network namespace.
//!
//! Sockets and `/proc/sys/net` belong to the namespace of the calling thread, so the work is done
//! by a thread of its own, which ends with the answer: nothing keeps a dying namespace alive, and
//! the rest of the program stays where it is. On such a thread `/proc/net` still shows the main
//! thread's namespace and `/sys/class/net` that of the mount; `/proc/thread-self/net` is right.

use std::{
    fs::File,
    io,
    os::{
        fd::AsRawFd,
        unix::{fs::MetadataExt, net::UnixDatagram},
    },
    path::Path,
    thread,
};

use nix::sched::{CloneFlags, setns};

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
    Ok(setns(file, CloneFlags::CLONE_NEWNET)?)
}

/// Number of the calling thread's network namespace that no other gets as long as the kernel runs,
/// unlike that of its file; `None` before Linux 5.14 (`SO_NETNS_COOKIE`, net/core/sock.c).
pub(super) fn cookie() -> Option<u64> {
    /// `SO_NETNS_COOKIE` (include/uapi/asm-generic/socket.h).
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let socket = UnixDatagram::unbound().ok()?;
    let mut cookie = 0_u64;
    let mut size = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes no more than `size` bytes. Neither nix nor
    // rustix has this option.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    (result == 0 && size as usize == size_of_val(&cookie)).then_some(cookie)
}
