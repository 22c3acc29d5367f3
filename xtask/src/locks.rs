//! Waiting for others on this machine: another apt, another run of the tests.
//!
//! Whoever holds a lock is named, with process number and command. The kernel knows that
//! (`/proc/locks`), and frees a lock when its holder ends, killed or not; so no file has to be
//! cleaned up, and none can lie.

use std::{
    fmt, fs,
    fs::{File, Metadata, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::statfs::{BTRFS_SUPER_MAGIC, statfs},
};

/// How often it is looked whether a lock is free.
const LOOKS: Duration = Duration::from_millis(300);
/// The longest that another run of the tests is waited for: two whole ones.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);
/// Characters of a command that a message has room for.
const COMMAND: usize = 80;
/// Links of the chain of parents that are looked at.
const ANCESTORS: usize = 64;

/// This machine's kernel, for tests and measurements that another's would disturb.
///
/// It is held until this value is dropped, or the process ends.
#[derive(Debug)]
pub(crate) struct Machine {
    /// `None` where a process that started this one holds it already.
    _lock: Option<Flock<File>>,
}

impl Machine {
    /// Waits until no other run of tests or measurements uses this kernel: of no clone, no user.
    ///
    /// # Errors
    /// When it is still in use after two hours, or the file that stands for it cannot be opened.
    pub(crate) fn take() -> Result<Self> {
        let path = machine_file();
        if holder(&path).is_some_and(Holder::is_ancestor) {
            return Ok(Self { _lock: None });
        }
        let what = "this machine is in use by another run of tests or measurements";
        Ok(Self { _lock: Some(take(&path, || open_for_all(&path), what, PATIENCE)?) })
    }
}

/// Waits until this process alone uses a folder.
///
/// # Errors
/// When it is still in use after two hours, or cannot be written.
pub(crate) fn folder(folder: &Path) -> Result<Flock<File>> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join("lock");
    take(&path, || open_for_all(&path), &format!("{} is in use", folder.display()), PATIENCE)
}

/// Where the kernel's lock is: the same for root and everybody else, so it depends on nothing but
/// the machine. A folder where not all may make files would give each their own.
fn machine_file() -> PathBuf {
    let for_all = |folder: &&str| {
        fs::metadata(folder).is_ok_and(|it| it.is_dir() && it.mode() & 0o1002 == 0o1002)
    };
    let folder = ["/run/lock"].into_iter().find(for_all).unwrap_or("/tmp");
    Path::new(folder).join("dropwatch-tests.lock")
}

/// Opens a file that belongs to whoever was first.
///
/// Reading is enough for a lock. A file of somebody else's in a folder of all is never opened with
/// `O_CREAT`: `fs.protected_regular` refuses that even to root (proc_sys_fs(5)).
fn open_for_all(path: &Path) -> io::Result<File> {
    let open = || File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path);
    match open() {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        other => return other,
    }
    let mut options = File::options();
    match options.read(true).write(true).create_new(true).custom_flags(libc::O_NOFOLLOW).open(path)
    {
        Ok(file) => {
            // Whatever the umask is.
            file.set_permissions(Permissions::from_mode(0o644))?;
            Ok(file)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => open(),
        Err(error) => Err(error),
    }
}

/// Takes a lock, as long as somebody else has it waiting for `patience` at most.
fn take(
    path: &Path,
    open: impl Fn() -> io::Result<File>,
    what: &str,
    patience: Duration,
) -> Result<Flock<File>> {
    let mut wait = Wait::new(patience);
    loop {
        let file = open().with_context(|| format!("cannot open {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) if is_at(&lock, path) => return Ok(lock),
            // Somebody has removed the file since it was opened: it is another lock now.
            Ok(_) | Err((_, nix::Error::EWOULDBLOCK)) => wait.for_a_moment(what, holder(path))?,
            Err((_, error)) => bail!("cannot lock {}: {error}", path.display()),
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(a), Ok(b)) => same(&a, &b),
        _ => false,
    }
}

/// A wait that ends.
pub(crate) struct Wait {
    started: Instant,
    patience: Duration,
    shown: Option<String>,
}

impl Wait {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { started: Instant::now(), patience, shown: None }
    }

    /// Waits a little, and says so at first and when somebody else is waited for.
    ///
    /// # Errors
    /// When all of the time is over.
    pub(crate) fn for_a_moment(&mut self, what: &str, by: Option<Holder>) -> Result<()> {
        let by = by.map_or_else(|| "another process".to_owned(), |holder| holder.to_string());
        if self.started.elapsed() >= self.patience {
            bail!("{what}: {by}; given up after {} min", self.patience.as_secs() / 60);
        }
        if self.shown.as_ref() != Some(&by) {
            eprintln!("==> {what}: {by}; waiting, at most {} min", self.patience.as_secs() / 60);
            self.shown = Some(by);
        }
        thread::sleep(LOOKS);
        Ok(())
    }
}

/// Somebody who has a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pid: u32,
}

impl Holder {
    fn is_ancestor(self) -> bool {
        let mut pid = std::process::id();
        for _ in 0..ANCESTORS {
            match parent(pid) {
                Some(parent) if parent == self.pid => return true,
                Some(parent) if parent > 1 => pid = parent,
                _ => return false,
            }
        }
        false
    }
}

/// `pid 4711 (cargo xtask test)`. What a process calls itself is its own choice: no control
/// character of it gets to a terminal.
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        let plain: String = line
            .trim_end_matches('\0')
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        write!(f, "pid {}", self.pid)?;
        match plain.char_indices().nth(COMMAND) {
            Some((end, _)) => write!(f, " ({}…)", &plain[..end]),
            None if plain.is_empty() => Ok(()),
            None => write!(f, " ({plain})"),
        }
    }
}

