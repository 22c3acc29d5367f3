//! What the user side takes for its steps, each against a budget.
//!
//! `cargo bench` measures and judges: a median beyond its budget ends with status 1. Budgets are
//! some four times what a virtual machine of 2.5 GHz takes, so that noise does not exceed them and a
//! step that has become slower in kind does. Inputs are generated, the same in every run, except for
//! the kernel's types, which are those of the running kernel.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use criterion::{BatchSize, Criterion};
use dropwatch::{
    diagnose::knowledge,
    kernel::{
        btf::Btf, modules::Modules, offsets::offsets, reasons::Reasons, symbols::SymbolTable,
    },
    probe::{
        plan::Grouping,
        sums::CounterSums,
        turns::{CounterId, Turns},
    },
    render::{Format, Medium, Style},
    report::{
        Names,
        build::Reporter,
        delta::Delta,
        model::{Host, Line, Reason, Report, Symbol},
        options::Options,
        snapshot::{DropCounters, Snapshot},
    },
};
use dropwatch_common::{
    Counter, DropKey, NO_NETNS, Turn,
    count::{Front, SLOTS, Slot, tag},
};
use jiff::{Timestamp, tz::TimeZone};

const BTF: &str = "/sys/kernel/btf/vmlinux";
const TEXT: u64 = 0xffff_ffff_8100_0000;

/// A step, and what it may take.
const BUDGETS: [(&str, Duration); 11] = [
    ("symbols/150,000 functions", Duration::from_millis(60)),
    ("types/index", Duration::from_millis(12)),
    ("types/offsets", Duration::from_millis(20)),
    ("types/drop reasons", Duration::from_millis(8)),
    ("reading/1,000 keys, 2 CPUs", Duration::from_millis(1)),
    ("reading/10,000 keys, 2 CPUs", Duration::from_millis(10)),
    ("reading/1,900 keys, 256 CPUs", Duration::from_millis(150)),
    ("delta/100 keys", Duration::from_micros(120)),
    ("delta/10,000 keys", Duration::from_millis(15)),
    ("report/100 locations as text", Duration::from_micros(1_500)),
    ("report/100 locations as JSON", Duration::from_millis(2)),
];

fn main() -> ExitCode {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("user_side");
    let start = SystemTime::now();
    let mut criterion = Criterion::default()
        .output_directory(&folder)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
        .configure_from_args();
    symbols(&mut criterion);
    types(&mut criterion);
    reading(&mut criterion);
    delta(&mut criterion);
    report(&mut criterion);
    criterion.final_summary();
    judge(&folder, start)
}

/// Compares what was measured since `start` with the budgets.
fn judge(folder: &Path, start: SystemTime) -> ExitCode {
    let mut exceeded = false;
    for (name, budget) in BUDGETS {
        let Some(median) = measured(&folder.join(name), start) else { continue };
        let over = if median > budget { "  OVER" } else { "" };
        exceeded |= median > budget;
        println!("{name:<31} {median:>12.1?} of {budget:>7.1?}{over}");
    }
    if exceeded { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The median that criterion has written; `None` where this run did not measure.
fn measured(folder: &Path, start: SystemTime) -> Option<Duration> {
    let path = folder.join("new/estimates.json");
    if fs::metadata(&path).ok()?.modified().ok()? < start {
        return None;
    }
    let estimates: serde_json::Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    Some(Duration::from_nanos(estimates["median"]["point_estimate"].as_f64()? as u64))
}

fn symbols(criterion: &mut Criterion) {
    let (kallsyms, modules) = symbol_files(150_000);
    let modules = Modules::read(modules.as_bytes()).expect("generated");
    let table = SymbolTable::read(kallsyms.as_bytes(), &modules).expect("generated");
    assert!(table.len() >= 150_000 && table.skipped() == 0, "what was generated is understood");
    criterion.benchmark_group("symbols").bench_function("150,000 functions", |bench| {
        bench.iter(|| SymbolTable::read(black_box(kallsyms.as_bytes()), &modules));
    });
}

/// `/proc/kallsyms` and `/proc/modules` as kernels write them: a tenth of the functions in modules.
fn symbol_files(functions: u64) -> (String, String) {
    let (mut kallsyms, mut modules) = (String::new(), String::new());
    let core = functions * 9 / 10;
    let line = |text: &mut String, address: u64, kind: char, rest: std::fmt::Arguments<'_>| {
        writeln!(text, "{address:016x} {kind} {rest}").expect("a String takes all");
    };
    line(&mut kallsyms, TEXT, 'T', format_args!("_stext"));
    for number in 0..core {
        let kind = if number % 3 == 0 { 'T' } else { 't' };
        line(
            &mut kallsyms,
            TEXT + number * 96,
            kind,
            format_args!("net_function_of_number_{number}"),
        );
    }
    line(&mut kallsyms, TEXT + core * 96, 'T', format_args!("_etext"));
    for number in 0..functions - core {
        let (module, at) = (number / 150, number % 150);
        let base = 0xffff_ffff_c000_0000 + module * 0x1_0000;
        if at == 0 {
            writeln!(modules, "module_{module} 65536 0 - Live {base:#018x}").expect("as above");
        }
        let rest = format_args!("local_function_{at}\t[module_{module}]");
        line(&mut kallsyms, base + at * 96, 't', rest);
    }
    (kallsyms, modules)
}

fn types(criterion: &mut Criterion) {
    let Ok(bytes) = fs::read(BTF) else {
        println!("types: left out, this kernel has no {BTF}");
        return;
    };
    let btf = Btf::parse(&bytes).expect("the running kernel's types are read");
    let mut group = criterion.benchmark_group("types");
    group.bench_function("index", |bench| bench.iter(|| Btf::parse(black_box(&bytes))));
    group.bench_function("offsets", |bench| bench.iter(|| offsets(black_box(&btf))));
    group.bench_function("drop reasons", |bench| {
        bench.iter(|| Reasons::from_btf(black_box(&btf)));
    });
}

/// From the counters of each CPU to sums. What 256 CPUs give is as much as any host does: the map
/// has no more entries there.
fn reading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reading");
    for (name, keys, cpus) in [
        ("1,000 keys, 2 CPUs", 1_000, 2),
        ("10,000 keys, 2 CPUs", 10_000, 2),
        ("1,900 keys, 256 CPUs", 1_900, 256),
    ] {
        let keys: Vec<DropKey> = (0..keys).map(key).collect();
        let counters = vec![Counter { count: 7, ..Counter::default() }; cpus];
        let fronts = vec![front(); cpus];
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let turns = Turns::new(false);
                let mut sums = CounterSums::new(Grouping::default(), &turns, &turns);
                for (cpu, front) in (0..).zip(black_box(&fronts)) {
                    for (number, slot) in (0..).zip(&front.slots) {
                        if let Some(key) = slot.key() {
                            sums.add(&CounterId { key, counter: number, cpu }, &slot.counter);
                        }
                    }
                }
                // The map has them in no order.
                for (cpu, counter) in (0..).zip(black_box(&counters)) {
                    for key in &keys {
                        let id = CounterId { key: *key, counter: Turn::IN_MAP, cpu };
                        sums.add(&id, counter);
                    }
                }
                sums.into_parts()
            });
        });
    }
}

