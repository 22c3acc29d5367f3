//! `cargo xtask figures`: what dropwatch itself needs, measured on this machine.
//!
//! The figures of `docs/performance.md`, each against its budget.

mod lossy;

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use aya::programs::loaded_links;
use clap::ValueEnum as _;
use testbed::{flood::Wire, watch::Watch};

use crate::{
    measure::{count_at, counters, keys, kilobytes, on_cpu},
    project::Project,
    root,
};

const MIB: f64 = 1024.0 * 1024.0;
/// Runs whose start is timed.
const STARTS: usize = 20;
/// Of the memory figure: reports, and locations in each.
const REPORTS: usize = 720;
const LOCATIONS: usize = 100;
/// How long the share of a core is measured, and the frames of one flood while it is.
const LOAD: Duration = Duration::from_secs(30);
const FRAMES: u64 = 200_000;

/// Measure what dropwatch itself needs: size, time to attach, memory, time under a flood.
///
/// Takes about three minutes and needs root. Prints the table of docs/performance.md; exits 1 when
/// a budget is exceeded.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// This one alone.
    only: Option<Which>,
}

/// One of the figures.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    Size,
    Start,
    Memory,
    Flood,
    Lossy,
}

pub(crate) fn run(project: &Project, args: &Args) -> Result<ExitCode> {
    root::with_dropwatch(project, |binary| {
        let asked = |which: &&Which| args.only.is_none_or(|only| only == **which);
        let figures = Which::value_variants().iter().filter(asked).map(|which| match which {
            Which::Size => size(&binary),
            Which::Start => attached(&binary),
            Which::Memory => memory(&binary),
            Which::Flood => under_flood(&binary),
            Which::Lossy => lossy::measure(&binary),
        });
        let figures: Vec<Figure> = figures.collect::<Result<_>>()?;
        println!("| figure | measured | budget |");
        println!("|---|---|---|");
        for figure in &figures {
            println!("| {} | {} | {} |", figure.what, figure.measured, figure.budget);
        }
        let over: Vec<_> =
            figures.iter().filter(|figure| !figure.within).map(|figure| figure.what).collect();
        ensure!(over.is_empty(), "over budget: {}", over.join("; "));
        Ok(())
    })
}

struct Figure {
    what: &'static str,
    measured: String,
    budget: &'static str,
    within: bool,
}

fn size(binary: &Path) -> Result<Figure> {
    let mib = fs::metadata(binary)?.len() as f64 / MIB;
    Ok(Figure {
        what: "release binary, stripped",
        measured: format!("{mib:.1} MiB"),
        budget: "6 MiB",
        within: mib <= 6.0,
    })
}

/// From the start of the process to the moment when the kernel lists its link to the tracepoint.
fn attached(binary: &Path) -> Result<Figure> {
    eprintln!("==> {STARTS} starts");
    let mut times = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        let before = newest_link();
        let mut command = Command::new(binary);
        command.args(["--json", "-i", "50ms", "-c", "1"]).stdout(Stdio::null());
        let start = Instant::now();
        let mut child = command.stderr(Stdio::null()).spawn().context("cannot run dropwatch")?;
        while newest_link() == before {
            ensure!(child.try_wait()?.is_none(), "dropwatch did not attach");
            thread::sleep(LOOKS);
        }
        times.push(start.elapsed());
        ensure!(child.wait()?.success(), "dropwatch failed");
    }
    times.sort();
    let (least, median) = (times[0], times[times.len() / 2]);
    Ok(Figure {
        what: "start to attached, median (least)",
        measured: format!("{} ms ({} ms)", median.as_millis(), least.as_millis()),
        budget: "60 ms",
        within: median <= Duration::from_millis(60),
    })
}

/// How often it is looked whether a program is attached.
const LOOKS: Duration = Duration::from_micros(300);

/// Numbers of links only grow.
fn newest_link() -> Option<u32> {
    loaded_links().flatten().map(|link| link.id()).max()
}

/// Resident memory after many reports of many locations.
///
/// Counts are written into the counters from outside. All that the user side does is real.
fn memory(binary: &Path) -> Result<Figure> {
    eprintln!("==> {REPORTS} reports of {LOCATIONS} locations (75 s)");
    let keys = keys(LOCATIONS)?;
    let mut command = Command::new(binary);
    command.args(["--json", "-i", "100ms", "-c", &REPORTS.to_string()]);
    let mut watch = Watch::start(&mut command)?;
    let status = format!("/proc/{}/status", watch.pid());
    let mut counters = counters()?;
    let done = AtomicBool::new(false);
    let (reports, resident) = thread::scope(|scope| -> Result<(usize, f64)> {
        let writer = scope.spawn(|| -> Result<()> {
            for count in 1.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                count_at(&mut counters, &keys, count)?;
                thread::sleep(Duration::from_millis(30));
            }
            Ok(())
        });
        let mut full = 0;
        let mut resident = 0.0;
        let read = loop {
            match watch.next_line(Duration::from_secs(5)) {
                Ok(Some(line)) => {
                    full += usize::from(line.matches("\"symbol\":").count() >= LOCATIONS);
                    resident = kilobytes(&status, "VmRSS:").unwrap_or(resident);
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        done.store(true, Ordering::Relaxed);
        match writer.join() {
            Ok(written) => written?,
            Err(_) => bail!("writing counts failed"),
        }
        read.map(|()| (full, resident / 1024.0))
    })?;
    ensure!(watch.finish()?.status.success(), "dropwatch failed");
    // The very first report may come before the first counts.
    ensure!(reports + 2 >= REPORTS, "only {reports} reports had all {LOCATIONS} locations");
    Ok(Figure {
        what: "resident after 720 reports of 100 locations",
        measured: format!("{resident:.1} MiB"),
        budget: "16 MiB",
        within: resident <= 16.0,
    })
}

/// Share of one core that the user side takes at the default interval while packets rain.
fn under_flood(binary: &Path) -> Result<Figure> {
    eprintln!("==> default interval under a flood ({} s)", LOAD.as_secs());
    let wire = Wire::new()?;
    let mut command = Command::new(binary);
    command.args(["--json", "-i", "5s"]);
    let watch = Watch::start(&mut command)?;
    // The names of the first report are looked up once in a run: not part of what goes on.
    wire.flood(FRAMES, None)?;
    thread::sleep(Duration::from_secs(6));
    let start = Instant::now();
    let before = on_cpu(watch.pid())?;
    let mut frames = 0;
    while start.elapsed() < LOAD {
        frames += wire.flood(FRAMES, None)?.accepted;
    }
    let (spent, elapsed) = (on_cpu(watch.pid())? - before, start.elapsed());
    ensure!(watch.stop()?.status.success(), "dropwatch failed");
    eprintln!("    {frames} frames, {spent:?} on a CPU in {elapsed:?}");
    let percent = spent.as_secs_f64() / elapsed.as_secs_f64() * 100.0;
    Ok(Figure {
        what: "share of one core at 5 s intervals under flood",
        measured: format!("{percent:.3} %"),
        budget: "0.2 %",
        within: percent <= 0.2,
    })
}