/// From `PPid:` of proc_pid_status(5).
fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// The first process that has a lock on a file, of whatever kind: flock(2) as here, fcntl(2) as
/// apt and dpkg do.
pub(crate) fn holder(path: &Path) -> Option<Holder> {
    let file = fs::metadata(path).ok()?;
    // btrfs shows each subvolume as a device of its own, and the kernel's list has the real one.
    let known = statfs(path).is_ok_and(|kind| kind.filesystem_type() != BTRFS_SUPER_MAGIC);
    let locks = fs::read_to_string("/proc/locks").ok()?;
    holder_in(&locks, known.then(|| file.dev()), file.ino())
}

/// Reads proc_locks(5): `1: POSIX  ADVISORY  WRITE 4711 fe:00:1042 0 EOF`, the device and the
/// inode in the sixth column. A line that waits for a lock has `->` behind its number.
fn holder_in(locks: &str, device: Option<u64>, inode: u64) -> Option<Holder> {
    let device = device.map(|device| (libc::major(device), libc::minor(device)));
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[_, kind, _, _, pid, file, ..] = words.as_slice() else { return None };
        let mut parts = file.split(':');
        let mut hexadecimal = || u32::from_str_radix(parts.next()?, 16).ok();
        let on = (hexadecimal()?, hexadecimal()?);
        let is_it = kind != "->"
            && device.is_none_or(|device| device == on)
            && parts.next()?.parse() == Ok(inode);
        // Of a process in another PID namespace the number is 0, and of no use.
        is_it.then(|| pid.parse().ok()).flatten().filter(|&pid| pid > 0).map(|pid| Holder { pid })
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A file of this test's own, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id())))
        }

        fn take(&self, patience: Duration) -> Result<Flock<File>> {
            take(&self.0, || open_for_all(&self.0), "it is in use", patience)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    /// Another process that holds a lock until it is killed.
    struct Other(Child);

    impl Other {
        fn flock(path: &Path) -> Self {
            let mut command = Command::new("flock");
            command.arg(path).args(["sh", "-c", "echo held; exec sleep 60"]);
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            let mut shown = [0; 5];
            io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut shown).unwrap();
            Self(child)
        }

        fn end(&mut self) {
            // flock(1) waits for what it runs, which has the lock, too.
            for pid in [self.children(), vec![self.0.id()]].concat() {
                let pid = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            let _ = self.0.wait();
        }

        fn children(&self) -> Vec<u32> {
            let path = format!("/proc/{0}/task/{0}/children", self.0.id());
            let text = fs::read_to_string(path).unwrap_or_default();
            text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
        }
    }

    impl Drop for Other {
        fn drop(&mut self) {
            self.end();
        }
    }

    #[test]
    fn the_holder_is_found_by_device_and_inode() {
        let locks = "\
1: FLOCK  ADVISORY  WRITE 17924 fe:00:10428428 0 EOF
1: -> FLOCK  ADVISORY  WRITE 17925 fe:00:10428428 0 EOF
2: POSIX  ADVISORY  WRITE 99 fe:01:10428427 0 EOF
3: OFDLCK ADVISORY  READ -1 fe:00:7 0 0
4: POSIX  ADVISORY  WRITE 0 fe:00:8 0 EOF
broken
";
        let device = Some(libc::makedev(0xfe, 0));
        assert_eq!(holder_in(locks, device, 10428428), Some(Holder { pid: 17924 }));
        assert_eq!(holder_in(locks, device, 10428427), None, "on another device");
        assert_eq!(holder_in(locks, None, 10428427), Some(Holder { pid: 99 }));
        assert_eq!(holder_in(locks, device, 7), None, "of no process");
        assert_eq!(holder_in(locks, device, 8), None, "of one that cannot be seen");
    }

    #[test]
    fn somebody_who_waits_knows_for_whom_and_gives_up() {
        let scratch = Scratch::new("given-up");
        let other = Other::flock(&scratch.0);
        let error = scratch.take(Duration::from_millis(400)).unwrap_err().to_string();
        let expected = format!("it is in use: pid {} (flock {}", other.0.id(), scratch.0.display());
        assert!(error.starts_with(&expected), "{error} is not {expected}");
        assert!(error.ends_with("; given up after 0 min"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn a_killed_holder_frees_its_lock() {
        let scratch = Scratch::new("freed");
        let mut other = Other::flock(&scratch.0);
        assert!(scratch.take(Duration::ZERO).is_err());
        other.end();
        let _lock = scratch.take(Duration::from_secs(20)).unwrap();
        let mine = holder(&scratch.0).unwrap();
        assert_eq!(mine, Holder { pid: std::process::id() });
        assert!(!mine.is_ancestor());
        assert!(scratch.take(Duration::ZERO).is_err(), "two have it");
    }

    #[test]
    fn what_this_program_was_started_by_is_no_stranger() {
        let parent = Holder { pid: parent(std::process::id()).unwrap() };
        assert!(parent.is_ancestor());
        assert!(!Holder { pid: u32::MAX }.is_ancestor());
    }

    #[test]
    fn all_may_lock_and_a_link_is_not_followed() {
        let scratch = Scratch::new("link");
        let target = Scratch::new("target");
        std::os::unix::fs::symlink(&target.0, &scratch.0).unwrap();
        assert!(scratch.take(Duration::ZERO).is_err());
        assert!(!target.0.exists());

        let scratch = Scratch::new("mode");
        scratch.take(Duration::ZERO).unwrap();
        assert_eq!(fs::metadata(&scratch.0).unwrap().mode() & 0o777, 0o644);
        fs::set_permissions(&scratch.0, Permissions::from_mode(0o444)).unwrap();
        scratch.take(Duration::ZERO).unwrap();
    }
}
