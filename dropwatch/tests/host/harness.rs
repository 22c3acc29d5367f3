//! Runs dropwatch and checks what holds for every run, whatever the test is about.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    process::{Command, Output},
    sync::OnceLock,
    time::{Duration, Instant},
};

use aya::maps::MapData;
use dropwatch::report::{
    decode::decode,
    model::groups::{GroupRow, Groups},
    model::{End, Line, Location, Lost, RanCommand, Report, Sampled, Start},
};
use testbed::{
    machine::longer,
    netns::Netns,
    tracepoint::Tracepoint,
    watch::{Ended, Watch},
};

use crate::noise;

/// Frees for an unhandled ethertype: the receive path proper, and the CPU's backlog before it.
pub(crate) const RECEIVE_PATH: &[(&str, &str)] = &[
    ("__netif_receive_skb_core", "UNHANDLED_PROTO"),
    ("enqueue_to_backlog", "CPU_BACKLOG"),
    ("netif_rx_internal", "CPU_BACKLOG"),
];
/// The ethertype of a [`testbed::flood::Wire`]'s frames, as dropwatch calls it.
pub(crate) const ETHERTYPE: &str = "0x88b5";
/// Functions that refuse a datagram to a closed port; which one is a matter of inlining.
pub(crate) const UDP4: &[(&str, &str)] =
    &[("__udp4_lib_rcv", "NO_SOCKET"), ("udp_rcv", "NO_SOCKET")];
pub(crate) const UDP6: &[(&str, &str)] =
    &[("__udp6_lib_rcv", "NO_SOCKET"), ("udpv6_rcv", "NO_SOCKET")];

/// The binary under test: the release build that `cargo xtask test` names, else cargo's own. It is
/// to run beside the drops of others.
pub(crate) fn binary() -> PathBuf {
    noise::surround();
    std::env::var_os("DROPWATCH_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_dropwatch").into(), PathBuf::from)
}

pub(crate) fn dropwatch(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args);
    command
}

/// Polls until `done`, and fails when that takes longer than `patience`.
pub(crate) fn wait_until(patience: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a program wrote.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs dropwatch to its end, for runs that do not attach.
pub(crate) fn output(args: &[&str]) -> Output {
    dropwatch(args).output().unwrap()
}

/// Options that leave out what is dropped elsewhere than in `netns`.
pub(crate) fn within<'a>(netns: &[&'a Netns]) -> Vec<&'a str> {
    netns.iter().flat_map(|netns| ["--netns", netns.name()]).collect()
}

/// A dropwatch that prints JSON and has attached.
pub(crate) struct Run(pub(crate) Watch);

impl Run {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::of(dropwatch(args).arg("--json"))
    }

    /// Counts what is dropped in `netns` and nothing else of the host's.
    pub(crate) fn within(netns: &[&Netns], args: &[&str]) -> Self {
        Self::of(dropwatch(args).args(within(netns)).arg("--json"))
    }

    pub(crate) fn of(command: &mut Command) -> Self {
        Self(Watch::start(command).unwrap())
    }

    /// Ctrl-C, and all that was printed.
    pub(crate) fn stop(self) -> Recording {
        Recording::of(&self.0.stop().unwrap())
    }

    /// Waits for an end that comes by itself.
    pub(crate) fn finish(self) -> Recording {
        Recording::of(&self.0.finish().unwrap())
    }
}

/// Lines of JSON, each checked against the schema.
pub(crate) fn decoded<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Line> {
    let lines = lines.inspect(|line| validate(line));
    lines.map(|line| decode(line).unwrap()).collect()
}

/// The lines of one run that ended well.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) start: Start,
    pub(crate) reports: Vec<Report>,
    /// With `--samples`.
    pub(crate) samples: Vec<Sampled>,
    pub(crate) end: End,
}

impl Recording {
    /// Reads the lines, and checks what every run must keep: status 0, every line valid, reports
    /// numbered without a gap, each one's rows adding up to its drops, and all of them to the end
    /// line's.
    pub(crate) fn of(ended: &Ended) -> Self {
        Self::ended_with(0, ended)
    }

