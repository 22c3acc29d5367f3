//! Programs of this host: where they are found, and how one is run whose output is read.
//!
//! No shell is in between, no variable of the environment reaches them, and their time and output are
//! bounded.

use std::{
    env,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use caps::{CapSet, Capability, CapsHashSet};
use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl,
        signal::{Signal, kill},
    },
    unistd::Pid,
};

/// Where programs of administrators are, whatever `$PATH` says.
const FOLDERS: [&str; 5] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// Bytes of a line that are read; what is longer is handed on cut.
const MOST_OF_A_LINE: u64 = 64 << 10;

/// The file that a shell would find for `program`, also for who has not got the folders of
/// administrators in `PATH`.
pub fn find_as_typed(program: &str) -> Option<PathBuf> {
    let own = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&own).chain(FOLDERS.iter().map(PathBuf::from));
    // A relative folder would be another one by the time the program is started.
    folders.filter(|folder| folder.is_absolute()).map(|it| it.join(program)).find(|it| it.is_file())
}

/// The file of `program` in a folder of the system's own: what is run with privileges is chosen by no
/// variable.
pub fn find(program: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(program)).find(|it| it.is_file())
}

/// Moves the calling thread, for the rest of its life, to where PID 1 finds its files: the programs of the
/// host, for who is in a container without them.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` and `CAP_SYS_CHROOT` (`mntns_install`, fs/namespace.c); PID 1 is out of
/// sight.
pub fn enter_host_files() -> io::Result<()> {
    let files = File::open("/proc/1/ns/mnt")?;
    // Threads share their root, and the kernel moves none that shares it.
    unshare(CloneFlags::CLONE_FS)?;
    Ok(setns(files, CloneFlags::CLONE_NEWNS)?)
}

/// Whether PID 1 is the host's own, and finds other files than this process. That of a container would
/// have its own programs run with privileges that it may not have.
pub fn are_host_files_elsewhere() -> bool {
    /// The machine's first namespace of processes (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
    const FIRST: &str = "pid:[4026531836]";
    if fs::read_link("/proc/self/ns/pid").ok().is_none_or(|own| own != Path::new(FIRST)) {
        return false;
    }
    let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    of("1").is_some_and(|first| of("self").is_some_and(|own| own != first))
}

/// What a program may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub patience: Duration,
    /// Bytes of its output.
    pub bytes: u64,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All of its output was read, and it says that it succeeded.
    Well,
    /// It says that it failed.
    Failed,
    /// It took longer than it may, and was ended.
    TooLate,
    /// It said more than is read, and was ended.
    TooMuch,
}

/// Leaves the calling thread, and what it starts, with those of `kept` that it has, for the rest of its
/// life: not even a program of root's gets more (`no_new_privs`, Documentation/userspace-api/).
///
/// # Errors
/// When they cannot be given up.
pub fn confine(kept: &[Capability]) -> io::Result<()> {
    let permitted = caps::read(None, CapSet::Permitted).map_err(io::Error::other)?;
    let kept: CapsHashSet = kept.iter().copied().filter(|it| permitted.contains(it)).collect();
    let set = || {
        caps::clear(None, CapSet::Ambient)?;
        caps::set(None, CapSet::Inheritable, &kept)?;
        caps::set(None, CapSet::Effective, &kept)?;
        caps::set(None, CapSet::Permitted, &kept)?;
        // For who is not root: a program gets these by nothing else.
        caps::set(None, CapSet::Ambient, &kept)
    };
    set().map_err(io::Error::other)?;
    Ok(prctl::set_no_new_privs()?)
}

