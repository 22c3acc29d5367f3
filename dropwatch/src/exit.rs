//! How the program ends: exit codes, and the failures behind them.

use std::process::ExitCode;

/// Fine: the run ended as asked, or the reader of the output went away.
pub const OK: u8 = 0;
/// Something failed while running.
pub const RUNTIME: u8 = 1;
/// The command line asks for something that cannot be.
pub const USAGE: u8 = 2;
/// A capability is missing; the message names it.
pub const PRIVILEGE: u8 = 3;
/// The kernel lacks a feature; the message names it.
pub const KERNEL: u8 = 4;
/// More was dropped than `--fail-over` or `--fail-rate` allow, or found that `--fail-on` forbids.
pub const THRESHOLD: u8 = 5;
/// `dropwatch run` failed by itself. Every other status may be its command's, but for [`USAGE`] and
/// [`THRESHOLD`], which say so on standard error.
pub const RUN: u8 = 125;

/// Why a run ended early. Displays as one line: the thing, the cause, the way out.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Privilege(String),
    #[error("{0}")]
    Kernel(String),
    #[error("{0}")]
    Threshold(String),
    /// While a command ran, whose status must not be taken for this.
    #[error("{0}")]
    Run(Box<Failure>),
    #[error("{0:#}")]
    Runtime(#[from] anyhow::Error),
}

impl Failure {
    /// Has a failure of a run with a command keep clear of the command's own exit status. A wrong
    /// command line is found before the command is started, which has no status then.
    pub fn in_run(self) -> Self {
        match self {
            Self::Threshold(_) | Self::Usage(_) => self,
            other => Self::Run(Box::new(other)),
        }
    }

    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Privilege(_) => PRIVILEGE,
            Self::Kernel(_) => KERNEL,
            Self::Threshold(_) => THRESHOLD,
            Self::Run(_) => RUN,
            Self::Runtime(_) => RUNTIME,
        }
    }
}

impl From<&Failure> for ExitCode {
    fn from(failure: &Failure) -> Self {
        failure.code().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_command_line_is_usage_with_a_command_too() {
        let code = |failure: Failure| failure.in_run().code();
        assert_eq!(code(Failure::Usage("x".to_owned())), USAGE);
        assert_eq!(code(Failure::Threshold("x".to_owned())), THRESHOLD);
        for failure in [
            Failure::Privilege("x".to_owned()),
            Failure::Kernel("x".to_owned()),
            Failure::Runtime(anyhow::anyhow!("x")),
        ] {
            assert_eq!(code(failure), RUN);
        }
    }
}
