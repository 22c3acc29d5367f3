//! `dropwatch`: where the Linux kernel drops packets, why, and how many.

use std::process::ExitCode;

use dropwatch::{
    app,
    cli::{Cli, Command},
    conntrack, cost, doctor,
    exit::Failure,
    explain, render, replay,
    settings::{Conntrack, Replay, Terminal, Watch},
};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("dropwatch: {}", render::clean(&failure.to_string()));
            (&failure).into()
        }
    }
}

fn run() -> Result<(), Failure> {
    let cli = Cli::from_args()?;
    let terminal = Terminal::stdout();
    match &cli.command {
        None => app::watch(&Watch::new(&cli.watch, terminal)?),
        Some(Command::Conntrack(args)) => conntrack::show(&Conntrack::new(args, terminal)),
        Some(Command::Doctor { cost: None }) => doctor::examine(terminal),
        Some(Command::Doctor { cost: Some(duration) }) => cost::measure(*duration, terminal),
        Some(Command::Explain { name, json, color }) => {
            explain::explain(name.as_deref(), *json, terminal.color(*color))
        }
        Some(Command::Replay { file, pcap, show }) => {
            replay::file(file, &Replay::new(show, pcap, terminal)?)
        }
    }
}
