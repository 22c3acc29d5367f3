//! `cargo xtask test`: every test there is, the ones on the real kernel included.

pub(crate) mod tally;

use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use testbed::{command::die_with_parent, unproved};

use crate::{
    ci::Sum,
    locks::Machine,
    process::CommandExt,
    project::{Project, cargo, find_command, is_root, path_folders},
    setup,
};
use tally::Tally;

/// The integration test target that drops real packets, and why its tests are marked ignored.
pub(crate) const HOST: &str = "host";
const HOST_REASON: &str = "needs root: cargo xtask test";
/// The module of its tests that are for guests alone, and why they are ignored.
const GUEST: &str = "guest::";
const GUEST_REASON: &str = "needs a guest: cargo xtask vm";

/// Run all tests: unit, integration, and those that drop real packets on this kernel.
///
/// Installs what they need first (see setup), asks for sudo where needed, and ends with one line,
/// `N passed, M failed`. What should run here and cannot is a failure, not a skip.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Leave out the tests on the real kernel, which need root; they are listed as skipped
    #[arg(long)]
    no_host: bool,
    /// Run only tests whose name contains this
    filter: Option<String>,
}

pub(crate) fn run(project: &Project, args: &Args) -> Result<ExitCode> {
    Ok(conclude(&tally(project, args)))
}

/// For `cargo xtask ci`: all of them.
pub(crate) fn all(project: &Project) -> Sum {
    let tally = tally(project, &Args::default());
    conclude(&tally);
    tally.sum()
}

fn tally(project: &Project, args: &Args) -> Tally {
    let mut tally = Tally::default();
    let filter = args.filter.as_deref();
    if args.no_host {
        tally.attempt(|tally| workspace(project, filter, tally));
    } else {
        tally.expect_elsewhere(&[HOST_REASON, GUEST_REASON]);
        tally.attempt(|_| setup::install(project, setup::For::Tests));
        let mut machine = None;
        tally.attempt(|_| {
            machine = Some(Machine::take()?);
            Ok(())
        });
        if machine.is_none() {
            return tally;
        }
        tally.attempt(|tally| workspace(project, filter, tally));
        tally.attempt(|tally| host(project, filter, None, tally));
    }
    tally
}

/// The host tests alone, on another kernel object than the shipped one.
pub(crate) fn host_alone(project: &Project, object: &Path) -> Result<ExitCode> {
    setup::install(project, setup::For::Tests)?;
    let _machine = Machine::take()?;
    let mut tally = Tally::default();
    tally.attempt(|tally| host(project, None, Some(object), tally));
    Ok(conclude(&tally))
}

fn conclude(tally: &Tally) -> ExitCode {
    println!();
    for skipped in tally.skipped() {
        println!("skipped: {skipped}");
    }
    tally.partly().iter().for_each(|line| println!("{line}"));
    println!("{tally}");
    if tally.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Everything that plain `cargo test` runs.
fn workspace(project: &Project, filter: Option<&str>, tally: &mut Tally) -> Result<()> {
    eprintln!("==> tests of the workspace");
    let mut command = Command::new(cargo());
    command.current_dir(&project.root);
    command.args(["test", "--workspace", "--locked", "--no-fail-fast"]).args(filter);
    let unproved = Unproved::new(project)?;
    command.env(unproved::FILE, &unproved.0);
    follow(&mut command, &unproved, tally)
}

/// The host tests, as root, one at a time: they share the kernel.
fn host(
    project: &Project,
    filter: Option<&str>,
    object: Option<&Path>,
    tally: &mut Tally,
) -> Result<()> {
    eprintln!("==> tests on this kernel, as root");
    let program = match (&project.packaged, object) {
        (Some(packaged), None) => packaged.clone(),
        _ => {
            let release = ["build", "--release", "--package", "dropwatch", "--bin", "dropwatch"];
            build(project, &release, "dropwatch", object)?
        }
    };
    let tests = build(project, &["test", "--workspace", "--no-run", "--test", HOST], HOST, object)?;
    let mut variables = vec![("DROPWATCH_BIN", OsString::from(program))];
    variables.push(("CARGO_MANIFEST_DIR", project.package().into()));
    variables.push(("PATH", env::join_paths(path_folders())?));

    let unproved = Unproved::new(project)?;
    variables.push((unproved::FILE, unproved.0.clone().into()));

    let mut command = as_root(&tests, &variables)?;
    command.current_dir(project.package());
    command.args(filter).args(["--include-ignored", "--test-threads=1", "--skip", GUEST]);
    follow(&mut command, &unproved, tally)
}

/// Whom sudo was called by. dropwatch heeds it, and tests expect a root that nobody else became.
const CALLER: [&str; 4] = ["SUDO_COMMAND", "SUDO_GID", "SUDO_UID", "SUDO_USER"];

fn as_root(program: &Path, variables: &[(&str, OsString)]) -> Result<Command> {
    if is_root() {
        let mut command = Command::new(program);
        for name in CALLER {
            command.env_remove(name);
        }
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        // The next run may begin when this program is gone, killed or not.
        die_with_parent(&mut command);
        return Ok(command);
    }
    let sudo = find_command("sudo")
        .context("the host tests need root, and there is no sudo; run this as root")?;
    let mut command = Command::new(sudo);
    command.args(["-E", "env"]).args(CALLER.map(|name| format!("--unset={name}")));
    for (name, value) in variables {
        let mut assignment = OsString::from(format!("{name}="));
        assignment.push(value);
        command.arg(assignment);
    }
    command.arg(program);
    Ok(command)
}

/// The file in which tests say that they prove nothing; it goes with this value.
struct Unproved(PathBuf);

impl Unproved {
    fn new(project: &Project) -> Result<Self> {
        let path = project.target().join(format!("unproved-{}", std::process::id()));
        fs::create_dir_all(project.target())
            .and_then(|()| fs::write(&path, ""))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self(path))
    }

    fn read(&self) -> Result<String> {
        fs::read_to_string(&self.0).with_context(|| format!("cannot read {}", self.0.display()))
    }
}

