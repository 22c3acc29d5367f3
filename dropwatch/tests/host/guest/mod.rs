//! What a host must not be put through: modules that come and go, a clock that is set, another
//! tool that attaches, a card of a kind that it need not have. These run in guests of the tests' own
//! (`cargo xtask vm`).

mod candidates;
mod clock;
mod modules;
mod notices;
mod peer;
mod reasons;
mod transmitted;

use std::process::Command;

use testbed::{command::output, machine};

/// Refuses to run on a machine that somebody needs.
fn need_guest() {
    assert!(machine::is_guest(), "this test changes its machine: cargo xtask vm");
}

fn run(program: &str, arguments: &str) {
    output(Command::new(program).args(arguments.split_whitespace())).unwrap();
}
