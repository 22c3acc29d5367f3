//! What must hold for any run and any recording.

use dropwatch::{
    render::Format,
    report::{
        build::Options,
        decode::decode,
        model::{Address, Line, Lost, Report},
        view::View,
    },
};
use dropwatch_common::NO_REASON;
use proptest::prelude::*;
use serde_json::Value;

use crate::{
    schema::assert_valid,
    support::{REASONS, UNNAMED, again, render, run, show, snapshot},
};

const FORMATS: [Format; 3] = [Format::Text, Format::Classic, Format::Json];

/// Lines of a run whose counters grow by any steps.
fn lines(options: Options) -> impl Strategy<Value = Vec<Line>> {
    let location = prop_oneof![0..8_u64, UNNAMED..UNNAMED + 3];
    let reason = prop_oneof![0..REASONS.len() as u32 + 2, Just(NO_REASON)];
    let drops = prop::collection::vec((location, reason, 1..1_u64 << 40), 0..20);
    let lost = prop_oneof![3 => Just((0, 0, 0, 0)), 1 => (0..9_u64, 0..9_u64, 0..9_u64, 0..9_u64)];
    let steps = prop::collection::vec((drops, lost, 0..20_000_u64, 1..4_u64), 0..5);
    steps.prop_map(move |steps| {
        let (mut all, mut sum, mut now) = (Vec::new(), Lost::default(), 0);
        let mut snapshots = Vec::new();
        for (drops, (map_full, map_busy, recursion, samples), millis, intervals) in steps {
            for (location, reason, count) in drops {
                match all.iter_mut().find(|(at, why, _)| (*at, *why) == (location, reason)) {
                    Some((_, _, total)) => *total += count,
                    None => all.push((location, reason, count)),
                }
            }
            sum.map_full += map_full;
            sum.map_busy += map_busy;
            sum.recursion += recursion;
            sum.samples += samples;
            now += millis;
            snapshots.push((snapshot(now, &all, sum), intervals));
        }
        run(options, &["one notice"], &snapshots)
    })
}

fn view() -> impl Strategy<Value = View> {
    let top = prop::option::of(0..6_usize);
    (top, any::<bool>(), any::<bool>()).prop_map(|(top, fold_benign, merge_reasons)| View {
        top,
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

/// Addresses as a recording without `--addresses` has them.
fn without_addresses(mut line: Line) -> Line {
    if let Line::Report(report) = &mut line {
        report.locations.iter_mut().for_each(|row| row.address = Address::Unknown);
    }
    line
}

proptest! {
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
        lines in any::<bool>().prop_flat_map(|addresses| lines(Options { addresses, stacks: false })),
    ) {
        let recording = show(&lines, Format::Json);
        assert_valid(&recording);
        let public = recording.contains("\"address\"");
        for (text, line) in recording.lines().zip(&lines) {
            let read = decode(text).unwrap();
            let line = if public { line.clone() } else { without_addresses(line.clone()) };
            prop_assert_eq!(read, line);
        }
    }

    #[test]
    fn replay_prints_what_the_run_printed(
        lines in lines(Options { addresses: true, stacks: false }),
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
        lines in lines(Options { addresses: true, stacks: false }),
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
