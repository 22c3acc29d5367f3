//! Completions for the shells that people have.
//!
//! Clap's scripts know options and fixed values. What other values can be, this host's namespaces,
//! say, the program itself tells (`dropwatch __complete KIND`): such an argument gets a mark for its
//! only value, and the mark is exchanged for a call of the program.
//!
//! Values may stand behind others (`--by netns,iface`) and behind a sign (`--reason '!NO_SOCKET'`), of
//! which clap's scripts know nothing: what stands before the last comma or exclamation mark is kept, and
//! the rest is completed.

use clap::{Arg, Command, ValueHint, builder::PossibleValue};
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

/// An argument with fixed values, of which several may be given with commas between.
struct List {
    id: String,
    /// Each with what it means.
    values: Vec<(String, String)>,
}

/// The lists of a command and those below it, each once.
fn lists(command: &Command) -> Vec<List> {
    let own = command.get_arguments().filter(|argument| is_list(argument)).map(|argument| {
        let values = argument.get_possible_values().into_iter().map(|value| {
            let help = value.get_help().map(ToString::to_string).unwrap_or_default();
            (value.get_name().to_owned(), help)
        });
        List { id: argument.get_id().to_string(), values: values.collect() }
    });
    let mut all: Vec<List> = own.chain(command.get_subcommands().flat_map(lists)).collect();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all.dedup_by(|a, b| a.id == b.id);
    all
}

fn is_list(argument: &Arg) -> bool {
    argument.get_value_delimiter().is_some() && !argument.get_possible_values().is_empty()
}

