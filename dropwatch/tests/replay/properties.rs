//! What must hold for any run and any recording.

use dropwatch::report::sample::Sample;
use dropwatch::{
    render::Format,
    report::{
        decode::decode,
        facts::Values,
        model::{Address, Line, Lost, Report},
        options::Options,
        view::View,
    },
};
use dropwatch_common::NO_REASON;
use proptest::prelude::*;
use serde_json::Value;

use crate::{
    golden::is_location_line,
    schema::assert_valid,
    support::{
        CALLERS, REASONS, Step, UNNAMED, again, render, run_sampled, sample, show, snapshot, tcp,
    },
};

const FORMATS: [Format; 3] = [Format::Text, Format::Classic, Format::Json];

/// Samples of any place, path and packet, at locations counted or not.
fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let key = (0..UNNAMED + 2, 0..REASONS.len() as u32 + 2);
    let path = prop::collection::vec(0..CALLERS.len() as u64 + 1, 0..12);
    let end = || prop_oneof![3 => Just(7_u8), 1 => any::<u8>()];
    let segment = (end(), end(), end(), end(), end()).prop_map(|(src, from, dst, to, flags)| {
        tcp([10, 0, 0, src], from.into(), [10, 0, 0, dst], to.into(), flags)
    });
    let packet = prop_oneof![
        4 => segment,
        1 => prop::collection::vec(any::<u8>(), 0..80),
    ];
    let place = || prop::option::of(0..9_u32);
    let weight = prop_oneof![Just(1), 1..1_u64 << 40, Just(u64::MAX)];
    let rest = (
        prop_oneof![3 => Just(0x800), 1 => any::<u16>()],
        prop::option::of(0..40_u64),
        prop::option::of(any::<bool>()),
        any::<bool>(),
        any::<u64>(),
    );
    let one = (key, weight, path, packet, place(), place(), rest);
    let one = one.prop_map(
        |(key, weight, path, packet, netns, ifindex, (protocol, socket, conntrack, flag, time))| {
            Sample {
                netns,
                ifindex,
                protocol,
                socket,
                conntrack,
                outgoing: flag.then_some(true),
                link_header: flag,
                time,
                stack: if flag && path.is_empty() {
                    Vec::new()
                } else {
                    sample(key, weight, &path, Vec::new()).stack
                },
                ..sample(key, weight, &[], packet)
            }
        },
    );
    prop::collection::vec(one, 0..5)
}

/// A run whose counters grow by any steps.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let location = prop_oneof![0..8_u64, UNNAMED..UNNAMED + 3];
    let reason = prop_oneof![0..REASONS.len() as u32 + 2, Just(NO_REASON)];
    let drops = prop::collection::vec((location, reason, 1..1_u64 << 40), 0..20);
    let lost = prop_oneof![3 => Just((0, 0, 0, 0)), 1 => (0..9_u64, 0..9_u64, 0..9_u64, 0..9_u64)];
    let steps = prop::collection::vec((drops, lost, 0..20_000_u64, 1..4_u64, samples()), 0..5);
    steps.prop_map(move |steps| {
        let (mut all, mut sum, mut now) = (Vec::new(), Lost::default(), 0);
        let mut snapshots = Vec::new();
        for (drops, (map_full, map_busy, recursion, lost), millis, intervals, samples) in steps {
            for (location, reason, count) in drops {
                match all.iter_mut().find(|(at, why, _)| (*at, *why) == (location, reason)) {
                    Some((_, _, total)) => *total += count,
                    None => all.push((location, reason, count)),
                }
            }
            sum.map_full += map_full;
            sum.map_busy += map_busy;
            sum.recursion += recursion;
            sum.samples += lost;
            now += millis;
            snapshots.push(Step { snapshot: snapshot(now, &all, sum), intervals, samples });
        }
        snapshots
    })
}

fn lines(options: Options) -> impl Strategy<Value = Vec<Line>> {
    steps().prop_map(move |steps| run_sampled(options.clone(), &["one notice"], &steps))
}