    /// Reads and checks a run, as [`Recording::of`] does, that is to end with another status than 0.
    pub(crate) fn ended_with(status: i32, ended: &Ended) -> Self {
        assert_eq!(ended.status.code(), Some(status), "{}", ended.stderr);
        for line in &ended.lines {
            validate(line);
        }
        let mut lines = ended.lines.iter().map(|line| decode(line).unwrap());
        let Some(Line::Start(start)) = lines.next() else { panic!("no start line") };
        let (mut reports, mut samples) = (Vec::new(), Vec::new());
        let end = loop {
            match lines.next() {
                Some(Line::Report(report)) => reports.push(report),
                Some(Line::Sample(sample)) => samples.push(*sample),
                Some(Line::End(end)) => break end,
                other => panic!("neither a report nor the end: {other:?}"),
            }
        };
        assert_eq!(lines.next(), None, "the end line is the last");

        let benign: u64 = reports.iter().map(Report::benign).sum();
        assert_eq!(end.benign, benign, "harmless drops of all reports");
        for (report, seq) in reports.iter().zip(1..) {
            assert_eq!(report.seq, seq);
            let rows: u64 = report.locations.iter().map(|location| location.count).sum();
            assert_eq!(rows + report.other.count, report.drops, "rows of report {seq}");
            for row in report.locations.iter().filter(|row| !row.namespaces.is_empty()) {
                let parts: u64 = row.namespaces.iter().map(|netns| netns.count).sum();
                assert_eq!(parts, row.count, "namespaces of {:?}", row.place);
            }
            let (unknown, lost) = (report.other.unknown_location, report.lost.unknown_location());
            match report.filter_undecided {
                None => assert_eq!(unknown, lost),
                // A filter cannot be decided for what was lost before it.
                Some(undecided) => assert!(unknown <= lost && lost - unknown <= undecided),
            }
        }
        assert_eq!(end.reports, reports.len() as u64);
        assert_eq!(end.drops, reports.iter().map(|report| report.drops).sum::<u64>());
        let recording = Self { start, reports, samples, end };
        assert_eq!(recording.end.lost, recording.lost());
        recording
    }

    /// Drops at any of the places.
    pub(crate) fn count(&self, places: &[(&str, &str)]) -> u64 {
        self.locations()
            .filter(|location| is_at(location, places))
            .map(|location| location.count)
            .sum()
    }

    pub(crate) fn locations(&self) -> impl Iterator<Item = &Location> {
        self.reports.iter().flat_map(|report| &report.locations)
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = &Groups> {
        self.reports.iter().filter_map(|report| report.groups.as_deref())
    }

    /// Sum of the groups that are `own`; the rest of the run's drops are the part of others, which it
    /// names.
    pub(crate) fn grouped(&self, own: impl Fn(&GroupRow) -> bool) -> u64 {
        let (mut sum, mut all) = (0, 0);
        for groups in self.groups() {
            all += groups.rows.iter().map(|row| row.count).sum::<u64>();
            all += groups.unknown + groups.other;
            sum += groups.rows.iter().filter(|row| own(row)).map(|row| row.count).sum::<u64>();
        }
        assert_eq!(all, self.end.drops, "groups are the drops once more");
        println!("{sum} drops of this test, {} of others", all - sum);
        sum
    }

    /// What the filters could not decide.
    pub(crate) fn undecided(&self) -> u64 {
        self.end.filter_undecided.expect("a run with filters")
    }

    /// What was lost in all reports together.
    pub(crate) fn lost(&self) -> Lost {
        self.reports.iter().fold(Lost::default(), |sum, Report { lost, .. }| Lost {
            map_full: sum.map_full + lost.map_full,
            map_busy: sum.map_busy + lost.map_busy,
            recursion: sum.recursion + lost.recursion,
            samples: sum.samples + lost.samples,
            stacks: sum.stacks + lost.stacks,
            pcap: sum.pcap + lost.pcap,
            unsampled: sum.unsampled + lost.unsampled,
        })
    }
}

/// Whether a row is one of the places; the reason is looked at where the kernel has any, and is null
/// where it has none.
pub(crate) fn is_at(location: &Location, places: &[(&str, &str)]) -> bool {
    places.iter().any(|&(symbol, reason)| {
        let expected = has_reasons().then_some(reason);
        function(location) == symbol && location.place.reason.as_deref() == expected
    })
}

/// Datagrams that were refused while a command ran, by its sum.
pub(crate) fn refused(ran: &RanCommand) -> u64 {
    let rows = ran.summary.locations.iter();
    rows.filter(|row| row.place.symbol.as_deref().is_some_and(|symbol| symbol.contains("udp")))
        .map(|row| row.count)
        .sum()
}

/// The function's name as in the source: compilers mark their clones with a suffix.
pub(crate) fn function(location: &Location) -> &str {
    location
        .place
        .symbol
        .as_deref()
        .and_then(|symbol| symbol.split('.').next())
        .unwrap_or("unknown")
}

/// Whether drops carry a reason on this kernel, as tracefs has it.
pub(crate) fn has_reasons() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| Tracepoint::read().unwrap().has_reasons())
}

