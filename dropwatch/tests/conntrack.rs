//! What `dropwatch conntrack` prints, for people and for programs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use dropwatch::{
    render::{ConntrackText, Medium, Style, json_line},
    report::{
        conntrack::{
            ConntrackCounter, ConntrackCounters, ConntrackEntry, ConntrackInterval, ConntrackStats,
            ConntrackTally, ConntrackView, Endpoint,
        },
        facts::Netns,
        model::Host,
    },
};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;

const SCHEMA: &str = include_str!("../../docs/conntrack.schema.json");
const PAGE: &str = include_str!("../../docs/json.md");
/// Where that page turns to this command.
const SECTION: &str = "\n# `dropwatch conntrack --json`\n";

fn counters(values: &[(ConntrackCounter, u32)]) -> ConntrackCounters {
    let mut counters = ConntrackCounters::default();
    values.iter().for_each(|(counter, count)| counters.add(*counter, *count));
    counters
}

fn line(
    name: Option<&str>,
    stats: ConntrackStats,
    tally: &ConntrackTally,
    before: Option<ConntrackCounters>,
) -> ConntrackView {
    let host = Host { host: "gw".into(), boot_id: "b".into(), kernel: "6.18.44".into() };
    let netns = Netns::new(name.map(str::to_owned), 4_026_532_246);
    let interval = before.and_then(|before| {
        ConntrackInterval::between(&before, &stats.counters, Duration::from_millis(5001))
    });
    let timeouts = BTreeMap::from([
        ("nf_conntrack_tcp_timeout_time_wait", 120),
        ("nf_conntrack_tcp_timeout_established", 432_000),
        ("nf_conntrack_udp_timeout", 30),
    ]);
    ConntrackView::new((host, time()), netns, stats, interval, tally.table(2, &timeouts))
}

fn time() -> Timestamp {
    "2026-11-22T07:35:10.250Z".parse().unwrap()
}

fn tally(entries: &[(u8, u8, &str, &str, u64)]) -> ConntrackTally {
    let mut tally = ConntrackTally::default();
    for &(protocol, state, source, replier, count) in entries {
        let endpoint = |address: &str, port| Endpoint {
            address: address.parse().unwrap(),
            port: (protocol != 1).then_some(port),
        };
        let destination = endpoint("192.168.0.30", 8080);
        let replier = if replier.is_empty() { destination } else { endpoint(replier, 80) };
        for _ in 0..count {
            tally.add(&ConntrackEntry {
                protocol,
                state: (protocol == 6).then_some(state),
                status: 0,
                source: source.parse().unwrap(),
                destination,
                replier,
            });
        }
    }
    tally
}

/// The story's gateway, with a full table.
fn gateway(before: Option<ConntrackCounters>) -> ConntrackView {
    let stats = ConntrackStats {
        entries: 1000,
        limit: Some(1000),
        buckets: Some(65_536),
        object_bytes: Some(256),
        counters: counters(&[
            (ConntrackCounter::Drop, 10_031),
            (ConntrackCounter::EarlyDrop, 0),
            (ConntrackCounter::Invalid, 12),
            (ConntrackCounter::Found, 0),
        ]),
    };
    let tally = tally(&[
        (6, 7, "192.168.0.2", "192.168.0.31", 650),
        (6, 3, "192.168.0.2", "192.168.0.31", 338),
        (17, 0, "192.168.0.96", "", 9),
        (1, 0, "fd00::1", "", 3),
    ]);
    line(Some("gw\u{1b}[2J"), stats, &tally, before)
}

fn empty() -> ConntrackView {
    let stats = ConntrackStats { limit: Some(1000), ..ConntrackStats::default() };
    line(None, stats, &ConntrackTally::default(), None)
}

fn page(spaces: &[ConntrackView], color: bool) -> String {
    page_on(Medium { color, ..Medium::default() }, spaces)
}

fn page_on(medium: Medium, spaces: &[ConntrackView]) -> String {
    let notices = ["web: missing \u{1b}CAP_NET_ADMIN".to_owned()];
    let style = Style { medium, time_zone: TimeZone::UTC };
    String::from_utf8(ConntrackText::new(style).page(time(), &notices, spaces)).unwrap()
}

#[test]
fn page_of_a_full_table_beside_an_empty_one() {
    let before = counters(&[(ConntrackCounter::Drop, 1), (ConntrackCounter::Invalid, 12)]);
    let page = page(&[gateway(Some(before)), empty()], false);
    insta::assert_snapshot!(page);
    assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
}

