//! What text is written to: on every width lines fit between words, without colours there are none,
//! and where the characters are ASCII nothing else is written.

use dropwatch::{
    render::{Format, Medium, compare},
    report::{
        facts::{Interface, Netns},
        finding::{Action, Evidence, Explains, Finding, MoreFindings, Severity},
        model::Line,
        model::groups::{By, GroupRow, Groups},
        options::Options,
    },
};

use crate::{
    details, golden,
    golden::is_location_line,
    summary,
    support::{again, render_on},
};

const COMMAND: &str =
    "ip netns exec 'Zürich 東' sysctl -w net.netfilter.nf_conntrack_max=65536 'and more of it'";

/// A finding whose texts are long and name a namespace in letters of its own.
fn finding() -> Finding {
    let evidence = |name: &str, value: &str| Evidence {
        name: name.to_owned(),
        value: value.into(),
        delta: false,
        source: "ctnetlink".to_owned(),
    };
    Finding {
        rule: "conntrack_table_full".to_owned(),
        severity: Severity::Warning,
        netns: None,
        subject: String::new(),
        title: "conntrack table full in Zürich 東: 1000 of 1000 entries, 10001 packets refused, \
                7 packets dropped at nf_hook_slow+0x7d (NETFILTER_DROP) 1.0%"
            .to_owned(),
        object: None,
        explains: Some(Explains::of(9, 10)),
        evidence: vec![
            evidence("entries", "1000"),
            evidence("reader of the queue", "a daemon whose name is as long as names can be"),
        ],
        actions: vec![Action {
            command: COMMAND.to_owned(),
            note: "16.5 MiB when full (65536 × 256 B + 65536 × 8 B); entries that each namespace \
                   may hold; see `conntrack -L | sort | uniq -c | sort -n` … before"
                .to_owned(),
        }],
        unreachable: None,
        places: Vec::new(),
    }
}

fn groups() -> Groups {
    let name = "a-namespace-with-a-name-of-forty-letters".to_owned();
    let row = GroupRow {
        netns: Some(Netns::new(Some(name.clone()), 7)),
        interface: Some(Interface { name: Some("東京".to_owned()), index: 3 }),
        protocol: Some("tcp".into()),
        count: 4_500,
        ..GroupRow::default()
    };
    Groups {
        by: vec![By::Netns, By::Iface, By::Protocol],
        drops: 4_510,
        rows: vec![row],
        unknown: 10,
        other: 0,
    }
}

/// Everything that text has words for, with long and foreign names.
fn recordings() -> Vec<Vec<Line>> {
    let mut all = vec![
        golden::story(Options { addresses: true, ..Options::default() }),
        golden::crowd(),
        details::story(false),
        details::story(true),
        summary::ran(),
    ];
    for line in all.iter_mut().flatten() {
        if let Line::Report(report) = line {
            let found =
                Finding { explains: Some(Explains::of(report.drops, report.drops)), ..finding() };
            report.findings.push(found);
            report.groups = Some(Box::new(groups()));
            report.more_findings.push(MoreFindings {
                rule: "conntrack_table_full".to_owned(),
                severity: Severity::Warning,
                findings: 295,
                namespaces: 294,
                drops: report.drops,
            });
        }
        if let Line::Start(start) = line {
            start.filters.push("--netns 'Zürich 東' --port 80 --port 8000-8099".to_owned());
            start.notices.push(
                "no capability CAP_SYSLOG: addresses instead of names; run as root, or allow it: \
                 `sysctl -w kernel.kptr_restrict=1`"
                    .to_owned(),
            );
        }
    }
    all
}

/// Every text about drops on `medium`, all rows.
fn texts(medium: Medium) -> Vec<String> {
    let view = Format::Text.view(Some(0), true);
    let mut texts: Vec<_> =
        recordings().iter().map(|lines| render_on(medium, lines, Format::Text, &view)).collect();
    let sum = summary::summary(&recordings()[4]);
    let mut after = sum.clone();
    after.locations.clear();
    after.findings[0].rule = "another".into();
    after.findings[0].title = finding().title;
    let names = ["before → first.ndjson", "a-recording-with-a-long-name-of-its-own.ndjson"];
    let mut page = Vec::new();
    let compared = dropwatch::report::compare::compare(names, &sum, &after);
    compare::text(&compared, None, medium, &mut page).unwrap();
    texts.push(String::from_utf8(page).unwrap());
    texts
}

fn columns(line: &str) -> usize {
    // What is wide in the texts above.
    line.chars().map(|c| if ('東'..='京').contains(&c) || "東京".contains(c) { 2 } else { 1 }).sum()
}

/// Whether nothing in `line` could have gone to the next line: it fits, is one name with its module
/// or what a tree draws before it, or is a command.
fn fits(line: &str, width: usize) -> bool {
    let name = line.trim_start_matches([' ', '|', '-', '─']).replace(" [", "[");
    columns(line) <= width
        || !name.trim_end().contains(' ')
        || name.starts_with("ip netns exec")
        || name.starts_with('`')
}

