//! `dropwatch`: where the Linux kernel drops packets, why, and how many.

use std::process::ExitCode;

use dropwatch::{
    cli::{self, Cli, Command},
    command::{complete, conntrack, cost, doctor, explain, replay, top, watch},
    exit::{self, Failure},
    settings::{Color, Terminal, message},
    verbose,
};

fn main() -> ExitCode {
    verbose::start(message);
    match run() {
        Ok(code) => code.into(),
        Err(failure) => {
            verbose::to_stderr(&failure.to_string());
            (&failure).into()
        }
    }
}

fn run_command(args: &cli::RunArgs, terminal: Terminal) -> Result<u8, Failure> {
    let typed = || std::env::args_os().skip(1);
    let (settings, command) = args.settings(args.is_parted(typed()), terminal)?;
    args.passed_on(typed()).iter().for_each(|note| verbose::to_stderr(note));
    watch::run(settings, &command)
}

fn run() -> Result<u8, Failure> {
    let terminal = Terminal::detect();
    let cli = Cli::from_args(terminal.medium(Color::Auto))?;
    let done = match &cli.command {
        Some(Command::Run(args)) => return run_command(args, terminal).map_err(Failure::in_run),
        None => watch::watch(cli.watch.settings(terminal)?),
        Some(Command::Complete { kind }) => complete::print(*kind),
        Some(Command::Conntrack(args)) => conntrack::show(&args.settings(terminal)),
        Some(Command::Doctor { cost: None }) => doctor::examine(terminal),
        Some(Command::Doctor { cost: Some(duration) }) => cost::measure(*duration, terminal),
        Some(Command::Top(args)) => top::watch(args.settings(terminal)?),
        Some(Command::Explain { words, json, color }) => {
            explain::explain(words, *json, terminal.medium(*color))
        }
        Some(Command::Replay { file, diff: Some(before), show, .. }) => {
            replay::compare(before, file, &show.comparison([before, file], terminal)?)
        }
        Some(Command::Replay { file, metrics: Some(address), series, show, .. }) => {
            show.check_served()?;
            replay::serve(file, series.at(*address))
        }
        Some(Command::Replay { file, pcap, show, .. }) => {
            replay::file(file, &show.replay(file, pcap, terminal)?)
        }
    };
    done.map(|()| exit::OK)
}