/// Runs a program with the capabilities of the calling thread, in its namespaces, and hands over its
/// output line by line, without the line ends.
///
/// # Errors
/// It cannot be started.
pub fn read_lines(
    program: &Path,
    arguments: &[&str],
    bounds: Bounds,
    mut each: impl FnMut(&[u8]),
) -> io::Result<Ended> {
    let deadline = Instant::now() + bounds.patience;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let Some(stdout) = child.stdout.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
    let (end, ended) = mpsc::channel::<()>();
    // While this thread waits for output, another one watches the time. The number stays that of the
    // program for as long as nobody has waited for its end.
    let watchdog = thread::Builder::new().name("patience".into()).spawn(move || {
        let is_late = ended.recv_timeout(bounds.patience) == Err(mpsc::RecvTimeoutError::Timeout);
        if is_late {
            let _gone = kill(pid, Signal::SIGKILL);
        }
        is_late
    });
    let Ok(watchdog) = watchdog else {
        finish(&mut child, Instant::now())?;
        return Err(io::ErrorKind::ResourceBusy.into());
    };
    // One more than may be, to see that there is more.
    let mut stdout = BufReader::with_capacity(256 << 10, stdout.take(bounds.bytes + 1));
    let mut line = Vec::new();
    // What was read before an error is all there is.
    while let Ok(true) = next_line(&mut stdout, &mut line) {
        each(&line);
    }
    let is_cut = stdout.get_ref().limit() == 0;
    // Its output is closed: it writes no more, or is ended by the signal of a closed pipe.
    drop((stdout, end));
    let is_late = watchdog.join().unwrap_or(true);
    let succeeded = finish(&mut child, deadline)?;
    Ok(match succeeded {
        _ if is_late => Ended::TooLate,
        _ if is_cut => Ended::TooMuch,
        None => Ended::TooLate,
        Some(true) => Ended::Well,
        Some(false) => Ended::Failed,
    })
}

/// Reads a line without its end into `line`, its begin if it is too long; whether there was one.
fn next_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let read = from.take(MOST_OF_A_LINE).read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if read as u64 == MOST_OF_A_LINE {
        from.skip_until(b'\n')?;
    }
    Ok(read > 0)
}

/// Waits for its end until `deadline`, then ends it; whether it says that it succeeded.
fn finish(child: &mut Child, deadline: Instant) -> io::Result<Option<bool>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if Instant::now() >= deadline {
            break;
        }
        thread::sleep(Duration::from_micros(200));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { patience: Duration::from_secs(20), bytes: 1 << 20 };

    fn sh(script: &str, bounds: Bounds) -> (Ended, Vec<String>) {
        let mut lines = Vec::new();
        let each = |line: &[u8]| lines.push(String::from_utf8_lossy(line).into_owned());
        let shell = find("sh").expect("a shell");
        (read_lines(&shell, &["-c", script], bounds, each).unwrap(), lines)
    }

    #[test]
    fn an_output_is_handed_over_line_by_line() {
        let (ended, lines) = sh("printf 'a\\n\\nb'; echo unread >&2; echo $HOME", BOUNDS);
        assert_eq!((ended, lines), (Ended::Well, vec!["a".into(), String::new(), "b".into()]));
        assert_eq!(sh("echo a; exit 3", BOUNDS), (Ended::Failed, vec!["a".into()]));
    }

    #[test]
    fn time_and_output_are_bounded() {
        let began = Instant::now();
        let brief = Bounds { patience: Duration::from_millis(200), ..BOUNDS };
        for script in ["exec sleep 60", "exec >&-; exec sleep 60"] {
            assert_eq!(sh(script, brief).0, Ended::TooLate, "{script}");
        }
        let (ended, lines) = sh("exec yes", BOUNDS);
        assert_eq!((ended, lines.len()), (Ended::TooMuch, (1 << 19) + 1));
        let (ended, lines) = sh("head -c 300000 /dev/zero; echo; echo end", BOUNDS);
        assert_eq!((ended, lines.len(), &*lines[1]), (Ended::Well, 2, "end"));
        assert_eq!(lines[0].len() as u64, MOST_OF_A_LINE);
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    /// On a thread of its own, whose capabilities nobody else has.
    #[test]
    fn what_a_confined_thread_starts_gets_no_more() {
        let all = caps::read(None, CapSet::Permitted).unwrap();
        let (kept, bit) = (Capability::CAP_NET_ADMIN, 1_u64 << 12);
        let confined = thread::spawn(move || {
            confine(&[kept]).unwrap();
            sh("grep CapEff /proc/self/status", BOUNDS).1
        });
        let lines = confined.join().unwrap();
        let expected = if all.contains(&kept) { bit } else { 0 };
        assert_eq!(lines, [format!("CapEff:\t{expected:016x}")]);
    }
}
