//! Runs dropwatch as its users do: a child process, driven by its command line, its signals and
//! what it prints.

use std::{
    io::{BufRead, BufReader, Read},
    os::fd::AsFd,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    command::{die_with_parent, quote},
    machine::longer,
};

/// Far more than attaching or a last report takes, on a fast machine that is busy with a flood.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running dropwatch that has attached.
#[derive(Debug)]
pub struct Watch {
    child: Child,
    line: String,
    gate: Arc<Gate>,
    incoming: Receiver<String>,
    lines: Vec<String>,
    stderr: Option<JoinHandle<String>>,
}

/// How a run ended and all it printed.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    /// Lines of standard output, without their ends.
    pub lines: Vec<String>,
    pub stderr: String,
}

impl Watch {
    /// Starts `command` and waits for the first line it prints.
    ///
    /// dropwatch prints that line once it has attached, so everything dropped after this call is
    /// counted.
    ///
    /// # Errors
    /// When it cannot be started, or ends or stays silent instead; the error quotes what it wrote
    /// to standard error.
    pub fn start(command: &mut Command) -> Result<Self> {
        let line = quote(command);
        die_with_parent(command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot run `{line}`"))?;
        let (Some(stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
            bail!("`{line}` has no pipes");
        };
        let gate = Arc::new(Gate::default());
        let incoming = read_lines(stdout, Arc::clone(&gate))?;
        let stderr = std::thread::Builder::new().spawn(move || {
            let mut bytes = Vec::new();
            // A broken pipe ends the text like an end of file.
            let _ = stderr.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })?;
        let mut watch =
            Self { child, line, gate, incoming, lines: Vec::new(), stderr: Some(stderr) };
        if watch.next_line(longer(PATIENCE))?.is_none() {
            let ended = watch.finish()?;
            bail!("dropwatch did not attach ({}): {}", ended.status, ended.stderr.trim());
        }
        Ok(watch)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of standard output, or `None` at its end.
    ///
    /// # Errors
    /// When nothing comes for `patience`.
    pub fn next_line(&mut self, patience: Duration) -> Result<Option<&str>> {
        match self.incoming.recv_timeout(patience) {
            Ok(line) => {
                self.lines.push(line);
                Ok(self.lines.last().map(String::as_str))
            }
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                bail!("`{}` printed nothing for {patience:?}", self.line)
            }
        }
    }

    /// Stops reading what dropwatch prints, so that the pipe fills up.
    pub fn pause(&self) {
        self.gate.set(true);
    }

    /// Reads on.
    pub fn resume(&self) {
        self.gate.set(false);
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid())?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal}"))
    }

    /// Presses Ctrl-C and waits for the end.
    pub fn stop(self) -> Result<Ended> {
        self.signal(Signal::SIGINT)?;
        self.finish()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When the end does not come; the process is then killed.
    pub fn finish(self) -> Result<Ended> {
        self.finish_within(longer(PATIENCE))
    }

    /// Waits for the end, at most for `patience`.
    ///
    /// # Errors
    /// As [`Watch::finish`].
    pub fn finish_within(mut self, patience: Duration) -> Result<Ended> {
        self.resume();
        let deadline = Instant::now() + patience;
        while let left = deadline.saturating_duration_since(Instant::now())
            && self.next_line(left)?.is_some()
        {}
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                bail!("`{}` does not end", self.line);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let stderr = self
            .stderr
            .take()
            .map(JoinHandle::join)
            .transpose()
            .map_err(|_| anyhow!("cannot read standard error"))?
            .unwrap_or_default();
        Ok(Ended { status, lines: std::mem::take(&mut self.lines), stderr })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.resume();
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets the reader pass, or holds it.
#[derive(Debug, Default)]
struct Gate {
    closed: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, closed: bool) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = closed;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        while *closed {
            closed = self.changed.wait(closed).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Reads lines on a thread of its own. The pipe is as small as the kernel makes them (one page),
/// so that a reader that stalls is felt soon.
fn read_lines(stdout: ChildStdout, gate: Arc<Gate>) -> Result<Receiver<String>> {
    fcntl(stdout.as_fd(), FcntlArg::F_SETPIPE_SZ(4096)).context("cannot shrink the pipe")?;
    let (sender, receiver) = channel();
    std::thread::Builder::new().spawn(move || {
        let mut reader = BufReader::new(stdout);
        loop {
            gate.pass();
            let mut bytes = Vec::new();
            match reader.read_until(b'\n', &mut bytes) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
            }
            if sender.send(String::from_utf8_lossy(&bytes).into_owned()).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn collects_lines_status_and_stderr() {
        let watch = Watch::start(&mut shell("echo a; echo b; echo no >&2; exit 3")).unwrap();
        let ended = watch.finish().unwrap();
        assert_eq!(ended.lines, ["a", "b"]);
        assert_eq!(ended.stderr, "no\n");
        assert_eq!(ended.status.code(), Some(3));
    }

    #[test]
    fn a_child_that_never_starts_is_an_error_with_its_words() {
        let error = Watch::start(&mut shell("echo no CAP_BPF >&2; exit 3")).unwrap_err();
        assert!(error.to_string().contains("no CAP_BPF"), "{error}");
    }

    #[test]
    fn signals_reach_the_child_and_a_paused_reader_holds_it() {
        let script = "trap 'echo bye; exit 0' INT; echo go; while :; do sleep 0.01; done";
        let ended = Watch::start(&mut shell(script)).unwrap().stop().unwrap();
        assert_eq!(ended.lines, ["go", "bye"]);

        let script = "echo go; sleep 0.1; yes | head -n 9000";
        let mut watch = Watch::start(&mut shell(script)).unwrap();
        watch.pause();
        std::thread::sleep(Duration::from_millis(300));
        assert!(watch.child.try_wait().unwrap().is_none(), "held by the full pipe");
        assert_eq!(watch.finish().unwrap().lines.len(), 9001);
    }
}
