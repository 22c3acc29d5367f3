//! What is shown at the end of `dropwatch run`, and of two recordings side by side.

use dropwatch::{
    render::{Format, Medium, compare::text},
    report::{
        compare::compare,
        facts::Netns,
        finding::{Evidence, Explains, Finding, Severity},
        model::summary::{Before, Summary},
        model::{Line, Lost, RanCommand, Report},
        options::Options,
        summary::Summing,
    },
};
use insta::assert_snapshot;

use crate::{
    golden::is_location_line,
    schema::assert_valid,
    support::{again, run, show, snapshot},
};

/// A second before the command, and two reports of its time.
fn reports() -> Vec<Line> {
    let nested = Lost { recursion: 2, ..Lost::default() };
    let before = [(1, 1, 4), (2, 3, 1)];
    let first = [(1, 1, 104), (0, 2, 900), (2, 3, 11)];
    let second = [(1, 1, 204), (0, 2, 9_900), (2, 3, 11), (3, 4, 7)];
    let mut lines = run(
        Options::default(),
        &[],
        &[
            (snapshot(1_000, &before, Lost::default()), 1),
            (snapshot(6_000, &first, Lost::default()), 1),
            (snapshot(11_000, &second, nested), 1),
        ],
    );
    let mut reports = lines.iter_mut().filter_map(|line| match line {
        Line::Report(report) => Some(report),
        _ => None,
    });
    let mut next = || reports.next().unwrap();
    next().baseline = true;
    find(next(), 900, "conntrack table full in gw: 900 packets refused");
    find(next(), 9_000, "conntrack table full in gw: 9000 packets refused");
    lines
}

fn find(report: &mut Report, drops: u64, title: &str) {
    report.findings.push(Finding {
        rule: "conntrack_table_full".into(),
        severity: Severity::Critical,
        netns: None,
        subject: String::new(),
        title: title.into(),
        object: None,
        explains: Some(Explains::of(drops, report.drops)),
        evidence: vec![Evidence {
            name: "drop".into(),
            value: drops.into(),
            delta: true,
            source: "ctnetlink".into(),
        }],
        actions: Vec::new(),
        unreachable: None,
        places: Vec::new(),
    });
}

pub(crate) fn summary(lines: &[Line]) -> Summary {
    let mut summing = Summing::default();
    for line in lines {
        if let Line::Report(report) = line {
            summing.add(report);
        }
    }
    summing.summary()
}

pub(crate) fn ran() -> Vec<Line> {
    let mut lines = reports();
    let summary = summary(&lines);
    let Some(Line::End(end)) = lines.last_mut() else { panic!("no end") };
    end.run = Some(Box::new(RanCommand {
        command: vec!["ab".into(), "-c\n900\u{1b}[2J".into(), "http://gw/".into()],
        status: Some(0),
        signal: None,
        duration_s: 10.0,
        summary,
    }));
    lines
}

/// The lines below the last report.
fn tail(lines: &[Line]) -> String {
    let text = show(&lines[lines.len() - 1..], Format::Text);
    assert!(!text.lines().any(is_location_line), "sums over rows would count twice: {text}");
    text
}

#[test]
fn the_baseline_is_no_part_of_the_sums() {
    let summary = summary(&reports());
    assert_eq!(summary.before, Some(Before { drops: 5, benign: 1, duration_s: 1.0 }));
    assert_eq!((summary.drops, summary.benign, summary.other), (10_119, 10, 2));
    let rows: Vec<_> = summary
        .locations
        .iter()
        .map(|row| (row.place.symbol.as_deref().unwrap(), row.count, row.before))
        .collect();
    assert_eq!(
        rows,
        [
            ("nf_hook_slow", 9_900, 0),
            ("tcp_v4_rcv", 200, 4),
            ("inet_sock_destruct", 10, 1),
            ("ovs_dp_process_packet", 7, 0)
        ]
    );
    let sum: u64 = summary.locations.iter().map(|row| row.count).sum();
    assert_eq!(sum + summary.other, summary.drops);
    assert_eq!(summary.worst.map(|worst| (worst.seq, worst.drops)), Some((3, 9_109)));
    let [found] = &summary.findings[..] else { panic!("{:?}", summary.findings) };
    assert_eq!((found.reports, found.explains, found.before), (2, 9_900, false));
    assert!(found.title.contains("9000"), "{}", found.title);
}

/// The worst interval is the one that lost the most, not the one with the most housekeeping.
#[test]
fn harmless_drops_do_not_make_an_interval_the_worst() {
    let lines = run(
        Options::default(),
        &[],
        &[
            (snapshot(5_000, &[(1, 1, 40)], Lost::default()), 1),
            (snapshot(10_000, &[(1, 1, 50), (2, 3, 9_000)], Lost::default()), 1),
            (snapshot(15_000, &[(1, 1, 90), (2, 3, 9_003)], Lost::default()), 1),
        ],
    );
    let summary = summary(&lines);
    let worst = summary.worst.unwrap();
    assert_eq!((worst.seq, worst.drops, worst.benign), (3, 43, 3), "of 40 and 40, the larger");
    let Some(Line::End(end)) = lines.last() else { panic!("no end") };
    assert_eq!((end.drops, end.benign, summary.benign), (9_093, 9_003, 9_003));
    let text = show(&lines, Format::Text);
    assert!(
        text.contains("\nTotal: 9093 drops in 15.0s, 9003 of them benign, none lost\n"),
        "{text}"
    );
    // Rows that were left out are known to be harmless all the same.
    let view = Format::Json.view(Some(1), false);
    let cut = crate::support::render(&lines, Format::Json, &view, false);
    assert!(cut.contains("\"unknown_location\":0,\"benign\":3}"), "{cut}");
    assert_valid(&cut);
    let mut summing = Summing::default();
    for line in cut.lines() {
        if let Line::Report(report) = dropwatch::report::decode::decode(line).unwrap() {
            summing.add(&report);
        }
    }
    assert_eq!((summing.harmful(), summing.summary().worst), (90, summary.worst));
}