impl Drop for Unproved {
    fn drop(&mut self) {
        let _gone_or_never_there = fs::remove_file(&self.0);
    }
}

/// How long after the end of a test program its output may stay open.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

/// Runs a test program, passes its output on and counts what it says. An exit status that no
/// failed test explains (a crash, an error of the build) is an error.
fn follow(command: &mut Command, unproved: &Unproved, tally: &mut Tally) -> Result<()> {
    tally.begin();
    let failed_before = tally.failed();
    let quoted = command.quoted();
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run `{quoted}`"))?;
    let stdout = child.stdout.take().context("a child without the output asked for")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut lines = BufReader::new(stdout).split(b'\n');
        // Nobody takes them any more where the program has left somebody behind.
        while let Some(line) = lines.next()
            && sender.send(line).is_ok()
        {}
    });
    loop {
        match lines.recv_timeout(LEFT_BEHIND) {
            Ok(line) => {
                let line = line.with_context(|| format!("cannot read what `{quoted}` prints"))?;
                let line = String::from_utf8_lossy(&line);
                println!("{line}");
                tally.line(&line);
            }
            // What a failed test started may live on, with the output in its hands.
            Err(RecvTimeoutError::Timeout) if child.try_wait()?.is_none() => {}
            Err(_) => break,
        }
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{quoted}`"))?;
    tally.end_of_output();
    tally.unproved(&unproved.read()?);
    if !status.success() && tally.failed() == failed_before {
        bail!("`{quoted}` failed: {status}");
    }
    Ok(())
}

/// What cargo tells, one JSON object a line; the fields that matter here.
#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Builds one target and returns its executable.
fn build(
    project: &Project,
    arguments: &[&str],
    target: &str,
    object: Option<&Path>,
) -> Result<PathBuf> {
    let mut command = Command::new(cargo());
    command.current_dir(&project.root).args(arguments);
    if let Some(object) = object {
        command.env("DROPWATCH_OBJECT", object);
    }
    built(command, target)
}

/// Runs a build and returns the executable that it made of `target`.
pub(crate) fn built(mut command: Command, target: &str) -> Result<PathBuf> {
    command.args(["--locked", "--message-format=json-render-diagnostics"]);
    command.stderr(Stdio::inherit());
    let messages = command.read()?;
    executable(&messages, target)
        .with_context(|| format!("`{}` built no `{target}`", command.quoted()))
}

fn executable(messages: &str, target: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.target.as_ref().is_some_and(|t| t.name == target))
        .find_map(|message| message.executable)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const MESSAGES: &str = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"dropwatch"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"dropwatch"},"executable":"/t/debug/dropwatch"}
not JSON
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"host"},"executable":"/t/debug/deps/host-1f"}
{"reason":"build-finished","success":true}"#;

    #[test]
    fn the_executable_of_a_target() {
        assert_eq!(executable(MESSAGES, "host"), Some("/t/debug/deps/host-1f".into()));
        assert_eq!(executable(MESSAGES, "dropwatch"), Some("/t/debug/dropwatch".into()));
        assert_eq!(executable(MESSAGES, "cli"), None);
    }

    fn follow_script(script: &str) -> (Result<()>, String) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("xtask-unproved-{}-{number}", std::process::id());
        let unproved = Unproved(env::temp_dir().join(name));
        fs::write(&unproved.0, "").unwrap();
        let mut tally = Tally::default();
        let mut command = Command::new("sh");
        command.args(["-c", script]).env(unproved::FILE, &unproved.0);
        let result = follow(&mut command, &unproved, &mut tally);
        (result, tally.to_string())
    }

    #[test]
    fn a_test_that_says_that_it_proves_nothing_is_skipped() {
        let (result, tally) = follow_script(
            "echo 'running 2 tests'; echo 'test a::b ... ok'; echo 'test a::c ... ok'\n\
             echo 'unproved: a::c: no BTF' >>\"$DROPWATCH_TEST_UNPROVED\"\n\
             echo 'test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out'",
        );
        result.unwrap();
        assert_eq!(tally, "1 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn a_program_that_crashes_counts_as_a_failure() {
        let (result, tally) = follow_script("echo running 3 tests; kill -9 $$");
        result.unwrap();
        assert_eq!(tally, "0 passed, 1 failed");
    }

    #[test]
    fn who_is_left_behind_holds_nothing_up() {
        let begin = std::time::Instant::now();
        let (result, tally) = follow_script(
            "sleep 60 & echo running 1 test; echo 'test a::b ... ok'\n\
             echo 'test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out'\n\
             (sleep 20; kill $!) >/dev/null &",
        );
        result.unwrap();
        assert_eq!(tally, "1 passed, 0 failed");
        assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    }

    #[test]
    fn a_status_that_no_test_explains_is_an_error() {
        let (result, tally) = follow_script("echo hello; exit 101");
        let error = result.unwrap_err().to_string();
        assert_eq!(error, "`sh -c 'echo hello; exit 101'` failed: exit status: 101");
        assert_eq!(tally, "0 passed, 0 failed");
    }
}
