//! Running other programs: a failed one is quoted in the error, and none outlives the testbed.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Output},
};

use anyhow::{Context, Result, bail};
use nix::sys::{prctl::set_pdeathsig, signal::Signal};

/// Runs `command` to its end and returns what it wrote to standard output.
///
/// # Errors
/// When it cannot be started or ends with another status than 0; the error quotes the command
/// line and what it wrote to standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let line = quote(command);
    let Output { status, stdout, stderr } =
        command.output().with_context(|| format!("cannot run `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status}): {}", String::from_utf8_lossy(&stderr).trim());
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// The command line as one would type it, near enough for an error message.
pub fn quote(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Has the kernel kill the process when the thread that starts it ends, so that not even SIGKILL
/// to the testbed leaves it behind.
///
/// The setting survives `execve`, but not a change of user (`prctl(2)`, PR_SET_PDEATHSIG).
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    // SAFETY: the closure runs between fork and exec, where only async-signal-safe calls are
    // allowed; prctl is one system call and touches no memory.
    unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_quotes_command_and_stderr() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such link >&2; exit 3"]);
        let error = output(&mut command).unwrap_err().to_string();
        assert!(error.contains("sh -c"), "{error}");
        assert!(error.contains("no such link"), "{error}");
        assert!(error.contains('3'), "{error}");
    }
}