fn view() -> impl Strategy<Value = View> {
    let top = prop::option::of(0..6_usize);
    let view = (top.clone(), top.clone(), top, any::<bool>(), any::<bool>());
    view.prop_map(|(top, namespaces, findings, fold_benign, merge_reasons)| View {
        top,
        namespaces,
        findings,
        fold_benign,
        merge_reasons,
    })
}

fn reports(lines: &[Line]) -> impl Iterator<Item = &Report> {
    lines.iter().filter_map(|line| match line {
        Line::Report(report) => Some(report),
        Line::Start(_) | Line::Sample(_) | Line::End(_) => None,
    })
}

/// Drops in the rows and in `other`.
fn sum(report: &Report) -> u64 {
    report.locations.iter().map(|row| row.count).sum::<u64>() + report.other.count
}

/// A line without what no recording has.
fn recorded(mut line: Line) -> Line {
    if let Line::Report(report) = &mut line {
        let details = report.locations.iter_mut().filter_map(|row| row.details.as_mut());
        details.for_each(|details| details.values = Values::default());
    }
    line
}

/// Addresses as a recording without `--addresses` has them.
fn without_addresses(mut line: Line) -> Line {
    if let Line::Report(report) = &mut line {
        for row in &mut report.locations {
            row.address = Address::Unknown;
            let frames = row.stacks.iter_mut().flat_map(|path| &mut path.frames);
            frames.for_each(|frame| frame.address = Address::Unknown);
        }
    }
    if let Line::Sample(sample) = &mut line {
        sample.address = Address::Unknown;
        sample.stack.iter_mut().for_each(|frame| frame.address = Address::Unknown);
    }
    line
}

/// A run's lines as if nothing had been sampled.
fn without_samples(lines: &[Line]) -> Vec<Line> {
    let mut lines = lines.to_vec();
    lines.retain(|line| !matches!(line, Line::Sample(_)));
    for line in &mut lines {
        if let Line::Report(report) = line {
            for row in &mut report.locations {
                row.details = None;
                row.stacks.clear();
            }
        }
    }
    lines
}

