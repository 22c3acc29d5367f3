use std::path::Path;

use clap::{CommandFactory, Parser};

use crate::{
    cli::{Cli, Command, PcapArgs},
    settings::{Stream, Terminal},
};

const FILE: Stream = Stream { is_terminal: false, color: false, columns: None };
const SCREEN: Stream = Stream { is_terminal: true, color: true, columns: Some(80) };
const PIPE: Terminal = Terminal { stdout: FILE, stderr: FILE, dumb: false, ascii: false };
const TTY: Terminal = Terminal { stdout: SCREEN, stderr: SCREEN, dumb: false, ascii: false };

/// What is wrong with a command line; `None` where it is taken.
fn refused(line: &str) -> Option<String> {
    let words = line.split_whitespace();
    let cli = match Cli::try_parse_from(["dropwatch"].into_iter().chain(words)) {
        Ok(cli) => cli,
        Err(error) => return Some(error.to_string()),
    };
    let settled = match &cli.command {
        None => cli.watch.settings(PIPE).map(drop),
        Some(Command::Run(args)) => args.settings(true, PIPE).map(drop),
        Some(Command::Top(args)) => args.settings(TTY).map(drop),
        Some(Command::Replay { file, diff: Some(before), show, .. }) => {
            show.comparison([before, file], PIPE).map(drop)
        }
        Some(Command::Replay { metrics: Some(_), show, .. }) => show.check_served(),
        Some(Command::Replay { file, show, .. }) => {
            show.replay(Path::new(file), &PcapArgs { pcap: None, snaplen: None }, PIPE).map(drop)
        }
        Some(_) => Ok(()),
    };
    settled.err().map(|failure| failure.to_string())
}

/// How an output is asked for.
const OUTPUTS: [&str; 5] = ["", "--json", "--classic", "--each", "--each --json"];
/// Where what is counted goes besides.
const BESIDE: [&str; 3] = ["", "-o f", "--metrics 1"];

/// Where an option does something, as (outputs, with `-o`, with `--metrics`) of [`OUTPUTS`]: `y` where it
/// is taken, `-` where it is refused.
struct Row(&'static str, [&'static str; 3]);

/// Every option of a live run that has to do with what is shown, counted or written.
const LIVE: &[Row] = &[
    // text, json, classic, each, each json; the same with -o; the same with --metrics
    Row("--interval 1s", ["yyy--", "yyyyy", "yyyyy"]),
    Row("--count 1", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--duration 1s", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--stacks", ["yy---", "yyyyy", "yy---"]),
    Row("--samples", ["-y--y", "yyyyy", "-y--y"]),
    Row("--every", ["yy-yy", "yyyyy", "yy-yy"]),
    Row("--no-samples", ["yyy--", "yyy--", "yyy--"]),
    Row("--no-findings", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--pcap p", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--snaplen 64", ["-----", "-----", "-----"]),
    Row("--pcap p --snaplen 64", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--output g", ["yyyyy", "-----", "yyyyy"]),
    Row("--metrics 2", ["yyyyy", "yyyyy", "-----"]),
    Row("--metrics-namespaces 5", ["-----", "-----", "yyyyy"]),
    Row("--fail-over 1", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--fail-rate 1", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--fail-rate 1 --interval 1s", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--fail-on critical", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--by cpu", ["yy---", "yy-yy", "yy-yy"]),
    Row("--verbose", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--top 1", ["yy---", "yy---", "yy---"]),
    Row("--top 0", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--format text", ["y--y-", "y--y-", "y--y-"]),
    Row("--all", ["yy---", "yy---", "yy---"]),
    Row("--addresses", ["yy-yy", "yy-yy", "yy-yy"]),
    Row("--color always", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--reason X", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--symbol x", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--netns x", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--iface x", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--proto tcp", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--host 10.0.0.1", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--port 1", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--tcp-flags syn", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--length 1-", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--mark 1", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--direction in", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--filter tcp", ["yyyyy", "yyyyy", "yyyyy"]),
    Row("--later", ["-----", "-----", "-----"]),
    Row("--later --port 1", ["-----", "-----", "-----"]),
    Row("--later --netns x", ["yyyyy", "yyyyy", "yyyyy"]),
];

#[test]
fn every_option_does_something_in_every_format_or_is_refused() {
    let mut wrong = Vec::new();
    for Row(option, expected) in LIVE {
        for (beside, expected) in BESIDE.iter().zip(expected) {
            for (output, expected) in OUTPUTS.iter().zip(expected.chars()) {
                let line = format!("{option} {output} {beside}");
                let refused = refused(&line);
                if refused.is_none() != (expected == 'y') {
                    wrong.push(format!("{line}: {refused:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A new option has to be thought about in the table above.
#[test]
fn every_option_of_a_live_run_is_in_the_table() {
    let forgotten: Vec<String> = Cli::command()
        .get_arguments()
        .filter_map(|argument| argument.get_long())
        .filter(|name| !["json", "classic", "each", "candidate"].contains(name))
        .map(|name| format!("--{name}"))
        .filter(|name| !LIVE.iter().any(|Row(option, _)| option.split(' ').any(|it| it == name)))
        .collect();
    assert_eq!(forgotten, [""; 0]);
}

#[test]
fn the_sum_of_a_commands_run_has_intervals() {
    for line in ["run --each -i 1s id", "run --each -o f -g id", "run -i 1s id"] {
        assert_eq!(refused(line), None, "{line}");
    }
    for line in
        ["run --each -g id", "run --each --by cpu id", "run --each --all id", "run --later id"]
    {
        assert!(refused(line).is_some(), "{line}");
    }
}

#[test]
fn a_recording_leaves_no_choice_about_some_things() {
    for line in [
        "replay f --all -n 3",
        "replay f --json --all -n 3",
        "replay f --each --json",
        "replay f --classic -n 0",
        "replay f --diff g -n 3",
        "replay f --diff g --json",
        "replay f --metrics 1 --metrics-namespaces 3",
        "top --later --netns x",
    ] {
        assert_eq!(refused(line), None, "{line}");
    }
    for line in [
        "replay f --addresses",
        "replay f --each --all",
        "replay f --each -n 3",
        "replay f --classic --all",
        "replay f --diff g --all",
        "replay f --diff g --addresses",
        "replay f --diff g --json -n 3",
        "replay f --metrics 1 --json",
        "replay f --metrics 1 --each",
        "replay f --metrics 1 --classic",
        "replay f --metrics 1 --format text",
        "replay f --metrics 1 -n 3",
        "replay f --metrics 1 --all",
        "replay f --metrics 1 --addresses",
        "replay f --metrics-namespaces 3",
        "replay f --snaplen 64",
        "top --later",
    ] {
        assert!(refused(line).is_some(), "{line}");
    }
}
