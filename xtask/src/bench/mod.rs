//! `cargo xtask bench`: what watching drops costs each dropped packet, beside what others cost.
//!
//! Two measures, since neither tells all. The kernel's run-time statistics time each run of a
//! program, their own cost included, and repeat well; they do not know what the tracepoint itself
//! and its record cost, and perf has none. Wall-clock time of a flood has everything in it, and the
//! noise of the machine: so all are measured in turn, again and again, and the least counts.

mod empty;
mod growth;
#[path = "../../../dropwatch/src/probe/sys.rs"]
#[expect(dead_code, reason = "an empty program takes less than all of it")]
mod sys;
mod table;
mod tools;

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write as _},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    programs::{ProgramInfo, loaded_programs},
    sys::{Stats, enable_stats},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testbed::{
    command::die_with_parent, drops::other_station, flood::Wire, tracepoint::provide_tracefs,
    watch::Watch,
};

use self::{
    empty::Empty,
    table::{EXPRESSION, Row, Table},
    tools::{Frames, Kind, RECEIVER, TOOLS, Tool},
};
use crate::{
    project::{Project, find_command},
    root,
};

/// What a tool without a line to say so takes to attach, and what settles after it has.
const ATTACHING: Duration = Duration::from_millis(1_500);
const SETTLING: Duration = Duration::from_millis(100);
/// Floods by the clock, and as many by the kernel's statistics, for each tool in a round. Many short
/// ones: the likelier is one that nothing disturbed.
const FLOODS: usize = 20;
/// How long the end of a tool is waited for.
const ENDING: Duration = Duration::from_secs(20);

/// Measure what watching costs each drop: dropwatch, an empty program, bpftrace, perf.
///
/// Floods frames that nobody handles through namespaces of its own, with each tool attached in
/// turn. Needs root; takes some minutes. Tools that are not installed are left out, and said.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Rounds, in each of which every tool is measured once
    #[arg(long, default_value_t = 12)]
    rounds: usize,
    /// Frames of one flood, of which there are many for each tool in a round
    #[arg(long, default_value_t = 10_000)]
    frames: u64,
    /// Write the table as JSON, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum What {
    /// How cost grows with keys, CPUs and network namespaces
    ///
    /// Takes about two minutes; makes up to 1,000 network namespaces, which it removes again.
    Growth,
}