fn key(number: u64) -> DropKey {
    DropKey::new(TEXT + number * 96 + 5, 2 + (number % 50) as u32)
}

/// A front cache with half of its slots in use.
fn front() -> Front {
    let mut slots = [Slot::default(); SLOTS];
    for (number, slot) in (0..).zip(slots.iter_mut().step_by(2)) {
        let DropKey { location, reason, .. } = key(number);
        let counter = Counter { count: 9, ..Counter::default() };
        *slot = Slot { location, tag: tag(reason, NO_NETNS), counter, ..Slot::default() };
    }
    Front { slots }
}

fn counters(keys: u64, count: u64) -> DropCounters {
    let drops: HashMap<DropKey, u64> = (0..keys).map(|number| (key(number), count)).collect();
    DropCounters { drops, ..DropCounters::default() }
}

fn delta(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("delta");
    for (name, keys) in [("100 keys", 100), ("10,000 keys", 10_000)] {
        let (earlier, later) = (counters(keys, 5), counters(keys, 9));
        group.bench_function(name, |bench| {
            bench.iter(|| Delta::between(black_box(&earlier), black_box(&later)));
        });
    }
}

/// Names for every location, at no cost to speak of.
struct Named;

impl Names for Named {
    fn symbol(&mut self, location: u64) -> Option<Symbol> {
        let name = format!("net_function_of_number_{}", (location - TEXT) / 96);
        Some(Symbol { name, offset: 5, module: None })
    }

    fn reason(&mut self, reason: u32) -> Option<Reason> {
        Some(Reason { name: format!("REASON_{reason}"), subsystem: Some("CORE".to_owned()) })
    }
}

/// From a snapshot to the bytes of a report.
fn report(criterion: &mut Criterion) {
    let host = Host { host: "host".into(), boot_id: "0".into(), kernel: "6.18.0".into() };
    let snapshot = Snapshot {
        since_attach: Duration::from_secs(5),
        wall: Timestamp::UNIX_EPOCH,
        counters: counters(100, 7),
    };
    let report = || -> Report {
        let mut reporter = Reporter::new(host.clone(), Options::default(), knowledge::is_benign);
        reporter.report(&snapshot, 1, &[], &mut Named)
    };
    let mut group = criterion.benchmark_group("report");
    for (name, format) in
        [("100 locations as text", Format::Text), ("100 locations as JSON", Format::Json)]
    {
        let renderer =
            format.renderer(Style { medium: Medium::default(), time_zone: TimeZone::UTC });
        let view = format.view(Some(0), true);
        group.bench_function(name, |bench| {
            bench.iter_batched(
                Vec::new,
                |mut page| {
                    let line = view.line(Line::Report(report()));
                    renderer.render(&line, &mut page).expect("a Vec takes all");
                    page
                },
                BatchSize::SmallInput,
            );
        });
    }
}