proptest! {
    /// Details are beside the numbers, which stay as they are without them.
    #[test]
    fn samples_change_no_count(steps in steps(), stacks: bool) {
        let options = Options { addresses: true, stacks, ..Options::default() };
        let sampled = run_sampled(options.clone(), &[], &steps);
        let mut bare = steps.clone();
        bare.iter_mut().for_each(|step| step.samples.clear());
        prop_assert_eq!(without_samples(&sampled), run_sampled(options.clone(), &[], &bare));

        // Nor does their order matter.
        let mut turned = steps;
        turned.iter_mut().for_each(|step| step.samples.reverse());
        let turned = run_sampled(options, &[], &turned);
        for (report, turned) in reports(&sampled).zip(reports(&turned)) {
            let shares = |report: &Report| {
                let rows = report.locations.iter().map(|row| row.details.clone());
                rows.map(|row| row.map(|row| (row.netns, row.flow, row.path))).collect::<Vec<_>>()
            };
            prop_assert_eq!(shares(report), shares(turned));
        }
    }

    /// Under a row there may be anything, but no other row, and nothing that steers a terminal.
    #[test]
    fn what_samples_tell_cannot_be_taken_for_a_row(
        lines in any::<bool>().prop_flat_map(|stacks| lines(Options { addresses: true, stacks, ..Options::default() })),
        color: bool,
    ) {
        let view = Format::Text.view(Some(0), true);
        let shown = render(&lines, Format::Text, &view, color);
        let paint = ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[2m", "\u{1b}[31m", "\u{1b}[35m"];
        let plain = paint.iter().fold(shown, |text, paint| text.replace(paint, ""));
        let rows = plain.lines().filter(|line| is_location_line(line)).count();
        prop_assert_eq!(rows, reports(&lines).map(|report| report.locations.len()).sum::<usize>());
        let unsafe_chars = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
        prop_assert!(!plain.replace('\n', "").contains(unsafe_chars), "{plain:?}");
    }

    #[test]
    fn a_view_loses_no_drop(lines in lines(Options::default()), view in view()) {
        for report in reports(&lines) {
            let shown = view.report(report.clone());
            prop_assert_eq!(sum(&shown), report.drops);
            prop_assert_eq!(shown.drops, report.drops);
            prop_assert!(shown.locations.len() <= view.top.unwrap_or(usize::MAX));
            prop_assert!(shown.locations.is_sorted_by(|a, b| a.count >= b.count));
            let (hidden, other) = (shown.other.below_top(), shown.other);
            prop_assert_eq!(
                hidden.count + other.benign.count + other.unknown_location,
                other.count
            );
            prop_assert_eq!(hidden.locations + other.benign.locations, other.locations);
            if !view.merge_reasons {
                prop_assert_eq!(shown.location_count(), report.location_count());
            }
            if view.fold_benign {
                prop_assert!(shown.locations.iter().all(|row| !row.benign));
            }
        }
    }

    #[test]
    fn merging_leaves_one_row_per_call_site(lines in lines(Options::default())) {
        let view = Format::Classic.view(None, false);
        for report in reports(&lines) {
            let mut sites: Vec<_> =
                report.locations.iter().map(|row| row.address.known()).collect();
            sites.sort_unstable();
            sites.dedup();
            let shown = view.report(report.clone());
            prop_assert_eq!(shown.locations.len(), sites.len());
            for row in &shown.locations {
                let same = |other: &&dropwatch::report::model::Location| {
                    other.address == row.address
                };
                let count: u64 = report.locations.iter().filter(same).map(|row| row.count).sum();
                let total: u64 = report.locations.iter().filter(same).map(|row| row.total).sum();
                prop_assert_eq!((row.count, row.total), (count, total));
            }
        }
    }

    #[test]
    fn json_is_valid_and_reads_back_as_written(
        lines in any::<bool>().prop_flat_map(|addresses| lines(Options { addresses, stacks: true, ..Options::default() })),
    ) {
        let recording = show(&lines, Format::Json);
        assert_valid(&recording);
        let public = recording.contains("\"address\"");
        for (text, line) in recording.lines().zip(&lines) {
            let read = decode(text).unwrap();
            let line = if public { line.clone() } else { without_addresses(line.clone()) };
            prop_assert_eq!(read, recorded(line));
        }
    }

    #[test]
    fn replay_prints_what_the_run_printed(
        lines in lines(Options { addresses: true, stacks: true, ..Options::default() }),
        view in view(),
    ) {
        let recording = show(&lines, Format::Json);
        for format in FORMATS {
            let (shown, result) = again(recording.as_bytes(), format, &view);
            prop_assert!(result.is_ok());
            prop_assert_eq!(shown, render(&lines, format, &view, false));
        }
    }

    #[test]
    fn replay_to_json_is_the_identity(lines in lines(Options::default())) {
        let recording = show(&lines, Format::Json).repeat(2);
        let (shown, result) = again(recording.as_bytes(), Format::Json, &View::default());
        prop_assert!(result.is_ok());
        let values = |text: &str| -> Vec<Value> {
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        prop_assert_eq!(values(&shown), values(&recording));
    }

    /// A recording changed at any place, by anything, is rendered or refused, in one clean line.
    #[test]
    fn a_damaged_recording_is_harmless(
        lines in lines(Options { addresses: true, stacks: true, ..Options::default() }),
        at in any::<prop::sample::Index>(),
        cut in 0..40_usize,
        put in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..8),
            "-?[0-9]{1,25}(e[0-9]{1,3})?".prop_map(String::into_bytes),
            "[\\PC\\p{Cc}\\p{Cf}]{0,6}".prop_map(String::into_bytes),
            Just(br#""\u001b[2J\u009b\u202e""#.to_vec()),
        ],
    ) {
        let mut recording = show(&lines, Format::Json).into_bytes();
        let at = at.index(recording.len());
        let end = (at + cut).min(recording.len());
        recording.splice(at..end, put);
        for format in FORMATS {
            let (shown, result) = again(&recording, format, &format.view(None, false));
            let message = result.err().map_or_else(String::new, |error| error.to_string());
            prop_assert!(message.len() < 1000);
            let unsafe_chars = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
            prop_assert!(!message.contains(unsafe_chars), "{message:?}");
            prop_assert!(!shown.replace('\n', "").contains(unsafe_chars), "{shown:?}");
        }
    }
}