pub(crate) fn run(project: &Project, args: &Args) -> Result<ExitCode> {
    root::with_dropwatch(project, |binary| {
        ensure!(args.rounds > 0 && args.frames > 0, "nothing to measure");
        refuse_company()?;
        if let Some(What::Growth) = args.what {
            return growth::run(&binary);
        }
        // What perf and bpftrace know of tracepoints.
        provide_tracefs()?;
        let table = measure(&binary, args)?;
        let goals = table.goals();
        println!("{}", table.text());
        goals.iter().for_each(|goal| println!("{goal}"));
        if let Some(path) = &args.json {
            let json = serde_json::to_vec_pretty(&table)?;
            fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let missed = goals.iter().filter(|goal| !goal.is_reached()).count();
        ensure!(missed == 0, "{missed} of {} goals missed; is this machine busy?", goals.len());
        Ok(())
    })
}

fn measure(binary: &Path, args: &Args) -> Result<Table> {
    let mut tools: Vec<(&Tool, Row)> = Vec::new();
    for tool in &TOOLS {
        let typed = matches!(tool.kind, Kind::Dropwatch(_) | Kind::Empty { typed: true });
        let needed = match &tool.kind {
            Kind::Speaking(command) | Kind::Silent(command) => Some(command[0]),
            // Compiles the expression.
            Kind::Dropwatch(_) if tool.name == EXPRESSION => Some("tcpdump"),
            _ => None,
        };
        match needed.filter(|program| find_command(program).is_none()) {
            None => tools.push((tool, Row::new(tool.name, typed))),
            Some(program) => eprintln!("left out: {} ({program} is not installed)", tool.name),
        }
    }
    let wire = Wire::new()?;
    // The first flood finds cold caches.
    wire.flood(args.frames, Some(0))?;
    for round in 1..=args.rounds {
        eprintln!("==> round {round} of {}", args.rounds);
        // Each round starts with another one: what one leaves behind must not meet the same next.
        tools.rotate_left(1);
        for (tool, row) in &mut tools {
            once(tool, row, binary, &wire, args.frames)
                .with_context(|| format!("while {} watched", tool.name))?;
        }
    }
    let count = tools.len();
    tools.rotate_right(args.rounds % count);
    Ok(Table {
        frames: args.frames,
        rounds: args.rounds,
        floods: FLOODS,
        rows: tools.into_iter().map(|(_, row)| row).collect(),
    })
}

/// Floods by the clock and by the kernel's statistics, while `tool` watches.
fn once(tool: &Tool, row: &mut Row, binary: &Path, wire: &Wire, frames: u64) -> Result<()> {
    let others = program_ids();
    let watcher = Watcher::start(&tool.kind, binary, wire)?;
    thread::sleep(SETTLING);
    let programs = programs_beside(&others);
    let flood = || match tool.frames {
        Frames::Unhandled => wire.flood(frames, Some(0)),
        Frames::Datagrams => other_station::flood(wire, frames, Some(0)),
    };

    for _ in 0..FLOODS {
        let sent = flood()?;
        row.wall_ns.push(sent.elapsed.as_nanos() as f64 / frames as f64);
    }
    let mut sent = FLOODS as u64 * frames;
    if !programs.is_empty() {
        let _enabled = enable_stats(Stats::RunTime).context("cannot enable statistics")?;
        for _ in 0..FLOODS {
            let before = run_times(&programs)?;
            flood()?;
            let after = run_times(&programs)?;
            let (time, runs) = (after.0 - before.0, after.1 - before.1);
            ensure!(runs >= frames, "its program ran {runs} times in {frames} drops");
            row.run_ns.push(time as f64 / runs as f64);
        }
        sent *= 2;
    }
    if let Some(counted) = watcher.end(tool.frames)? {
        ensure!(counted == sent, "{counted} counted of {sent}");
        row.exact = Some(true);
    }
    Ok(())
}

/// A tool that has attached.
enum Watcher {
    Nobody,
    Empty(#[expect(dead_code, reason = "attached while it lives")] Empty),
    Dropwatch(Watch),
    Command(Child),
}

impl Watcher {
    fn start(kind: &Kind, binary: &Path, wire: &Wire) -> Result<Self> {
        Ok(match kind {
            Kind::Nobody => Self::Nobody,
            Kind::Empty { typed } => Self::Empty(Empty::attach(*typed)?),
            Kind::Dropwatch(options) => {
                let options = options.iter().map(|option| match *option {
                    RECEIVER => wire.receiver().name(),
                    option => option,
                });
                let mut command = Command::new(binary);
                Self::Dropwatch(Watch::start(command.arg("--json").args(options))?)
            }
            Kind::Speaking(words) => {
                let mut child = quiet(words, Stdio::piped())?;
                let stdout =
                    child.stdout.as_mut().context("a child without the output asked for")?;
                let mut byte = [0];
                io::Read::read_exact(stdout, &mut byte).context("it ended at once")?;
                thread::sleep(SETTLING);
                Self::Command(child)
            }
            Kind::Silent(words) => {
                let mut child = quiet(words, Stdio::null())?;
                thread::sleep(ATTACHING);
                ensure!(child.try_wait()?.is_none(), "it ended at once");
                Self::Command(child)
            }
        })
    }

    /// Ends it; the drops of frames that it has counted, where it is one of ours.
    fn end(self, frames: Frames) -> Result<Option<u64>> {
        match self {
            Self::Nobody | Self::Empty(_) => Ok(None),
            Self::Dropwatch(watch) => {
                let ended = watch.stop()?;
                ensure!(ended.status.success(), "it failed: {}", ended.stderr.trim());
                frames_counted(&ended.lines, frames).map(Some)
            }
            Self::Command(mut child) => {
                kill(Pid::from_raw(child.id().try_into()?), Signal::SIGINT)?;
                // bpftrace prints its map, which nobody reads.
                drop(child.stdout.take());
                let deadline = Instant::now() + ENDING;
                while child.try_wait()?.is_none() {
                    if Instant::now() > deadline {
                        child.kill()?;
                        child.wait()?;
                        bail!("it does not end");
                    }
                    thread::sleep(Duration::from_millis(10));
                }
                Ok(None)
            }
        }
    }
}

fn quiet(words: &[&str], stdout: Stdio) -> Result<Child> {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null());
    die_with_parent(&mut command).spawn().with_context(|| format!("cannot run {}", words[0]))
}

/// Drops where the frames die, in dropwatch's lines.
fn frames_counted(lines: &[String], frames: Frames) -> Result<u64> {
    let mut sum = 0;
    for line in lines {
        let line: serde_json::Value = serde_json::from_str(line)?;
        for row in line["locations"].as_array().into_iter().flatten() {
            let symbol = row["symbol"].as_str().unwrap_or_default();
            let counts = match frames {
                Frames::Unhandled => {
                    symbol.starts_with("__netif_receive_skb_core")
                        && row["reason"] != "NETFILTER_DROP"
                }
                Frames::Datagrams => row["reason"] == "OTHERHOST",
            };
            if counts {
                sum += row["count"].as_u64().unwrap_or(0);
            }
        }
    }
    Ok(sum)
}

/// Programs that were loaded since.
fn programs_beside(others: &BTreeSet<u32>) -> Vec<ProgramInfo> {
    loaded_programs().flatten().filter(|program| !others.contains(&program.id())).collect()
}

fn program_ids() -> BTreeSet<u32> {
    loaded_programs().flatten().map(|program| program.id()).collect()
}

/// Sum of run time, ns, and runs of the programs that ran.
fn run_times(programs: &[ProgramInfo]) -> Result<(u64, u64)> {
    let mut sums = (0, 0);
    for program in programs {
        let fd = program.fd().context("a program is gone")?;
        let (time, runs) = run_time(fd.as_fd())?;
        sums = (sums.0 + time, sums.1 + runs);
    }
    Ok(sums)
}

/// `run_time_ns` and `run_cnt` (`bpf_prog_show_fdinfo()`, kernel/bpf/syscall.c).
fn run_time(fd: BorrowedFd<'_>) -> Result<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.trim().parse().ok())
    };
    value("run_time_ns").zip(value("run_cnt")).context("this kernel shows no run-time statistics")
}

/// Whoever else watches would be measured, too.
fn refuse_company() -> Result<()> {
    let mut company = BTreeSet::new();
    for process in fs::read_dir("/proc").context("cannot list processes")?.flatten() {
        let Ok(files) = fs::read_dir(process.path().join("fdinfo")) else { continue };
        for file in files.flatten() {
            let text = fs::read_to_string(file.path()).unwrap_or_default();
            if text.lines().any(|line| line.trim_end() == "tp_name:\tkfree_skb") {
                let comm = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                let pid = process.file_name();
                company.insert(format!("{} (pid {})", comm.trim(), pid.display()));
            }
        }
    }
    ensure!(
        company.is_empty(),
        "others watch skb:kfree_skb and would be measured, too: {}",
        company.into_iter().collect::<Vec<_>>().join(", ")
    );
    let note = "Whoever watches through perf or ftrace cannot be seen from here: make sure of it.";
    writeln!(io::stderr(), "{note}")?;
    Ok(())
}
