//! Completions for the shells that people have.

use clap::Command;
use clap_complete::{Generator, Shell, generate};

const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// File names, as each shell expects them, and contents.
pub(crate) fn all(command: &Command) -> Vec<(String, Vec<u8>)> {
    let name = command.get_name();
    let files = SHELLS.iter().map(|shell| {
        let mut content = Vec::new();
        if *shell == Shell::Bash {
            content = bash(command, name);
        } else {
            generate(*shell, &mut visible(command), name, &mut content);
        }
        (shell.file_name(name), content)
    });
    files.collect()
}

/// Clap's script does not find its own subcommands if the name has a hyphen, so it is made for a
/// name without, and registered for the right one.
fn bash(command: &Command, name: &str) -> Vec<u8> {
    let plain = name.replace('-', "_");
    let mut content = Vec::new();
    generate(Shell::Bash, &mut visible(command).name(plain.clone()), plain.as_str(), &mut content);
    let content = String::from_utf8_lossy(&content);
    let last = |line: &str| match line.strip_suffix(&format!(" {plain}")) {
        Some(line) if line.trim_start().starts_with("complete ") => format!("{line} {name}\n"),
        _ => format!("{line}\n"),
    };
    content.lines().map(last).collect::<String>().into_bytes()
}

/// What help shows of a command: completions of clap offer what is hidden, too, and there is no
/// way to take something away from a command.
fn visible(command: &Command) -> Command {
    let mut shown = Command::new(command.get_name().to_owned())
        .args(command.get_arguments().filter(|argument| !argument.is_hide_set()).cloned())
        .subcommands(command.get_subcommands().filter(|sub| !sub.is_hide_set()).map(visible));
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    if let Some(version) = command.get_version() {
        shown = shown.version(version.to_owned());
    }
    shown.visible_aliases(command.get_visible_aliases().map(str::to_owned).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use clap::{Arg, CommandFactory};
    use dropwatch::cli::Cli;

    use super::*;

    fn text(command: &Command) -> Vec<(String, String)> {
        let text = |(name, content)| (name, String::from_utf8(content).unwrap());
        all(command).into_iter().map(text).collect()
    }

    #[test]
    fn every_shell_knows_every_command_and_option() {
        let command = Cli::command();
        let files = text(&command);
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["dropwatch.bash", "_dropwatch", "dropwatch.fish"]);
        for (name, content) in &files {
            for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
                assert!(content.contains(sub.get_name()), "{} in {name}", sub.get_name());
            }
            for option in ["interval", "pcap", "netns", "snaplen"] {
                assert!(content.contains(option), "{option} in {name}");
            }
        }
    }

    /// The words that bash offers for the last of `words`.
    fn offered(script: &str, words: &[&str]) -> String {
        let call = r#"
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            [[ $(complete -p "$1") =~ -F\ ([^ ]+) ]]
            "${BASH_REMATCH[1]}" "$1" "${!#}" "${COMP_WORDS[COMP_CWORD - 1]}"
            echo "${COMPREPLY[*]}""#;
        let mut bash = std::process::Command::new("bash");
        let output = bash.args(["-c", &format!("{script}\n{call}"), "bash"]).args(words).output();
        String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn bash_completes_whatever_the_name() {
        for name in ["dropwatch", "dropwatch-ebpf"] {
            let command = crate::name::rename(Cli::command(), name);
            let script = &text(&command)[0].1;
            assert_eq!(offered(script, &[name, "--interv"]), "--interval");
            assert_eq!(offered(script, &[name, "--format", "c"]), "classic");
            assert_eq!(offered(script, &[name, "conntrack", "--wat"]), "--watch");
            assert_eq!(offered(script, &[name, "repl"]), "replay");
        }
    }

    #[test]
    fn what_help_hides_is_not_offered() {
        let secret = Command::new("secret").hide(true);
        let plain = Command::new("plain").arg(Arg::new("b").long("quiet").hide(true));
        let command = Command::new("x").subcommand(secret).subcommand(plain);
        for (name, content) in text(&command) {
            assert!(content.contains("plain"), "{name}");
            assert!(!content.contains("secret") && !content.contains("quiet"), "{name}");
        }
    }
}
