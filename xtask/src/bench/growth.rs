//! `cargo xtask bench growth`: what more keys, more CPUs and more network namespaces cost.

use std::{path::Path, process::Command, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use aya::sys::{Stats, enable_stats};
use testbed::{flood::Wire, netns::Netns, udp::ClosedPort, udp::Family, watch::Watch};

use super::{program_ids, programs_beside, run_times};
use crate::measure::{count_at, counters, keys, kilobytes, on_cpu};

const KEYS: [usize; 5] = [1, 10, 100, 1_000, 10_000];
const NAMESPACES: [usize; 3] = [1, 100, 1_000];
/// Reports that are measured, once a second.
const REPORTS: usize = 6;
/// Reading that many keys may take this long.
const MANY: usize = 10_000;
const READ_BUDGET: Duration = Duration::from_millis(20);
/// Frames of one flood.
const FRAMES: u64 = 300_000;
const ROUNDS: usize = 5;

pub(super) fn run(binary: &Path) -> Result<()> {
    by_keys(binary)?;
    by_cpus(binary)?;
    by_namespaces(binary)
}

/// What a run of some reports came to.
struct Cost {
    /// Least time that reading the counters took.
    read: Duration,
    /// CPU time of the user side for one report.
    report: Duration,
    /// MiB.
    resident: f64,
}

/// Keys are written into the counter map from outside, between any two reports.
fn by_keys(binary: &Path) -> Result<()> {
    eprintln!("==> keys");
    println!("| keys | reading them, least | a report, CPU time | resident |");
    println!("|---|---|---|---|");
    for count in KEYS {
        let keys = keys(count)?;
        let mut times = 0;
        let options = ["--no-findings", "--no-samples", "-n", "0"];
        let cost = reports(binary, &options, || {
            times += 1;
            count_at(&mut counters()?, &keys, times)
        })?;
        let Cost { read, report, resident } = cost;
        println!(
            "| {count} | {} | {} | {resident:.1} MiB |",
            milliseconds(read),
            milliseconds(report)
        );
        let fast = count < MANY || read <= READ_BUDGET;
        ensure!(fast, "reading {count} keys took {read:?}, of {READ_BUDGET:?} allowed");
    }
    println!();
    Ok(())
}

/// Runs dropwatch for some reports, with `work` before each.
fn reports(binary: &Path, options: &[&str], mut work: impl FnMut() -> Result<()>) -> Result<Cost> {
    let mut command = Command::new(binary);
    // One more at either end: the first has the start in it, the last the end.
    let count = (REPORTS + 2).to_string();
    command.args(["--json", "-v", "-i", "1s", "-c", &count]).args(options);
    let mut watch = Watch::start(&mut command)?;
    let (pid, status) = (watch.pid(), format!("/proc/{}/status", watch.pid()));
    let mut on_cpu_at = Vec::new();
    let mut resident = 0.0;
    work()?;
    while on_cpu_at.len() <= REPORTS {
        let line = watch.next_line(Duration::from_secs(20))?.context("it ended too soon")?;
        if line.contains("\"type\":\"report\"") {
            // What a report leaves to do, such as reading evidence for the next, is part of it.
            thread::sleep(Duration::from_millis(400));
            on_cpu_at.push(on_cpu(pid)?);
            resident = kilobytes(&status, "VmRSS:").unwrap_or(resident) / 1024.0;
            work()?;
        }
    }
    let ended = watch.finish()?;
    ensure!(ended.status.success(), "dropwatch failed: {}", ended.stderr.trim());
    let spent = on_cpu_at[REPORTS].saturating_sub(on_cpu_at[0]);
    let reads = ended.stderr.lines().filter_map(read_time).skip(1);
    Ok(Cost {
        read: reads.min().context("it did not say how long reading took")?,
        report: spent / REPORTS as u32,
        resident,
    })
}

/// The time in a line of `-v`, such as `read 100 counters in 265.114µs`.
fn read_time(line: &str) -> Option<Duration> {
    let (_, rest) = line.split_once("counters in ")?;
    let time = rest.split([' ', ',']).next()?.trim();
    // The longer units end with the shorter ones' letter.
    [("ns", 1e-9), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)].into_iter().find_map(
        |(unit, seconds)| {
            let value: f64 = time.strip_suffix(unit)?.parse().ok()?;
            Duration::try_from_secs_f64(value * seconds).ok()
        },
    )
}

/// One flood on one CPU, and two at once on two. More CPUs than there are cannot be had.
fn by_cpus(binary: &Path) -> Result<()> {
    eprintln!("==> CPUs");
    let wires = [Wire::new()?, Wire::new()?];
    println!("| CPUs that drop | in the kernel, ns a drop: median (least) of {ROUNDS} |");
    println!("|---|---|");
    for cpus in 1..=wires.len() {
        let others = program_ids();
        let mut command = Command::new(binary);
        let watch = Watch::start(command.args(["--json", "--no-findings"]))?;
        let programs = programs_beside(&others);
        let _enabled = enable_stats(Stats::RunTime).context("cannot enable statistics")?;
        let mut costs = Vec::new();
        for _ in 0..ROUNDS {
            let before = run_times(&programs)?;
            thread::scope(|scope| {
                let floods: Vec<_> = wires[..cpus]
                    .iter()
                    .enumerate()
                    .map(|(cpu, wire)| scope.spawn(move || wire.flood(FRAMES, Some(cpu))))
                    .collect();
                floods.into_iter().try_for_each(|flood| match flood.join() {
                    Ok(sent) => sent.map(drop),
                    Err(_) => anyhow::bail!("a flood failed"),
                })
            })?;
            let after = run_times(&programs)?;
            let runs = after.1 - before.1;
            ensure!(runs >= FRAMES * cpus as u64, "{runs} runs of {cpus} floods");
            costs.push((after.0 - before.0) as f64 / runs as f64);
        }
        ensure!(watch.stop()?.status.success(), "dropwatch failed");
        costs.sort_by(f64::total_cmp);
        println!("| {cpus} | {:.0} ({:.0}) |", costs[ROUNDS / 2], costs[0]);
    }
    println!();
    Ok(())
}

/// Namespaces that exist: their names are read, and up to 256 of them for findings.
fn by_namespaces(binary: &Path) -> Result<()> {
    let mut spaces = Vec::new();
    let closed = ClosedPort::new()?;
    println!("| network namespaces | a report, CPU time | resident |");
    println!("|---|---|---|");
    for count in NAMESPACES {
        eprintln!("==> {count} network namespaces");
        while spaces.len() < count {
            spaces.push(Netns::new("grow")?);
        }
        let cost = reports(binary, &[], || closed.send(Family::V4, 100))?;
        println!("| {count} | {} | {:.1} MiB |", milliseconds(cost.report), cost.resident);
    }
    Ok(())
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_unit() {
        let read = |text: &str| read_time(&format!("dropwatch: read 5 counters in {text}"));
        assert_eq!(read("1.5ms"), Some(Duration::from_micros(1500)));
        assert_eq!(read("265µs"), Some(Duration::from_micros(265)));
        assert_eq!(read("12ns"), Some(Duration::from_nanos(12)));
        assert_eq!(read("2s"), Some(Duration::from_secs(2)));
        assert_eq!(read_time("dropwatch: attaching counts: attached"), None);
    }
}
