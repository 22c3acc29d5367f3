//! `dropwatch`: where the Linux kernel drops packets, why, and how many.

use std::process::ExitCode;

use dropwatch::{
    cli::{self, Cli, Command},
    command::{complete, conntrack, cost, doctor, explain, replay, top, watch},
    exit::{self, Failure},
    settings::{self, Conntrack, Replay, Show, Terminal, Watch},
    verbose,
};

fn main() -> ExitCode {
    match run() {
        Ok(code) => code.into(),
        Err(failure) => {
            verbose::to_stderr(&failure.to_string());
            (&failure).into()
        }
    }
}

fn run_command(args: &cli::Run, terminal: Terminal) -> Result<u8, Failure> {
    let (watch, command) = settings::Command::new(args, terminal)?;
    watch::run(&watch, &command)
}

fn run() -> Result<u8, Failure> {
    let terminal = Terminal::detect();
    let cli = Cli::from_args(terminal.medium(cli::Color::Auto))?;
    let done = match &cli.command {
        Some(Command::Run(args)) => return run_command(args, terminal).map_err(Failure::in_run),
        None => watch::watch(&Watch::new(&cli.watch, terminal)?),
        Some(Command::Complete { kind }) => complete::print(*kind),
        Some(Command::Conntrack(args)) => conntrack::show(&Conntrack::new(args, terminal)),
        Some(Command::Doctor { cost: None }) => doctor::examine(terminal),
        Some(Command::Doctor { cost: Some(duration) }) => cost::measure(*duration, terminal),
        Some(Command::Top(args)) => top::watch(&Watch::top(args, terminal)?),
        Some(Command::Explain { words, json, color }) => {
            explain::explain(words, *json, terminal.medium(*color))
        }
        Some(Command::Replay { file, diff: Some(before), show, .. }) => {
            replay::compare(before, file, &Show::comparison(show, terminal)?)
        }
        Some(Command::Replay { file, metrics: Some(address), .. }) => replay::serve(file, *address),
        Some(Command::Replay { file, pcap, show, .. }) => {
            replay::file(file, &Replay::new(show, pcap, terminal)?)
        }
    };
    done.map(|()| exit::OK)
}