/// File names, as each shell expects them, and contents.
pub(crate) fn all(command: &Command) -> Vec<(String, Vec<u8>)> {
    let name = command.get_name();
    let files = SHELLS.iter().map(|shell| {
        let content = match shell {
            Shell::Bash => bash(command, name),
            Shell::Zsh => zsh(&script(Shell::Zsh, visible(command), name), command, name),
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

/// What stands in a script for the values of one kind, or of one list.
fn mark(kind: &str) -> String {
    format!("@{kind}@")
}

/// `script` with the marks of `kinds` exchanged; `call` makes what takes the place of `before` a mark
/// `after`.
fn exchange<'a>(
    script: String,
    kinds: impl IntoIterator<Item = &'a str>,
    [before, after]: [&str; 2],
    call: impl Fn(&str) -> String,
) -> String {
    kinds.into_iter().fold(script, |script, kind| {
        script.replace(&format!("{before}{}{after}", mark(kind)), &call(kind))
    })
}

fn asked_kinds() -> impl Iterator<Item = &'static str> {
    ASKED.iter().map(|(_, _, kind)| *kind)
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
    let mut content: String = content.lines().map(last).collect();
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        if let Some(argument) = sub.get_positionals().next() {
            let begin = format!("\n        {plain}__subcmd__{})\n", sub.get_name());
            content = with_words(content, &begin, sub.get_name(), argument);
        }
    }
    // Within the double quotes of a list of words.
    let tell = |kind: &str| format!("$({name} __complete {kind} 2>/dev/null)");
    content = exchange(content, asked_kinds(), ["", ""], tell);
    for List { id, values } in lists(command) {
        let words: Vec<&str> = values.iter().map(|(value, _)| value.as_str()).collect();
        content = content.replace(&mark(&id), &words.join(" "));
    }
    let offer = format!("_{plain}_offer");
    let content = content
        .replace("COMPREPLY=($(compgen -W \"", &format!("COMPREPLY=($({offer} \"${{cur}}\" \""));
    let content = content.replace(
        "\" -- \"${cur}\"))\n                    return 0",
        "\"))\n                    return 0",
    );
    format!(
        "# Words for $1, of which all to its last comma or exclamation mark is kept.\n\
         {offer}() {{\n    local kept=\"${{1%\"${{1##*[,!]}}\"}}\"\n    \
         compgen -P \"${{kept}}\" -W \"$2\" -- \"${{1#\"${{kept}}\"}}\"\n}}\n\n{content}"
    )
}

/// Bash's `script` with files, or commands, for an argument of the subcommand `name` whose part begins
/// with `begin`: for a word that is still empty, clap's script offers options alone.
fn with_words(script: String, begin: &str, name: &str, argument: &Arg) -> String {
    // Where nothing is offered, bash offers files by itself.
    let words = match argument.get_value_hint() {
        ValueHint::AnyPath | ValueHint::FilePath => String::new(),
        ValueHint::CommandWithArguments => format!(
            "[[ ${{prev}} == {name} || ${{prev}} == -- ]] && \
             COMPREPLY=( $(compgen -c -- \"${{cur}}\") )\n            "
        ),
        _ => return script,
    };
    let Some(at) = script.find(begin) else { return script };
    let (before, part) = script.split_at(at);
    let end = part.find("\n            ;;\n").unwrap_or(part.len());
    let (part, after) = part.split_at(end);
    let part = part.replacen(" || ${COMP_CWORD} -eq 2 ]]", " ]]", 1);
    let last = "COMPREPLY=( $(compgen -W \"${opts}\" -- \"${cur}\") )\n            return 0";
    let part = match part.strip_suffix(last) {
        Some(part) => format!("{part}{words}return 0"),
        None => part,
    };
    format!("{before}{part}{after}")
}

/// The functions that offer values stand before the line that calls the script's own, which is the
/// last.
fn zsh(script: &str, command: &Command, name: &str) -> String {
    let ask = format!("_{name}_values");
    let content =
        exchange(script.to_owned(), asked_kinds(), ["(", ")"], |kind| format!("{{{ask} {kind}}}"));
    let keep = "    compset -P '*[,!]'\n";
    let mut functions = format!(
        "(( $+functions[{ask}] )) ||\n{ask}() {{\n    local -a values\n    \
         values=(${{(f)\"$({name} __complete $1 2>/dev/null)\"}})\n{keep}    \
         compadd -a values\n}}\n\n"
    );
    let mut content = content;
    for List { id, values } in lists(command) {
        let function = format!("_{name}_{id}");
        content = content.replace(&format!("({})", mark(&id)), &format!("{{{function}}}"));
        let quoted = |text: &str| text.replace('\'', r"'\''");
        let values = values.iter().map(|(value, help)| format!("'{value}:{}'", quoted(help)));
        let values: Vec<String> = values.collect();
        functions += &format!(
            "(( $+functions[{function}] )) ||\n{function}() {{\n    local -a values\n    \
             values=({})\n{keep}    _describe value values\n}}\n\n",
            values.join(" ")
        );
    }
    let last = "if [ \"$funcstack[1]\" = ";
    content.replacen(last, &format!("{functions}{last}"), 1)
}

/// Clap's script says nothing of arguments without an option, so that fish offers files for them.
fn fish(script: &str, command: &Command, name: &str) -> String {
    let function = name.replace('-', "_");
    let call = |kind: &str| format!("(__fish_{function}_values {kind})");
    // An option whose value is being typed has none yet, which clap's script takes for an error:
    // then it offers nothing of its own.
    let words = "    set -e cmd[1]\n";
    let without = "    string match -q -- '-*' $cmd[-1]; and set -e cmd[-1]\n";
    let script = script.replacen(words, &format!("{words}{without}"), 1);
    let mut content = exchange(script, asked_kinds(), ["", "\\t''"], call);
    let mut functions = format!(
        "# Each of the values, behind what is kept of the word that is typed: all to its last comma or\n\
         # exclamation mark.\n\
         function __fish_{function}_behind\n    \
         set -l word (string trim -l -c '\\'\"' -- (commandline -ct)\"\")\n    \
         set -l kept (string replace -r '[^,!]*$' '' -- \"$word\")\n    \
         for value in $argv\n        printf '%s\\n' \"$kept$value\"\n    end\nend\n\n\
         function __fish_{function}_values\n    \
         __fish_{function}_behind ({name} __complete $argv 2>/dev/null)\nend\n\n"
    );
    for List { id, values } in lists(command) {
        let offer = format!("__fish_{function}_{id}");
        content = content.replace(&format!("{}\\t''", mark(&id)), &format!("({offer})"));
        let quoted = |text: &str| text.replace('\\', r"\\").replace('\'', r"\'");
        let values = values.iter().map(|(value, help)| format!("{value}\\t'{}'", quoted(help)));
        let values: Vec<String> = values.collect();
        functions += &format!(
            "function {offer}\n    __fish_{function}_behind {}\nend\n\n",
            values.join(" ")
        );
    }
    let mut none = |condition: &str, values: &str| {
        content += &format!("complete -c {name} -n \"{condition}\" -f{values}\n");
    };
    none(&format!("__fish_{function}_needs_command"), "");
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let condition = format!("__fish_{function}_using_subcommand {}", sub.get_name());
        match sub.get_positionals().next() {
            None => none(&condition, ""),
            // Not the name of a file.
            Some(argument) if argument.get_value_hint() == ValueHint::Other => none(&condition, ""),
            Some(argument) => {
                if let Some(kind) = asked(sub, argument) {
                    none(&condition, &format!(" -a \"{}\"", call(kind)));
                }
            }
        }
    }
    functions + &content
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
        None if is_list(argument) => {
            let id = mark(argument.get_id().as_str());
            argument.clone().value_parser([PossibleValue::new(id)])
        }
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
            ("replay ", vec!["a-file".to_owned()]),
            ("replay --json ", vec!["a-file".to_owned()]),
            ("--by if", vec!["iface".to_owned()]),
            ("--by netns,if", vec!["netns,iface".to_owned()]),
            ("run --by netns,iface,c", vec!["netns,iface,cpu".to_owned()]),
            ("--reason !re", vec!["!reason-one".to_owned(), "!reason-two".to_owned()]),
            ("top --netns !ne", vec!["!netns-one".to_owned(), "!netns-two".to_owned()]),
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
                    compset() { print -r -- "kept: $2" }
                    compadd() { print -rl -- ${(P)2} }
                    $2 $3"#;
                let function = format!("_{name}_values");
                let file = path.to_str().unwrap();
                let printed = asked.run("zsh", &["-f", "-c", ask, "zsh", file, &function, kind]);
                assert_eq!(printed, format!("kept: *[,!]\n{kind}-one\n{kind}-two\nother\n"));
            }
            assert!(script.contains(&format!(":KEY:{{_{name}_by}}'")), "{script}");
            let ask = r#"
                compdef() {}
                source $1
                compset() { print -r -- "kept: $2" }
                _describe() { print -rl -- ${(P)2} }
                $2"#;
            let function = format!("_{name}_by");
            let printed =
                asked.run("zsh", &["-f", "-c", ask, "zsh", path.to_str().unwrap(), &function]);
            let expected = "kept: *[,!]\nnetns:Network namespace\niface:Interface";
            assert!(printed.starts_with(expected), "{printed}");
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
