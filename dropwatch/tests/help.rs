//! What `--help` says, word for word: changes show in a diff. `cargo xtask bless` accepts them.

use clap::CommandFactory;
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

#[test]
fn help_fits_eighty_columns() {
    for path in [&[][..], &["replay"], &["doctor"], &["explain"], &["conntrack"]] {
        for line in help(path).lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
