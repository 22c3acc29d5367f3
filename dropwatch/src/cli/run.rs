//! The options of `dropwatch run`.

use std::{ffi::OsString, time::Duration};

use clap::{Args, ValueHint};

use super::{CountingArgs, PaceArgs, values::duration};

#[derive(Debug, Args)]
#[command(after_help = "\
Reports go to standard error, so that the command's output stays its own. For a
second before the command starts, drops are counted as a baseline: the summary
tells what is new. Signals go to the command. Under sudo it runs as the user who
called sudo.

Exit codes: the command's own; 128 and the number of the signal that ended it;
126 or 127 if it cannot be executed or found; 5 if more was dropped than
--fail-over or --fail-rate allow, or found that --fail-on forbids; 2 if the
options are wrong, before it is started; 125 if dropwatch itself fails.

Examples:
  sudo dropwatch run -- ab -c 900 -n 100000 http://gw/
  sudo dropwatch run -i 1s -o run.ndjson -- ./load-test.sh
  sudo dropwatch run --filter 'tcp port 80' -- ab -n 1000 URL
  sudo dropwatch run --fail-over 0 --fail-on critical -- make integration-test
  dropwatch replay --diff before.ndjson after.ndjson     (two recordings)")]
pub struct RunArgs {
    #[command(flatten)]
    pub pace: PaceArgs,
    /// Run the command as this user [default: whoever called sudo, else the caller]
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Username)]
    pub user: Option<String>,
    /// Time before the command starts, to compare with
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub baseline: Duration,
    /// Start the command at once, and compare with nothing
    #[arg(long, conflicts_with = "baseline")]
    pub no_baseline: bool,
    #[command(flatten)]
    pub what: CountingArgs,
    /// The command and its arguments, which begin where the first word is that is no option
    #[arg(
        value_name = "CMD",
        required = true,
        trailing_var_arg = true,
        value_hint = ValueHint::CommandWithArguments
    )]
    pub command: Vec<OsString>,
}

impl RunArgs {
    /// Whether `--` stands before the command: whoever writes that knows whose is what. `typed` is the
    /// whole command line, which the command is the end of.
    pub fn is_parted(&self, typed: impl Iterator<Item = OsString>) -> bool {
        let typed: Vec<OsString> = typed.collect();
        let before = typed.len().checked_sub(self.command.len() + 1);
        before.is_some_and(|before| typed[before] == "--")
    }

    /// That an option behind the command is the command's, where it is called as one of dropwatch's own and
    /// nothing parts them. `typed` is the whole command line.
    pub fn passed_on(&self, typed: impl Iterator<Item = OsString>) -> Option<String> {
        let (program, arguments) = self.command.split_first()?;
        if self.is_parted(typed) {
            return None;
        }
        let own = Self::augment_args(clap::Command::new("run"));
        let is_own = |name: &str| own.get_arguments().any(|own| own.get_long() == Some(name));
        let option = arguments.iter().filter_map(|word| {
            let name = word.to_str()?.strip_prefix("--")?;
            let name = name.split('=').next().unwrap_or(name);
            is_own(name).then(|| format!("--{name}"))
        });
        let (option, program) = (option.into_iter().next()?, program.to_string_lossy());
        Some(format!(
            "{option} behind {program} is passed on to it; dropwatch's own options stand before the \
             command, and -- between them says that this is meant"
        ))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn passed_on(line: &str) -> Option<String> {
        let words = || line.split(' ').map(OsString::from);
        Line::parse_from(words()).run.passed_on(words().skip(1))
    }

    #[test]
    fn what_stands_before_the_command_parts_it() {
        let is_parted = |line: &str| {
            let words = || line.split(' ').map(OsString::from);
            Line::parse_from(words()).run.is_parted(words().skip(1))
        };
        for line in ["run -- tcp -- id", "run --netns tcp -- tcp", "run -- id"] {
            assert!(is_parted(line), "{line}");
        }
        for line in ["run tcp -- id", "run --netns tcp tcp -- id", "run id", "run id -- x"] {
            assert!(!is_parted(line), "{line}");
        }
    }

    #[test]
    fn an_own_option_behind_the_command_is_said_to_be_its() {
        let said = passed_on("run true --fail-over 0").unwrap();
        assert!(said.starts_with("--fail-over behind true is passed on to it"), "{said}");
        assert!(passed_on("run true --fail-over=0").is_some());
        for line in [
            "run --fail-over 0 true",
            "run -- true --fail-over 0",
            "run ls --all-of-it",
            "run ls -a",
        ] {
            assert_eq!(passed_on(line), None, "{line}");
        }
    }
}
