//! Whoever reads a word in an output and asks for it gets its meaning.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use dropwatch::render::explain::ExplainPage;
use serde_json::Value;

use crate::{explained, fixtures, known, rules_of};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn replayed(options: &[&str]) -> String {
    let file = fixtures().join("replay/v1.ndjson");
    let output = Command::new(env!("CARGO_BIN_EXE_dropwatch"))
        .arg("replay")
        .args(options.iter().map(|option| option.replace("FILE", file.to_str().expect("UTF-8"))))
        .arg(&file)
        .output()
        .expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The page about a word, which says what it is: a word of an output, or a counter.
fn answered(word: &str) -> ExplainPage<'static> {
    let page = explained(word).unwrap_or_else(|failure| panic!("{word}: {failure}"));
    assert!(!page.words.is_empty() || !page.counters.is_empty(), "{word}: {page:?}");
    page
}

/// Names of all properties in a schema.
fn properties(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Object(properties)) = fields.get("properties") {
                names.extend(properties.keys().cloned());
            }
            fields.values().for_each(|value| properties(value, names));
        }
        Value::Array(values) => values.iter().for_each(|value| properties(value, names)),
        _ => {}
    }
}

/// Names of all fields of a value.
fn fields(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(all) => {
            for (name, value) in all {
                names.insert(name.clone());
                fields(value, names);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| fields(value, names)),
        _ => {}
    }
}

#[test]
fn every_field_of_the_json_is_explained() {
    let mut names = BTreeSet::new();
    for schema in ["../docs/report.schema.json", "../docs/conntrack.schema.json"] {
        properties(&serde_json::from_str(&read(schema)).expect("a schema"), &mut names);
    }
    let comparison = replayed(&["--json", "--diff", "FILE"]);
    fields(&serde_json::from_str(&comparison).expect("a comparison"), &mut names);
    assert!(names.len() > 110, "{}", names.len());
    for name in names {
        answered(&name);
        answered(&name.to_uppercase());
        answered(&format!("\"{name}\": 12"));
    }
}

#[test]
fn every_metric_is_explained() {
    let metrics = read("tests/replay/snapshots/replay__metrics__text.snap");
    let helps = metrics.lines().filter_map(|line| line.strip_prefix("# HELP "));
    let names: BTreeSet<&str> = helps.filter_map(|help| help.split(' ').next()).collect();
    let page = read("../docs/metrics.md");
    let documented = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: BTreeSet<&str> = documented.filter_map(|line| line.split('`').next()).collect();
    assert!(names.len() > 4 && documented.len() > 10, "{names:?} {documented:?}");
    for name in names.union(&documented) {
        answered(name);
    }
    answered("dropwatch_lost_total{cause=\"map_full\"} 0");
}

#[test]
fn every_heading_of_the_live_view_is_explained() {
    let screen = read("tests/snapshots/tui__large.snap");
    let columns = screen.lines().find(|line| line.contains("LOCATION (REASON)")).expect("columns");
    for column in columns.split("  ").map(str::trim).filter(|column| !column.is_empty()) {
        answered(column.trim_end_matches('▼'));
    }
    answered(columns);
    answered("RATE▼       TOTAL  TREND         NAMESPACE");
    answered("Where");
    let lines: Vec<&str> = screen.lines().collect();
    let is_heading = |pair: &&[&str]| {
        pair[0].starts_with(|c: char| c.is_ascii_uppercase()) && pair[1].starts_with("  ")
    };
    let headings: Vec<&str> = lines.windows(2).filter(is_heading).map(|pair| pair[0]).collect();
    assert_eq!(headings, ["Who", "Found", "What it means"]);
    for heading in headings {
        answered(heading);
    }
}

#[test]
fn headings_of_connection_tracking_are_explained() {
    let page = read("tests/snapshots/conntrack__page_of_a_full_table_beside_an_empty_one.snap");
    let heads = page.lines().filter(|line| {
        line.strip_prefix("   ").is_some_and(|rest| rest.starts_with(|c: char| c.is_alphabetic()))
    });
    let heads: Vec<&str> = heads.collect();
    assert!(heads.len() > 5, "{heads:?}");
    for head in heads {
        answered(head);
    }
}

