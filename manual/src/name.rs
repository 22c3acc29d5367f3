//! A distribution may have to give the command another name.

use clap::Command;

/// What the program calls itself.
pub(crate) const OWN: &str = "dropwatch";

/// Calls `command` by `name`, in the examples of its help, too.
pub(crate) fn rename(command: Command, name: &str) -> Command {
    examples(command, name).name(name.to_owned()).bin_name(name)
}

fn examples(command: Command, name: &str) -> Command {
    let help = command.get_after_help().map(|text| called(&text.to_string(), name));
    let long = command.get_after_long_help().map(|text| called(&text.to_string(), name));
    // Setting none would not be the same as leaving it alone: it takes away what is inherited.
    let command = match help {
        Some(text) => command.after_help(text),
        None => command,
    };
    let command = match long {
        Some(text) => command.after_long_help(text),
        None => command,
    };
    command.mut_subcommands(|command| examples(command, name))
}

/// `text` with the command's name exchanged: the whole word, not `dropwatch.stp`.
fn called(text: &str, name: &str) -> String {
    let within = |c: char| c.is_alphanumeric() || "-_./".contains(c);
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(OWN) {
        let (before, after) = (&rest[..at], &rest[at + OWN.len()..]);
        let word = !before.ends_with(within) && !after.starts_with(within);
        result.push_str(before);
        result.push_str(if word { name } else { OWN });
        rest = after;
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use dropwatch::cli::Cli;

    use super::*;

    #[test]
    fn only_the_command_is_renamed() {
        let text = "  sudo dropwatch -i 1s  `dropwatch replay x`\n  the output of dropwatch.stp";
        let renamed = "  sudo other -i 1s  `other replay x`\n  the output of dropwatch.stp";
        assert_eq!(called(text, "other"), renamed);
        assert_eq!(called("dropwatch", "dropwatch-x"), "dropwatch-x");
        assert_eq!(
            called("/usr/bin/dropwatch-x dropwatchd", "y"),
            "/usr/bin/dropwatch-x dropwatchd"
        );
        assert_eq!(called(text, OWN), text);
    }

    #[test]
    fn usage_and_examples_follow() {
        let mut command = rename(Cli::command(), "dropwatch-x");
        let help = command.render_help().to_string();
        assert!(help.contains("Usage: dropwatch-x "), "{help}");
        assert!(help.contains("sudo dropwatch-x -i 1s"), "{help}");
        assert!(help.contains("dropwatch.stp"), "{help}");
    }
}
