//! Running other programs: whatever fails is quoted in the error, with its exit status.

use std::{ffi::OsStr, process::Command};

use anyhow::{Context, Result, bail};

pub(crate) trait CommandExt {
    /// Runs it in the foreground; fails unless it succeeds.
    fn check(&mut self) -> Result<()>;
    /// Runs it and returns its standard output; fails, with its standard error, unless it succeeds.
    fn read(&mut self) -> Result<String>;
    /// The command as one would type it, for messages.
    fn quoted(&self) -> String;
}

impl CommandExt for Command {
    fn check(&mut self) -> Result<()> {
        let status = self.status().with_context(|| format!("cannot run `{}`", self.quoted()))?;
        if !status.success() {
            bail!("`{}` failed: {status}", self.quoted());
        }
        Ok(())
    }

    fn read(&mut self) -> Result<String> {
        let output = self.output().with_context(|| format!("cannot run `{}`", self.quoted()))?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("`{}` failed: {}: {}", self.quoted(), output.status, stderr.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn quoted(&self) -> String {
        let words = std::iter::once(self.get_program()).chain(self.get_args());
        words.map(quote).collect::<Vec<_>>().join(" ")
    }
}

/// A word as a shell reads it back.
pub(crate) fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "-_=./:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_quotes_the_command_and_its_status() {
        let error = Command::new("sh").args(["-c", "echo no >&2; exit 3"]).read().unwrap_err();
        assert_eq!(error.to_string(), "`sh -c 'echo no >&2; exit 3'` failed: exit status: 3: no");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Command::new("/no/such program").check().unwrap_err();
        assert_eq!(error.to_string(), "cannot run `'/no/such program'`");
    }

    #[test]
    fn single_quotes_survive() {
        assert_eq!(quote(OsStr::new("it's")), r"'it'\''s'");
        assert_eq!(quote(OsStr::new("")), "''");
    }
}
