//! Completions for the shells that people have.
//!
//! Clap's scripts know options and fixed values. What other values can be, this host's namespaces,
//! say, the program itself tells (`dropwatch __complete KIND`): such an argument gets a mark for its
//! only value, and the mark is exchanged for a call of the program.

use clap::{Arg, Command, builder::PossibleValue};
use clap_complete::{Generator, Shell, generate};

const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// Arguments whose values the program tells, by the command where that matters, and their kinds.
const ASKED: [(Option<&str>, &str, &str); 6] = [
    (None, "reason", "reason"),
    (None, "symbol", "symbol"),
    (None, "netns", "netns"),
    (None, "iface", "iface"),
    (None, "proto", "proto"),
    (Some("explain"), "words", "topic"),
];

/// File names, as each shell expects them, and contents.
pub(crate) fn all(command: &Command) -> Vec<(String, Vec<u8>)> {
    let name = command.get_name();
    let files = SHELLS.iter().map(|shell| {
        let content = match shell {
            Shell::Bash => bash(command, name),
            Shell::Zsh => zsh(&script(Shell::Zsh, visible(command), name), name),
            _ => fish(&script(Shell::Fish, visible(command), name), command, name),
        };
        (shell.file_name(name), content.into_bytes())
    });
    files.collect()
}

fn script(shell: Shell, mut command: Command, name: &str) -> String {
    let mut content = Vec::new();
    generate(shell, &mut command, name, &mut content);
    String::from_utf8_lossy(&content).into_owned()
}

/// What stands in a script for the values of one kind.
fn mark(kind: &str) -> String {
    format!("@{kind}@")
}

/// `script` with every mark exchanged; `call` makes what takes the place of `before` a mark `after`.
fn exchange(script: String, [before, after]: [&str; 2], call: impl Fn(&str) -> String) -> String {
    ASKED.iter().fold(script, |script, (_, _, kind)| {
        script.replace(&format!("{before}{}{after}", mark(kind)), &call(kind))
    })
}

/// Clap's script does not find its own subcommands if the name has a hyphen, so it is made for a
/// name without, and registered for the right one.
fn bash(command: &Command, name: &str) -> String {
    let plain = name.replace('-', "_");
    let content = script(Shell::Bash, visible(command).name(plain.clone()), &plain);
    let last = |line: &str| match line.strip_suffix(&format!(" {plain}")) {
        Some(line) if line.trim_start().starts_with("complete ") => format!("{line} {name}\n"),
        _ => format!("{line}\n"),
    };
    let content = content.lines().map(last).collect();
    // Within the double quotes of a list of words.
    exchange(content, ["", ""], |kind| format!("$({name} __complete {kind} 2>/dev/null)"))
}

/// The function that asks stands before the line that calls the script's own, which is the last.
fn zsh(script: &str, name: &str) -> String {
    let ask = format!("_{name}_values");
    let call = |kind: &str| format!("{{{ask} {kind}}}");
    let content = exchange(script.to_owned(), ["(", ")"], call);
    let last = "if [ \"$funcstack[1]\" = ";
    let function = format!(
        "(( $+functions[{ask}] )) ||\n{ask}() {{\n    local -a values\n    \
         values=(${{(f)\"$({name} __complete $1 2>/dev/null)\"}})\n    \
         compadd -a values\n}}\n\n{last}"
    );
    content.replacen(last, &function, 1)
}

/// Clap's script says nothing of arguments without an option, so that fish offers files for them.
fn fish(script: &str, command: &Command, name: &str) -> String {
    let call = |kind: &str| format!("({name} __complete {kind} 2>/dev/null)");
    // An option whose value is being typed has none yet, which clap's script takes for an error:
    // then it offers nothing of its own.
    let words = "    set -e cmd[1]\n";
    let without = "    string match -q -- '-*' $cmd[-1]; and set -e cmd[-1]\n";
    let script = script.replacen(words, &format!("{words}{without}"), 1);
    let mut content = exchange(script, ["", "\\t''"], call);
    let function = name.replace('-', "_");
    let mut none = |condition: &str, values: &str| {
        content += &format!("complete -c {name} -n \"{condition}\" -f{values}\n");
    };
    none(&format!("__fish_{function}_needs_command"), "");
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let condition = format!("__fish_{function}_using_subcommand {}", sub.get_name());
        match sub.get_positionals().next() {
            None => none(&condition, ""),
            Some(argument) => {
                if let Some(kind) = asked(sub, argument) {
                    none(&condition, &format!(" -a \"{}\"", call(kind)));
                }
            }
        }
    }
    content
}

/// The kind of values that the program tells of an argument.
fn asked(command: &Command, argument: &Arg) -> Option<&'static str> {
    let here = |of: &Option<&str>| of.is_none_or(|name| name == command.get_name());
    ASKED.iter().find(|(of, id, _)| here(of) && argument.get_id() == id).map(|(_, _, kind)| *kind)
}

