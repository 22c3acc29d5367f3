//! The command of `dropwatch run`: started when dropwatch has attached, as the user who requested
//! it.
//!
//! Starting it as another user takes capabilities that the rest of the program has given up by
//! then. They are per thread, so the command is started by one that was there before, and that
//! waits for it.

use std::{
    fs::File,
    io,
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{self, ExitStatus},
    sync::mpsc,
    thread,
    time::Instant,
};

use anyhow::{Context, anyhow};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tokio::sync::oneshot;

use crate::{
    exit::Failure,
    notify, privilege, settings,
    supervise::user::{Caller, User},
};

/// A command that is not started yet.
pub struct Launcher {
    go: mpsc::Sender<()>,
    started: oneshot::Receiver<io::Result<OwnedFd>>,
    ended: oneshot::Receiver<io::Result<ExitStatus>>,
}

/// A command that was started.
pub struct Running {
    /// Stands for the process, also when another has its number.
    pidfd: OwnedFd,
    started: Instant,
    ended: oneshot::Receiver<io::Result<ExitStatus>>,
}

impl Launcher {
    /// Takes the privileges of the calling thread.
    ///
    /// # Errors
    /// When the user is not known.
    pub fn new(command: &settings::WatchedCommand) -> Result<Self, Failure> {
        let user = match &command.user {
            Some(name) => Some(named(name)?),
            None => invoking_user()?,
        };
        let mut child = process::Command::new(&command.program);
        child.args(&command.arguments);
        for variable in notify::VARIABLES {
            child.env_remove(variable);
        }
        if let Some(user) = user {
            become_user(&mut child, &user);
        }
        let (go, wait) = mpsc::channel();
        let (send_started, started) = oneshot::channel();
        let (send_ended, ended) = oneshot::channel();
        let work = move || {
            // The sender is gone: the run has ended before the command was to start.
            if wait.recv().is_err() {
                return;
            }
            let spawned = child.spawn().and_then(|child| Ok((pidfd(child.id())?, child)));
            // The command is started, so privileges are of no more use here. What cannot be given
            // up stays with a thread that only waits.
            let _kept = privilege::keep_only(&[], || true);
            match spawned {
                Ok((pidfd, mut child)) => {
                    let _gone = send_started.send(Ok(pidfd));
                    let _gone = send_ended.send(child.wait());
                }
                Err(error) => {
                    let _gone = send_started.send(Err(error));
                }
            }
        };
        let thread = thread::Builder::new().name("command".to_owned());
        thread.spawn(work).context("cannot start a thread for the command")?;
        Ok(Self { go, started, ended })
    }

    /// Starts the command.
    ///
    /// # Errors
    /// The kernel's, when it cannot be executed.
    pub async fn start(self) -> io::Result<Running> {
        let Self { go, started, ended } = self;
        // The thread waits for this, or has panicked, which is an error of the next line.
        let _waiting = go.send(());
        let pidfd = started.await.map_err(io::Error::other)??;
        Ok(Running { pidfd, started: Instant::now(), ended })
    }
}

impl Running {
    /// Waits for the command's end. May be dropped and called again, until it has returned the status.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        (&mut self.ended).await.map_err(io::Error::other)?
    }

    /// Hands a signal on. One that has ended needs none.
    ///
    /// # Errors
    /// When it is another user's, and signals to it are not permitted.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        let signal = Signal::from_named_raw(number).ok_or(io::ErrorKind::InvalidInput)?;
        match pidfd_send_signal(&self.pidfd, signal) {
            Err(Errno::SRCH) => Ok(()),
            result => Ok(result?),
        }
    }

    pub fn since_start(&self) -> std::time::Duration {
        self.started.elapsed()
    }
}

/// What a shell would say of the end of a command: its status, or 128 and the signal.
pub fn code(status: ExitStatus) -> u8 {
    let signalled = || status.signal().map_or(128, |signal| 128 + signal);
    (status.code().unwrap_or_else(signalled) & 0xff) as u8
}

/// What a shell would say where a command could not be started.
pub fn cannot_start(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
}

/// Whether the terminal gives its signals (Ctrl-C, Ctrl-\, a hangup) to the command as well, as it
/// does to all that is in its foreground.
pub fn shares_terminal() -> bool {
    let foreground = File::open("/dev/tty").ok().and_then(|tty| nix::unistd::tcgetpgrp(tty).ok());
    foreground.is_some_and(|group| group == nix::unistd::getpgrp())
}

fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// A user by name, or by number as chown(1) and others take it.
fn named(name: &str) -> Result<User, Failure> {
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    let found = match (User::named(name), name.parse()) {
        (Ok(None), Ok(number)) if is_number => User::numbered(number),
        (found, _) => found,
    };
    let found = found.with_context(|| format!("cannot look up the user {name}"))?;
    found.ok_or_else(|| Failure::Usage(format!("--user {name}: there is no such user")))
}

/// Who called sudo; `None` where nobody did.
fn invoking_user() -> Result<Option<User>, Failure> {
    let Some(Caller { uid, .. }) = Caller::of_sudo()? else { return Ok(None) };
    let found = User::numbered(uid);
    let found = found.with_context(|| format!("cannot look up the user {uid}"))?;
    match found {
        Some(user) => Ok(Some(user)),
        None => Err(anyhow!(
            "sudo was called by user {uid}, who has no name: say whom the command is to run as \
             (--user NAME)"
        )
        .into()),
    }
}

/// Has `child` run as `user`, with the groups and the home of that user.
fn become_user(child: &mut process::Command, user: &User) {
    let groups: Vec<Gid> = user.groups().into_iter().map(Gid::from_raw).collect();
    child.env("HOME", &user.home).env("USER", &user.name).env("LOGNAME", &user.name);
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let change = move || {
        setgroups(&groups)?;
        setgid(gid)?;
        Ok(setuid(uid)?)
    };
    // SAFETY: between fork and exec it makes three system calls, and allocates nothing.
    unsafe { child.pre_exec(change) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &[&str]) -> settings::WatchedCommand {
        settings::WatchedCommand {
            program: line[0].into(),
            arguments: line[1..].iter().map(Into::into).collect(),
            user: None,
            baseline: None,
        }
    }

    fn run(line: &[&str], signal: Option<i32>) -> io::Result<ExitStatus> {
        let launcher = Launcher::new(&command(line)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut running = launcher.start().await?;
            if let Some(signal) = signal {
                running.signal(signal).unwrap();
            }
            running.ended().await
        })
    }

    #[test]
    fn the_status_is_the_commands_own_or_a_shells() {
        assert_eq!(code(run(&["sh", "-c", "exit 7"], None).unwrap()), 7);
        assert_eq!(code(run(&["sleep", "30"], Some(libc::SIGTERM)).unwrap()), 128 + 15);
        assert_eq!(cannot_start(&run(&["/nonexistent/command"], None).unwrap_err()), 127);
        assert_eq!(cannot_start(&run(&["/dev/null"], None).unwrap_err()), 126);
    }

    #[test]
    fn a_user_is_known_by_its_number_too() {
        assert_eq!(named("0").unwrap().name, "root");
        assert!(["4294967290", "-1", "+0", ""].iter().all(|name| named(name).is_err()));
    }

    #[test]
    fn a_user_that_does_not_exist_is_named_in_the_error() {
        let unknown =
            settings::WatchedCommand { user: Some("no-such-user".into()), ..command(&["true"]) };
        let Err(failure) = Launcher::new(&unknown) else { panic!("there is no such user") };
        assert_eq!(failure.to_string(), "--user no-such-user: there is no such user");
    }
}