#[test]
fn every_line_fits_the_screen_unless_it_cannot_be_broken() {
    for columns in 32..=120 {
        let medium = Medium { columns: Some(columns), ..Medium::default() };
        for text in texts(medium) {
            for line in text.lines() {
                assert!(fits(line, columns), "{columns} columns:\n{line}\nin\n{text}");
            }
        }
    }
}

#[test]
fn words_are_the_same_on_every_screen() {
    let words = |text: String| {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        words
    };
    // Callers are as many as fit, and so are lines of notes: neither is in these.
    let lines = golden::story(Options { addresses: true, ..Options::default() });
    let view = Format::Text.view(Some(0), true);
    let on = |columns| {
        let medium = Medium { columns, ..Medium::default() };
        words(render_on(medium, &lines, Format::Text, &view))
    };
    for columns in 32..=120 {
        assert_eq!(on(Some(columns)), on(None), "{columns} columns");
    }
}

#[test]
fn every_line_is_whole_for_programs() {
    let without_spaces = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for (text, narrow) in texts(Medium::default())
        .iter()
        .zip(texts(Medium { columns: Some(40), ..Medium::default() }))
    {
        assert!(text.lines().count() < narrow.lines().count(), "{text}");
        assert!(text.lines().all(|line| !is_location_line(line) || line.contains('%')), "{text}");
        let wholes = [
            "Note: no capability CAP_SYSLOG: addresses instead of names; run as root, or allow it: \
             `sysctl -w kernel.kptr_restrict=1`",
            "Only: --netns 'Zürich 東' --port 80 --port 8000-8099",
            "reader of the queue a daemon whose name is as long as names can be",
            "entries that each namespace may hold; see `conntrack -L | sort | uniq -c | sort -n` …",
            "netns 7 · ifindex 9 · nginx (pid 812) (pid 2) in nginx.service · tcp [fd00::2]:65000 → \
             [fd00:1111:2222:3333:4444:5555:6666:7777]:65001 PSH ACK  (1 sample)",
        ];
        for whole in wholes.iter().filter(|whole| text.contains(&whole[..12])) {
            let whole = without_spaces(whole);
            assert!(
                text.lines().any(|line| without_spaces(line).contains(&whole)),
                "{whole}\n{text}"
            );
        }
        // What `grep` finds of a finding is all of its headline, in reports, sums and comparisons.
        let headlines = text.lines().filter(|line| line.contains("conntrack table full in Zürich"));
        for headline in headlines {
            assert!(headline.ends_with("(NETFILTER_DROP) 1.0%"), "{headline}");
        }
    }
}

#[test]
fn a_row_on_a_screen_is_broken_between_its_words() {
    let medium = Medium { columns: Some(80), ..Medium::default() };
    let view = Format::Text.view(None, false);
    let text = render_on(medium, &golden::story(Options::default()), Format::Text, &view);
    let row = "9000 packets dropped at ovs_dp_process_packet+0x1c4 [openvswitch]\n         \
               (OVS_DROP_LAST_ACTION) 97.5%\n";
    assert!(text.contains(row), "{text}");
}

#[test]
fn ascii_alone_where_the_locale_has_no_more() {
    for columns in [None, Some(40), Some(120)] {
        for color in [false, true] {
            let medium = Medium { columns, color, ascii: true };
            for text in texts(medium) {
                assert!(text.is_ascii(), "{text}");
                assert_eq!(text.contains('\x1b'), color, "{text}");
            }
        }
    }
    let mut classic = recordings().remove(0);
    for line in &mut classic {
        if let Line::Report(report) = line {
            report.locations.iter_mut().for_each(|row| row.place.symbol = Some("größe".to_owned()));
        }
    }
    let medium = Medium { ascii: true, ..Medium::default() };
    let view = Format::Classic.view(None, false);
    let classic = render_on(medium, &classic, Format::Classic, &view);
    assert!(classic.contains(" packets dropped at gr??e\n"), "{classic}");
    let text = &texts(Medium { ascii: true, ..Medium::default() })[2];
    assert!(text.contains("gw | eth0 | tcp 192.168.0.2:* > 192.168.0.30:8080 SYN"), "{text}");
    assert!(text.contains("ip_rcv < __netif_receive_skb_one_core"), "{text}");
    assert!(text.contains(r#"exec 'Z'"$(printf '\303\274')"'rich '"#), "{text}");
}

#[test]
fn a_recording_is_utf_8_in_every_locale() {
    let medium = Medium { ascii: true, ..Medium::default() };
    let lines = &recordings()[0];
    let view = Format::Json.view(None, false);
    let json = render_on(medium, lines, Format::Json, &view);
    assert!(json.contains("Zürich 東") && json.contains('×'), "{json}");
    let (back, ended) = again(json.as_bytes(), Format::Json, &view);
    ended.unwrap();
    assert_eq!(back, json);
}

#[test]
fn no_space_is_one_that_nobody_types() {
    for text in texts(Medium::default()) {
        assert!(!text.contains(['\u{a0}', '\u{202f}', '\u{2007}']), "{text}");
    }
    let text = &texts(Medium::default())[0];
    assert!(text.contains("16.5 MiB when full (65536 × 256 B"), "{text}");
}