#[test]
fn sums_and_heads_of_the_text_are_explained() {
    for line in [
        "none lost",
        "07:35:10  10707 drops in 5.0s (2141/s) at 2 locations, none lost",
        "07:35:10  no drops in 5.0s, none lost, 3 undecided",
        "Total: 200 drops in 10.0s, 12 of them benign, none lost",
        "12 not located: 12 nested",
        "3 undecided",
        "3 undecided: --iface 1 · --port 2",
        "07:35:10  no drops in 5.0s, none lost, 3 undecided: --iface 1 · --port 2",
        " 168 more at 3 other locations 1.0%",
        "  12 benign drops at 3 locations not shown (--all shows them)",
        "  56  in 4 more namespaces",
        "  17 at 2 more locations",
        "worst: 12 drops in 1.0s (12/s) until 07:35:10",
        "Note: the kernel has no drop reasons",
        "Only: --netns gw",
        "before 200 drops (20/s)  a.ndjson",
        "by netns, iface",
        "undecided",
        "benign",
        "harmless",
        "nested",
        "not located",
        "elsewhere",
        "gone",
        "critical",
        "454 drops in 526ms (863/s) at 16 locations, none lost",
        "no drops in 5.0s",
        "28    6.2%  unknown",
        "27    5.9%  other",
        "   1  <0.1%  netns 4026532246  ifindex 7  udp  cpu 3",
        "650   65.0%  tcp TIME_WAIT       120 s  tcp_timeout_time_wait",
        "in 2 reports from 07:35:06 to 07:35:11; explains 9900 drops",
        "in the report of 07:35:06; explains 10 drops; before the command, too",
        "bash four.sh: exit status 0 after 0.5s",
        "bash -c 'a: b; c': ended by signal 9 after 0.5s",
        "make test: not run",
        "gw · eth0 · udp 10.0.0.1:* → 10.0.0.2:53",
        "gw | eth0 | udp 10.0.0.1:* > 10.0.0.2:53  (1 sample)",
        "no command for gw: it would have a name in it that cannot be typed",
        "12 early_drop unanswered entries given up",
        "gw eth0 tcp 192.168.0.2:* → 192.168.0.30:8080 SYN  (64 samples)",
        "some_caller ← some_other_caller  (70%)",
        "|--70.0%--some_caller",
        "gw has ended: no command can be run there",
        "esc back  ↑↓ other rows  space freeze  q quit",
        "gw: 1000 of 1000 entries (100.0%), full",
        "netns 4026532246: no entries, room for 1000",
        "$ ip netns exec gw some-program",
    ] {
        let page = answered(line);
        assert!(page.explained.is_empty() && rules_of(&page).is_empty(), "{line}: {page:?}");
    }
}

/// Of every line that the program prints, an answer is about something that stands in it.
#[test]
fn no_line_of_an_output_gets_something_unrelated() {
    let mut lines: Vec<String> = Vec::new();
    for options in [&["--all", "--top", "0"][..], &["--diff", "FILE"], &["--classic"]] {
        lines.extend(replayed(options).lines().map(str::to_owned));
    }
    let screens =
        ["large", "small", "detail", "help"].map(|it| format!("tests/snapshots/tui__{it}.snap"));
    let search = "tests/tui/snapshots/tui__search__search_large.snap".to_owned();
    for screen in screens.iter().chain([&search]) {
        let screen = read(screen);
        lines.extend(screen.lines().skip(4).map(str::to_owned));
    }
    assert!(lines.len() > 100, "{}", lines.len());
    let mut unrelated = Vec::new();
    for line in lines {
        let Ok(page) = explained(&line) else { continue };
        // Checked by themselves: counters lead to what raises them, headlines to their rules.
        if !page.counters.is_empty() || !rules_of(&page).is_empty() {
            continue;
        }
        if page.topics.len() == 1 && page.topics[0] == line.trim() {
            continue;
        }
        let stands = |name: &String| line.contains(name.as_str());
        let plain = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let command = plain.trim_start_matches("$ ").split(" # ").next().unwrap_or_default();
        for entry in page.explained.iter().chain(&page.related) {
            let settings = page
                .values
                .keys()
                .any(|name| line.contains(name.as_str()) || line.contains(&name.replace('.', "/")));
            let mut names = entry.reasons.iter().chain(&entry.at).chain(&entry.seen_at);
            // A part of what it says itself.
            let says = format!("{}: {}", entry.title, entry.meaning).contains(&plain)
                || entry.commands().any(|it| it.starts_with(command) || it.contains(&plain))
                || entry.knobs.iter().any(|knob| knob.effect.contains(&plain));
            if !names.any(stands) && !settings && !says {
                unrelated.push(format!("{line}: {}", entry.title));
            }
        }
    }
    assert!(unrelated.is_empty(), "{unrelated:#?}");
}

#[test]
fn words_are_whole() {
    let mut names = BTreeSet::new();
    for word in &known().words {
        for name in &word.names {
            assert!(names.insert(name), "{name}: explained twice");
            assert_eq!(answered(name).words.len(), 1, "{name}");
        }
        assert!(word.meaning.ends_with('.') && !word.place.is_empty(), "{:?}", word.names);
    }
}
