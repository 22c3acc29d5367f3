//! The command of `dropwatch run`, from before its start to after its end.

pub mod launch;
pub mod signals;
pub mod user;

use std::{
    future::pending, io, os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration,
};

use self::{
    launch::{Launcher, Running},
    signals::ForCommand,
};
use crate::{
    report::{
        model::{RanCommand, summary::Summary},
        number::seconds,
    },
    settings::WatchedCommand,
    verbose,
};

/// A command, its state, and the signals that are meant for it.
pub struct Supervised<'a> {
    command: &'a WatchedCommand,
    state: State,
    signals: ForCommand,
    /// The terminal gives its own signals to the command, too.
    shares_terminal: bool,
}

/// What may happen to a command.
pub enum Event {
    /// A signal came that is meant for it.
    Signal(i32),
    Ended(io::Result<ExitStatus>),
}

enum State {
    Waiting(Launcher),
    Running(Running),
    /// The status that a shell would give, what the kernel said, and how long it ran.
    Over {
        code: u8,
        status: Option<ExitStatus>,
        ran: Duration,
    },
}

impl<'a> Supervised<'a> {
    pub fn new(command: &'a WatchedCommand, launcher: Launcher) -> io::Result<Self> {
        Ok(Self {
            command,
            state: State::Waiting(launcher),
            signals: ForCommand::new()?,
            shares_terminal: launch::shares_terminal(),
        })
    }

    /// How long to count before it starts.
    pub fn baseline(&self) -> Option<Duration> {
        self.command.baseline
    }

    /// When it is to start, since attach; `None` once it was started, or was to be.
    pub fn starts_at(&self) -> Option<Duration> {
        matches!(self.state, State::Waiting(_)).then_some(self.command.baseline).flatten()
    }

    /// Whether the command has ended, or will not be started any more.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over { .. })
    }

    /// Starts it, unless a signal has ended the run before.
    pub async fn start(&mut self) {
        if self.is_over() {
            return;
        }
        let over = |code| State::Over { code, status: None, ran: Duration::ZERO };
        // The state while it is being started; nothing reads it before the next one is set.
        let State::Waiting(launcher) = std::mem::replace(&mut self.state, over(0)) else { return };
        self.state = match launcher.start().await {
            Ok(running) => State::Running(running),
            Err(error) => {
                let program = self.command.program.to_string_lossy();
                let hint = match error.kind() {
                    io::ErrorKind::NotFound => self.command.hint(),
                    _ => None,
                };
                let hint = hint.map_or(String::new(), |hint| format!("; {hint}"));
                verbose::to_stderr(&format!("cannot run {program}: {error}{hint}"));
                over(launch::cannot_start(&error))
            }
        };
    }

    /// Waits for the next thing that happens to it. May be dropped and called again.
    pub async fn event(&mut self) -> Event {
        let ended = async {
            match &mut self.state {
                State::Running(running) => running.ended().await,
                State::Waiting(_) | State::Over { .. } => pending().await,
            }
        };
        tokio::select! {
            biased;
            number = self.signals.received() => Event::Signal(number),
            status = ended => Event::Ended(status),
        }
    }

    /// Acts on what has happened.
    pub fn heed(&mut self, event: &Event) {
        match event {
            Event::Signal(number) => self.signal(*number),
            Event::Ended(status) => self.has_ended(status),
        }
    }

    /// Hands a signal on; one that comes before the start ends the run.
    fn signal(&mut self, number: i32) {
        let from_terminal = [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP].contains(&number);
        match &self.state {
            State::Waiting(_) => {
                let code = (128 + number) as u8;
                self.state = State::Over { code, status: None, ran: Duration::ZERO };
            }
            State::Running(_) if from_terminal && self.shares_terminal => {}
            State::Running(running) => {
                if let Err(error) = running.signal(number) {
                    verbose::to_stderr(&format!("cannot hand signal {number} on: {error}"));
                }
            }
            State::Over { .. } => {}
        }
    }

    fn has_ended(&mut self, status: &io::Result<ExitStatus>) {
        let ran = match &self.state {
            State::Running(running) => running.since_start(),
            State::Waiting(_) | State::Over { .. } => Duration::ZERO,
        };
        self.state = match status {
            Ok(status) => State::Over { code: launch::code(*status), status: Some(*status), ran },
            Err(error) => {
                verbose::to_stderr(&format!("cannot learn how the command ended: {error}"));
                State::Over { code: crate::exit::RUN, status: None, ran }
            }
        };
    }

    /// Waits for its end where nothing else is left to do.
    pub async fn outlive(mut self) {
        while let State::Running(_) = self.state {
            let event = self.event().await;
            self.heed(&event);
        }
    }

    /// The status that a shell would give.
    pub fn code(&self) -> u8 {
        match self.state {
            State::Over { code, .. } => code,
            State::Waiting(_) | State::Running(_) => 0,
        }
    }

    /// What the run's last line says of the command.
    pub fn ran(&self, summary: Summary) -> RanCommand {
        let (status, ran) = match &self.state {
            State::Over { status, ran, .. } => (*status, *ran),
            State::Waiting(_) | State::Running(_) => (None, Duration::ZERO),
        };
        RanCommand {
            command: self.command.words(),
            status: status.and_then(|status| status.code()),
            signal: status.and_then(|status| status.signal()),
            duration_s: seconds(ran),
            summary,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime;

    use super::*;

    #[test]
    fn a_signal_before_the_start_ends_the_run_without_its_command() {
        let command = WatchedCommand {
            program: "false".into(),
            arguments: Vec::new(),
            user: None,
            baseline: Some(Duration::from_secs(1)),
        };
        let launcher = Launcher::new(&command).unwrap();
        runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let mut supervised = Supervised::new(&command, launcher).unwrap();
            supervised.heed(&Event::Signal(libc::SIGTERM));
            supervised.start().await;
            assert!(supervised.is_over());
            assert_eq!(supervised.code(), 128 + libc::SIGTERM as u8);
        });
    }
}
