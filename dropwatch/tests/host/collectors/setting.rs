//! The collectors' programs, their configurations, and a folder for all that they write.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testbed::{command::die_with_parent, machine::longer};

use crate::harness::wait_until;

/// More than any of them takes to start, to see what is new in a file, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn soon(milliseconds: u64) -> Duration {
    longer(Duration::from_millis(milliseconds))
}

/// Polls until `done`.
pub(super) fn wait_for(what: &str, done: impl FnMut() -> bool) {
    wait_until(longer(PATIENCE), what, done);
}

/// The block of docs/logging.md that is to become the file named.
pub(super) fn recipe(file: &str) -> String {
    let page = include_str!("../../../../docs/logging.md");
    let start = format!("# {file}\n");
    let mut blocks = page.split("```").skip(1).step_by(2);
    // What stands behind the fence is the language.
    let block = blocks
        .find_map(|block| Some(block.split_once('\n')?.1).filter(|text| text.starts_with(&start)));
    block.unwrap_or_else(|| panic!("no {file} in docs/logging.md")).to_owned()
}

/// A program that `cargo xtask setup` unpacked, or that is installed where it does not.
pub(super) fn program(name: &str) -> Command {
    let tools = std::env::var_os("DROPWATCH_TOOLS").filter(|path| !path.is_empty());
    let tools = tools
        .map_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../.tools").into(), PathBuf::from);
    let unpacked = tools.join("bin").join(name);
    let mut command = if unpacked.exists() { Command::new(unpacked) } else { Command::new(name) };
    command.stdin(Stdio::null());
    command
}

/// A child that is gone when the test is.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        let line = testbed::command::quote(command);
        let child = die_with_parent(command).spawn();
        Self(child.unwrap_or_else(|error| panic!("{error}: {line}; see `cargo xtask setup`")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command that is to succeed.
pub(super) fn run_to_end(command: &mut Command) {
    let mut process =
        Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    wait_for("the end of a command", || process.0.try_wait().unwrap().is_some());
    let status = process.0.wait().unwrap();
    assert!(status.success(), "{status}: {}", testbed::command::quote(command));
}

/// A folder for all that a collector and what it reads write.
pub(super) struct Folder(testbed::folder::Folder);

impl Folder {
    pub(super) fn new(name: &str) -> Self {
        Self(testbed::folder::Folder::new(name).unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.file(name)
    }

    /// A recipe with this folder's paths.
    pub(super) fn place(&self, recipe: &str) -> String {
        let folder = format!("{}/", self.0.path().display());
        // The service's own folder, then the collectors'.
        recipe.replace("/var/log/dropwatch/", &folder).replace("/var/log/", &folder)
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The whole lines of a file; none where it is not there yet.
    pub(super) fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        text[..whole].lines().map(str::to_owned).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rsyslog,
    SyslogNg,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rsyslog => "rsyslog",
            Self::SyslogNg => "syslog-ng",
        }
    }

    /// The file of whole lines, as the recipe has it.
    pub(super) fn lines(self) -> &'static str {
        match self {
            Self::Rsyslog => "rsyslog-dropwatch.ndjson",
            Self::SyslogNg => "syslog-ng-dropwatch.ndjson",
        }
    }

    /// The file of fields, as the recipe has it.
    pub(super) fn fields(self) -> &'static str {
        match self {
            Self::Rsyslog => "rsyslog-dropwatch.log",
            Self::SyslogNg => "syslog-ng-dropwatch.log",
        }
    }

    /// What stands before the recipe, as in the file that a distribution includes it from.
    fn before(self, folder: &Folder) -> String {
        match self {
            // A module comes first, as in Debian's file; this one without the host's socket.
            Self::Rsyslog => format!(
                "module(load=\"imuxsock\" SysSock.Use=\"off\")\n$WorkDirectory {}\n",
                folder.0.path().display()
            ),
            Self::SyslogNg => "@version: current\n".to_owned(),
        }
    }

    fn recipe(self) -> String {
        recipe(match self {
            Self::Rsyslog => "/etc/rsyslog.d/30-dropwatch.conf",
            Self::SyslogNg => "/etc/syslog-ng/conf.d/dropwatch.conf",
        })
    }

    /// The program with everything that it writes in the folder.
    fn command(self, folder: &Folder, configuration: PathBuf) -> Command {
        let pid = folder.path("pid");
        match self {
            Self::Rsyslog => {
                let mut command = program("rsyslogd");
                command.arg("-n").arg("-f").arg(configuration).arg("-i").arg(pid);
                command
            }
            Self::SyslogNg => {
                let mut command = program("syslog-ng");
                command.args(["-F", "--no-caps", "-f"]).arg(configuration);
                command.arg("--persist-file").arg(folder.path("persist"));
                command.arg("--control").arg(folder.path("control")).arg("-p").arg(pid);
                command
            }
        }
    }
}

/// A log collector that runs.
pub(super) struct Collector<'a> {
    process: Process,
    kind: Kind,
    folder: &'a Folder,
}

impl<'a> Collector<'a> {
    pub(super) fn start(kind: Kind, folder: &'a Folder) -> Self {
        let text = kind.before(folder) + &folder.place(&kind.recipe());
        let configuration = folder.write("collector.conf", &text);
        // A killed one leaves it behind, and its successor would not start.
        let _absent = fs::remove_file(folder.path("pid"));
        let printed = fs::File::create(folder.path("collector.printed")).unwrap();
        let mut command = kind.command(folder, configuration);
        command.stdout(printed.try_clone().unwrap()).stderr(printed);
        Self { process: Process::start(&mut command), kind, folder }
    }

    /// Waits until it has handed on that many lines.
    pub(super) fn wait_for(&self, lines: usize) {
        let printed =
            || fs::read_to_string(self.folder.path("collector.printed")).unwrap_or_default();
        let deadline = Instant::now() + longer(PATIENCE);
        loop {
            let have = self.folder.lines(self.kind.lines()).len();
            if have >= lines {
                return;
            }
            assert!(Instant::now() < deadline, "{have} of {lines} lines: {}", printed());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it, and waits for that.
    pub(super) fn end(mut self, signal: Signal) {
        // Not before it knows the signal.
        wait_for("the pid file", || self.folder.path("pid").exists());
        kill(Pid::from_raw(i32::try_from(self.process.0.id()).unwrap()), signal).unwrap();
        wait_for("its end", || self.process.0.try_wait().unwrap().is_some());
    }
}
