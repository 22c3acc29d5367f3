//! What `--help` says, word for word: changes show in a diff. `cargo xtask bless` accepts them.

use std::process::Command;

use clap::{CommandFactory, Parser};
use dropwatch::cli::Cli;

/// Help of the command named by `path`, 80 columns wide.
fn help(path: &[&str]) -> String {
    help_on(80, path)
}

fn help_on(columns: usize, path: &[&str]) -> String {
    let mut command = Cli::command().term_width(columns);
    command.build();
    let mut found = &mut command;
    for name in path {
        found = found.find_subcommand_mut(name).expect("a subcommand");
    }
    found.render_long_help().to_string()
}

#[test]
fn help_of_a_live_run() {
    insta::assert_snapshot!(help(&[]));
}

#[test]
fn help_of_run() {
    insta::assert_snapshot!(help(&["run"]));
}

#[test]
fn help_of_top() {
    insta::assert_snapshot!(help(&["top"]));
}

#[test]
fn help_of_replay() {
    insta::assert_snapshot!(help(&["replay"]));
}

#[test]
fn help_of_doctor() {
    insta::assert_snapshot!(help(&["doctor"]));
}

#[test]
fn help_of_explain() {
    insta::assert_snapshot!(help(&["explain"]));
}

#[test]
fn help_of_conntrack() {
    insta::assert_snapshot!(help(&["conntrack"]));
}

/// What a shell makes of an example: its words, without what it is for and what goes to files.
fn words(line: &str) -> Vec<String> {
    let line = line.trim();
    let command = &line[..line.find("  ").unwrap_or(line.len())];
    let command = command.split(['<', '>']).next().unwrap_or_default();
    let script = format!("for word in {command}; do printf '%s\\n' \"$word\"; done");
    let output = Command::new("sh").args(["-c", &script]).output().expect("sh");
    assert!(output.status.success(), "{line}: {output:?}");
    let words = String::from_utf8(output.stdout).expect("UTF-8");
    words.lines().filter(|word| *word != "sudo").map(str::to_owned).collect()
}

#[test]
fn help_of_each_command_ends_with_examples_that_can_be_typed() {
    let names: Vec<String> = Cli::command()
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(|command| command.get_name().to_owned())
        .collect();
    let paths: Vec<Vec<&str>> =
        std::iter::once(Vec::new()).chain(names.iter().map(|name| vec![name.as_str()])).collect();
    assert!(paths.len() > 5);
    for path in paths {
        let mut command = Cli::command().term_width(80);
        command.build();
        let mut found = &mut command;
        for name in &path {
            found = found.find_subcommand_mut(name).expect("a subcommand");
        }
        let help = found.render_help().to_string();
        let last = help.trim_end().rsplit("\n\n").next().unwrap();
        let mut lines = last.lines();
        assert_eq!(lines.next(), Some("Examples:"), "{path:?}: {help}");
        let mut own = 0;
        for line in lines {
            let words = words(line);
            assert_eq!(words[0], "dropwatch", "{line}");
            own += usize::from(path.iter().eq(words[1..].iter().take(path.len())));
            if let Err(error) = Cli::try_parse_from(&words) {
                panic!("{line}: {error}");
            }
        }
        assert!(own > 0, "{path:?}");
    }
}

/// The commit that git has for these sources, and the hash of the object that ships with them.
#[test]
fn the_version_tells_the_commit_and_the_kernel_object() {
    let printed = |option| {
        let output = Command::new(env!("CARGO_BIN_EXE_dropwatch")).arg(option).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let short = format!("dropwatch {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(printed("-V"), short);
    let long = printed("--version");
    let rest = long.strip_prefix(&short).unwrap_or_else(|| panic!("{long}"));
    let (commit, object) = rest.split_once('\n').unwrap();
    let commit = commit.strip_prefix("commit ").unwrap();
    let commit = commit.strip_suffix("-modified").unwrap_or(commit);

    let package = env!("CARGO_MANIFEST_DIR");
    let packed = std::path::Path::new(package).join(".cargo_vcs_info.json");
    match std::fs::read_to_string(packed) {
        Ok(packed) => assert!(packed.contains(commit), "{commit}: {packed}"),
        Err(_) => {
            let git = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(package).output();
            let git = git.ok().filter(|git| git.status.success());
            let head = git.map(|git| String::from_utf8(git.stdout).unwrap().trim().to_owned());
            assert_eq!(commit, head.as_deref().unwrap_or("unknown"));
        }
    }
    let sum = Command::new("sha256sum").arg("bpf/dropwatch.bpf.o").current_dir(package).output();
    let sum = String::from_utf8(sum.unwrap().stdout).unwrap();
    let hash = sum.split_whitespace().next().unwrap();
    assert_eq!(object, format!("kernel object sha256:{hash}\n"));
}

#[test]
fn help_fits_eighty_columns() {
    for path in
        [&[][..], &["run"], &["top"], &["replay"], &["doctor"], &["explain"], &["conntrack"]]
    {
        for line in help(path).lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