/// Checks a line against the schema that users are given.
fn validate(line: &str) {
    static SCHEMA: OnceLock<jsonschema::Validator> = OnceLock::new();
    let schema = SCHEMA.get_or_init(|| {
        let text = include_str!("../../../docs/report.schema.json");
        jsonschema::validator_for(&serde_json::from_str(text).unwrap()).unwrap()
    });
    let value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    if let Err(error) = schema.validate(&value) {
        panic!("{error} at {}: {line}", error.instance_path());
    }
}

/// Whether a group is of drops in `netns`.
pub(crate) fn is_in(row: &GroupRow, netns: &Netns) -> bool {
    row.netns.as_ref().is_some_and(|it| it.name.as_deref() == Some(netns.name()))
}

/// What of eBPF a process holds, by number; others may have their own beside it.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) programs: BTreeSet<u32>,
    pub(crate) links: BTreeSet<u32>,
    pub(crate) maps: BTreeSet<u32>,
}

impl Held {
    /// As the descriptors of the process tell.
    pub(crate) fn by(pid: u32) -> Self {
        let mut held = Self::default();
        let infos = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
        for info in infos {
            // Some are closed meanwhile.
            let Ok(text) = std::fs::read_to_string(info.unwrap().path()) else { continue };
            for (name, number) in text.lines().filter_map(|line| line.split_once(':')) {
                let numbers = match name {
                    "prog_id" => &mut held.programs,
                    "link_id" => &mut held.links,
                    "map_id" => &mut held.maps,
                    _ => continue,
                };
                numbers.insert(number.trim().parse().unwrap());
            }
        }
        // Its program holds more of them for it.
        let programs = aya::programs::loaded_programs().flatten();
        for program in programs.filter(|program| held.programs.contains(&program.id())) {
            held.maps.extend(program.map_ids().unwrap().into_iter().flatten());
        }
        held
    }

    pub(crate) fn add(&mut self, mut other: Self) {
        self.programs.append(&mut other.programs);
        self.links.append(&mut other.links);
        self.maps.append(&mut other.maps);
    }

    /// The map of that name.
    pub(crate) fn map(&self, name: &str) -> Option<MapData> {
        let maps = self.maps.iter().filter_map(|id| MapData::from_id(*id).ok());
        maps.into_iter().find(|map| map.info().unwrap().name_as_str() == Some(name))
    }

    /// The kernel frees programs and links after a grace period, some moments later.
    pub(crate) fn expect_gone(&self) {
        let left = || {
            let programs = aya::programs::loaded_programs().flatten().map(|it| it.id());
            let programs = programs.filter(|id| self.programs.contains(id)).count();
            let links = aya::programs::loaded_links().flatten().map(|it| it.id());
            let links = links.filter(|id| self.links.contains(id)).count();
            let maps = aya::maps::loaded_maps().flatten().map(|it| it.id());
            programs + links + maps.filter(|id| self.maps.contains(id)).count()
        };
        wait_until(longer(Duration::from_secs(10)), "all is gone", || left() == 0);
    }
}

/// Whether the kernel skips a program that interrupts itself, and counts that: it then has a line
/// for it in the program's `fdinfo` (Linux 6.0).
pub(crate) fn skips_nested() -> bool {
    use std::os::fd::{AsFd, AsRawFd};
    let run = Run::start(&[]);
    let own = Held::by(run.0.pid()).programs;
    let program =
        aya::programs::loaded_programs().flatten().find(|it| own.contains(&it.id())).unwrap();
    let fd = program.fd().unwrap();
    let info = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    std::fs::read_to_string(info).unwrap().contains("recursion_misses")
}