#[test]
fn a_narrow_screen_breaks_between_words_and_ascii_is_ascii() {
    for columns in 40..=120 {
        let medium = Medium { columns: Some(columns), ascii: columns % 2 == 0, color: false };
        let text = page_on(medium, &[gateway(None), empty()]);
        assert_eq!(text.is_ascii(), medium.ascii, "{text}");
        for line in text.lines() {
            let fits = line.chars().count() <= columns || !line.trim().contains(' ');
            assert!(fits, "{columns} columns: {line}");
        }
    }
}

#[test]
fn the_first_page_has_no_rates() {
    let page = page(&[gateway(None)], false);
    assert!(page.contains("counted since the namespace began\n     10031  drop"), "{page}");
    assert!(!page.contains("/s"), "{page}");
}

#[test]
fn colours_point_at_what_is_lost_and_nothing_else_is_marked() {
    let coloured = page(&[gateway(None)], true);
    assert!(coloured.contains("\u{1b}[1m\u{1b}[31m1000 of 1000 entries (100.0%), full\u{1b}[0m"));
    assert!(coloured.contains("\u{1b}[1m\u{1b}[31m     10031  drop   \u{1b}[0m"), "{coloured:?}");
    assert!(!page(&[gateway(None), empty()], false).contains('\u{1b}'));
}

/// A flood from made-up addresses, which none of them stands out of; and with one that does.
#[test]
fn a_ranking_that_is_not_exact_says_so() {
    let stats =
        ConntrackStats { entries: 100_000, limit: Some(262_144), ..ConntrackStats::default() };
    for heavy in [0, 40] {
        let mut tally = tally(&[(6, 1, "192.168.0.2", "", heavy)]);
        for i in 0..100_000_u32 {
            let destination =
                Endpoint { address: "192.168.0.30".parse().unwrap(), port: Some(8080) };
            tally.add(&ConntrackEntry {
                protocol: 6,
                state: Some(1),
                status: 0,
                source: IpAddr::V4(i.into()),
                destination,
                replier: destination,
            });
        }
        let line = line(Some("gw"), stats, &tally, None);
        assert_valid(&line);
        let page = page(std::slice::from_ref(&line), false);
        assert!(page.contains("memory unknown"), "{page}");
        let sources = &line.table.sources;
        assert!(sources.error > 0, "{page}");
        let expected = match sources.rows.as_slice() {
            [] => format!("sources: very many, none with more than {} entries", 2 * sources.error),
            _ => format!("the largest of very many (counts up to {} too low)", sources.error),
        };
        assert!(page.contains(&expected), "{page}");
        assert_eq!(sources.rows.len(), usize::from(heavy > 0), "{page}");
    }
}

#[test]
fn json_lines_are_valid() {
    for conntrack in [gateway(None), gateway(Some(ConntrackCounters::default())), empty()] {
        assert_valid(&conntrack);
    }
}

fn assert_valid(conntrack: &ConntrackView) {
    let mut line = Vec::new();
    json_line(&conntrack.line(), &mut line).unwrap();
    let line = String::from_utf8(line).unwrap();
    assert!(line.starts_with(r#"{"v":1,"type":"conntrack","#), "{line}");
    assert_eq!(line.lines().count(), 1);
    validate(&serde_json::from_str(&line).unwrap());
}

fn validate(line: &Value) {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    if let Err(error) = validator.validate(line) {
        panic!("{error} at {} in {line}", error.instance_path());
    }
}

#[test]
fn the_documented_example_is_valid_and_every_field_is_described() {
    let (_, section) = PAGE.split_once(SECTION).expect("docs/json.md describes it");
    let (_, example) = section.split_once("```json\n").expect("an example");
    let (example, _) = example.split_once("```").expect("its end");
    validate(&serde_json::from_str(example).unwrap());

    fn names(schema: &Value, into: &mut Vec<String>) {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            into.extend(properties.keys().cloned());
        }
        match schema {
            Value::Object(fields) => fields.values().for_each(|value| names(value, into)),
            Value::Array(values) => values.iter().for_each(|value| names(value, into)),
            _ => {}
        }
    }
    let mut fields = Vec::new();
    names(&serde_json::from_str(SCHEMA).unwrap(), &mut fields);
    assert!(fields.len() > 30, "{fields:?}");
    for field in fields {
        assert!(PAGE.contains(&format!("`{field}`")), "docs/json.md does not describe {field}");
    }
}