/// What help shows of a command: completions of clap offer what is hidden, too, and there is no
/// way to take something away from a command.
fn visible(command: &Command) -> Command {
    let shown = |argument: &Arg| match asked(command, argument) {
        Some(kind) => argument.clone().value_parser([PossibleValue::new(mark(kind))]),
        None => argument.clone(),
    };
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let mut shown = Command::new(command.get_name().to_owned())
        .args(arguments.map(shown))
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
    use std::sync::atomic::{AtomicU32, Ordering};

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

    /// A folder with a program `name` that tells what it was asked for.
    struct Asked(std::path::PathBuf);

    impl Asked {
        fn new(name: &str) -> Self {
            use std::os::unix::fs::PermissionsExt;
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let folder = format!("completions-{name}-{}-{n}", std::process::id());
            let folder = std::env::temp_dir().join(folder);
            std::fs::create_dir_all(folder.join("files")).unwrap();
            std::fs::write(folder.join("files/a-file"), "").unwrap();
            let program =
                "#!/bin/sh\n[ \"$1\" = __complete ] && echo $2-one && echo $2-two && echo other";
            let path = folder.join(name);
            std::fs::write(&path, program).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            Self(folder)
        }

        /// What a shell prints, in a folder with one file, with the program where it is looked for.
        fn run(&self, shell: &str, arguments: &[&str]) -> String {
            let path = format!("{}:{}", self.0.display(), std::env::var("PATH").unwrap());
            let mut command = std::process::Command::new(shell);
            command.args(arguments).env("PATH", path).current_dir(self.0.join("files"));
            command.env("HOME", &self.0).stdin(std::process::Stdio::null());
            let output = command.output();
            let output = output.unwrap_or_else(|error| {
                panic!("cannot run {shell}, which `cargo xtask setup` installs: {error}")
            });
            String::from_utf8(output.stdout).unwrap()
        }
    }

    impl Drop for Asked {
        fn drop(&mut self) {
            let _gone = std::fs::remove_dir_all(&self.0);
        }
    }

    /// What is typed, and the words that are offered for its end.
    fn expected() -> Vec<(&'static str, Vec<String>)> {
        let two = |kind: &str| vec![format!("{kind}-one"), format!("{kind}-two")];
        vec![
            ("--reason re", two("reason")),
            ("--symbol sy", two("symbol")),
            ("top --netns ne", two("netns")),
            ("run --iface if", two("iface")),
            ("conntrack --netns ne", two("netns")),
            ("--proto pr", two("proto")),
            ("explain to", two("topic")),
            ("run --fail-on cr", vec!["critical".to_owned()]),
            ("--output a-", vec!["a-file".to_owned()]),
            ("replay a-", vec!["a-file".to_owned()]),
        ]
    }

    const NAMES: [&str; 2] = ["dropwatch", "dropwatch-ebpf"];

    #[test]
    fn bash_offers_what_the_program_tells() {
        for name in NAMES {
            let asked = Asked::new(name);
            let script = &text(&crate::name::rename(Cli::command(), name))[0].1;
            let call = r#"
                COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
                [[ $(complete -p "$1") =~ -F\ ([^ ]+) ]]
                "${BASH_REMATCH[1]}" "$1" "${!#}" "${COMP_WORDS[COMP_CWORD - 1]}" 2> /dev/null
                ((${#COMPREPLY[@]})) || COMPREPLY=($(compgen -f -- "${!#}"))
                printf '%s\n' "${COMPREPLY[@]}""#;
            for (typed, offered) in expected() {
                let line = format!("{name} {typed}");
                let words: Vec<&str> = line.split(' ').collect();
                let script = format!("{script}\n{call}");
                let printed =
                    asked.run("bash", &[&["-c", &script, "bash"], words.as_slice()].concat());
                let printed: Vec<&str> = printed.lines().collect();
                assert_eq!(printed, offered, "{line}");
            }
        }
    }

    #[test]
    fn fish_offers_what_the_program_tells_and_files_where_they_belong() {
        for name in NAMES {
            let asked = Asked::new(name);
            let path = asked.0.join("script.fish");
            std::fs::write(&path, &text(&crate::name::rename(Cli::command(), name))[2].1).unwrap();
            let offered = |typed: &str| {
                let ask = "source $argv[1]; complete -C $argv[2]";
                let line = format!("{name} {typed}");
                let printed = asked.run("fish", &["-N", "-c", ask, path.to_str().unwrap(), &line]);
                let word = |line: &str| line.split('\t').next().unwrap_or_default().to_owned();
                printed.lines().map(word).collect::<Vec<_>>()
            };
            for (typed, words) in expected() {
                assert_eq!(offered(typed), words, "{name} {typed}");
            }
            for typed in ["", "--json ", "top ", "conntrack ", "doctor ", "explain "] {
                let words = offered(typed);
                assert!(!words.iter().any(|word| word == "a-file"), "{typed}: {words:?}");
            }
            assert!(offered("").iter().any(|word| word == "explain"));
        }
    }

    /// zsh completes at a terminal alone, so what it is given to call is called.
    #[test]
    fn zsh_asks_the_program() {
        for name in NAMES {
            let asked = Asked::new(name);
            let script = &text(&crate::name::rename(Cli::command(), name))[1].1;
            let path = asked.0.join("script.zsh");
            std::fs::write(&path, script).unwrap();
            for (_, id, kind) in ASKED {
                let call = format!("{{_{name}_values {kind}}}'");
                assert!(script.contains(&call), "{id}: {script}");
                let ask = r#"
                    compdef() {}
                    source $1
                    compadd() { print -rl -- ${(P)2} }
                    $2 $3"#;
                let function = format!("_{name}_values");
                let file = path.to_str().unwrap();
                let printed = asked.run("zsh", &["-f", "-c", ask, "zsh", file, &function, kind]);
                assert_eq!(printed, format!("{kind}-one\n{kind}-two\nother\n"));
            }
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