#[test]
fn the_end_of_a_command_is_told_with_its_sums() {
    assert_snapshot!(tail(&ran()).trim_end(), @"
    ab -c 900�[2J http://gw/: exit status 0 after 10.0s
    10119 drops in 10.0s (1012/s) at 4 locations, 2 not located: 2 nested
      9900 at nf_hook_slow+0x7d (NETFILTER_DROP) 97.8%, new
       200 at tcp_v4_rcv+0x91 (NO_SOCKET) 2.0%, 20/s; 4.0/s before
         7 at ovs_dp_process_packet+0x1c4 [openvswitch] (OVS_DROP_LAST_ACTION) 0.1%, new
         2 elsewhere
        10 benign
    worst: 9109 drops in 5.0s (1822/s) until 07:35:11
    before: 5 drops in 1.0s, 1 of them benign
    critical  conntrack table full in gw: 9000 packets refused
              in 2 reports from 07:35:06 to 07:35:11; explains 9900 drops
    Stopping dropped packet monitor
    ");
}

#[test]
fn a_command_that_was_not_run_or_was_killed_is_told() {
    let mut lines = ran();
    let mut with = |status, signal| {
        let Some(Line::End(end)) = lines.last_mut() else { panic!("no end") };
        let ran = end.run.as_mut().unwrap();
        (ran.status, ran.signal) = (status, signal);
        tail(&lines).lines().nth(1).unwrap().to_owned()
    };
    assert!(with(None, Some(15)).ends_with(": ended by signal 15 after 10.0s"));
    assert!(with(None, None).ends_with(": not run"));
}

#[test]
fn a_recorded_run_is_valid_and_comes_back() {
    let recording = show(&ran(), Format::Json);
    assert_valid(&recording);
    let view = Format::Json.view(None, false);
    let (back, ended) = again(recording.as_bytes(), Format::Json, &view);
    ended.unwrap();
    assert_eq!(back, recording);
    let forged = recording.replace("\"other\":2,\"worst\"", "\"other\":3,\"worst\"");
    assert_ne!(forged, recording);
    let (_, ended) = again(forged.as_bytes(), Format::Json, &view);
    assert!(ended.unwrap_err().to_string().contains("do not sum"));
}

#[test]
fn two_recordings_are_compared_by_rate() {
    let before = summary(&ran());
    let mut after = before.clone();
    after.locations.retain(|row| row.place.symbol.as_deref() != Some("nf_hook_slow"));
    after.locations[0].count = 50;
    (after.drops, after.rate, after.other) = (67, 6.7, 0);
    after.findings[0].rule = "closed_port".into();
    after.findings[0].title = "nobody listens at TCP port 80 in gw".into();
    let comparison = compare(["before.ndjson", "after.ndjson"], &before, &after);
    let mut page = Vec::new();
    text(&comparison, Some(3), Medium::default(), &mut page).unwrap();
    assert_snapshot!(String::from_utf8(page).unwrap(), @"
    before  10119 drops in 10.0s (1012/s), 10 of them benign  before.ndjson
    after   67 drops in 10.0s (6.7/s), 10 of them benign  after.ndjson

       before     after
        990/s       0/s  nf_hook_slow (NETFILTER_DROP): gone
         20/s     5.0/s  tcp_v4_rcv (NO_SOCKET)
        0.7/s     0.7/s  ovs_dp_process_packet [openvswitch] (OVS_DROP_LAST_ACTION)
                         1 row more

    new    critical  nobody listens at TCP port 80 in gw
    gone   critical  conntrack table full in gw: 9000 packets refused
    ");
}

#[test]
fn a_cause_in_hundreds_of_namespaces_is_summed_and_hides_no_other() {
    let mut lines = reports();
    let Some(Line::Report(report)) = lines.iter_mut().rfind(|line| matches!(line, Line::Report(_)))
    else {
        panic!("no report")
    };
    for at in 0..300 {
        find(report, 10, &format!("nobody listens at UDP port 9 in bk{at}: 10 packets refused"));
        let found = report.findings.last_mut().unwrap();
        (found.rule, found.severity) = ("closed_port".into(), Severity::Warning);
        found.netns = Some(Netns::new(Some(format!("bk{at}")), at));
    }
    find(report, 7, "a small matter");
    let found = report.findings.last_mut().unwrap();
    (found.rule, found.severity) = ("mtu".into(), Severity::Notice);
    let all = summary(&lines);
    assert_eq!(all.findings.len(), 302, "JSON has all");
    for line in &mut lines {
        if let Line::End(end) = line {
            let ran = RanCommand {
                command: vec!["ab".into()],
                summary: all.clone(),
                ..RanCommand::default()
            };
            end.run = Some(Box::new(ran));
        }
    }
    lines.retain(|line| matches!(line, Line::End(_)));
    let text = show(&lines, Format::Text);
    let heads: Vec<&str> = text
        .lines()
        .filter(|line| ["critical", "warning", "notice"].iter().any(|word| line.starts_with(word)))
        .collect();
    assert_eq!(heads.len(), 8, "{text}");
    assert!(heads[0].starts_with("critical  conntrack table full"), "{text}");
    assert_eq!(heads[6], "warning   295 more by closed_port in 295 namespaces, explain 2950 drops");
    assert_eq!(heads[7], "notice    a small matter");
}
