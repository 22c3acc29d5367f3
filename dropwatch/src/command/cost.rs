//! `dropwatch doctor --cost`: what counting costs on this host, measured while it happens.

use std::{
    io,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Context;
use caps::Capability;
use dropwatch_common::offsets::Offsets;

use crate::{
    command::doctor::title,
    exit::Failure,
    kernel::{self, HostNames, HostRoot},
    privilege,
    probe::{Prepared, Requested, RunTime, measure_run_time},
    render::{
        doctor::{DoctorCheck, Mark, Section, doctor},
        words::Bytes,
    },
    report::number::exact_per_second,
    session::meter::share_of_a_core,
    settings::{Color, Terminal},
    sink::output::ended_by_reader,
    verbose,
};

/// How often samples are collected meanwhile, as a run does at each report.
const COLLECTING: Duration = Duration::from_secs(1);

/// Attaches as a run does by default, has the kernel measure it for some time, and prints what came
/// of it.
///
/// # Errors
/// As for a run, and without `CAP_SYS_ADMIN`, which measuring takes.
pub fn measure(duration: Duration, terminal: Terminal) -> Result<(), Failure> {
    privilege::preflight()?;
    if !privilege::may_use(Capability::CAP_SYS_ADMIN) {
        return Err(Failure::Privilege(
            "missing CAP_SYS_ADMIN, needed to have the kernel measure programs: run with sudo"
                .to_owned(),
        ));
    }
    let root = HostRoot::default();
    let mut names = HostNames::open(&root);
    let prepared = Prepared::new()?;
    let offsets = names.offsets().unwrap_or(Offsets::NONE);
    let requested = Requested { offsets, netns: true, samples: true, ..Requested::default() };
    let mut probe = prepared.attach(&requested)?;

    verbose::to_stderr(&format!("measuring for {duration:?}, while others drop packets"));
    let measuring = measure_run_time().context("the kernel does not measure programs")?;
    let (start, before) = (Instant::now(), probe.run_time().context("cannot read run times")?);
    while let Some(left) = duration.checked_sub(start.elapsed()) {
        sleep(left.min(COLLECTING));
        probe.samples(|netns| netns.inum).context("cannot collect samples")?;
    }
    let cost = probe.run_time().context("cannot read run times")?.since(before);
    let elapsed = start.elapsed();
    let memory = probe.kernel_memory();
    drop(measuring);
    probe.detach();

    let section =
        Section { title: "What counting costs here", checks: checks(cost, elapsed, memory) };
    let title = title(&kernel::host(&root));
    let out = &mut io::stdout().lock();
    let written = doctor(&title, &[section], verdict(cost), terminal.medium(Color::Auto), out);
    ended_by_reader(written).map(drop)
}

/// `memory` is what the maps take in the kernel, bytes.
fn checks(cost: RunTime, elapsed: Duration, memory: Option<u64>) -> Vec<DoctorCheck> {
    let seconds = elapsed.as_secs_f64();
    let rate = exact_per_second(cost.runs, seconds);
    let mut checks = vec![DoctorCheck::new(
        Mark::Note,
        "dropped meanwhile",
        format!("{} in {seconds:.1} s ({rate:.0}/s)", cost.runs),
    )];
    if let Some(each) = cost.each() {
        checks.push(DoctorCheck::new(Mark::Note, "to count one", format!("{each:.0} ns")));
        let share = share_of_a_core(cost, elapsed);
        checks.push(DoctorCheck::new(Mark::Note, "all of them", format!("{share} of a core")));
    }
    if let Some(memory) = memory {
        checks.push(DoctorCheck::new(
            Mark::Note,
            "memory in the kernel",
            Bytes(memory).to_string(),
        ));
    }
    checks
}

fn verdict(cost: RunTime) -> &'static str {
    if cost.runs == 0 {
        "Nothing was dropped, so nothing ran in the kernel: there is no cost to measure. Try it \
         while packets are being dropped."
    } else {
        "The kernel measured every run of the program. What measuring takes, some tens of \
         nanoseconds a drop, is in these figures, and not in other runs."
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::Medium;

    fn page(cost: RunTime) -> String {
        let section = Section {
            title: "What counting costs here",
            checks: checks(cost, Duration::from_secs(5), Some(1_572_864)),
        };
        let mut page = Vec::new();
        doctor("dropwatch", &[section], verdict(cost), Medium::default(), &mut page).unwrap();
        String::from_utf8(page).unwrap()
    }

    #[test]
    fn a_flood_is_shown_in_nanoseconds_and_shares() {
        let page = page(RunTime { runs: 4_000_000, time: Duration::from_millis(160) });
        assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
        for line in ["4000000 in 5.0 s (800000/s)", "40 ns", "3.20 % of a core", "1.5 MiB"] {
            assert!(page.contains(line), "{page}");
        }
    }

    #[test]
    fn where_nothing_drops_there_is_nothing_to_divide() {
        let page = page(RunTime::default());
        assert!(page.contains("0 in 5.0 s (0/s)") && page.contains("nothing ran"), "{page}");
        assert!(!page.contains("NaN") && !page.contains("of a core"), "{page}");
    }
}
